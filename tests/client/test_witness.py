"""Countersigned heads, a ledger that was put back to an older copy, and the two officers who let it go on."""

import os
import shutil
from dataclasses import replace
from typing import Any

import pytest

from wardround.client.store.database import open_store
from wardround.client.store.verify import Broken, verify_file
from wardround.client.store.witness import Witness
from wardround.privacy.books import NotAllowed
from wardround.privacy.budget import Refused
from wardround.protocol.checkpoint import Checkpoint
from wardround.protocol.errors import ProtocolViolation
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import Countersign, Recover, Refuse
from wardround.protocol.tree import Head
from wardround.protocol.witness import verified_seen

SOUTH = Identity.generate("south")
NOTED = Refuse(plan="plan", round_number=9, reason="an entry more")


@pytest.fixture
def south(tmp_path: Any) -> Witness:
    return Witness(open_store(tmp_path / "south.sqlite"), SOUTH)


def countersigned(hospital: Any, south: Witness) -> None:
    """One exchange as two daemons will have it: ask what was seen, offer from there, keep the signature."""
    since = hospital.ledger.state.countersigned.get("south", 0)
    checkpoint, proof = hospital.ledger.offer(since)
    note = south.cosign(checkpoint, proof, hospital.folder.identity().public)
    hospital.ledger.countersign(note, SOUTH.public)


def asked(hospital: Any, south: Witness) -> Checkpoint | None:
    nonce = os.urandom(32)
    return verified_seen(south.seen("north", nonce), hospital.folder.identity().public, SOUTH.public, nonce)


def put_back(hospital: Any) -> Any:
    """Copy the database now; the returned function restores it, as a snapshot of a virtual machine does."""
    hospital.ledger._store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    copy = hospital.folder.database.with_name("copy")
    shutil.copy(hospital.folder.database, copy)

    def restore() -> None:
        hospital.ledger._store.close()
        for end in ("-wal", "-shm"):
            hospital.folder.database.with_name("ledger.sqlite" + end).unlink(missing_ok=True)
        shutil.copy(copy, hospital.folder.database)
        hospital.restart()

    return restore


def test_a_witness_signs_heads_that_continue_one_another(hospital: Any, south: Witness) -> None:
    assert asked(hospital, south) is None
    countersigned(hospital, south)
    size = hospital.ledger.state.countersigned["south"]
    assert asked(hospital, south) == Checkpoint("north", hospital.ledger.tree().head(size))
    hospital.reserve("b1")
    countersigned(hospital, south)
    assert hospital.ledger.state.countersigned["south"] == size + 2
    assert verify_file(hospital.folder.database).countersigned_by == ("south",)


def test_a_witness_that_restarts_remembers_what_it_signed(hospital: Any, south: Witness, tmp_path: Any) -> None:
    restore = put_back(hospital)
    hospital.reserve("b1")
    countersigned(hospital, south)
    restore()
    hospital.reserve("other")
    again = Witness(open_store(tmp_path / "south.sqlite"), SOUTH)
    checkpoint, proof = hospital.ledger.offer(0)
    for known in (south, again):
        with pytest.raises(ProtocolViolation, match="does not continue"):
            known.cosign(checkpoint, proof, hospital.folder.identity().public)


def test_a_ledger_that_was_put_back_reserves_nothing_until_two_officers_recover_it(
    hospital: Any, south: Witness
) -> None:
    restore = put_back(hospital)
    for number in range(4):
        hospital.reserve(f"b{number}")
        hospital.start(f"b{number}")
    countersigned(hospital, south)
    lost, before = hospital.ledger.state.size - 1, hospital.ledger.used("training")[0]
    restore()
    assert hospital.ledger.charged("plan") == 0

    seen = asked(hospital, south)
    assert seen is not None and seen.head.size == lost
    assert hospital.ledger.rolled_back(seen.head, "south")
    for _ in range(2):
        assert isinstance(answer := hospital.reserve("b9"), Refused) and "two officers" in answer.reason
        hospital.restart()

    missing = hospital.ledger.state.missing_charges(seen.head.size)
    recover = Recover(
        seen_size=seen.head.size, seen_root=seen.head.root.hex(), charges=missing, reason="restored from a snapshot"
    )
    less = tuple(replace_blocks(charge, charge.blocks - 1) for charge in missing)
    for refused, why in [
        (recover, "signatures of 2"),
        (hospital.approved(recover), "signatures of 2"),
        (hospital.approved(recover, hospital.anna, hospital.anna), "signatures of 2"),
        (hospital.approved(recover, hospital.anna, Identity.generate("ben")), "no officer"),
        (hospital.approved(recover.model_copy(update={"charges": less}), hospital.anna, hospital.ben), "at least"),
        (hospital.approved(recover.model_copy(update={"charges": ()}), hospital.anna, hospital.ben), "at least"),
    ]:
        with pytest.raises(NotAllowed, match=why):
            hospital.ledger.record(refused)
    # A recovery of another head than the one that was seen does not help.
    elsewhere = recover.model_copy(update={"seen_root": "00" * 32})
    hospital.ledger.record(hospital.approved(elsewhere, hospital.anna, hospital.ben))
    assert isinstance(hospital.reserve("b9"), Refused)

    recover = recover.model_copy(update={"charges": hospital.ledger.state.missing_charges(seen.head.size)})
    hospital.ledger.record(hospital.approved(recover, hospital.anna, hospital.ben))
    assert hospital.ledger.used("training")[0] >= before
    assert hospital.reserve("b9") is None
    assert not hospital.ledger.rolled_back(seen.head, "south")
    assert not hospital.restart().rolled_back(seen.head, "south")
    assert verify_file(hospital.folder.database, seen=[seen]).recoveries == 2


def replace_blocks(charge: Any, blocks: int) -> Any:
    return charge.model_copy(update={"blocks": blocks})


def test_a_second_history_of_the_same_length_is_noticed_too(hospital: Any, south: Witness) -> None:
    restore = put_back(hospital)
    hospital.reserve("b1")
    countersigned(hospital, south)
    seen = asked(hospital, south)
    assert seen is not None
    restore()
    for _ in range(5):
        hospital.ledger.record(NOTED)
    assert hospital.ledger.rolled_back(seen.head, "south")
    assert isinstance(hospital.reserve("b2"), Refused)
    with pytest.raises(Broken, match="not what others have seen"):
        verify_file(hospital.folder.database, seen=[seen])
    # Every entry may be another than the one that was countersigned, so that each may have started a block.
    assert [charge.blocks for charge in hospital.ledger.state.missing_charges(seen.head.size)] == [seen.head.size]


def test_a_head_that_the_ledger_continues_is_no_rollback(hospital: Any, south: Witness) -> None:
    countersigned(hospital, south)
    for _ in range(3):
        hospital.ledger.record(NOTED)
    seen = asked(hospital, south)
    assert seen is not None and not hospital.ledger.rolled_back(seen.head, "south")
    assert hospital.reserve("b1") is None


def test_an_answer_to_another_question_or_of_another_witness_is_refused(hospital: Any, south: Witness) -> None:
    countersigned(hospital, south)
    north, nonce = hospital.folder.identity().public, bytes(32)
    answer = south.seen("north", nonce)
    stranger = Identity.generate("south")
    for data, log, witness, question, why in [
        (answer, north, SOUTH.public, b"\x01" * 32, "another question"),
        (answer, replace(north, site="east"), SOUTH.public, nonce, "another question"),
        (answer, north, stranger.public, nonce, "not signed with its known key"),
        (answer, replace(north, key=stranger.public.key), SOUTH.public, nonce, "not signed with the known key"),
        (answer.replace(b'"signature":"', b'"signature":"0'), north, SOUTH.public, nonce, "malformed"),
        (answer.replace(b"north\\n", b"north\\n1"), north, SOUTH.public, nonce, "not signed with its known key"),
    ]:
        with pytest.raises(ProtocolViolation, match=why):
            verified_seen(data, log, witness, question)


def test_a_witness_cannot_invent_a_head(hospital: Any, south: Witness) -> None:
    countersigned(hospital, south)
    later = Checkpoint("north", Head(999, bytes(32))).note().signed_by(SOUTH).encode()
    south._store.execute("UPDATE witnessed SET note = ?", (later,))
    with pytest.raises(ProtocolViolation, match="not signed with the known key of 'north'"):
        asked(hospital, south)


def test_a_countersignature_is_kept_only_for_a_head_of_this_ledger(hospital: Any, south: Witness) -> None:
    checkpoint, proof = hospital.ledger.offer(0)
    with pytest.raises(ProtocolViolation, match="without its signature"):
        hospital.ledger.countersign(checkpoint, SOUTH.public)
    never = Checkpoint("north", Head(2, bytes(32))).note().signed_by(hospital.folder.identity()).signed_by(SOUTH)
    with pytest.raises(ProtocolViolation, match="never had"):
        hospital.ledger.countersign(never.encode(), SOUTH.public)
    note = south.cosign(checkpoint, proof, hospital.folder.identity().public)
    hospital.ledger.countersign(note, SOUTH.public)
    assert isinstance(hospital.ledger.facts()[-1], Countersign)


def test_a_countersignature_that_the_site_made_up_is_found(hospital: Any) -> None:
    head = hospital.ledger.tree().head()
    made_up = Countersign(
        size=head.size, root=head.root.hex(), signer="south", key=SOUTH.public.key.hex(), signature="00" * 64
    )
    hospital.ledger.record(made_up)
    with pytest.raises(Broken, match="signature of 'south' does not belong"):
        verify_file(hospital.folder.database)
