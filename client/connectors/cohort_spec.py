"""How events of a clinical system become one row per patient: the options that OMOP, FHIR and HL7 v2 share.

A site writes it as ``cohort`` under ``options`` of a data source. The contract's columns stay the plan's; this says
where the site's own system holds them. Codes are written ``system:code``, for example ``loinc:718-7``,
``snomed:44054006``, ``icd10:I21.9``, ``rxnorm:197361``, ``local:HB`` and, in OMOP, ``concept:3000963`` (with all its
descendants where the vocabulary is there).

::

    index: {kind: condition, codes: ["snomed:22298006"], take: first}
    columns:
      age: {from: age}
      sex: {from: sex}
      hemoglobin: {from: measurement, codes: ["loinc:718-7"], take: last, unit: g/dL, days_before: 365}
      diabetes: {from: condition, codes: ["snomed:44054006"], take: exists}
      died: {from: death, days_after: 30, take: exists}
"""

from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wardround.protocol.errors import UsageError

Kind: TypeAlias = Literal["condition", "measurement", "drug", "encounter", "procedure", "death"]
Take: TypeAlias = Literal["last", "first", "min", "max", "mean", "count", "exists"]
CODE: Final = r"^[a-z0-9]+:\S+$"
Code: TypeAlias = Annotated[str, Field(pattern=CODE)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Index(_Part):
    """The moment that windows are measured from; a patient without one is not in the cohort.

    ``codes`` empty: any event of the kind, for example the last encounter.
    """

    kind: Kind
    codes: tuple[Code, ...] = ()
    take: Literal["first", "last"] = "first"


class About(_Part):
    """A column of the person itself: age in whole years at the index (at the last event without one), or sex."""

    source: Literal["age", "sex", "site_of_care"] = Field(alias="from")


class Event(_Part):
    """A column from the patient's events of one kind, within a window around the index.

    The window is from ``days_before`` days before the index (None: since ever) to ``days_after`` days after it, both
    ends included. ``count`` of none is 0 and ``exists`` of none is 0; every other choice of none is missing. Values of
    a measurement are converted to ``unit`` (UCUM); one that cannot be converted is counted as left out, never used.
    """

    source: Kind = Field(alias="from")
    codes: tuple[Code, ...] = ()
    take: Take = "last"
    unit: str | None = None
    molar_mass: float | None = Field(default=None, gt=0, description="g/mol, between amount and mass")
    days_before: int | None = Field(default=None, ge=0)
    days_after: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _unit(self) -> "Event":
        numeric = self.take in ("min", "max", "mean")
        if numeric and self.source != "measurement":
            raise ValueError(f"'{self.take}' needs a measurement")
        if self.source == "measurement" and not self.codes:
            raise ValueError("a measurement needs codes")
        if self.unit is not None and self.source != "measurement":
            raise ValueError("only a measurement has a unit")
        return self


class CohortSpec(_Part):
    """One row per patient: ``patient`` (the id), then ``columns`` in their order."""

    index: Index | None = None
    columns: dict[str, About | Event] = Field(min_length=1)
    patient: str = Field(default="patient", description="name of the column with the patient's id")

    @model_validator(mode="after")
    def _names(self) -> "CohortSpec":
        if self.patient in self.columns:
            raise ValueError(f"'{self.patient}' is the patient's id and a column")
        return self


def parse_spec(options: dict[str, Any]) -> CohortSpec:
    """The specification in a source's options. Raises UsageError that names the first wrong key, not its value."""
    try:
        return CohortSpec.model_validate(options)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"options of a data source, '{where}': {first['msg']}", "docs/data.md shows one") from None
