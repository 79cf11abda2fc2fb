"""Signed heads of a ledger as text: C2SP tlog-checkpoint, inside a C2SP signed-note v1.0.0.

::

    north
    3
    <base64 of the root, 32 bytes>

    — north <base64 of 4 bytes of key id and 64 bytes of Ed25519 signature>
    — south <another site's signature over the same text: a cosignature>

Signatures cover the text up to and with the newline before the empty line. They are of the note type 0x01 (Ed25519
over the text), cosignatures too; the timestamped type 0x04 of tlog-cosignature is not used.

Stricter than C2SP where it leaves a choice: the origin is the name of the ledger's site and of its key, there are no
extension lines, and base64 has one spelling.

This is the one thing a site signs without a label of ours in front. It cannot be taken for another: a note holds no
control character but newline, and every labelled message has a 0x00 behind its label.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from wardround.protocol.errors import ProtocolViolation, UsageError
from wardround.protocol.identity import Identity, PublicIdentity
from wardround.protocol.tree import EMPTY_ROOT, HASH_SIZE, Head

MAX_NOTE_BYTES: Final = 1 << 18
"""C2SP asks for a limit, and for room for 16 signatures of nearly 5 kB."""

_ED25519: Final = b"\x01"
_DASH: Final = "\u2014 "
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_MAX_SIZE: Final = (1 << 63) - 1
_HINT: Final = "ask the site for its checkpoint again, byte for byte as it was written"


def key_id(identity: PublicIdentity) -> bytes:
    """4 bytes, SHA-256(name || 0x0A || 0x01 || public key)[:4]: they find a key and prove nothing."""
    return hashlib.sha256(identity.site.encode() + b"\n" + _ED25519 + identity.key).digest()[:4]


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line: who says it signed, with which key (4 bytes), and the signature (64 bytes for Ed25519)."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A text that ends in a newline, and signatures over it; nothing in it holds before ``verify``."""

    text: str
    signatures: tuple[NoteSignature, ...] = ()

    def __post_init__(self) -> None:
        if not self.text.endswith("\n") or _control_characters(self.text):
            raise UsageError(
                "this text cannot be signed as a note", "end it with a newline, the only control character"
            )

    def signed_by(self, identity: Identity) -> "Note":
        """This note with one more signature; a cosigner checks consistency first, which is not done here."""
        public = identity.public
        if not _is_key_name(public.site):
            raise UsageError(f"'{public.site}' cannot be the name of a key", "leave out spaces and '+'")
        added = NoteSignature(public.site, key_id(public), identity.sign(self.text.encode()))
        return replace(self, signatures=(*self.signatures, added))

    def encode(self) -> bytes:
        """The bytes of the signed note. Raises UsageError without a signature."""
        if not self.signatures:
            raise UsageError("a note without a signature says nothing", "sign it first")
        lines = (f"{_DASH}{line.name} {_base64(line.key_id + line.signature)}\n" for line in self.signatures)
        return (self.text + "\n" + "".join(lines)).encode()


def parse_note(data: bytes, sender: str) -> Note:
    """The note in ``data``, of which nothing is verified yet.

    Args:
        sender: the site that the bytes came from, for the error.

    Raises:
        ProtocolViolation: for anything but the one spelling that ``Note.encode`` gives.
    """
    if len(data) > MAX_NOTE_BYTES:
        raise ProtocolViolation(sender, f"the note has more than {MAX_NOTE_BYTES} bytes", _HINT)
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ProtocolViolation(sender, "the note is not UTF-8", _HINT) from None
    if _control_characters(whole):
        raise ProtocolViolation(sender, "the note holds a control character", _HINT)
    # The text may hold empty lines; the last one in the note ends it.
    text, gap, tail = whole.rpartition("\n\n")
    if not gap or not tail.endswith("\n"):
        raise ProtocolViolation(sender, "the note has no signature lines, or its last line has no end", _HINT)
    return Note(text + "\n", tuple(_signature_line(line, sender) for line in tail[:-1].split("\n")))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a note of a ledger says: whose ledger, how many entries, which root."""

    origin: str
    head: Head

    def __post_init__(self) -> None:
        if fault := _fault(self.origin, self.head):
            raise UsageError(f"no checkpoint can be made: {fault}", "take origin and head from the site's own ledger")

    def note(self) -> Note:
        """The text to sign: origin, size, root."""
        return Note(f"{self.origin}\n{self.head.size}\n{_base64(self.head.root)}\n")


def parse_checkpoint(text: str, sender: str) -> Checkpoint:
    """The checkpoint in a note's text. Raises ProtocolViolation for any other text, extension lines included."""
    lines = text.split("\n")
    if len(lines) != 4 or lines[3]:
        raise ProtocolViolation(sender, "a checkpoint has three lines: origin, size, root", _HINT)
    root = _from_base64(lines[2])
    if not _SIZE.fullmatch(lines[1]) or root is None:
        raise ProtocolViolation(sender, "the size or the root of the checkpoint is not in its one spelling", _HINT)
    head = Head(int(lines[1]), root)
    if fault := _fault(lines[0], head):
        raise ProtocolViolation(sender, f"the checkpoint does not hold: {fault}", _HINT)
    return Checkpoint(lines[0], head)


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint that its site signed, and the other known sites that signed the same text."""

    checkpoint: Checkpoint
    cosigners: frozenset[str]


def verified_signers(note: Note, known: Iterable[PublicIdentity], sender: str) -> frozenset[PublicIdentity]:
    """The known keys that signed. Unknown keys are ignored, as C2SP demands; a name or an id alone makes none known.

    Raises:
        ProtocolViolation: when a line of a known key does not verify: then the whole note is refused.
    """
    keys: dict[tuple[str, bytes], list[PublicIdentity]] = {}
    for identity in known:
        keys.setdefault((identity.site, key_id(identity)), []).append(identity)
    message, signers = note.text.encode(), set()
    for line in note.signatures:
        candidates = keys.get((line.name, line.key_id), [])
        found = [identity for identity in candidates if identity.verifies(line.signature, message)]
        if candidates and not found:
            raise ProtocolViolation(sender, f"the signature of '{line.name}' does not belong to this text", _HINT)
        signers.update(found)
    return frozenset(signers)


def verify(data: bytes, log: PublicIdentity, others: Iterable[PublicIdentity] = ()) -> SignedCheckpoint:
    """The checkpoint in ``data``, signed by the ledger's own site, and who of ``others`` cosigned it.

    Says nothing on whether it is consistent with an earlier one: that is ``tree.verify_consistency``.

    Raises:
        ProtocolViolation: malformed, of another ledger, not signed by ``log``, or with a known key's bad signature.
    """
    note = parse_note(data, log.site)
    signers = verified_signers(note, [log, *others], log.site)
    if log not in signers:
        raise ProtocolViolation(log.site, f"the checkpoint is not signed with the known key of '{log.site}'", _HINT)
    checkpoint = parse_checkpoint(note.text, log.site)
    if checkpoint.origin != log.site:
        raise ProtocolViolation(log.site, f"the checkpoint is of another ledger than that of '{log.site}'", _HINT)
    # The ledger's own site cannot vouch for itself, under whatever name its key is listed.
    return SignedCheckpoint(
        checkpoint,
        frozenset(other.site for other in signers if other.site != log.site and other.key != log.key),
    )


def _fault(origin: str, head: Head) -> str | None:
    if not _is_key_name(origin):
        return "the origin is no name of a key"
    if not 0 <= head.size <= _MAX_SIZE:
        return "the size is below 0 or above 2^63 - 1"
    if len(head.root) != HASH_SIZE:
        return "the root has not 32 bytes"
    return "a tree without entries has another root" if head.size == 0 and head.root != EMPTY_ROOT else None


def _signature_line(line: str, sender: str) -> NoteSignature:
    name, gap, coded = line.removeprefix(_DASH).partition(" ")
    content = _from_base64(coded)
    if not line.startswith(_DASH) or not gap or not _is_key_name(name) or content is None or len(content) <= 4:
        raise ProtocolViolation(sender, "a signature line of the note is malformed", _HINT)
    return NoteSignature(name, content[:4], content[4:])


def _is_key_name(name: str) -> bool:
    return bool(name) and not _control_characters(name) and not any(c.isspace() or c == "+" for c in name)


def _control_characters(text: str) -> bool:
    return any(c < " " and c != "\n" for c in text)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _from_base64(text: str) -> bytes | None:
    """The bytes, or None when ``text`` is not what ``_base64`` writes: base64 has several spellings of some bytes."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        return None
    return data if _base64(data) == text else None
