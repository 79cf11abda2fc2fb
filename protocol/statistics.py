"""What a statistics study asks: queries on the contract's columns, as data that an officer reads and a plan carries.

Torch-free and without a number of any patient, so that a plan's size, cost and cells are known anywhere. How a query is
computed is in ``strategies.statistics``, one file for each ``kind``.

Every query has groups (``by``), a filter (``where``), and ``width`` numbers for each group. A row of a patient is in
one group at most. A patient counts as at most m = ``rows_per_patient`` rows: who has k > m of them after the filter has
each weighted m / k. Nothing here is taken from data: groups are the contract's codes or the plan's cuts, ranges are the
plan's.
"""

from collections.abc import Iterator
from itertools import pairwise, product
from math import prod, sqrt
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, model_validator

from wardround.protocol.contract import CodeColumn, DataContract
from wardround.protocol.evaluated import EvaluatedModel
from wardround.protocol.labels import ClassLabel, FindingsLabel, NumberLabel, SurvivalLabel
from wardround.protocol.parameters import Layout, Tensor
from wardround.protocol.part import Part, later
from wardround.protocol.tabular_tasks import TabularClassification, TabularRegression
from wardround.protocol.untrained import LARGEST, Untrained
from wardround.protocol.weights import WeightsFile

MOST_GROUPS: Final = 10_000

SITES: Final = "sites"
"""The tensor of the result that says how many hospitals are in the sums."""

YES_OR_NO: Final = ("0", "1")
"""The codes of a label's outcome or event."""

STATED: Final = ("0", "1", "unknown")
"""The codes of one of several findings."""

Number = Annotated[float, Field(allow_inf_nan=False)]


class Where(Part):
    """A filter on one column: one of ``codes``, or a number of at least ``at_least`` and below ``below``."""

    column: str
    codes: tuple[str, ...] = ()
    at_least: Number | None = None
    below: Number | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "Where":
        ranged = self.at_least is not None or self.below is not None
        if bool(self.codes) is ranged:
            raise ValueError(f"filter on '{self.column}': give codes, or at_least and below")
        return self


class By(Part):
    """Groups by one column: all codes that the contract declares, or the intervals between ``cuts``.

    ``cuts`` c_1 < ... < c_k make k + 1 intervals: below c_1, from c_1 to below c_2, ..., c_k and more.
    """

    column: str
    codes: tuple[str, ...] = ()
    cuts: tuple[Number, ...] = Field(default=(), max_length=4096)

    @model_validator(mode="after")
    def _one_kind(self) -> "By":
        if bool(self.codes) is bool(self.cuts):
            raise ValueError(f"groups by '{self.column}': give all of the contract's codes, or cuts of a number")
        _check_rising(self.cuts, f"groups by '{self.column}'")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """One for each group, in order: the code, or the interval."""
        return self.codes or tuple(intervals(self.cuts))


class Range(Part):
    """A column of numbers and what is made of a value: clipped to ``lower`` .. ``upper``, in the column's unit."""

    column: str
    lower: Number
    upper: Number

    @model_validator(mode="after")
    def _order(self) -> "Range":
        if not self.lower < self.upper:
            raise ValueError(f"column '{self.column}': lower must lie below upper")
        return self


class BaseQuery(Part):
    in_rounds: ClassVar[bool] = False
    """Whether each round asks something else, which depends on the noised sums of the rounds before."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")
    where: tuple[Where, ...] = ()
    by: tuple[By, ...] = Field(default=(), max_length=8)
    rows_per_patient: int = Field(default=1, ge=1, le=10_000, description="most rows that a patient counts as")
    share: float = Field(default=1.0, gt=0, le=1e6, description="of the budget, relative to the plan's other queries")

    @property
    def width(self) -> int:
        """Numbers of a group."""
        raise NotImplementedError

    @property
    def groups(self) -> int:
        return prod(len(each.names) for each in self.by)

    @property
    def group_names(self) -> tuple[tuple[str, ...], ...]:
        """For each group, in the order of the numbers, its name under every column of ``by``."""
        return tuple(product(*(each.names for each in self.by)))

    @property
    def numbers(self) -> tuple[str, ...]:
        """The columns of numbers that it reads, besides groups and filters."""
        return ()

    @property
    def coded(self) -> tuple[str, ...]:
        """The columns of codes 0 and 1 that it reads, besides groups and filters."""
        return ()


class Count(BaseQuery):
    """How many patients (or rows) there are in each group; with two columns in ``by``, a contingency table."""

    kind: Literal["count"] = "count"

    @property
    def width(self) -> int:
        return 1


class Sum(BaseQuery):
    """The sum of a column's clipped values in each group."""

    kind: Literal["sum"] = "sum"
    of: Range

    @property
    def width(self) -> int:
        return 2

    @property
    def numbers(self) -> tuple[str, ...]:
        return (self.of.column,)


class Mean(BaseQuery):
    """The mean of a column's clipped values in each group."""

    kind: Literal["mean"] = "mean"
    of: Range

    @property
    def width(self) -> int:
        return 3

    @property
    def numbers(self) -> tuple[str, ...]:
        return (self.of.column,)


class Variance(BaseQuery):
    """Variance and standard deviation of a column's clipped values in each group."""

    kind: Literal["variance"] = "variance"
    of: Range

    @property
    def width(self) -> int:
        return 5

    @property
    def numbers(self) -> tuple[str, ...]:
        return (self.of.column,)


class Histogram(BaseQuery):
    """How many are in each interval between ``cuts`` (as in ``By``), in each group."""

    kind: Literal["histogram"] = "histogram"
    column: str
    cuts: tuple[Number, ...] = Field(min_length=1, max_length=65_536)

    @model_validator(mode="after")
    def _rising(self) -> "Histogram":
        _check_rising(self.cuts, f"histogram of '{self.column}'")
        return self

    @property
    def width(self) -> int:
        return len(self.cuts) + 1

    @property
    def numbers(self) -> tuple[str, ...]:
        return (self.column,)


class Quantiles(BaseQuery):
    """Quantiles of a column's clipped values in each group, from a binary tree over 2^levels equal intervals."""

    kind: Literal["quantiles"] = "quantiles"
    of: Range
    levels: int = Field(default=8, ge=1, le=10)
    probabilities: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(default=(0.25, 0.5, 0.75), min_length=1)

    @property
    def width(self) -> int:
        """Every node of the tree but its root, the upper levels first; the root is the sum of its two children."""
        return (2 << self.levels) - 2

    @property
    def numbers(self) -> tuple[str, ...]:
        return (self.of.column,)


class Correlation(BaseQuery):
    """The correlation matrix of several columns' clipped values in each group."""

    kind: Literal["correlation"] = "correlation"
    of: tuple[Range, ...] = Field(min_length=2, max_length=32)

    @model_validator(mode="after")
    def _distinct(self) -> "Correlation":
        _check_distinct(self.numbers, "correlation")
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
        _check_distinct(self.numbers, "linear_regression")
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
        _check_distinct((*self.numbers, *self.coded), "logistic_regression")
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
        _check_rising(self.times, f"survival by '{self.time}'")
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
        _check_rising(self.times, f"rates by '{self.time}'")
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


class ModelQuery(BaseQuery):
    """How well a released model predicts ``outcome`` of patients who did not train it, in each group."""

    model: EvaluatedModel
    outcome: str

    @model_validator(mode="after")
    def _patients(self) -> "ModelQuery":
        if self.rows_per_patient != 1:
            raise ValueError("evaluation: a patient of many rows counts as one, rows_per_patient is 1")
        return self


class Evaluation(ModelQuery):
    """How well a released model tells ``outcome`` of patients who did not train it, in each group.

    ``bins`` are equal intervals of the predicted probability 0 .. 1. A log loss above ``largest_loss`` counts as that.
    """

    kind: Literal["evaluation"] = "evaluation"
    bins: int = Field(default=10, ge=2, le=100)
    largest_loss: float = Field(default=4.0, ge=1, le=20, description="in nats")

    @model_validator(mode="after")
    def _one_outcome(self) -> "Evaluation":
        if not isinstance(self.model.task, TabularClassification) or self.model.task.outputs != 1:
            raise ValueError("evaluation: a model of one yes or no; 'prediction_error' is for one of a quantity")
        return self

    @property
    def width(self) -> int:
        """Patients by bin without and with the outcome, their place in the bin; both counts; the two losses."""
        return 3 * self.bins + 4

    @property
    def coded(self) -> tuple[str, ...]:
        return (self.outcome,)


class PredictionError(ModelQuery):
    """How far a released model's prediction of a quantity lies from it; an error above ``largest_error`` is that."""

    kind: Literal["prediction_error"] = "prediction_error"
    largest_error: float = Field(gt=0, allow_inf_nan=False, description="in the quantity's unit")

    @model_validator(mode="after")
    def _quantity(self) -> "PredictionError":
        if not isinstance(self.model.task, TabularRegression):
            raise ValueError("prediction_error: a model of a quantity; 'evaluation' is for one of a yes or no")
        return self

    @property
    def width(self) -> int:
        """Patients, and of their errors the first, second and fourth power."""
        return 4

    @property
    def numbers(self) -> tuple[str, ...]:
        return (self.outcome,)


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
    | PredictionError,
    Field(discriminator="kind"),
]


_OWN_PLAN: Final = "give a logistic_regression a file, and so a plan, without other kinds"


def rounds_before(name: str, ago: int) -> str:
    """The tensor of ``name`` in the sums of ``ago`` rounds before the last."""
    return f"{name}.{ago}" if ago else name


class Statistics(Untrained):
    """A task that trains nothing: each hospital adds one vector for all queries, and the sums are the study's result.

    The vector is scaled so that no patient moves it by more than 1 (2-norm) at all: query k of share s_k has s_k of
    their sum of the squared noise-to-signal budget, sum of weights squared = 1.
    """

    name: Literal["statistics"] = "statistics"
    label_kind: Literal["any"] = "any"
    patients: Literal["everyone", "training", "test"] = Field(
        default="everyone", description="whose rows are read: their own data domains are charged"
    )
    smallest_cell: float = Field(default=10.0, ge=0, description="a group of fewer, after noise, is not shown")
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    rounds: int = later(1, ge=1, le=30, description="of charged sums; more than one for what is asked in rounds only")
    queries: tuple[Query, ...] = Field(min_length=1, max_length=256)

    @model_validator(mode="after")
    def _consistent(self) -> "Statistics":
        names = [query.name for query in self.queries]
        if len(set(names)) < len(names) or SITES in names:
            raise ValueError(f"queries have distinct names, and none is called '{SITES}'")
        if any(query.in_rounds for query in self.queries):
            once = next((query for query in self.queries if not query.in_rounds), None)
            if once is not None:
                raise ValueError(f"query '{once.name}' would be asked again in every round: {_OWN_PLAN}")
            if self.rounds < 2:
                raise ValueError("a logistic_regression needs 2 rounds at least")
        elif self.rounds > 1:
            raise ValueError("these statistics are one round: a second one would be the same sums again, charged again")
        large = next((query for query in self.queries if query.groups > MOST_GROUPS), None)
        if large is not None:
            raise ValueError(f"query '{large.name}' has {large.groups} groups, and {MOST_GROUPS} is the most")
        if self.evaluations and self.patients != "test":
            raise ValueError("a model is evaluated on patients who did not train it: patients is 'test'")
        if self.layout(0).size > LARGEST:
            raise ValueError(f"all queries together have more than {LARGEST} numbers")
        return self

    @property
    def evaluations(self) -> tuple[ModelQuery, ...]:
        return tuple(query for query in self.queries if isinstance(query, ModelQuery))

    @property
    def files(self) -> tuple[WeightsFile, ...]:
        """The files of the models that are evaluated."""
        return tuple(query.model.file for query in self.evaluations)

    def layout(self, features: int) -> Layout:
        """The number of hospitals, then for each query its sums, shape (groups, width), in the queries' order.

        So for every round, the last first (``rounds_before``); zeros for a round that is to come.
        """
        tensors: list[Tensor] = []
        for ago in range(self.rounds):
            tensors.append(Tensor(rounds_before(SITES, ago), (1,), 0))
            tensors += (Tensor(rounds_before(q.name, ago), (q.groups, q.width), 0) for q in self.queries)
        return Layout(tuple(tensors))

    @property
    def numbers(self) -> int:
        """What a site adds in a round."""
        return sum(query.groups * query.width for query in self.queries)

    def weight(self, query: Query) -> float:
        """The part of the joint bound 1 that ``query`` has: the square root of its share of all shares."""
        return sqrt(query.share / sum(each.share for each in self.queries))

    def check(self, contract: DataContract) -> None:
        """Raise ValueError where a query reads what ``contract`` does not declare, or groups by what data might say."""
        numbers, codes = number_columns(contract), code_columns(contract)
        for query in self.queries:
            where = f"query '{query.name}'"
            if isinstance(query, ModelQuery):
                query.model.layout_of(len(contract.feature_names))
            for column in query.numbers:
                if column not in numbers:
                    raise ValueError(f"{where}: '{column}' is no column of numbers in the contract")
            for column in query.coded:
                if codes.get(column) != YES_OR_NO:
                    raise ValueError(f"{where}: '{column}' is no column of 0 and 1 in the contract")
            for each in query.by:
                if each.codes and codes.get(each.column) != each.codes:
                    raise ValueError(f"{where}: groups by '{each.column}' are the contract's codes, all and in order")
                if each.cuts and each.column not in numbers:
                    raise ValueError(f"{where}: '{each.column}' is no column of numbers in the contract")
            for rule in query.where:
                if rule.codes and not set(rule.codes) <= set(codes.get(rule.column, ())):
                    raise ValueError(f"{where}: a filter on '{rule.column}' names a code that the contract has not")
                if not rule.codes and rule.column not in numbers:
                    raise ValueError(f"{where}: '{rule.column}' is no column of numbers in the contract")


def number_columns(contract: DataContract) -> tuple[str, ...]:
    """Every column of ``contract`` that holds a number, the label's among them."""
    label = contract.label
    found = [column.name for column in contract.columns if not isinstance(column, CodeColumn)]
    if isinstance(label, NumberLabel):
        found.append(label.column)
    if isinstance(label, SurvivalLabel):
        found.append(label.time)
    return tuple(found)


def code_columns(contract: DataContract) -> dict[str, tuple[str, ...]]:
    """Every column of ``contract`` that holds a code, with its codes in their order; an outcome's are 0 and 1."""
    label = contract.label
    found = {column.name: tuple(column.codes) for column in contract.columns if isinstance(column, CodeColumn)}
    if isinstance(label, ClassLabel):
        found[label.column] = YES_OR_NO
    if isinstance(label, SurvivalLabel):
        found[label.event] = YES_OR_NO
    if isinstance(label, FindingsLabel):
        found |= {finding.column: STATED for finding in label.findings}
    return found


def intervals(cuts: tuple[float, ...]) -> Iterator[str]:
    """``below 40``, ``40 to below 60``, ``60 and more`` for 40 and 60."""
    yield f"below {cuts[0]:g}"
    yield from (f"{low:g} to below {high:g}" for low, high in pairwise(cuts))
    yield f"{cuts[-1]:g} and more"


def _moments(values: int) -> int:
    return 1 + values + values * (values + 1) // 2


def _check_rising(numbers: tuple[float, ...], what: str) -> None:
    if any(not a < b for a, b in pairwise(numbers)):
        raise ValueError(f"{what}: cuts must rise")


def _check_distinct(names: tuple[str, ...], what: str) -> None:
    if len(set(names)) < len(names):
        raise ValueError(f"{what}: a column is named twice")
