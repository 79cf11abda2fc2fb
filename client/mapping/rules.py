"""``mapping.yaml``: how a site's own columns become a contract's. Written once by the site, used for every study.

::

    columns:
      age:      {from: Geburtsdatum, years_to: Aufnahme, date_format: "%d.%m.%Y"}
      sex:      {from: Geschlecht, codes: {W: "0", M: "1"}}
      chol:     {from: Cholesterin, unit: mmol/L, molar_mass: 386.65, decimal: ",", missing: ["999", "-1"]}
      patient:  {from: PatNr}

A column without a rule is taken as it is, under its own name.
"""

from pathlib import Path
from typing import Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wardround.client.settings import fault_in
from wardround.client.yaml_text import load_yaml
from wardround.protocol.errors import UsageError

MAPPING: Final = "mapping.yaml"


class ColumnRule(BaseModel):
    """One column of a contract.

    Args:
        source: the site's own column; in YAML ``from``.
        unit: the UCUM unit of the site's values; None: already the contract's.
        molar_mass: g/mol of the substance, between amount and mass.
        decimal, thousands: how the site writes numbers.
        missing: words and numbers that mean "not known", besides the contract's own.
        codes: the site's value -> the contract's code; every value must be there.
        years_to: the column with the day at which the age is wanted; ``source`` is then the date of birth.
        date_format: of both dates, as ``strptime`` takes it; None: ISO 8601.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    source: str = Field(alias="from", min_length=1)
    unit: str | None = None
    molar_mass: float | None = Field(default=None, gt=0)
    decimal: Literal[".", ","] = "."
    thousands: Literal["", ".", ",", "'", " "] = ""
    missing: tuple[str, ...] = ()
    codes: dict[str, str] | None = None
    years_to: str | None = None
    date_format: str | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "ColumnRule":
        if self.decimal == self.thousands:
            raise ValueError("decimal and thousands are the same sign")
        if self.codes is not None and (self.unit is not None or self.years_to is not None):
            raise ValueError("a column has codes, or a unit, or is an age")
        if self.molar_mass is not None and self.unit is None:
            raise ValueError("molar_mass needs unit")
        if self.date_format is not None and self.years_to is None:
            raise ValueError("date_format needs years_to")
        return self


class Mapping(BaseModel):
    """All rules of a site, by the contract's column."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: dict[str, ColumnRule] = Field(default_factory=dict)


def read_mapping(path: Path) -> Mapping:
    """The rules in ``path``. Raises UsageError that names the first wrong key."""
    try:
        return Mapping.model_validate(load_yaml(path.read_text(encoding="utf-8")) or {})
    except (yaml.YAMLError, UnicodeDecodeError, OSError):
        raise UsageError(f"'{path.name}' cannot be read as YAML", "docs/mapping.md shows one") from None
    except ValidationError as error:
        fault = fault_in(path.name, error)
        raise UsageError(fault.message, "docs/mapping.md lists every key") from None
