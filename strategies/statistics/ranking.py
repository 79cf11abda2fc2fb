"""How well a score tells two classes apart, from the noised histogram of the score in each.

A patient is in one bin; bins rise with the score. Where patients lie within a bin nobody knows: both figures take them
for mixed evenly. The area under the exact score's ROC curve differs by sum_b f1_b f0_b / 2 at most, f the classes'
shares.

**AUROC** is U / (n1 n0), with U = sum_bc h1_b K_bc h0_c, K_bc = 1 above the diagonal and 1/2 on it (Hanley and McNeil
1982). The classes are different patients with noises of their own, so U and n1 n0 are unbiased whatever the noise, and
their variances are those of products of independent estimates (Goodman 1960). The interval is Fieller's.

**AUPRC** is the average precision, sum_j (h1_j / n1) P_j with P_j the precision at the lower end of j, over bins that
are cut in ``PARTS`` alike: precision falls within a wide bin. Its interval is by the delta method, about the histogram
without its negative counts.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from wardround.privacy.gradients import Array
from wardround.strategies.statistics.fieller import Interval, fieller

PARTS: Final = 8


@dataclass(frozen=True, slots=True)
class Class:
    """One class's noised histogram of scores, shape (bins,), and the covariance of its noise, (bins, bins)."""

    counts: Array
    noise: Array

    @property
    def total(self) -> float:
        return float(self.counts.sum())

    @property
    def covariance(self) -> Array:
        """Of sampling (Poisson, so without a fixed number of patients) and noise together."""
        found: Array = np.diag(np.maximum(self.counts, 0.0)) + self.noise
        return found


def auroc(positive: Class, negative: Class, z: float) -> tuple[float, Interval | None]:
    """The area under the ROC curve and its interval."""
    bins = len(positive.counts)
    kernel, ones = np.tri(bins) - 0.5 * np.eye(bins), np.ones((bins, bins))
    over, under = (float(positive.counts @ each @ negative.counts) for each in (kernel, ones))
    variances = (
        _covariance(one, other, positive, negative) for one, other in ((kernel, kernel), (kernel, ones), (ones, ones))
    )
    return over / under if under else 0.0, fieller(over, under, z, *variances)


def average_precision(positive: Class, negative: Class, z: float) -> tuple[float, Interval | None]:
    """The area under the precision-recall curve and its interval."""
    of, against = (np.repeat(_without_negatives(each.counts) / PARTS, PARTS) for each in (positive, negative))
    total = of.sum()
    if total <= 0:
        return 0.0, None
    true, false = (np.cumsum(counts[::-1])[::-1] for counts in (of, against))
    called = np.maximum(true + false, 1e-9)
    value = float((of * true / called).sum() / total)
    # A positive of part j is called in part j and every part below it; a bin's slope is the mean of its parts'.
    by_positive = _of_bins(true / called - value + np.cumsum(of * false / called**2)) / total
    by_negative = _of_bins(-np.cumsum(of * true / called**2)) / total
    variance = by_positive @ positive.covariance @ by_positive + by_negative @ negative.covariance @ by_negative
    reach = z * float(np.sqrt(variance))
    return value, (value - reach, value + reach)


def _covariance(one: Array, other: Array, positive: Class, negative: Class) -> float:
    """Of h1' M h0 and h1' N h0, without bias: each of the first two terms holds the last once too often."""
    h1, h0, c1, c0 = positive.counts, negative.counts, positive.covariance, negative.covariance
    return float(h0 @ one.T @ c1 @ other @ h0 + h1 @ one @ c0 @ other.T @ h1 - np.trace(c1 @ one @ c0 @ other.T))


def _of_bins(slopes: Array) -> Array:
    found: Array = slopes.reshape(-1, PARTS).mean(axis=1)
    return found


def _without_negatives(counts: Array) -> Array:
    """The nearest histogram, by squared distance, that has the same total and no count below zero."""
    if counts.sum() <= 0:
        return np.zeros_like(counts)
    falling = np.sort(counts)[::-1]
    over = (np.cumsum(falling) - counts.sum()) / np.arange(1, len(counts) + 1)
    found: Array = np.maximum(counts - over[np.flatnonzero(falling > over)[-1]], 0.0)
    return found
