"""Verdicts on a hospital's benefit: paired, together, and silent where little can be known."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from wardround.client.benefit import FEWEST_TESTED, HIGHER_IS_BETTER, benefit, paired
from wardround.client.evaluation import estimate, wilson
from wardround.client.site_result import BenefitResult
from wardround.client.tasks import Scores
from wardround.client.tasks.binary import accuracy, auroc, log_loss
from wardround.console.reports.numbers import metric_name


def right(flags: np.ndarray) -> Scores:
    """A model that is right exactly at ``flags`` (patients,), on patients of both classes."""
    label = (np.arange(len(flags)) % 2).astype(float)
    return Scores(np.where(flags, label, 1 - label) * 0.8 + 0.1, label[:, None])


def pair(patients: int, own_only: int, other_only: int) -> tuple[Scores, Scores]:
    """Two models that both are right but for these patients, of whom only one of them is."""
    own, other = np.ones(patients, bool), np.ones(patients, bool)
    other[:own_only], own[own_only : own_only + other_only] = False, False
    return right(own), right(other)


def judged(own: Scores, other: Scores, comparisons: int = 1) -> BenefitResult:
    return benefit("shared", "accuracy", accuracy, [own], [other], comparisons)


@pytest.mark.parametrize(("hits", "patients"), [(0, 16), (14, 16), (80, 104), (45, 45), (1, 2)])
def test_the_interval_of_a_share_is_wilsons_as_scipy_computes_it(hits: int, patients: int) -> None:
    expected = binomtest(hits, patients).proportion_ci(0.95, method="wilson")
    assert wilson(hits / patients, patients) == pytest.approx((expected.low, expected.high), abs=1e-12)
    found = estimate(accuracy, right(np.arange(patients) < hits))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("comparisons", [1, 8])
def test_the_interval_of_a_difference_is_the_paired_bootstrap_of_scipy(comparisons: int) -> None:
    own, other = pair(150, 6, 21)
    a, b = ((s.score > 0.5) == (s.target[:, 0] > 0.5) for s in (own, other))
    expected = bootstrap(
        (a.astype(float), b.astype(float)), lambda x, y, axis: y.mean(axis) - x.mean(axis), paired=True,
        vectorized=True, method="percentile", confidence_level=1 - 0.05 / comparisons, n_resamples=20_000, rng=1,
    ).confidence_interval  # fmt: skip
    found = paired(accuracy, [own], [other], comparisons)
    assert found.value == pytest.approx(0.1)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.008)


def test_both_models_are_measured_on_the_same_resample() -> None:
    hard = right(np.arange(100) % 3 > 0)
    found = paired(accuracy, [hard], [hard])
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0), "not paired: patients differ between the models"


def test_seeds_are_drawn_too_and_all_of_them_on_the_same_patients() -> None:
    own, good = pair(100, 0, 20)
    _, bad = pair(100, 20, 0)
    alike = paired(accuracy, [own] * 6, [good] * 6)
    one = paired(accuracy, [own], [good])
    assert alike.value == one.value == pytest.approx(0.2)
    assert (alike.low, alike.high) == pytest.approx((one.low, one.high), abs=0.011)
    apart = paired(accuracy, [own, own], [good, bad])
    assert apart.value == pytest.approx(0.1), "the mean of +0.2 and 0.0"
    assert apart.low is not None and alike.low is not None and apart.low < 0.05 < alike.low


def simulated(generator: np.random.Generator, patients: int, own_only: float, other_only: float) -> tuple[Scores, ...]:
    draw = generator.random(patients)
    both = draw < 0.7
    return right(both | (draw > 1 - own_only)), right(both | ((draw > 0.7) & (draw < 0.7 + other_only)))


def test_the_interval_covers_the_true_difference_about_as_often_as_it_says() -> None:
    generator, inside = np.random.Generator(np.random.PCG64(5)), 0
    for _ in range(200):
        own, other = simulated(generator, 60, 0.08, 0.18)
        found = paired(accuracy, [own], [other])
        assert found.low is not None and found.high is not None
        inside += found.low <= 0.1 <= found.high
    # 95 % of 200 is 190, with three standard errors (3.1 each) and what a percentile bootstrap lacks at 60 patients.
    assert 178 <= inside <= 199


def test_eight_hospitals_without_a_difference_seldom_have_one_shown() -> None:
    generator, families = np.random.Generator(np.random.PCG64(6)), 0
    for _ in range(30):
        found = [judged(*simulated(generator, 60, 0.12, 0.12), comparisons=8) for _ in range(8)]
        families += any(one.verdict in ("helps", "harms") for one in found)
    # At most 5 % of 30 are 1.5; each interval alone at 95 % would give 30 (1 - 0.95^8) = 10.
    assert families <= 5


def test_a_verdict_is_what_its_interval_shows() -> None:
    own, other = pair(120, 2, 20)
    helps, harms, neither = judged(own, other), judged(other, own), judged(*pair(120, 6, 9))
    assert (helps.verdict, harms.verdict, neither.verdict) == ("helps", "harms", "not shown")
    assert helps.better_by.value == pytest.approx(0.15) and harms.better_by.value == pytest.approx(-0.15)
    assert helps.better_by.low is not None and helps.better_by.low > 0


def test_where_lower_is_better_a_smaller_value_helps() -> None:
    own, other = pair(120, 2, 20)
    found = benefit("shared", "log_loss", log_loss, [own], [other], 1)
    assert found.verdict == "helps" and found.better_by.value is not None and found.better_by.value > 0


def test_more_comparisons_make_the_interval_wider_and_can_take_a_verdict_away() -> None:
    own, other = pair(100, 2, 10)
    alone, together = judged(own, other), judged(own, other, comparisons=40)
    assert alone.better_by.low is not None and together.better_by.low is not None
    assert alone.verdict == "helps" and together.verdict == "not shown"
    assert together.better_by.low < 0 < alone.better_by.low


@pytest.mark.parametrize(("patients", "verdict"), [(FEWEST_TESTED - 1, "none"), (FEWEST_TESTED, "helps")])
def test_below_thirty_test_patients_a_difference_is_shown_without_a_verdict(patients: int, verdict: str) -> None:
    found = judged(*pair(patients, 0, 15))
    assert found.verdict == verdict and found.better_by.low is not None
    assert found.reason == ("" if verdict == "helps" else "fewer than 30 test patients")


def test_what_cannot_be_estimated_has_no_verdict_and_says_so() -> None:
    lone = Scores(np.linspace(0, 1, 40), np.ones((40, 1)))
    found = benefit("shared", "auroc", auroc, [lone], [lone], 1)
    assert (found.verdict, found.better_by.value) == ("none", None) and "not estimable" in found.reason
    nobody = benefit("shared", "accuracy", accuracy, [], [lone], 1, "its training patients have one class only")
    assert nobody.verdict == "none" and nobody.reason == "its training patients have one class only"


def test_a_metric_of_unknown_direction_has_no_verdict() -> None:
    own, other = pair(100, 0, 30)
    found = benefit("shared", "usefulness", accuracy, [own], [other], 1)
    assert found.verdict == "none" and "not known" in found.reason


def test_too_many_comparisons_for_the_resamples_are_refused_in_words() -> None:
    found = judged(*pair(40, 0, 20), comparisons=2000)
    assert found.verdict == "none" and "too many comparisons" in found.reason


def test_the_console_has_the_same_direction_of_every_metric() -> None:
    said: Callable[[str], bool | None] = lambda name: metric_name(name).higher_is_better  # noqa: E731
    assert {name: said(name) for name in HIGHER_IS_BETTER} == dict(HIGHER_IS_BETTER)
