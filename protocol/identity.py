"""A hospital as a participant: a name and an Ed25519 key (RFC 8032).

The name is what people read; the key is what signatures are checked against. A roster (a later layer) pins one to
the other.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Final, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import AfterValidator, ConfigDict

_SITE_ID: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")


def check_site_id(text: str) -> str:
    """Return ``text`` when it is a site name: 1-63 of ``a-z 0-9 -``, a letter first. Raises ValueError otherwise."""
    if not _SITE_ID.fullmatch(text):
        raise ValueError(f"'{text}' is no site name: use a-z, 0-9 and '-', a letter first, at most 63 characters")
    return text


SiteId: TypeAlias = Annotated[str, AfterValidator(check_site_id)]


@dataclass(frozen=True, slots=True)
class PublicIdentity:
    """What others know of a site: its name and the 32 bytes of its Ed25519 public key, in hex where it is written."""

    __pydantic_config__ = ConfigDict(val_json_bytes="hex", ser_json_bytes="hex", extra="forbid")

    site: str
    key: bytes

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """True when ``signature`` (64 bytes) over ``message`` was made with this identity's key."""
        try:
            Ed25519PublicKey.from_public_bytes(self.key).verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Identity:
    """A site's own name and private key. Never leaves the site; it has no serialised form here."""

    site: str
    private: Ed25519PrivateKey

    @classmethod
    def generate(cls, site: str) -> "Identity":
        """A new identity with a key from the operating system's CSPRNG."""
        return cls(check_site_id(site), Ed25519PrivateKey.generate())

    @property
    def public(self) -> PublicIdentity:
        return PublicIdentity(self.site, self.private.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """64 bytes; the caller prefixes ``message`` with a domain-separation label."""
        return self.private.sign(message)
