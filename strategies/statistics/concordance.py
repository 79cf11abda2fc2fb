"""How well a risk ranks times to an event, from a noised table of outcome by bin of risk.

**Estimand.** Harrell's c-index (1982) of the pairs whose order the grid knows: one patient had the event in an
interval, the other was seen beyond its end, with or without an event later. The share of these pairs in which the first
has the higher risk; patients of one bin of risk count as a half. Events beyond the grid are no events, so it is the
c-index up to the grid's end, and exactly that of events whose times are rounded up to the grid and of censorings whose
times are rounded down. As Harrell's own it depends on who is censored when: it is not what would be without censoring.

**Interval.** c = U / P with U = n' A n and P = n' B n, n the table as one vector: A and B join a cell of an event to
cells of later outcomes only, which have noise of their own, so both are unbiased whatever the noise. With
g = (A + A') n, h = (B + B') n and D the covariance of n (Poisson sampling and noise), g' D h - tr(A D B' D) is an
unbiased estimate of their covariance: the first term alone holds the second once too often (as Goodman 1960 for a
product). The ratio has Fieller's interval.
"""

import numpy as np

from wardround.privacy.gradients import Array
from wardround.strategies.statistics.fieller import Interval, fieller


def concordance(table: Array, noise: Array, z: float) -> tuple[float, Interval | None]:
    """The c-index and its interval.

    Args:
        table: patients, shape (2 k + 1, bins): events of each interval, censored in each, seen beyond the last.
        noise: covariance of the noise of one row of it, (bins, bins); rows have noises of their own.
    """
    bins = table.shape[1]
    right, ones = np.tri(bins) - 0.5 * np.eye(bins), np.ones((bins, bins))
    later = seen_later(len(table))
    ranked, pairs = (float((table[: len(later)] * (later @ table @ each.T)).sum()) for each in (right, ones))
    covariances = [np.diag(np.maximum(row, 0.0)) + noise for row in table]
    variances = (
        _covariance(table, covariances, later, one, other)
        for one, other in ((right, right), (right, ones), (ones, ones))
    )
    return ranked / pairs if pairs else 0.0, fieller(ranked, pairs, z, *variances)


def seen_later(outcomes: int) -> Array:
    """(k, 2 k + 1): 1 where who has that outcome was seen beyond the end of that interval."""
    k = outcomes // 2
    beyond = np.triu(np.ones((k, k)), 1)
    return np.concatenate([beyond, beyond, np.ones((k, 1))], axis=1)


def _covariance(table: Array, covariances: list[Array], later: Array, one: Array, other: Array) -> float:
    """Of the two forms that join events to later outcomes, and bins by ``one`` and by ``other``."""
    first, second = (_slopes(table, later, each) for each in (one, other))
    found = sum(float(g @ d @ h) for g, d, h in zip(first, covariances, second, strict=True))
    for events, beyond in enumerate(later):
        joined = sum(is_later * d for is_later, d in zip(beyond, covariances, strict=True))
        found -= float(np.trace(one @ joined @ other.T @ covariances[events]))
    return found


def _slopes(table: Array, later: Array, kernel: Array) -> Array:
    """Derivatives of sum_(i, o) later_io events_i' kernel table_o by every number of ``table``."""
    found: Array = later.T @ table[: len(later)] @ kernel
    found[: len(later)] += later @ table @ kernel.T
    return found
