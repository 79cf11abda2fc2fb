"""From what an attack found to a lower bound on epsilon, with 95 % confidence.

Two ways. Many trained models or many targets give a true- and a false-positive rate, which differential privacy ties
together (Kairouz, Oh and Viswanath 2015); one run with many canaries that are in or out by fair coins bounds how many
of them anyone can guess (Steinke, Nasr and Jagielski 2023, arXiv 2305.08846, theorem 5.2).
"""

import math
from typing import Final

import numpy as np
from scipy.stats import beta, binom

CONFIDENCE: Final = 0.95
_HIGHEST: Final = 50.0
"""No audit of a thousand canaries shows more."""


def from_rates(hits: int, members: int, alarms: int, others: int, delta: float) -> float:
    """The epsilon below which (TPR - delta) <= e^epsilon FPR fails, with 95 % confidence; 0 when nothing is shown.

    Args:
        hits: members that were called members, of ``members``.
        alarms: others that were called members, of ``others``. The threshold was chosen on other data.
    """
    level = (1 - CONFIDENCE) / 2
    least_hits = float(beta.ppf(level, hits, members - hits + 1)) if hits else 0.0
    most_alarms = float(beta.ppf(1 - level, alarms + 1, others - alarms)) if alarms < others else 1.0
    return max(0.0, math.log((least_hits - delta) / most_alarms)) if least_hits > delta else 0.0


def from_one_run(correct: int, guesses: int, canaries: int, delta: float) -> float:
    """The largest epsilon that ``correct`` of ``guesses`` refute with 95 % confidence; 0 when they refute none.

    Args:
        canaries: all that a coin was tossed for, those without a guess included.
    """
    if not 0 <= correct <= guesses <= canaries:
        raise ValueError(f"{correct} of {guesses} guesses about {canaries} canaries is no result")
    low, high = 0.0, _HIGHEST
    if p_value(0.0, correct, guesses, canaries, delta) > 1 - CONFIDENCE:
        return 0.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        if p_value(middle, correct, guesses, canaries, delta) <= 1 - CONFIDENCE:
            low = middle
        else:
            high = middle
    return low


def p_value(epsilon: float, correct: int, guesses: int, canaries: int, delta: float) -> float:
    """At most so probable are ``correct`` or more right guesses against any (epsilon, delta)-private mechanism.

    Letters of the theorem: v is ``correct``, r is ``guesses``, m is ``canaries``. P[Binomial(r, p) >= v] plus
    2 m delta max_i P[v - i <= Binomial(r, p) < v] / i, with p = e^epsilon / (e^epsilon + 1).
    """
    chance = 1 / (1 + math.exp(-epsilon))
    tail = float(binom.sf(correct - 1, guesses, chance))
    below = binom.pmf(np.arange(correct - 1, -1, -1), guesses, chance)  # P[= v - 1], P[= v - 2], ...
    widest = float((np.cumsum(below) / np.arange(1, len(below) + 1)).max(initial=0.0))
    return min(1.0, tail + 2 * canaries * delta * widest)
