"""The budget of a data domain: a Renyi filter at one fixed order, in exact integers.

A domain's order alpha* is fixed when it is opened. A release is admitted iff the divergences of order alpha*
of all admitted releases, its own included, stay within ``cap - conversion(alpha*, delta)``. That holds the
cap even when each release is chosen after seeing the ones before (Feldman and Zrnic 2021, arXiv 2008.11193);
adding up the tighter curves of ``accounting`` as one goes along does not.

Amounts are integers of 1e-12, computed in decimal arithmetic of 60 digits: costs are rounded up, the
allowance down, and every machine comes to the same integers. No file, no clock: the ledger keeps the sums.
"""

import decimal
import math
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Final

from wardround.privacy.rdp import conversion
from wardround.protocol.errors import UsageError
from wardround.protocol.events import DpEvent, PoissonGaussian

UNITS: Final = 10**12
"""Units in a divergence of 1."""

MAX_ORDER: Final = 1024
"""The largest order that a domain may be opened with."""

_CONTEXT: Final = decimal.Context(
    prec=60,
    Emax=decimal.MAX_EMAX,
    Emin=decimal.MIN_EMIN,
    traps=[decimal.InvalidOperation, decimal.DivisionByZero],
)
_SLACK: Final = Decimal("1e-40")
"""Relative; far above what 60 digits lose over ``MAX_ORDER`` terms, far below a unit."""

_UNBOUNDED: Final = Decimal("1e30")


@dataclass(frozen=True, slots=True)
class Allowed:
    """The release fits: what is spent with it, and what remains, in units."""

    spent: int
    headroom: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The release does not fit, and one sentence about why."""

    reason: str


def delta_for(patients: int) -> float:
    """The delta of a domain of ``patients``: 10^-ceil(log10(10 N)), so between 1/(100 N) and 1/(10 N)."""
    if patients < 1:
        raise UsageError(f"{patients} patients are no data domain", "give the declared number of patients")
    return float(f"1e-{len(str(10 * patients - 1))}")


@lru_cache(maxsize=64)
def fixed_order(epsilon_cap: float, delta: float) -> int:
    """alpha*: the integer order at which one unit of the cap buys the most divergence per order.

    It maximises (cap - conversion(alpha, delta)) / alpha over 2..``MAX_ORDER``, since a Gaussian's divergence
    grows like alpha. Raises UsageError where no order leaves anything to spend.
    """
    _check_terms(epsilon_cap, delta)
    best = max(range(2, MAX_ORDER + 1), key=lambda order: (epsilon_cap - conversion(order, delta)) / order)
    if epsilon_cap <= conversion(best, delta):
        raise _nothing_to_spend(epsilon_cap, delta)
    return best


def allowance(epsilon_cap: float, delta: float, order: int) -> int:
    """Units that a domain may spend at ``order``, rounded down. Raises UsageError where there are none."""
    _check_terms(epsilon_cap, delta)
    _check_order(order)
    with decimal.localcontext(_CONTEXT):
        alpha = Decimal(order)
        convert = (1 - 1 / alpha).ln() - (Decimal(delta).ln() + alpha.ln()) / (alpha - 1)
        exact = (Decimal(epsilon_cap) - convert) * UNITS
        units = int((exact - abs(exact) * _SLACK).to_integral_value(decimal.ROUND_FLOOR))
    if units <= 0:
        raise _nothing_to_spend(epsilon_cap, delta)
    return units


def cost(event: DpEvent, order: int) -> int:
    """Units that ``event`` takes from a domain of ``order``, rounded up, at least 1.

    Raises UsageError for a kind of event without a bound at that order, or with one beyond any budget.
    """
    _check_order(order)
    if not isinstance(event, PoissonGaussian):
        raise UsageError(
            f"a release of kind '{event.kind}' has no bound at any order, so no budget can hold it",
            "only a simulation opens a data domain without a budget",
        )
    with decimal.localcontext(_CONTEXT):
        step = _step_cost(event.noise_multiplier, event.sampling_probability, order)
        exact = event.steps * step
        if not exact < _UNBOUNDED:
            raise UsageError(
                f"noise multiplier {event.noise_multiplier:g} is too small: no budget holds the release",
                "use a larger noise multiplier",
            )
        return max(1, int((exact * (1 + _SLACK)).to_integral_value(decimal.ROUND_CEILING)))


def may_spend(spent: int, event: DpEvent, allowance: int, order: int) -> Allowed | Refused:
    """Whether ``event`` fits into what ``spent`` leaves of ``allowance``. Exact; a refusal spends nothing."""
    try:
        price = cost(event, order)
    except UsageError as error:
        return Refused(error.message)
    return fits(spent, price, allowance, order)


def fits(spent: int, price: int, allowance: int, order: int) -> Allowed | Refused:
    """Whether ``price`` units fit into what ``spent`` leaves of ``allowance``."""
    if spent < 0 or price < 1:
        raise ValueError(f"spent is {spent}, the price {price}")
    if spent + price > allowance:
        left = max(0, allowance - spent)
        return Refused(
            f"the budget of the data domain is too small: the release costs "
            f"{_text(price, decimal.ROUND_CEILING)} and {_text(left, decimal.ROUND_FLOOR)} is left "
            f"(Renyi divergence of order {order})"
        )
    return Allowed(spent + price, allowance - spent - price)


@lru_cache(maxsize=256)
def _step_cost(noise_multiplier: float, sampling_probability: float, order: int) -> Decimal:
    """Units of one step, not rounded: ``rdp.gaussian_rdp`` in decimals. Infinite where these overflow."""
    with decimal.localcontext(_CONTEXT):
        inverse = 1 / (2 * Decimal(noise_multiplier) ** 2)
        if sampling_probability == 1.0:
            return order * inverse * UNITS
        q = Decimal(sampling_probability)
        excess = Decimal(0)
        for k in range(2, order + 1):
            chance = math.comb(order, k) * (1 - q) ** (order - k) * q**k
            excess += chance * _expm1(k * (k - 1) * inverse)
        return _log1p(excess) / (order - 1) * UNITS


def _expm1(x: Decimal) -> Decimal:
    """e^x - 1 for x > 0; the series where subtracting 1 would cost digits (sigma above 1e5)."""
    if x > Decimal("1e-10"):
        return x.exp() - 1
    return x * (1 + x / 2 * (1 + x / 3 * (1 + x / 4 * (1 + x / 5))))


def _log1p(x: Decimal) -> Decimal:
    """ln(1 + x) for x >= 0; where adding 1 would cost digits, its bound x, larger by less than x^2 / 2."""
    return (1 + x).ln() if x > Decimal("1e-15") else x


def _text(units: int, rounding: str) -> str:
    return str((Decimal(units) / UNITS).quantize(Decimal("0.0001"), rounding))


def _check_terms(epsilon_cap: float, delta: float) -> None:
    if not (0 < epsilon_cap < math.inf and 0 < delta < 1):
        raise UsageError(
            f"a budget of epsilon {epsilon_cap} at delta {delta} is no budget",
            "epsilon must be positive, delta between 0 and 1",
        )


def _check_order(order: int) -> None:
    if not 2 <= order <= MAX_ORDER:
        raise UsageError(f"no budget is kept at order {order}", f"orders are the integers 2 to {MAX_ORDER}")


def _nothing_to_spend(epsilon_cap: float, delta: float) -> UsageError:
    return UsageError(
        f"a budget of epsilon {epsilon_cap:g} at delta {delta:g} leaves nothing to spend",
        "raise the epsilon cap, or open the domain with a larger delta if the patients are few",
    )
