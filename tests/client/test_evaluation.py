"""Estimates with intervals: right where the truth is known, honest where there is nothing to estimate."""

import numpy as np
import pytest
from sklearn.metrics import roc_curve as sklearn_roc

from wardround.client.evaluation import calibration_bins, estimate, roc_curve
from wardround.client.tasks import Scores
from wardround.client.tasks.binary import accuracy, auroc

GENERATOR = np.random.Generator(np.random.PCG64(8))


def scores(patients: int, share: float = 0.5) -> Scores:
    label = (GENERATOR.random(patients) < share).astype(float)
    return Scores(np.clip(0.5 * label + GENERATOR.random(patients) * 0.7, 0, 1), label[:, None])


def test_the_interval_of_a_share_is_the_binomial_one() -> None:
    half = Scores(np.tile([0.9, 0.1], 200), np.ones((400, 1)))
    found = estimate(accuracy, half)
    assert found.value == 0.5 and found.low is not None and found.high is not None
    # 1.96 standard errors of a share of 0.5 of 400 patients are 0.049; the bootstrap's own error is near 0.005.
    assert found.low == pytest.approx(0.451, abs=0.008) and found.high == pytest.approx(0.549, abs=0.008)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    inside = 0
    for _ in range(200):
        label = GENERATOR.integers(0, 2, 150).astype(float)
        found = estimate(auroc, Scores(GENERATOR.random(150), label[:, None]))
        inside += found.low is not None and found.high is not None and found.low <= 0.5 <= found.high
    # 95 % of 200 with 4.5 standard errors of slack: a percentile bootstrap is a little short at this size.
    assert inside >= 176


def test_the_same_scores_give_the_same_interval() -> None:
    same = scores(80)
    assert estimate(auroc, same) == estimate(auroc, same)


def test_one_class_and_no_patient_are_not_estimable_and_say_why() -> None:
    lone = Scores(np.array([0.3, 0.9]), np.ones((2, 1)))
    assert (estimate(auroc, lone).value, estimate(auroc, lone).reason) == (None, "one class only")
    nobody = Scores(np.zeros(0), np.zeros((0, 1)))
    assert estimate(accuracy, nobody).reason == "no test patients" and estimate(accuracy, nobody).value is None


def test_a_value_that_most_resamples_cannot_estimate_has_no_interval() -> None:
    rare = Scores(np.linspace(0, 1, 3), np.array([[1.0], [0.0], [0.0]]))
    found = estimate(auroc, Scores(rare.score, rare.target))
    assert found.value is not None
    single = Scores(np.linspace(0, 1, 2), np.array([[1.0], [0.0]]))
    assert estimate(auroc, single).low is None or estimate(auroc, single).low == estimate(auroc, single).high


def test_the_roc_curve_is_that_of_scikit_learn() -> None:
    here = scores(60)
    false, true, _ = sklearn_roc(here.target[:, 0], here.score, drop_intermediate=False)
    assert np.allclose(roc_curve(here), np.column_stack([false, true]))
    assert roc_curve(Scores(np.array([0.1]), np.ones((1, 1)))) == []


def test_calibration_bins_hold_every_patient_once() -> None:
    here = scores(200)
    bins = calibration_bins(here)
    assert sum(count for _, _, count in bins) == 200
    assert sum(share * count for _, share, count in bins) == pytest.approx(here.target.sum())
    assert sum(mean * count for mean, _, count in bins) == pytest.approx(here.score.sum())
