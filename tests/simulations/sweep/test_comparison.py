"""The statistics of a comparison: by independent computation, on numbers that are made here."""

from itertools import pairwise
from math import inf, nan
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from wardround.simulations.sweep.comparison import Comparison, compare, holm, interval
from wardround.simulations.sweep.folder import Finished
from wardround.simulations.sweep.table import rows


def made_run(
    number: int,
    strategy: str,
    seed: int,
    values: dict[str, float],
    *,
    limit: float | None = 3.0,
    epsilon: float = 2.99,
    rate: str | None = None,
    data: str = "same",
) -> Finished:
    """A run as far as a comparison looks at it: AUROC by hospital."""
    settings = {"strategy": strategy, "initial.seed": str(seed)} | ({"local.learning_rate": rate} if rate else {})
    sites = tuple(
        SimpleNamespace(
            site=site,
            excluded_because="",
            train_patients=100,
            test_patients=50,
            shared=SimpleNamespace(metrics={"auroc": SimpleNamespace(value=None if value != value else value)}),
            personalised=None,
            own=SimpleNamespace(metrics={"auroc": SimpleNamespace(value=0.7)}),
            epsilon_site=None if limit is None else epsilon,
        )
        for site, value in values.items()
    )
    result: Any = SimpleNamespace(strategy=strategy, sites=sites, data_hashes={"a": data})
    plan: Any = SimpleNamespace(
        model=SimpleNamespace(seed=seed),
        privacy=SimpleNamespace(epsilon=limit, delta=1e-4 if limit else None),
        rounds=15,
        local=SimpleNamespace(steps=5, epochs=None),
    )
    return Finished(number, settings, plan, result)


def grid(values: dict[str, list[float]], **more: Any) -> list[Finished]:
    pairs = [(name, seed, value) for name, column in values.items() for seed, value in enumerate(column)]
    return [made_run(n, name, seed, {"a": value, "b": value}, **more) for n, (name, seed, value) in enumerate(pairs, 1)]


GENERATOR = np.random.default_rng(3)
NOISE = {name: (0.8 + 0.01 * GENERATOR.normal(size=8)).tolist() for name in ("fedavg", "fedprox", "scaffold")}


def test_intervals_are_students() -> None:
    values = NOISE["fedavg"]
    found = interval(values)
    low, high = stats.t.interval(0.95, 7, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert interval([0.8]).low is None


def test_holm_is_the_step_down_of_the_paper() -> None:
    """Holm 1979, by its own words: test the smallest at a/m, the next at a/(m-1), and stop at the first that fails."""
    generator = np.random.default_rng(1)
    for _ in range(50):
        p = np.round(generator.random(7) ** 3, 3)
        level = 0.05
        rejected, order = set(), np.argsort(p, kind="stable")
        for rank, index in enumerate(order):
            if p[index] > level / (len(p) - rank):
                break
            rejected.add(int(index))
        adjusted = holm(p.tolist())
        assert {index for index, value in enumerate(adjusted) if value <= level + 1e-12} == rejected
        in_order = [adjusted[index] for index in order]
        assert all(before <= after for before, after in pairwise(in_order)) and max(adjusted) <= 1


def test_differences_are_paired_over_seeds_and_corrected_over_the_page() -> None:
    shifted = {"fedavg": NOISE["fedavg"], "fedprox": [value - 0.01 for value in NOISE["fedavg"]]}
    shifted["fedprox"][0] += 0.002
    shifted["scaffold"] = NOISE["scaffold"]
    comparison = compare(grid(shifted), "auroc")
    found = {(d.first, d.second): d for d in comparison.differences}
    pair = found["fedavg", "fedprox"]
    assert pair.p == pytest.approx(stats.ttest_1samp(np.subtract(shifted["fedavg"], shifted["fedprox"]), 0).pvalue)
    assert pair.adjusted == pytest.approx(3 * pair.p) and pair.is_shown and comparison.tests == 3
    assert not found["fedavg", "scaffold"].is_shown


def test_seeds_that_only_one_has_are_no_pair() -> None:
    runs = grid({"fedavg": NOISE["fedavg"], "fedprox": NOISE["fedprox"][:6]})
    (difference,) = compare(runs, "auroc").differences
    assert difference.difference.count == 6
    assert difference.p == pytest.approx(stats.ttest_rel(NOISE["fedavg"][:6], NOISE["fedprox"][:6]).pvalue)


def test_of_pure_noise_hardly_ever_is_anything_shown() -> None:
    """The error over all tests of a page is at most 5 %: of 50 pages of nothing, 2.5 on average, hardly above 8."""
    generator = np.random.default_rng(7)
    shown = 0
    for _ in range(50):
        values = {name: (0.8 + 0.01 * generator.normal(size=6)).tolist() for name in ("a", "b", "c", "d")}
        shown += any(difference.is_shown for difference in compare(grid(values), "auroc").differences)
    assert shown <= 8


def test_few_seeds_and_seeds_without_spread_are_not_tested() -> None:
    few = compare(grid({name: values[:4] for name, values in NOISE.items()}), "auroc")
    assert few.tests == 0 and all("fewer than 5 seeds" in d.reason for d in few.differences)
    fixed = compare(grid({"fedavg": [0.8] * 6, "fedprox": [0.7] * 6}), "auroc")
    assert fixed.tests == 0 and "nothing is left to chance" in fixed.differences[0].reason


def test_a_hospital_where_nothing_is_estimable_is_left_out_of_the_mean() -> None:
    run = made_run(1, "fedavg", 0, {"a": 0.9, "b": 0.7, "c": nan})
    (cell,) = compare([run], "auroc").cells
    assert cell.over_hospitals.value == pytest.approx(0.8)
    assert [site.used is None for site in cell.sites] == [False, False, True]
    assert [row["used"] for row in rows([_with_results(run)])] == [0.9, 0.7, None]


def _with_results(run: Finished) -> Finished:
    result: Any = run.result
    for site in result.sites:
        site.shared.metrics["auroc"].low = site.shared.metrics["auroc"].high = None
    result.plan_digest, result.privacy = (
        "0",
        SimpleNamespace(delta=1e-4, noise_multiplier=2.84, sampling_probability=0.25, mode="local"),
    )
    return run


def unequal(runs: list[Finished]) -> str:
    comparison: Comparison = compare(runs, "auroc")
    return " | ".join(comparison.unequal)


def test_equal_terms_are_said_to_be_equal_by_silence() -> None:
    assert unequal(grid(NOISE)) == ""


def test_a_strategy_that_was_tuned_more_is_named() -> None:
    runs = grid({"fedavg": NOISE["fedavg"]}, rate="0.5")
    runs += [
        made_run(100 + 10 * place + seed, "fedprox", seed, {"a": 0.8}, rate=rate)
        for place, rate in enumerate(("0.1", "0.5"))
        for seed in range(8)
    ]
    assert "different numbers of settings to be best of: fedavg 1, fedprox 2" in unequal(runs)


def test_unequal_seeds_epsilons_work_and_patients_are_named() -> None:
    assert "different numbers of seeds: fedavg 8, fedprox 6" in unequal(
        grid({"fedavg": NOISE["fedavg"], "fedprox": NOISE["fedprox"][:6]})
    )
    louder = [made_run(50 + seed, "fedprox", seed, {"a": 0.8}, epsilon=2.5) for seed in range(8)]
    assert "true epsilons differ by more than 1 %: 2.500 to 2.990" in unequal(
        [*grid({"fedavg": NOISE["fedavg"]}), *louder]
    )
    longer = [made_run(50 + seed, "fedprox", seed, {"a": 0.8}) for seed in range(8)]
    for run in longer:
        run.plan.rounds = 30  # type: ignore[misc]
    assert "fedprox 30 rounds of 5 steps" in unequal([*grid({"fedavg": NOISE["fedavg"]}), *longer])
    others = [made_run(50 + seed, "fedprox", seed, {"a": 0.8}, data="other") for seed in range(8)]
    assert "did not all see the same patients" in unequal([*grid({"fedavg": NOISE["fedavg"]}), *others])


def test_runs_without_protection_are_a_level_of_their_own() -> None:
    runs = grid(NOISE) + [made_run(100 + seed, "fedavg", seed, {"a": 0.9}, limit=None) for seed in range(8)]
    comparison = compare(runs, "auroc")
    assert comparison.levels == (3.0, inf)
    cell = comparison.cell("fedavg", inf)
    assert cell is not None and cell.sites[0].epsilon == inf
