"""What secure aggregation sends: every message, its signed bytes, and the public terms that all parties share.

Three messages of set-up (S1 keys, S2 deal and parcels, S3 agreement), then for each attempt at a round three exchanges
(R1 a masked vector, R2 a signature under the list of survivors, R3 what opens the sum), or R1 and R3 where nobody was
lost. The coordinator carries them and adds vectors up; it can withhold, but not alter. It signs what it asks for, so
that two views of one attempt are evidence.

A party signs LABEL_SECAGG || 0x00 || canonical JSON (RFC 8785) of a message's ``header``, which names its kind first,
so that no signature can be taken for another's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Self

from pydantic import ConfigDict

from wardround.protocol.canonical import LABEL_SECAGG, digest, encode
from wardround.protocol.identity import Identity, PublicIdentity

SMALLEST: Final = 3
"""Sites without which a sum hides nobody."""

LARGEST: Final = 100
"""Sites of one complete graph; more need groups, which this protocol does not have."""


def threshold(sites: int, min_sites: int = SMALLEST) -> int:
    """t: shares that open a mask, signatures that make a list. max(floor(2n/3) + 1, min_sites)."""
    return max(2 * sites // 3 + 1, min_sites)


def colluding(sites: int) -> int:
    """c: sites that may side with the coordinator. floor((n - 1) / 3), so that 2t > n + c."""
    return (sites - 1) // 3


def honest(sites: int, min_sites: int = SMALLEST) -> int:
    """h: contributors to every sum that is opened whom neither the coordinator nor c sites control. t - max(c, 1)."""
    return threshold(sites, min_sites) - max(colluding(sites), 1)


def signed_bytes(header: Mapping[str, Any]) -> bytes:
    """What a site signs for a message."""
    return LABEL_SECAGG.encode() + b"\x00" + encode(header)


AS_JSON: Final = ConfigDict(val_json_bytes="hex", ser_json_bytes="hex", extra="forbid")
"""How messages are written: bytes as lower-case hex, no unknown field."""


class _Said:
    """A message that its sender signs. ``header`` is what it says, ``signed`` the bytes of that, made once."""

    signature: bytes

    @property
    def header(self) -> dict[str, Any]:
        raise NotImplementedError

    @cached_property
    def signed(self) -> bytes:
        """LABEL_SECAGG || 0x00 || canonical JSON of the header."""
        return signed_bytes(self.header)

    @cached_property
    def digest(self) -> str:
        """64 hex digits over the header, without the signature."""
        return digest(LABEL_SECAGG, self.signed)

    def signed_by(self, identity: Identity) -> Self:
        """This message with its sender's signature."""
        return replace(self, signature=identity.sign(self.signed))  # type: ignore[type-var]

    @property
    def evidence(self) -> bytes:
        """What shows anybody that the sender has said this: canonical JSON of header and signature."""
        return encode({"header": self.header, "signature": self.signature.hex()})


class Signed(_Said):
    """A site's message."""

    site: str

    def verified(self, members: Mapping[str, PublicIdentity]) -> bool:
        """Whether the site that the message names is a member, and signed it with its pinned key."""
        member = members.get(self.site)
        return member is not None and member.verifies(self.signature, self.signed)


def hash_of(value: Any) -> str:
    """64 hex digits over canonical JSON, under this protocol's label."""
    return digest(LABEL_SECAGG, encode(value))


@dataclass(frozen=True)
class Session:
    """The public terms, from the approved plan and the pinned roster: the same for every party, hashed into everything.

    ``members`` are sorted by name; party number i is ``members[i - 1]``. ``threshold`` is t, ``colluding`` is c.
    ``length`` is d, coordinates of a vector in a ring of ``bits``. ``rounds`` x ``attempts`` is the stock of masks.
    """

    __pydantic_config__ = AS_JSON

    plan: str
    roster: str
    name: str
    members: tuple[PublicIdentity, ...]
    threshold: int
    colluding: int
    bits: int
    length: int
    rounds: tuple[int, ...]
    attempts: int
    coordinator: PublicIdentity

    def __post_init__(self) -> None:
        names, keys = [m.site for m in self.members], {m.key for m in self.members} - {self.coordinator.key}
        n, t, c = len(names), self.threshold, self.colluding
        if names != sorted(set(names)) or len(keys) != n:
            raise ValueError("members are sorted by name, with a key of their own each")
        if not SMALLEST <= n <= LARGEST or not 1 <= t <= n or not 2 * t > n + c:
            raise ValueError(f"no secure sum of {n} sites with threshold {t} against {c} that collude")

    @cached_property
    def digest(self) -> str:
        """64 hex digits: what every message names as its session."""
        return hash_of(
            {
                "kind": "session",
                "plan": self.plan,
                "roster": self.roster,
                "name": self.name,
                "members": [[member.site, member.key.hex()] for member in self.members],
                "threshold": self.threshold,
                "colluding": self.colluding,
                "bits": self.bits,
                "length": self.length,
                "rounds": list(self.rounds),
                "attempts": self.attempts,
                "coordinator": self.coordinator.key.hex(),
            }
        )

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Party number by site, from 1."""
        return {member.site: number for number, member in enumerate(self.members, start=1)}

    @cached_property
    def keys(self) -> dict[str, PublicIdentity]:
        """Pinned identity by site."""
        return {member.site: member for member in self.members}

    def asked(self, request: "Proposal | Survivors") -> bool:
        """Whether the coordinator of this session has signed what it asks for."""
        return self.coordinator.verifies(request.signature, request.signed)

    @cached_property
    def stock(self) -> tuple[tuple[int, int], ...]:
        """Every (round, attempt) that this session has masks for, in order."""
        return tuple((number, attempt) for number in self.rounds for attempt in range(1, self.attempts + 1))


@dataclass(frozen=True)
class Keys(Signed):
    """S1: a site's keys of this session. X25519 32 bytes, ML-KEM-768 1184 bytes; both together are its HPKE key."""

    __pydantic_config__ = AS_JSON

    site: str
    session: str
    nonce: bytes
    x25519: bytes
    mlkem: bytes
    signature: bytes = b""

    @property
    def header(self) -> dict[str, Any]:
        return {
            "kind": "keys",
            "session": self.session,
            "site": self.site,
            "nonce": self.nonce.hex(),
            "x25519": self.x25519.hex(),
            "mlkem": self.mlkem.hex(),
        }


@dataclass(frozen=True)
class Parcel:
    """S2: what a dealer sends one recipient through the coordinator.

    ``ciphertext``: ML-KEM-768, to recipients of a higher number only (else empty). ``envelope``: HPKE over the
    recipient's shares of the whole stock. ``commitments``: 32 bytes for each share, so that a bad share names who lied.
    """

    __pydantic_config__ = AS_JSON

    dealer: str
    recipient: str
    ciphertext: bytes
    envelope: bytes
    commitments: bytes

    @cached_property
    def hash(self) -> str:
        parts = (self.dealer.encode(), self.recipient.encode(), self.ciphertext, self.envelope, self.commitments)
        return digest(LABEL_SECAGG, b"parcel", *parts)


@dataclass(frozen=True)
class Deal(Signed):
    """S2: a dealer's signature under the keys that it has seen and under every parcel that it sent."""

    __pydantic_config__ = AS_JSON

    site: str
    session: str
    seen: str
    parcels: tuple[tuple[str, str], ...]
    signature: bytes = b""

    @property
    def header(self) -> dict[str, Any]:
        return {
            "kind": "deal",
            "session": self.session,
            "site": self.site,
            "seen": self.seen,
            "parcels": [list(parcel) for parcel in self.parcels],
        }


@dataclass(frozen=True)
class Agreement(Signed):
    """S3: a site's signature under all messages of S1 and S2 as it has seen them.

    ``confirmations`` has 32 bytes for each peer, sorted by name: they show that both have the same pair secret.
    """

    __pydantic_config__ = AS_JSON

    site: str
    session: str
    seen: str
    confirmations: tuple[tuple[str, bytes], ...]
    signature: bytes = b""

    @property
    def header(self) -> dict[str, Any]:
        return {
            "kind": "agreement",
            "session": self.session,
            "site": self.site,
            "seen": self.seen,
            "confirmations": [[peer, tag.hex()] for peer, tag in self.confirmations],
        }


@dataclass(frozen=True)
class Proposal(_Said):
    """R1, from the coordinator: who takes part in this attempt (U1), and the model that all start from."""

    __pydantic_config__ = AS_JSON

    session: str
    round_number: int
    attempt: int
    participants: tuple[str, ...]
    model_hash: str
    vector: str
    signature: bytes = b""

    @property
    def header(self) -> dict[str, Any]:
        return {
            "kind": "proposal",
            "session": self.session,
            "round": self.round_number,
            "attempt": self.attempt,
            "participants": list(self.participants),
            "model": self.model_hash,
            "vector": self.vector,
        }

    @cached_property
    def hash(self) -> str:
        """H(U1), model and vector in one: what masks and signatures of the attempt are bound to."""
        return hash_of(self.header)


@dataclass(frozen=True)
class Upload(Signed):
    """R1, from a site: the signed hash of its masked vector. The vector, little-endian residues, goes beside it."""

    __pydantic_config__ = AS_JSON

    site: str
    proposal: str
    content: str
    signature: bytes = b""

    @property
    def header(self) -> dict[str, Any]:
        return {"kind": "upload", "site": self.site, "proposal": self.proposal, "content": self.content}


@dataclass(frozen=True)
class Survivors(_Said):
    """R2, from the coordinator: the uploads that arrived (U3), in the order of the sites' names."""

    __pydantic_config__ = AS_JSON

    proposal: str
    uploads: tuple[Upload, ...]
    signature: bytes = b""

    @property
    def header(self) -> dict[str, Any]:
        uploads = [[upload.site, upload.content] for upload in self.uploads]
        return {"kind": "survivors", "proposal": self.proposal, "uploads": uploads}

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(upload.site for upload in self.uploads)

    @cached_property
    def hash(self) -> str:
        return hash_of(self.header)


@dataclass(frozen=True)
class Consent(Signed):
    """R2, from a site: its one signature under the one list of survivors of an attempt."""

    __pydantic_config__ = AS_JSON

    site: str
    survivors: str
    signature: bytes = b""

    @property
    def header(self) -> dict[str, Any]:
        return {"kind": "consent", "site": self.site, "survivors": self.survivors}


@dataclass(frozen=True)
class Opening(Signed):
    """R3, from a site: shares of the survivors' own masks, and its pair seeds with those who were lost. Never both."""

    __pydantic_config__ = AS_JSON

    site: str
    survivors: str
    shares: tuple[tuple[str, bytes, bytes], ...]
    """(survivor, salt, share)"""
    seeds: tuple[tuple[str, bytes], ...]
    """(lost site, mask key of the pair for this attempt)"""
    signature: bytes = b""

    @property
    def header(self) -> dict[str, Any]:
        return {
            "kind": "opening",
            "site": self.site,
            "survivors": self.survivors,
            "shares": [[site, salt.hex(), share.hex()] for site, salt, share in self.shares],
            "seeds": [[site, key.hex()] for site, key in self.seeds],
        }
