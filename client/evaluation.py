"""A model on a site's own test patients: metrics with bootstrap intervals, and the curves of a report.

Everything here is for the site itself (and for a simulation, where one person plays every site). It never leaves a
hospital: releasing it would be a study of its own, with its own charge.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from wardround.client.tasks import Metric, Scores, Task
from wardround.privacy.gradients import Examples
from wardround.protocol.labels import UNKNOWN
from wardround.protocol.parameters import Vector

RESAMPLES: Final = 1000
LEVEL: Final = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric with its percentile bootstrap interval over patients (Efron 1979); None where not estimable."""

    value: float | None
    low: float | None
    high: float | None
    reason: str = ""


def score(task: Task, model: Vector, patients: Examples) -> Scores:
    """The model's scores of ``patients``, one per patient."""
    return task.scores(task.engine.outputs(model.astype(np.float64), patients.features), patients)


def point(metric: Metric, scores: Scores) -> float | None:
    """The metric without an interval, None where it is not estimable (one class, no comparable pair)."""
    if not len(scores.score):
        return None
    value = float(metric(scores, np.ones((1, len(scores.score))))[0])
    return value if np.isfinite(value) else None


def estimate(metric: Metric, scores: Scores) -> Estimate:
    """The metric with its 95 % interval from 1,000 resamples of patients.

    Resamples in which the metric is not estimable are left out; with fewer than half of them left, the value is
    given without an interval.
    """
    value = point(metric, scores)
    if value is None:
        reason = _why_not(scores) if len(scores.score) else "no test patients"
        return Estimate(None, None, None, reason)
    patients = len(scores.score)
    resampled = np.concatenate([metric(scores, part) for part in np.array_split(_draws(patients), 10)])
    resampled = resampled[np.isfinite(resampled)]
    if len(resampled) < RESAMPLES / 2:
        return Estimate(value, None, None, "too few patients of one class for an interval")
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return Estimate(value, float(low), float(high))


def _why_not(scores: Scores) -> str:
    if np.isin(scores.target, (UNKNOWN, 0.0, 1.0)).all():
        return "one class only"
    return "the outcome does not vary"


@lru_cache(maxsize=32)
def _draws(patients: int) -> npt.NDArray[np.float64]:
    """How often each of ``patients`` is drawn in each resample: (RESAMPLES, patients), the same for every metric."""
    generator = np.random.Generator(np.random.PCG64(patients))
    return generator.multinomial(patients, np.full(patients, 1 / patients), size=RESAMPLES).astype(np.float64)


def roc_curve(scores: Scores) -> list[tuple[float, float]]:
    """(false positive rate, true positive rate), from (0, 0) to (1, 1); empty where a class is absent."""
    positive = scores.target[:, 0] > 0.5
    if positive.all() or not positive.any():
        return []
    thresholds = np.unique(scores.score)[::-1]
    called = scores.score[None, :] >= thresholds[:, None]
    true = (called & positive).sum(axis=1) / positive.sum()
    false = (called & ~positive).sum(axis=1) / (~positive).sum()
    return [(0.0, 0.0), *zip(false.tolist(), true.tolist(), strict=True)]


def calibration_bins(scores: Scores, bins: int = 10) -> list[tuple[float, float, int]]:
    """(mean predicted probability, observed share, patients) for each of ``bins`` equal bins that holds a patient."""
    number = np.minimum((scores.score * bins).astype(int), bins - 1)
    result = []
    for index in range(bins):
        inside = number == index
        if inside.any():
            observed = float((scores.target[inside, 0] > 0.5).mean())
            result.append((float(scores.score[inside].mean()), observed, int(inside.sum())))
    return result
