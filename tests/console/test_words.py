"""Plans and numbers in words: what is approved is said in full, and an epsilon never stands alone."""

from collections.abc import Callable

import pytest

from wardround.console.reports.findings import Verdict, verdict
from wardround.console.reports.numbers import decimal, delta_short, delta_text, signed
from wardround.console.reports.words import column_facts, label_words, plan_facts, privacy_words, reading_words
from wardround.privacy.accounting import rounded_up
from wardround.protocol.plan import StudyPlan
from wardround.simulations.result import EstimateResult


def all_words(plan: StudyPlan) -> str:
    return "\n".join(fact.text for _, facts in plan_facts(plan) for fact in facts)


@pytest.mark.parametrize(
    ("epsilon", "text"), [(2.9871, "2.99"), (2.99, "2.99"), (2.9900001, "3.00"), (0.0, "0.00"), (0.001, "0.01")]
)
def test_an_epsilon_is_rounded_up_and_never_down(epsilon: float, text: str) -> None:
    assert rounded_up(epsilon) == text
    assert float(text) >= epsilon


def test_a_delta_is_written_in_full_on_a_page_and_short_in_a_line() -> None:
    assert [delta_text(d) for d in (1e-4, 1e-6, 2.5e-5)] == ["0.0001", "0.000001", "0.000025"]
    assert [delta_short(d) for d in (1e-4, 1e-6, 2.5e-5)] == ["1e-4", "1e-6", "2.5e-5"]


def test_numbers_have_a_real_minus_sign_and_no_negative_zero() -> None:
    assert decimal(-0.25) == "\N{MINUS SIGN}0.250"
    assert decimal(-0.0001) == "0.000"
    assert [signed(v) for v in (0.1, -0.1, 0.0)] == ["+0.100", "\N{MINUS SIGN}0.100", "0.000"]


@pytest.mark.parametrize(
    ("metric", "low", "high", "said"),
    [
        ("auroc", 0.001, 0.2, Verdict.BETTER),
        ("auroc", -0.2, -0.001, Verdict.WORSE),
        ("auroc", 0.0, 0.353, Verdict.UNCLEAR),
        ("auroc", -0.1, 0.0, Verdict.UNCLEAR),
        ("log_loss", 0.001, 0.2, Verdict.WORSE),
        ("log_loss", -0.2, -0.001, Verdict.BETTER),
        ("dice_of_a_program", 0.001, 0.2, Verdict.HIGHER),
    ],
)
def test_better_is_said_only_where_the_interval_leaves_out_zero(
    metric: str, low: float, high: float, said: Verdict
) -> None:
    assert verdict(metric, EstimateResult(value=(low + high) / 2, low=low, high=high)) is said


def test_without_an_interval_nothing_is_compared() -> None:
    assert verdict("auroc", None) is Verdict.NONE
    assert verdict("auroc", EstimateResult(value=0.3, reason="too few patients")) is Verdict.NONE


def test_everything_that_an_ethics_board_asks_is_said(plan: StudyPlan) -> None:
    said = all_words(plan)
    for text in (
        plan.governance.purpose,
        "Aarau Cantonal Hospital (joint)",
        "Bergen University Hospital (joint)",
        plan.governance.legal_basis,
        "EKNZ 2026-00417",
        plan.governance.permitted_use,
        "2 March 2026 to 2 March 2027",
        "delft (at most 200 training patients)",
        "Logistic regression",
        "FedAdam (learning_rate = 0.1)",
        "15 rounds; a round in which fewer than 3 hospitals answered within 600 seconds is void",
        "5 steps a round, each on a fresh random sample of its patients",
        plan.digest,
        plan.code_version,
    ):
        assert text in said


def test_the_privacy_terms_name_epsilon_delta_unit_adjacency_and_who_may_collude(plan: StudyPlan) -> None:
    said = privacy_words(plan)
    for text in (
        "ε = 3.00",
        "δ = 0.0001",
        "any one patient",
        "add or remove one",
        "against everyone",
        "whoever colludes",
    ):
        assert text in said


def test_a_plan_without_protection_says_so_and_gives_no_epsilon(planned: Callable[..., StudyPlan]) -> None:
    said = all_words(planned("none"))
    assert "no protection" in said and "simulation only" in said
    assert "ε =" not in said and "δ" not in said


def test_every_column_is_told_with_unit_range_and_what_happens_where_it_is_missing(plan: StudyPlan) -> None:
    assert plan.contract is not None
    age, chol, sex = column_facts(plan.contract)
    assert (age.unit, age.allowed, age.missing) == ("years", "18 to 110", "record left out and counted")
    assert age.becomes == "(value \N{MINUS SIGN} 54) / 10"
    assert chol.allowed == "60 to 700, also 0"
    assert chol.missing == (
        "\N{MINUS SIGN}9 means missing; becomes 200, a public constant, marked by an extra yes/no input"
    )
    assert (sex.unit, sex.allowed) == ("none", "0 = female; 1 = male")
    assert (
        label_words(plan.contract) == "A narrowed coronary artery: yes where column 'num' is 1 or 2, no where it is 0"
    )
    assert "an empty cell or 'NA'" in reading_words(plan.contract)


def test_a_survival_plan_names_time_event_and_grid(planned: Callable[..., StudyPlan]) -> None:
    said = all_words(planned(survival=True))
    assert "Death of any cause: time in column 'days' (days, at most 8000), observed event in column 'died'" in said
    assert "grid cut at 365 and 1095" in said
