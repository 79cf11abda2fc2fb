"""What the pages of studies show, as frozen values: every plan that was proposed, and how one of them stands.

All is read from the site's folder, under one look at the ledger; epsilons are computed outside of it.
"""

import re
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from wardround.client.governance import CONSORTIUM_DOMAIN
from wardround.client.limits import unfit_here
from wardround.client.office import GrantLine
from wardround.client.store.studies import StoredStudy, Studies
from wardround.console.plan_changes import former
from wardround.console.web.queries.ledger import Books
from wardround.console.web.queries.site import SiteQueries, StudyLine, study_line
from wardround.privacy.accounting import epsilon
from wardround.protocol.errors import WardroundError
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.messages import Standing
from wardround.protocol.plan import Claim, StudyPlan

PAGE_SIZE: Final = 50
DIGEST: Final = re.compile(r"[0-9a-f]{64}")

_counting = threading.Lock()
"""One epsilon at a time: the accountant keeps what it has found, so who waits finds it there."""


@dataclass(frozen=True, slots=True)
class Figure:
    """An epsilon of a whole plan at its delta; None: the accountant has no bound.

    ``consortium``: against the coordinator and those who may collude, else against everyone. ``limit``: what the plan
    itself says that it costs at most.
    """

    epsilon: float | None
    delta: float
    consortium: bool
    limit: float

    @property
    def broken(self) -> bool:
        """Whether the plan costs more than it says; it promises what it does not keep."""
        return self.epsilon is not None and self.epsilon > self.limit


@dataclass(frozen=True, slots=True)
class StudyRow:
    """A line of the list. ``masked``: without an epsilon the sums are masked at least; ``newer``: a digest, or ""."""

    line: StudyLine
    masked: bool
    figures: tuple[Figure, ...]
    newer: str


@dataclass(frozen=True, slots=True)
class StudyList:
    """One page of the list; ``counts`` has the number of plans of each standing, ``found`` those of the one asked."""

    rows: tuple[StudyRow, ...]
    counts: dict[Standing, int]
    found: int
    page: int
    pages: int


@dataclass(frozen=True, slots=True)
class Room:
    """What a data domain has left for a plan, in units at its order, and how many of the plan's rounds it was charged.

    ``left`` is 0 in a closed domain. ``cap`` is the domain's for ever, at ``delta``.
    """

    domain: str
    consortium: bool
    closed: bool
    order: int
    left: int
    cap: float
    delta: float
    charged: int


@dataclass(frozen=True, slots=True)
class StudyView:
    """A plan and how it stands. ``fault``: why policy would not let it run, or ""; ``former``: approved here before."""

    plan: StudyPlan
    line: StudyLine
    refused: str
    fault: str
    grants: tuple[GrantLine, ...]
    rooms: tuple[Room, ...]
    newer: str
    former: StudyPlan | None


@dataclass(frozen=True, slots=True)
class _Held:
    plan: StudyPlan
    standing: Standing


def warm(queries: SiteQueries) -> None:
    """Compute what the first pages show before somebody waits for it; a fault shows on the page."""
    queries.warm()
    with suppress(WardroundError):
        study_list(queries, None, 1)


def study_list(queries: SiteQueries, standing: Standing | None, page: int) -> StudyList:
    """Page ``page`` (from 1) of the plans of a standing, or of all, the newest first; a page too far is the last."""
    with queries.ledger.read() as (books, store):
        held = [(one, study_line(books, one)) for one in Studies(store).all()]
    counts: dict[Standing, int] = {}
    for _, line in held:
        counts[line.standing] = counts.get(line.standing, 0) + 1
    wanted = [pair for pair in held if standing is None or pair[1].standing is standing]
    pages = max(1, -(-len(wanted) // PAGE_SIZE))
    page = min(page, pages)
    every = [one for one, _ in held]
    rows = tuple(
        StudyRow(
            line, one.plan.privacy.secure_aggregation, figures(one.plan, queries.folder.site), newer_than(one, every)
        )
        for one, line in wanted[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]
    )
    return StudyList(rows, counts, len(wanted), page, pages)


def study_view(queries: SiteQueries, digest: str) -> StudyView | None:
    """One plan, or None where ``digest`` is none that was proposed here."""
    if DIGEST.fullmatch(digest) is None:
        return None
    with queries.ledger.read() as (books, store):
        held = Studies(store).all()
        found = next((one for one in held if one.digest == digest), None)
        if found is None:
            return None
        lines = {one.digest: study_line(books, one) for one in held if one.plan.study == found.plan.study}
        grants = _grants(books, digest)
        rooms = _rooms(books, digest)
    others = [_Held(one.plan, lines[one.digest].standing) for one in held if one.digest in lines]
    before = former(found.plan, others)
    return StudyView(
        plan=found.plan,
        line=lines[digest],
        refused=found.refused or "",
        fault=unfit_here(found.plan, queries.folder) or "",
        grants=grants,
        rooms=rooms,
        newer=newer_than(found, held),
        former=None if before is None else before.plan,
    )


def plan_bytes(queries: SiteQueries, digest: str) -> bytes | None:
    """A plan as it was proposed, or None."""
    if DIGEST.fullmatch(digest) is None:
        return None
    with queries.ledger.read() as (_, store):
        held = Studies(store).get(digest)
    return None if held is None else held.plan.canonical


def figures(plan: StudyPlan, site: str, charged: int = 0) -> tuple[Figure, ...]:
    """What all charges of ``plan`` cost: against everyone and, where it claims so, a second figure.

    Nothing for a plan without differential privacy. ``charged``: how often it was charged, where that is more than the
    plan says because rounds were tried again.
    """
    terms, of, charges = plan.privacy, named_site(plan, site), max(plan.charges, charged)
    if terms.delta is None or terms.epsilon is None:
        return ()
    found = [Figure(_epsilon(plan.round_event(of), charges, terms.delta), terms.delta, False, terms.epsilon)]
    if terms.claim is Claim.EPSILON_BOTH and terms.epsilon_consortium is not None:
        shared = _epsilon(plan.consortium_event(of), charges, terms.delta)
        found.append(Figure(shared, terms.delta, True, terms.epsilon_consortium))
    return tuple(found)


def named_site(plan: StudyPlan, site: str) -> str:
    """``site``, or for a plan that does not name it another one: no epsilon depends on which."""
    names = [one.site for one in plan.participants]
    return site if site in names else names[0]


def newer_than(study: StoredStudy, held: Sequence[StoredStudy]) -> str:
    """The digest of the newest plan of the same study that came later; "" where there is none."""
    same = (one for one in held if one.plan.study == study.plan.study and one.received_at > study.received_at)
    return next((one.digest for one in same), "")


def _epsilon(event: object, charges: int, delta: float) -> float | None:
    assert isinstance(event, PoissonGaussian)
    with _counting:
        try:
            found = epsilon([event] * charges, delta)
        except ArithmeticError:
            return None
    return found if found < float("inf") else None


def _grants(books: Books, digest: str) -> tuple[GrantLine, ...]:
    return tuple(
        GrantLine(domain, grant.fact.version, grant.fact.blocks, grant.used)
        for (of, domain), grant in sorted(books.state.grants.items())
        if of == digest
    )


def _rooms(books: Books, digest: str) -> tuple[Room, ...]:
    """The domains with a budget: what people opened for patients first, then the consortium's curve."""
    found = []
    for name, domain in sorted(books.state.domains.items(), key=lambda pair: (pair[0] == CONSORTIUM_DOMAIN, pair[0])):
        fact = domain.fact
        if domain.allowance is None or fact.order is None or fact.epsilon_cap is None:
            continue
        grant = books.state.grants.get((digest, name))
        left = 0 if domain.closed else max(0, domain.allowance - domain.spent)
        found.append(
            Room(
                domain=name,
                consortium=name == CONSORTIUM_DOMAIN,
                closed=domain.closed,
                order=fact.order,
                left=left,
                cap=fact.epsilon_cap,
                delta=fact.delta,
                charged=0 if grant is None else grant.used,
            )
        )
    return tuple(found)
