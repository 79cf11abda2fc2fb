"""A plan that counts: what it may ask, and that nothing in it can come from data or cost more than it says."""

from datetime import date
from typing import Any

import pytest
from pydantic import ValidationError

from wardround.conf.planning import make_plan
from wardround.conf.statistics import parse_statistics
from wardround.privacy.accounting import epsilon
from wardround.protocol.errors import UsageError
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.plan import StudyPlan
from wardround.protocol.statistics import Statistics
from wardround.protocol.untrained import LARGEST
from wardround.server.sums import BLOCK
from wardround.strategies.statistics import STATISTICS, expected

COUNT: dict[str, Any] = {"name": "n", "kind": "count"}
AGE = {"column": "age", "lower": 20, "upper": 90}
DECLARED = {"east": 200, "north": 200, "south": 400}


def given(*queries: Any, **more: Any) -> dict[str, Any]:
    privacy = {"mode": "local", "epsilon": 1.0} | more.pop("privacy", {})
    asked = {"queries": list(queries) or [COUNT]} | more.pop("statistics", {})
    return {"like": "heart_disease", "privacy": privacy, "statistics": asked} | more


def planned(*queries: Any, **more: Any) -> StudyPlan:
    return make_plan(parse_statistics(given(*queries, **more)), DECLARED, date(2026, 11, 29))


def test_a_plan_has_one_name_and_comes_back_from_its_bytes() -> None:
    plan = planned(
        {**COUNT, "by": ["sex", {"column": "age", "cuts": [40, 60]}]}, {"name": "m", "kind": "mean", "of": AGE}
    )
    assert StudyPlan.parse(plan.canonical) == plan
    assert (plan.rounds, plan.layout.size) == (1, 1 + 6 + 3)
    assert plan.task.name == "statistics" and plan.strategy.name == "statistics"


def test_the_cost_is_that_of_one_gaussian_over_all_patients() -> None:
    plan = planned()
    event = plan.round_event("north")
    assert isinstance(event, PoissonGaussian)
    assert (event.sampling_probability, event.steps) == (1.0, 1)
    assert 0.95 < epsilon([event], 1e-4) <= 1.0
    # Balle and Wang 2018, theorem 8, of the analytic Gaussian mechanism.
    from scipy.optimize import brentq
    from scipy.stats import norm

    def delta(sigma: float) -> float:
        return float(norm.cdf(0.5 / sigma - sigma) - 2.718281828459045 * norm.cdf(-0.5 / sigma - sigma))

    exact = brentq(lambda sigma: delta(sigma) - 1e-4, 0.5, 50)
    assert exact <= event.noise_multiplier <= exact + 0.02


def test_more_queries_cost_nothing_more_and_each_is_less_exact() -> None:
    one, four = planned(), planned(*({**COUNT, "name": f"n{number}"} for number in range(4)))
    assert one.privacy.noise_multiplier == four.privacy.noise_multiplier
    narrow, wide = expected(one)[0], expected(four)[0]
    assert (wide.high or 0) - (wide.low or 0) == pytest.approx(2 * ((narrow.high or 0) - (narrow.low or 0)))


def test_the_error_that_is_expected_is_that_of_the_noise_of_every_site() -> None:
    plan = planned(COUNT)
    (cell,) = expected(plan)
    assert cell.value == pytest.approx(800)
    assert cell.high is not None and cell.value is not None
    noise = plan.privacy.noise_multiplier
    assert noise is not None and cell.high - cell.value == pytest.approx(1.959964 * noise * 3**0.5, rel=1e-4)


FREE = "groups by 'sex' are the contract's codes"
MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "a code that data might hold": ({**COUNT, "by": [{"column": "sex", "codes": ["0", "1", "2"]}]}, FREE),
    "some codes only": ({**COUNT, "by": [{"column": "sex", "codes": ["1"]}]}, FREE),
    "a column that is not in the contract": (
        {**COUNT, "by": [{"column": "postcode", "codes": ["1010"]}]},
        "groups by 'postcode' are the contract's codes",
    ),
    "cuts of codes": ({**COUNT, "by": [{"column": "sex", "cuts": [1]}]}, "'sex' is no column of numbers"),
    "the mean of codes": (
        {"name": "n", "kind": "mean", "of": {"column": "sex", "lower": 0, "upper": 1}},
        "'sex' is no column of numbers",
    ),
    "a filter on a free column": ({**COUNT, "where": [{"column": "ward", "codes": ["1"]}]}, "a filter on 'ward'"),
    "a filter on an unknown code": ({**COUNT, "where": [{"column": "sex", "codes": ["9"]}]}, "a filter on 'sex'"),
    "a range of codes": ({**COUNT, "where": [{"column": "sex", "below": 1}]}, "'sex' is no column of numbers"),
    "a filter that is none": ({**COUNT, "where": [{"column": "age"}]}, "give codes, or at_least and below"),
    "falling cuts": ({**COUNT, "by": [{"column": "age", "cuts": [60, 40]}]}, "cuts must rise"),
    "no range": (
        {"name": "n", "kind": "mean", "of": {"column": "age", "lower": 5, "upper": 5}},
        "lower must lie below",
    ),
    "survival without times": (
        {"name": "n", "kind": "survival", "time": "age", "event": "sex", "times": [2, 1]},
        "cuts must rise",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_query_that_reads_what_the_contract_does_not_declare_is_no_plan(mistake: str) -> None:
    query, message = MISTAKES[mistake]
    with pytest.raises(UsageError) as refused:
        planned(query)
    assert message in refused.value.message


def test_a_column_without_declared_codes_has_no_groups_and_the_hint_says_what_has() -> None:
    with pytest.raises(UsageError, match="'age' is no column of codes") as refused:
        planned({**COUNT, "by": "age"})
    assert refused.value.hint
    assert planned({**COUNT, "by": "num"}).layout.size == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": 2}, "again, charged again"),
        ({"local": {"steps": 1, "learning_rate": 0.5}}, "one step of rate 1"),
        ({"strategy": {"name": "fedavg"}}, "strategy 'statistics'"),
    ],
)
def test_what_a_statistics_study_has_no_choice_in_cannot_be_changed(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        StudyPlan.model_validate(planned().model_dump() | change)


@pytest.mark.parametrize(
    ("field", "value"), [("clip_norm", 2.0), ("sampling_probability", 0.5), ("update_range", 1e-6)]
)
def test_the_mechanism_is_one_sum_over_all_patients_of_sensitivity_one(field: str, value: float) -> None:
    plan = planned().model_dump()
    with pytest.raises(ValidationError, match=r"clip_norm 1, sampling_probability 1|leaves the sums no room"):
        StudyPlan.model_validate(plan | {"privacy": plan["privacy"] | {field: value}})


def test_two_queries_of_one_name_and_a_plan_of_too_many_numbers_are_refused() -> None:
    for queries, message in (
        ([COUNT, COUNT], "distinct names"),
        ([{**COUNT, "name": "sites"}], "none is called 'sites'"),
        ([{**COUNT, "by": [{"column": "age", "cuts": list(range(4096))}] * 2}], "groups, and"),
    ):
        with pytest.raises(ValidationError, match=message):
            Statistics.model_validate({"queries": queries})
    tall = {"name": "h", "kind": "histogram", "column": "age", "cuts": list(range(65_000))}
    with pytest.raises(ValidationError, match="more than"):
        Statistics.model_validate({"queries": [{**tall, "name": f"h{number}"} for number in range(17)]})


NEWTON: dict[str, Any] = {"name": "l", "kind": "logistic_regression", "outcome": "num", "of": [AGE], "flags": ["sex"]}


def test_a_logistic_regression_has_rounds_whose_sums_are_all_in_the_result_and_all_are_paid_for() -> None:
    plan = planned(NEWTON)
    width = 1 + 3 + 6 + 1
    assert (plan.rounds, plan.layout.size, plan.task.numbers) == (6, 6 * (1 + width), width)
    assert StudyPlan.parse(plan.canonical) == plan
    event = plan.round_event("north")
    assert isinstance(event, PoissonGaussian)
    assert 0.95 < epsilon([event] * 6, 1e-4) <= 1.0
    assert planned(NEWTON, statistics={"rounds": 3}).rounds == 3
    # Six rounds of one Gaussian are one of a sixth of the variance.
    once = planned().privacy.noise_multiplier
    assert once is not None and event.noise_multiplier == pytest.approx(6**0.5 * once, rel=0.02)


def test_a_plan_of_one_round_is_written_as_before_there_were_several() -> None:
    plan = planned()
    assert b"rounds" not in plan.canonical.replace(b'"rounds":1,', b"", 1)
    assert plan.strategy.parameters == {}


def test_what_is_asked_once_does_not_share_a_file_with_what_is_asked_in_rounds() -> None:
    with pytest.raises(UsageError, match="a 'count' in the same file would be paid for in each") as refused:
        planned(NEWTON, COUNT)
    assert refused.value.hint == "give what is asked once a file of its own"
    with pytest.raises(ValidationError, match="query 'n' would be asked again in every round"):
        Statistics.model_validate({"queries": [NEWTON, COUNT], "rounds": 4})


@pytest.mark.parametrize(
    ("queries", "rounds", "message"),
    [
        ([COUNT], 2, "again, charged again"),
        ([NEWTON], 1, "needs 2 rounds"),
        ([NEWTON], 31, "less than or equal to 30"),
        ([{**NEWTON, "of": [], "flags": []}], 6, "no predictor"),
        ([{**NEWTON, "flags": ["num"]}], 6, "named twice"),
    ],
)
def test_rounds_and_predictors_that_make_no_sense_are_no_plan(queries: Any, rounds: int, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Statistics.model_validate({"queries": queries, "rounds": rounds})


@pytest.mark.parametrize("change", [{"flags": ["cp"]}, {"outcome": "chol"}, {"flags": ["ward"]}])
def test_an_outcome_or_flag_that_is_not_0_and_1_in_the_contract_is_no_plan(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="is no column of 0 and 1 in the contract"):
        planned({**NEWTON, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"rounds": 5},
        {"strategy": {"name": "statistics"}},
        {"strategy": {"name": "statistics", "parameters": {"rounds": 5}}},
    ],
)
def test_task_strategy_and_plan_name_the_same_rounds(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="name the plan's rounds"):
        StudyPlan.model_validate(planned(NEWTON).model_dump() | change)


def test_a_coordinator_steps_the_whole_vector_at_once() -> None:
    assert LARGEST <= BLOCK


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "a key": ({"statistic": {}}, "no setting 'statistic'", "did you mean 'statistics'?"),
    "a key of privacy": ({"privacy": {"epsilonn": 1}}, "no 'epsilonn'", "did you mean 'epsilon'?"),
    "a key of statistics": ({"statistics": {"smallest": 5}}, "no setting 'smallest'", "did you mean 'smallest_cell'?"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_typo_is_answered_with_the_key_that_was_meant(wrong: str) -> None:
    more, message, hint = WRONG[wrong]
    with pytest.raises(UsageError, match=message) as refused:
        parse_statistics(given(**more))
    assert refused.value.hint == hint


def test_a_file_without_a_study_says_what_it_lacks() -> None:
    with pytest.raises(UsageError, match="the file has no 'study'"):
        parse_statistics({"privacy": {"mode": "none"}, "statistics": {"queries": [COUNT]}})


def test_every_kind_that_a_plan_may_ask_has_a_statistic() -> None:
    from typing import get_args

    from wardround.protocol.queries import Query

    union = get_args(get_args(Query)[0])
    assert [kind.model_fields["kind"].default for kind in union] == list(STATISTICS)
