"""What a study predicts: the label part of a data contract. Codes, units and ranges are public and fixed in the plan.

A label becomes the targets of a record, shape (records, T), always with the same T. A target of a finding that is not
known is ``UNKNOWN``: it adds nothing to a loss and to a metric.
"""

from typing import Annotated, Final, Literal

from pydantic import Field, field_validator, model_validator

from wardround.protocol.part import Part

UNKNOWN: Final = -1.0
"""The target of a finding that nobody has stated; no loss and no metric looks at it."""


class ClassLabel(Part):
    """A binary outcome: positive when the column holds one of ``positive``, negative for one of ``negative``."""

    kind: Literal["class"] = "class"
    column: str
    meaning: str
    positive: tuple[str, ...] = Field(min_length=1)
    negative: tuple[str, ...] = Field(min_length=1)

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)


class SurvivalLabel(Part):
    """A right-censored time to an event: ``event`` is 1 where it was observed at ``time``, 0 where it was not."""

    kind: Literal["survival"] = "survival"
    time: str
    event: str
    meaning: str
    unit: str = Field(description="UCUM code of the time, 'd' for days")
    maximum_time: float = Field(gt=0)

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.time, self.event)


class NumberLabel(Part):
    """A measured quantity, predicted in its own unit."""

    kind: Literal["number"] = "number"
    column: str
    meaning: str
    unit: str = Field(description="UCUM code, '1' when there is none")
    minimum: float
    maximum: float
    missing_codes: tuple[float, ...] = Field(default=(), description="numbers that the source writes for 'missing'")

    @model_validator(mode="after")
    def _range(self) -> "NumberLabel":
        if not self.minimum < self.maximum:
            raise ValueError(f"label '{self.column}': minimum must lie below maximum")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)


class Finding(Part):
    """One of several findings: present, absent, or not stated (a missing cell, or one of ``unknown``)."""

    column: str
    meaning: str
    positive: tuple[str, ...] = Field(default=("1",), min_length=1)
    negative: tuple[str, ...] = Field(default=("0",), min_length=1)
    unknown: tuple[str, ...] = Field(default=(), description="codes that state neither, for example 'uncertain'")

    @model_validator(mode="after")
    def _apart(self) -> "Finding":
        codes = (*self.positive, *self.negative, *self.unknown)
        if len(set(codes)) < len(codes):
            raise ValueError(f"finding '{self.column}': a code means two things")
        return self


class FindingsLabel(Part):
    """Several findings at once, each with a column of its own; a record that states none of them has no label."""

    kind: Literal["findings"] = "findings"
    meaning: str
    findings: tuple[Finding, ...] = Field(min_length=2, max_length=128)

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(finding.column for finding in self.findings)


class MaskLabel(Part):
    """A marked region of a picture: ``column`` of the label table names the mask's file, beside the pictures.

    A mask holds whole numbers on its picture's grid: 0 is the background, ``structures`` gives a meaning to others.
    """

    kind: Literal["mask"] = "mask"
    column: str
    meaning: str
    structures: dict[str, str] = Field(min_length=1, max_length=32, description="number in the mask -> meaning")

    @field_validator("structures")
    @classmethod
    def _in_order(cls, structures: dict[str, str]) -> dict[str, str]:
        """By number. A plan's bytes sort the keys as text, and which map is whose must not depend on who wrote it."""
        return dict(sorted(structures.items(), key=lambda each: (len(each[0]), each[0])))

    @model_validator(mode="after")
    def _numbers(self) -> "MaskLabel":
        for code in self.structures:
            if not (code.isascii() and code.isdigit() and str(int(code)) == code and 0 < int(code) < 256):
                raise ValueError(f"label '{self.column}': a structure is a whole number from 1 to 255, not '{code}'")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)


Label = Annotated[ClassLabel | SurvivalLabel | NumberLabel | FindingsLabel | MaskLabel, Field(discriminator="kind")]


def outcome_in(label: Label, column: str) -> ClassLabel | Finding | None:
    """What a column of ``label`` states by codes of yes and no; None: it holds no such codes (a time, a quantity)."""
    match label:
        case ClassLabel():
            return label if column == label.column else None
        case FindingsLabel():
            return next((finding for finding in label.findings if finding.column == column), None)
        case SurvivalLabel():
            return Finding(column=column, meaning=label.meaning) if column == label.event else None
    return None
