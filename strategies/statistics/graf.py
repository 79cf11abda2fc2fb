"""The Brier score of predicted survival under censoring, from sums of losses on a grid of times (Graf et al. 1999).

**Estimand.** Of n patients whose times are rounded up to the grid t_1 < .. < t_k,

    BS(t) = 1/n sum [ S(t)^2 1{event by t} / G(T -) + (1 - S(t))^2 1{seen beyond t} / G(t) ],

S the predicted survival of a patient, T its time, G the Kaplan-Meier estimate of being uncensored: on the grid, events
come before the censorings of the same interval. G comes from the counts of the same sums. So it estimates the mean
squared error of the prediction in a population where nobody is censored, if who is censored does not depend on risk,
and up to what the grid rounds away. Integrated: (1 / t_k) times the integral from 0 to t_k by the trapezoidal rule,
with BS(0) = 0.

**Sums.** The losses of t_j are kept apart by the interval i <= j of the event, and for those seen beyond t_j: weights
follow afterwards, from what was released. So there are j + 1 numbers for t_j, k (k + 3) / 2 in all.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from wardround.privacy.gradients import Array, Indices
from wardround.strategies.statistics.survival import events_and_at_risk

LEAST_SEEN: Final = 0.01
"""No patient stands for more than a hundred, whatever the noise has made of the censored."""


def losses_of(lives: Array, outcome: Indices) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Of each row the squared error at each time, and whether the row was seen long enough to have one: (rows, k).

    Args:
        lives: predicted survival, (rows, k).
        outcome: 0 .. k - 1 the event in that interval, then censored in each, 2 k seen beyond the last.
    """
    k = lives.shape[1]
    interval = _interval(k, outcome)
    beyond = interval > np.arange(k)
    return np.where(beyond, (1 - lives) ** 2, lives**2), beyond | (outcome < k)[:, None]


def loss_places(k: int, outcome: Indices) -> Indices:
    """The place of each row's loss at each time among all losses, (rows, k): distinct in a row."""
    time = np.arange(k)
    found: Indices = time * (time + 3) // 2 + np.minimum(_interval(k, outcome), time + 1)
    return found


def brier_scores(times: Sequence[float], counts: Array, losses: Array, less: float) -> Array:
    """BS at each time, and the integrated one, (k + 1,); each in 0 .. 1.

    Args:
        counts: patients by outcome, (2 k + 1,).
        losses: sums at their ``loss_places``, each patient's less ``less``.
    """
    k = len(times)
    events, at_risk = events_and_at_risk(counts)
    left = np.maximum(at_risk - events, 1.0)
    seen = np.maximum(np.cumprod(1 - np.minimum(counts[k : 2 * k] / left, 1.0)), LEAST_SEEN)
    before = np.concatenate([[1.0], seen[:-1]])
    beyond = np.append(at_risk[1:], counts[-1])
    found, first = [], 0
    for time in range(k):
        of_events, of_beyond = losses[first : first + time + 1], losses[first + time + 1]
        first += time + 2
        weighted = ((of_events + less * counts[: time + 1]) / before[: time + 1]).sum()
        weighted += (of_beyond + less * beyond[time]) / seen[time]
        found.append(weighted / max(float(counts.sum()), 1.0))
    whole = np.concatenate([[0.0], found])
    integrated = (np.diff(times, prepend=0.0) * (whole[1:] + whole[:-1]) / 2).sum() / times[-1]
    scores: Array = np.clip(np.append(found, integrated), 0.0, 1.0)
    return scores


def _interval(k: int, outcome: Indices) -> Indices:
    """Of each row the interval of its time, k beyond the last, as a column."""
    return np.where(outcome < 2 * k, outcome % k, k)[:, None]
