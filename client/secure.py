"""A hospital under secure aggregation: the same ``Site``, whose replies leave under masks only.

The noised update is finished and stored by ``Site``; here it becomes integers, is masked, and the sum is helped open.
A proposal is checked before anything is trained for it, so that a coordinator cannot use up a budget with requests that
end in a refusal. Sessions live in memory and end with the process: after a restart a site joins a new one.
"""

import hmac
from collections.abc import Callable, Generator, Sequence
from datetime import date
from typing import Final

import numpy as np

from wardround.client.site import Phase, Site, drive
from wardround.client.store.opened import OpenedSums
from wardround.privacy.secagg.client import SitePlayer
from wardround.privacy.secagg.quantize import Quantizer
from wardround.privacy.secagg.session import RandomBytes, Setup
from wardround.protocol.canonical import LABEL_SECAGG, encode
from wardround.protocol.errors import ProtocolViolation
from wardround.protocol.identity import Identity
from wardround.protocol.messages import Masked, RefusalCode, Reply, RoundRequest
from wardround.protocol.outgoing import Outgoing, outgoing
from wardround.protocol.secagg import Agreement, Consent, Deal, Keys, Parcel, Proposal, Session, Survivors

SECRET_SIZE: Final = 32


class SecureSite:
    """One hospital in sessions of secure aggregation.

    Args:
        make_site: gives the ``Site`` whose replies are sealed by what it is called with.
        identity: the site's key, pinned in the roster.
        quantizer: what the plan's integers mean.
        rounding_secret: 32 bytes that the site keeps. Rounding is drawn from it and the reply, so that a reply that is
            masked again becomes the same integers: other integers would be another sum over the same patients.
        random_bytes: ``os.urandom``.
    """

    def __init__(
        self,
        make_site: Callable[[Callable[[Reply], Outgoing]], Site],
        identity: Identity,
        opened: OpenedSums,
        quantizer: Quantizer,
        rounding_secret: bytes,
        random_bytes: RandomBytes,
    ) -> None:
        if len(rounding_secret) != SECRET_SIZE:
            raise ValueError(f"the secret of the rounding has {SECRET_SIZE} bytes")
        self.site = make_site(self._masked)
        self.identity = identity
        self._opened = opened
        self._quantizer = quantizer
        self._rounding = rounding_secret
        self._random = random_bytes
        self._setup: Setup | None = None
        self._player: SitePlayer | None = None
        self._proposal: Proposal | None = None

    @property
    def name(self) -> str:
        return self.site.name

    @property
    def ready(self) -> bool:
        """Whether this process has a session; none after a restart."""
        return self._player is not None

    def restart(self) -> None:
        """What a crash leaves: the ledger settles what was open, and the session is gone."""
        self._setup = self._player = self._proposal = None
        self.site.recover()

    def keys(self, session: Session) -> Outgoing:
        """S1 of a new session; the one before ends. Raises UsageError when this site is no member."""
        self._player, self._setup = None, Setup(session, self.identity, self._random)
        return outgoing(self._setup.keys())

    def deal(self, keys: Sequence[Keys]) -> Outgoing:
        """S2."""
        deal, parcels = self._joining().deal(keys)
        return outgoing(deal, parcels)

    def agree(self, deals: Sequence[Deal], parcels: Sequence[Parcel]) -> Outgoing:
        """S3."""
        return outgoing(self._joining().agree(deals, parcels))

    def begin(self, agreements: Sequence[Agreement]) -> None:
        """Set-up is over; rounds may come."""
        self._player = SitePlayer(self._joining().begin(agreements), self._opened.all())
        self._setup = None

    def answer(self, request: RoundRequest, proposal: Proposal, today: date) -> Outgoing:
        """R1: the masked vector of the round, or a refusal."""
        return drive(self.work(request, proposal, today))

    def work(self, request: RoundRequest, proposal: Proposal, today: date) -> Generator[Phase, None, Outgoing]:
        """R1, phase by phase; see ``Site.work``."""
        bound = (proposal.round_number, proposal.attempt) == (request.round_number, request.attempt)
        try:
            if not bound:
                raise ProtocolViolation("coordinator", "its proposal is for another round than its request")
            self._playing().check(proposal, request.model_hash)
        except ProtocolViolation as error:
            return self.site.refuse(request, RefusalCode.PROTOCOL, error.message)
        self._proposal = proposal
        return (yield from self.site.work(request, today))

    def consent(self, proposal: Proposal, survivors: Survivors) -> Outgoing:
        """R2. Raises ProtocolViolation for a list that may not be signed; the shell notes it and sends nothing."""
        return outgoing(self._playing().consent(proposal, survivors))

    def open(self, proposal: Proposal, consents: Sequence[Consent]) -> Outgoing:
        """R3: the record is on disk before the opening is there to be sent."""
        record, opening = self._playing().open(proposal, consents)
        self._opened.keep(record)
        self._playing().forget(proposal.round_number)
        return outgoing(opening)

    def _masked(self, reply: Reply) -> Outgoing:
        """What leaves for a finished reply."""
        player, proposal = self._playing(), self._proposal
        if proposal is None or proposal.round_number != reply.round_number:
            raise ProtocolViolation("coordinator", "it proposed no attempt for this reply")
        keyed = hmac.new(self._rounding, LABEL_SECAGG.encode() + b"\x00rounding\x00", "sha256")
        keyed.update(encode([reply.plan, reply.round_number, reply.model_hash]))
        keyed.update(np.ascontiguousarray(reply.vector).data)
        values = self._quantizer.quantize(reply.vector, keyed.digest())
        upload, vector = player.mask(proposal, reply.model_hash, values)
        about = (reply.site, reply.plan, reply.round_number, proposal.attempt, reply.model_hash)
        return outgoing(Masked(*about, upload, vector))

    def _joining(self) -> Setup:
        if self._setup is None:
            raise ProtocolViolation("coordinator", "it goes on with a set-up that this site has not begun")
        return self._setup

    def _playing(self) -> SitePlayer:
        if self._player is None:
            raise ProtocolViolation("coordinator", "this site has no session; it must be set up anew")
        return self._player
