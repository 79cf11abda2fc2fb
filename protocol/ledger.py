"""What a privacy ledger can say: append-only facts, as pure data.

A domain is a patient population of one site. A block is one round of one study on one domain, or a whole campaign of
indicators, whose ticks are its releases; it counts against the budget from RESERVED on, and a crash never gives it
back::

    RESERVED -> RUNNING -> RELEASED | ABANDONED          RESERVED -> CANCELLED   (only if nothing was drawn)
                           RELEASED -> ABANDONED         (mode dist: its sum was void, another batch is drawn)

Facts hold mechanism events, never only an epsilon. How a fact becomes an entry (time, number, chain, signature) is in
``entry``; which fact may follow which is in ``privacy.ledger``.
"""

from enum import StrEnum
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from wardround.protocol.canonical import LABEL_APPROVAL, encode
from wardround.protocol.events import DpEvent
from wardround.protocol.identity import Identity, SiteId

Hex32: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""32 bytes in lower-case hex: a hash or an Ed25519 public key."""

Hex64: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
"""64 bytes in lower-case hex: an Ed25519 signature."""

Count: TypeAlias = Annotated[int, Field(ge=1, lt=2**53)]


class BlockState(StrEnum):
    RESERVED = "reserved"
    RUNNING = "running"
    RELEASED = "released"
    ABANDONED = "abandoned"
    CANCELLED = "cancelled"


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Approval(_Fact):
    """An officer's signature over ``approval_message``: the fact, and the ledger that it is meant for."""

    officer: str
    key: Hex32
    signature: Hex64


class OpenLedger(_Fact):
    """The first entry: whose ledger this is, and the key that signs every entry. No key: a simulation's ledger."""

    kind: Literal["open_ledger"] = "open_ledger"
    site: SiteId
    key: Hex32 | None


class Officers(_Fact):
    """Who may approve, by name and key. A later list is signed by two officers of the one before."""

    kind: Literal["officers"] = "officers"
    version: Count
    officers: dict[SiteId, Hex32] = Field(min_length=1)
    approvals: tuple[Approval, ...] = ()


class OpenDomain(_Fact):
    """A patient population gets a budget; delta and cap are fixed for ever."""

    kind: Literal["open_domain"] = "open_domain"
    domain: str = Field(min_length=1)
    delta: float = Field(gt=0, lt=1)
    epsilon_cap: float | None = Field(gt=0, description="null: a simulation without protection, never a hospital")
    order: int | None = Field(ge=2, description="alpha*: the fixed order of the Renyi filter")
    approvals: tuple[Approval, ...] = ()


class Waive(_Fact):
    """Two officers let a plan run on a domain without differential privacy, under secure aggregation only, and say why.

    A grant of such a plan needs it (mode MASK_ONLY). No epsilon bounds what its sums tell of a patient.
    """

    kind: Literal["waive"] = "waive"
    domain: str
    plan: Hex32
    reason: str = Field(min_length=10)
    approvals: tuple[Approval, ...] = ()


class Grant(_Fact):
    """An officer lets a plan spend: at most ``blocks`` blocks of ``event`` on a domain. A later version replaces it."""

    kind: Literal["grant"] = "grant"
    domain: str
    plan: str
    version: Count = 1
    event: DpEvent
    blocks: int = Field(ge=0, lt=2**53, description="0: the plan is revoked")
    approvals: tuple[Approval, ...] = ()


class Reserve(_Fact):
    """A block is charged, before anything is drawn."""

    kind: Literal["reserve"] = "reserve"
    domain: str
    block: str
    plan: str
    round_number: Count
    event: DpEvent


class Start(_Fact):
    """From here on patients may have been drawn; at most so many had opted out (rounded up to the next 10)."""

    kind: Literal["start"] = "start"
    block: str
    opted_out_at_most: int = Field(default=0, ge=0, lt=2**53, multiple_of=10)


class Cancel(_Fact):
    """Nothing was drawn: the charge is given back."""

    kind: Literal["cancel"] = "cancel"
    block: str


class Release(_Fact):
    """The hash of the bytes that left, for one attempt of the round.

    ``round_number`` is given where the block is a campaign, released in parts: which of its ticks this one is. Without
    it the bytes of an entry are what they were before there were campaigns.
    """

    kind: Literal["release"] = "release"
    block: str
    attempt: Count
    content: Hex32
    round_number: Count | None = None

    @model_serializer(mode="wrap")
    def _without_tick(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        if self.round_number is None:
            written.pop("round_number", None)
        return written


class _SumStep(_Fact):
    session: Hex32
    plan: str
    round_number: Count
    attempt: Count


class SignSurvivors(_SumStep):
    """The one list of survivors that is signed or opened at once in an attempt, by its hash: before either leaves."""

    kind: Literal["sign_survivors"] = "sign_survivors"
    survivors: Hex32


class OpenSum(_SumStep):
    """The site helped to open the sum over ``sites``: before its shares left.

    ``inputs`` stands for its own vector, under a secret of the site. Over the same inputs it opens no other sum.
    """

    kind: Literal["open_sum"] = "open_sum"
    survivors: Hex32
    sites: tuple[SiteId, ...] = Field(min_length=1)
    inputs: Hex32


class Abandon(_Fact):
    """The block ended without a release, or its answer was given up for another batch (mode dist); the charge stays."""

    kind: Literal["abandon"] = "abandon"
    block: str


class Refuse(_Fact):
    """A request that was answered with a refusal; a fact for the officer, without a charge."""

    kind: Literal["refuse"] = "refuse"
    plan: str
    round_number: int
    reason: str


class Close(_Fact):
    """A domain is closed: nothing is reserved on it again."""

    kind: Literal["close"] = "close"
    domain: str
    reason: str = Field(min_length=1)
    approvals: tuple[Approval, ...] = ()


class Countersign(_Fact):
    """Another party has seen this ledger's first ``size`` entries: its signature line over the checkpoint."""

    kind: Literal["countersign"] = "countersign"
    size: Count
    root: Hex32
    signer: SiteId
    key: Hex32
    signature: Hex64


class Charge(_Fact):
    """``blocks`` blocks of a plan that may have run in the entries that are lost."""

    domain: str
    plan: str
    event: DpEvent
    blocks: Count


class Recover(_Fact):
    """Others have seen a later head than this file has: two officers charge what may have run in between.

    ``seen_size`` and ``seen_root`` are the head that a witness holds; ``charges`` must hold every block that the grants
    still allowed, up to one for each entry that is missing.
    """

    kind: Literal["recover"] = "recover"
    seen_size: Count
    seen_root: Hex32
    charges: tuple[Charge, ...]
    reason: str = Field(min_length=1)
    approvals: tuple[Approval, ...] = ()


class SetClock(_Fact):
    """The clock was ahead when the entry before was written: an officer lets time begin again at this entry's."""

    kind: Literal["set_clock"] = "set_clock"
    wrong: str = Field(description="the time of the entry before")
    reason: str = Field(min_length=1)
    approvals: tuple[Approval, ...] = ()


class Suspend(_Fact):
    """An officer's key was lost or stolen: from here on it approves nothing, and what rests on it waits.

    One officer is enough to stop, even one whose key is suspended. A suspended key never comes back.
    """

    kind: Literal["suspend"] = "suspend"
    key: Hex32
    reason: Literal["lost", "stolen"]
    note: str = Field(default="", max_length=200, description="nothing of a patient")
    approvals: tuple[Approval, ...] = ()


class Inquiry(_Fact):
    """An officer answered one patient's question about the ledger. Who the patient is stands nowhere."""

    kind: Literal["inquiry"] = "inquiry"
    officer: str


Fact = Annotated[
    OpenLedger
    | Officers
    | OpenDomain
    | Waive
    | Grant
    | Reserve
    | Start
    | Cancel
    | Release
    | SignSurvivors
    | OpenSum
    | Abandon
    | Refuse
    | Close
    | Countersign
    | Recover
    | SetClock
    | Suspend
    | Inquiry,
    Field(discriminator="kind"),
]
"""Any fact; parsing an unknown kind or field fails, it is never guessed."""

Approved: TypeAlias = Officers | OpenDomain | Waive | Grant | Close | Recover | SetClock | Suspend
"""Facts that an officer signs."""

ApprovedFact = TypeVar("ApprovedFact", Officers, OpenDomain, Waive, Grant, Close, Recover, SetClock, Suspend)

TRANSITIONS: Final[dict[tuple[BlockState | None, str], BlockState]] = {
    # (state before, kind of entry): state after; anything else is refused
    (None, "reserve"): BlockState.RESERVED,
    (BlockState.RESERVED, "start"): BlockState.RUNNING,
    (BlockState.RESERVED, "cancel"): BlockState.CANCELLED,
    (BlockState.RUNNING, "release"): BlockState.RELEASED,
    (BlockState.RUNNING, "abandon"): BlockState.ABANDONED,
    (BlockState.RELEASED, "release"): BlockState.RELEASED,
    (BlockState.RELEASED, "abandon"): BlockState.ABANDONED,
}


def approval_message(ledger_key: str, fact: Approved) -> bytes:
    """What an officer signs: LABEL_APPROVAL || 0x00 || the canonical fact without approvals, bound to one ledger.

    ``ledger_key`` is the key of the site's ``OpenLedger``. A signature is good once: domains open and close once, a
    plan is waived once on a domain, grants and lists of officers count versions, a recovery names the head that it
    answers, a clock the wrong time, and a key is suspended once. Only a domain or a waiver that rests on a suspended
    key is signed again as it was.
    """
    content = {"fact": fact.model_dump(mode="json", exclude={"approvals"}), "ledger": ledger_key}
    return LABEL_APPROVAL.encode() + b"\x00" + encode(content)


def approve(fact: ApprovedFact, ledger_key: str, officer: Identity) -> ApprovedFact:
    """``fact`` with one more officer's signature."""
    signature = officer.sign(approval_message(ledger_key, fact))
    added = Approval(officer=officer.site, key=officer.public.key.hex(), signature=signature.hex())
    return fact.model_copy(update={"approvals": (*fact.approvals, added)})
