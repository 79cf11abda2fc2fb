"""The price of choosing the best of several private runs: against dp-accounting, and against exact selections."""

import math

import dp_accounting
import numpy as np
import pytest
from dp_accounting import dp_event
from dp_accounting.rdp import rdp_privacy_accountant

from wardround.privacy.accounting import epsilon, renyi_curve
from wardround.privacy.private_selection import (
    SHAPES,
    Trials,
    cheapest,
    delta_at,
    epsilon_at,
    selection_curve,
    selection_epsilon,
)
from wardround.protocol.errors import UsageError
from wardround.protocol.events import PoissonGaussian, Unprotected

DELTA = 1e-4
HEART = [PoissonGaussian(noise_multiplier=2.84, sampling_probability=0.25, steps=75, declared_patients=200)]


def by_dp_accounting(sigma: float, q: float, steps: int, trials: Trials) -> float:
    """Google's own implementation of the two theorems."""
    accountant = rdp_privacy_accountant.RdpAccountant()
    step = dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(sigma))
    run = dp_accounting.SelfComposedDpEvent(step, steps)
    accountant.compose(dp_event.RepeatAndSelectDpEvent(run, trials.mean, trials.shape))
    return float(accountant.get_epsilon(DELTA))


@pytest.mark.parametrize("shape", [math.inf, 1.0, 0.5, 0.0])
@pytest.mark.parametrize("mean", [1.0, 4.0, 64.0])
@pytest.mark.parametrize(("sigma", "q", "steps"), [(2.84, 0.25, 75), (8.0, 1.0, 20), (12.0, 0.25, 75)])
def test_agrees_with_dp_accounting(sigma: float, q: float, steps: int, mean: float, shape: float) -> None:
    run = [PoissonGaussian(noise_multiplier=sigma, sampling_probability=q, steps=steps, declared_patients=200)]
    trials = Trials(mean, shape)
    ours, theirs = selection_epsilon([run], DELTA, trials), by_dp_accounting(sigma, q, steps, trials)
    # They bound one run's delta by total variation as well, which can only help: never below theirs, hardly above.
    assert theirs * (1 - 1e-6) <= ours <= theirs * 1.01


def pgf(trials: Trials, x: np.ndarray) -> np.ndarray:
    """E[x^K], from the probabilities of Definition 1, added up term by term."""
    k = np.arange(1, 20_000)
    if trials.shape == math.inf:
        return np.exp(trials.mean * (x - 1))
    low, high = 1e-9, 1 - 1e-12
    for _ in range(100):
        gamma = math.sqrt(low * high)
        logs = np.concatenate([[0.0], np.cumsum(np.log((k[:-1] + trials.shape) / (k[:-1] + 1)))])
        weights = np.exp(logs + k * math.log1p(-gamma))
        weights /= weights.sum()
        low, high = (gamma, high) if (weights * k).sum() > trials.mean else (low, gamma)
    return (weights[None, :] * x[:, None] ** k[None, :]).sum(axis=1)


def renyi(p: np.ndarray, q: np.ndarray, order: float) -> float:
    return max(math.log((a**order * b ** (1 - order)).sum()) / (order - 1) for a, b in ((p, q), (q, p)))


@pytest.mark.parametrize("shape", [math.inf, 1.0, 0.5, 0.0])
def test_no_selection_diverges_more_than_the_bound(shape: float) -> None:
    """Outputs 0 < 1 < 2 by score: the best of K draws is at most y with probability E[F(y)^K], so all is exact."""
    one, other = np.array([0.50, 0.34, 0.16]), np.array([0.55, 0.33, 0.12])
    orders = np.array([1.5, 2.0, 3.0, 5.0, 9.0, 17.0, 33.0])
    run = np.array([renyi(one, other, order) for order in orders])
    trials = Trials(6.0, shape)
    selected = []
    for outputs in (one, other):
        below = pgf(trials, np.concatenate([[0.0], np.cumsum(outputs)]))
        nothing = [below[0]] if shape == math.inf else []
        selected.append(np.concatenate([nothing, np.diff(below)]))
    assert all(abs(part.sum() - 1) < 1e-6 for part in selected)
    exact = np.array([renyi(*selected, order) for order in orders])
    bound = selection_curve(orders, run, trials)
    assert (exact <= bound + 1e-9).all()
    # The selection is worse than one run, so a bound that forgot the trials would be exceeded here.
    assert (exact > run).any()


def test_a_selection_costs_more_than_one_run_and_less_than_many() -> None:
    curve = renyi_curve(HEART)
    one = epsilon_at(*curve, DELTA)
    for shape in SHAPES:
        costs = [selection_epsilon([HEART], DELTA, Trials(mean, shape)) for mean in (2.0, 20.0, 200.0)]
        assert one < costs[0] < costs[1] < costs[2] < epsilon(HEART * 200, DELTA)


def test_the_cheapest_distribution_is_one_of_three() -> None:
    found = cheapest([HEART], DELTA, 20.0)
    assert found.epsilon == min(selection_epsilon([HEART], DELTA, Trials(20.0, shape)) for shape in SHAPES)
    assert found.trials.name in ("Poisson", "geometric", "logarithmic")


def test_candidates_cost_what_the_worst_costs_at_each_order() -> None:
    quiet = [HEART[0].model_copy(update={"noise_multiplier": 9.0})]
    trials = Trials(8.0, math.inf)
    assert selection_epsilon([quiet, HEART], DELTA, trials) == selection_epsilon([HEART], DELTA, trials)


def test_delta_and_epsilon_are_each_others_inverse() -> None:
    orders, curve = renyi_curve(HEART)
    assert delta_at(orders, curve, epsilon_at(orders, curve, DELTA)) == pytest.approx(DELTA, rel=1e-9)


def test_without_protection_no_selection_has_a_price() -> None:
    assert selection_epsilon([HEART, [Unprotected(releases=1)]], DELTA, Trials(2, 1)) == math.inf


@pytest.mark.parametrize(("mean", "shape"), [(0.5, 1.0), (math.inf, 1.0), (2.0, -0.5), (math.nan, 0.0)])
def test_impossible_numbers_of_trials_are_refused(mean: float, shape: float) -> None:
    with pytest.raises(UsageError):
        Trials(mean, shape)
