"""A plan's claim against what its mechanism costs, computed here through dp-accounting alone."""

from datetime import date
from typing import Any

import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant

from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.privacy import promises
from wardround.privacy.accounting import rounded_up
from wardround.privacy.promises import broken_promise, check_promises
from wardround.protocol.errors import UsageError
from wardround.protocol.plan import StudyPlan

DIST = ("privacy=dist", "rounds=3", "privacy.noise_multiplier=2.5")
PRIVATE = ("rounds=20", "privacy.noise_multiplier=2.84")


def plan_of(*overrides: str) -> StudyPlan:
    declared = "+data.declared={east:200,north:200,south:200}"
    given = compose_configuration(["study=heart_disease", "data.dataset=null", declared, *overrides])
    return make_plan(parse_configuration(given), dict.fromkeys(("east", "north", "south"), 200), date(2026, 11, 20))


def cost_of(noise: float, plan: StudyPlan) -> float:
    accountant = PLDAccountant()
    step = PoissonSampledDpEvent(plan.privacy.sampling_probability, GaussianDpEvent(noise))
    accountant.compose(SelfComposedDpEvent(step, plan.rounds * plan.local.steps))
    return float(accountant.get_epsilon(plan.privacy.delta))


@pytest.mark.parametrize("more", [-0.02, 0.02])
def test_a_claim_just_below_the_cost_is_broken_and_just_above_it_kept(more: float) -> None:
    cost = cost_of(2.84, plan_of(*PRIVATE))
    plan = plan_of(*PRIVATE, f"privacy.epsilon={cost + more:.4f}")
    said = broken_promise(plan)
    if more > 0:
        assert said is None
        check_promises(plan)
        return
    assert said == (
        f"the plan says epsilon {plan.privacy.epsilon:g} and costs {rounded_up(cost)}, both at delta 0.0001; "
        "unit: one patient of one site; adjacency: add or remove one patient; against everyone, whoever colludes"
    )
    with pytest.raises(UsageError, match="and its limit is") as refused:
        check_promises(plan)
    assert "what fits" in refused.value.hint


def test_the_second_claim_of_mode_dist_is_a_promise_too() -> None:
    plan = plan_of(*DIST)
    assert broken_promise(plan) is None
    cost = cost_of(2.5 * plan.honest_sites**0.5, plan)
    broken = plan_of(*DIST, f"privacy.epsilon_consortium={cost - 0.02:.4f}")
    said = broken_promise(broken)
    assert said is not None and f"costs {rounded_up(cost)}, both at delta" in said and "as colluding" in said
    assert said.startswith("the plan says epsilon_consortium ")
    with pytest.raises(UsageError, match="epsilon_consortium"):
        check_promises(broken)


def test_a_plan_without_differential_privacy_promises_nothing() -> None:
    plan = plan_of("privacy=none", "rounds=2")
    assert broken_promise(plan) is None
    check_promises(plan)


def test_a_plan_is_computed_once_however_often_a_desk_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    known = promises.epsilon
    monkeypatch.setattr(promises, "epsilon", lambda *given: asked.append(given) or known(*given))
    monkeypatch.setattr(promises, "_known", {})
    plans = [plan_of(*PRIVATE, f"privacy.epsilon={limit}") for limit in (3.0, 3.6)]
    assert [bool(broken_promise(plan)) for _ in range(5) for plan in plans] == [True, False] * 5
    assert len(asked) == 2
    again = StudyPlan.parse(plans[0].canonical)
    assert broken_promise(again) and len(asked) == 2, "another copy of the same plan"


def test_what_nobody_can_compute_is_no_kept_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> float:
        raise ArithmeticError("the accountant gave epsilon inf")

    monkeypatch.setattr(promises, "epsilon", fail)
    monkeypatch.setattr(promises, "_known", {})
    said = broken_promise(plan_of(*PRIVATE))
    assert said == "the plan says epsilon 3 and no accountant can compute what it costs"
