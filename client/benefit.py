"""Does another model help this hospital? Differences to its own model on its own test patients, with a plain verdict.

* **Paired.** A resample draws test patients once and both models are measured on it (Efron 1979), so that what makes
  patients hard for both cancels. Of several trainings (seeds) each resample draws seeds too, and all of them are
  measured on the same patients: the interval is that of a training that has not been made yet.
* **Together.** Who reads many hospitals, or several models, sees some differences by chance. With m comparisons each
  interval is a percentile interval at level 1 - 0.05 / m (Bonferroni), so all of them hold together at 95 %, and a
  verdict is what its interval shows. Holm's procedure would find a little more, and has no intervals that go with it.
* **Few patients.** Below ``FEWEST_TESTED`` test patients the difference is shown without a verdict.

Everything here stays at the site, as ``client.evaluation`` says.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from wardround.client.evaluation import Estimate, point
from wardround.client.site_result import BenefitResult, EstimateResult
from wardround.client.tasks import Metric, Scores

FEWEST_TESTED: Final = 30
"""Test patients below which there is no verdict."""

ERROR: Final = 0.05
"""The chance, at most, that any of the intervals that were made together misses its truth."""

IN_TAIL: Final = 10
"""Resamples beyond each end of an interval, so that the end is more than the extreme of a few."""

FEWEST_DRAWS, MOST_DRAWS = 2_000, 20_000
NUMBERS_AT_ONCE: Final = 1 << 18
"""Of a part of the resamples: two megabytes."""

HIGHER_IS_BETTER: Final[Mapping[str, bool]] = {
    "accuracy": True,
    "auroc": True,
    "c_index": True,
    "r2": True,
    "dice": True,
    "dice_per_patient": True,
    "log_loss": False,
    "mae": False,
    "rmse": False,
}
"""Of every metric that comes with Wardround. Of another nothing is said."""


def has_verdict(own: Scores | None, metric: str) -> bool:
    """Whether a comparison with the own model's scores counts: enough test patients, and a metric with a direction."""
    return own is not None and len(own.score) >= FEWEST_TESTED and metric in HIGHER_IS_BETTER


def benefit(
    model: Literal["shared", "personalised"],
    name: str,
    metric: Metric,
    own: Sequence[Scores],
    other: Sequence[Scores],
    comparisons: int,
    no_own: str = "",
) -> BenefitResult:
    """``model`` against the own model by metric ``name``, on the same test patients.

    Args:
        own, other: the scores of each training (seed), in the same order; empty ``own``: there is no own model.
        comparisons: m, how many verdicts are read together.
        no_own: why there is no own model.
    """
    if not own or not other:
        missing = EstimateResult(value=None, reason=no_own or "no test patients")
        return _result(model, name, missing, comparisons, missing.reason)
    sign = 1.0 if HIGHER_IS_BETTER.get(name, True) else -1.0
    found = paired(metric, own, other, comparisons, sign)
    shown = EstimateResult(value=found.value, low=found.low, high=found.high, reason=found.reason)
    if found.value is None:
        return _result(model, name, shown, comparisons, found.reason)
    if name not in HIGHER_IS_BETTER:
        return _result(model, name, shown, comparisons, "which way this metric is better is not known")
    if len(own[0].score) < FEWEST_TESTED:
        return _result(model, name, shown, comparisons, f"fewer than {FEWEST_TESTED} test patients")
    if found.low is None or found.high is None:
        return _result(model, name, shown, comparisons, found.reason)
    if found.low > 0:
        return _result(model, name, shown, comparisons, "", "helps")
    return _result(model, name, shown, comparisons, "", "harms" if found.high < 0 else "not shown")


def paired(
    metric: Metric, own: Sequence[Scores], other: Sequence[Scores], comparisons: int = 1, sign: float = 1.0
) -> Estimate:
    """``sign`` (other - own) by ``metric``, the mean over trainings, with its interval at level 1 - 0.05 / m.

    None where a model's metric is not estimable on these patients (one class, no comparable pair). Resamples in which
    it is not are left out; with fewer than half of them left there is no interval.
    """
    values = [(point(metric, a), point(metric, b)) for a, b in zip(own, other, strict=True)]
    known = [sign * (b - a) for a, b in values if a is not None and b is not None]
    if len(known) < len(values) or not known:
        return Estimate(None, None, None, "not estimable on these test patients")
    value, tail = float(np.mean(known)), ERROR / (2 * comparisons)
    draws = int(np.clip(np.ceil(IN_TAIL / tail), FEWEST_DRAWS, MOST_DRAWS))
    if draws * tail < 1:
        return Estimate(value, None, None, f"too many comparisons together for {MOST_DRAWS:,} resamples")
    generator, patients = np.random.Generator(np.random.PCG64(len(own[0].score))), len(own[0].score)
    resampled = np.empty(0)
    while len(resampled) < draws:
        part = min(draws - len(resampled), max(1, NUMBERS_AT_ONCE // patients))
        weights = _drawn(generator, patients, part).astype(np.float64)
        seeds = _drawn(generator, len(known), part).T / len(known)
        gains = [metric(b, weights) - metric(a, weights) for a, b in zip(own, other, strict=True)]
        resampled = np.append(resampled, (seeds * gains).sum(axis=0))
    resampled = sign * resampled[np.isfinite(resampled)]
    if len(resampled) < draws / 2:
        return Estimate(value, None, None, "too few patients of one class for an interval")
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))


def _drawn(generator: np.random.Generator, count: int, draws: int) -> npt.NDArray[np.int64]:
    """How often each of ``count`` is in each resample of as many: (draws, count)."""
    chosen = generator.integers(0, count, size=(draws, count)) + count * np.arange(draws)[:, None]
    return np.bincount(chosen.ravel(), minlength=draws * count).reshape(draws, count)


def _result(
    model: Literal["shared", "personalised"],
    metric: str,
    better_by: EstimateResult,
    comparisons: int,
    reason: str,
    verdict: Literal["helps", "harms", "not shown", "none"] = "none",
) -> BenefitResult:
    return BenefitResult(
        model=model, metric=metric, better_by=better_by, comparisons=comparisons, verdict=verdict, reason=reason
    )
