"""From mechanism events to (epsilon, delta), through Google's dp-accounting.

Unit: one patient of one site; adjacency: add or remove one, never replace one. Epsilon is the smaller of two
upper bounds: privacy loss distributions (PLD, "Connect the Dots": Doroshenko et al. 2022, arXiv 2207.04380),
which are tight, and Renyi differential privacy (RDP), which stays sound where Fourier transforms lose the
tail. All events are taken as fixed in advance; ``budget`` is the rule for releases that are chosen as one
goes along.

dp-accounting takes more than a second to import, so functions import it when they need it.
"""

import logging
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wardround.privacy.rdp import rdp_epsilon
from wardround.protocol.errors import UsageError
from wardround.protocol.events import DpEvent, PoissonGaussian, Unprotected
from wardround.protocol.plan import StudyPlan

LARGEST_NOISE_MULTIPLIER: Final = 1000.0

_GRID: Final = 1e-4
_FINE_GRID: Final = 1e-5
"""For epsilon below ``_SMALL_EPSILON`` or more than ``_MANY_STEPS``, where the rounding of losses adds up."""

_SMALL_EPSILON: Final = 0.2
_MANY_STEPS: Final = 100_000
_TINY_DELTA: Final = 1e-8
"""Below it, with more than ``_MANY_STEPS``, the PLD's Fourier transform loses the tail: RDP alone is used."""

_BEYOND_PLD: Final = 50.0
"""An RDP epsilon above this is not refined: it promises nothing, and a PLD as wide takes gigabytes."""

_NONSENSE: Final = 1e6
"""Not even worth loading dp-accounting for."""

_ROUGH: Final = 5e-4
"""More than a coarse grid raises an epsilon, relative."""

_CURVE_POINTS: Final = 64
SIGMA_STEPS: Final = 100
"""Steps of the grid of noise multipliers in 1."""

_PLD_CALLS: Final = 4

_Term = tuple[float, float, int]
"""noise multiplier, sampling probability, steps"""

_History = tuple[_Term, ...]
"""In order, each pair of noise multiplier and sampling probability once."""


def epsilon(events: Sequence[DpEvent], delta: float) -> float:
    """The epsilon at ``delta``, in (0, 1), of all ``events`` together; whatever their order and grouping.

    0 for no event, inf with an unprotected one.

    Raises:
        ArithmeticError: the accountant's own check failed; no number may be shown.
    """
    _check_delta(delta)
    if any(isinstance(event, Unprotected) for event in events):
        return math.inf
    return _epsilon(_merged(events), delta)


def epsilon_after_rounds(event: PoissonGaussian, rounds: int, delta: float) -> list[float]:
    """The epsilon after 1, 2, ... ``rounds`` releases of ``event``: shape (rounds,), never falling.

    The last is ``epsilon([event] * rounds, delta)``. The ones before are never below theirs, and above by 1
    in 10,000 or so (more where epsilon is tiny): their losses are rounded to a coarser grid. Of more than 64
    rounds only 64 are computed; those between carry the next epsilon, or the Renyi bound if that is smaller.
    """
    _check_delta(delta)
    if rounds < 1:
        return []
    return list(_after_rounds(event.noise_multiplier, event.sampling_probability, event.steps, rounds, delta))


@lru_cache(maxsize=256)
def _after_rounds(sigma: float, q: float, steps: int, rounds: int, delta: float) -> tuple[float, ...]:
    last = _epsilon(((sigma, q, rounds * steps),), delta)
    grid = _coarse_grid(sigma, q, _FINE_GRID if last < _SMALL_EPSILON else _GRID)
    curve = [last] * rounds
    computed = {math.ceil(rounds * point / _CURVE_POINTS) for point in range(1, _CURVE_POINTS)}
    for number in range(rounds - 1, 0, -1):
        # A number of rounds costs no more than a larger number, so a later bound is a bound here too.
        history = ((sigma, q, number * steps),)
        bound = min(curve[number], _rdp(history, delta))
        if number in computed and _trusts_pld(bound, history, delta):
            bound = min(bound, _pld(history, delta, grid))
        curve[number - 1] = bound
    return tuple(curve)


def renyi_curve(events: Sequence[DpEvent]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(orders, divergences) of all ``events`` together, both (n,): Renyi's, at dp-accounting's orders, all above 1."""
    from dp_accounting.rdp import rdp_privacy_accountant

    orders = np.array(rdp_privacy_accountant.DEFAULT_RDP_ORDERS, np.float64)
    total = np.zeros(len(orders))
    for sigma, q, steps in _merged(events):
        total += steps * np.asarray(_rdp_of_step(sigma, q), np.float64)
    return orders, total


def within(events: Sequence[DpEvent], limit: float, delta: float) -> tuple[bool, float]:
    """Whether ``epsilon`` of the events is at most ``limit``, and a bound on it that is near, in less time.

    Never yes where ``epsilon`` would say no: every value is an upper bound.
    """
    _check_delta(delta)
    if any(isinstance(event, Unprotected) for event in events):
        return False, math.inf
    return _within(_merged(events), limit, delta)


def calibrate_noise_multiplier(epsilon: float, delta: float, sampling_probability: float, steps: int) -> float:
    """The smallest noise multiplier, in steps of 0.01, with which ``steps`` cost at most ``epsilon``.

    Rounded up: its cost was computed, never interpolated. It is bracketed by the Renyi bound, whose shape
    predicts the PLD's, and looks at most at four of them, on a coarse grid where that leaves no doubt; a noise
    multiplier above a hundred may then be more than the smallest by some steps.

    Raises:
        UsageError: no noise multiplier up to 1000 is enough.
    """
    _check_delta(delta)
    if not epsilon > 0:
        raise UsageError(f"epsilon {epsilon} cannot be reached", "give a positive epsilon")

    def history(index: int) -> _History:
        return ((index / SIGMA_STEPS, sampling_probability, steps),)

    def predicted(ratio: float, first: int, last: int) -> int | None:
        """By the Renyi bound times ``ratio``: the accountant's epsilon over it, which changes slowly."""
        return _smallest(lambda index: ratio * _integer_rdp(history(index), delta) <= epsilon, first, last)

    calls, largest = _PLD_CALLS, round(LARGEST_NOISE_MULTIPLIER * SIGMA_STEPS)
    enough, too_small = predicted(1.0, 1, largest), 0
    if enough is None:
        calls, enough = calls - 1, largest
        if _epsilon(history(largest), delta) > epsilon:
            raise UsageError(
                f"no noise multiplier up to {LARGEST_NOISE_MULTIPLIER:g} reaches epsilon {epsilon:g} at "
                f"delta {delta:g} with {steps} steps at sampling probability {sampling_probability:g}",
                "take fewer rounds or steps, sample fewer patients, or ask for a larger epsilon",
            )
    ratio = _rough_ratio(history(predicted(0.9, 1, enough) or enough), delta)
    while calls and enough - too_small > 1:
        # Once the predicted index is known to be enough, its neighbour below is what remains to be excluded.
        guess = min(predicted(ratio, too_small + 1, enough) or enough, enough - 1)
        (kept, value), calls = _within(history(guess), epsilon, delta), calls - 1
        if kept:
            enough = guess
        else:
            too_small = guess
        bound = _integer_rdp(history(guess), delta)
        ratio = value / bound if 0 < value <= bound < math.inf else ratio
    return enough / SIGMA_STEPS


def check_plan_cost(plan: StudyPlan) -> float:
    """A bound on the epsilon_site of the whole ``plan``, at its delta; at most the plan's own limit.

    Where the instant Renyi bound is within the limit it is returned, without loading dp-accounting; else the
    tight one. inf for a plan without differential privacy.

    Raises:
        UsageError: the plan costs more than it says.
    """
    event = plan.round_event(plan.participants[0].site)
    limit, delta = plan.privacy.epsilon, plan.privacy.delta
    if not isinstance(event, PoissonGaussian) or limit is None or delta is None:
        return math.inf
    quick = rdp_epsilon([event] * plan.charges, delta)
    if quick <= limit:
        return quick
    cost = epsilon([event] * plan.charges, delta)
    if cost <= limit:
        return cost
    raise UsageError(
        f"the plan costs each site epsilon {rounded_up(cost)}, and its limit is {limit:g} "
        f"(at delta {delta:g}; unit: one patient of one site; adjacency: add or remove one)",
        _what_would_fit(event, plan.charges, limit, delta),
    )


def check_consortium_cost(plan: StudyPlan) -> float:
    """The epsilon_consortium of the whole ``plan`` of mode dist, at its delta. Raises UsageError above its limit."""
    event, terms = plan.consortium_event(plan.participants[0].site), plan.privacy
    limit, delta = terms.epsilon_consortium, terms.delta
    assert isinstance(event, PoissonGaussian) and limit is not None and delta is not None
    cost = epsilon([event] * plan.charges, delta)
    if cost <= limit:
        return cost
    raise UsageError(
        f"the plan costs epsilon_consortium {rounded_up(cost)}, and its limit is {limit:g} (at delta {delta:g}; unit: "
        "one patient of one site; adjacency: add or remove one; against the coordinator and colluding sites)",
        "write privacy.noise_multiplier=auto, take fewer rounds, or ask for a larger epsilon_consortium",
    )


def rounded_up(epsilon: float) -> str:
    """An epsilon as every screen and file shows it: two decimals, never less than it is."""
    return str(Decimal(repr(epsilon)).quantize(Decimal("0.01"), ROUND_CEILING))


def _what_would_fit(event: PoissonGaussian, rounds: int, limit: float, delta: float) -> str:
    fits = []
    steps = rounds * event.steps
    try:
        sigma = calibrate_noise_multiplier(limit, delta, event.sampling_probability, steps)
        fits.append(f"noise_multiplier={sigma:g} with rounds={rounds}")
    except UsageError:
        pass
    too_many = _smallest(lambda number: epsilon([event] * number, delta) > limit, 1, rounds) or rounds
    if too_many > 1:
        fits.append(f"rounds={too_many - 1} with noise_multiplier={event.noise_multiplier:g}")
    return "what fits: " + ", or ".join(fits) if fits else "nothing near fits: ask for a larger epsilon"


def _smallest(holds: Callable[[int], bool], first: int, last: int) -> int | None:
    """The first index from which on ``holds``, by bisection; None if it does not hold at ``last``."""
    if not holds(last):
        return None
    while first < last:
        middle = (first + last) // 2
        if holds(middle):
            last = middle
        else:
            first = middle + 1
    return last


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise UsageError(f"delta is {delta}", "delta is a probability, far below one in the number of patients")


def _merged(events: Sequence[DpEvent]) -> _History:
    steps: Counter[tuple[float, float]] = Counter()
    for event in events:
        if not isinstance(event, PoissonGaussian):
            raise TypeError(f"no accountant for an event of kind '{event.kind}'")
        steps[event.noise_multiplier, event.sampling_probability] += event.steps
    return tuple(sorted((sigma, q, count) for (sigma, q), count in steps.items()))


@lru_cache(maxsize=4096)
def _epsilon(history: _History, delta: float) -> float:
    if not history:
        return 0.0
    bound = _rdp(history, delta)
    if not _trusts_pld(bound, history, delta):
        return bound
    fine = bound < _SMALL_EPSILON or _steps(history) > _MANY_STEPS
    result = min(bound, _pld(history, delta, _FINE_GRID if fine else _GRID))
    if result < _SMALL_EPSILON and not fine:
        result = min(result, _pld(history, delta, _FINE_GRID))
    return result


@lru_cache(maxsize=4096)
def _within(history: _History, limit: float, delta: float) -> tuple[bool, float]:
    if history and _trusts_pld(_integer_rdp(history, delta), history, delta):
        sigma, q, _ = min(history)
        grid = _coarse_grid(sigma, q, _FINE_GRID)
        rough = _pld(history, delta, grid) if grid > 2 * _GRID else math.inf
        # Only in a narrow gap above the limit can a finer grid still change the answer.
        if rough <= limit or limit * (1 + _ROUGH) < rough < math.inf:
            return rough <= limit, rough
    value = _epsilon(history, delta)
    return value <= limit, value


def _steps(history: _History) -> int:
    return sum(steps for _, _, steps in history)


def _trusts_pld(rdp_bound: float, history: _History, delta: float) -> bool:
    return rdp_bound <= _BEYOND_PLD and not (delta < _TINY_DELTA and _steps(history) > _MANY_STEPS)


def _integer_rdp(history: _History, delta: float) -> float:
    events = [
        PoissonGaussian(noise_multiplier=sigma, sampling_probability=q, steps=steps, declared_patients=1)
        for sigma, q, steps in history
    ]
    return rdp_epsilon(events, delta)


@lru_cache(maxsize=4096)
def _rough_ratio(history: _History, delta: float) -> float:
    """The PLD's epsilon over the Renyi bound, in (0, 1], from a coarse grid: a tenth of the work."""
    bound = _integer_rdp(history, delta)
    if not (bound > 0 and _trusts_pld(bound, history, delta)):
        return 1.0
    (sigma, q, _), *_ = history
    return min(1.0, _pld(history, delta, _coarse_grid(sigma, q, _FINE_GRID)) / bound) or 1.0


def _rdp(history: _History, delta: float) -> float:
    """The Renyi bound: of dp-accounting's orders (fractional ones too) and of our integer ones, the best."""
    bound = _integer_rdp(history, delta)
    if bound > _NONSENSE:
        return bound
    from dp_accounting.rdp import rdp_privacy_accountant

    orders = rdp_privacy_accountant.DEFAULT_RDP_ORDERS
    total = sum(steps * _rdp_of_step(sigma, q) for sigma, q, steps in history)
    with _quiet():
        value = float(rdp_privacy_accountant.compute_epsilon(orders, total, delta)[0])
    return _checked(min(bound, value))


@lru_cache(maxsize=256)
def _rdp_of_step(sigma: float, q: float) -> Any:
    """The divergences of one step at dp-accounting's default orders, as its array."""
    import dp_accounting
    from dp_accounting.rdp import rdp_privacy_accountant

    relation = dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE
    accountant = rdp_privacy_accountant.RdpAccountant(neighboring_relation=relation)
    with _quiet():
        accountant.compose(dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(sigma)))
    return accountant.rdp


def _pld(history: _History, delta: float, grid: float) -> float:
    """The PLD bound: losses rounded pessimistically to multiples of ``grid``."""
    total: Any = None
    for sigma, q, steps in history:
        # Full batches add up to one Gaussian, exactly; Poisson samples are convolved.
        if q == 1.0:
            part = _pld_of_step(sigma / math.sqrt(steps), q, grid)
        else:
            part = _pld_of_step(sigma, q, grid).self_compose(steps)
        total = part if total is None else total.compose(part)
    value = float(total.get_epsilon_for_delta(delta))
    if value == math.inf:  # what was cut off the tails is more than delta: no bound from here
        return value
    reached = float(total.get_delta_for_epsilon(value))
    if not 0 < reached <= delta * (1 + 1e-6):
        raise ArithmeticError(f"the accountant gave epsilon {value} for delta {delta}, and delta {reached} for it")
    return _checked(value)


@lru_cache(maxsize=16)
def _pld_of_step(sigma: float, q: float, grid: float) -> Any:
    """The loss distributions of adding and of removing a patient in one step; megabytes on a fine grid."""
    import dp_accounting
    from dp_accounting.pld import privacy_loss_distribution

    return privacy_loss_distribution.from_gaussian_mechanism(
        standard_deviation=sigma,
        sampling_prob=q,
        value_discretization_interval=grid,
        neighboring_relation=dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
    )


def _coarse_grid(sigma: float, q: float, finest: float) -> float:
    """The grid, from ``finest`` to 1e-3, that raises epsilon by about 1 in 10,000.

    Rounding to a grid of h adds up to h^2 / 4 to the variance of a step's loss, which is about
    q^2 (e^(1 / sigma^2) - 1), and epsilon grows like the square root of the sum.
    """
    variance = q * q * math.expm1(min(1.0 / sigma**2, 100.0))
    return min(1e-3, max(finest, math.sqrt(8e-4 * variance)))


def _checked(value: float) -> float:
    if not 0 <= value < math.inf:
        raise ArithmeticError(f"the accountant gave epsilon {value}")
    return value


_QUIET: Final = threading.Lock()


class _NotConverging(logging.Filter):
    """dp-accounting leaves out an order that does not converge, which is sound, and says so at length."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "failed to converge" not in str(record.msg)


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop dp-accounting's remarks on orders that it leaves out, and nothing else.

    absl installs a handler on the root logger when that has none. Python's handler of last resort, which
    stands in for none anyway, keeps it from doing so.
    """
    logger, root, only_these = logging.getLogger("absl"), logging.getLogger(), _NotConverging()
    with _QUIET:
        stand_in = None if root.handlers else logging.lastResort
        logger.addFilter(only_these)
        if stand_in is not None:
            root.addHandler(stand_in)
        try:
            yield
        finally:
            logger.removeFilter(only_these)
            if stand_in is not None:
                root.removeHandler(stand_in)
