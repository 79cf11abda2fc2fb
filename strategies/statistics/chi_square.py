"""The upper tail of the chi-square distribution with whole degrees of freedom, in closed form.

Abramowitz, Stegun 1964, 26.4.4 and 26.4.5. The coordinator runs without SciPy.
"""

from math import erfc, exp, gamma, sqrt


def upper_tail(statistic: float, freedom: int) -> float:
    """P(chi^2 > statistic), in 0 .. 1."""
    half = max(statistic, 0.0) / 2
    if freedom % 2 == 0:
        term, total = 1.0, 1.0
        for k in range(1, freedom // 2):
            term *= half / k
            total += term
        return exp(-half) * total
    rest: float = sum(half ** (k - 0.5) / gamma(k + 0.5) for k in range(1, (freedom - 1) // 2 + 1))
    return erfc(sqrt(half)) + exp(-half) * rest
