"""Why some rules are as they are: vectors of mechanisms that this project refuses to have, computed anew.

The other groups of the file are tested where the code is: ``vectors`` and ``distributed_dp_vectors`` in
``test_accounting``, ``attack_bounds_gaussian_dp`` in ``test_planner``, the power of audits beside the attacks. Another
group that nobody tests fails here.
"""

import json
from pathlib import Path

import pytest
from scipy import stats

from wardround.privacy.accounting import epsilon
from wardround.protocol.events import PoissonGaussian

TESTS = Path(__file__).parents[1]
VECTORS = json.loads((TESTS / "vectors" / "dp_epsilon.json").read_text())
TOLD = {"versions", "adjacency", "note", "how_made", "test_rule", "limits"}
"""What the file says of itself."""


def gaussian(sigma: float, q: float, steps: int) -> PoissonGaussian:
    return PoissonGaussian(noise_multiplier=sigma, sampling_probability=q, steps=steps, declared_patients=200)


@pytest.mark.parametrize("group", sorted(VECTORS.keys() - TOLD))
def test_every_group_of_vectors_is_used_by_a_test(group: str) -> None:
    users = [path.name for path in TESTS.rglob("test_*.py") if f'VECTORS["{group}"]' in path.read_text()]
    assert users


def mixture(vector: dict[str, float]) -> float:
    """Epsilon where each of k records of one patient is drawn by itself: k of them count as a binomial number."""
    from dp_accounting.pld import privacy_loss_distribution

    count = int(vector["max_records_per_patient"])
    chances = stats.binom(count, vector["q_per_record"]).pmf(range(count + 1))
    step = privacy_loss_distribution.from_mixture_gaussian_mechanism(
        standard_deviation=vector["sigma"],
        sensitivities=list(range(count + 1)),
        sampling_probs=list(chances / chances.sum()),
        value_discretization_interval=1e-3,
    )
    return float(step.self_compose(int(vector["steps"])).get_epsilon_for_delta(vector["delta"]))


@pytest.mark.parametrize("vector", VECTORS["patient_group_vectors"], ids=lambda v: str(v["max_records_per_patient"]))
def test_drawing_records_would_cost_a_patient_more_with_every_record(vector: dict[str, float]) -> None:
    """So patients are drawn, with all their records: then one patient is one record, whatever k is."""
    count, ours = vector["max_records_per_patient"], gaussian(vector["sigma"], vector["q_per_record"], 1000)
    assert mixture(vector) == pytest.approx(vector["eps_mixture_of_gaussians"], abs=2e-3)
    assert epsilon([ours], vector["delta"]) <= vector["eps_mixture_of_gaussians"]
    # Without the exact mixture: k times the clip norm, drawn whenever any record is. It is of no use to anybody.
    union = 1 - (1 - vector["q_per_record"]) ** count
    crude = epsilon([gaussian(vector["sigma"] / count, min(1.0, union), 1000)], vector["delta"])
    # Above epsilon 50 ours is the Renyi bound alone, and so above the file's.
    assert crude == pytest.approx(vector["eps_sens_k_and_union_q"], rel=5e-3) or crude > 50
    assert crude >= vector["eps_sens_k_and_union_q"] - 0.005
    assert count == 1 or crude > 2.5 * vector["eps_mixture_of_gaussians"]
    # And without looking into the mechanism at all there is no number.
    assert (vector["eps_blackbox_group"] is None) == (count > 1)


@pytest.mark.parametrize("vector", VECTORS["truncated_poisson_vectors"], ids=lambda v: str(v["truncated_batch"]))
def test_a_batch_cut_at_a_largest_size_costs_more_so_none_is_cut(vector: dict[str, float]) -> None:
    import dp_accounting
    from dp_accounting.pld import pld_privacy_accountant

    event = dp_accounting.TruncatedSubsampledGaussianDpEvent(
        vector["dataset"], vector["q"], vector["truncated_batch"], vector["sigma"]
    )
    accountant = pld_privacy_accountant.PLDAccountant(value_discretization_interval=1e-3)
    accountant.compose(event, int(vector["steps"]))
    assert accountant.get_epsilon(vector["delta"]) == pytest.approx(vector["eps"], abs=5e-3)
    whole = epsilon([gaussian(vector["sigma"], vector["q"], int(vector["steps"]))], vector["delta"])
    assert whole < vector["eps"]
    # Five standard deviations above the mean (here 150) it no longer matters: an early cut is what costs.
    assert (vector["eps"] < whole + 0.01) == (vector["truncated_batch"] >= 150)


@pytest.mark.parametrize(
    "vector", VECTORS["hyperparameter_tuning_vectors"], ids=lambda v: f"{v['mean_runs']}-{v['shape']}"
)
def test_publishing_the_best_of_several_runs_costs_far_more_than_one_run(vector: dict[str, str | float]) -> None:
    """So learning rates are fixed in advance or chosen on public data, or every run is charged."""
    import dp_accounting
    from dp_accounting.dp_event import RepeatAndSelectDpEvent
    from dp_accounting.rdp import rdp_privacy_accountant

    run = dp_accounting.SelfComposedDpEvent(
        dp_accounting.PoissonSampledDpEvent(0.1, dp_accounting.GaussianDpEvent(2.0)), 200
    )
    accountant = rdp_privacy_accountant.RdpAccountant()
    accountant.compose(RepeatAndSelectDpEvent(run, float(vector["mean_runs"]), float(vector["shape"])))
    assert accountant.get_epsilon(1e-5) == pytest.approx(float(vector["eps_best_released"]), abs=1e-3)
    runs = int(vector["mean_runs"])
    all_charged = rdp_privacy_accountant.RdpAccountant().compose(run, runs).get_epsilon(1e-5)
    assert all_charged == pytest.approx(float(vector["eps_if_all_runs_composed"]), abs=1e-2)
    base = rdp_privacy_accountant.RdpAccountant().compose(run).get_epsilon(1e-5)
    assert base == pytest.approx(float(vector["base_eps"]), abs=1e-4)
    assert 1.5 * base < float(vector["eps_best_released"]) < all_charged
    # Ours, by the tighter bound, of one run and of all of them: it never says less for more runs.
    one, every = (epsilon([gaussian(2.0, 0.1, 200 * number)], 1e-5) for number in (1, runs))
    assert one < base and float(vector["eps_best_released"]) < every <= all_charged
