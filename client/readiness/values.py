"""Columns: missing, broken, out of range, constant, in another unit; pictures that are all alike; what was left out."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from wardround.client.mapping.likely_units import FAR, FITS, fit, likely_units
from wardround.client.readiness.finding import Finding, Severity
from wardround.client.readiness.gathered import Gathered
from wardround.protocol.contract import NumberColumn

MUCH_MISSING: Final = 0.3


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
    quantity = found.contract.quantity
    for column in (*found.contract.columns, *(() if quantity is None else (quantity,))):
        kept = found.columns.get(column.name)
        if not isinstance(column, NumberColumn) or kept is None:
            continue
        values = kept.values[np.isfinite(kept.values)]
        if len(values) < 10:
            continue
        inside, distance = fit(values, column)
        if inside >= FITS and distance <= FAR:
            continue
        units = likely_units(values, column)
        if units:
            likely = units[0]
            yield Finding(
                "unit", Severity.STOPS if inside < FITS else Severity.LOOK,
                f"Column '{column.name}' looks like {likely.unit}, and the contract is in {column.unit} (a factor of "
                f"{likely.by.factor:.4g}).",
                f"Write 'unit: {likely.unit}' into the column's rule in mapping.yaml, if it is so.", column.name,
            )  # fmt: skip
        elif inside >= FITS:
            yield Finding(
                "far", Severity.LOOK,
                f"Column '{column.name}' lies far from the contract's centre of {column.center:g} {column.unit}.",
                "Check its unit, and whether a code such as 0 or 999 stands for missing.", column.name,
            )  # fmt: skip


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
