"""Verifying a ledger: one flipped bit is found, and so is a site that rewrites its ledger with its own key."""

import secrets
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wardround.client.store.ledger import stored_entries
from wardround.client.store.verify import Broken, verify, verify_file
from wardround.privacy.accounting import epsilon
from wardround.protocol.checkpoint import Checkpoint
from wardround.protocol.entry import Entry, next_entry, parse_content
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import (
    Abandon,
    Cancel,
    Close,
    Fact,
    Inquiry,
    Officers,
    Recover,
    Refuse,
    Reserve,
    SetClock,
    Suspend,
)

SOUTH = Identity.generate("south")


@pytest.fixture
def full(hospital: Any) -> Any:
    """A hospital whose ledger holds an entry of every kind."""
    for number, block in enumerate(("b1", "b2", "b3"), start=1):
        hospital.reserve(block, number=number)
    hospital.start("b1")
    hospital.release("b1")
    hospital.start("b2")
    hospital.ledger.record(Abandon(block="b2"))
    hospital.ledger.record(Cancel(block="b3"))
    hospital.ledger.record(Refuse(plan="plan", round_number=7, reason="expired"))
    hospital.ledger.record(Inquiry(officer="anna"))
    note = hospital.ledger.offer(0)[0]
    line = Checkpoint("north", hospital.ledger.tree().head()).note().signed_by(SOUTH).encode().split(b"\n\n")[1]
    hospital.ledger.countersign(note + line, SOUTH.public)
    carl = Identity.generate("carl")
    names = {officer.site: officer.public.key.hex() for officer in (hospital.anna, hospital.ben, carl)}
    hospital.ledger.record(hospital.approved(Officers(version=2, officers=names), hospital.anna, hospital.ben))
    hospital.ledger.record(hospital.approved(SetClock(wrong="2026-11-23T09:30:00Z", reason="NTP was off")))
    hospital.open("second")
    hospital.ledger.record(hospital.approved(Close(domain="second", reason="merged")))
    lost = Recover(seen_size=90, seen_root="ab" * 32, charges=(), reason="restored")
    charges = hospital.ledger.state.missing_charges(90)
    lost = lost.model_copy(update={"charges": charges})
    hospital.ledger.record(hospital.approved(lost, hospital.anna, hospital.ben))
    hospital.ledger.record(hospital.approved(Suspend(key=carl.public.key.hex(), reason="stolen"), hospital.ben))
    return hospital


def entries_of(hospital: Any) -> list[Entry]:
    return list(stored_entries(hospital.ledger._store, "north"))


def rewritten(hospital: Any, facts: list[tuple[str, Fact]], signer: Identity | None = None) -> list[Entry]:
    """A ledger with these facts, chained and signed anew, as whoever has the site's key could write it."""
    from wardround.protocol.entry import content_bytes

    found: list[Entry] = []
    for at, fact in facts:
        last = found[-1] if found else None
        found.append(next_entry(last, content_bytes(at, fact), signer or hospital.folder.identity()))
    return found


def dated(hospital: Any) -> list[tuple[str, Fact]]:
    parsed = [parse_content(entry.content) for entry in entries_of(hospital)]
    return [(each.at, each.fact) for each in parsed]


def test_a_ledger_with_every_kind_of_entry_holds(full: Any) -> None:
    kinds = {fact.kind for _, fact in dated(full)}
    assert len(kinds) == 16, "a new kind: put one of it into this ledger"
    found = verify_file(full.folder.database, key=full.folder.identity().public.key)
    assert (found.entries, found.countersigned_by, found.recoveries) == (len(entries_of(full)), ("south",), 1)
    assert found.head == full.ledger.tree().head()
    spent = next(domain for domain in found.domains if domain.domain == "training")
    # Two blocks ran; the recovery charged, of 100 granted, all that were left but the 76 that the gap could not hold.
    charged = 2 + sum(charge.blocks for _, fact in dated(full) if isinstance(fact, Recover) for charge in fact.charges)
    assert spent.blocks == charged and spent.epsilon == pytest.approx(epsilon([full.event] * charged, 1e-4), rel=1e-9)


def test_one_flipped_bit_of_any_field_of_any_entry_is_found(full: Any) -> None:
    """Bits are drawn anew in every run: one in each third byte, from a first byte that is drawn too."""
    entries = entries_of(full)
    tried = 0
    for at, entry in enumerate(entries):
        for field in ("content", "signature", "hash"):
            value = getattr(entry, field)
            for byte in range(secrets.randbelow(3), len(value), 3):
                flipped = bytearray(value)
                flipped[byte] ^= 1 << secrets.randbelow(8)
                changed = replace(entry, **{field: bytes(flipped)})
                with pytest.raises(Broken) as error:
                    verify([*entries[:at], changed, *entries[at + 1 :]], "north")
                # A changed signature is noticed at once, or by the next entry's hash.
                assert error.value.number in (entry.number, entry.number + 1), (entry.number, field, byte)
                tried += 1
        for bit in range(40):
            changed = replace(entry, number=entry.number ^ (1 << bit))
            with pytest.raises(Broken):
                verify([*entries[:at], changed, *entries[at + 1 :]], "north")
    assert tried > 2_000


@pytest.mark.parametrize("field", ["content", "signature", "hash", "number", "site"])
def test_one_changed_field_in_the_file_is_found(full: Any, tmp_path: Path, field: str) -> None:
    full.ledger.close()
    for number in range(1, 6):
        copy = tmp_path / f"{number}.sqlite"
        shutil.copy(full.folder.database, copy)
        store = sqlite3.connect(copy)
        store.execute("DROP TRIGGER entries_are_never_changed")
        new = {"number": "number + 100", "site": "'nortn'"}.get(field, f"CAST(substr({field}, 2) || x'00' AS BLOB)")
        store.execute(f"UPDATE entries SET {field} = {new} WHERE number = ?", (number,))
        store.commit()
        store.close()
        with pytest.raises(UsageError):
            verify_file(copy)


def test_entries_removed_swapped_or_cut_off_are_found(full: Any) -> None:
    entries = entries_of(full)
    for at in range(len(entries) - 1):
        with pytest.raises(Broken):
            verify([*entries[:at], *entries[at + 1 :]], "north")
        with pytest.raises(Broken):
            verify([*entries[:at], entries[at + 1], entries[at], *entries[at + 2 :]], "north")
    seen = Checkpoint("north", full.ledger.tree().head())
    for end in range(1, len(entries)):
        verify(entries[:end], "north")
        with pytest.raises(Broken, match=rf"entry {end + 1}: it is missing; others have seen {len(entries)} entries"):
            verify(entries[:end], "north", seen=[seen])
    with pytest.raises(Broken, match="the ledger is empty"):
        verify([], "north")


def altered(kind: str, **update: object) -> Callable[[list[tuple[str, Fact]]], None]:
    def alter(facts: list[tuple[str, Fact]]) -> None:
        at = next(n for n, (_, fact) in enumerate(facts) if fact.kind == kind)
        facts[at] = (facts[at][0], facts[at][1].model_copy(update=update))

    return alter


def cheaper(facts: list[tuple[str, Fact]]) -> None:
    """Half of the charge vanishes: the grant and every block name more noise."""
    for at, (when, fact) in enumerate(facts):
        if fact.kind in ("grant", "reserve"):
            facts[at] = (when, fact.model_copy(update={"event": fact.event.model_copy(update={"noise_multiplier": 8})}))


def without(*kinds: str) -> Callable[[list[tuple[str, Fact]]], None]:
    def remove(facts: list[tuple[str, Fact]]) -> None:
        facts[:] = [dated for dated in facts if dated[1].kind not in kinds]

    return remove


def started_then_cancelled(facts: list[tuple[str, Fact]]) -> None:
    at = next(n for n, (_, fact) in enumerate(facts) if fact.kind == "abandon")
    facts[at] = (facts[at][0], Cancel(block="b2"))


@pytest.mark.parametrize(
    ("alter", "why"),
    [
        (altered("grant", blocks=1), "does not belong to this entry"),
        (altered("grant", blocks=1, approvals=()), "needs the signatures of 1 officers"),
        (altered("open_domain", epsilon_cap=12.0), "does not belong to this entry"),
        (altered("open_domain", order=7), "of order 7, not"),
        (altered("open_domain", delta=2e-4), "does not belong to this entry"),
        (altered("recover", charges=()), "charges at least"),
        (altered("close", reason="another"), "does not belong to this entry"),
        (altered("set_clock", wrong="2026-11-23T09:29:00Z"), "dated before"),
        (altered("countersign", root="cd" * 32), "countersigned another beginning"),
        (altered("inquiry", officer="mallory"), "no officer"),
        (altered("suspend", reason="lost"), "does not belong to this entry"),
        (altered("open_ledger", site="west"), "opens the ledger of 'west'"),
        (altered("release", attempt=1, block="b9"), "block 'b9' is unknown"),
        (cheaper, "does not belong to this entry"),
        (without("grant"), "no officer has granted"),
        (without("reserve"), "'start' is not possible now"),
        (without("recover"), None),
        (started_then_cancelled, "block 'b2' is running: 'cancel' is not possible now"),
    ],
)
def test_a_site_that_rewrites_its_ledger_with_its_own_key_breaks_a_rule_or_a_signature_of_others(
    full: Any, alter: Callable[[list[tuple[str, Fact]]], None], why: str | None
) -> None:
    facts = dated(full)
    alter(facts)
    assert facts != dated(full)
    if why is None:
        # Nothing inside the file can tell that its end was left out: what others have seen can.
        verify(rewritten(full, facts), "north")
        with pytest.raises(Broken, match="others have seen"):
            verify(rewritten(full, facts), "north", seen=[Checkpoint("north", full.ledger.tree().head())])
        return
    with pytest.raises(Broken, match=why):
        verify(rewritten(full, facts), "north")


def test_a_history_that_a_witness_did_not_sign_is_found_by_its_signature_over_the_old_one(full: Any) -> None:
    # No officer signs a refusal, and the site can chain and sign it anew: only the witness's signature is in the way.
    facts = dated(full)
    altered("refuse", reason="another")(facts)
    with pytest.raises(Broken, match="countersigned another beginning"):
        verify(rewritten(full, facts), "north")


def test_a_domain_that_spent_more_than_its_cap_is_found_by_the_accountant(
    hospital: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wardround.privacy.ledger.fits", lambda *_: None)
    hospital.grant("large", blocks=3000)
    blocks = [
        Reserve(domain="training", block=f"b{n}", plan="large", round_number=n, event=hospital.event)
        for n in range(1, 3000)
    ]
    for block in blocks:
        hospital.ledger.reserve(block)
    with pytest.raises(Broken, match=r"add up to epsilon .*, above its cap of 8"):
        verify(entries_of(hospital), "north")


def test_a_ledger_signed_with_another_key_is_found(full: Any) -> None:
    stranger = Identity.generate("north")
    with pytest.raises(Broken, match="entry 1: its signature is not the site's"):
        verify(rewritten(full, dated(full), stranger), "north")
    with pytest.raises(Broken, match="entry 1: it names another key"):
        verify(entries_of(full), "north", key=stranger.public.key)


def test_a_second_spelling_of_the_same_fact_is_found(full: Any) -> None:
    entries = entries_of(full)
    spelled = entries[-1].content.replace(b'"reason":', b'"reason": ')
    last = next_entry(entries[-2], spelled, full.folder.identity())
    with pytest.raises(Broken, match="not in canonical form"):
        verify([*entries[:-1], last], "north")
    never = entries[-1].content.replace(b"2026-11-23", b"2026-02-30")
    with pytest.raises(Broken, match="its time does not exist"):
        verify([*entries[:-1], next_entry(entries[-2], never, full.folder.identity())], "north")


def test_a_checkpoint_of_another_ledger_is_not_compared(full: Any) -> None:
    other = Checkpoint("west", full.ledger.tree().head())
    with pytest.raises(UsageError, match="is of 'west'"):
        verify(entries_of(full), "north", seen=[other])


def test_a_copy_on_a_medium_that_cannot_be_written_is_verified(full: Any, tmp_path: Path) -> None:
    full.ledger.close()
    folder = tmp_path / "cd"
    folder.mkdir()
    shutil.copy(full.folder.database, folder / "ledger.sqlite")
    folder.chmod(0o500)
    try:
        assert verify_file(folder / "ledger.sqlite").entries > 10
        assert [path.name for path in folder.iterdir()] == ["ledger.sqlite"]
    finally:
        folder.chmod(0o700)


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\x00", b"not a database" * 100])
def test_a_file_that_is_no_ledger_is_refused_in_two_lines(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(content)
    with pytest.raises((UsageError, Unavailable)) as error:
        verify_file(path)
    assert error.value.hint and "\n" not in error.value.message
    with pytest.raises(UsageError, match="there is no file"):
        verify_file(tmp_path / "nothing.sqlite")
