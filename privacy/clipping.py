"""Clipping: how much a patient's gradient is scaled, so that its 2-norm is at most C (Abadi et al. 2016)."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wardround.privacy.gradients import Array
from wardround.protocol.errors import UsageError

DOUBLE_SLACK: Final = 2.0**-40
"""Room for the rounding errors of norms and sums in double precision."""

SINGLE_SLACK: Final = 2.0**-13
"""The same for single precision, where a norm is a sum of up to millions of rounded squares."""


def clip_factors(squared_norms: npt.NDArray[Any], clip_norm: float, slack: float = DOUBLE_SLACK) -> Array:
    """min(1, C / norm) of each patient, C lowered by the fraction ``slack``; 0 where not finite.

    The caller must leave out the gradients of factor 0 rather than multiply by it: 0 * NaN is NaN.
    Raises UsageError unless the clip norm is positive and finite.
    """
    if not 0.0 < clip_norm < float("inf"):
        raise UsageError(f"a clip norm of {clip_norm} bounds nothing", "choose a positive number")
    norms = np.sqrt(squared_norms, dtype=np.float64)
    bound = clip_norm * (1.0 - slack)
    factors: Array = bound / np.maximum(norms, bound)
    finite = np.isfinite(norms)
    return factors if finite.all() else np.where(finite, factors, 0.0)
