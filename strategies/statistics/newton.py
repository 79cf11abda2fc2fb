"""Newton's method on noised sums: where the next round is asked, and what several rounds say together.

One round has, at coefficients b_s, the gradient g_s and the information H_s of a log likelihood, with Gaussian noise of
public standard deviations. R is a diagonal penalty, R b^2 / 2 of the coefficients.

* **Next.** b_s + (H_s + R)^-1 (g_s - R b_s). Directions in which the information does not stand out of its noise are
  stepped along as if it just did, and no step is longer than ``LONGEST_STEP``.
* **Together.** Each round gives normal equations (H_s + R) b = g_s + H_s b_s, right up to the square of b_s - b. All
  rounds are of the same patients with fresh noise, so the mean of their equations, weighted by precision, has less of
  it than the last (as averaging iterates does: Polyak, Juditsky 1992).
* **Covariance.** A^-1 (m H + V) A^-1, A = H + R: m H by sampling (with a penalty: le Cessie, van Houwelingen 1992), V
  by noise, that of g_s and of H_s (b_s - b). Of a symmetric N whose upper triangle has variance 1, N v has covariance
  |v|^2 I + v v' - diag(v^2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

import numpy as np

from wardround.privacy.gradients import Array
from wardround.strategies.statistics.base import LEAST_SIGNAL

LONGEST_STEP: Final = 3.0
"""The most that a round moves the coefficients by, 2-norm: noise would make a step of any length."""

SETTLED: Final = 2.0
"""Coefficients of a round that is used are within so much (1-norm: of anybody's log odds) of the estimate."""

UNDETERMINED: Final = "the columns determine one another, or the outcome, up to the noise"
UNSETTLED: Final = "the rounds did not settle: too much noise, or a predictor that tells the outcome"


@dataclass(frozen=True, slots=True)
class Point:
    """One round: coefficients (d,), gradient (d,), information (d, d), and the deviations of a number's noise."""

    at: Array
    count: float
    gradient: Array
    information: Array
    noise: float
    information_noise: float

    @property
    def least(self) -> float:
        """The smallest information that says anything."""
        return LEAST_SIGNAL * self.information_noise + 1e-9 * max(self.count, 1.0)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Coefficients (d,) and their covariance (d, d)."""

    coefficients: Array
    covariance: Array


def next_of(point: Point, penalty: Array) -> Array:
    """The next coefficients, whatever the noise has made of a round; ``penalty``: the diagonal of R, (d,)."""
    if not (np.isfinite(point.gradient).all() and np.isfinite(point.information).all()):
        return point.at
    values, directions = np.linalg.eigh(point.information + np.diag(penalty))
    slopes = directions.T @ (point.gradient - penalty * point.at)
    step = directions @ (slopes / np.maximum(values, point.least))
    found: Array = point.at + step * (LONGEST_STEP / max(float(np.linalg.norm(step)), LONGEST_STEP))
    return found


def mean_of(points: Sequence[Point]) -> tuple[Point, Array]:
    """The normal equations of ``points`` together, as those of a point at zero, and the variance of each one's noise.

    Weights are those of least variance. The second is that of the weighted gradients, (points,).
    """
    weights = np.array([1.0 if each.noise == 0 else each.noise**-2 for each in points])
    weights /= weights.sum()
    d = len(points[0].at)
    count, right, information = 0.0, np.zeros(d), np.zeros((d, d))
    for weight, each in zip(weights, points, strict=True):
        count += weight * each.count
        right = right + weight * (each.gradient + each.information @ each.at)
        information = information + weight * each.information
    variances = np.square(weights * np.array([each.noise for each in points]))
    other = sqrt(sum((w * each.information_noise) ** 2 for w, each in zip(weights, points, strict=True)))
    return Point(np.zeros(d), count, right, information, sqrt(variances.sum()), other), variances


def estimate_of(points: Sequence[Point], penalty: Array, rows_per_patient: int) -> Estimate | str:
    """What ``points`` say together; or, in words, why they say nothing."""
    mean, variances = mean_of(points)
    whole, d = mean.information + np.diag(penalty), len(penalty)
    if not np.isfinite(whole).all() or float(np.linalg.eigvalsh(whole).min()) <= mean.least:
        return UNDETERMINED
    inverse = np.linalg.inv(whole)
    found: Array = inverse @ mean.gradient
    if max(float(np.abs(each.at - found).sum()) for each in points) > SETTLED:
        return UNSETTLED
    middle: Array = rows_per_patient * mean.information
    for variance, each in zip(variances, points, strict=True):
        away = each.at - found
        moved = (away @ away) * np.eye(d) + np.outer(away, away) - np.diag(away**2)
        ratio = each.information_noise / each.noise if each.noise else 0.0
        middle = middle + variance * (np.eye(d) + ratio**2 * moved)
    covariance: Array = inverse @ middle @ inverse
    return Estimate(found, covariance)
