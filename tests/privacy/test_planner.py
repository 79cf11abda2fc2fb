"""Asking before spending: the planner against direct accounting, and epsilon's meaning against published bounds."""

import json
from datetime import date
from pathlib import Path

import pytest

from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.privacy.accounting import epsilon
from wardround.privacy.budget import allowance, cost, delta_for, fixed_order
from wardround.privacy.meaning import (
    any_true_accusations,
    gaussian_delta,
    gaussian_mu,
    officers_words,
    true_accusations,
)
from wardround.privacy.planner import (
    is_small,
    noise_for,
    rounds_that_fit,
    rounds_within_epsilon,
    site_costs,
    small_batches,
)
from wardround.protocol.errors import UsageError
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.plan import Participant, StudyPlan

DECLARED = {"a": 200, "b": 50, "c": 4000}
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "dp_epsilon.json").read_text())


def plan(*overrides: str) -> StudyPlan:
    return make_plan(parse_configuration(compose_configuration(overrides)), DECLARED, date(2026, 11, 23))


PLAN = plan("privacy.delta=auto")
EVENT = PLAN.round_event("a")


def test_a_sites_cost_is_what_the_ledger_would_charge_and_the_accountant_say() -> None:
    assert isinstance(EVENT, PoissonGaussian) and PLAN.privacy.delta is not None
    for found in site_costs(PLAN, 8.0, attempts=2):
        delta = delta_for(DECLARED[found.site])
        order = fixed_order(8.0, delta)
        assert found.needed_units == 30 * cost(EVENT, order)
        assert found.share == pytest.approx(found.needed_units / allowance(8.0, delta, order))
        assert found.epsilon == epsilon([EVENT] * 15, PLAN.privacy.delta)
        assert found.epsilon_at_most == epsilon([EVENT] * 30, PLAN.privacy.delta) > found.epsilon
        assert found.expected_batch == 0.25 * DECLARED[found.site]
        assert found.noise_on_mean == pytest.approx(2.84 / (0.25 * DECLARED[found.site]))


def test_what_was_spent_leaves_less_and_never_more() -> None:
    fresh, used = (site_costs(PLAN, 8.0, spent=spent)[0] for spent in ({}, {"a": 4 * 10**12}))
    assert used.left_units == fresh.left_units - 4 * 10**12
    assert used.more_studies < fresh.more_studies and used.rounds_in_domain < fresh.rounds_in_domain


@pytest.mark.parametrize("attempts", [1, 3])
def test_the_rounds_that_fit_fit_and_one_more_does_not(attempts: int) -> None:
    assert isinstance(EVENT, PoissonGaussian)
    order = fixed_order(8.0, 1e-4)
    room = allowance(8.0, 1e-4, order)
    rounds = rounds_that_fit(EVENT, room, order, attempts)
    assert rounds * attempts * cost(EVENT, order) <= room < (rounds + 1) * attempts * cost(EVENT, order)


def test_the_rounds_within_an_epsilon_keep_it_and_one_more_breaks_it() -> None:
    assert isinstance(EVENT, PoissonGaussian)
    rounds = rounds_within_epsilon(EVENT, 2.0, 1e-4)
    assert epsilon([EVENT] * rounds, 1e-4) <= 2.0 < epsilon([EVENT] * (rounds + 1), 1e-4)


def test_the_noise_for_a_target_is_enough_and_a_hundredth_less_is_not() -> None:
    (sigma,) = noise_for(PLAN, [3.0]).values()
    assert sigma is not None and PLAN.privacy.delta is not None

    def spent(noise: float) -> float:
        event = PoissonGaussian(noise_multiplier=noise, sampling_probability=0.25, steps=75, declared_patients=200)
        return epsilon([event], PLAN.privacy.delta or 0.0)

    assert spent(sigma) <= 3.0 < spent(sigma - 0.01)


@pytest.mark.parametrize(
    ("q", "limit", "patients", "small"),
    [
        (0.25, 3.0, 200, True),  # 50 in a step
        (0.25, 3.0, 300, False),  # 75 in a step, 300 in all
        (0.5, 3.0, 150, True),  # 75 in a step, but 150 in all
        (0.5, 8.0, 150, False),  # the same where epsilon is plenty
        (0.5, 8.0, 100, True),  # 50 in a step
        (0.32, 3.0, 200, False),  # 64 in a step and 200 in all are enough
    ],
)
def test_a_small_site_is_named_by_its_batch_or_by_its_patients(
    q: float, limit: float, patients: int, small: bool
) -> None:
    terms = PLAN.privacy.model_copy(update={"sampling_probability": q, "epsilon": limit})
    assert is_small(terms, patients) == small
    made = PLAN.model_copy(
        update={"privacy": terms, "participants": (Participant(site="a", declared_patients=patients),)}
    )
    assert [" at a (" in warning for warning in small_batches(made)] == ([True] if small else [])


def test_a_plan_without_protection_has_no_cost_to_plan() -> None:
    with pytest.raises(UsageError):
        site_costs(plan("privacy=none"), 8.0)


@pytest.mark.parametrize("vector", VECTORS["attack_bounds_gaussian_dp"], ids=lambda v: str(v["eps"]))
def test_the_meaning_of_epsilon_is_that_of_the_vectors(vector: dict[str, float]) -> None:
    mu = gaussian_mu(vector["eps"], vector["delta"])
    assert mu == pytest.approx(vector["mu_gdp"], abs=6e-5)
    assert gaussian_delta(vector["eps"], mu) == pytest.approx(vector["delta"], rel=1e-6)
    assert true_accusations(mu) == pytest.approx(vector["tpr_at_fpr_1pct"], abs=6e-5)
    assert true_accusations(mu, 0.001) == pytest.approx(vector["tpr_at_fpr_0_1pct"], abs=6e-5)
    assert any_true_accusations(vector["eps"], vector["delta"], 0.001) == pytest.approx(
        vector["naive_bound_tpr_at_0_1pct"], abs=6e-5
    )


@pytest.mark.parametrize(
    ("eps", "words"), [(0.5, "1.4"), (1, "2.0"), (3, "5.4"), (5, "11.4"), (8, "25.5"), (10, "37.2")]
)
def test_the_officers_words_give_accusations_in_a_hundred_and_every_term(eps: float, words: str) -> None:
    text = officers_words(eps, 1e-5)
    assert f"about {words} can be accused" in text
    for term in ("delta 1e-05", "one patient of one site", "add or remove one patient", "whoever colludes"):
        assert term in text
