"""What it costs to release the best of several private runs: the price of tuning on patients.

Papernot and Steinke 2022, "Hyperparameter Tuning with Renyi Differential Privacy" (arXiv 2110.03620). Draw how many
trials to make, at random; for each, pick a candidate at random and run it; release the best, and neither the others nor
how many there were. What that costs grows slowly with the number of trials, where adding all of them up grows fast.

Theirs to ours: lambda is ``order``, epsilon(lambda) the divergence of one run there, E[K] ``Trials.mean``, eta
``Trials.shape``, gamma is found from the mean. Guarantee: for one patient, adding or removing one, as that of the runs.
The score by which runs are compared has to be a function of the run's own release; a score that looks at further
patients costs *their* privacy, which is not in here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from wardround.privacy.accounting import renyi_curve
from wardround.protocol.errors import UsageError
from wardround.protocol.events import DpEvent, Unprotected

Array = npt.NDArray[np.float64]

SHAPES: Final = (math.inf, 1.0, 0.0)
"""Poisson, geometric, logarithmic: of these ``cheapest`` takes the best. Which is best is public."""

_HALVINGS: Final = 200


@dataclass(frozen=True, slots=True)
class Trials:
    """The distribution of the number of trials K.

    ``mean`` is E[K], at least 1. ``shape``: inf is Poisson (which may draw 0: nothing is released then); eta >= 0 is
    the truncated negative binomial, of which 1 is the geometric and 0 the logarithmic distribution.
    """

    mean: float
    shape: float

    def __post_init__(self) -> None:
        if not (1 <= self.mean < math.inf and self.shape >= 0):
            raise UsageError(
                f"no number of trials has mean {self.mean:g} and shape {self.shape:g}",
                "give a mean of at least 1 and a shape of at least 0",
            )

    @property
    def name(self) -> str:
        known = {math.inf: "Poisson", 1.0: "geometric", 0.0: "logarithmic"}
        return known.get(self.shape, f"truncated negative binomial, shape {self.shape:g}")


@dataclass(frozen=True, slots=True)
class Selection:
    """``epsilon`` of a selection at the delta that was asked for, with the trials that were counted."""

    epsilon: float
    trials: Trials


def selection_epsilon(candidates: Sequence[Sequence[DpEvent]], delta: float, trials: Trials) -> float:
    """The epsilon at ``delta`` of releasing the best of so many trials, each of a candidate that is drawn at random.

    ``candidates``: what one run of each releases. inf with an unprotected one.

    Raises:
        UsageError: there is no candidate, or delta is not in (0, 1).
    """
    if not candidates or not 0 < delta < 1:
        raise UsageError("a selection needs candidates, and a delta between 0 and 1", "give both")
    if any(isinstance(event, Unprotected) for events in candidates for event in events):
        return math.inf
    # A candidate drawn at random diverges no more than the one that diverges most (quasi-convexity, at each order).
    orders, _ = renyi_curve(candidates[0])
    one_run = np.max([renyi_curve(events)[1] for events in candidates], axis=0)
    return epsilon_at(orders, selection_curve(orders, one_run, trials), delta)


def cheapest(candidates: Sequence[Sequence[DpEvent]], delta: float, mean: float) -> Selection:
    """The distribution of ``SHAPES`` with the smallest epsilon for ``mean`` trials."""
    found = [Trials(mean, shape) for shape in SHAPES]
    return min(
        (Selection(selection_epsilon(candidates, delta, trials), trials) for trials in found),
        key=lambda selection: selection.epsilon,
    )


def selection_curve(orders: Array, one_run: Array, trials: Trials) -> Array:
    """The Renyi divergences of the selection at ``orders`` (n,), all above 1, from those of one run (n,)."""
    several = math.log(trials.mean) / (orders - 1)
    if trials.shape == math.inf:
        # Theorem 6: e^epsilonhat = 1 + 1 / (lambda - 1), deltahat is one run's delta there.
        deltas = np.array([delta_at(orders, one_run, math.log1p(1 / (order - 1))) for order in orders])
        return one_run + trials.mean * deltas + several
    # Theorem 2, at the best lambdahat, which may be another order than lambda.
    gamma = _gamma(trials.mean, trials.shape)
    constant = (1 + trials.shape) * float(np.min((1 - 1 / orders) * one_run - math.log(gamma) / orders))
    return one_run + constant + several


def epsilon_at(orders: Array, curve: Array, delta: float) -> float:
    """The epsilon at ``delta`` of a Renyi curve: Canonne, Kamath and Steinke 2020, Proposition 12."""
    values = curve + np.log1p(-1 / orders) - (math.log(delta) + np.log(orders)) / (orders - 1)
    return max(0.0, float(np.nanmin(values)))


def delta_at(orders: Array, curve: Array, epsilon: float) -> float:
    """The same turned round: the delta at ``epsilon``, at most 1."""
    logs = (orders - 1) * (curve - epsilon + np.log1p(-1 / orders)) - np.log(orders)
    return math.exp(min(0.0, float(np.nanmin(logs))))


def _gamma(mean: float, shape: float) -> float:
    """gamma in (0, 1] with which the truncated negative binomial has ``mean``; rounded down, which costs more."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if _mean(middle, shape) >= mean else (low, middle)
    return low if low > 0 else high


def _mean(gamma: float, shape: float) -> float:
    """E[K] of Definition 1: shape (1 - gamma) / gamma / (1 - gamma^shape), and its limit for shape 0."""
    if gamma >= 1:
        return 1.0
    log = math.log(gamma)
    spread = -log if shape == 0 else -math.expm1(shape * log) / shape
    return -math.expm1(log) / gamma / spread
