"""The label: its classes, and columns that tell it so well that they may have been written after it was known."""

from collections.abc import Iterator
from math import sqrt
from typing import Final

import numpy as np
import numpy.typing as npt

from wardround.client.readiness.finding import Finding, Severity
from wardround.client.readiness.gathered import Gathered
from wardround.protocol.contract import NumberColumn
from wardround.protocol.labels import FindingsLabel

LEAK: Final = 0.95
"""A single column whose AUROC surely exceeds this is looked at."""

FEWEST: Final = 10
"""Records of each class that such a statement needs."""


def check_label(found: Gathered) -> Iterator[Finding]:
    """Every outcome has both classes, and how many; a quantity or a mask is there."""
    contract, name = found.contract, found.contract.label.columns[-1]
    known = found.label[np.isfinite(found.label)]
    if not len(known):
        if found.rows:
            yield Finding("no label", Severity.STOPS, "No record has a label.", "Check the label's column.", name)
        return
    if contract.quantity is not None:
        yield _quantity(found.columns[name].values, contract.quantity, found.rows)
    elif contract.label.kind == "mask":
        yield Finding("prevalence", Severity.FINE, f"{len(known):,} of {found.rows:,} records name a mask.", "", name)
    elif isinstance(contract.label, FindingsLabel):
        for each in contract.label.findings:
            values = found.columns[each.column].values
            yield from _classes(values[np.isfinite(values)], each.column, f"have '{each.meaning}'")
    else:
        what = "have the outcome" if contract.label.kind == "class" else "have the event"
        yield from _classes(known, name, what)


def _classes(known: npt.NDArray[np.float64], name: str, what: str) -> Iterator[Finding]:
    if not len(known):
        yield Finding("one class", Severity.LOOK, f"No record states '{name}'.", "Check the column's codes.", name)
        return
    positive = int(known.sum())
    yield Finding(
        "prevalence", Severity.FINE, f"{positive:,} of {len(known):,} records {what} ({positive / len(known):.0%}).",
        "", name, positive,
    )  # fmt: skip
    if positive in (0, len(known)):
        yield Finding(
            "one class", Severity.LOOK, "All records are of one class.",
            "Check the label's codes. If it is so, this site has no model of its own to compare with.", name,
        )  # fmt: skip
    elif min(positive, len(known) - positive) < FEWEST:
        yield Finding(
            "rare class", Severity.LOOK, f"One class has fewer than {FEWEST} records.",
            "Metrics of this site will have very wide intervals, if any.", name,
        )  # fmt: skip


def _quantity(values: npt.NDArray[np.float64], column: NumberColumn, rows: int) -> Finding:
    seen = values[np.isfinite(values)]
    low, middle, high = np.percentile(seen, [10, 50, 90])
    return Finding(
        "prevalence", Severity.FINE,
        f"{len(seen):,} of {rows:,} records have '{column.name}': median {middle:.4g} {column.unit}, four of five in "
        f"{low:.4g} to {high:.4g}.", "", column.name, len(seen),
    )  # fmt: skip


def check_leaks(found: Gathered) -> Iterator[Finding]:
    """A column, its being missing, or a header field that tells the label nearly alone."""
    for name, values, what in _candidates(found):
        usable = np.isfinite(values) & np.isfinite(found.label)
        auroc, low = auroc_with_bound(values[usable], found.label[usable] > 0)
        if low >= LEAK:
            yield Finding(
                "leak", Severity.LOOK, f"{what} tells the label nearly alone (AUROC {auroc:.3f}, at least {low:.3f}).",
                "Ask when it was written: what is noted after the diagnosis cannot be used to make it.", name,
            )  # fmt: skip


def _candidates(found: Gathered) -> Iterator[tuple[str, npt.NDArray[np.float64], str]]:
    for column in found.contract.columns:
        kept = found.columns.get(column.name)
        if kept is None:
            continue
        if column.type == "number":
            yield column.name, kept.values, f"Column '{column.name}'"
        else:
            for place, code in enumerate(column.codes):
                values = np.where(np.isfinite(kept.values), (kept.values == place).astype(float), np.nan)
                yield column.name, values, f"Column '{column.name}' = {code}"
        yield column.name, np.isnan(kept.values).astype(float), f"Whether column '{column.name}' is missing"
    for name, values in found.header.items():
        yield "", values, f"The header field {name}"
        yield "", np.isnan(values).astype(float), f"Whether the header field {name} is there"


def auroc_with_bound(values: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """AUROC of ``values`` in the better direction, and the lower end of its 95 % interval (Hanley, McNeil 1982).

    (0.5, 0) where a class has fewer than ten records or all values are alike. The standard error of the formula is 0
    at an AUROC of 1; half a pair of the smaller class is taken off first, so that few records are never sure.
    """
    ones, zeros = int(positive.sum()), int((~positive).sum())
    if min(ones, zeros) < FEWEST or not len(values) or (values == values[0]).all():
        return 0.5, 0.0
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    auroc = float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))
    auroc = max(auroc, 1.0 - auroc)
    a = min(auroc, 1.0 - 0.5 / min(ones, zeros))
    first, second = a / (2 - a), 2 * a * a / (1 + a)
    variance = (a * (1 - a) + (ones - 1) * (first - a * a) + (zeros - 1) * (second - a * a)) / (ones * zeros)
    return auroc, a - 1.96 * sqrt(max(variance, 0.0))
