"""How a site joins a coordinator: the code that people pass on, and the request and answer that follow it.

A code is base64url (RFC 4648) without padding over the canonical JSON of an ``Invitation``. It pins the coordinator's
CA by the SHA-256 of its certificate, so that a site needs to trust nobody on the way there. What the site proves in
return is a MAC (HMAC-SHA256, RFC 2104) over its name and keys, under a key that is derived from the code's secret: the
secret itself is never sent.
"""

import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as BinasciiError
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ipaddress import ip_address
from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from wardround.protocol.canonical import LABEL_INVITATION, digest, encode
from wardround.protocol.errors import UsageError
from wardround.protocol.identity import SiteId
from wardround.protocol.ledger import Hex32
from wardround.protocol.owners import COORDINATOR

JOIN_PATH: Final = "/v1/fleet/wardround/join"
ROSTER_PATH: Final = "/v1/fleet/wardround/roster"

MAX_CODE: Final = 2048
"""Characters of a code."""

MAX_JOIN_BYTES: Final = 8192
"""Room for a join request, and for its answer."""

SECRET_SIZE: Final = 16

_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_HINT: Final = "copy the whole code again, or ask the operator of the coordinator for a new one"


def check_host(text: str) -> str:
    """Return ``text`` when it is a DNS name in lower case or an IP address. Raises ValueError otherwise."""
    try:
        return str(ip_address(text))
    except ValueError:
        labels = text.split(".")
    # A name whose last part is a number would be read as an address by some resolvers.
    if len(text) > 253 or not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdigit():
        raise ValueError("this is neither a DNS name in lower case nor an IP address")
    return text


Host: TypeAlias = Annotated[str, AfterValidator(check_host)]
Port: TypeAlias = Annotated[int, Field(ge=1, le=65535)]
NodeKey: TypeAlias = Annotated[str, Field(pattern=r"^ecdsa-sha2-nistp384 [A-Za-z0-9+/]{182}==$", max_length=256)]
"""An OpenSSH public line of a P-384 key (RFC 5656), without a comment."""


def address(host: str, port: int) -> str:
    """``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Invitation(_Part):
    """For one site, one use, until ``expires``. ``ca``: SHA-256 of the CA certificate in DER."""

    v: Literal[1] = 1
    site: SiteId
    host: Host
    port: Port
    secret: str = Field(pattern=rf"^[0-9a-f]{{{2 * SECRET_SIZE}}}$", repr=False)
    ca: Hex32
    expires: AwareDatetime

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.site == COORDINATOR:
            raise ValueError(f"no site may be called '{COORDINATOR}'")
        if self.expires.utcoffset() != timedelta(0) or self.expires.microsecond:
            raise ValueError("an invitation expires at a whole second of UTC")
        return self

    def encode(self) -> str:
        """The code, on one line."""
        body = self.model_dump(mode="json") | {"expires": self.expires.strftime("%Y-%m-%dT%H:%M:%SZ")}
        return urlsafe_b64encode(encode(body)).rstrip(b"=").decode()

    @classmethod
    def parse(cls, code: str) -> "Invitation":
        """The invitation in a code; spaces and line ends that a mail put in do not count.

        Raises:
            UsageError: it is none, or was not copied whole.
        """
        text = "".join(code.split())
        if not text or len(text) > MAX_CODE:
            raise UsageError("this is no invitation code", _HINT)
        try:
            content = urlsafe_b64decode(text + "=" * (-len(text) % 4))
            invitation = cls.model_validate_json(content)
        except (ValueError, BinasciiError, ValidationError):
            raise UsageError("this is no invitation code", _HINT) from None
        if not hmac.compare_digest(invitation.encode().encode(), text.encode(errors="replace")):
            raise UsageError("this invitation code was changed on its way", _HINT)
        return invitation

    def expired(self, now: datetime) -> bool:
        """Whether it is too late at ``now``."""
        return now.astimezone(UTC) >= self.expires

    @property
    def superlink(self) -> str:
        """Where the coordinator listens, ``host:port``."""
        return address(self.host, self.port)

    @property
    def proof_key(self) -> bytes:
        return proof_key(bytes.fromhex(self.secret))


def proof_key(secret: bytes) -> bytes:
    """The 32 bytes that a coordinator keeps of a code's secret. They make a proof, but not the code."""
    return bytes.fromhex(digest(LABEL_INVITATION, b"secret", secret))


class JoinRequest(_Part):
    """What a site sends: its name and its public keys, and the proof that it holds the code for them."""

    site: SiteId
    secret_proof: Hex32
    identity_key: Hex32
    node_key: NodeKey

    @classmethod
    def made(cls, key: bytes, site: str, identity_key: bytes, node_key: str) -> "JoinRequest":
        """The request of ``site`` under ``key``, from ``proof_key``."""
        made = cls(site=site, secret_proof="00" * 32, identity_key=identity_key.hex(), node_key=node_key)
        return made.model_copy(update={"secret_proof": made._proof(key).hex()})

    def proves(self, key: bytes) -> bool:
        """Whether the proof was made with ``key`` for this name and these keys, compared in constant time."""
        return hmac.compare_digest(self._proof(key), bytes.fromhex(self.secret_proof))

    def _proof(self, key: bytes) -> bytes:
        body = encode({"site": self.site, "identity_key": self.identity_key, "node_key": self.node_key})
        return hmac.digest(key, LABEL_INVITATION.encode() + b"\x00" + body, "sha256")


class JoinAnswer(_Part):
    """What the coordinator answers: its own key, and the fingerprint of the site's key as it has written it down."""

    coordinator_key: Hex32
    fingerprint: str = Field(pattern=r"^([0-9a-f]{4} ){7}[0-9a-f]{4}$")


class Refusal(_Part):
    """Why not, in one word."""

    error: str = Field(pattern=r"^[a-z_]{1,20}$")


def key_fingerprint(key: bytes) -> str:
    """A public key as people compare it by telephone: eight groups of four hex digits of its SHA-256."""
    text = sha256(key).hexdigest()
    return " ".join(text[i : i + 4] for i in range(0, 32, 4))
