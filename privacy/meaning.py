"""What an epsilon means: how many patients an attacker can rightly accuse, and that in an officer's words.

The attacker asks whether a person was in the training set, knows everything but that, and accepts to accuse 1 in 100 of
those who were not. A Gaussian mechanism is as hard to tell apart as N(0, 1) and N(mu, 1) (Dong, Roth and Su 2022, arXiv
1905.02383), and is (epsilon, delta)-private exactly where Balle and Wang (2018, arXiv 1805.06530, theorem 8) say so,
which gives mu. For any other mechanism with that epsilon and delta only the bound without a shape holds.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

from wardround.privacy.accounting import rounded_up
from wardround.protocol.errors import UsageError

FALSE_ACCUSATIONS: Final = 0.01
"""The share of people outside the training set whom the attacker is ready to accuse wrongly."""

UNIT: Final = "one patient of one site"
ADJACENCY: Final = "add or remove one patient"
AGAINST: Final = "everyone, whoever colludes"
AGAINST_CONSORTIUM: Final = (
    "the coordinator and as many sites as a plan counts as colluding; other sites keep their noise"
)
WAIVED: Final = "had no differential privacy, as two officers signed: the epsilon does not cover what they told"

LARGEST_EPSILON: Final = 100.0
"""Above it the words would be the same: everybody is found. Below it nothing here overflows."""

_NORMAL: Final = NormalDist()


@dataclass(frozen=True, slots=True)
class Meaning:
    """The attacker's best, as shares in 0..1 at ``FALSE_ACCUSATIONS``."""

    epsilon: float
    delta: float
    mu: float
    gaussian: float
    """Rightly accused share of the training patients, for Gaussian noise."""
    any_mechanism: float
    """The same for the worst mechanism with this epsilon and delta."""


def conditions(delta: float, against: str = AGAINST) -> str:
    """What must stand near every epsilon: delta, unit, adjacency, and who may collude."""
    return f"at delta {delta:g}; unit: {UNIT}; adjacency: {ADJACENCY}; against {against}"


def meaning(epsilon: float, delta: float) -> Meaning:
    """What (``epsilon``, ``delta``) allows an attacker. Raises UsageError outside 0..100 and (0, 1)."""
    mu = gaussian_mu(epsilon, delta)
    return Meaning(epsilon, delta, mu, true_accusations(mu), any_true_accusations(epsilon, delta))


def gaussian_mu(epsilon: float, delta: float) -> float:
    """The mu of the Gaussian mechanism whose delta at ``epsilon`` is ``delta``; the upper end of its bracket.

    Its one-shot noise multiplier is 1 / mu.
    """
    _check(epsilon, delta)
    low, high = 0.0, 1.0
    while gaussian_delta(epsilon, high) < delta:
        low, high = high, 2.0 * high
    while high - low > 1e-14 * high:
        middle = (low + high) / 2.0
        if gaussian_delta(epsilon, middle) < delta:
            low = middle
        else:
            high = middle
    return high


def gaussian_delta(epsilon: float, mu: float) -> float:
    """Phi(-epsilon/mu + mu/2) - e^epsilon Phi(-epsilon/mu - mu/2): rises with mu, for mu > 0."""
    return max(0.0, _phi(-epsilon / mu + mu / 2) - math.exp(epsilon) * _phi(-epsilon / mu - mu / 2))


def true_accusations(mu: float, false_accusations: float = FALSE_ACCUSATIONS) -> float:
    """Phi(Phi^-1(false) + mu): the power of the best test between N(0, 1) and N(mu, 1), Neyman and Pearson."""
    return _phi(_NORMAL.inv_cdf(false_accusations) + mu)


def any_true_accusations(epsilon: float, delta: float, false_accusations: float = FALSE_ACCUSATIONS) -> float:
    """The same from the definition of (epsilon, delta) alone, which binds both ways round (Kairouz et al. 2015)."""
    _check(epsilon, delta)
    least = math.exp(-epsilon) * (1 - delta - false_accusations)
    return min(math.exp(epsilon) * false_accusations + delta, 1.0 - max(0.0, least), 1.0)


def officers_words(epsilon: float, delta: float) -> str:
    """The officer's sentences: an attack and its best success, what delta is, and what epsilon does not say."""
    found = meaning(epsilon, delta)
    return "\n".join(
        (
            f"Epsilon {rounded_up(epsilon)} ({conditions(delta)}).",
            "Somebody wants to know whether a person was in the training set, knows all else about everybody, and is "
            "ready to accuse 1 in 100 of those who were not.",
            f"Of 100 who were, about {in_a_hundred(found.gaussian)} can be accused rightly at best, with Gaussian "
            "noise like ours; by guessing it is 1.0.",
            f"From epsilon and delta alone, whatever the mechanism, the bound is {in_a_hundred(found.any_mechanism)}.",
            f"Delta is what the bound leaves out: a chance of {delta:g}, which must stay far below 1 in the number of "
            "patients.",
            "It is a bound on what taking part adds. What the study teaches about people like this patient is learned "
            "with or without that patient.",
        )
    )


def in_a_hundred(share: float) -> str:
    """A share as a number of 100, with one decimal, never less than it is: it says what an attacker can do at best."""
    return f"{math.ceil(round(1000 * share, 9)) / 10:.1f}"


def _phi(x: float) -> float:
    """The normal distribution function, with all its digits in the lower tail."""
    return math.erfc(-x / math.sqrt(2.0)) / 2.0


def _check(epsilon: float, delta: float) -> None:
    if not 0 <= epsilon <= LARGEST_EPSILON:
        raise UsageError(
            f"epsilon {epsilon:g} has no meaning to explain", f"give a number from 0 to {LARGEST_EPSILON:g}"
        )
    if not 0 < delta < 1:
        raise UsageError(f"delta is {delta:g}", "delta is a probability, far below one in the number of patients")
