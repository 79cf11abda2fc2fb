"""Hospitals of this process, reached as the coordinator reaches those behind a transport: requests in, bytes out."""

from collections.abc import Callable, Iterator, Mapping
from datetime import date
from typing import Protocol

from wardround.protocol.errors import Unavailable, WardroundError
from wardround.protocol.incoming import Ask, AskAgreement, AskConsent, AskDeal, AskKeys, AskOpening, AskWhole, Begin
from wardround.protocol.messages import Done
from wardround.protocol.outgoing import Outgoing, bytes_to_send, outgoing
from wardround.protocol.secagg import Agreement, Consent, Deal, Keys, Parcel, Proposal, Session, Survivors
from wardround.server.exchange import Asking

Reaches = Callable[[str, str], bool]
"""Whether an exchange ("query.consent", "query.open") reaches the site of this name: a fault that is played."""


class Party(Protocol):
    """A site in the exchanges of secure aggregation; see ``client.secure.SecureSite``."""

    def keys(self, offered: Session, today: date) -> Outgoing: ...
    def deal(self, keys: tuple[Keys, ...]) -> Outgoing: ...
    def agree(self, deals: tuple[Deal, ...], parcels: tuple[Parcel, ...]) -> Outgoing: ...
    def begin(self, agreements: tuple[Agreement, ...]) -> None: ...
    def consent(self, proposal: Proposal, survivors: Survivors) -> Outgoing: ...
    def open(self, proposal: Proposal, consents: tuple[Consent, ...]) -> Outgoing: ...
    def open_whole(self, proposal: Proposal, survivors: Survivors) -> Outgoing: ...


def asking(parties: Mapping[str, Party], today: date, reaches: Reaches = lambda exchange, site: True) -> Asking:
    """Asks ``parties`` one after the other, in the order of their names."""

    def ask_all(kind: str, asks: Mapping[str, Ask]) -> Iterator[tuple[str, bytes | WardroundError]]:
        for site in sorted(asks):
            if not reaches(kind, site):
                yield site, Unavailable("it did not answer", "ask it again")
                continue
            try:
                yield site, bytes_to_send(answer_of(parties[site], site, asks[site], today))
            except WardroundError as error:
                yield site, error

    return ask_all


def answer_of(party: Party, site: str, ask: Ask, today: date) -> Outgoing:
    """What a party says to one request of secure aggregation."""
    match ask:
        case AskKeys():
            return party.keys(ask.session, today)
        case AskDeal():
            return party.deal(ask.keys)
        case AskAgreement():
            return party.agree(ask.deals, ask.parcels)
        case Begin():
            party.begin(ask.agreements)
            return outgoing(Done(site))
        case AskConsent():
            return party.consent(ask.proposal, ask.survivors)
        case AskOpening():
            return party.open(ask.proposal, ask.consents)
        case AskWhole():
            return party.open_whole(ask.proposal, ask.survivors)
    raise ValueError(f"{type(ask).__name__} is no request of secure aggregation")
