"""An entry of a ledger: a fact and its time as canonical bytes, chained by hash to the entry before, and signed.

The hash covers the entry's number, its content, and hash and signature of its predecessor. So the last signature stands
for every byte before it, signatures included.
"""

from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from wardround.protocol.canonical import LABEL_ENTRY, LABEL_ENTRY_SIGNATURE, digest, encode
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import Fact, SetClock

GENESIS: Final = bytes(32)
"""What the first entry names as its predecessor's hash."""

SIGNATURE_SIZE: Final = 64


class DatedFact(BaseModel):
    """A fact, and when the site wrote it: UTC, whole seconds, as in ``2026-11-23T09:30:00Z``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: str = Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
    fact: Fact


_DATED: Final[TypeAdapter[DatedFact]] = TypeAdapter(DatedFact)


@dataclass(frozen=True, slots=True)
class Entry:
    """Entry ``number`` (from 1) as stored. ``signature`` is empty in a simulation's ledger, which has no key."""

    number: int
    content: bytes
    signature: bytes
    hash: bytes


def content_bytes(at: str, fact: Fact) -> bytes:
    """The canonical bytes (RFC 8785) of a fact and its time."""
    return encode({"at": at, "fact": fact.model_dump(mode="json")})


def parse_content(content: bytes) -> DatedFact:
    """The fact in ``content``; an unknown kind or field raises pydantic's ValidationError, it is never guessed."""
    return _DATED.validate_json(content)


def misdated(dated: DatedFact, before: str) -> bool:
    """Whether an entry cannot stand behind one of time ``before``: time goes back where an officer says so only."""
    if isinstance(dated.fact, SetClock):
        return dated.fact.wrong != before
    return dated.at < before


def entry_hash(previous: bytes, previous_signature: bytes, number: int, content: bytes) -> bytes:
    """The 32 bytes that are signed (behind a label) and that the next entry names."""
    return bytes.fromhex(digest(LABEL_ENTRY, previous, previous_signature, number.to_bytes(8, "big"), content))


def signed_message(hash_: bytes) -> bytes:
    """What a site signs for an entry: LABEL_ENTRY_SIGNATURE || 0x00 || hash."""
    return LABEL_ENTRY_SIGNATURE.encode() + b"\x00" + hash_


def next_entry(last: Entry | None, content: bytes, identity: Identity | None) -> Entry:
    """The entry that follows ``last`` (None: the first), signed by ``identity`` (None: a simulation)."""
    number = 1 if last is None else last.number + 1
    hash_ = chained(last, number, content)
    return Entry(number, content, b"" if identity is None else identity.sign(signed_message(hash_)), hash_)


def chained(last: Entry | None, number: int, content: bytes) -> bytes:
    """The hash of entry ``number`` behind ``last``."""
    if last is None:
        return entry_hash(GENESIS, b"", number, content)
    return entry_hash(last.hash, last.signature, number, content)
