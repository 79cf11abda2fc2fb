"""A model on a site's own test patients: metrics with intervals, and the curves of a report.

Everything here is for the site itself (and for a simulation, where one person plays every site). It never leaves a
hospital: releasing it would be a study of its own, with its own charge.
"""

from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

from wardround.client.tasks import Metric, Scores, Task
from wardround.client.tasks.binary import accuracy
from wardround.privacy.gradients import Examples
from wardround.protocol.labels import UNKNOWN
from wardround.protocol.parameters import Vector

RESAMPLES: Final = 1000
LEVEL: Final = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric with its 95 % interval over patients; None where not estimable."""

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
    """The metric with its 95 % interval: Wilson's of a share of patients, else percentiles of 1,000 resamples of them
    (Efron 1979).

    Resamples in which the metric is not estimable are left out; with fewer than half of them left, the value is
    given without an interval.
    """
    value = point(metric, scores)
    if value is None:
        reason = _why_not(scores) if len(scores.score) else "no test patients"
        return Estimate(None, None, None, reason)
    patients = len(scores.score)
    if metric is accuracy:
        return Estimate(value, *wilson(value, patients))
    resampled = np.concatenate([metric(scores, part) for part in np.array_split(_draws(patients), 10)])
    resampled = resampled[np.isfinite(resampled)]
    if len(resampled) < RESAMPLES / 2:
        return Estimate(value, None, None, "too few patients of one class for an interval")
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return Estimate(value, float(low), float(high))


def wilson(share: float, patients: int) -> tuple[float, float]:
    """The 95 % score interval of a share of ``patients`` (Wilson 1927): inside 0..1, and never empty at 0 or 1."""
    z2 = NormalDist().inv_cdf((1 + LEVEL) / 2) ** 2
    middle = (share + z2 / (2 * patients)) / (1 + z2 / patients)
    spread = share * (1 - share) / patients + z2 / (4 * patients**2)
    half = (z2 * spread) ** 0.5 / (1 + z2 / patients)
    return max(middle - half, 0.0), min(middle + half, 1.0)


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
