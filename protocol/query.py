"""What every query of a statistics study has: a name, a filter, groups, bounds on a patient, a share of the budget.

Data that an officer reads and a plan carries, torch-free and without a number of any patient, so that a plan's size,
cost and cells are known anywhere. A row of a patient is in one group at most. A patient counts as at most
m = ``rows_per_patient`` rows: who has k > m of them after the filter has each weighted m / k. Nothing here is taken
from data: groups are the contract's codes or the plan's cuts, ranges are the plan's.
"""

from collections.abc import Iterator
from itertools import pairwise, product
from math import prod
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from wardround.protocol.part import Part, later

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
        check_rising(self.cuts, f"groups by '{self.column}'")
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
    at_least_sites: int = later(
        0, ge=0, le=1000, description="a group of which fewer hospitals are known to have patients is not shown; 0: all"
    )
    patients_at_site: int = later(
        20,
        ge=1,
        le=10_000,
        description="of a group, with which a hospital counts in full; with fewer in part",
    )

    @property
    def width(self) -> int:
        """Numbers of a group that the figures are made of."""
        raise NotImplementedError

    @property
    def sent(self) -> int:
        """Numbers of a group that a site adds: with ``at_least_sites`` one more, the last."""
        return self.width + bool(self.at_least_sites)

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


def intervals(cuts: tuple[float, ...]) -> Iterator[str]:
    """``below 40``, ``40 to below 60``, ``60 and more`` for 40 and 60."""
    yield f"below {cuts[0]:g}"
    yield from (f"{low:g} to below {high:g}" for low, high in pairwise(cuts))
    yield f"{cuts[-1]:g} and more"


def check_rising(numbers: tuple[float, ...], what: str) -> None:
    """Raise ValueError, with ``what`` has them, unless every number is above the one before."""
    if any(not a < b for a, b in pairwise(numbers)):
        raise ValueError(f"{what}: cuts must rise")


def check_distinct(names: tuple[str, ...], what: str) -> None:
    """Raise ValueError, with ``what`` has them, where two of ``names`` are the same."""
    if len(set(names)) < len(names):
        raise ValueError(f"{what}: a column is named twice")
