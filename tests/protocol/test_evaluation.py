"""The evaluation phase of a plan: its schedule, its question, and the plan that follows from it and is charged."""

from datetime import date
from functools import cache
from typing import Any

import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from wardround.client.governance import CONSORTIUM_DOMAIN, grant_for
from wardround.client.population import usual_domains
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.privacy.promises import broken_promise, check_promises
from wardround.protocol.errors import UsageError
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.plan import StudyPlan
from wardround.protocol.secagg import honest
from wardround.strategies import strategy_for
from wardround.strategies.statistics import expected

DECLARED = {"east": 200, "north": 200, "south": 400, "west": 200}
TODAY = date(2026, 11, 29)
PHASE = ("evaluation.every=10", "evaluation.rounds=[12]", "evaluation.epsilon=1")


@cache
def planned(*words: str) -> StudyPlan:
    return make_plan(parse_configuration(compose_configuration(["rounds=30", *words])), DECLARED, TODAY)


def following(*words: str) -> StudyPlan:
    found = planned(*words).evaluation_plan
    assert found is not None
    return found


def smallest_noise(epsilon: float, delta: float, sums: int) -> float:
    """Of one Gaussian over all patients that is released ``sums`` times: Balle and Wang 2018, theorem 8."""

    def excess(sigma: float) -> float:
        reach = sums**0.5 / sigma
        return float(
            norm.cdf(reach / 2 - epsilon / reach) - 2.718281828459045**epsilon * norm.cdf(-reach / 2 - epsilon / reach)
        )

    return float(brentq(lambda sigma: excess(sigma) - delta, 0.1, 500))


def test_a_plan_without_an_evaluation_is_written_as_before_there_was_one() -> None:
    plan = planned()
    assert plan.evaluation_plan is None and b"evaluation" not in plan.canonical
    assert StudyPlan.parse(plan.canonical).digest == plan.digest


def test_the_schedule_is_a_part_of_the_plan_and_of_the_plan_that_follows() -> None:
    plan = planned(*PHASE)
    assert plan.evaluation is not None and plan.evaluation.rounds == (10, 12, 20, 30)
    assert StudyPlan.parse(plan.canonical) == plan
    beside = following(*PHASE)
    assert beside.follows is not None and (beside.follows.plan, beside.follows.rounds) == (
        plan.digest,
        (10, 12, 20, 30),
    )
    assert (beside.rounds, beside.charges) == (4, 4)
    assert StudyPlan.parse(beside.canonical) == beside and strategy_for(beside).name == "statistics"
    assert beside.handed_out == plan.layout != beside.layout
    assert beside.digest == following(*PHASE).digest, "everybody derives the same plan"
    assert beside.digest != following(*PHASE, "local.learning_rate=0.1").digest, "another training, another evaluation"


@pytest.mark.parametrize("sums", [1, 3])
def test_the_noise_is_the_least_that_keeps_the_epsilon_of_the_whole_schedule(sums: int) -> None:
    beside = following("evaluation.epsilon=1", f"evaluation.rounds={list(range(1, sums + 1))}")
    event, delta = beside.round_event("north"), beside.privacy.delta
    assert isinstance(event, PoissonGaussian) and delta is not None
    exact = smallest_noise(1.0, delta, sums)
    assert exact <= event.noise_multiplier <= exact + 0.03
    assert (event.sampling_probability, event.steps) == (1.0, 1), "every test patient is in every sum"


def test_in_mode_dist_a_site_adds_a_share_and_the_shares_together_keep_the_consortium_epsilon() -> None:
    beside = following(
        "privacy=dist", "local.steps=1", *PHASE[:2], "evaluation.epsilon=30", "evaluation.epsilon_consortium=1"
    )
    own, together = beside.round_event("north"), beside.consortium_event("north")
    assert isinstance(own, PoissonGaussian) and isinstance(together, PoissonGaussian)
    delta = beside.privacy.delta
    assert delta is not None
    exact = smallest_noise(1.0, delta, 4)
    assert exact <= together.noise_multiplier <= exact + 0.05
    assert own.noise_multiplier == pytest.approx(together.noise_multiplier / honest(4) ** 0.5)


def test_test_patients_are_charged_and_training_patients_are_not() -> None:
    plan, beside = planned(*PHASE), following(*PHASE)
    assert (usual_domains(plan.task), usual_domains(beside.task)) == (("training",), ("test",))
    grant = grant_for(beside, "north", "test")
    assert (grant.plan, grant.blocks, grant.event) == (beside.digest, 4, beside.round_event("north"))
    assert grant_for(plan, "north").event == planned().round_event("north"), "training costs what it did"
    assert grant_for(beside, "north", CONSORTIUM_DOMAIN).plan == beside.digest


def test_a_phase_that_costs_more_than_it_says_is_found_by_whoever_was_sent_it() -> None:
    honest_one = following(*PHASE)
    check_promises(honest_one)
    assert broken_promise(honest_one) is None
    noise = honest_one.privacy.noise_multiplier
    assert noise is not None
    false = following(*PHASE, f"evaluation.noise_multiplier={noise / 2}")
    assert "the plan says epsilon 1 and costs" in (broken_promise(false) or "")
    with pytest.raises(UsageError):
        check_promises(false)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluation.rounds=[31]", "evaluation.epsilon=1"], "after round 31, and the study has 30"),
        (["rounds=31", "evaluation.every=1", "evaluation.epsilon=1"], "31 evaluations share one budget"),
        (["evaluation.rounds=[30]"], "the evaluation has no budget"),
        (
            ["privacy=none", "evaluation.rounds=[30]", "evaluation.epsilon=1"],
            "has no noise, sampling, delta or epsilon",
        ),
        (
            ["privacy=dist", "local.steps=1", "evaluation.rounds=[30]", "evaluation.epsilon=1"],
            "epsilon_consortium belongs to privacy mode 'dist'",
        ),
        (["evaluation.rounds=[30]", "evaluation.epsilon=1", "+evaluation.ask.by=[sexx]"], "no column of codes"),
        (["evaluation.rounds=[30]", "evaluation.epsilon=1", "+evaluation.ask.bins=1"], "greater than or equal to 2"),
        (
            ["evaluation.rounds=[30]", "evaluation.epsilon=1", "+evaluation.ask.kind=count"],
            "is not evaluated by 'count'",
        ),
        (["evaluation.rounds=[30]", "evaluation.epsilon=1", "+evaluation.ask.kind=prediction_error"], "largest_error"),
        (
            ["task=mlp", "strategy=fedper", "evaluation.rounds=[30]", "evaluation.epsilon=1"],
            "keeps layers at each site",
        ),
        (["evaluation.every=31", "evaluation.epsilon=1"], "every 31 rounds, and the study has 30"),
    ],
)
def test_a_phase_that_cannot_be_is_refused_in_two_lines(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        planned(*words)
    assert error.value.hint


def test_a_phase_looks_at_the_plans_own_model_and_at_no_other() -> None:
    plan = planned(*PHASE)
    for change in ({"hidden": [4]}, {"name": "tabular_regression", "hidden": [], "center": 0.0, "scale": 1.0}):
        body: dict[str, Any] = plan.model_dump(mode="json")
        body["evaluation"]["queries"][0]["model"]["task"] |= change
        with pytest.raises(ValueError, match=r"another model|one yes or no|Extra inputs|valid"):
            StudyPlan.model_validate(body)
    body = plan.model_dump(mode="json")
    body["evaluation"]["queries"][0]["model"]["layout"] = "0" * 64
    with pytest.raises(ValueError, match="another model than the plan's own"):
        StudyPlan.model_validate(body)


def test_what_follows_a_training_asks_about_its_model_only_and_a_released_model_follows_none() -> None:
    body = following(*PHASE).model_dump(mode="json")
    for change in (
        {"follows": None},
        {"rounds": 3},
        {"patients": "everyone"},
        {"queries": [*body["task"]["queries"], {"name": "n", "kind": "count"}]},
    ):
        with pytest.raises(ValueError, match=r"follows|training|evaluated"):
            StudyPlan.model_validate(body | {"task": body["task"] | change})
    assert StudyPlan.model_validate(body).digest == following(*PHASE).digest


def test_the_intervals_to_expect_are_those_of_one_round_of_the_schedule() -> None:
    one, four = (expected(following("evaluation.epsilon=1", f"evaluation.rounds={r}")) for r in ("[30]", "[1,2,3,30]"))
    assert [cell.quantity for cell in one] == [cell.quantity for cell in four]
    width = [next(c for c in cells if c.quantity == "Brier score") for cells in (one, four)]
    reach = [(cell.high or 0) - (cell.low or 0) for cell in width]
    assert 1.5 < reach[1] / reach[0] < 2.1, "four releases of one budget have twice the noise"
