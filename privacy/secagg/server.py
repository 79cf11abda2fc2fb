"""The coordinator's side: it carries messages, adds vectors up as they arrive, and names the site at fault. Sans-I/O.

Nothing here is trusted by a site. The coordinator checks everything that it can, because a site that sends nonsense
would otherwise spoil a total without a name. It holds one vector, the running sum, however many sites there are.
"""

from collections.abc import Sequence
from typing import Final, TypeVar

import numpy as np

from wardround.privacy.secagg import shamir
from wardround.privacy.secagg.keys import own_mask_key
from wardround.privacy.secagg.masks import KEY_SIZE, add_masks, pairwise
from wardround.privacy.secagg.ring import Integers, Residues, Ring, content_hash, in_blocks
from wardround.privacy.secagg.session import HASH_SIZE, commitment
from wardround.protocol.errors import ProtocolViolation, Unavailable
from wardround.protocol.identity import Identity
from wardround.protocol.parameters import Blocks
from wardround.protocol.secagg import (
    Agreement,
    Consent,
    Deal,
    Keys,
    Opening,
    Parcel,
    Proposal,
    Session,
    Signed,
    Survivors,
    Upload,
)

_SHARE: Final = 32


SetupMessage = TypeVar("SetupMessage", Keys, Deal, Agreement)


class SetupDesk:
    """Collects the messages of a session's set-up and hands them on, sorted by the sites' names.

    ``identity`` is the coordinator's, which the session names.
    """

    def __init__(self, session: Session, identity: Identity) -> None:
        if identity.public.key != session.coordinator.key:
            raise ValueError("the session names another coordinator")
        self.session = session
        self.identity = identity
        self._keys: dict[str, Keys] = {}
        self._deals: dict[str, Deal] = {}
        self._parcels: dict[tuple[str, str], Parcel] = {}
        self._agreements: dict[str, Agreement] = {}

    def add_keys(self, message: Keys) -> None:
        self._accept(message, self._keys)

    def keys(self) -> tuple[Keys, ...]:
        return self._enough(self._keys)

    def add_deal(self, deal: Deal, parcels: Sequence[Parcel]) -> None:
        """A deal with its parcels. Raises ProtocolViolation naming the site when they are not what it signed."""
        if dict(deal.parcels) != {parcel.recipient: parcel.hash for parcel in parcels} or any(
            parcel.dealer != deal.site for parcel in parcels
        ):
            raise ProtocolViolation(deal.site, "its parcels are not the ones that it signed")
        self._accept(deal, self._deals)
        self._parcels |= {(deal.site, parcel.recipient): parcel for parcel in parcels}

    def deals(self) -> tuple[Deal, ...]:
        return self._enough(self._deals)

    def parcels_for(self, site: str) -> tuple[Parcel, ...]:
        return tuple(self._parcels[dealer, site] for dealer in sorted(self._deals))

    def add_agreement(self, message: Agreement) -> None:
        self._accept(message, self._agreements)

    def agreements(self) -> tuple[Agreement, ...]:
        return self._enough(self._agreements)

    @property
    def transcript(self) -> tuple[tuple[Keys, ...], tuple[Deal, ...], tuple[Parcel, ...], tuple[Agreement, ...]]:
        """Every message of the set-up, for a coordinator that writes them down; adding them again gives this desk."""
        parcels = tuple(self._parcels[pair] for pair in sorted(self._parcels))
        return self.keys(), self.deals(), parcels, self.agreements()

    @property
    def sites(self) -> tuple[str, ...]:
        """Everybody who agreed on this session (U0), sorted."""
        return tuple(message.site for message in self.agreements())

    def proposal(
        self, round_number: int, attempt: int, model_hash: str, vector: str, among: Sequence[str] = ()
    ) -> Proposal:
        """R1 to the session's sites that are ``among`` these (sorted, at least t), or to all of them."""
        sites = tuple(among) or self.sites
        made = Proposal(self.session.digest, round_number, attempt, sites, model_hash, vector)
        return made.signed_by(self.identity)

    def committed(self, dealer: str, recipient: str, number: int) -> bytes:
        """The 32 bytes by which ``dealer`` is bound to the share with this number in the stock."""
        return self._parcels[dealer, recipient].commitments[number * HASH_SIZE :][:HASH_SIZE]

    def _accept(self, message: SetupMessage, into: dict[str, SetupMessage]) -> None:
        if not message.verified(self.session.keys):
            raise ProtocolViolation(message.site, "its signature does not belong to its message")
        if message.session != self.session.digest or into.get(message.site, message) != message:
            raise ProtocolViolation(message.site, "its message is for another session, or differs from its first one")
        into[message.site] = message

    def _enough(self, messages: dict[str, SetupMessage]) -> tuple[SetupMessage, ...]:
        if len(messages) < self.session.threshold:
            raise Unavailable(
                f"{len(messages)} of {len(self.session.members)} sites took part in the set-up",
                f"at least {self.session.threshold} are needed; ask those that are missing",
            )
        return tuple(messages[site] for site in sorted(messages))


class AttemptDesk:
    """One attempt at a round: uploads are added up as they come, then the masks that remain are taken away."""

    def __init__(self, desk: SetupDesk, proposal: Proposal) -> None:
        self.proposal = proposal
        self._desk = desk
        self._session = desk.session
        self._sum = np.zeros(self._session.length, Ring(self._session.bits).dtype)
        self._uploads: dict[str, Upload] = {}
        self._survivors: Survivors | None = None
        self._consents: dict[str, Consent] = {}
        self._openings: dict[str, Opening] = {}
        self._opened = False

    def add_upload(self, upload: Upload, vector: Residues | Blocks) -> None:
        """R1. Raises ProtocolViolation, and adds nothing, when hash, signature, length or type are wrong."""
        self._verify(upload)
        if self._survivors is not None:
            raise ProtocolViolation(upload.site, "its upload came after the list of survivors was made")
        if upload.proposal != self.proposal.hash or upload.site not in self.proposal.participants:
            raise ProtocolViolation(upload.site, "its upload is for another proposal")
        flat = not isinstance(vector, np.ndarray) or vector.ndim == 1
        if not flat or vector.size != self._sum.size or vector.dtype != self._sum.dtype:
            raise ProtocolViolation(upload.site, "its vector does not have the session's length and type")
        if content_hash(vector) != upload.content:
            raise ProtocolViolation(upload.site, "its vector is not the one that it signed")
        if upload.site in self._uploads:
            if self._uploads[upload.site] != upload:
                raise ProtocolViolation(upload.site, "it uploaded two vectors in one attempt")
            return
        self._uploads[upload.site] = upload
        start = 0
        for block in in_blocks(vector):
            part = self._sum[start : start + block.size]
            np.add(part, block, out=part)
            start += block.size

    @property
    def added(self) -> tuple[tuple[Upload, ...], Residues]:
        """(uploads by name of the site, their running sum under masks): what a coordinator writes down before R2.

        Raises ValueError after ``open``: what is opened is not written down.
        """
        if self._opened:
            raise ValueError("the sum is opened")
        return tuple(self._uploads[site] for site in sorted(self._uploads)), self._sum

    def restore(self, uploads: Sequence[Upload], summed: Residues) -> None:
        """Go on from what ``added`` gave: another list of survivors would never be signed again. ``summed`` is kept.

        Raises:
            ValueError: uploads were added here already, or the sum has another length or type.
        """
        if self._uploads or summed.shape != self._sum.shape or summed.dtype != self._sum.dtype:
            raise ValueError("a desk is restored before anything is added, with a sum of its own session")
        for upload in uploads:
            self._verify(upload)
        self._uploads, self._sum = {upload.site: upload for upload in uploads}, summed

    def survivors(self) -> Survivors:
        """R2: who uploaded, from now on for good. Raises Unavailable below the threshold: nothing is opened."""
        if self._survivors is None:
            self._quorum(len(self._uploads), "uploads arrived")
            uploads = tuple(self._uploads[site] for site in sorted(self._uploads))
            self._survivors = Survivors(self.proposal.hash, uploads).signed_by(self._desk.identity)
        return self._survivors

    @property
    def whole(self) -> bool:
        """Whether everybody who was proposed has uploaded: then no list has to be signed before the sum is opened."""
        return self.survivors().sites == self.proposal.participants

    def add_consent(self, consent: Consent) -> None:
        """R2, from a site."""
        survivors = self.survivors()
        self._verify(consent)
        if consent.survivors != survivors.hash or consent.site not in survivors.sites:
            raise ProtocolViolation(consent.site, "it signed another list of survivors")
        self._consents[consent.site] = consent

    def consents(self) -> tuple[Consent, ...]:
        """R3, to every survivor. Raises Unavailable below the threshold."""
        self._quorum(len(self._consents), "survivors signed the list")
        return tuple(self._consents[site] for site in sorted(self._consents))

    def add_opening(self, opening: Opening) -> None:
        """R3, from a site. A share that its dealer did not commit to names the sender."""
        survivors = self.survivors()
        self._verify(opening)
        lost = [site for site in self.proposal.participants if site not in survivors.sites]
        if opening.survivors != survivors.hash or opening.site not in survivors.sites:
            raise ProtocolViolation(opening.site, "its opening is of another list of survivors")
        if [site for site, _, _ in opening.shares] != list(survivors.sites) or [s for s, _ in opening.seeds] != lost:
            raise ProtocolViolation(
                opening.site, "its opening is not one share for each survivor and one seed for each lost"
            )
        if any(len(key) != KEY_SIZE for _, key in opening.seeds):
            raise ProtocolViolation(opening.site, "a seed does not have 32 bytes")
        number = self._session.stock.index((self.proposal.round_number, self.proposal.attempt))
        for dealer, salt, share in opening.shares:
            made = commitment(self._session.digest, dealer, opening.site, number, salt, share)
            if made != self._desk.committed(dealer, opening.site, number):
                raise ProtocolViolation(
                    opening.site, f"its share of the mask of '{dealer}' is not the one that was dealt"
                )
        self._openings[opening.site] = opening

    def total(self) -> Integers:
        """The integer sum over the survivors, shape (d,). Opens it, and raises as ``open`` does."""
        self.open()
        return self.integers(slice(None))

    def integers(self, part: slice) -> Integers:
        """A part of the opened sum."""
        if not self._opened:
            raise ValueError("the sum is not open")
        return Ring(self._session.bits).decode(self._sum[part])

    @property
    def memory(self) -> Residues:
        """The opened sum's own memory, for who has read it and wants no second vector."""
        if not self._opened:
            raise ValueError("the sum is not open")
        return self._sum

    def open(self) -> None:
        """Take the masks that remain off the sum, in place; once.

        Raises:
            Unavailable: fewer than t openings, or a pair of whom one was lost before the upload and the other after it:
                nobody is left who knows their common mask, and the attempt is void.
        """
        if self._opened:
            return
        survivors = self.survivors()
        self._quorum(len(self._openings), "survivors opened")
        lost = [site for site in self.proposal.participants if site not in survivors.sites]
        silent = [site for site in survivors.sites if site not in self._openings]
        if lost and silent:
            raise Unavailable(
                f"'{lost[0]}' was lost before its upload and '{silent[0]}' after it, so their common mask stays",
                "the attempt is void; try again with the sites that are there",
            )
        masks = [(key, -1) for key in self._own_keys(survivors)]
        numbers = self._session.numbers
        for site in survivors.sites:
            seeds = self._openings[site].seeds if lost else ()
            signs = pairwise(numbers[site], [numbers[other] for other, _ in seeds])
            masks += [(key, -s) for (_, key), s in zip(seeds, signs, strict=True)]
        add_masks(self._sum, masks)
        self._opened = True

    def _own_keys(self, survivors: Survivors) -> list[bytes]:
        """The key of each survivor's own mask, from t shares."""
        helpers = sorted(self._openings)[: self._session.threshold]
        columns = {
            self._session.numbers[site]: np.frombuffer(
                b"".join(share for _, _, share in self._openings[site].shares), np.uint8
            ).reshape(len(survivors.sites), _SHARE)
            for site in helpers
        }
        secrets = shamir.reconstruct(columns)
        return [own_mask_key(secret.tobytes(), self.proposal.hash) for secret in secrets]

    def _verify(self, message: Signed) -> None:
        if not message.verified(self._session.keys):
            raise ProtocolViolation(message.site, "its signature does not belong to its message")

    def _quorum(self, count: int, what: str) -> None:
        if count < self._session.threshold:
            raise Unavailable(
                f"{count} {what}, and at least {self._session.threshold} are needed",
                "nothing was opened; the attempt is void",
            )
