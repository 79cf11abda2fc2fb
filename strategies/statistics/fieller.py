"""The interval of a ratio whose two ends are noised (Fieller 1954): no division by what the noise might make zero."""

from math import sqrt

Interval = tuple[float, float]


def fieller(
    over: float, under: float, z: float, var_over: float, covariance: float, var_under: float
) -> Interval | None:
    """The r with (over - r under)^2 <= z^2 Var(over - r under); None where that is no interval.

    ``over`` and ``under`` are unbiased and near normal. None means that ``under`` is not known to differ from zero.
    """
    z2 = z * z
    square = under * under - z2 * var_under
    if square <= 0:
        return None
    middle, last = over * under - z2 * covariance, over * over - z2 * var_over
    root = sqrt(max(middle * middle - square * last, 0.0))
    return (middle - root) / square, (middle + root) / square
