"""Checkpoints: the notes that others published, signatures made and checked without our code, and strict reading."""

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.protocol.checkpoint import (
    MAX_NOTE_BYTES,
    Checkpoint,
    Note,
    NoteSignature,
    key_id,
    parse_checkpoint,
    parse_note,
    verified_signers,
    verify,
)
from wardround.protocol.errors import ProtocolViolation, UsageError
from wardround.protocol.identity import Identity, PublicIdentity
from wardround.protocol.tree import EMPTY_ROOT, Head, Tree

# The example of the package that notes come from (golang.org/x/mod/sumdb/note): both keys, the text and the line.
GO_PRIVATE = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_PUBLIC = "ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
# The examples of C2SP signed-note and tlog-checkpoint. Their public keys are not published, so they are only read.
C2SP_NOTE = (
    "Ognuno sta solo sul cuor della terra\n"
    "trafitto da un raggio di sole:\n"
    "\n"
    "ed \u00e8 subito sera.\n"
    "\n"
    "\u2014 quasimodo.example/salvatore "
    "NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n"
)
C2SP_CHECKPOINT = (
    "example.com/behind-the-sofa\n"
    "20852163\n"
    "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    "\n"
    "\u2014 example.com/behind-the-sofa "
    "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
)

# The private keys of RFC 8032 section 7.1, tests 1 to 3. Everybody knows them.
SEEDS = {
    "north": "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
    "south": "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
    "west": "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
}
NORTH, SOUTH, WEST = (
    Identity(name, Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed))) for name, seed in SEEDS.items()
)
TREE = Tree([b"one", b"two", b"three"])
TEXT = f"north\n3\n{base64.b64encode(TREE.head().root).decode()}\n"


def line(identity: Identity, text: str, kind: bytes = b"\x01") -> str:
    """A signature line made from the words of C2SP, with nothing of protocol/checkpoint.py."""
    public = identity.private.public_key().public_bytes_raw()
    found = hashlib.sha256(identity.site.encode() + b"\x0a" + kind + public).digest()[:4]
    return f"\u2014 {identity.site} {base64.b64encode(found + identity.private.sign(text.encode())).decode()}\n"


def note(text: str, *signers: Identity) -> bytes:
    return (text + "\n" + "".join(line(signer, text) for signer in signers)).encode()


def test_the_example_of_the_notes_package_both_ways() -> None:
    peter = PublicIdentity("PeterNeumann", base64.b64decode(GO_PUBLIC)[1:])
    assert key_id(peter).hex() == "c74f20a3"
    read = parse_note(GO_NOTE.encode(), "a")
    assert verified_signers(read, [peter], "a") == {peter}
    private = Ed25519PrivateKey.from_private_bytes(base64.b64decode(GO_PRIVATE)[1:])
    assert Note(read.text).signed_by(Identity("PeterNeumann", private)).encode() == GO_NOTE.encode()
    with pytest.raises(ProtocolViolation, match="does not belong"):
        verified_signers(parse_note(GO_NOTE.replace("your", "thy").encode(), "a"), [peter], "a")


def test_the_examples_of_c2sp_are_read_and_written_back() -> None:
    poem = parse_note(C2SP_NOTE.encode(), "a")
    assert poem.text.endswith("\n\ned \u00e8 subito sera.\n")
    assert [found.name for found in poem.signatures] == ["quasimodo.example/salvatore"]
    assert poem.encode() == C2SP_NOTE.encode()
    read = parse_note(C2SP_CHECKPOINT.encode(), "a")
    checkpoint = parse_checkpoint(read.text, "a")
    assert (checkpoint.origin, checkpoint.head.size) == ("example.com/behind-the-sofa", 20852163)
    assert checkpoint.head.root.hex() == "0ac5186a91863e8e1d90c808014aa89bf5da8e3ee1d9f07630f0378f68f1ab62"
    assert len(read.signatures[0].signature) == 64
    assert checkpoint.note().text == read.text and read.encode() == C2SP_CHECKPOINT.encode()


def test_a_checkpoint_is_written_as_c2sp_says() -> None:
    signed = Checkpoint("north", TREE.head()).note().signed_by(NORTH).signed_by(SOUTH)
    assert signed.encode() == note(TEXT, NORTH, SOUTH)
    for found, identity in zip(signed.signatures, (NORTH, SOUTH), strict=True):
        key = Ed25519PublicKey.from_public_bytes(identity.public.key)
        key.verify(found.signature, TEXT.encode())


def test_a_checkpoint_signed_elsewhere_is_verified_with_its_cosignatures() -> None:
    everybody = [SOUTH.public, WEST.public]
    assert verify(note(TEXT, NORTH), NORTH.public, everybody).cosigners == set()
    assert verify(note(TEXT, SOUTH, NORTH), NORTH.public, everybody).cosigners == {"south"}
    assert verify(note(TEXT, NORTH, SOUTH, WEST), NORTH.public, everybody).cosigners == {"south", "west"}
    assert verify(note(TEXT, NORTH, SOUTH, WEST), NORTH.public).cosigners == set()
    signed = verify(note(TEXT, NORTH, *[SOUTH] * 20), NORTH.public, everybody)
    assert signed.cosigners == {"south"} and signed.checkpoint == Checkpoint("north", TREE.head())


def test_the_own_site_is_no_cosigner_of_itself() -> None:
    again = Identity("copy", NORTH.private)
    data = note(TEXT, NORTH, again)
    assert verify(data, NORTH.public, [NORTH.public, again.public]).cosigners == set()


def test_an_unknown_key_is_ignored_and_a_known_one_must_verify() -> None:
    stranger = Identity.generate("south")
    assert verify(note(TEXT, NORTH, stranger), NORTH.public, [SOUTH.public]).cosigners == set()
    other_type = note(TEXT, NORTH) + line(SOUTH, TEXT, b"\x04").encode()
    assert verify(other_type, NORTH.public, [SOUTH.public]).cosigners == set()
    other_text = note(TEXT, NORTH) + line(SOUTH, TEXT + "x").encode()
    with pytest.raises(ProtocolViolation, match="signature of 'south'"):
        verify(other_text, NORTH.public, [SOUTH.public])
    assert verify(other_text, NORTH.public, [WEST.public]).cosigners == set()
    borrowed = NoteSignature("south", key_id(SOUTH.public), NORTH.sign(TEXT.encode()))
    with pytest.raises(ProtocolViolation, match="signature of 'south'"):
        verify(Note(TEXT, (borrowed,)).signed_by(NORTH).encode(), NORTH.public, [SOUTH.public])


@pytest.mark.parametrize("length", [1, 63, 65])
def test_a_signature_of_another_length_is_refused(length: int) -> None:
    wrong = NoteSignature("north", key_id(NORTH.public), (NORTH.sign(TEXT.encode()) * 2)[:length])
    with pytest.raises(ProtocolViolation, match="signature of 'north'"):
        verify(Note(TEXT, (wrong,)).encode(), NORTH.public)


def test_only_the_own_site_can_sign_its_ledger() -> None:
    with pytest.raises(ProtocolViolation, match="not signed with the known key of 'north'") as error:
        verify(note(TEXT, SOUTH), NORTH.public, [SOUTH.public])
    assert error.value.site == "north" and error.value.hint
    with pytest.raises(ProtocolViolation, match="not signed with the known key"):
        verify(note(TEXT, Identity.generate("north")), NORTH.public)
    with pytest.raises(ProtocolViolation, match="another ledger"):
        verify(note(TEXT, NORTH, SOUTH), SOUTH.public, [NORTH.public])


def test_every_flipped_bit_is_refused() -> None:
    data = note(TEXT, NORTH, SOUTH)
    honest = verify(data, NORTH.public, [SOUTH.public])
    end = data.index(b"\xe2\x80\x94 south")
    for place in range(len(data)):
        for bit in range(8):
            wrong = bytearray(data)
            wrong[place] ^= 1 << bit
            try:
                found = verify(bytes(wrong), NORTH.public, [SOUTH.public])
            except ProtocolViolation:
                continue
            # Another name or key id makes a stranger of the cosigner: C2SP has strangers ignored.
            assert place > end and found.checkpoint == honest.checkpoint and found.cosigners == set()


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: f"{TEXT}\n\u2014 {text}\n".encode()))
def test_what_is_read_is_written_back_and_the_rest_is_a_violation(data: bytes) -> None:
    try:
        read = parse_note(data, "north")
    except ProtocolViolation:
        return
    assert read.encode() == data


SIGNED = note(TEXT, NORTH).decode()
CODED = SIGNED.split(" ")[-1].strip()
SPOILED_NOTES = {
    "empty": "",
    "no signature": TEXT,
    "no signature lines": TEXT + "\n",
    "no newline at the end": SIGNED[:-1],
    "an empty line at the end": SIGNED + "\n",
    "carriage returns": SIGNED.replace("\n", "\r\n"),
    "a tab": SIGNED.replace("\u2014 north ", "\u2014\tnorth "),
    "a hyphen": SIGNED.replace("\u2014", "-"),
    "two spaces": SIGNED.replace(" north ", " north  "),
    "no name": SIGNED.replace(" north ", "  "),
    "a plus in the name": SIGNED.replace(" north ", " no+rth "),
    "a no-break space in the name": SIGNED.replace(" north ", " no\u00a0rth "),
    "a space after the signature": SIGNED[:-1] + " \n",
    "no padding": SIGNED[:-1].rstrip("=") + "\n",
    "more padding": SIGNED[:-1] + "=\n",
    "the other alphabet": SIGNED.replace(CODED, "-_" + CODED[2:]),
    "bits behind the end": SIGNED.replace(CODED, "AAAAAAB="),
    "only a key id": SIGNED.replace(CODED, "AAAAAA=="),
    "no ASCII": SIGNED.replace(CODED, "\u00e4" + CODED[1:]),
    "too long": SIGNED + "\u2014 a AAAAAAA=\n" * (MAX_NOTE_BYTES // 8),
}


@pytest.mark.parametrize("kind", SPOILED_NOTES)
def test_a_note_has_one_spelling(kind: str) -> None:
    with pytest.raises(ProtocolViolation):
        parse_note(SPOILED_NOTES[kind].encode(), "north")


def test_bytes_that_are_no_utf8_are_refused() -> None:
    with pytest.raises(ProtocolViolation, match="UTF-8"):
        parse_note(b"\xff" + SIGNED.encode(), "north")


def test_sixteen_signatures_of_five_kilobytes_fit() -> None:
    lines = tuple(NoteSignature("quantum", b"abcd", bytes(5000)) for _ in range(16))
    data = Note(TEXT, lines).signed_by(NORTH).encode()
    assert len(parse_note(data, "north").signatures) == 17


ROOT = TEXT.split("\n")[2]
SPOILED_TEXTS = {
    "an extension line": TEXT + "more\n",
    "an empty line": TEXT.replace("\n3\n", "\n\n3\n"),
    "no root": "north\n3\n",
    "no newline": TEXT[:-1],
    "a leading zero": TEXT.replace("\n3\n", "\n03\n"),
    "a sign": TEXT.replace("\n3\n", "\n+3\n"),
    "a negative size": TEXT.replace("\n3\n", "\n-3\n"),
    "a space": TEXT.replace("\n3\n", "\n3 \n"),
    "other digits": TEXT.replace("\n3\n", "\n\u0663\n"),
    "an underscore": TEXT.replace("\n3\n", "\n1_0\n"),
    "a size beyond 63 bits": TEXT.replace("\n3\n", f"\n{1 << 63}\n"),
    "a size of many digits": TEXT.replace("\n3\n", f"\n{'9' * 5000}\n"),
    "a short root": TEXT.replace(ROOT, base64.b64encode(bytes(31)).decode()),
    "a long root": TEXT.replace(ROOT, base64.b64encode(bytes(33)).decode()),
    "a root in hex": TEXT.replace(ROOT, TREE.head().root.hex()),
    "no origin": TEXT.removeprefix("north"),
    "a space in the origin": TEXT.replace("north", "no rth"),
    "an empty tree with a root": TEXT.replace("\n3\n", "\n0\n"),
}


@pytest.mark.parametrize("kind", SPOILED_TEXTS)
def test_a_checkpoint_has_one_spelling(kind: str) -> None:
    with pytest.raises(ProtocolViolation):
        parse_checkpoint(SPOILED_TEXTS[kind], "north")


@pytest.mark.parametrize("size", [0, 1, 10, (1 << 63) - 1])
def test_sizes_at_the_border_are_read(size: int) -> None:
    checkpoint = Checkpoint("north", Head(size, bytes(32) if size else EMPTY_ROOT))
    assert parse_checkpoint(checkpoint.note().text, "north") == checkpoint


def test_what_cannot_be_signed_is_the_callers_error() -> None:
    for origin, head in (("no rth", TREE.head()), ("a\n9", TREE.head()), ("north", Head(3, b"short"))):
        with pytest.raises(UsageError, match="no checkpoint can be made"):
            Checkpoint(origin, head)
    for text in ("", "no newline", "a\x00b\n"):
        with pytest.raises(UsageError, match="cannot be signed"):
            Note(text)
    with pytest.raises(UsageError, match="without a signature"):
        Note("text\n").encode()
    with pytest.raises(UsageError, match="name of a key"):
        Note("text\n").signed_by(Identity("no rth", NORTH.private))
