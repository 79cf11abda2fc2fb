"""A round: quorum, deadline, who dropped and why. The clock is an argument, so nothing here waits."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from wardround.protocol.errors import UsageError
from wardround.protocol.messages import LocalRule, Refusal, RefusalCode, Reply, RoundRequest
from wardround.protocol.parameters import model_hash
from wardround.server.rounds import TRANSITIONS, Event, Outcome, Round, RoundState
from wardround.server.sums import OpenSum

MODEL = np.zeros(2, np.float32)
REQUEST = RoundRequest("plan", 3, 1, MODEL, model_hash(MODEL), LocalRule(0.1))
SIZES = {"update": 2, "weight": 1}


def opened(min_sites: int = 2) -> Round:
    return Round(REQUEST, ("a", "b", "c"), OpenSum(SIZES), min_sites, deadline=100.0)


def reply(site: str, *values: float) -> Reply:
    return Reply(site, "plan", 3, 1, REQUEST.model_hash, np.array(values or (1.0, 2.0, 10.0)))


def test_a_round_closes_as_soon_as_everybody_has_answered() -> None:
    here = opened()
    for site in "abc":
        assert here.settle(1.0) is RoundState.OPEN
        here.receive(reply(site), 1.0)
    assert here.settle(1.0) is RoundState.CLOSED
    total = here.total()
    assert (
        total.sites == 3 and total.parts["update"].tolist() == [3.0, 6.0] and total.parts["weight"].tolist() == [30.0]
    )


def test_at_the_deadline_a_quorum_is_enough_and_the_missing_site_is_named() -> None:
    here = opened()
    here.receive(reply("a"), 1.0)
    here.receive(reply("c"), 99.0)
    assert here.settle(99.9) is RoundState.OPEN
    assert here.settle(100.0) is RoundState.CLOSED
    assert here.contributors == ("a", "c")
    assert here.reports["b"].outcome is Outcome.LOST and "deadline" in here.reports["b"].detail


def test_below_the_quorum_the_round_is_void_and_has_no_total() -> None:
    here = opened(min_sites=3)
    here.receive(reply("a"), 1.0)
    here.receive(reply("b"), 1.0)
    assert here.settle(100.0) is RoundState.VOID
    with pytest.raises(UsageError, match="void"):
        here.total()
    assert here.contributors == ()


def test_a_refusal_counts_as_an_answer_and_carries_its_code() -> None:
    here = opened()
    here.receive(reply("a"), 1.0)
    here.receive(reply("b"), 1.0)
    here.receive(Refusal("c", "plan", 3, 1, RefusalCode.POLICY), 1.0)
    assert here.settle(1.0) is RoundState.CLOSED
    assert (here.reports["c"].outcome, here.reports["c"].detail) == (Outcome.REFUSED, "policy")


@pytest.mark.parametrize(
    "broken",
    [
        replace(reply("b"), vector=np.ones(2)),
        replace(reply("b"), vector=np.array([1.0, np.nan, 1.0])),
        replace(reply("b"), vector=np.array([1.0, np.inf, 1.0])),
        replace(reply("b"), vector=np.ones(3, np.float32)),
        replace(reply("b"), model_hash="0" * 64),
        replace(reply("b"), round_number=2),
        replace(reply("b"), attempt=2),
        replace(reply("b"), plan="another"),
    ],
)
def test_a_reply_that_breaks_a_rule_drops_its_site_by_name(broken: Reply) -> None:
    here = opened()
    here.receive(broken, 1.0)
    here.receive(reply("a"), 1.0)
    here.receive(reply("c"), 1.0)
    assert here.settle(1.0) is RoundState.CLOSED
    assert here.reports["b"].outcome is Outcome.VIOLATED and here.contributors == ("a", "c")


def test_the_first_answer_counts_and_a_second_changes_nothing() -> None:
    here = opened()
    here.receive(reply("a", 1.0, 1.0, 1.0), 1.0)
    here.receive(reply("a", 9.0, 9.0, 9.0), 2.0)
    here.receive(replace(reply("a"), vector=np.ones(1)), 2.0)
    here.receive(reply("b", 1.0, 1.0, 1.0), 2.0)
    here.lost("c", 2.0)
    here.settle(3.0)
    assert here.total().parts["update"].tolist() == [2.0, 2.0]


def test_a_late_answer_is_noted_and_cannot_enter_the_sum() -> None:
    here = opened()
    here.receive(reply("a"), 1.0)
    here.receive(reply("b"), 1.0)
    here.settle(100.0)
    before = here.total().parts["update"].tolist()
    here.receive(reply("c"), 101.0)
    assert here.reports["c"].outcome is Outcome.LATE and here.total().parts["update"].tolist() == before


def test_an_answer_past_the_deadline_is_late_even_if_nobody_settled() -> None:
    here = opened()
    here.receive(reply("a"), 100.5)
    assert here.reports["a"].outcome is Outcome.LATE


def test_a_stranger_changes_nothing_and_is_noted() -> None:
    here = opened()
    here.receive(reply("mallory"), 1.0)
    assert here.strangers == ["mallory"] and "mallory" not in here.reports


def test_who_answered_first_changes_no_bit() -> None:
    generator = np.random.Generator(np.random.PCG64(5))
    replies = [
        reply(site, *(generator.normal(size=3) * 10.0**power)) for site, power in zip("abc", (8, 0, -8), strict=True)
    ]
    sums = set()
    for order in permutations(replies):
        here = opened()
        for item in order:
            here.receive(item, 1.0)
        here.settle(1.0)
        sums.add(here.total().parts["update"].tobytes())
    assert len(sums) == 1


def test_no_transition_leads_into_the_sum_after_the_end() -> None:
    assert all(
        after is not Outcome.REPLIED for (state, _, _), after in TRANSITIONS.items() if state is not RoundState.OPEN
    )
    assert all(before is Outcome.WAITING for (state, before, _) in TRANSITIONS if state is RoundState.OPEN)
    assert {event for (state, _, event) in TRANSITIONS if state is RoundState.OPEN} == set(Event)


def test_participants_must_be_sorted_and_distinct() -> None:
    with pytest.raises(UsageError, match="sorted"):
        Round(REQUEST, ("b", "a"), OpenSum(SIZES), 1, 100.0)
