"""What may leave a site: the one type that a transport takes, and the only two ways to make one.

``Outgoing`` is bytes that were made from a ``Reply`` or a ``Refusal`` and from nothing else. A function that sends
takes an ``Outgoing``, so mypy refuses anything else; ``bytes_to_send`` refuses it at run time too.
"""

import struct
from typing import Final, final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wardround.protocol.canonical import encode
from wardround.protocol.errors import ProtocolViolation
from wardround.protocol.identity import SiteId
from wardround.protocol.messages import Refusal, RefusalCode, Reply

MAX_HEADER_BYTES: Final = 4096
_LENGTH: Final = struct.Struct(">I")
_MADE_HERE: Final = object()


@final
class Outgoing:
    """Bytes that may leave. Made by ``outgoing`` only; a copy of stored bytes comes back through it too.

    No dataclass, so that ``replace`` cannot make one with other bytes.
    """

    __slots__ = ("_content",)
    _content: bytes

    def __init__(self, content: bytes, made_by: object) -> None:
        if made_by is not _MADE_HERE:
            raise TypeError("only a Reply or a Refusal becomes something that may leave: use outgoing()")
        object.__setattr__(self, "_content", content)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("what may leave is never changed")

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("an Outgoing is made anew from a Reply or a Refusal, never copied or unpickled")

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


def outgoing(answer: Reply | Refusal) -> Outgoing:
    """The bytes of an answer: 4 bytes of length (big-endian), the header as canonical JSON, the vector as float64 LE.

    Raises TypeError for anything but these two types, subclasses included.
    """
    if type(answer) is Reply:
        header = {"model_hash": answer.model_hash, "refused": None}
        vector = np.ascontiguousarray(answer.vector, "<f8").tobytes()
    elif type(answer) is Refusal:
        header = {"model_hash": None, "refused": answer.code.value}
        vector = b""
    else:
        raise TypeError("only a Reply or a Refusal may leave a site")
    about = {
        "site": answer.site,
        "plan": answer.plan,
        "round_number": answer.round_number,
        "attempt": answer.attempt,
    }
    text = encode(about | header)
    return Outgoing(_LENGTH.pack(len(text)) + text + vector, _MADE_HERE)


def bytes_to_send(message: Outgoing) -> bytes:
    """What a transport puts on the wire. Raises TypeError for anything but an ``Outgoing``."""
    if type(message) is not Outgoing:
        raise TypeError("a site sends an Outgoing and nothing else")
    return message.content


def parse_answer(data: bytes, sender: str) -> Reply | Refusal:
    """The answer in ``data`` that came from ``sender``.

    Raises:
        ProtocolViolation: for anything but what ``outgoing`` makes, or when the answer names another site.
    """
    if len(data) < _LENGTH.size:
        raise ProtocolViolation(sender, "the answer is too short")
    end = _LENGTH.size + _LENGTH.unpack_from(data)[0]
    if end - _LENGTH.size > MAX_HEADER_BYTES or end > len(data) or (len(data) - end) % 8:
        raise ProtocolViolation(sender, "the answer's parts do not have the lengths that it names")
    try:
        header = _Header.model_validate_json(data[_LENGTH.size : end])
    except ValidationError:
        raise ProtocolViolation(sender, "the answer's header is not one of this protocol") from None
    if header.site != sender:
        raise ProtocolViolation(sender, "the answer names another site")
    about = (header.site, header.plan, header.round_number, header.attempt)
    if header.refused is not None and header.model_hash is None and end == len(data):
        return Refusal(*about, header.refused)
    if header.model_hash is None or header.refused is not None:
        raise ProtocolViolation(sender, "the answer is neither a reply nor a refusal")
    return Reply(*about, header.model_hash, np.frombuffer(data, "<f8", offset=end))
