"""Epsilon of mechanism events: the shared vectors, independent formulas, and the rules of the accountant.

The histories of the property tests are of few kinds of step, so that each kind's losses are computed once.
"""

import json
import logging
import math
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.privacy import accounting
from wardround.privacy.accounting import (
    calibrate_noise_multiplier,
    check_plan_cost,
    epsilon,
    epsilon_after_rounds,
)
from wardround.privacy.rdp import ORDERS, conversion, gaussian_rdp, rdp_epsilon
from wardround.protocol.errors import UsageError
from wardround.protocol.events import PoissonGaussian, Unprotected
from wardround.protocol.plan import (
    Controller,
    Governance,
    InitialModel,
    LocalTraining,
    Participant,
    PrivacyMode,
    PrivacyTerms,
    StrategySpec,
    StudyPlan,
)
from wardround.protocol.plugins import TensorSpec
from wardround.protocol.tasks import Programmed

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "dp_epsilon.json").read_text())


def gaussian(sigma: float, q: float, steps: int = 1, patients: int = 200) -> PoissonGaussian:
    return PoissonGaussian(noise_multiplier=sigma, sampling_probability=q, steps=steps, declared_patients=patients)


def history(vector: dict) -> list[PoissonGaussian]:
    return [gaussian(*row) for row in vector["history_sigma_q_steps"]]


@pytest.fixture
def fresh_cache():
    accounting._epsilon.cache_clear()
    yield
    accounting._epsilon.cache_clear()


# The shared vectors


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["id"])
def test_epsilon_of_a_shared_vector_is_the_smaller_of_its_two_bounds(vector):
    ours = epsilon(history(vector), vector["delta"])
    expected = min(vector["dpacc_pld_1e-4"], vector["dpacc_rdp"])
    if expected >= 0.2:
        assert ours == pytest.approx(expected, abs=1e-6)
    else:  # a finer grid than the vector's, so tighter
        assert expected - 0.005 < ours < expected - 1e-5


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["id"])
def test_the_adjacency_is_add_or_remove_one_never_replace_one(vector):
    assert epsilon(history(vector), vector["delta"]) < 0.95 * vector["dpacc_pld_replace_one_1e-4"]


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["id"])
def test_the_instant_renyi_bound_is_within_its_rule(vector):
    ours = rdp_epsilon(history(vector), vector["delta"])
    assert vector["dpacc_pld_1e-4"] <= ours
    # Integer orders to 256: no larger ones, which matter where epsilon is tiny, and no fractions.
    assert ours == pytest.approx(vector["dpacc_rdp"], rel=0.01, abs=0.01)


@pytest.mark.parametrize("vector", VECTORS["distributed_dp_vectors"], ids=lambda v: str(v["sigma_effective"]))
def test_epsilon_of_summed_noise_shares(vector):
    # sigma_effective is rounded to 4 digits in the file; recompute it from the number of honest sites.
    honest = vector["sites"] - vector["colluding_sites"]
    sigma = vector["sigma_share_per_site"] * math.sqrt(honest)
    assert epsilon([gaussian(sigma, vector["q"], vector["steps"])], vector["delta"]) == pytest.approx(
        vector["eps_pld"], abs=1e-4
    )


def test_one_record_per_patient_is_the_group_vector_of_one():
    vector = VECTORS["patient_group_vectors"][0]
    event = gaussian(vector["sigma"], vector["q_per_record"], vector["steps"])
    # The file's was made on a grid of 1e-3, ours on 1e-4: the same to the rule for another grid, and tighter.
    assert vector["eps_mixture_of_gaussians"] - 0.005 < epsilon([event], vector["delta"])
    assert epsilon([event], vector["delta"]) < vector["eps_mixture_of_gaussians"]


# Independent formulas


@pytest.mark.parametrize("kinds", [[(1.0, 1)], [(5.0, 50)], [(20.0, 3)], [(8.0, 2), (3.0, 1), (12.0, 30)]])
def test_full_batches_cost_what_the_exact_gaussian_formula_says(kinds):
    """Balle and Wang 2018, Theorem 8; Gaussians of several kinds are one, whose inverse variances add up."""
    delta, mu = 1e-5, math.sqrt(sum(steps / sigma**2 for sigma, steps in kinds))
    found = epsilon([gaussian(sigma, 1.0, steps) for sigma, steps in kinds], delta)

    def normal(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    def exact(value: float) -> float:
        return normal(mu / 2 - value / mu) - math.exp(value) * normal(-mu / 2 - value / mu)

    assert exact(found) <= delta * (1 + 1e-9)
    assert exact(found - 1e-5) > delta


@pytest.mark.parametrize(("sigma", "q"), [(1.0, 0.25), (2.0, 0.5), (0.7, 0.05)])
def test_one_sampled_step_costs_what_numerical_integration_says(sigma, q):
    delta = 1e-4
    found = epsilon([gaussian(sigma, q)], delta)
    x = np.linspace(-14 * sigma, 1 + 14 * sigma, 400_001)
    without = np.exp(-((x / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))
    with_patient = (1 - q) * without + q * np.exp(-(((x - 1) / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))

    def exact(value: float) -> float:
        gaps = (with_patient - math.exp(value) * without, without - math.exp(value) * with_patient)
        return max(float(np.maximum(gap, 0).sum()) * (x[1] - x[0]) for gap in gaps)

    assert exact(found) <= delta * (1 + 1e-6)
    assert exact(found - 1e-4) > delta


def test_events_of_several_kinds_add_up_as_the_librarys_own_accountant_adds_them():
    import dp_accounting
    from dp_accounting.pld import pld_privacy_accountant

    kinds = [(4.0, 0.02, 60), (6.0, 0.1, 50), (9.0, 0.25, 40), (20.0, 1.0, 9)]
    accountant = pld_privacy_accountant.PLDAccountant()
    for sigma, q, steps in reversed(kinds):
        step = dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(sigma))
        accountant.compose(step, steps)
    together = epsilon([gaussian(*kind) for kind in kinds], 1e-5)
    assert together == pytest.approx(accountant.get_epsilon(1e-5), abs=1e-6)
    for left_out in range(len(kinds)):
        assert epsilon([gaussian(*kind) for kind in kinds[:left_out] + kinds[left_out + 1 :]], 1e-5) < together


@pytest.mark.parametrize("q", [1e-4, 0.01, 0.25, 0.9, 1.0])
@pytest.mark.parametrize("sigma", [0.4, 1.0, 3.0, 50.0])
def test_renyi_divergence_equals_dp_accounting_at_integer_orders(sigma, q):
    import dp_accounting
    from dp_accounting.rdp import rdp_privacy_accountant

    orders = [2, 3, 8, 14, 22, 64, 256]
    accountant = rdp_privacy_accountant.RdpAccountant(orders)
    accountant.compose(dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(sigma)))
    ours = [gaussian_rdp(sigma, q, order) for order in orders]
    # The library adds a sum that is nearly 1, so it is good to 1e-13 absolute; ours to 1e-12 relative.
    np.testing.assert_allclose(ours, accountant.rdp, rtol=1e-10, atol=2e-12)


def test_renyi_divergence_keeps_its_digits_where_it_is_tiny():
    # The leading term: alpha q^2 (e^(1 / sigma^2) - 1) / 2.
    assert gaussian_rdp(100.0, 1e-6, 3) == pytest.approx(1.5e-12 * math.expm1(1e-4), rel=1e-5)


def test_renyi_divergence_of_absurd_noise_is_infinite_not_an_error():
    assert gaussian_rdp(1e-200, 0.5, 5) == math.inf
    assert gaussian_rdp(1e200, 0.5, 5) == 0.0


def test_the_conversion_is_the_papers():
    # Canonne, Kamath and Steinke 2020, at alpha = 10: ln(9/10) - (ln(1e-5) + ln(10)) / 9.
    assert conversion(10, 1e-5) == pytest.approx(-0.105360516 + 4 * 2.302585093 / 9, abs=1e-8)


# The rules of the accountant

STEPS = [(6.0, 0.1), (4.0, 0.02), (9.0, 0.25)]
events = st.builds(
    lambda step, steps, patients: gaussian(*step, steps, patients),
    st.sampled_from(STEPS),
    st.integers(1, 60),
    st.integers(1, 10**6),
)


@settings(max_examples=10, deadline=None)
@given(st.lists(events, min_size=1, max_size=4), st.randoms(), st.sampled_from([1e-4, 1e-6]))
def test_epsilon_does_not_depend_on_order_or_grouping(chosen, random, delta):
    expected = epsilon(chosen, delta)
    shuffled = list(chosen)
    random.shuffle(shuffled)
    split = [event.model_copy(update={"steps": 1}) for event in shuffled for _ in range(event.steps)]
    accounting._epsilon.cache_clear()
    assert epsilon(split, delta) == expected


@settings(max_examples=10, deadline=None)
@given(st.lists(events, max_size=3), events, st.sampled_from([1e-4, 1e-6]))
def test_epsilon_never_falls_when_an_event_is_added(chosen, more, delta):
    assert epsilon([*chosen, more], delta) >= epsilon(chosen, delta) - 1e-9


@settings(max_examples=10, deadline=None)
@given(st.lists(events, min_size=1, max_size=3), st.sampled_from([1e-4, 1e-6]))
def test_the_renyi_bound_is_never_below_epsilon(chosen, delta):
    assert epsilon(chosen, delta) <= rdp_epsilon(chosen, delta)


def test_nothing_costs_nothing_and_an_unprotected_release_costs_everything():
    assert epsilon([], 1e-5) == rdp_epsilon([], 1e-5) == 0.0
    mixed = [gaussian(5.0, 0.1), Unprotected(releases=1)]
    assert epsilon(mixed, 1e-5) == rdp_epsilon(mixed, 1e-5) == math.inf


@pytest.mark.parametrize("delta", [0.0, -1e-5, 1.0, math.nan])
def test_a_delta_that_is_no_probability_is_refused(delta):
    with pytest.raises(UsageError, match="delta"):
        epsilon([gaussian(5.0, 0.1)], delta)


def test_the_grid_is_finer_for_many_steps(monkeypatch, fresh_cache):
    grids = []
    monkeypatch.setattr(accounting, "_pld", lambda history, delta, grid: grids.append(grid) or 0.3)
    for steps in (100_000, 100_001):
        assert epsilon([gaussian(2.0, 0.001, steps)], 1e-5) == 0.3
    assert grids == [1e-4, 1e-5]


def test_with_tiny_delta_and_many_steps_only_the_renyi_bound_counts(monkeypatch, fresh_cache):
    monkeypatch.setattr(accounting, "_pld", lambda *_: 0.001)
    trusted, tail_lost = gaussian(2.0, 1e-4, 100_000), gaussian(2.0, 1e-4, 100_001)
    assert epsilon([trusted], 9e-9) == 0.001
    assert epsilon([tail_lost], 9e-9) == pytest.approx(rdp_epsilon([tail_lost], 9e-9), rel=0.02)
    assert epsilon([tail_lost], 1.1e-8) == 0.001


def test_absurdly_little_noise_gets_a_bound_without_a_giant_computation():
    assert 1000 < epsilon([gaussian(0.02, 0.5, 10)], 1e-5) < math.inf
    assert epsilon([gaussian(1e-150, 0.5, 10)], 1e-5) > 1e100


class Broken:
    """A loss distribution whose numbers went wrong."""

    def __init__(self, value: float, reached: float) -> None:
        self.value, self.reached = value, reached

    def self_compose(self, steps: int) -> "Broken":
        return self

    def get_epsilon_for_delta(self, delta: float) -> float:
        return self.value

    def get_delta_for_epsilon(self, value: float) -> float:
        return self.reached


@pytest.mark.parametrize(
    ("value", "reached"), [(1.0, -2.4e-11), (1.0, 0.0), (1.0, 2e-5), (1.0, math.nan), (math.nan, 1e-5)]
)
def test_a_lost_tail_raises_instead_of_returning_a_number(monkeypatch, fresh_cache, value, reached):
    monkeypatch.setattr(accounting, "_pld_of_step", lambda *_: Broken(value, reached))
    with pytest.raises(ArithmeticError, match="accountant"):
        epsilon([gaussian(5.0, 0.1)], 1e-5)


def test_the_library_is_loaded_late_and_says_nothing():
    script = """
import logging, sys
from wardround.privacy import accounting, budget, rdp
from wardround.protocol.events import PoissonGaussian
event = PoissonGaussian(noise_multiplier=1.5, sampling_probability=0.25, steps=5, declared_patients=200)
budget.may_spend(0, event, 10**13, 3)
rdp.rdp_epsilon([event], 1e-4)
assert not {"dp_accounting", "scipy", "absl"} & sys.modules.keys(), "loaded too early"
accounting.epsilon_after_rounds(event, 2, 1e-4)
assert logging.getLogger().handlers == [] and logging.getLogger("absl").filters == []
import absl.logging
absl.logging.warning("still heard")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr == "WARNING:absl:still heard\n"


def test_only_remarks_on_convergence_are_dropped(caplog):
    import absl.logging  # noqa: F401 - it makes the logger a subclass of its own

    logger = logging.getLogger("absl")
    with accounting._quiet():
        logger.warning("order 1.1 failed to converge after %d iterations", 1000)
        logger.warning("something else")
        logging.getLogger("wardround").warning("from elsewhere")
    assert [record.getMessage() for record in caplog.records] == ["something else", "from elsewhere"]


# Epsilon after each round


@pytest.mark.parametrize(("sigma", "q", "steps"), [(2.92, 0.25, 5), (8.0, 0.25, 5), (20.0, 0.01, 10)])
def test_the_curve_is_never_below_the_epsilon_of_its_rounds_and_hardly_above(sigma, q, steps):
    event = gaussian(sigma, q, steps)
    curve = epsilon_after_rounds(event, 15, 1e-4)
    assert len(curve) == 15
    assert curve == sorted(curve)
    assert curve[-1] == epsilon([event] * 15, 1e-4)
    for rounds in (1, 2, 7, 14):
        exact = epsilon([event] * rounds, 1e-4)
        assert exact - 1e-9 <= curve[rounds - 1] <= exact * 1.001 + 1e-6


def test_a_long_curve_is_a_staircase_of_upper_bounds():
    event = gaussian(9.0, 0.1, 1)
    curve = epsilon_after_rounds(event, 150, 1e-4)
    assert curve == sorted(curve)
    for rounds in (1, 50, 77, 149, 150):
        exact = epsilon([event] * rounds, 1e-4)
        assert exact - 1e-9 <= curve[rounds - 1]
        assert rounds == 1 or curve[rounds - 1] <= exact * 1.05
    assert epsilon_after_rounds(event, 0, 1e-4) == []


# Calibration


@pytest.mark.parametrize(
    ("target", "sampling_probability", "steps", "delta", "sigma"),
    [
        # N=200, B=50, 20 epochs
        (1, 0.25, 80, 1e-4, 7.27),
        (3, 0.25, 80, 1e-4, 2.92),
        # N=1000, B=64, 20 epochs
        (3, 0.064, 313, 1e-4, 1.61),
        (8, 0.064, 313, 1e-4, 0.92),
    ],
)
def test_calibration_finds_the_smallest_noise_on_the_grid(target, sampling_probability, steps, delta, sigma):
    found = calibrate_noise_multiplier(target, delta, sampling_probability, steps)
    assert found == sigma
    assert epsilon([gaussian(found, sampling_probability, steps)], delta) <= target
    assert epsilon([gaussian(round(found - 0.01, 2), sampling_probability, steps)], delta) > target


@settings(max_examples=6, deadline=None)
@given(
    st.floats(0.3, 3),
    st.sampled_from([1e-4, 1e-6]),
    st.sampled_from([0.1, 0.25, 1.0]),
    st.integers(20, 200),
)
def test_calibration_is_never_better_than_asked_and_takes_four_calls(target, delta, q, steps):
    accounting._epsilon.cache_clear()
    sigma = calibrate_noise_multiplier(target, delta, q, steps)
    assert accounting._epsilon.cache_info().misses <= 4
    assert sigma == round(sigma, 2)
    assert epsilon([gaussian(sigma, q, steps)], delta) <= target


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from([0.15, 0.5, 1.0, 2.99, 8.0]),
    st.sampled_from([(6.0, 0.1), (4.0, 0.02), (1.5, 0.25), (20.0, 1.0)]),
    st.integers(1, 300),
)
def test_a_quick_yes_is_never_a_no_of_the_accountant(limit, step, steps):
    history = [gaussian(*step, steps)]
    kept, bound = accounting.within(history, limit, 1e-4)
    exact = epsilon(history, 1e-4)
    assert kept == (bound <= limit) and bound >= exact * (1 - 1e-9) - 1e-9
    assert exact <= limit if kept else exact > limit * (1 - 1e-3)


def test_what_is_unprotected_keeps_no_limit_and_nothing_keeps_every_one():
    assert accounting.within([Unprotected(releases=1)], 1e9, 1e-4) == (False, math.inf)
    assert accounting.within([], 1e-9, 1e-4) == (True, 0.0)


def test_the_table_of_divergences_is_that_of_each_order_by_itself():
    from wardround.privacy import rdp

    for sigma, q in [(0.5, 0.9), (2.84, 0.25), (1.0, 1e-6), (300.0, 1e-9), (5.0, 1.0), (1e-200, 0.5), (1e200, 0.5)]:
        alone = [gaussian_rdp(sigma, q, order) for order in ORDERS]
        np.testing.assert_allclose(rdp._curve(sigma, q), alone, rtol=1e-12, atol=0)


def test_calibration_refuses_what_no_noise_reaches():
    with pytest.raises(UsageError, match="no noise multiplier up to 1000 reaches") as refused:
        calibrate_noise_multiplier(0.01, 1e-6, 1.0, 10_000)
    assert "fewer rounds" in refused.value.hint
    with pytest.raises(UsageError, match="epsilon 0"):
        calibrate_noise_multiplier(0.0, 1e-6, 0.1, 10)


# The plan


def plan(epsilon_limit: float | None = 3.0, sigma: float = 2.84, rounds: int = 15) -> StudyPlan:
    terms = PrivacyTerms(mode=PrivacyMode.NONE)
    if epsilon_limit is not None:
        terms = PrivacyTerms(
            mode=PrivacyMode.LOCAL,
            noise_multiplier=sigma,
            sampling_probability=0.25,
            delta=1e-4,
            epsilon=epsilon_limit,
        )
    return StudyPlan(
        study="test",
        title="Test",
        governance=Governance(
            purpose="test of the accounting",
            controllers=(Controller(name="nobody"),),
            legal_basis="none",
            ethics_reference="none",
            recipients=("nobody",),
            permitted_use="nothing at all",
            proposed_on=date(2026, 1, 1),
            expires_on=date(2026, 12, 31),
        ),
        contract=None,
        task=Programmed(tensors=(TensorSpec(name="w", shape=(2,), fan_in=2),), couples_patients=False),
        model=InitialModel(layout="0" * 64, hash="0" * 64),
        strategy=StrategySpec(name="fedavg"),
        local=LocalTraining(steps=5, learning_rate=0.1),
        rounds=rounds,
        min_sites=1,
        participants=(Participant(site="a", declared_patients=200),),
        privacy=terms,
        code_version="0",
    )


def test_a_plan_that_keeps_its_limit_returns_a_bound_on_its_cost():
    exact = epsilon([plan().round_event("a")] * 15, 1e-4)
    assert check_plan_cost(plan()) == exact
    assert exact <= 3.0
    # With room to spare the instant bound is enough.
    assert exact <= check_plan_cost(plan(epsilon_limit=4.0)) <= 4.0
    assert check_plan_cost(plan(epsilon_limit=None)) == math.inf


def test_a_plan_with_room_to_spare_never_asks_the_library(monkeypatch):
    monkeypatch.setattr(accounting, "_epsilon", lambda *_: pytest.fail("the library was asked"))
    assert check_plan_cost(plan(epsilon_limit=4.0)) <= 4.0


def test_a_plan_above_its_limit_is_refused_with_what_would_fit():
    with pytest.raises(UsageError) as refused:
        check_plan_cost(plan(epsilon_limit=1.0))
    message, hint = refused.value.message, refused.value.hint
    assert "epsilon 2.99" in message
    assert "limit is 1 " in message
    assert "delta 0.0001" in message
    assert "one patient of one site" in message
    assert "add or remove one" in message
    assert hint == "what fits: noise_multiplier=7.05 with rounds=15, or rounds=1 with noise_multiplier=2.84"
    assert check_plan_cost(plan(epsilon_limit=1.0, sigma=7.05)) <= 1.0
    assert check_plan_cost(plan(epsilon_limit=1.0, rounds=1)) <= 1.0


def test_the_orders_are_the_integers_to_256():
    assert tuple(range(2, 257)) == ORDERS
