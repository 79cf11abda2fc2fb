"""What a site's own columns hold, read once: distinct values with their counts, and what kind of column that makes."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wardround.client.mapping.vocabulary import ABSENT

MOST_DISTINCT: Final = 50_000
"""Distinct values of a column that are counted; a column of more is told by these."""

FEW: Final = 5
"""A value in fewer records is not shown in a proposal."""


@dataclass
class Profile:
    """One column. ``values`` counts its distinct cells, without spaces around them; '' is an empty one."""

    name: str
    values: Counter[str] = field(default_factory=Counter, repr=False)
    rows: int = 0

    @cached_property
    def absent(self) -> list[str]:
        """Words in it that stand for nothing known, in their own spelling."""
        return [value for value in self.values if value.casefold() in ABSENT]

    @cached_property
    def filled(self) -> Counter[str]:
        """Values that say something."""
        return Counter({v: n for v, n in self.values.items() if v not in ("", "?") and v.casefold() not in ABSENT})

    @cached_property
    def decimal(self) -> Literal[".", ","] | None:
        """The decimal sign of its numbers; None: some are no numbers, or both signs occur."""
        point = all(_number(value) is not None for value in self.filled)
        if point and self.filled:
            return "."
        comma = all("." not in value and _number(value.replace(",", ".")) is not None for value in self.filled)
        return "," if comma and self.filled else None

    @cached_property
    def numbers(self) -> npt.NDArray[np.float64]:
        """Its numbers, each as often as it occurs; empty where it is no column of numbers."""
        if self.decimal is None:
            return np.zeros(0)
        parsed = [float(value.replace(self.decimal, ".")) for value in self.filled]
        return np.repeat(parsed, list(self.filled.values()))

    @property
    def distinct(self) -> bool:
        """Whether nearly every record has a value of its own, as ids do."""
        return len(self.filled) > 0.5 * sum(self.filled.values())


def profiles(batches: Iterable[pa.RecordBatch]) -> list[Profile]:
    """Every column of a source, in its order."""
    found: dict[str, Profile] = {}
    for batch in batches:
        for name in batch.schema.names:
            profile = found.setdefault(name, Profile(name))
            column = batch.column(name)
            text = column if pa.types.is_string(column.type) else column.cast(pa.string())
            counted = text.value_counts()
            for value, count in zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True):
                value = "" if value is None else value.strip()
                if value in profile.values or len(profile.values) < MOST_DISTINCT:
                    profile.values[value] += count
            profile.rows += batch.num_rows
    return list(found.values())


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None
