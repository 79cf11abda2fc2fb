"""What the ledger says of secure sums and of plans without differential privacy, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from wardround.client.store.verify import verify_file
from wardround.privacy.books import NotAllowed
from wardround.protocol.events import Unprotected
from wardround.protocol.ledger import OpenSum, Recover, Refuse, Reserve, SignSurvivors, Start, Waive

SESSION, LIST, OTHER, INPUTS = "5e" * 32, "11" * 32, "22" * 32, "33" * 32
SITES = ("east", "north", "south")
PLAN = "ab" * 32
FREE = Unprotected(releases=1)


def signing(**changes: Any) -> SignSurvivors:
    about = {"session": SESSION, "plan": "plan", "round_number": 1, "attempt": 1, "survivors": LIST}
    return SignSurvivors.model_validate(about | changes)


def opening(**changes: Any) -> OpenSum:
    about = signing().model_dump() | {"kind": "open_sum", "sites": SITES, "inputs": INPUTS}
    return OpenSum.model_validate(about | changes)


@pytest.fixture
def answered(hospital: Any) -> Any:
    """A hospital that has released its answer to round 1."""
    hospital.reserve("b1", number=1)
    hospital.start("b1")
    hospital.release("b1")
    return hospital


def test_a_list_is_signed_and_its_sum_opened_and_both_are_there_after_a_restart(answered: Any) -> None:
    answered.ledger.record(signing())
    answered.ledger.record(opening())
    sums = answered.restart().state.sums
    assert sums.listed == {(SESSION, 1, 1): LIST} and sums.opened == {INPUTS: SITES}
    assert verify_file(answered.folder.database).entries == answered.ledger.state.size


@pytest.mark.parametrize(
    ("fact", "reason"),
    [
        (signing(), "another list of survivors was signed"),
        (signing(survivors=OTHER), "another list of survivors was signed"),
        (signing(round_number=2), "round 2 was not answered"),
        (signing(plan="other"), "round 1 was not answered"),
        (opening(survivors=OTHER), "the list of survivors that was signed"),
        (opening(attempt=2), "the list of survivors that was signed"),
        (opening(session="6f" * 32), "the list of survivors that was signed"),
        (opening(sites=("north", "east", "south")), "distinct, sorted"),
        (opening(sites=("east", "south", "west")), "this site is one of them"),
        (opening(sites=("north", "north", "south")), "distinct, sorted"),
    ],
)
def test_what_may_not_be_signed_or_opened_is_not_written(answered: Any, fact: Any, reason: str) -> None:
    answered.ledger.record(signing())
    size = answered.ledger.state.size
    with pytest.raises(NotAllowed, match=reason):
        answered.ledger.record(fact)
    assert answered.ledger.state.size == size
    answered.ledger.record(opening())
    with pytest.raises(NotAllowed, match="the sum of this attempt was opened already"):
        answered.ledger.record(opening())


def test_over_the_same_inputs_no_second_sum_is_opened_in_any_session(answered: Any) -> None:
    """The hole that differencing needs; the first sum may be opened again, in a new session, over the same sites."""
    answered.ledger.record(signing())
    answered.ledger.record(opening())
    answered.ledger.record(signing(session="6f" * 32))
    with pytest.raises(NotAllowed, match="another sum over the same inputs"):
        answered.ledger.record(opening(session="6f" * 32, sites=("east", "north", "south", "west")))
    answered.ledger.record(opening(session="6f" * 32))
    answered.ledger.record(signing(session="7f" * 32))
    answered.ledger.record(opening(session="7f" * 32, sites=("north", "south", "west"), inputs="44" * 32))


def test_after_a_recovery_a_round_that_was_answered_before_is_over(answered: Any) -> None:
    """Its sum may have been opened in the entries that are lost, over who knows which sites."""
    charges = answered.ledger.state.missing_charges(20)
    fact = Recover(seen_size=20, seen_root="99" * 32, charges=charges, reason="a restored disk")
    answered.ledger.record(answered.approved(fact, answered.anna, answered.ben))
    with pytest.raises(NotAllowed, match="before a recovery, and may have been opened"):
        answered.ledger.record(signing())


def waive(hospital: Any, *officers: Any, plan: str = PLAN, reason: str = "no noise fits 30 patients") -> None:
    hospital.ledger.record(hospital.approved(Waive(domain="training", plan=plan, reason=reason), *officers))


def test_two_officers_and_a_reason_let_a_plan_run_without_differential_privacy(hospital: Any) -> None:
    waive(hospital, hospital.anna, hospital.ben)
    hospital.grant(PLAN, event=FREE, blocks=1)
    fact = Reserve(domain="training", block="m1", plan=PLAN, round_number=1, event=FREE)
    assert hospital.ledger.reserve(fact) is None
    hospital.ledger.record(Start(block="m1"))
    hospital.reserve("b1", number=1)
    (spent,) = verify_file(hospital.folder.database).domains
    # The rounds with noise keep their epsilon, and it is said that it does not cover the other one.
    assert (spent.blocks, spent.without_privacy) == (2, 1)
    assert spent.epsilon is not None and 0 < spent.epsilon < 8


def test_one_officer_or_the_same_twice_are_not_two(hospital: Any) -> None:
    for officers in ((hospital.anna,), (hospital.anna, hospital.anna)):
        with pytest.raises(NotAllowed, match="signatures of 2 officers"):
            waive(hospital, *officers)


def test_a_waiver_is_for_one_plan_on_one_domain_and_written_once(hospital: Any) -> None:
    waive(hospital, hospital.anna, hospital.ben)
    with pytest.raises(NotAllowed, match="waived on this data domain already"):
        waive(hospital, hospital.anna, hospital.ben)
    with pytest.raises(NotAllowed, match="a waiver of two officers first"):
        hospital.grant("cd" * 32, event=FREE)
    with pytest.raises(ValidationError, match="at least 10 characters"):
        Waive(domain="training", plan=PLAN, reason="because")
    with pytest.raises(NotAllowed, match="no data domain"):
        fact = Waive(domain="elsewhere", plan=PLAN, reason="no noise fits 30 patients")
        hospital.ledger.record(hospital.approved(fact, hospital.anna, hospital.ben))


def test_a_refusal_in_the_set_up_of_a_session_is_round_zero(hospital: Any) -> None:
    hospital.ledger.record(Refuse(plan=PLAN, round_number=0, reason="another roster"))
    assert verify_file(Path(hospital.folder.database)).entries == hospital.ledger.state.size
