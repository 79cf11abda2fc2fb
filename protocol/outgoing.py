"""What may leave a site: the one type that a transport takes, and the only way to make one.

``Outgoing`` is bytes that were made from one of the classes in ``LEAVES`` and from nothing else. A function that sends
takes an ``Outgoing``, so mypy refuses anything else; ``bytes_to_send`` refuses it at run time too.

The bytes are 4 of length (big-endian), a header in JSON of that length, and a vector where there is one: float64 in the
open, residues of 32 or 64 bits under masks, little-endian both.
"""

import struct
from typing import Any, Final, Protocol, TypeAlias, final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from wardround.protocol.canonical import encode
from wardround.protocol.errors import ProtocolViolation
from wardround.protocol.identity import SiteId
from wardround.protocol.messages import (
    Cosigned,
    Done,
    Gossiped,
    Greeting,
    Masked,
    Recalled,
    Refusal,
    RefusalCode,
    Reply,
    Signed,
)
from wardround.protocol.parameters import Blocks
from wardround.protocol.secagg import Agreement, Consent, Deal, Keys, Opening, Parcel, Upload

MAX_HEADER_BYTES: Final = 4096
_LENGTH: Final = struct.Struct(">I")
_MADE_HERE: Final = object()

Answer: TypeAlias = Reply | Refusal | Masked
"""What a site says to a round request."""

Step: TypeAlias = Keys | Deal | Agreement | Consent | Opening
"""What a site says to the other exchanges of secure aggregation. A ``Deal`` goes with its parcels."""

Word: TypeAlias = Greeting | Done | Signed | Cosigned | Recalled | Gossiped
"""What a site says besides: how a plan stands, receipts, the heads of ledgers, and alarms on them."""

LEAVES: Final = (
    Reply, Refusal, Masked, Keys, Deal, Agreement, Consent, Opening, Greeting, Done, Signed, Cosigned, Recalled,
    Gossiped,
)  # fmt: skip
"""The whole list: nothing of another class leaves a site, subclasses of these included."""

_STEPS: Final[dict[str, TypeAdapter[Any]]] = {
    kind.__name__: TypeAdapter(kind) for kind in LEAVES if kind not in (Reply, Refusal, Masked)
}
_PARCELS: Final = TypeAdapter(tuple[Parcel, ...])


class Stored(Protocol):
    """The bytes of a large answer that are not held in memory."""

    def __len__(self) -> int: ...

    def read(self, start: int, size: int) -> bytes:
        """At most ``size`` bytes from ``start`` on."""

    def vector(self, start: int, kind: str) -> Blocks:
        """What follows ``start`` as numbers of the NumPy type ``kind``."""


@final
class Outgoing:
    """Bytes that may leave. Made by ``outgoing`` only; a copy of stored bytes comes back through it too.

    No dataclass, so that ``replace`` cannot make one with other bytes.
    """

    __slots__ = ("_content",)
    _content: bytes

    def __init__(self, content: bytes, made_by: object) -> None:
        if made_by is not _MADE_HERE:
            raise TypeError("only a message of the protocol becomes something that may leave: use outgoing()")
        object.__setattr__(self, "_content", content)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("what may leave is never changed")

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("an Outgoing is made anew from a message, never copied or unpickled")

    @property
    def content(self) -> bytes:
        """4 bytes of length, the header, the vector."""
        return self._content


class _Header(BaseModel):
    """Everything in an answer but the vector: names and numbers that the coordinator has sent or may know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: SiteId
    plan: str
    round_number: int = Field(ge=0, lt=2**53)
    attempt: int = Field(ge=0, lt=2**53)
    model_hash: str | None = None
    refused: RefusalCode | None = None
    masked: Upload | None = None
    bits: int | None = None


def outgoing(message: Answer | Step | Word, parcels: tuple[Parcel, ...] = ()) -> Outgoing:
    """The bytes of a message. Raises TypeError for anything but a class in ``LEAVES``, subclasses included."""
    if type(message) not in LEAVES or any(type(parcel) is not Parcel for parcel in parcels):
        raise TypeError("only a message of the protocol may leave a site")
    if not isinstance(message, Reply | Refusal | Masked):
        kind = type(message).__name__
        body = _STEPS[kind].dump_python(message, mode="json")
        sent = _PARCELS.dump_python(parcels, mode="json")
        return _sealed({"kind": kind, "message": body, "parcels": sent}, b"")
    header: dict[str, Any] = {
        "site": message.site,
        "plan": message.plan,
        "round_number": message.round_number,
        "attempt": message.attempt,
        "refused": None,
    }
    if isinstance(message, Refusal):
        return _sealed(header | {"model_hash": None, "refused": message.code.value}, b"")
    header["model_hash"] = message.model_hash
    if isinstance(message, Reply):
        return _sealed(header, np.ascontiguousarray(message.vector, "<f8").data.cast("B"))
    if not isinstance(message.vector, np.ndarray):
        raise TypeError("a site sends a vector that it holds")
    upload = TypeAdapter(Upload).dump_python(message.upload, mode="json")
    return _sealed(header | {"masked": upload, "bits": 8 * message.vector.itemsize}, message.vector.data.cast("B"))


def bytes_to_send(message: Outgoing) -> bytes:
    """What a transport puts on the wire. Raises TypeError for anything but an ``Outgoing``."""
    if type(message) is not Outgoing:
        raise TypeError("a site sends an Outgoing and nothing else")
    return message.content


def parse_answer(data: bytes | Stored, sender: str) -> Answer:
    """The answer to a round request in ``data`` that came from ``sender``. Its vector is not copied.

    Raises:
        ProtocolViolation: for anything but what ``outgoing`` makes, or when the answer names another site.
    """
    text = _header(data, sender, MAX_HEADER_BYTES)
    start = _LENGTH.size + len(text)
    try:
        header = _Header.model_validate_json(text)
    except ValidationError:
        raise ProtocolViolation(sender, "the answer's header is not one of this protocol") from None
    if header.site != sender:
        raise ProtocolViolation(sender, "the answer names another site")
    about = (header.site, header.plan, header.round_number, header.attempt)
    if header.refused is not None and header.model_hash is None and header.masked is None and start == len(data):
        return Refusal(*about, header.refused)
    if header.model_hash is None or header.refused is not None or (header.masked is None) != (header.bits is None):
        raise ProtocolViolation(sender, "the answer is neither a reply nor a refusal")
    kind = {None: "<f8", 32: "<u4", 64: "<u8"}.get(header.bits)
    if kind is None or (len(data) - start) % np.dtype(kind).itemsize:
        raise ProtocolViolation(sender, "the answer's parts do not have the lengths that it names")
    if header.masked is None:
        # In the open every site's vector is kept until all are there.
        whole = data if isinstance(data, bytes) else data.read(0, len(data))
        return Reply(*about, header.model_hash, np.frombuffer(whole, kind, offset=start))
    values = np.frombuffer(data, kind, offset=start) if isinstance(data, bytes) else data.vector(start, kind)
    return Masked(*about, header.model_hash, header.masked, values)


def is_answer(data: bytes, sender: str) -> bool:
    """Whether these bytes are for ``parse_answer``, else for ``parse_step``. Raises ProtocolViolation like both."""
    return not _header(data, sender, len(data)).startswith(b'{"kind":')


def parse_step(data: bytes, sender: str) -> tuple[Step | Word, tuple[Parcel, ...]]:
    """A message of another exchange, and its parcels. Raises ProtocolViolation like ``parse_answer``."""
    text = _header(data, sender, len(data))
    try:
        found = _Step.model_validate_json(text)
        message = _STEPS[found.kind].validate_python(found.message, strict=False)
        parcels = _PARCELS.validate_python(found.parcels)
    except (ValidationError, KeyError):
        raise ProtocolViolation(sender, "the message is not one of this protocol") from None
    if len(data) > _LENGTH.size + len(text) or message.site != sender:
        raise ProtocolViolation(sender, "the message names another site, or something follows it")
    return message, parcels


class _Step(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    message: dict[str, Any]
    parcels: list[dict[str, Any]]


def _sealed(header: dict[str, Any], vector: bytes | memoryview) -> Outgoing:
    text = encode(header)
    return Outgoing(b"".join((_LENGTH.pack(len(text)), text, vector)), _MADE_HERE)


def _header(data: bytes | Stored, sender: str, most: int) -> bytes:
    """The JSON in front of the vector."""
    if len(data) < _LENGTH.size:
        raise ProtocolViolation(sender, "the answer is too short")
    first = data if isinstance(data, bytes) else data.read(0, _LENGTH.size + most)
    size = _LENGTH.unpack_from(first)[0]
    if size > most or _LENGTH.size + size > len(data):
        raise ProtocolViolation(sender, "the answer's parts do not have the lengths that it names")
    return first[_LENGTH.size : _LENGTH.size + size]
