"""Keys of a session: what two sites share, and the mask keys that follow from it for one attempt.

Two sites agree on a secret by X25519 (RFC 7748) and ML-KEM-768 (FIPS 203) together, so that it holds while either of
them does. Shares travel in HPKE (RFC 9180) with the same two keys as a hybrid KEM. Everything derived goes through
HKDF-SHA256 (RFC 5869) under the protocol's label.
"""

from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, MLKEM768X25519PublicKey, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from wardround.protocol.canonical import LABEL_SECAGG, encode
from wardround.protocol.errors import ProtocolViolation
from wardround.protocol.secagg import Keys

X25519_SIZE: Final = 32
MLKEM_SEED_SIZE: Final = 64
RANDOM_BYTES: Final = X25519_SIZE + MLKEM_SEED_SIZE

_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """A site's private keys of one session. They never leave the process, and end with it."""

    x25519: X25519PrivateKey
    mlkem: MLKEM768PrivateKey

    @classmethod
    def from_random(cls, randomness: bytes) -> "SessionKeys":
        """From 96 bytes of the operating system's CSPRNG: 32 for X25519, 64 for ML-KEM."""
        if len(randomness) != RANDOM_BYTES:
            raise ValueError(f"session keys are made from {RANDOM_BYTES} random bytes")
        return cls(
            X25519PrivateKey.from_private_bytes(randomness[:X25519_SIZE]),
            MLKEM768PrivateKey.from_seed_bytes(randomness[X25519_SIZE:]),
        )

    @property
    def public(self) -> tuple[bytes, bytes]:
        """(X25519 32 bytes, ML-KEM-768 1184 bytes)."""
        return self.x25519.public_key().public_bytes_raw(), self.mlkem.public_key().public_bytes_raw()

    def decapsulate(self, ciphertext: bytes, sender: str) -> bytes:
        """The ML-KEM secret, 32 bytes. A wrong ciphertext gives another secret; a malformed one is a violation."""
        try:
            return self.mlkem.decapsulate(ciphertext)
        except ValueError:
            raise ProtocolViolation(sender, "its ML-KEM ciphertext is malformed") from None

    def open(self, envelope: bytes, info: bytes, sender: str) -> bytes:
        """What ``seal`` sealed for these keys. Raises ProtocolViolation for anything else."""
        private = MLKEM768X25519PrivateKey(self.mlkem, self.x25519)
        try:
            return _SUITE.decrypt(envelope, private, info)
        except (InvalidTag, ValueError):
            raise ProtocolViolation(sender, "its envelope of shares cannot be opened") from None


def encapsulate(peer: Keys) -> tuple[bytes, bytes]:
    """(secret of 32 bytes, ciphertext of 1088) for a peer's ML-KEM key; the library draws the randomness."""
    return _mlkem(peer).encapsulate()


def seal(shares: bytes, peer: Keys, info: bytes) -> bytes:
    """``shares`` in an HPKE message to ``peer``; ``info`` binds it to session, dealer and recipient.

    Raises:
        ProtocolViolation: the peer's keys are malformed, or its X25519 key is of low order (RFC 7748, section 6.1).
    """
    public = MLKEM768X25519PublicKey(_mlkem(peer), _x25519(peer))
    try:
        return _SUITE.encrypt(shares, public, info)
    except ValueError:
        raise ProtocolViolation(peer.site, "its X25519 key is of low order") from None


def envelope_info(session: str, transcript: str, dealer: str, recipient: str) -> bytes:
    """The HPKE info of a parcel: shares cannot be moved to another session, dealer or recipient."""
    return LABEL_SECAGG.encode() + b"\x00" + encode(["shares", session, transcript, dealer, recipient])


def pair_secret(own: SessionKeys, peer: Keys, kem_secret: bytes, transcript: str, one: str, other: str) -> bytes:
    """ss_ij, 32 bytes, the same on both sides: HKDF(X25519 || KEM secret, salt = transcript, info = both names)."""
    public = _x25519(peer)
    try:
        agreed = own.x25519.exchange(public)
    except ValueError:
        raise ProtocolViolation(peer.site, "its X25519 key is of low order") from None
    return _derive(agreed + kem_secret, bytes.fromhex(transcript), ["pair", *sorted((one, other))])


def confirmation(secret: bytes, sender: str) -> bytes:
    """32 bytes by which ``sender`` shows its peer that it has the pair's secret, without telling anybody else."""
    return _derive(secret, b"", ["confirm", sender])


def pair_mask_key(secret: bytes, proposal: str) -> bytes:
    """k_ij, 32 bytes: the key of a pair's mask in the one attempt whose proposal has this hash."""
    return _derive(secret, b"", ["pair-mask", proposal])


def own_mask_key(secret: bytes, proposal: str) -> bytes:
    """The key of a site's own mask in an attempt, from the b that was dealt for it."""
    return _derive(secret, b"", ["own-mask", proposal])


def _derive(secret: bytes, salt: bytes, about: list[str]) -> bytes:
    info = LABEL_SECAGG.encode() + b"\x00" + encode(about)
    return HKDF(SHA256(), 32, salt or None, info).derive(secret)


def _mlkem(peer: Keys) -> MLKEM768PublicKey:
    try:
        return MLKEM768PublicKey.from_public_bytes(peer.mlkem)
    except ValueError:
        raise ProtocolViolation(peer.site, "its ML-KEM key is malformed") from None


def _x25519(peer: Keys) -> X25519PublicKey:
    try:
        return X25519PublicKey.from_public_bytes(peer.x25519)
    except ValueError:
        raise ProtocolViolation(peer.site, "its X25519 key is malformed") from None
