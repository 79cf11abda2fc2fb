"""What people of a hospital should know now, by the rules of ``console.notices``: the same that e-mails are made of.

The console reads the stores itself, so that a daemon that does not answer hides no study and no budget. How many
notices wait for a role is kept for some seconds, because every page shows it.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from typing import Final

from wardround.client.limits import unfit_here
from wardround.client.store.database import open_copy
from wardround.client.store.receipts import Receipts
from wardround.client.store.studies import Studies
from wardround.console.notices.looking import alarms, certificate_ends, ledger_alarms
from wardround.console.notices.watching import Level, Notice, Seen, SeenStudy, notices
from wardround.console.web.live import Status
from wardround.console.web.queries.site import SiteQueries, SiteView, StudyLine
from wardround.console.web.roles import Role
from wardround.protocol.errors import WardroundError
from wardround.protocol.messages import Standing

KEPT_SECONDS: Final = 15.0
_OFFICERS_ONLY: Final = ("study", "budget", "officer-keys")


def kind(notice: Notice) -> str:
    """What a notice is about: study, budget, round, link, daemon, certificate, alarm, ledger or officer-keys."""
    return notice.key.partition("/")[0]


def waiting_for(role: Role, found: Sequence[Notice]) -> list[Notice]:
    """Those that this role has something to do with. An auditor decides nothing, so nothing waits for her."""
    if role is Role.AUDITOR:
        return []
    # A round that another hospital voided is told, and asks nothing of anybody here.
    asking = [one for one in found if kind(one) != "round" or one.level is not Level.NOTE]
    return [one for one in asking if role is Role.OFFICER or kind(one) not in _OFFICERS_ONLY]


class Noticing:
    """Looks at one site for its console. ``ask`` asks the daemon; may be used from any thread."""

    def __init__(self, queries: SiteQueries, ask: Callable[[], Status]) -> None:
        self._queries = queries
        self._ask = ask
        self._lock = threading.Lock()
        self._down_since: datetime | None = None
        self._kept: tuple[float, list[Notice]] | None = None
        self._looking = False

    def look(self, status: Status | None = None, view: SiteView | None = None) -> list[Notice]:
        """Everything that is true now, the most urgent first; ``status`` and ``view`` where somebody has them already.

        Raises WardroundError when the ledger cannot be read.
        """
        seen = self.seen(datetime.now(UTC), status or self._ask(), view or self._queries.view())
        found = notices(seen, patience=timedelta(0))
        with self._lock:
            self._kept = time.monotonic(), found
        return found

    def count(self, role: Role) -> int:
        """How many wait for ``role``, as of some seconds ago: no page waits for it, and the first shows none."""
        with self._lock:
            kept = self._kept
            stale = kept is None or time.monotonic() - kept[0] > KEPT_SECONDS
            begin, self._looking = stale and not self._looking, stale or self._looking
        if begin:
            threading.Thread(target=self._look_again, daemon=True, name="console-notices").start()
        return 0 if kept is None else len(waiting_for(role, kept[1]))

    def seen(self, now: datetime, status: Status, view: SiteView) -> Seen:
        """The site now, from its stores and the daemon's status."""
        folder = self._queries.folder
        with self._lock:
            down = status.answers and status.link != "up"
            self._down_since = (self._down_since or now) if down else None
            since = self._down_since
        with self._queries.ledger.read() as (books, _):
            opened = [(name, domain) for name, domain in sorted(books.state.domains.items()) if domain.allowance]
            spent = tuple((name, 100 * domain.spent // domain.allowance) for name, domain in opened if domain.allowance)
        return Seen(
            site=folder.site,
            at=now,
            answers=status.answers,
            paused=status.reason if status.state == "paused" else None,
            link_down_since=since,
            studies=tuple(self._study(study) for study in view.studies),
            spent=spent,
            certificate_ends=certificate_ends(folder),
            alarms=alarms(folder),
            ledgers=ledger_alarms(folder),
        )

    def _study(self, study: StudyLine) -> SeenStudy:
        folder, fault = self._queries.folder, ""
        with closing(open_copy(folder.database)) as store:
            if study.standing is Standing.PROPOSED and (held := Studies(store).get(study.digest)) is not None:
                fault = unfit_here(held.plan, folder) or ""
            voided = Receipts(store).void_since_last_closed(study.digest)
        rounds = tuple((one.round_number, one.attempt, one.voided_by) for one in voided)
        return SeenStudy(study.title, study.digest, study.standing.value, fault, rounds)

    def _look_again(self) -> None:
        try:
            with suppress(WardroundError):
                self.look()
        finally:
            with self._lock:
                self._looking = False
