"""What a coordinator may ask of a site: every request, one class each, and its bytes.

The counterpart of ``outgoing``. A transport carries a list of requests and brings back a list of answers; which
requests may come in which exchange is ``EXCHANGES``. The bytes are 4 of length (big-endian), a header in JSON of that
length, and the float32 vectors (little-endian) of a request that has one.
"""

import struct
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
from pydantic import TypeAdapter, ValidationError

from wardround.protocol.canonical import encode
from wardround.protocol.errors import ProtocolViolation
from wardround.protocol.messages import LocalRule, RoundRequest
from wardround.protocol.owners import COORDINATOR
from wardround.protocol.parameters import Vector
from wardround.protocol.secagg import (
    Agreement,
    Consent,
    Deal,
    Keys,
    Parcel,
    Proposal,
    Session,
    Survivors,
)

MAX_HEADER_BYTES: Final = 64 << 20
"""Parcels for a long stock of masks are the largest header there is."""

_LENGTH: Final = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Propose:
    """Here is a plan (canonical JSON) for your officers to look at."""

    plan: str


@dataclass(frozen=True, slots=True)
class Follow:
    """Here is a roster (canonical JSON) that the officers have signed."""

    roster: str


@dataclass(frozen=True, slots=True)
class Hello:
    """How does this plan stand with you?"""

    plan: str


@dataclass(frozen=True, slots=True)
class Heads:
    """What the others answered to your question which head of your ledger they have seen."""

    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AskKeys:
    """S1 of a session."""

    session: Session


@dataclass(frozen=True, slots=True)
class AskDeal:
    """S2."""

    plan: str
    keys: tuple[Keys, ...]


@dataclass(frozen=True, slots=True)
class AskAgreement:
    """S3."""

    plan: str
    deals: tuple[Deal, ...]
    parcels: tuple[Parcel, ...]


@dataclass(frozen=True, slots=True)
class Begin:
    """The set-up is over."""

    plan: str
    agreements: tuple[Agreement, ...]


@dataclass(frozen=True, slots=True)
class Train:
    """R1, or a round in the open (no proposal)."""

    request: RoundRequest
    proposal: Proposal | None


@dataclass(frozen=True, slots=True)
class AskConsent:
    """R2."""

    plan: str
    proposal: Proposal
    survivors: Survivors


@dataclass(frozen=True, slots=True)
class AskOpening:
    """R3."""

    plan: str
    proposal: Proposal
    consents: tuple[Consent, ...]


@dataclass(frozen=True, slots=True)
class AskWhole:
    """R2 and R3 in one, where everybody who was proposed has uploaded."""

    plan: str
    proposal: Proposal
    survivors: Survivors


@dataclass(frozen=True, slots=True)
class SignReceipt:
    """Check this receipt against your ledger and sign it."""

    receipt: str


@dataclass(frozen=True, slots=True)
class Cosign:
    """Sign the head of another site's ledger, if it continues the one that you signed before."""

    origin: str
    checkpoint: str
    proof: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Keep:
    """A witness has signed the head of your ledger."""

    witness: str
    note: str


@dataclass(frozen=True, slots=True)
class Recall:
    """Another site asks which head of its ledger you have seen."""

    origin: str
    nonce: str


@dataclass(frozen=True, slots=True)
class Gossip:
    """Here is what other sites say of ledgers (signed bulletins), and what do you say?"""

    bulletins: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finish:
    """The study is over: this is the model."""

    plan: str
    model_hash: str
    model: Vector = field(repr=False)


@dataclass(frozen=True, slots=True)
class Stop:
    """The study is stopped: settle what is open."""

    plan: str


Ask: TypeAlias = (
    Propose | Follow | Hello | Heads | AskKeys | AskDeal | AskAgreement | Begin | Train | AskConsent | AskOpening
    | AskWhole | SignReceipt | Cosign | Keep | Recall | Gossip | Finish | Stop
)  # fmt: skip

_BESIDE: Final = (Follow, SignReceipt, Cosign, Keep, Recall, Gossip)
"""May come with any exchange: they move no model and spend nothing."""

EXCHANGES: Final[dict[str, tuple[type[Any], ...]]] = {
    "query.hello": (*_BESIDE, Propose, Hello),
    "query.keys": (*_BESIDE, Heads, AskKeys),
    "query.deal": (*_BESIDE, AskDeal),
    "query.agree": (*_BESIDE, AskAgreement),
    "train.round": (*_BESIDE, Heads, Begin, Train),
    "query.consent": (*_BESIDE, AskConsent),
    "query.open": (*_BESIDE, AskOpening, AskWhole),
    "query.receipt": (*_BESIDE,),
    "query.finish": (*_BESIDE, Finish),
    "query.stop": (*_BESIDE, Stop),
}
"""Flower's message type, and the requests that may come with it."""

_PLAIN: Final[dict[str, TypeAdapter[Any]]] = {
    kind.__name__: TypeAdapter(kind)
    for kind in (
        Propose, Follow, Hello, Heads, AskDeal, AskAgreement, Begin, AskConsent, AskOpening, AskWhole, SignReceipt,
        Cosign, Keep, Recall, Gossip, Stop,
    )
}  # fmt: skip
_SESSION: Final = TypeAdapter(Session)
_PROPOSAL: Final = TypeAdapter(Proposal | None)


def ask_bytes(ask: Ask) -> list[bytes | memoryview]:
    """The parts of a request, in order; a vector is not copied."""
    kind, vectors = type(ask).__name__, list[Vector]()
    if isinstance(ask, Train):
        request = ask.request
        body: Any = {
            "plan": request.plan,
            "round_number": request.round_number,
            "attempt": request.attempt,
            "model_hash": request.model_hash,
            "learning_rate": request.rule.learning_rate,
            "proximal_mu": request.rule.proximal_mu,
            "linear_term": request.rule.linear_term is not None,
            "proposal": _PROPOSAL.dump_python(ask.proposal, mode="json"),
        }
        vectors = [request.model, *([] if request.rule.linear_term is None else [request.rule.linear_term])]
    elif isinstance(ask, Finish):
        body, vectors = {"plan": ask.plan, "model_hash": ask.model_hash}, [ask.model]
    elif isinstance(ask, AskKeys):
        body = _SESSION.dump_python(ask.session, mode="json")
    else:
        body = _PLAIN[kind].dump_python(ask, mode="json")
    text = encode({"kind": kind, "body": body})
    flat = [np.ascontiguousarray(vector, "<f4").view(np.uint8).data for vector in vectors]
    return [_LENGTH.pack(len(text)) + text, *flat]


def parse_ask(data: bytes | memoryview) -> Ask:
    """The request in ``data``. Raises ProtocolViolation for anything but what ``ask_bytes`` makes."""
    view = memoryview(data)
    if len(view) < _LENGTH.size:
        raise _malformed()
    end = _LENGTH.size + _LENGTH.unpack_from(view)[0]
    if end - _LENGTH.size > MAX_HEADER_BYTES or end > len(view) or (len(view) - end) % 4:
        raise _malformed()
    try:
        header = _HEADER.validate_json(bytes(view[_LENGTH.size : end]))
        kind, body, vector = header["kind"], header["body"], np.frombuffer(view[end:], "<f4")
        if kind == "Train":
            return _train(body, vector)
        if kind == "Finish":
            return Finish(_text(body, "plan"), _text(body, "model_hash"), vector)
        if len(vector):
            raise _malformed()
        if kind == "AskKeys":
            return AskKeys(_SESSION.validate_json(encode(body)))
        return _PLAIN[kind].validate_json(encode(body))  # type: ignore[no-any-return]
    except (ValidationError, ValueError, KeyError, TypeError, OverflowError):
        raise _malformed() from None


_HEADER: Final = TypeAdapter(dict[str, Any])


def _train(body: dict[str, Any], vectors: Vector) -> Train:
    halves = 2 if body["linear_term"] is True else 1
    if len(vectors) % halves or len(body) != 8:
        raise _malformed()
    size = len(vectors) // halves
    rule = LocalRule(float(body["learning_rate"]), float(body["proximal_mu"]), vectors[size:] if halves == 2 else None)
    number, attempt = body["round_number"], body["attempt"]
    if type(number) is not int or type(attempt) is not int:
        raise _malformed()
    request = RoundRequest(_text(body, "plan"), number, attempt, vectors[:size], _text(body, "model_hash"), rule)
    return Train(request, _PROPOSAL.validate_json(encode(body["proposal"])))


def _text(body: dict[str, Any], name: str) -> str:
    if not isinstance(body[name], str):
        raise _malformed()
    return str(body[name])


def _malformed() -> ProtocolViolation:
    return ProtocolViolation(COORDINATOR, "it sent bytes that are no request of this protocol")
