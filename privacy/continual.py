"""Continual counting by the binary mechanism: running figures over days to months for one charge.

Dwork, Naor, Pitassi and Rothblum 2010 ("Differential privacy under continual observation", STOC) and Chan, Shi and
Song 2011 ("Private and continual release of statistics", ACM TISSEC 14(3), Algorithm 2), with Gaussian noise as in
Denisov, McMahan, Rush, Smith and Thakurta 2022 (arXiv 2202.08312), who show that it holds for streams that depend on
what was released before. Theirs to ours: T is ``ticks``, sigma is ``noise_multiplier``.

A stream x_1 ... x_T of numbers, one a tick, is released as the noised sums of the nodes of a binary tree
(``protocol.dyadic``). A running total to tick t is the sum of popcount(t) <= L nodes, L = floor(log2 T) + 1, instead of
t single ticks; so its error grows with log T and not with T.

**What a patient moves, at patient level.** A patient makes at most m contributions in the *whole campaign*
(corrections, and what is counted again because its tick was lost, among them), each of size at most b, each to one
tick. A tick lies in at most one node of each level, so a contribution moves at most L nodes by b each: a vector of
2-norm at most b sqrt(L). m of them move the nodes by a sum of m such vectors, of 2-norm at most m b sqrt(L) by the
triangle inequality, with equality where all m fall into the same nodes. So this is the sensitivity to adding or
removing a patient with everything that is theirs, and no smaller number is.

Several indicators are one vector: indicator k, of bound m_k b_k sqrt(L), is scaled to w_k, sum w_k^2 = 1, so the whole
vector of all nodes of all indicators moves by at most sqrt(sum w_k^2) = 1. Noise N(0, sigma^2) on every node, drawn
once, makes it one Gaussian mechanism of sensitivity 1 and noise multiplier sigma, released in parts: one event for the
whole campaign (``protocol.events.TreeGaussian``), charged before the first row is read.

An epsilon for one event of a patient instead of all of them is smaller by about m. It is not what is promised or
charged; ``event_level_noise`` is for display.
"""

from math import sqrt

import numpy as np
import numpy.typing as npt

from wardround.privacy.gradients import Array, RandomBytes
from wardround.privacy.mechanisms import noisy_sum
from wardround.protocol.dyadic import closing, levels, prefix
from wardround.protocol.indicators import Indicator, Indicators


def sensitivity(ticks: int, contributions: int, bound: float) -> float:
    """m b sqrt(L): how far one patient moves all nodes together, 2-norm, in the indicator's unit."""
    return contributions * bound * sqrt(levels(ticks))


def scale(task: Indicators, indicator: Indicator) -> float:
    """What one unit of the released vector is in the indicator's own: m b sqrt(L) / w, sum of all w^2 = 1.

    So one patient with all of their contributions to all indicators moves the whole vector by 1 at most.
    """
    weight = sqrt(indicator.share / sum(each.share for each in task.indicators))
    return sensitivity(task.ticks, indicator.contributions, indicator.bound) / weight


def closed_sums(stream: npt.ArrayLike, tick: int) -> Array:
    """The sums of the nodes that close at ``tick``, shape (nodes, indicators), the single tick first.

    ``stream``: (T, indicators), row t - 1 that of tick t; rows behind ``tick`` are not read.
    """
    rows = np.asarray(stream, np.float64)
    return np.array([rows[node.begin - 1 : node.end].sum(axis=0) for node in closing(tick)])


def noised(sums: Array, noise_multiplier: float | None, random_bytes: RandomBytes) -> Array:
    """Node sums in units of the joint bound with fresh noise on a lattice (``privacy.mechanisms``); None: exact."""
    if noise_multiplier is None:
        return sums
    return noisy_sum(sums.ravel(), 1.0, noise_multiplier, random_bytes).reshape(sums.shape)


def prefix_deviation(tick: int, node_deviation: float) -> float:
    """Standard deviation of the noise in the running total to ``tick``: sqrt(popcount) nodes."""
    return node_deviation * sqrt(len(prefix(tick)))


def worst_prefix_deviation(ticks: int, node_deviation: float) -> float:
    """The largest that ``prefix_deviation`` is at any tick of the campaign: that of 2^k - 1, the longest run of 1."""
    full = (1 << levels(ticks)) - 1
    most = levels(ticks) if ticks == full else levels(ticks) - 1
    return node_deviation * sqrt(max(1, most))


def event_level_noise(task: Indicators, noise_multiplier: float) -> float:
    """The noise multiplier that one single event meets, in all indicators of its kind together, at the worst kind.

    For display: nothing is charged by it. One event moves indicator k by w_k / m_k of what a patient may.
    """
    moved: dict[str, float] = {}
    for indicator in task.indicators:
        one = indicator.bound * sqrt(task.levels) / scale(task, indicator)
        for kind in indicator.kinds:
            moved[kind] = moved.get(kind, 0.0) + one**2
    return noise_multiplier / sqrt(max(moved.values()))
