"""Entries of a privacy ledger: append-only facts in a hash chain, as pure data.

A domain is a patient population of one site. A block is one round of one study on one domain; it counts against the
budget from RESERVED on, and a crash never gives it back::

    RESERVED -> RUNNING -> RELEASED | ABANDONED          RESERVED -> CANCELLED   (only if nothing was drawn)

Entries hold mechanism events, never only an epsilon.
"""

from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from wardround.protocol.canonical import LABEL_ENTRY, digest, encode
from wardround.protocol.events import DpEvent

GENESIS: Final = "0" * 64
"""What the first entry names as its predecessor."""


class BlockState(StrEnum):
    RESERVED = "reserved"
    RUNNING = "running"
    RELEASED = "released"
    ABANDONED = "abandoned"
    CANCELLED = "cancelled"


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OpenDomain(_Entry):
    """A patient population gets a budget; delta and cap are fixed for ever."""

    kind: Literal["open_domain"] = "open_domain"
    domain: str
    delta: float = Field(gt=0, lt=1)
    epsilon_cap: float | None = Field(gt=0, description="null: a simulation without protection, never a hospital")
    order: int | None = Field(ge=2, description="alpha*: the fixed order of the Renyi filter")


class Reserve(_Entry):
    """A block is charged, before anything is drawn."""

    kind: Literal["reserve"] = "reserve"
    domain: str
    block: str
    plan: str
    round_number: int = Field(ge=1)
    event: DpEvent


class Start(_Entry):
    """From here on patients may have been drawn."""

    kind: Literal["start"] = "start"
    block: str


class Cancel(_Entry):
    """Nothing was drawn: the charge is given back."""

    kind: Literal["cancel"] = "cancel"
    block: str


class Release(_Entry):
    """The hash of the bytes that left."""

    kind: Literal["release"] = "release"
    block: str
    content: str


class Abandon(_Entry):
    """The block ended without a release; the charge stays."""

    kind: Literal["abandon"] = "abandon"
    block: str


class Refuse(_Entry):
    """A request that was answered with a refusal; a fact for the officer, without a charge."""

    kind: Literal["refuse"] = "refuse"
    plan: str
    round_number: int
    reason: str


Fact = Annotated[OpenDomain | Reserve | Start | Cancel | Release | Abandon | Refuse, Field(discriminator="kind")]
_FACT: Final[TypeAdapter[Fact]] = TypeAdapter(Fact)

TRANSITIONS: Final[dict[tuple[BlockState | None, str], BlockState]] = {
    # (state before, kind of entry): state after; anything else is refused
    (None, "reserve"): BlockState.RESERVED,
    (BlockState.RESERVED, "start"): BlockState.RUNNING,
    (BlockState.RESERVED, "cancel"): BlockState.CANCELLED,
    (BlockState.RUNNING, "release"): BlockState.RELEASED,
    (BlockState.RUNNING, "abandon"): BlockState.ABANDONED,
    (BlockState.RELEASED, "release"): BlockState.RELEASED,
}


def fact_bytes(fact: Fact) -> bytes:
    """The canonical bytes of an entry's content."""
    return encode(fact.model_dump(mode="json"))


def parse_fact(data: bytes) -> Fact:
    """The entry in ``data``; an unknown kind or field raises pydantic's ValidationError, it is never guessed."""
    return _FACT.validate_json(data)


def chain_hash(previous: str, counter: int, content: bytes) -> str:
    """The hash that the next entry names: over the predecessor's hash, this entry's number and its content."""
    return digest(LABEL_ENTRY, bytes.fromhex(previous), counter.to_bytes(8, "big"), content)
