"""In which unit a column's numbers are, judged by where they lie beside the contract's range and centre."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from wardround.client.connectors.units import SAME, Conversion, conversion
from wardround.protocol.contract import NumberColumn
from wardround.protocol.errors import UsageError

FITS: Final = 0.95
"""A unit fits when in it so large a share of the values lies in the contract's range."""

FAR: Final = 4.0
"""And when their median lies at most so many of the contract's scales from its centre."""

UNITS: Final = (
    "kg", "g", "[lb_av]", "m", "cm", "mm", "[in_i]", "mm[Hg]", "kPa", "Cel", "[degF]", "K", "g/L", "g/dL", "mg/dL",
    "mg/L", "ug/L", "ng/mL", "mol/L", "mmol/L", "umol/L", "nmol/L", "10*9/L", "10*6/L", "/uL", "10*3/uL", "10*12/L",
    "a", "mo", "wk", "d", "h", "min", "s", "ms", "/min", "/s", "%", "1", "L", "mL", "L/min", "mL/min", "U/L", "kat/L",
)  # fmt: skip
"""Units in which hospitals write what a contract asks for in another."""

MOLAR_MASS: Final = {
    "cholesterol": 386.65, "triglycerid": 885.4, "glucose": 180.156, "sugar": 180.156, "creatinin": 113.12,
    "urea": 60.06, "uric": 168.11, "bilirubin": 584.66, "calcium": 40.08, "magnesium": 24.305, "phosph": 30.974,
    "iron": 55.845, "hemoglobin": 64_458.0, "albumin": 66_500.0, "cortisol": 362.46,
}  # fmt: skip
"""g/mol by a piece of a column's name or meaning; phosphate is reported as phosphorus."""

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Likely:
    """A unit in which the values fit. ``distance``: of their median from the centre, in scales."""

    unit: str
    by: Conversion
    molar_mass: float | None
    distance: float
    inside: float


def molar_mass_of(column: NumberColumn) -> float | None:
    """g/mol of the substance that the column's name or meaning names."""
    text = f"{column.name} {column.meaning}".lower()
    return next((mass for piece, mass in MOLAR_MASS.items() if piece in text), None)


def fit(values: Numbers, column: NumberColumn, by: Conversion = SAME) -> tuple[float, float]:
    """(share in range, distance of the median from the centre in scales) of ``values`` after ``by``."""
    changed = values * by.factor + by.offset
    inside = float(((changed >= column.minimum) & (changed <= column.maximum)).mean())
    return inside, abs(float(np.median(changed)) - column.center) / column.scale


def likely_units(values: Numbers, column: NumberColumn) -> list[Likely]:
    """Units other than the contract's in which ``values`` (finite, not empty) fit, the nearest first."""
    mass = molar_mass_of(column)
    found = []
    for unit in UNITS:
        try:
            by = conversion(unit, column.unit, mass)
        except UsageError:
            continue
        if abs(by.factor - 1.0) < 1e-3 and abs(by.offset) < 1e-9:
            continue
        inside, distance = fit(values, column, by)
        if inside >= FITS and distance <= FAR:
            found.append(Likely(unit, by, mass if _needs(unit, column, mass) else None, distance, inside))
    return sorted(found, key=lambda likely: likely.distance)


def _needs(unit: str, column: NumberColumn, mass: float | None) -> bool:
    try:
        conversion(unit, column.unit)
    except UsageError:
        return mass is not None
    return False
