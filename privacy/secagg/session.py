"""Set-up of a session at one site: keys, deal, agreement. What it leaves is all that rounds need.

``Setup`` walks S1, S2, S3; ``Ready`` is its result: the secret shared with each peer, this site's own masks for the
whole stock, and the shares that it holds of the others'. Nothing of it outlives the process: after a restart a site
joins a new session, so that no answer of an old one can be given twice.
"""

import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from wardround.privacy.secagg import shamir
from wardround.privacy.secagg.keys import (
    RANDOM_BYTES,
    SessionKeys,
    confirmation,
    encapsulate,
    envelope_info,
    pair_secret,
    seal,
)
from wardround.protocol.canonical import LABEL_SECAGG, digest
from wardround.protocol.errors import ProtocolViolation
from wardround.protocol.identity import Identity
from wardround.protocol.owners import COORDINATOR
from wardround.protocol.secagg import Agreement, Deal, Keys, Parcel, Session, Signed, hash_of

SECRET_SIZE: Final = 32
SALT_SIZE: Final = 16
HASH_SIZE: Final = 32
NONCE_SIZE: Final = 32

RandomBytes = Callable[[int], bytes]


class SetupState(StrEnum):
    NEW = "new"
    KEYED = "keyed"
    DEALT = "dealt"
    AGREED = "agreed"
    READY = "ready"
    ENDED = "ended"


SETUP_TRANSITIONS: Final = {
    (SetupState.NEW, "keys"): SetupState.KEYED,
    (SetupState.KEYED, "deal"): SetupState.DEALT,
    (SetupState.DEALT, "agree"): SetupState.AGREED,
    (SetupState.AGREED, "begin"): SetupState.READY,
}
"""What a site does next; anything else is a violation by the coordinator. A step that is refused ends the set-up."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A site after set-up. ``sites``: U0, who signed the same transcript. Secrets are never shown."""

    session: Session
    identity: Identity
    sites: tuple[str, ...]
    pairs: Mapping[str, bytes]
    own: Mapping[tuple[int, int], bytes]
    held: Mapping[str, Mapping[tuple[int, int], tuple[bytes, bytes]]]
    """By dealer, then by (round, attempt): (salt, share)."""

    def __repr__(self) -> str:
        return f"Ready(session={self.session.name!r}, site={self.identity.site!r})"


class Setup:
    """One site's set-up of one session.

    Args:
        random_bytes: the operating system's CSPRNG, ``os.urandom``; tests pass fixed bytes.
    """

    def __init__(self, session: Session, identity: Identity, random_bytes: RandomBytes) -> None:
        if session.keys.get(identity.site) != identity.public:
            raise ValueError("this site is no member of the session, or has another key in it")
        self.session = session
        self.state = SetupState.NEW
        self._identity = identity
        self._random = random_bytes

    def keys(self) -> Keys:
        """S1."""
        following = self._next("keys")
        self._private = SessionKeys.from_random(self._random(RANDOM_BYTES))
        x25519, mlkem = self._private.public
        message = Keys(self._me, self.session.digest, self._random(NONCE_SIZE), x25519, mlkem)
        self._own_keys = message.signed_by(self._identity)
        self.state = following
        return self._own_keys

    def deal(self, keys: Sequence[Keys]) -> tuple[Deal, tuple[Parcel, ...]]:
        """S2: masks for the whole stock, their shares in one sealed parcel for each peer (this site included).

        Raises:
            ProtocolViolation: a key is not signed by its pinned site, this site's is not its own, or too few are there.
        """
        following = self._next("deal")
        self._peers = self._checked_keys(keys)
        self._transcript = transcript_of(keys)
        self._encapsulated: dict[str, bytes] = {}
        stock, n = self.session.stock, len(self.session.members)
        secrets = self._random(len(stock) * SECRET_SIZE)
        self._own = {slot: secrets[k * SECRET_SIZE : (k + 1) * SECRET_SIZE] for k, slot in enumerate(stock)}
        shares = shamir.share(
            np.frombuffer(secrets, np.uint8).reshape(len(stock), SECRET_SIZE),
            self.session.threshold,
            n,
            self._random((self.session.threshold - 1) * len(secrets)),
        )
        parcels = tuple(
            self._parcel(peer, shares[self.session.numbers[site] - 1]) for site, peer in self._peers.items()
        )
        named = tuple((parcel.recipient, parcel.hash) for parcel in parcels)
        self._own_deal = Deal(self._me, self.session.digest, self._transcript, named).signed_by(self._identity)
        self.state = following
        return self._own_deal, parcels

    def agree(self, deals: Sequence[Deal], parcels: Sequence[Parcel]) -> Agreement:
        """S3: open the parcels for this site and sign what was seen.

        Raises:
            ProtocolViolation: a deal or parcel is not its dealer's, a share is not what the dealer committed to,
                or this site's own deal was changed.
        """
        following = self._next("agree")
        dealers = self._checked_deals(deals)
        sent = {parcel.dealer: parcel for parcel in parcels}
        if set(sent) != set(dealers) or len(sent) != len(parcels):
            raise ProtocolViolation(COORDINATOR, "it did not deliver one parcel of each dealer")
        self._held = {site: self._opened(dealers[site], parcel) for site, parcel in sorted(sent.items())}
        self._pairs = {site: self._paired(sent[site]) for site in sorted(sent) if site != self._me}
        seen = hash_of([self._transcript, *([deal.digest, deal.signature.hex()] for deal in deals)])
        confirmed = tuple((site, confirmation(secret, self._me)) for site, secret in self._pairs.items())
        self._agreement = Agreement(self._me, self.session.digest, seen, confirmed).signed_by(self._identity)
        self.state = following
        return self._agreement

    def begin(self, agreements: Sequence[Agreement]) -> Ready:
        """All who signed the same transcript as this site are the session.

        Raises:
            ProtocolViolation: a signature is wrong, somebody saw another transcript or has another pair secret (its
                ciphertext was false, or what it confirms is), or fewer than t agreed.
        """
        following = self._next("begin")
        sites = []
        for each in agreements:
            if each.site in sites:
                raise ProtocolViolation(COORDINATOR, "the agreements are not of sites, each once")
            if each.site not in self._held or each.session != self.session.digest:
                raise ProtocolViolation(each.site, "its agreement does not belong to this session")
            self._verify(each)
            if each.seen != self._agreement.seen:
                raise ProtocolViolation(COORDINATOR, f"it showed '{each.site}' another set-up than this site")
            if each.site != self._me and not self._confirms(each):
                raise ProtocolViolation(each.site, "it does not have the secret that it should share with this site")
            sites.append(each.site)
        if self._me not in sites or len(sites) < self.session.threshold:
            raise ProtocolViolation(COORDINATOR, "too few sites agreed on the set-up, or this one is not among them")
        self.state = following
        return Ready(self.session, self._identity, tuple(sorted(sites)), self._pairs, self._own, self._held)

    def _confirms(self, peer: Agreement) -> bool:
        """Whether ``peer`` has the same pair secret: a false ML-KEM ciphertext gives another one, without an error."""
        told = dict(peer.confirmations).get(self._me, b"")
        return hmac.compare_digest(told, confirmation(self._pairs[peer.site], peer.site))

    @property
    def _me(self) -> str:
        return self._identity.site

    def _next(self, step: str) -> SetupState:
        """The state to enter when ``step`` has succeeded; until then the set-up has ended."""
        if (self.state, step) not in SETUP_TRANSITIONS:
            raise ProtocolViolation(COORDINATOR, f"step '{step}' of the set-up is not possible when it is {self.state}")
        following = SETUP_TRANSITIONS[self.state, step]
        self.state = SetupState.ENDED
        return following

    def _verify(self, message: Signed) -> None:
        if not message.verified(self.session.keys):
            raise ProtocolViolation(message.site, "its signature does not belong to its message")

    def _checked_keys(self, keys: Sequence[Keys]) -> dict[str, Keys]:
        sites = [message.site for message in keys]
        if sites != sorted(set(sites)) or len(sites) < self.session.threshold:
            raise ProtocolViolation(COORDINATOR, "the keys are not those of enough sites, each once, sorted by name")
        for message in keys:
            if message.session != self.session.digest:
                raise ProtocolViolation(message.site, "its keys are for another session")
            self._verify(message)
        found = dict(zip(sites, keys, strict=True))
        if found.get(self._me) != self._own_keys:
            raise ProtocolViolation(COORDINATOR, "it shows other keys for this site than it sent")
        return found

    def _parcel(self, peer: Keys, shares: np.ndarray) -> Parcel:
        """Shares, shape (stock, 32), to one peer."""
        ciphertext = b""
        if self._me < peer.site:
            self._encapsulated[peer.site], ciphertext = encapsulate(peer)
        salts = self._random(SALT_SIZE * len(shares))
        content, commitments = bytearray(), bytearray()
        for number, share in enumerate(shares):
            salt, value = salts[number * SALT_SIZE : (number + 1) * SALT_SIZE], share.tobytes()
            content += salt + value
            commitments += commitment(self.session.digest, self._me, peer.site, number, salt, value)
        info = envelope_info(self.session.digest, self._transcript, self._me, peer.site)
        return Parcel(self._me, peer.site, ciphertext, seal(bytes(content), peer, info), bytes(commitments))

    def _checked_deals(self, deals: Sequence[Deal]) -> dict[str, Deal]:
        sites = [message.site for message in deals]
        if sites != sorted(set(sites)) or len(sites) < self.session.threshold or not set(sites) <= set(self._peers):
            raise ProtocolViolation(COORDINATOR, "the deals are not those of enough sites, each once, sorted by name")
        for message in deals:
            self._verify(message)
            if message.session != self.session.digest or message.seen != self._transcript:
                raise ProtocolViolation(COORDINATOR, f"it showed '{message.site}' other keys than this site")
        found = dict(zip(sites, deals, strict=True))
        if found.get(self._me) != self._own_deal:
            raise ProtocolViolation(COORDINATOR, "it shows another deal of this site than it sent")
        return found

    def _opened(self, deal: Deal, parcel: Parcel) -> dict[tuple[int, int], tuple[bytes, bytes]]:
        if parcel.recipient != self._me or dict(deal.parcels).get(self._me) != parcel.hash:
            raise ProtocolViolation(COORDINATOR, f"the parcel of '{deal.site}' is not the one that it signed")
        info = envelope_info(self.session.digest, self._transcript, deal.site, self._me)
        content, size = self._private.open(parcel.envelope, info, deal.site), SALT_SIZE + SECRET_SIZE
        stock = self.session.stock
        if len(content) != size * len(stock) or len(parcel.commitments) != HASH_SIZE * len(stock):
            raise ProtocolViolation(deal.site, "its parcel does not hold one share for each attempt of the session")
        found = {}
        for number, slot in enumerate(stock):
            salt, share = content[number * size :][:SALT_SIZE], content[number * size + SALT_SIZE :][:SECRET_SIZE]
            known = parcel.commitments[number * HASH_SIZE :][:HASH_SIZE]
            if commitment(self.session.digest, deal.site, self._me, number, salt, share) != known:
                raise ProtocolViolation(deal.site, "it dealt a share that is not the one that it committed to")
            found[slot] = (salt, share)
        return found

    def _paired(self, parcel: Parcel) -> bytes:
        peer = self._peers[parcel.dealer]
        if self._me < peer.site:
            secret = self._encapsulated[peer.site]
        else:
            secret = self._private.decapsulate(parcel.ciphertext, peer.site)
        return pair_secret(self._private, peer, secret, self._transcript, self._me, peer.site)


def transcript_of(keys: Sequence[Keys]) -> str:
    """The hash of all messages of S1, signatures included."""
    return hash_of([[message.digest, message.signature.hex()] for message in keys])


def commitment(session: str, dealer: str, recipient: str, number: int, salt: bytes, share: bytes) -> bytes:
    """32 bytes that bind a dealer to the share with this number in the stock, and tell nobody what it is."""
    parts = (b"share", session.encode(), dealer.encode(), recipient.encode(), number.to_bytes(4, "big"), salt, share)
    return bytes.fromhex(digest(LABEL_SECAGG, *parts))
