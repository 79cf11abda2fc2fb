"""The whole protocol on one page: one session, one attempt, every message in order, with whoever is lost on the way.

For reading, for tests and for test vectors. A coordinator and daemons do the same with a network in between.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from wardround.privacy.secagg.client import Opened, SitePlayer
from wardround.privacy.secagg.ring import Integers
from wardround.privacy.secagg.server import AttemptDesk, SetupDesk
from wardround.privacy.secagg.session import RandomBytes, Ready, Setup
from wardround.protocol.identity import Identity
from wardround.protocol.secagg import Proposal, Session

Message = TypeVar("Message")


@dataclass(slots=True)
class Transcript:
    """What went over the wire, and the total, shape (d,)."""

    messages: list[object] = field(default_factory=list)
    opened: list[Opened] = field(default_factory=list)
    total: Integers | None = None

    def sent(self, message: Message) -> Message:
        self.messages.append(message)
        return message


def set_up(
    session: Session,
    coordinator: Identity,
    identities: Sequence[Identity],
    random_bytes: RandomBytes,
    transcript: Transcript | None = None,
) -> tuple[SetupDesk, dict[str, Ready]]:
    """S1 to S3: every site of ``identities`` ends up with the same session."""
    noted = transcript or Transcript()
    desk, sites = SetupDesk(session, coordinator), [Setup(session, identity, random_bytes) for identity in identities]
    for site in sites:
        desk.add_keys(noted.sent(site.keys()))
    for site in sites:
        deal, parcels = site.deal(desk.keys())
        desk.add_deal(noted.sent(deal), noted.sent(parcels))
    for identity, site in zip(identities, sites, strict=True):
        desk.add_agreement(noted.sent(site.agree(desk.deals(), desk.parcels_for(identity.site))))
    return desk, {
        identity.site: site.begin(desk.agreements()) for identity, site in zip(identities, sites, strict=True)
    }


def attempt(
    desk: SetupDesk,
    players: Mapping[str, SitePlayer],
    proposal: Proposal,
    values: Mapping[str, Integers],
    lost: Sequence[Collection[str]] = ((), (), ()),
) -> Transcript:
    """R1 to R3 of one attempt; ``lost[k]`` are the sites that do not answer exchange k + 1, or any later one.

    Where everybody's upload came, R2 is not needed, and ``lost[1]`` are silent when the sum is opened.
    """
    noted, table = Transcript(), AttemptDesk(desk, proposal)
    gone: set[str] = set()

    gone |= set(lost[0])
    for site in proposal.participants:
        if site not in gone:
            upload, vector = players[site].mask(proposal, proposal.model_hash, values[site])
            noted.sent((upload, vector))
            table.add_upload(upload, vector)
    survivors = noted.sent(table.survivors())

    gone |= set(lost[1])
    whole = table.whole
    for site in () if whole else survivors.sites:
        if site not in gone:
            table.add_consent(noted.sent(players[site].consent(proposal, survivors)))
    consents = () if whole else noted.sent(table.consents())

    gone |= set(lost[2])
    for site in survivors.sites:
        if site not in gone:
            player = players[site]
            record, opening = player.open_whole(proposal, survivors) if whole else player.open(proposal, consents)
            noted.opened.append(record)  # on disk before the opening is sent
            table.add_opening(noted.sent(opening))
    noted.total = table.total()
    return noted
