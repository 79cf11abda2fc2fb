"""The ledger: charged before anything is drawn, never given back after, signed, and exact at the last of the budget."""

import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from alembic import op
from pydantic import ValidationError

from wardround.client.governance import open_domain
from wardround.client.store.database import open_store, store_bytes
from wardround.client.store.ledger import Ledger, stored_entries
from wardround.client.store.migrations import HEAD
from wardround.client.store.verify import verify_file
from wardround.privacy.books import NotAllowed
from wardround.privacy.budget import Refused, allowance, cost, fixed_order
from wardround.protocol.entry import parse_content
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.events import PoissonGaussian, Unprotected
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import (
    TRANSITIONS,
    Abandon,
    BlockState,
    Cancel,
    Close,
    Grant,
    Inquiry,
    Officers,
    OpenDomain,
    Refuse,
    Reserve,
    SetClock,
    Start,
)

EVENT = PoissonGaussian(noise_multiplier=2.0, sampling_probability=0.25, steps=5, declared_patients=200)
ORDER = fixed_order(8.0, 1e-4)
PRICE = cost(EVENT, ORDER)


def room_for(hospital: Any, blocks: int) -> None:
    """Shrink the budget, as this process sees it, to exactly so many blocks."""
    state = hospital.ledger.state
    state.domains["training"] = replace(state.domains["training"], allowance=blocks * PRICE)


def test_exactly_the_budget_is_admitted_and_a_refusal_charges_nothing(hospital: Any) -> None:
    room_for(hospital, 3)
    answers = [hospital.reserve(f"b{n}") for n in range(5)]
    assert [answer is None for answer in answers] == [True, True, True, False, False]
    spent, room = hospital.ledger.used("training")
    assert spent == room == 3 * PRICE
    assert hospital.ledger.events() == [EVENT] * 3


def test_the_allowance_is_the_filters_own(hospital: Any) -> None:
    assert hospital.ledger.used("training") == (0, allowance(8.0, 1e-4, ORDER))


def test_a_block_that_never_started_is_cancelled_and_its_charge_given_back(hospital: Any) -> None:
    room_for(hospital, 1)
    assert hospital.reserve("b1") is None
    hospital.ledger.recover("plan")
    assert hospital.ledger.blocks()[0].state is BlockState.CANCELLED
    assert hospital.ledger.used("training")[0] == 0 and hospital.ledger.events() == []
    assert hospital.ledger.charged("plan") == 0 and hospital.ledger.state.grants["plan", "training"].left == 100
    assert hospital.reserve("b2") is None


def test_a_block_that_started_stays_charged_after_a_crash(hospital: Any) -> None:
    room_for(hospital, 1)
    hospital.reserve("b1")
    hospital.start("b1")
    hospital.ledger.recover("plan")
    assert hospital.ledger.blocks()[0].state is BlockState.ABANDONED
    assert hospital.ledger.events() == [EVENT] and isinstance(hospital.reserve("b2"), Refused)


def test_a_released_block_survives_recovery_unchanged(hospital: Any) -> None:
    hospital.reserve("b1")
    hospital.start("b1")
    hospital.release("b1")
    hospital.ledger.recover("plan")
    assert hospital.ledger.blocks()[0].state is BlockState.RELEASED and hospital.ledger.charged("plan") == 1


@pytest.mark.parametrize("state", [None, *BlockState])
@pytest.mark.parametrize("kind", ["reserve", "start", "cancel", "release", "abandon"])
def test_every_transition_that_is_not_in_the_table_is_refused(
    hospital: Any, state: BlockState | None, kind: str
) -> None:
    reach: dict[BlockState | None, list[str]] = {
        None: [],
        BlockState.RESERVED: ["reserve"],
        BlockState.RUNNING: ["reserve", "start"],
        BlockState.RELEASED: ["reserve", "start", "release"],
        BlockState.ABANDONED: ["reserve", "start", "abandon"],
        BlockState.CANCELLED: ["reserve", "cancel"],
    }
    attempts = iter(range(1, 9))
    act: dict[str, Callable[[], object]] = {
        "reserve": lambda: hospital.reserve("b"),
        "start": lambda: hospital.start("b"),
        "cancel": lambda: hospital.ledger.record(Cancel(block="b")),
        "release": lambda: hospital.release("b", next(attempts)),
        "abandon": lambda: hospital.ledger.record(Abandon(block="b")),
    }
    for step in reach[state]:
        act[step]()
    before = len(hospital.ledger.facts())
    if (state, kind) in TRANSITIONS:
        act[kind]()
        assert len(hospital.ledger.facts()) == before + 1
        return
    if kind == "reserve":
        assert isinstance(act[kind](), Refused)
    else:
        with pytest.raises(NotAllowed, match="not possible now"):
            act[kind]()
    assert len(hospital.ledger.facts()) == before


def test_the_table_has_these_transitions_and_no_other() -> None:
    # Written out again, so that a line added to the table is noticed here.
    assert {(before and before.value, kind, after.value) for (before, kind), after in TRANSITIONS.items()} == {
        (None, "reserve", "reserved"),
        ("reserved", "start", "running"),
        ("reserved", "cancel", "cancelled"),
        ("running", "release", "released"),
        ("running", "abandon", "abandoned"),
        ("released", "release", "released"),
        ("released", "abandon", "abandoned"),
    }


def test_an_answer_that_is_given_up_stays_charged_and_makes_room_for_another_batch(hospital: Any) -> None:
    hospital.reserve("b/1", number=1)
    hospital.start("b/1")
    hospital.release("b/1")
    hospital.ledger.record(Abandon(block="b/1"))
    state = hospital.restart().state
    assert state.answered == {"plan": set()} and hospital.ledger.charged("plan") == 1
    assert hospital.reserve("b/2", number=1) is None
    assert hospital.ledger.charged("plan") == 2


def test_an_attempt_is_released_once(hospital: Any) -> None:
    hospital.reserve("b1")
    hospital.start("b1")
    hospital.release("b1", 1)
    hospital.release("b1", 2)
    with pytest.raises(NotAllowed, match="already"):
        hospital.release("b1", 2)
    assert hospital.ledger.charged("plan") == 1 and hospital.ledger.blocks()[0].attempts == (1, 2)


def test_answered_rounds_are_known_after_a_restart(hospital: Any) -> None:
    hospital.grant("other")
    for number, plan in ((1, "plan"), (2, "plan"), (3, "other")):
        hospital.reserve(f"b{number}", plan, number=number)
        hospital.start(f"b{number}")
    for number in (1, 3):
        hospital.release(f"b{number}")
    assert hospital.restart().state.answered == {"plan": {1}, "other": {3}}


def test_a_round_is_charged_to_every_domain_that_it_touches_or_to_none(hospital: Any) -> None:
    hospital.open("elsewhere")
    hospital.grant(domain="elsewhere", blocks=1)

    def both(number: int) -> Refused | None:
        return hospital.ledger.reserve(*(
            Reserve(domain=name, block=f"{name}/{number}", plan="plan", round_number=number, event=EVENT)
            for name in ("training", "elsewhere")
        ))  # fmt: skip

    assert both(1) is None
    assert [hospital.ledger.used(name)[0] for name in ("training", "elsewhere")] == [PRICE, PRICE]
    assert isinstance(both(2), Refused)
    assert [hospital.ledger.used(name)[0] for name in ("training", "elsewhere")] == [PRICE, PRICE]


def test_a_plan_gets_the_blocks_that_its_officer_granted_and_no_more(bare: Any) -> None:
    bare.open()
    assert isinstance(answer := bare.reserve("b0"), Refused) and "no officer has granted" in answer.reason
    bare.grant(blocks=2)
    assert bare.reserve("b1") is None and bare.reserve("b2") is None
    assert isinstance(answer := bare.reserve("b3"), Refused) and "has used the 2 rounds" in answer.reason
    more = Grant(domain="training", plan="plan", version=2, event=EVENT, blocks=3)
    bare.ledger.record(bare.approved(more))
    assert bare.reserve("b3") is None
    assert isinstance(bare.reserve("b4"), Refused)
    bare.ledger.record(bare.approved(more.model_copy(update={"version": 3, "blocks": 0})))
    assert isinstance(bare.reserve("b4"), Refused)


def test_a_round_with_another_event_than_the_granted_one_is_refused(hospital: Any) -> None:
    cheaper = EVENT.model_copy(update={"noise_multiplier": 40.0})
    fact = Reserve(domain="training", block="b1", plan="plan", round_number=1, event=cheaper)
    assert isinstance(answer := hospital.ledger.reserve(fact), Refused) and "not the one" in answer.reason
    with pytest.raises(NotAllowed, match="one event for ever"):
        hospital.ledger.record(
            hospital.approved(Grant(domain="training", plan="plan", version=2, event=cheaper, blocks=9))
        )


def test_a_closed_domain_reserves_and_starts_nothing_but_what_runs_may_end(hospital: Any) -> None:
    for block in ("b1", "b2"):
        hospital.reserve(block)
    hospital.start("b1")
    hospital.ledger.record(hospital.approved(Close(domain="training", reason="consent withdrawn by the registry")))
    assert isinstance(answer := hospital.reserve("b3"), Refused) and "closed" in answer.reason
    with pytest.raises(NotAllowed, match="closed"):
        hospital.start("b2")
    hospital.release("b1")
    hospital.restart().recover("plan")
    assert {b.name: b.state for b in hospital.ledger.blocks()} == {
        "b1": BlockState.RELEASED,
        "b2": BlockState.CANCELLED,
    }


def forged(hospital: Any) -> list[OpenDomain]:
    """A domain as nobody may open it: unsigned, signed by a stranger, under an officer's name, or for another site."""
    fact, stranger = open_domain("second", 8.0, 1e-4), Identity.generate("anna")
    signed = hospital.approved(fact)
    return [
        fact,
        hospital.approved(fact, Identity.generate("carl")),
        hospital.approved(fact, stranger),
        fact.model_copy(
            update={
                "approvals": (
                    hospital.approved(fact, stranger)
                    .approvals[0]
                    .model_copy(update={"key": hospital.anna.public.key.hex()}),
                )
            }
        ),
        signed.model_copy(update={"epsilon_cap": 12.0, "order": fixed_order(12.0, 1e-4)}),
        signed.model_copy(update={"domain": "third"}),
    ]


@pytest.mark.parametrize("number", range(6))
def test_only_an_officers_signature_over_this_very_fact_opens_a_domain(hospital: Any, number: int) -> None:
    before = len(hospital.ledger.facts())
    with pytest.raises(NotAllowed):
        hospital.ledger.record(forged(hospital)[number])
    assert len(hospital.ledger.facts()) == before


def test_an_approval_for_one_hospital_is_worth_nothing_at_another(hospital: Any, tmp_path: Path) -> None:
    from wardround.client.store.folder import SiteFolder

    south = SiteFolder.create(tmp_path / "south", "south", [hospital.anna.public]).ledger()
    with pytest.raises(NotAllowed, match="does not belong"):
        south.record(hospital.approved(open_domain("training", 8.0, 1e-4)))


def test_a_new_list_of_officers_needs_two_of_the_old(hospital: Any) -> None:
    carl = Identity.generate("carl")
    later = Officers(version=2, officers={"carl": carl.public.key.hex(), "ben": hospital.ben.public.key.hex()})
    for signers in ((hospital.anna,), (hospital.anna, hospital.anna), (carl, hospital.anna)):
        with pytest.raises(NotAllowed):
            hospital.ledger.record(hospital.approved(later, *signers))
    hospital.ledger.record(hospital.approved(later, hospital.anna, hospital.ben))
    with pytest.raises(NotAllowed, match="no officer"):
        hospital.ledger.record(hospital.approved(open_domain("second", 8.0, 1e-4), hospital.anna))
    hospital.ledger.record(hospital.approved(open_domain("second", 8.0, 1e-4), carl))
    with pytest.raises(NotAllowed, match="does not follow"):
        hospital.ledger.record(hospital.approved(later, hospital.ben, carl))


def test_an_inquiry_names_an_officer_of_the_site(hospital: Any) -> None:
    hospital.ledger.record(Inquiry(officer="anna"))
    with pytest.raises(NotAllowed, match="no officer"):
        hospital.ledger.record(Inquiry(officer="carl"))


def test_the_file_keeps_what_was_charged(hospital: Any) -> None:
    hospital.reserve("b1")
    again = hospital.restart()
    assert again.events() == [EVENT] and again.used("training")[0] == PRICE
    store = open_store(hospital.folder.database)
    assert store.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store.execute("PRAGMA synchronous").fetchone() == (2,)
    assert hospital.folder.database.stat().st_mode & 0o077 == 0


def test_two_processes_see_each_others_entries(hospital: Any) -> None:
    room_for(hospital, 2)
    other = hospital.folder.ledger(lambda: hospital.now)
    other.state.domains["training"] = hospital.ledger.state.domains["training"]
    assert hospital.reserve("b1") is None
    fact = Reserve(domain="training", block="b2", plan="plan", round_number=2, event=EVENT)
    assert other.reserve(fact) is None
    assert isinstance(hospital.reserve("b3"), Refused)
    assert [block.name for block in hospital.ledger.blocks()] == ["b1", "b2"]


def simulated(name: str = "a", store: Any = None) -> Ledger:
    ledger = Ledger(store or open_store(None), name)
    ledger.record(open_domain("training", 8.0, 1e-4))
    ledger.record(Grant(domain="training", plan="plan", event=EVENT, blocks=100))
    return ledger


B1 = Reserve(domain="training", block="b1", plan="plan", round_number=1, event=EVENT)


def test_a_database_in_memory_survives_a_round_trip_through_bytes() -> None:
    ledger = simulated()
    ledger.reserve(B1)
    again = Ledger(open_store(None, store_bytes(ledger._store)), "a")
    assert again.facts() == ledger.facts() and again.used("training") == ledger.used("training")
    assert again.reserve(B1.model_copy(update={"block": "b2", "round_number": 2})) is None


def test_sites_in_one_database_do_not_see_each_other() -> None:
    store = open_store(None)
    ledgers = [simulated(name, store) for name in ("a", "b")]
    assert ledgers[0].reserve(B1) is None
    assert ledgers[1].events() == [] and ledgers[1].used("training")[0] == 0


def test_a_hospital_has_no_domain_without_a_budget_and_no_grant_without_noise(hospital: Any) -> None:
    with pytest.raises(NotAllowed, match="only a simulation"):
        hospital.ledger.record(hospital.approved(OpenDomain(domain="free", delta=1e-4, epsilon_cap=None, order=None)))
    with pytest.raises(NotAllowed, match="a waiver of two officers first"):
        hospital.grant("bare", event=Unprotected(releases=1))


def test_a_domain_of_a_simulation_admits_a_release_without_noise() -> None:
    ledger = Ledger(open_store(None), "a")
    ledger.record(OpenDomain(domain="training", delta=1e-4, epsilon_cap=None, order=None))
    ledger.record(Grant(domain="training", plan="plan", event=Unprotected(releases=1), blocks=1))
    fact = Reserve(domain="training", block="b", plan="plan", round_number=1, event=Unprotected(releases=1))
    assert ledger.reserve(fact) is None


def test_a_hospitals_ledger_opens_with_its_own_key_only(hospital: Any) -> None:
    for identity in (None, Identity.generate("north")):
        with pytest.raises(UsageError, match="another key"):
            Ledger(open_store(hospital.folder.database), "north", identity)


def test_an_unknown_domain_is_refused_and_a_second_opening_too(hospital: Any) -> None:
    assert isinstance(hospital.reserve("b1", domain="elsewhere"), Refused)
    with pytest.raises(NotAllowed, match="open already"):
        hospital.open("training", 12.0)
    with pytest.raises(NotAllowed, match="of order 7, not"):
        hospital.ledger.record(hospital.approved(OpenDomain(domain="x", delta=1e-4, epsilon_cap=8.0, order=7)))


def test_entries_are_numbered_dated_signed_and_read_back(hospital: Any) -> None:
    hospital.later(hours=1)
    hospital.ledger.record(Refuse(plan="plan", round_number=1, reason="because"))
    entries = list(stored_entries(hospital.ledger._store, "north"))
    assert [entry.number for entry in entries] == list(range(1, 6))
    last = parse_content(entries[-1].content)
    assert last.at == "2026-11-23T10:30:00Z" and isinstance(last.fact, Refuse)
    assert all(len(entry.signature) == 64 for entry in entries)


def test_the_database_itself_refuses_to_change_or_remove_an_entry(hospital: Any) -> None:
    for statement in ("UPDATE entries SET content = x'00'", "DELETE FROM entries"):
        with pytest.raises(Exception, match="append-only"):
            hospital.ledger._store.execute(statement)


def tampered(hospital: Any, statement: str) -> Ledger:
    store = open_store(hospital.folder.database)
    for name in ("entries_are_never_changed", "entries_are_never_removed"):
        store.execute(f"DROP TRIGGER {name}")
    store.execute(statement)
    return hospital.restart()


@pytest.mark.parametrize(
    ("statement", "number"),
    [
        ("UPDATE entries SET content = CAST(replace(content, '\"steps\":5', '\"steps\":4') AS BLOB) WHERE number=5", 5),
        ("UPDATE entries SET content = CAST(replace(content, '09:30', '09:31') AS BLOB) WHERE number = 3", 3),
        ("DELETE FROM entries WHERE number = 4", 4),
        ("UPDATE entries SET signature = zeroblob(64) WHERE number = 6", 6),
        ("UPDATE entries SET signature = zeroblob(64) WHERE number = 2", 3),
        ("UPDATE entries SET signature = x'' WHERE number = 6", 6),
    ],
)
def test_a_changed_file_is_not_opened(hospital: Any, statement: str, number: int) -> None:
    for n in range(2):
        hospital.reserve(f"b{n}")
    with pytest.raises(UsageError, match=f"broken at entry {number}:"):
        tampered(hospital, statement)


def test_an_entry_of_a_foreign_key_is_refused_again_and_again_by_who_is_already_running(hospital: Any) -> None:
    running, spent = hospital.ledger, hospital.ledger.used("training")[0]
    hospital.restart()
    hospital.reserve("b0")
    with pytest.raises(UsageError, match="its signature is not the site's"):
        tampered(hospital, "UPDATE entries SET signature = zeroblob(64) WHERE number = 5")
    hospital.ledger = running
    for _ in range(2):
        with pytest.raises(UsageError, match="broken at entry 5: its signature is not the site's"):
            hospital.reserve("b1")
    assert spent == 0 and len(list(stored_entries(running._store, "north"))) == 5


def test_an_entry_of_unknown_kind_or_field_is_never_guessed(hospital: Any) -> None:
    for text in (
        b'{"at":"2026-11-23T09:30:00Z","fact":{"kind":"refund","block":"b"}}',
        b'{"at":"2026-11-23T09:30:00Z","fact":{"kind":"start","block":"b","epsilon":1}}',
        b'{"at":"yesterday","fact":{"kind":"start","block":"b"}}',
    ):
        with pytest.raises(ValidationError):
            parse_content(text)


def test_a_ledger_that_a_later_version_wrote_is_refused_whole(hospital: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from wardround.client.store import ledger as module

    later = b'{"at":"2026-11-23T09:31:00Z","fact":{"block":"b","kind":"refund"}}'
    hospital.reserve("b1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "content_bytes", lambda at, fact: later)
        hospital.start("b1")
    with pytest.raises(UsageError, match=r"broken at entry 6: its kind or a field is unknown to this version"):
        hospital.restart()
    store = open_store(hospital.folder.database)
    store.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(UsageError, match="version 9999 of the schema") as error:
        open_store(hospital.folder.database)
    assert "later version" in error.value.hint


def test_an_entry_holds_the_event_and_no_epsilon(hospital: Any) -> None:
    hospital.reserve("b1")
    fact = hospital.ledger.facts()[-1]
    assert isinstance(fact, Reserve) and fact.event == EVENT and "epsilon" not in fact.model_dump()


def test_a_clock_that_goes_back_a_little_stands_still_and_one_that_goes_back_far_stops_the_site(hospital: Any) -> None:
    hospital.later(minutes=-4)
    assert hospital.reserve("b1") is None
    assert parse_content(list(stored_entries(hospital.ledger._store, "north"))[-1].content).at == "2026-11-23T09:30:00Z"
    hospital.later(minutes=-2)
    before = len(hospital.ledger.facts())
    with pytest.raises(Unavailable, match="the clock says 2026-11-23T09:24:00Z") as error:
        hospital.reserve("b2")
    assert "NTP" in error.value.hint and len(hospital.restart().facts()) == before
    hospital.later(minutes=6)
    assert hospital.reserve("b2") is None


def test_an_officer_lets_time_begin_again_after_a_clock_that_was_far_ahead(hospital: Any) -> None:
    hospital.later(days=700)
    assert hospital.reserve("b1") is None
    hospital.later(days=-700)
    with pytest.raises(Unavailable, match="the clock says"):
        hospital.reserve("b2")
    fact = SetClock(wrong="2028-10-23T09:30:00Z", reason="the time server was wrong")
    with pytest.raises(NotAllowed, match="signatures of 1"):
        hospital.ledger.record(fact)
    with pytest.raises(UsageError, match="not of the time that was signed"):
        hospital.ledger.record(hospital.approved(fact.model_copy(update={"wrong": "2028-10-23T09:30:01Z"})))
    hospital.ledger.record(hospital.approved(fact))
    assert hospital.reserve("b2") is None
    assert verify_file(hospital.folder.database).last == "2026-11-23T09:30:00Z"
    assert hospital.restart().charged("plan") == 2


def test_one_attempt_at_a_round_is_under_way_at_a_time_and_none_after_its_answer(hospital: Any) -> None:
    assert hospital.reserve("b1", number=1) is None
    assert isinstance(answer := hospital.reserve("b1/2", number=1), Refused) and "under way" in answer.reason
    hospital.ledger.record(Cancel(block="b1"))
    assert hospital.reserve("b1/2", number=1) is None
    hospital.start("b1/2")
    assert isinstance(hospital.reserve("b1/3", number=1), Refused)
    hospital.ledger.record(Abandon(block="b1/2"))
    assert hospital.reserve("b1/3", number=1) is None
    hospital.start("b1/3")
    hospital.release("b1/3")
    assert isinstance(answer := hospital.reserve("b1/4", number=1), Refused) and "was answered" in answer.reason
    assert hospital.ledger.charged("plan") == 2


def test_a_restart_settles_the_blocks_of_its_own_plan_only(hospital: Any) -> None:
    hospital.grant("other")
    hospital.reserve("mine")
    hospital.reserve("theirs", "other")
    hospital.restart().recover("plan")
    assert {b.name: b.state.value for b in hospital.ledger.blocks()} == {"mine": "cancelled", "theirs": "reserved"}


def _open_at(path: Path, at: float) -> str:
    while time.time() < at:  # not asleep: all of them at the same moment
        pass
    return str(open_store(path).execute("SELECT version_num FROM alembic_version").fetchone()[0])


def test_many_processes_may_open_a_new_database_at_once(tmp_path: Path) -> None:
    with ProcessPoolExecutor(12, mp_context=get_context("fork")) as pool:
        for number in range(8):
            at = time.time() + 0.05
            opened = [pool.submit(_open_at, tmp_path / f"{number}.sqlite", at) for _ in range(12)]
            assert {future.result() for future in opened} == {HEAD}


@pytest.mark.parametrize("statement", ["entries_are_never_changed", "rollbacks", "opt_outs"])
def test_a_database_whose_making_was_cut_off_is_made_again(tmp_path: Path, statement: str) -> None:
    class CutOff(BaseException):
        pass

    path = tmp_path / "ledger.sqlite"
    with pytest.MonkeyPatch.context() as patch:
        execute = op.execute

        def cut(text: str) -> None:
            if statement in text:
                raise CutOff
            execute(text)

        patch.setattr(op, "execute", cut)
        with pytest.raises(CutOff):
            open_store(path)
    assert sqlite3.connect(path).execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    assert _open_at(path, 0) == HEAD


def test_the_schema_in_memory_is_the_one_that_migrations_make(tmp_path: Path) -> None:
    def schema(store: Any) -> set[tuple[str, str]]:
        rows = store.execute("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE '%alembic%'").fetchall()
        return {(name, " ".join(sql.split())) for name, sql in rows if sql}

    assert schema(open_store(None)) == schema(open_store(tmp_path / "ledger.sqlite")) != set()


def test_started_blocks_carry_how_many_had_opted_out(hospital: Any) -> None:
    hospital.reserve("b1")
    hospital.ledger.record(Start(block="b1", opted_out_at_most=10))
    assert hospital.restart().state.started_without == {"b1": 10}
    with pytest.raises(ValidationError):
        Start(block="b", opted_out_at_most=7)


def test_every_commit_is_on_disk_before_the_method_returns(hospital: Any) -> None:
    store = hospital.ledger._store
    assert store.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL: an fsync of the log on every commit
    assert store.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_nobody_writes_between_what_a_writer_reads_and_what_it_writes(hospital: Any) -> None:
    other, said = hospital.folder.ledger(lambda: hospital.now), []
    other._store.execute("PRAGMA busy_timeout = 0")

    def clock() -> datetime:
        # A ledger asks for the time behind its checks and before its first write.
        with pytest.raises(Unavailable) as error:
            other.record(Inquiry(officer="ben"))
        said.append(error.value.message)
        return hospital.now

    hospital.folder.ledger(clock).record(Inquiry(officer="anna"))
    assert len(said) == 1 and "database is locked" in said[0]
    other.record(Inquiry(officer="ben"))
    assert [fact.officer for fact in hospital.ledger.facts() if isinstance(fact, Inquiry)] == ["anna", "ben"]
