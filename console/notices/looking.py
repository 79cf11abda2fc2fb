"""What a site looks like now, for notices: asked of its daemon, and read from its folder without writing."""

from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.x509 import load_pem_x509_certificates

from wardround.client.control import control_pb2 as pb
from wardround.client.control.client import SECONDS, control
from wardround.client.daemon import link_of
from wardround.client.settings import read_settings
from wardround.client.store.database import open_copy
from wardround.client.store.evidence import Evidence
from wardround.client.store.folder import SiteFolder
from wardround.client.store.receipts import Receipts
from wardround.client.store.witnessing import open_alarms
from wardround.console.notices.watching import Seen, SeenStudy
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.plan import StudyPlan


@dataclass(slots=True)
class Looker:
    """Looks at one site again and again; it remembers since when the link is down."""

    folder: SiteFolder
    _down_since: datetime | None = None

    def look(self, now: datetime) -> Seen:
        """The site now (UTC). A daemon that does not answer is a thing to be seen, and no error."""
        try:
            with control(self.folder.path) as site:
                status = site.Status(pb.StatusRequest(), timeout=SECONDS)
                studies = list(site.ListStudies(pb.Empty(), timeout=SECONDS).studies)
        except (Unavailable, UsageError):
            return Seen(
                self.folder.site, now, answers=False, alarms=alarms(self.folder), ledgers=ledger_alarms(self.folder)
            )
        self._down_since = None if status.link == "up" else self._down_since or now
        spent = {b.domain: 100 * b.spent // b.allowance for study in studies for b in study.budgets if b.allowance}
        return Seen(
            site=self.folder.site,
            at=now,
            answers=True,
            paused=status.reason if status.state == "paused" else None,
            link_down_since=self._down_since,
            studies=tuple(self._study(study) for study in studies),
            spent=tuple(sorted(spent.items())),
            certificate_ends=certificate_ends(self.folder),
            alarms=alarms(self.folder),
            ledgers=ledger_alarms(self.folder),
        )

    def _study(self, study: Any) -> SeenStudy:
        plan = StudyPlan.parse(bytes(study.plan))
        voided = voided_rounds(self.folder, plan.digest)
        return SeenStudy(plan.study, plan.digest, study.standing, study.fault, voided)


def voided_rounds(folder: SiteFolder, plan: str) -> tuple[tuple[int, int, tuple[str, ...]], ...]:
    """The rounds of a plan that ended void: number, attempt, and who voided them."""
    with closing(open_copy(folder.database)) as store:
        receipts = Receipts(store).of(plan)
    return tuple((r.round_number, r.attempt, r.voided_by) for r in receipts if r.state == "void")


def alarms(folder: SiteFolder) -> tuple[tuple[str, str], ...]:
    """What others signed and could not have signed honestly, by kind and digest."""
    with closing(open_copy(folder.database)) as store:
        return tuple((exhibit.kind, exhibit.digest) for exhibit in Evidence(store, folder.site).all())


def ledger_alarms(folder: SiteFolder) -> tuple[tuple[str, str, str], ...]:
    """Alarms on ledgers that nothing has answered: kind, whose ledger, and digest."""
    return tuple((one.kind.value, one.origin, one.digest) for one in open_alarms(folder.database, folder.site))


def certificate_ends(folder: SiteFolder) -> datetime | None:
    """When the authority that the link pins ends; None: the site has joined nobody."""
    try:
        settings = read_settings(folder.path)
        link = folder.path / settings.link if settings.link else Path(link_of(folder))
        found = load_pem_x509_certificates((link / "ca.pem").read_bytes())
    except (OSError, ValueError, UsageError):
        return None
    return min(each.not_valid_after_utc for each in found).astimezone(UTC)
