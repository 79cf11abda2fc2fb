"""What may leave a site: the one type that a transport takes, and the only way to make one.

``Outgoing`` is bytes that were made from one of the classes in ``LEAVES`` and from nothing else. A function that sends
takes an ``Outgoing``, so mypy refuses anything else; ``bytes_to_send`` refuses it at run time too.

The bytes are 4 of length (big-endian), a header in JSON of that length, and a vector where there is one: float64 in the
open, residues of 32 or 64 bits under masks, little-endian both.
"""

import struct
from typing import Any, Final, TypeAlias, final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from wardround.protocol.canonical import encode
from wardround.protocol.errors import ProtocolViolation
from wardround.protocol.identity import SiteId
from wardround.protocol.messages import Masked, Refusal, RefusalCode, Reply
from wardround.protocol.secagg import Agreement, Consent, Deal, Keys, Opening, Parcel, Upload

MAX_HEADER_BYTES: Final = 4096
_LENGTH: Final = struct.Struct(">I")
_MADE_HERE: Final = object()

Answer: TypeAlias = Reply | Refusal | Masked
"""What a site says to a round request."""

Step: TypeAlias = Keys | Deal | Agreement | Consent | Opening
"""What a site says to the other exchanges of secure aggregation. A ``Deal`` goes with its parcels."""

LEAVES: Final = (Reply, Refusal, Masked, Keys, Deal, Agreement, Consent, Opening)
"""The whole list: nothing of another class leaves a site, subclasses of these included."""

_STEPS: Final[dict[str, TypeAdapter[Any]]] = {
    kind.__name__: TypeAdapter(kind) for kind in (Keys, Deal, Agreement, Consent, Opening)
}
_PARCELS: Final = TypeAdapter(tuple[Parcel, ...])


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


def outgoing(message: Answer | Step, parcels: tuple[Parcel, ...] = ()) -> Outgoing:
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
        return _sealed(header, np.ascontiguousarray(message.vector, "<f8").tobytes())
    upload = TypeAdapter(Upload).dump_python(message.upload, mode="json")
    return _sealed(header | {"masked": upload, "bits": 8 * message.vector.itemsize}, message.vector.tobytes())


def bytes_to_send(message: Outgoing) -> bytes:
    """What a transport puts on the wire. Raises TypeError for anything but an ``Outgoing``."""
    if type(message) is not Outgoing:
        raise TypeError("a site sends an Outgoing and nothing else")
    return message.content


def parse_answer(data: bytes, sender: str) -> Answer:
    """The answer to a round request in ``data`` that came from ``sender``.

    Raises:
        ProtocolViolation: for anything but what ``outgoing`` makes, or when the answer names another site.
    """
    text, vector = _parts(data, sender, MAX_HEADER_BYTES)
    try:
        header = _Header.model_validate_json(text)
    except ValidationError:
        raise ProtocolViolation(sender, "the answer's header is not one of this protocol") from None
    if header.site != sender:
        raise ProtocolViolation(sender, "the answer names another site")
    about = (header.site, header.plan, header.round_number, header.attempt)
    if header.refused is not None and header.model_hash is None and header.masked is None and not vector:
        return Refusal(*about, header.refused)
    if header.model_hash is None or header.refused is not None or (header.masked is None) != (header.bits is None):
        raise ProtocolViolation(sender, "the answer is neither a reply nor a refusal")
    kind = {None: "<f8", 32: "<u4", 64: "<u8"}.get(header.bits)
    if kind is None or len(vector) % np.dtype(kind).itemsize:
        raise ProtocolViolation(sender, "the answer's parts do not have the lengths that it names")
    values = np.frombuffer(vector, kind)
    if header.masked is None:
        return Reply(*about, header.model_hash, values)
    return Masked(*about, header.model_hash, header.masked, values)


def parse_step(data: bytes, sender: str) -> tuple[Step, tuple[Parcel, ...]]:
    """A message of another exchange, and its parcels. Raises ProtocolViolation like ``parse_answer``."""
    text, vector = _parts(data, sender, len(data))
    try:
        found = _Step.model_validate_json(text)
        message = _STEPS[found.kind].validate_python(found.message, strict=False)
        parcels = _PARCELS.validate_python(found.parcels)
    except (ValidationError, KeyError):
        raise ProtocolViolation(sender, "the message is not one of this protocol") from None
    if vector or message.site != sender:
        raise ProtocolViolation(sender, "the message names another site, or something follows it")
    return message, parcels


class _Step(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    message: dict[str, Any]
    parcels: list[dict[str, Any]]


def _sealed(header: dict[str, Any], vector: bytes) -> Outgoing:
    text = encode(header)
    return Outgoing(_LENGTH.pack(len(text)) + text + vector, _MADE_HERE)


def _parts(data: bytes, sender: str, most: int) -> tuple[bytes, bytes]:
    """(header, vector)."""
    if len(data) < _LENGTH.size:
        raise ProtocolViolation(sender, "the answer is too short")
    end = _LENGTH.size + _LENGTH.unpack_from(data)[0]
    if end - _LENGTH.size > most or end > len(data):
        raise ProtocolViolation(sender, "the answer's parts do not have the lengths that it names")
    return data[_LENGTH.size : end], data[end:]
