"""The complete example of docs/ledger.md, computed anew from fixed keys and a fixed clock, and by hand with hashlib."""

import hashlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wardround.client.governance import open_domain
from wardround.client.store.database import open_store
from wardround.client.store.ledger import Ledger, stored_entries
from wardround.client.store.verify import verify
from wardround.protocol.checkpoint import Checkpoint
from wardround.protocol.entry import Entry
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import Fact, Grant, Officers, OpenLedger, Release, Reserve, Start, approve
from wardround.protocol.tree import leaf_hash, verify_inclusion

PAGE = Path(__file__).parents[2] / "docs" / "ledger.md"

# RFC 8032 section 7.1, tests 1 to 3. Everybody knows them.
NORTH, SOUTH, ANNA = (
    Identity(name, Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed)))
    for name, seed in {
        "north": "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "south": "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "anna": "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
    }.items()
)
EVENT = PoissonGaussian(noise_multiplier=2.84, sampling_probability=0.25, steps=5, declared_patients=200)
PLAN = "ab" * 32


def facts() -> list[Fact]:
    """What the example's site did: it opened a ledger and a domain, a plan was granted, and its first round ran."""
    key = NORTH.public.key.hex()
    return [
        OpenLedger(site="north", key=key),
        Officers(version=1, officers={"anna": ANNA.public.key.hex()}),
        approve(open_domain("training", 8.0, 1e-4), key, ANNA),
        approve(Grant(domain="training", plan=PLAN, event=EVENT, blocks=15), key, ANNA),
        Reserve(domain="training", block="abababababababab/00001/1/training", plan=PLAN, round_number=1, event=EVENT),
        Start(block="abababababababab/00001/1/training", opted_out_at_most=10),
        Release(block="abababababababab/00001/1/training", attempt=1, content="cd" * 32),
    ]


def ledger() -> Ledger:
    """The ledger, as the store writes it on a clock that ticks minutes."""
    minutes = iter(range(100))
    clock = lambda: datetime(2026, 11, 23, 9, 30, tzinfo=UTC) + timedelta(minutes=next(minutes))  # noqa: E731
    written = Ledger(open_store(None), "north", NORTH, clock)
    for fact in facts()[1:]:
        written.record(fact)
    return written


def by_hand(entries: list[Entry]) -> list[str]:
    """Hashes of the chain from the contents and signatures alone, with hashlib."""
    found, previous, signature = [], bytes(32), b""
    for number, entry in enumerate(entries, start=1):
        state = hashlib.sha256(b"wardround/ledger-entry/1\x00")
        for part in (previous, signature, number.to_bytes(8, "big"), entry.content):
            state.update(len(part).to_bytes(8, "big") + part)
        previous, signature = state.digest(), entry.signature
        NORTH.private.public_key().verify(signature, b"wardround/ledger-entry-signature/1\x00" + previous)
        found.append(previous.hex())
    return found


def worked_example() -> list[str]:
    """The fenced blocks of the page, in order."""
    written = ledger()
    entries = list(stored_entries(written._store, "north"))
    chain = by_hand(entries)
    assert chain == [entry.hash.hex() for entry in entries]
    assert verify(entries, "north", key=NORTH.public.key).entries == len(entries) == 7
    tree = written.tree()
    proof = tree.inclusion(4)
    assert verify_inclusion(entries[4].content, 4, proof, tree.head())
    note = Checkpoint("north", tree.head()).note().signed_by(NORTH).signed_by(SOUTH).encode().decode()
    return [
        "\n".join(entry.content.decode() for entry in entries),
        "\n".join(f"{entry.number}  {entry.hash.hex()}\n   {entry.signature.hex()}" for entry in entries),
        "\n".join(
            [f"{n}  {leaf_hash(entry.content).hex()}" for n, entry in enumerate(entries)]
            + [f"root  {tree.head().root.hex()}"]
        ),
        "\n".join(part.hex() for part in proof),
        note.rstrip("\n"),
    ]


def fences(text: str) -> list[str]:
    return re.findall(r"^```text\n(.*?)\n```$", text, re.M | re.S)


def test_the_worked_example_of_the_page_is_what_the_code_computes() -> None:
    assert fences(PAGE.read_text(encoding="utf-8")) == worked_example()


def test_a_changed_digit_of_the_worked_example_is_found() -> None:
    text = PAGE.read_text(encoding="utf-8").replace('"steps":5', '"steps":4')
    assert fences(text) != worked_example()
