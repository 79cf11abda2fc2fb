"""Columns: missing, broken, out of range, constant, in another unit; pictures that are all alike; what was left out."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from wardround.client.connectors.units import Conversion, conversion
from wardround.client.readiness.finding import Finding, Severity
from wardround.client.readiness.gathered import Gathered
from wardround.protocol.contract import NumberColumn
from wardround.protocol.errors import UsageError

MUCH_MISSING: Final = 0.3

FAR: Final = 4.0
"""A median that lies so many of the contract's scales from its centre is looked at."""

FITS: Final = 0.95
"""A unit is suspected when in it so many values would lie in range."""

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


def check_columns(found: Gathered) -> Iterator[Finding]:
    """Every column is there, filled, and within its rule."""
    for error in found.unread:
        yield Finding("unread", Severity.STOPS, f"{error.message}.", error.hint)
    if not found.rows and not found.unread:
        yield Finding("empty", Severity.STOPS, "The sources hold no record.", "Check 'path' in site.yaml.")
    for name, rows in found.absent.items():
        yield Finding(
            "absent", Severity.STOPS, f"Column '{name}' is not there.",
            "Add it to the export, or a rule to mapping.yaml.", name, rows,
        )  # fmt: skip
    for broken in found.broken_rules:
        yield Finding("rule", Severity.STOPS, f"{broken.message}.", broken.hint)
    for name, column in found.columns.items():
        if name in found.absent:
            continue
        for fault, said in _FAULTS.items():
            if count := column.faults[fault]:
                cure = "Correct the export or mapping.yaml; a round refuses such data at the first."
                sentence = f"Column '{name}': {count:,} of {found.rows:,} records {said}."
                yield Finding(fault, Severity.STOPS, sentence, cure, name, count)
        if not found.rows or not column.missing:
            continue
        share = column.missing / found.rows
        if share == 1.0:
            yield Finding("all missing", Severity.STOPS, f"Column '{name}' is empty in every record.", "", name)
        elif share >= MUCH_MISSING:
            yield Finding(
                "missing", Severity.LOOK, f"Column '{name}' is missing in {share:.0%} of the records.",
                "Ask whether it is missing for a reason; the contract says what becomes of such records.", name,
                column.missing,
            )  # fmt: skip
    for column_spec in found.contract.columns:
        kept = found.columns.get(column_spec.name)
        if kept is not None and _one_value(kept.values) and found.rows >= 20:
            yield Finding(
                "constant", Severity.LOOK, f"Column '{column_spec.name}' has one value in every record.",
                "Check the export; a constant tells nothing, and may stand for missing.", column_spec.name,
            )  # fmt: skip


_FAULTS: Final = {
    "no number": "hold no number",
    "outside": "lie outside the contract's range",
    "unknown code": "hold none of the contract's codes",
}


def check_units(found: Gathered) -> Iterator[Finding]:
    """A column whose values fit another unit better, or that lies far from where the contract expects it."""
    for column in found.contract.columns:
        kept = found.columns.get(column.name)
        if not isinstance(column, NumberColumn) or kept is None:
            continue
        values = kept.values[np.isfinite(kept.values)]
        if len(values) < 10:
            continue
        inside, median = _inside(values, column), float(np.median(values))
        if inside >= FITS and abs(median - column.center) <= FAR * column.scale:
            continue
        likely = _likely(values, column)
        if likely is not None:
            unit, by = likely
            yield Finding(
                "unit", Severity.STOPS if inside < FITS else Severity.LOOK,
                f"Column '{column.name}' looks like {unit}, and the contract is in {column.unit} (a factor of "
                f"{by.factor:.4g}).", f"Write 'unit: {unit}' into the column's rule in mapping.yaml, if it is so.",
                column.name,
            )  # fmt: skip
        elif inside >= FITS:
            yield Finding(
                "far", Severity.LOOK,
                f"Column '{column.name}' lies far from the contract's centre of {column.center:g} {column.unit}.",
                "Check its unit, and whether a code such as 0 or 999 stands for missing.", column.name,
            )  # fmt: skip


def _likely(values: npt.NDArray[np.float64], column: NumberColumn) -> tuple[str, Conversion] | None:
    """The unit in which nearly all values would be in range and their median nearest to the centre."""
    text = f"{column.name} {column.meaning}".lower()
    mass = next((mass for piece, mass in MOLAR_MASS.items() if piece in text), None)
    best: tuple[float, str, Conversion] | None = None
    for unit in UNITS:
        try:
            by = conversion(unit, column.unit, mass)
        except UsageError:
            continue
        if 0.999 < by.factor < 1.001 and abs(by.offset) < 1e-9:
            continue
        changed = values * by.factor + by.offset
        distance = abs(float(np.median(changed)) - column.center) / column.scale
        if _inside(changed, column) >= FITS and distance <= FAR and (best is None or distance < best[0]):
            best = (distance, unit, by)
    return None if best is None else best[1:]


def _inside(values: npt.NDArray[np.float64], column: NumberColumn) -> float:
    return float(((values >= column.minimum) & (values <= column.maximum)).mean())


def _one_value(values: npt.NDArray[np.float64]) -> bool:
    seen = values[np.isfinite(values)]
    return len(seen) > 0 and bool((seen == seen[0]).all())


def check_pictures(found: Gathered) -> Iterator[Finding]:
    """A header field that is one number at the whole site: where sites differ in it, it names the hospital."""
    alike = [name for name, values in found.header.items() if len(values) >= 20 and _one_value(values)]
    if alike:
        yield Finding(
            "one machine", Severity.FINE,
            f"Every picture has one value of {', '.join(alike)}. Where other hospitals have another, a model can tell "
            "the hospital by it, and so its share of cases.", "Compare with the other hospitals before any claim.",
        )  # fmt: skip


def check_left_out(found: Gathered) -> Iterator[Finding]:
    """What the readers left out, by reason."""
    for reason, count in sorted(found.left_out.items()):
        if count:
            whole = count >= max(found.rows, 1)
            severity = Severity.LOOK if whole or count > 0.1 * max(found.rows, 1) else Severity.FINE
            yield Finding("left out", severity, f"Left out by the reader: {count:,} x {reason}.", "", "", count)
