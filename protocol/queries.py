"""The kinds of query that a statistics study asks, one class for each ``kind``.

Every kind says its ``width``, how many numbers it has for each group, and which columns of the contract it reads. How
it is computed is in ``strategies.statistics``, one file for each kind. Those that evaluate a released model are in
``protocol.evaluations``.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from wardround.protocol.evaluations import (
    Evaluation,
    ModelQuery,
    PredictionError,
    SegmentationEvaluation,
    SurvivalEvaluation,
)
from wardround.protocol.query import BaseQuery, Number, Range, check_distinct, check_rising

__all__ = [
    "Correlation",
    "Count",
    "Evaluation",
    "Histogram",
    "LinearRegression",
    "LogisticRegression",
    "Mean",
    "ModelQuery",
    "PiecewiseExponential",
    "PredictionError",
    "Quantiles",
    "Query",
    "SegmentationEvaluation",
    "Sum",
    "Survival",
    "SurvivalEvaluation",
    "Variance",
]


class Count(BaseQuery):
    """How many patients (or rows) there are in each group; with two columns in ``by``, a contingency table."""

    kind: Literal["count"] = "count"

    @property
    def width(self) -> int:
        return 1


class ValueQuery(BaseQuery):
    """Reads one column of numbers, each clipped to its range."""

    of: Range

    @property
    def numbers(self) -> tuple[str, ...]:
        return (self.of.column,)


class Sum(ValueQuery):
    """The sum of a column's clipped values in each group."""

    kind: Literal["sum"] = "sum"

    @property
    def width(self) -> int:
        return 2


class Mean(ValueQuery):
    """The mean of a column's clipped values in each group."""

    kind: Literal["mean"] = "mean"

    @property
    def width(self) -> int:
        return 3


class Variance(ValueQuery):
    """Variance and standard deviation of a column's clipped values in each group."""

    kind: Literal["variance"] = "variance"

    @property
    def width(self) -> int:
        return 5


class Histogram(BaseQuery):
    """How many are in each interval between ``cuts`` (as in ``By``), in each group."""

    kind: Literal["histogram"] = "histogram"
    column: str
    cuts: tuple[Number, ...] = Field(min_length=1, max_length=65_536)

    @model_validator(mode="after")
    def _rising(self) -> "Histogram":
        check_rising(self.cuts, f"histogram of '{self.column}'")
        return self

    @property
    def width(self) -> int:
        return len(self.cuts) + 1

    @property
    def numbers(self) -> tuple[str, ...]:
        return (self.column,)


class Quantiles(ValueQuery):
    """Quantiles of a column's clipped values in each group, from a binary tree over 2^levels equal intervals."""

    kind: Literal["quantiles"] = "quantiles"
    levels: int = Field(default=8, ge=1, le=10)
    probabilities: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(default=(0.25, 0.5, 0.75), min_length=1)

    @property
    def width(self) -> int:
        """Every node of the tree but its root, the upper levels first; the root is the sum of its two children."""
        return (2 << self.levels) - 2


class Correlation(BaseQuery):
    """The correlation matrix of several columns' clipped values in each group."""

    kind: Literal["correlation"] = "correlation"
    of: tuple[Range, ...] = Field(min_length=2, max_length=32)

    @model_validator(mode="after")
    def _distinct(self) -> "Correlation":
        check_distinct(self.numbers, "correlation")
        return self

    @property
    def width(self) -> int:
        """1, the values, and the products of two of them, a value with itself among these."""
        return _moments(len(self.of))

    @property
    def numbers(self) -> tuple[str, ...]:
        return tuple(each.column for each in self.of)


class LinearRegression(BaseQuery):
    """Ordinary least squares of ``outcome`` on ``of``, with an intercept, in each group; all values are clipped."""

    kind: Literal["linear_regression"] = "linear_regression"
    of: tuple[Range, ...] = Field(min_length=1, max_length=32)
    outcome: Range

    @model_validator(mode="after")
    def _distinct(self) -> "LinearRegression":
        check_distinct(self.numbers, "linear_regression")
        return self

    @property
    def width(self) -> int:
        """As of a correlation, the outcome the last of its values."""
        return _moments(len(self.of) + 1)

    @property
    def numbers(self) -> tuple[str, ...]:
        return (*(each.column for each in self.of), self.outcome.column)


class LogisticRegression(BaseQuery):
    """The log odds of ``outcome``, a column of 0 and 1, as a line in the predictors, in each group, by Newton's method.

    Predictors: ``of``, clipped, and ``flags``, columns of 0 and 1 themselves. Every round asks for the sums of one
    step, at coefficients that follow from the noised sums of the rounds before. ``ridge``: a public penalty, half of it
    times the squared coefficient of every predictor as scaled to -1 .. 1; none on the intercept.
    """

    in_rounds: ClassVar[bool] = True

    kind: Literal["logistic_regression"] = "logistic_regression"
    of: tuple[Range, ...] = Field(default=(), max_length=32)
    flags: tuple[str, ...] = Field(default=(), max_length=32)
    outcome: str
    ridge: float = Field(default=0.0, ge=0, le=1e9, allow_inf_nan=False)

    @model_validator(mode="after")
    def _distinct(self) -> "LogisticRegression":
        check_distinct((*self.numbers, *self.coded), "logistic_regression")
        if not self.of and not self.flags:
            raise ValueError("logistic_regression: it has no predictor: give of, flags, or both")
        return self

    @property
    def coefficients(self) -> int:
        """The intercept and one for each predictor."""
        return 1 + len(self.of) + len(self.flags)

    @property
    def width(self) -> int:
        """1, the gradient, the upper triangle of the information, and the loss."""
        return 2 + self.coefficients + self.coefficients * (self.coefficients + 1) // 2

    @property
    def numbers(self) -> tuple[str, ...]:
        return tuple(each.column for each in self.of)

    @property
    def coded(self) -> tuple[str, ...]:
        return (*self.flags, self.outcome)


class Survival(BaseQuery):
    """Survival after each of ``times`` (Kaplan and Meier 1958, on the grid) by group, and a log-rank test between them.

    A time in (t_(j-1), t_j] counts as t_j, one after the last is seen beyond the grid. So it is the exact estimate of
    times that are rounded up to the grid.
    """

    kind: Literal["survival"] = "survival"
    time: str
    event: str
    times: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field(min_length=1, max_length=1024)

    @model_validator(mode="after")
    def _rising(self) -> "Survival":
        check_rising(self.times, f"survival by '{self.time}'")
        return self

    @property
    def width(self) -> int:
        """Events of each interval, who was censored in it, and who was seen beyond the last."""
        return 2 * len(self.times) + 1

    @property
    def numbers(self) -> tuple[str, ...]:
        return (self.time,)

    @property
    def coded(self) -> tuple[str, ...]:
        return (self.event,)


class PiecewiseExponential(BaseQuery):
    """Events, person-time and their rate in each interval of a grid that begins at 0 and ends with ``times``."""

    kind: Literal["piecewise_exponential"] = "piecewise_exponential"
    time: str
    event: str
    times: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field(min_length=1, max_length=1024)

    @model_validator(mode="after")
    def _rising(self) -> "PiecewiseExponential":
        check_rising(self.times, f"rates by '{self.time}'")
        return self

    @property
    def width(self) -> int:
        """Events of each interval, then the time that was lived through in it."""
        return 2 * len(self.times)

    @property
    def numbers(self) -> tuple[str, ...]:
        return (self.time,)

    @property
    def coded(self) -> tuple[str, ...]:
        return (self.event,)


Query = Annotated[
    Count
    | Sum
    | Mean
    | Variance
    | Histogram
    | Quantiles
    | Correlation
    | LinearRegression
    | LogisticRegression
    | Survival
    | PiecewiseExponential
    | Evaluation
    | PredictionError
    | SurvivalEvaluation
    | SegmentationEvaluation,
    Field(discriminator="kind"),
]


def _moments(values: int) -> int:
    return 1 + values + values * (values + 1) // 2
