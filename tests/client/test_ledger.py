"""The ledger: charged before anything is drawn, never given back after, and exact at the last of the budget."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from wardround.client.store.ledger import Ledger, open_store, store_bytes
from wardround.privacy.budget import Refused, allowance, cost, fixed_order
from wardround.protocol.errors import UsageError
from wardround.protocol.events import PoissonGaussian, Unprotected
from wardround.protocol.ledger import TRANSITIONS, BlockState, OpenDomain, Refuse, Reserve, parse_fact

EVENT = PoissonGaussian(noise_multiplier=2.0, sampling_probability=0.25, steps=5, declared_patients=200)
ORDER = fixed_order(8.0, 1e-4)


def opened(path: Path | None = None, blocks: int | None = None) -> Ledger:
    """A ledger with one domain that has room for ``blocks`` events (None: the default budget)."""
    ledger = Ledger(open_store(path), "cleveland")
    room = allowance(8.0, 1e-4, ORDER) if blocks is None else blocks * cost(EVENT, ORDER)
    ledger.open_domain(OpenDomain(domain="training", delta=1e-4, epsilon_cap=8.0, order=ORDER), room)
    return ledger


def reserve(ledger: Ledger, block: str) -> Refused | None:
    return ledger.reserve(block, "training", "plan", 1, EVENT)


def test_exactly_the_budget_is_admitted_and_a_refusal_charges_nothing() -> None:
    ledger = opened(blocks=3)
    answers = [reserve(ledger, f"b{n}") for n in range(5)]
    assert [answer is None for answer in answers] == [True, True, True, False, False]
    spent, room = ledger.used("training")
    assert spent == room == 3 * cost(EVENT, ORDER)
    assert len(ledger.events()) == 3


def test_a_block_that_never_started_is_cancelled_and_its_charge_given_back() -> None:
    ledger = opened(blocks=1)
    assert reserve(ledger, "b1") is None
    ledger.recover()
    assert ledger.blocks()[0].state is BlockState.CANCELLED
    assert ledger.used("training")[0] == 0 and ledger.events() == [] and ledger.charged("plan") == 0
    assert reserve(ledger, "b2") is None


def test_a_block_that_started_stays_charged_after_a_crash() -> None:
    ledger = opened(blocks=1)
    reserve(ledger, "b1")
    ledger.start("b1")
    ledger.recover()
    assert ledger.blocks()[0].state is BlockState.ABANDONED
    assert ledger.events() == [EVENT] and isinstance(reserve(ledger, "b2"), Refused)


def test_a_released_block_survives_recovery_unchanged() -> None:
    ledger = opened()
    reserve(ledger, "b1")
    ledger.start("b1")
    ledger.release("b1", "00" * 32)
    ledger.recover()
    assert ledger.blocks()[0].state is BlockState.RELEASED and ledger.charged("plan") == 1


@pytest.mark.parametrize("state", [None, *BlockState])
@pytest.mark.parametrize("kind", ["reserve", "start", "cancel", "release", "abandon"])
def test_every_transition_that_is_not_in_the_table_is_refused(state: BlockState | None, kind: str) -> None:
    ledger = opened()
    reach = {
        None: [],
        BlockState.RESERVED: ["reserve"],
        BlockState.RUNNING: ["reserve", "start"],
        BlockState.RELEASED: ["reserve", "start", "release"],
        BlockState.ABANDONED: ["reserve", "start", "abandon"],
        BlockState.CANCELLED: ["reserve", "cancel"],
    }
    act = {
        "reserve": lambda: reserve(ledger, "b"),
        "start": lambda: ledger.start("b"),
        "cancel": lambda: ledger.cancel("b"),
        "release": lambda: ledger.release("b", "00" * 32),
        "abandon": lambda: ledger.abandon("b"),
    }
    for step in reach[state]:
        act[step]()
    before = len(ledger.facts())
    if (state, kind) in TRANSITIONS:
        act[kind]()
        assert len(ledger.facts()) == before + 1
        return
    with pytest.raises(UsageError, match="not possible now"):
        act[kind]()
    assert len(ledger.facts()) == before


def test_the_table_has_these_transitions_and_no_other() -> None:
    # Written out again, so that a line added to the table is noticed here.
    assert {(before and before.value, kind, after.value) for (before, kind), after in TRANSITIONS.items()} == {
        (None, "reserve", "reserved"),
        ("reserved", "start", "running"),
        ("reserved", "cancel", "cancelled"),
        ("running", "release", "released"),
        ("running", "abandon", "abandoned"),
        ("released", "release", "released"),
    }


def test_cancel_after_start_is_impossible() -> None:
    assert (BlockState.RUNNING, "cancel") not in TRANSITIONS


def test_answered_rounds_are_known_after_a_restart(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "ledger.sqlite")
    for number, plan in ((1, "plan"), (2, "plan"), (3, "other")):
        ledger.reserve(f"b{number}", "training", plan, number, EVENT)
        ledger.start(f"b{number}")
    for number in (1, 3):
        ledger.release(f"b{number}", "00" * 32)
    again = Ledger(open_store(tmp_path / "ledger.sqlite"), "cleveland")
    assert again.released_rounds("plan") == {1} and again.released_rounds("none") == set()


def test_the_file_keeps_what_was_charged(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    reserve(opened(path), "b1")
    again = Ledger(open_store(path), "cleveland")
    assert again.events() == [EVENT] and again.used("training")[0] == cost(EVENT, ORDER)
    store = open_store(path)
    assert store.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_database_in_memory_survives_a_round_trip_through_bytes() -> None:
    ledger = opened()
    reserve(ledger, "b1")
    again = Ledger(open_store(None, store_bytes(ledger._store)), "cleveland")
    assert again.facts() == ledger.facts() and again.used("training") == ledger.used("training")
    assert reserve(again, "b2") is None


def test_sites_in_one_database_do_not_see_each_other() -> None:
    store = open_store(None)
    for name in ("a", "b"):
        Ledger(store, name).open_domain(OpenDomain(domain="training", delta=1e-4, epsilon_cap=8.0, order=ORDER), 10**12)
    assert reserve(Ledger(store, "a"), "b1") is None
    assert Ledger(store, "b").events() == [] and Ledger(store, "b").used("training")[0] == 0


def test_a_hospitals_domain_refuses_a_release_without_noise() -> None:
    answer = opened().reserve("b1", "training", "plan", 1, Unprotected(releases=1))
    assert isinstance(answer, Refused)


def test_only_a_domain_without_protection_admits_a_release_without_noise() -> None:
    ledger = Ledger(open_store(None), "a")
    ledger.open_domain(OpenDomain(domain="training", delta=1e-4, epsilon_cap=None, order=None), None)
    assert ledger.reserve("b1", "training", "plan", 1, Unprotected(releases=1)) is None


def test_an_unknown_domain_is_refused_and_a_second_opening_too() -> None:
    ledger = opened()
    assert isinstance(ledger.reserve("b1", "elsewhere", "plan", 1, EVENT), Refused)
    with pytest.raises(UsageError, match="open already"):
        ledger.open_domain(OpenDomain(domain="training", delta=1e-4, epsilon_cap=12.0, order=2), 10**13)


def test_a_changed_entry_breaks_the_chain(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "ledger.sqlite")
    for n in range(3):
        reserve(ledger, f"b{n}")
    ledger.refuse("plan", 1, "because")
    assert isinstance(ledger.facts()[-1], Refuse)
    ledger._store.execute(
        "UPDATE entries SET content = CAST(replace(content, '\"steps\":5', '\"steps\":4') AS BLOB) WHERE counter = 3"
    )
    with pytest.raises(UsageError, match="broken at entry 3"):
        ledger.facts()


def test_an_entry_of_unknown_kind_or_field_is_never_guessed() -> None:
    for text in (b'{"kind":"refund","block":"b"}', b'{"kind":"start","block":"b","epsilon":1}'):
        with pytest.raises(ValidationError):
            parse_fact(text)


def test_an_entry_holds_the_event_and_no_epsilon() -> None:
    ledger = opened()
    reserve(ledger, "b1")
    fact = ledger.facts()[-1]
    assert isinstance(fact, Reserve) and fact.event == EVENT and "epsilon" not in fact.model_dump()
