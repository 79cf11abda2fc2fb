"""The receipt of a round: who took part, who did not and why, which model came out, and what it cost each hospital.

The coordinator signs it; each hospital checks it against its own ledger before it countersigns. Receipts of a study are
a chain: each names the digest of the one before, so that none can be left out later. A party signs LABEL_RECEIPT ||
0x00 || canonical JSON (RFC 8785) of the receipt without its signatures.
"""

from functools import cached_property
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wardround.protocol.canonical import LABEL_RECEIPT, digest, encode
from wardround.protocol.errors import ProtocolViolation
from wardround.protocol.identity import Identity, PublicIdentity, SiteId
from wardround.protocol.ledger import Count, Hex32, Hex64
from wardround.protocol.owners import COORDINATOR

FIRST: Final = "0" * 64
"""What stands for the receipt before the first one."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SiteLine(_Part):
    """One hospital in a round. ``epsilon_at_most``: what the study may have cost one of its patients so far.

    The number is of every round that the hospital was asked for, whether or not it was charged: more than that it
    cannot be. None: the plan has no differential privacy.
    """

    site: SiteId
    outcome: str = Field(max_length=40)
    detail: str = Field(max_length=400)
    rounds_asked: int = Field(ge=0)
    epsilon_at_most: float | None = Field(ge=0)


class Witnessed(_Part):
    """Who has cosigned the first ``size`` entries of a hospital's ledger, and the hospital has kept it."""

    site: SiteId
    size: Count
    witnesses: tuple[SiteId, ...] = Field(min_length=1)


class ReceiptSignature(_Part):
    site: SiteId
    signature: Hex64


class Receipt(_Part):
    """A round as the coordinator saw it. ``conditions`` are the words without which an epsilon says nothing.

    ``evaluated``: of a round that evaluated a model in training, the hash of that model; ``model_before`` and ``after``
    are then of the sums. Both it and ``witnessed`` are left out of the bytes while empty, as in receipts that were
    signed before they existed.
    """

    format: Literal["wardround/receipt/1"] = "wardround/receipt/1"
    study: str
    plan: Hex32
    roster: Hex32 | None
    roster_epoch: int | None
    round_number: Count
    attempt: Count
    at: str
    state: Literal["closed", "void"]
    model_before: Hex32
    model_after: Hex32
    sites: tuple[SiteLine, ...]
    voided_by: tuple[SiteId, ...]
    conditions: str
    previous: Hex32
    witnessed: tuple[Witnessed, ...] = ()
    evaluated: Hex32 | None = None
    signatures: tuple[ReceiptSignature, ...] = ()

    @cached_property
    def message(self) -> bytes:
        """What every party signs."""
        return LABEL_RECEIPT.encode() + b"\x00" + encode(self._body("signatures"))

    @cached_property
    def digest(self) -> str:
        """64 hex digits over everything but the signatures."""
        return digest(LABEL_RECEIPT, self.message)

    @property
    def canonical(self) -> bytes:
        return encode(self._body())

    @property
    def line(self) -> dict[str, SiteLine]:
        return {line.site: line for line in self.sites}

    def _body(self, *without: str) -> dict[str, Any]:
        exclude = {*without, *(name for name in ("witnessed", "evaluated") if not getattr(self, name))}
        return self.model_dump(mode="json", exclude=exclude)

    def signed_by(self, identity: Identity) -> "Receipt":
        """This receipt with one more signature; a party's second one takes the place of its first."""
        return self.with_signature(ReceiptSignature(site=identity.site, signature=identity.sign(self.message).hex()))

    def with_signature(self, signature: ReceiptSignature) -> "Receipt":
        others = [known for known in self.signatures if known.site != signature.site]
        signatures = tuple(sorted((*others, signature), key=lambda one: one.site))
        return self.model_copy(update={"signatures": signatures})

    def verified_signers(self, parties: dict[str, PublicIdentity]) -> tuple[str, ...]:
        """Who of ``parties`` has signed. Raises ProtocolViolation for a known name whose signature does not hold."""
        signers = []
        for one in self.signatures:
            if (party := parties.get(one.site)) is None:
                continue
            if not party.verifies(bytes.fromhex(one.signature), self.message):
                raise ProtocolViolation(
                    one.site, f"its signature under the receipt of round {self.round_number} is bad"
                )
            signers.append(one.site)
        return tuple(signers)


def parse_receipt(content: bytes, sender: str = COORDINATOR) -> Receipt:
    """The receipt in ``content``. Raises ProtocolViolation for anything but its canonical bytes."""
    try:
        receipt = Receipt.model_validate_json(content)
    except ValidationError:
        raise ProtocolViolation(sender, "it sent bytes that are no receipt") from None
    if receipt.canonical != content:
        raise ProtocolViolation(sender, "it sent a receipt that is not in canonical form")
    return receipt


def chain_fault(receipts: list[Receipt]) -> str | None:
    """What is wrong with the receipts of one study, in order; None: nothing."""
    previous, plan, model = FIRST, receipts[0].plan if receipts else "", None
    for number, receipt in enumerate(receipts, 1):
        if receipt.previous != previous or receipt.plan != plan:
            return f"receipt {number} does not follow the one before it"
        if model is not None and receipt.model_before != model:
            return f"receipt {number} begins at another model than the one before it ended at"
        if receipt.state == "void" and receipt.model_after != receipt.model_before:
            return f"receipt {number} is of a void round and changes the model"
        previous, model = receipt.digest, receipt.model_after
    return None


def as_json(receipt: Receipt) -> dict[str, Any]:
    """The receipt as JSON data, with its digest."""
    return receipt.model_dump(mode="json") | {"digest": receipt.digest}
