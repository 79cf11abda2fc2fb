"""What a site can tell one patient: what the ledger says of the rounds that could have drawn them.

Who was drawn is written down nowhere, so the answer says "could have been drawn", never "was". A round counts when it
started, on a domain that held the patient, while the patient had not opted out. The order of the ledger's entries
decides that, not the clock.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from sqlite3 import Connection

from wardround.client.store.database import explained
from wardround.client.store.ledger import stored_entries
from wardround.client.store.members import KnownId, Members, Part
from wardround.client.store.opt_outs import OptOut, OptOuts
from wardround.privacy.accounting import epsilon
from wardround.privacy.books import repeated, without_waived
from wardround.privacy.ledger import LedgerState
from wardround.protocol.entry import parse_content
from wardround.protocol.events import DpEvent
from wardround.protocol.ledger import Release, Reserve, Start


@dataclass(frozen=True, slots=True)
class Sent:
    """A vector left the site at a time (UTC); ``content`` is the SHA-256 of its bytes in hex."""

    at: str
    attempt: int
    content: str


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """A round that could have drawn the patient, from ``started`` (UTC) on, and what left after it."""

    domain: str
    round_number: int
    started: str
    sent: tuple[Sent, ...]


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """The rounds of one plan, by its SHA-256, that could have drawn the patient."""

    plan: str
    rounds: tuple[RoundRecord, ...]


@dataclass(frozen=True, slots=True)
class DomainRecord:
    """A domain that the patient belongs to, under one id.

    ``epsilon``, at ``delta``, is of the rounds that could have drawn the patient and of what recoveries charged, for
    one patient, adding or removing one. ``epsilon_cap`` and ``share_left`` (0..1, of the filter) are the whole
    domain's, for all its rounds. None where no officer has opened the domain yet. ``without_privacy`` counts rounds
    that two officers have waived: no epsilon bounds what these told.
    """

    domain: str
    part: Part
    since: str
    delta: float | None
    epsilon: float | None
    epsilon_cap: float | None
    share_left: float | None
    closed: bool
    without_privacy: int = 0


@dataclass(frozen=True, slots=True)
class Absence:
    """The patient was opted out from ``since`` to ``until`` (UTC); None: still is."""

    since: str
    until: str | None


@dataclass(frozen=True, slots=True)
class PatientRecord:
    """The answer. ``merged_since``: when each further id turned out to be this patient's."""

    domains: tuple[DomainRecord, ...]
    merged_since: tuple[str, ...]
    opted_out: tuple[Absence, ...]
    studies: tuple[StudyRecord, ...]

    @property
    def known(self) -> bool:
        return bool(self.domains)


@dataclass(slots=True)
class _Block:
    number: int
    fact: Reserve
    started: str | None = None
    sent: tuple[Sent, ...] = ()


def patient_record(
    store: Connection, site: str, state: LedgerState, members: Members, opt_outs: OptOuts, id_: str
) -> PatientRecord:
    """The answer for the patient with this id, from the ledger of ``site`` in ``store``, which adds up to ``state``."""
    known = members.known_ids(id_)
    absences = {each.id: opt_outs.history(each.id) for each in known}
    domains = {membership.domain for each in known for membership in each.memberships}
    eligible = [block for block in _started(store, site, domains) if _could_draw(block, known, absences)]
    studies: dict[str, list[RoundRecord]] = {}
    for block in eligible:
        fact = block.fact
        row = RoundRecord(fact.domain, fact.round_number, block.started or "", block.sent)
        studies.setdefault(fact.plan, []).append(row)
    return PatientRecord(
        tuple(
            _domain(state, membership.domain, membership.part, membership.since, eligible)
            for each in known
            for membership in each.memberships
        ),
        tuple(each.merged_since for each in known if each.merged_since is not None),
        tuple(sorted((Absence(a.since, a.until) for of in absences.values() for a in of), key=lambda a: a.since)),
        tuple(StudyRecord(plan, tuple(rounds)) for plan, rounds in studies.items()),
    )


def _started(store: Connection, site: str, domains: set[str]) -> Iterable[_Block]:
    """The blocks on ``domains`` that started, in the order of their reservations."""
    blocks: dict[str, _Block] = {}
    with explained(f"the ledger of site '{site}'"):
        for entry in stored_entries(store, site):
            dated = parse_content(entry.content)
            match dated.fact:
                case Reserve() as fact if fact.domain in domains:
                    blocks[fact.block] = _Block(entry.number, fact)
                case Start() as fact if fact.block in blocks:
                    blocks[fact.block].started = dated.at
                case Release() as fact if fact.block in blocks:
                    blocks[fact.block].sent += (Sent(dated.at, fact.attempt, fact.content),)
    return [block for block in blocks.values() if block.started is not None]


def _could_draw(block: _Block, known: list[KnownId], absences: dict[bytes, list[OptOut]]) -> bool:
    """Whether one of the patient's ids was in the round's domain and not kept out of it."""
    number = block.number
    return any(
        membership.domain == block.fact.domain
        and membership.after < number
        and not any(_kept_out(number, each, other, absences[other.id]) for other in known)
        for each in known
        for membership in each.memberships
    )


def _kept_out(number: int, each: KnownId, other: KnownId, absences: list[OptOut]) -> bool:
    """Whether ``other``, an id of the same person (or the same id), kept ``each`` out of the round at ``number``."""
    if other is not each and max(each.merged_after, other.merged_after) >= number:
        return False
    parts = {m.part for one in (each, other) for m in one.memberships if m.after < number}
    return len(parts) > 1 or any(absence.holds_for(number) for absence in absences)


def _domain(state: LedgerState, name: str, part: Part, since: str, eligible: list[_Block]) -> DomainRecord:
    domain = state.domains.get(name)
    if domain is None:
        return DomainRecord(name, part, since, None, None, None, None, False)
    events = Counter[DpEvent](block.fact.event for block in eligible if block.fact.domain == name)
    for recovery in state.recovered.values():
        for charge in recovery.charges:
            if charge.domain == name:
                events[charge.event] += charge.blocks
    left = None if domain.allowance is None else max(0.0, 1 - domain.spent / domain.allowance)
    delta, cap = domain.fact.delta, domain.fact.epsilon_cap
    counted, waived = (list(events.items()), 0) if cap is None else without_waived(events.items())
    value = epsilon(repeated(counted), delta)
    return DomainRecord(name, part, since, delta, value, cap, left, domain.closed, waived)
