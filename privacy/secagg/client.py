"""One site in the rounds of a session: it masks once, signs one list of survivors, and opens once. Sans-I/O.

Where everybody who was proposed has uploaded, the list names nobody as lost and needs no other site's signature: the
site makes it its one list and opens at once (``open_whole``; why that is safe: docs/secure-aggregation.md).

The caller passes each message of the coordinator in and sends what comes back; that a list was signed must be on disk
before the signature leaves. ``open`` also gives an ``Opened`` record: it must be on disk before the opening leaves,
and is given to every later ``SitePlayer``, because it outlives the session: a site that has opened a sum over its
inputs never helps to open another sum over the same inputs (differencing).

An identical request gets the stored answer. A request that conflicts with an answer ends the session.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from wardround.privacy.secagg.keys import own_mask_key, pair_mask_key
from wardround.privacy.secagg.masks import add_masks, pairwise
from wardround.privacy.secagg.ring import Integers, Residues, Ring, content_hash
from wardround.privacy.secagg.session import Ready
from wardround.protocol.errors import ProtocolViolation, UsageError
from wardround.protocol.owners import COORDINATOR
from wardround.protocol.secagg import Consent, Opening, Proposal, Survivors, Upload


class AttemptState(StrEnum):
    MASKED = "masked"
    LISTED = "listed"
    OPENED = "opened"


ATTEMPT_TRANSITIONS: Final[dict[tuple[AttemptState | None, str], AttemptState]] = {
    (None, "mask"): AttemptState.MASKED,
    (AttemptState.MASKED, "consent"): AttemptState.LISTED,
    (AttemptState.LISTED, "open"): AttemptState.OPENED,
    (AttemptState.MASKED, "open whole"): AttemptState.OPENED,
}
"""What a site answers in an attempt, once each; a repeat of the same request gets the same answer."""


class TwoRequests(ProtocolViolation):
    """Two requests of a coordinator that cannot both be honest; ``evidence`` holds both with its signatures."""

    def __init__(self, message: str, *requests: Proposal | Survivors) -> None:
        super().__init__(COORDINATOR, message)
        self.evidence = tuple(request.evidence for request in requests)


@dataclass(frozen=True, slots=True)
class Opened:
    """This site helped to open the sum of ``survivors`` over these inputs. Kept for ever."""

    inputs: str
    survivors: tuple[str, ...]


@dataclass(slots=True)
class _Attempt:
    proposal: Proposal
    inputs: str
    upload: Upload
    vector: Residues | None
    state: AttemptState = AttemptState.MASKED
    survivors: Survivors | None = None
    consent: Consent | None = None
    opening: Opening | None = None


class SitePlayer:
    """Args:
    ready: what set-up left.
    opened: every ``Opened`` record that this site has on disk, of all sessions.
    """

    def __init__(self, ready: Ready, opened: Sequence[Opened] = ()) -> None:
        self._ready = ready
        self.session = ready.session
        self._me = ready.identity.site
        self._opened: Mapping[str, tuple[str, ...]] = {record.inputs: record.survivors for record in opened}
        self._attempts: dict[tuple[int, int], _Attempt] = {}
        self._ended = ""

    def check(self, proposal: Proposal, model_hash: str) -> None:
        """Raise ProtocolViolation unless ``mask`` would answer: asked before anything is trained for it."""
        self._alive()
        known = self._attempts.get((proposal.round_number, proposal.attempt))
        if known is None:
            self._check_proposal(proposal, model_hash)
        elif known.proposal != proposal:
            what = f"two proposals for attempt {proposal.attempt} at round {proposal.round_number}"
            self._end(what, known.proposal, proposal)

    def mask(
        self, proposal: Proposal, model_hash: str, values: Integers, inputs: str | None = None
    ) -> tuple[Upload, Residues]:
        """R1: the masked vector, shape (d,), and the signature under its hash.

        Args:
            model_hash: the model that this site started from.
            values: shape (d,), within the ring's limit; see ``quantize``.
            inputs: a name of the values: the same for the same values in any session, and another for any others. None:
                their SHA-256, which takes a pass over them.

        Raises:
            ProtocolViolation: the proposal is not one that this site may answer.
            UsageError: ``values`` have another length or leave the ring's limit.
        """
        self.check(proposal, model_hash)
        slot = (proposal.round_number, proposal.attempt)
        if slot in self._attempts:
            upload, kept = self._attempts[slot].upload, self._attempts[slot].vector
            if kept is None:
                raise ProtocolViolation(COORDINATOR, "it asks for a vector whose sum was opened")
            return upload, kept
        vector = self._encoded(values)
        inputs = inputs or content_hash(vector)
        others = [site for site in proposal.participants if site != self._me]
        signs = pairwise(self._number(self._me), [self._number(site) for site in others])
        masks = [(own_mask_key(self._ready.own[slot], proposal.hash), 1)]
        masks += [
            (pair_mask_key(self._ready.pairs[site], proposal.hash), s) for site, s in zip(others, signs, strict=True)
        ]
        add_masks(vector, masks)
        upload = Upload(self._me, proposal.hash, content_hash(vector)).signed_by(self._ready.identity)
        self._attempts[slot] = _Attempt(proposal, inputs, upload, vector)
        return upload, vector

    def consent(self, proposal: Proposal, survivors: Survivors) -> Consent:
        """R2: a signature under the list of survivors, after every upload on it was verified.

        Raises:
            ProtocolViolation: the list is not one that this site may sign, or another was signed before.
        """
        attempt = self._answered(proposal)
        self._listed(attempt, survivors)
        if attempt.consent is None:
            attempt.consent = Consent(self._me, survivors.hash).signed_by(self._ready.identity)
        if attempt.state is AttemptState.MASKED:
            attempt.state = ATTEMPT_TRANSITIONS[attempt.state, "consent"]
        return attempt.consent

    def open(self, proposal: Proposal, consents: Sequence[Consent]) -> tuple[Opened, Opening]:
        """R3: shares of the survivors' masks and seeds of the pairs with who was lost, once t survivors have signed.

        The record must be on disk before the opening is sent.
        """
        attempt = self._answered(proposal)
        survivors = attempt.survivors
        if survivors is None:
            raise ProtocolViolation(COORDINATOR, "it asks to open before this site has signed a list of survivors")
        self._check_consents(survivors, consents)
        return self._open(attempt, survivors, "open")

    def open_whole(self, proposal: Proposal, survivors: Survivors) -> tuple[Opened, Opening]:
        """R2 and R3 in one, where nobody was lost: shares of everybody's masks, after every upload was verified.

        The list is the one that this site signs in this attempt, and no key of a pair is in the opening. The record
        must be on disk, as a list that was signed and as a sum that was opened, before the opening is sent.

        Raises:
            ProtocolViolation: as ``consent``; or somebody who was proposed is not on the list, which needs signatures.
        """
        attempt = self._answered(proposal)
        if survivors.sites != proposal.participants:
            self._check_asked(survivors)
            raise ProtocolViolation(COORDINATOR, "it asks to open at once, and the list lacks some who were proposed")
        self._listed(attempt, survivors)
        return self._open(attempt, survivors, "open whole" if attempt.state is AttemptState.MASKED else "open")

    def forget(self, round_number: int) -> None:
        """Drop the vectors of a round whose total is published; its decisions stay."""
        for (number, _), attempt in self._attempts.items():
            if number == round_number:
                attempt.vector = None

    def _listed(self, attempt: _Attempt, survivors: Survivors) -> None:
        """Hold the attempt to this list: checked when it is the first one, and the session ends with another."""
        if attempt.survivors is None:
            self._check_survivors(attempt, survivors)
            attempt.survivors = survivors
        elif attempt.survivors.hash != survivors.hash:
            self._end("two lists of survivors for one attempt", attempt.survivors, survivors)

    def _open(self, attempt: _Attempt, survivors: Survivors, how: str) -> tuple[Opened, Opening]:
        record = Opened(attempt.inputs, survivors.sites)
        if attempt.opening is None:
            attempt.state = ATTEMPT_TRANSITIONS[attempt.state, how]
            attempt.opening = self._opening(attempt, survivors)
            self._opened = {**self._opened, record.inputs: record.survivors}
        return record, attempt.opening

    def _opening(self, attempt: _Attempt, survivors: Survivors) -> Opening:
        proposal = attempt.proposal
        slot = (proposal.round_number, proposal.attempt)
        lost = [site for site in proposal.participants if site not in survivors.sites]
        shares = tuple((site, *self._ready.held[site][slot]) for site in survivors.sites)
        seeds = tuple((site, pair_mask_key(self._ready.pairs[site], proposal.hash)) for site in lost)
        return Opening(self._me, survivors.hash, shares, seeds).signed_by(self._ready.identity)

    def _number(self, site: str) -> int:
        return self.session.numbers[site]

    def _alive(self) -> None:
        if self._ended:
            raise ProtocolViolation(COORDINATOR, f"the session has ended: {self._ended}")

    def _end(self, reason: str, one: Proposal | Survivors, other: Proposal | Survivors) -> None:
        """Conflicting requests are evidence: nothing of this session is answered again."""
        self._check_asked(other)
        self._ended = reason
        raise TwoRequests(f"it sent {reason}; the session has ended", one, other)

    def _check_asked(self, request: Proposal | Survivors) -> None:
        if not self.session.asked(request):
            raise ProtocolViolation(COORDINATOR, "the coordinator has not signed what is asked")

    def _answered(self, proposal: Proposal) -> _Attempt:
        self._alive()
        attempt = self._attempts.get((proposal.round_number, proposal.attempt))
        if attempt is None or attempt.proposal != proposal:
            raise ProtocolViolation(COORDINATOR, "it goes on with an attempt that this site has not masked for")
        return attempt

    def _encoded(self, values: Integers) -> Residues:
        ring, session = Ring(self.session.bits), self.session
        if values.shape != (session.length,) or values.dtype != np.int64:
            raise UsageError("the vector does not have the session's length", "check the plan's strategy")
        limit = ring.limit(len(session.members))
        if len(values) and max(int(values.max()), -int(values.min())) > limit:
            raise UsageError("a value of the vector exceeds the ring's limit", "nothing was sent; check the quantiser")
        return ring.encode(values)

    def _check_proposal(self, proposal: Proposal, model_hash: str) -> None:
        self._check_asked(proposal)
        sites = proposal.participants
        slot = (proposal.round_number, proposal.attempt)
        if proposal.session != self.session.digest or slot not in self._ready.own:
            raise ProtocolViolation(COORDINATOR, "it proposes an attempt that this session has no masks for")
        if list(sites) != sorted(set(sites)) or not set(sites) <= set(self._ready.sites) or self._me not in sites:
            raise ProtocolViolation(
                COORDINATOR, "its participants are not sites of this session, each once, with this one"
            )
        if len(sites) < self.session.threshold:
            raise ProtocolViolation(COORDINATOR, f"it proposes {len(sites)} participants, below the plan's threshold")
        if proposal.model_hash != model_hash:
            raise ProtocolViolation(COORDINATOR, "it proposes another model than it sent")

    def _check_survivors(self, attempt: _Attempt, survivors: Survivors) -> None:
        self._check_asked(survivors)
        proposal, sites = attempt.proposal, survivors.sites
        if survivors.proposal != proposal.hash:
            raise ProtocolViolation(COORDINATOR, "its list of survivors is of another proposal")
        if list(sites) != sorted(set(sites)) or not set(sites) <= set(proposal.participants):
            raise ProtocolViolation(COORDINATOR, "its survivors are not participants, each once, sorted by name")
        if len(sites) < self.session.threshold:
            raise ProtocolViolation(COORDINATOR, f"it lists {len(sites)} survivors, below the plan's threshold")
        for upload in survivors.uploads:
            if upload.proposal != proposal.hash or not upload.verified(self.session.keys):
                raise ProtocolViolation(COORDINATOR, f"the upload of '{upload.site}' is not one that this site made")
        if attempt.upload not in survivors.uploads:
            raise ProtocolViolation(COORDINATOR, "it does not list this site's own upload as it was sent")
        before = self._opened.get(attempt.inputs)
        if before is not None and before != sites:
            raise ProtocolViolation(COORDINATOR, "it asks for a second sum over inputs that were opened in another one")

    def _check_consents(self, survivors: Survivors, consents: Sequence[Consent]) -> None:
        signers = [consent.site for consent in consents]
        if len(set(signers)) != len(signers) or not set(signers) <= set(survivors.sites):
            raise ProtocolViolation(COORDINATOR, "the signatures under the list are not of survivors, each once")
        for consent in consents:
            if consent.survivors != survivors.hash or not consent.verified(self.session.keys):
                raise ProtocolViolation(COORDINATOR, f"the signature of '{consent.site}' is not under this list")
        if len(signers) < self.session.threshold:
            raise ProtocolViolation(
                COORDINATOR, f"{len(signers)} signatures under the list, below the plan's threshold"
            )
