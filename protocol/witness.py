"""Witnessing: another party signs the head of a site's ledger, and later says which head it has signed.

A witness signs a checkpoint only when it continues the last one that it signed for that ledger (RFC 6962 consistency),
so a ledger that was put back to an older copy cannot have a second history countersigned. Asked with a fresh nonce, it
returns what it holds. That answer carries the ledger's own signature over the head: a lying witness can hide a head,
but it cannot invent one; therefore a site asks several.
"""

from collections.abc import Sequence
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from wardround.protocol.canonical import LABEL_SEEN, encode
from wardround.protocol.checkpoint import Checkpoint, Note, key_id, parse_checkpoint, parse_note, verify
from wardround.protocol.errors import ProtocolViolation
from wardround.protocol.identity import Identity, PublicIdentity, SiteId
from wardround.protocol.ledger import Countersign, Hex32, Hex64
from wardround.protocol.tree import verify_consistency

NONCE_SIZE: Final = 32


class SeenHead(BaseModel):
    """A witness's answer to one question: the note that it holds of ``origin``'s ledger (None: it has signed none)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    origin: SiteId
    witness: SiteId
    nonce: Hex32
    note: str | None
    signature: Hex64

    @property
    def message(self) -> bytes:
        """What the witness signs: LABEL_SEEN || 0x00 || the other fields as canonical JSON."""
        return LABEL_SEEN.encode() + b"\x00" + encode(self.model_dump(mode="json", exclude={"signature"}))


def cosign(offered: bytes, held: bytes | None, proof: Sequence[bytes], log: PublicIdentity, witness: Identity) -> bytes:
    """The note that ``witness`` may sign, signed; it must be kept, in place of ``held``, before it is sent.

    Args:
        offered: the checkpoint that ``log`` wants to have signed.
        held: the last note that this witness has signed for ``log``.
        proof: that the ledger at ``offered`` continues the one at ``held``; empty when nothing is held.

    Raises:
        ProtocolViolation: the checkpoint is not ``log``'s, or does not continue what was signed.
    """
    head = verify(offered, log).checkpoint.head
    if held is not None and not verify_consistency(verify(held, log).checkpoint.head, head, proof):
        raise ProtocolViolation(
            log.site,
            "its ledger does not continue the one that was countersigned before",
            "the ledger was put back to an older copy, or has two histories: both signed heads are the evidence",
        )
    note = parse_note(offered, log.site)
    own = tuple(line for line in note.signatures if (line.name, line.key_id) == (log.site, key_id(log)))
    return Note(note.text, own).signed_by(witness).encode()


def countersignature(note: bytes, log: PublicIdentity, witness: PublicIdentity) -> Countersign:
    """The entry that keeps a witness's signature. Raises ProtocolViolation when ``note`` is not signed by both."""
    signed = verify(note, log, [witness])
    if witness.site not in signed.cosigners:
        raise ProtocolViolation(witness.site, "the checkpoint came back without its signature")
    line = next(line for line in parse_note(note, log.site).signatures if line.key_id == key_id(witness))
    head = signed.checkpoint.head
    return Countersign(
        size=head.size,
        root=head.root.hex(),
        signer=witness.site,
        key=witness.key.hex(),
        signature=line.signature.hex(),
    )


def seen_head(held: bytes | None, origin: str, nonce: bytes, witness: Identity) -> bytes:
    """The answer of ``witness`` to the question which head of ``origin``'s ledger it has signed last."""
    note = None if held is None else held.decode()
    answer = SeenHead(origin=origin, witness=witness.site, nonce=nonce.hex(), note=note, signature="00" * 64)
    signature = witness.sign(answer.message).hex()
    return encode(answer.model_copy(update={"signature": signature}).model_dump(mode="json"))


def verified_seen(data: bytes, log: PublicIdentity, witness: PublicIdentity, nonce: bytes) -> Checkpoint | None:
    """The checkpoint that ``witness`` holds of ``log``'s ledger; None: it has signed none.

    Raises:
        ProtocolViolation: the answer is to another question, not signed by the witness, or its note not by ``log``.
    """
    try:
        answer = SeenHead.model_validate_json(data)
    except ValidationError:
        raise ProtocolViolation(witness.site, "its answer on the head that it has seen is malformed") from None
    if (answer.origin, answer.witness, answer.nonce) != (log.site, witness.site, nonce.hex()):
        raise ProtocolViolation(witness.site, "its answer is to another question")
    if not witness.verifies(bytes.fromhex(answer.signature), answer.message):
        raise ProtocolViolation(witness.site, "its answer is not signed with its known key")
    return None if answer.note is None else verify(answer.note.encode(), log).checkpoint


def checkpoint_of(note: bytes, sender: str) -> Checkpoint:
    """What a note says, with no signature checked: to compare with a ledger that is at hand."""
    return parse_checkpoint(parse_note(note, sender).text, sender)
