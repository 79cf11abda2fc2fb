"""Means of what lies between 0 and 1, and shares of patients, out of noised sums: each with Fieller's interval."""

from collections.abc import Callable

from wardround.strategies.statistics.fieller import Interval, fieller


def bounded_mean(
    there: float, power: float, squared: float, z: float, noise: float, noise_there: float
) -> tuple[float, Interval | None]:
    """The mean of a number a of 0 .. 1 over ``there`` patients, and its interval, of sampling and noise.

    ``power`` is the sum of a - 1/2, ``squared`` that of a^2 - 1/2, from which the sampling variance is, whatever the
    distribution of a. ``noise`` is that of ``power``, ``noise_there`` that of the count.
    """
    patients = max(there, 0.0)
    sampling = max(squared - power + patients / 4, 0.0)
    ends = fieller(power, there, z, sampling + noise**2, power, patients + noise_there**2)
    return unit(0.5 + power / there if there else 0.5), each_end(ends, lambda end: unit(0.5 + end))


def share(has: float, others: float, z: float, noise: float) -> tuple[float, Interval | None]:
    """The share of patients who have something, of two counts with ``noise`` each.

    Sampling as in Wilson's interval (1927): of has - r there it is there r (1 - r), also where nobody has it.
    """
    there = has + others
    patients, spread = max(there, 0.0), noise**2
    ends = fieller(has, there, z, spread, spread - patients / 2, 2 * spread - patients)
    return unit(has / there if there else 0.0), each_end(ends, unit)


def each_end(ends: Interval | None, to: Callable[[float], float]) -> Interval | None:
    """An interval under a function that does not fall."""
    return None if ends is None else (to(ends[0]), to(ends[1]))


def unit(value: float) -> float:
    """``value`` held to 0 .. 1."""
    return min(max(float(value), 0.0), 1.0)
