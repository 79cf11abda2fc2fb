"""Renyi differential privacy of the Poisson-subsampled Gaussian at integer orders, with numpy alone.

Mironov, Talwar and Zhang 2019 (arXiv 1908.10530, section 3.3), add-or-remove-one adjacency. An upper bound on
epsilon in milliseconds, where loading dp-accounting takes more than a second; ``accounting`` has the tight
one. Theirs to ours: sigma is ``noise_multiplier``, q is ``sampling_probability``, alpha is ``order``.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from wardround.protocol.events import DpEvent, Unprotected

Array = npt.NDArray[np.float64]

ORDERS: Final = tuple(range(2, 257))
"""The integer orders at which ``rdp_epsilon`` looks."""


def gaussian_rdp(noise_multiplier: float, sampling_probability: float, order: int) -> float:
    """The Renyi divergence of ``order`` >= 2 of one step, or inf where a double cannot hold it.

    With A = sum_k C(alpha, k) (1-q)^(alpha-k) q^k e^(k(k-1) / (2 sigma^2)) it is ln(A) / (alpha - 1). The
    binomial terms alone add up to 1, so A - 1 is the same sum with e^x - 1 for e^x: its terms are positive,
    the first two zero, and nothing cancels where A is near 1 (small q).
    """
    if not noise_multiplier:
        return math.inf
    inverse_variance = 1.0 / noise_multiplier / noise_multiplier
    if sampling_probability == 1.0:
        return order * inverse_variance / 2.0
    k, log_binomials = _binomials(order)
    exponents = k * (k - 1.0) * (inverse_variance / 2.0)
    if not np.isfinite(exponents).all():
        return math.inf
    terms = (
        log_binomials
        + (order - k) * math.log1p(-sampling_probability)
        + k * math.log(sampling_probability)
        + _log_expm1(exponents)
    )
    largest = float(terms.max())
    if largest == -math.inf:
        return 0.0
    log_excess = largest + math.log(float(np.exp(terms - largest).sum()))
    return float(np.logaddexp(0.0, log_excess)) / (order - 1)


def conversion(order: int, delta: float) -> float:
    """What (alpha, rho)-Renyi privacy adds to rho to become epsilon at ``delta``; negative for a large delta.

    ln(1 - 1/alpha) - (ln delta + ln alpha) / (alpha - 1): Canonne, Kamath and Steinke 2020, Proposition 12.
    """
    return math.log1p(-1.0 / order) - (math.log(delta) + math.log(order)) / (order - 1)


def rdp_epsilon(events: Sequence[DpEvent], delta: float) -> float:
    """An upper bound on epsilon at ``delta`` of all ``events`` together, at the best order of ``ORDERS``.

    0 for no event, inf with an unprotected one. ``delta`` is in (0, 1).
    """
    if not events:
        return 0.0
    total = np.zeros(len(ORDERS))
    for event in events:
        if isinstance(event, Unprotected):
            return math.inf
        total += event.steps * _curve(event.noise_multiplier, event.sampling_probability)
    return max(0.0, float((total + _conversions(delta)).min()))


@lru_cache(maxsize=1024)
def _curve(noise_multiplier: float, sampling_probability: float) -> Array:
    """Shape (orders,): ``gaussian_rdp`` of one step at each of ``ORDERS``, all of them in one table."""
    inverse_variance = 1.0 / noise_multiplier / noise_multiplier
    k, log_binomials, left_out = _table()
    exponents = k * (k - 1.0) * (inverse_variance / 2.0)
    if sampling_probability == 1.0 or not np.isfinite(exponents).all():
        return np.array([gaussian_rdp(noise_multiplier, sampling_probability, order) for order in ORDERS])
    terms = log_binomials + left_out * math.log1p(-sampling_probability)
    terms += k * math.log(sampling_probability) + _log_expm1(exponents)
    largest = terms.max(axis=1)
    if not np.isfinite(largest).all():
        return np.array([gaussian_rdp(noise_multiplier, sampling_probability, order) for order in ORDERS])
    log_excess = largest + np.log(np.exp(terms - largest[:, None]).sum(axis=1))
    found: Array = np.logaddexp(0.0, log_excess) / (np.array(ORDERS) - 1.0)
    return found


@lru_cache(maxsize=1)
def _table() -> tuple[Array, Array, Array]:
    """k = 2..256, and by order and k: ln C(order, k), -inf where k > order, and order - k, 0 there."""
    k, _ = _binomials(ORDERS[-1])
    log_binomials = np.full((len(ORDERS), len(k)), -np.inf)
    for row, order in enumerate(ORDERS):
        log_binomials[row, : order - 1] = _binomials(order)[1]
    return k, log_binomials, np.maximum(np.array(ORDERS)[:, None] - k, 0.0)


@lru_cache(maxsize=16)
def _conversions(delta: float) -> Array:
    return np.array([conversion(order, delta) for order in ORDERS])


@lru_cache(maxsize=512)
def _binomials(order: int) -> tuple[Array, Array]:
    """k = 2..order, and ln C(order, k)."""
    k = np.arange(2, order + 1)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, order + 1)))])
    return k.astype(np.float64), log_factorial[order] - log_factorial[k] - log_factorial[order - k]


def _log_expm1(x: Array) -> Array:
    """ln(e^x - 1) for x >= 0, without overflow."""
    with np.errstate(divide="ignore"):
        result: Array = x + np.log(-np.expm1(-x))
    return result
