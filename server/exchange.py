"""The coordinator's part of secure aggregation besides adding up: set-up of a session, and opening of a round.

``Party`` is a site as the coordinator reaches it: in this process, or behind a transport. What it sends is bytes of the
one type that may leave a site; what does not come, or breaks a rule, drops that site by name.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Protocol, TypeVar

from wardround.privacy.secagg.scale import session_for
from wardround.privacy.secagg.server import SetupDesk
from wardround.protocol.errors import ProtocolViolation, Unavailable, WardroundError
from wardround.protocol.identity import Identity
from wardround.protocol.outgoing import Outgoing, bytes_to_send, parse_step
from wardround.protocol.plan import StudyPlan
from wardround.protocol.roster import Roster, session_members
from wardround.protocol.secagg import (
    Agreement,
    Consent,
    Deal,
    Keys,
    Opening,
    Parcel,
    Proposal,
    Session,
    Survivors,
)
from wardround.server.rounds import Round, RoundState
from wardround.server.sums import MaskedSum


class Party(Protocol):
    """A site in the exchanges of secure aggregation; see ``client.secure.SecureSite``."""

    def keys(self, offered: Session, today: date) -> Outgoing: ...
    def deal(self, keys: Sequence[Keys]) -> Outgoing: ...
    def agree(self, deals: Sequence[Deal], parcels: Sequence[Parcel]) -> Outgoing: ...
    def begin(self, agreements: Sequence[Agreement]) -> None: ...
    def consent(self, proposal: Proposal, survivors: Survivors) -> Outgoing: ...
    def open(self, proposal: Proposal, consents: Sequence[Consent]) -> Outgoing: ...


Said = TypeVar("Said", Keys, Deal, Agreement, Consent, Opening)

Reaches = Callable[[str, str], bool]
"""Whether an exchange ("consent", "open") reaches the site of this name: a transport's loss, or a fault."""


def set_up(
    plan: StudyPlan,
    roster: Roster,
    coordinator: Identity,
    parties: Mapping[str, Party],
    *,
    name: str,
    length: int,
    rounds: Sequence[int],
    today: date,
    attempts: int = 1,
) -> SetupDesk:
    """A new session with the sites that can be reached, for so many attempts at ``rounds``. No name is used twice.

    Raises:
        ProtocolViolation: a site broke a rule of the set-up; it is named, and the session does not come about.
        Unavailable: fewer sites than the threshold took part.
    """
    members = session_members(roster, parties, today)
    session = session_for(
        plan,
        members,
        roster=roster.digest,
        name=name,
        length=length,
        rounds=rounds,
        attempts=attempts,
        coordinator=coordinator.public,
    )
    desk = SetupDesk(session, coordinator)
    for site, party in sorted(parties.items()):
        desk.add_keys(_said(party.keys(session, today), site, Keys)[0])
    for site, party in sorted(parties.items()):
        desk.add_deal(*_said(party.deal(desk.keys()), site, Deal))
    for site, party in sorted(parties.items()):
        desk.add_agreement(_said(party.agree(desk.deals(), desk.parcels_for(site)), site, Agreement)[0])
    for party in parties.values():
        party.begin(desk.agreements())
    return desk


def open_sum(opened: Round, parties: Mapping[str, Party], reaches: Reaches = lambda exchange, site: True) -> None:
    """R2 and R3 of a closed round: afterwards its total can be taken, or it is void and says why."""
    sums = opened.sums
    if opened.state is not RoundState.CLOSED or not isinstance(sums, MaskedSum):
        return
    desk = sums.desk
    try:
        survivors = desk.survivors()
        for site in survivors.sites:
            if _helps(opened, site, reaches("consent", site)):
                with _dropped(opened, site):
                    desk.add_consent(_said(parties[site].consent(desk.proposal, survivors), site, Consent)[0])
        consents = desk.consents()
        for site in survivors.sites:
            if _helps(opened, site, reaches("open", site)):
                with _dropped(opened, site):
                    desk.add_opening(_said(parties[site].open(desk.proposal, consents), site, Opening)[0])
        sums.open()
    except Unavailable as error:
        opened.void(error.message)


def _helps(opened: Round, site: str, reached: bool) -> bool:
    """Whether an exchange goes to ``site``; who was silent once is asked no more."""
    if not reached:
        opened.silent.add(site)
    return site not in opened.silent


@contextmanager
def _dropped(opened: Round, site: str) -> Iterator[None]:
    """A site that breaks a rule here, finds that the coordinator did, or cannot write, is silent; others may do."""
    try:
        yield
    except WardroundError as error:
        opened.silent.add(site)
        opened.note(site, error.message)


def _said(message: Outgoing, site: str, kind: type[Said]) -> tuple[Said, tuple[Parcel, ...]]:
    """The message of this kind that came from ``site``, through its bytes."""
    found, parcels = parse_step(bytes_to_send(message), site)
    if type(found) is not kind:
        raise ProtocolViolation(site, f"it sent {type(found).__name__} where {kind.__name__} was asked for")
    return found, parcels
