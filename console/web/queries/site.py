"""What a hospital's pages show, as frozen values: budgets, studies, what waits for people.

Everything comes from the site's folder, read-only; ``LedgerReader`` keeps the sums. Epsilons are computed by the
accountant of the command line and kept until another round is charged.
"""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from sqlite3 import Connection

from cryptography import x509

from wardround.client.governance import CONSORTIUM_DOMAIN
from wardround.client.joining import joined_link
from wardround.client.office import GrantLine, standing_of
from wardround.client.store.folder import SiteFolder
from wardround.client.store.studies import StoredStudy, Studies
from wardround.console.web.queries.budget import BudgetQueries
from wardround.console.web.queries.epsilons import Epsilons
from wardround.console.web.queries.ledger import Books, LedgerReader
from wardround.console.web.queries.papers import Papers
from wardround.console.web.queries.plans import Plans
from wardround.console.web.queries.recount import Recount
from wardround.console.web.queries.releases import ReleaseQueries
from wardround.privacy.books import Domain, without_waived
from wardround.protocol.errors import WardroundError
from wardround.protocol.events import DpEvent
from wardround.protocol.indicators import Indicators
from wardround.protocol.messages import Standing


@dataclass(frozen=True, slots=True)
class Budget:
    """A data domain's budget now.

    ``epsilon``: of all that was charged, at ``delta``, against everyone or, for the second curve, the coordinator and
    those who may collude; None: the accountant's own check failed. ``share``: spent of what the filter allows, rounded
    up, 0..1. ``rounds_left`` and ``studies_left``: of the kind that was granted last, by the filter; None: none yet.
    ``without_privacy``: releases that officers have waived, which no epsilon covers.
    """

    name: str
    epsilon: float | None
    cap: float
    delta: float
    consortium: bool
    closed: bool
    share: float
    rounds_left: int | None
    studies_left: int | None
    rounds_of_last: int
    rounds_charged: int
    without_privacy: int


@dataclass(frozen=True, slots=True)
class StudyLine:
    """A plan that was proposed here, and how it stands.

    It has ``rounds``; ``charged`` of ``charges`` count against the budget: rounds, or where it is a ``campaign`` of
    indicators all of it.
    """

    digest: str
    study: str
    title: str
    received_at: str
    standing: Standing
    rounds: int
    charges: int
    charged: int
    campaign: bool = False


@dataclass(frozen=True, slots=True)
class Expiry:
    """When a certificate ends: ``days`` from now, negative if it has ended."""

    name: str
    days: int
    at: datetime


@dataclass(frozen=True, slots=True)
class SiteView:
    """What the ledger and the list of studies say at one moment."""

    entries: int
    last_at: str
    released_at: str
    officers: tuple[str, ...]
    budgets: tuple[Budget, ...]
    studies: tuple[StudyLine, ...]


class SiteQueries:
    """Reads one site's folder. May be used from any thread; nothing in it is ever written."""

    def __init__(self, folder: SiteFolder) -> None:
        self.folder = folder
        self.ledger = LedgerReader(folder.path, folder.site)
        self.recount = Recount(folder.path)
        self.papers = Papers(folder.path)
        self.epsilons = Epsilons()
        plans = Plans()
        self.budgets = BudgetQueries(self.ledger, self.epsilons, plans)
        self.releases = ReleaseQueries(folder.site, self.ledger, plans)

    def view(self) -> SiteView:
        """Everything that the overview shows of the ledger. Raises WardroundError when it cannot be read."""
        with self.ledger.read() as (books, store):
            opened = [(name, domain) for name, domain in sorted(books.state.domains.items()) if domain.allowance]
            spent = {name: without_waived(books.state.events(domain=name)) for name, _ in opened}
            likes = {name: books.like_last(name) for name, _ in opened}
            studies = _studies(books, store)
            entries, last_at, released_at = books.state.size, books.last_at, books.released_at
            named, gone = books.state.officers, set(books.state.suspended)
        return SiteView(
            entries,
            last_at,
            released_at,
            tuple(sorted(name for name, key in named.officers.items() if key not in gone)) if named else (),
            tuple(self._budget(name, domain, *spent[name], likes[name]) for name, domain in opened),
            studies,
        )

    def study(self, digest: str) -> StudyLine | None:
        """One proposed plan and how it stands, or None."""
        with self.ledger.read() as (books, store):
            held = Studies(store).get(digest)
            return None if held is None else study_line(books, held)

    def warm(self) -> None:
        """Fold the ledger and compute its epsilons before somebody waits for a page; a fault shows on the page."""
        with suppress(WardroundError):
            self.view()
            for name in self.budgets.names():
                self.budgets.domain(name)

    def clock_set_at(self) -> str:
        """When an officer last signed that time begins again, or ""."""
        with self.ledger.read() as (books, _):
            return books.clock_set_at

    def certificates(self, now: datetime | None = None) -> list[Expiry]:
        """The certificates of the link and when each ends; none for a site that has not joined."""
        when, found = datetime.now(UTC) if now is None else now, list[Expiry]()
        try:
            if (link := joined_link(self.folder)) is None:
                return []
            content = (link / "ca.pem").read_bytes()
            certificates = x509.load_pem_x509_certificates(content)
        except (WardroundError, OSError, ValueError):
            return []
        for certificate in certificates:
            days = (certificate.not_valid_after_utc - when).days
            found.append(Expiry(certificate.subject.rfc4514_string(), days, certificate.not_valid_after_utc))
        return found

    def _budget(
        self, name: str, domain: Domain, events: list[tuple[DpEvent, int]], waived: int, like: tuple[int, int] | None
    ) -> Budget:
        assert domain.allowance is not None and domain.fact.epsilon_cap is not None
        left = max(0, domain.allowance - domain.spent)
        price, rounds = like or (0, 0)
        fit = left // price if price and not domain.closed else None
        return Budget(
            name=name,
            epsilon=self.epsilons.of((name,), events, domain.fact.delta),
            cap=domain.fact.epsilon_cap,
            delta=domain.fact.delta,
            consortium=name == CONSORTIUM_DOMAIN,
            closed=domain.closed,
            share=min(1.0, -(-1000 * domain.spent // domain.allowance) / 1000),
            rounds_left=fit,
            studies_left=fit // rounds if fit is not None and rounds else None,
            rounds_of_last=rounds,
            rounds_charged=sum(count for _, count in events) + waived,
            without_privacy=waived,
        )


def _studies(books: Books, store: Connection) -> tuple[StudyLine, ...]:
    return tuple(study_line(books, held) for held in Studies(store).all())


def study_line(books: Books, held: StoredStudy) -> StudyLine:
    """A proposed plan as the ledger says it stands."""
    grants = tuple(
        GrantLine(domain, grant.fact.version, grant.fact.blocks, grant.used)
        for (plan, domain), grant in books.state.grants.items()
        if plan == held.digest
    )
    plan = held.plan
    charged = max((grant.used for grant in grants), default=0)
    standing = standing_of(held, grants, bool(books.state.plan_suspended_by(held.digest)))
    return StudyLine(
        plan.digest,
        plan.study,
        plan.title,
        held.received_at,
        standing,
        plan.rounds,
        plan.charges,
        charged,
        isinstance(plan.task, Indicators),
    )
