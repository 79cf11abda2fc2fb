"""The part of what was found that may leave the site: numbers of patients, thresholded and rounded, and one bit.

The rule: every figure divides the site's patients into two parts, and is shown only when both parts reach the
threshold, rounded down to a multiple of five. So a figure that is not shown may be any small number or nearly all.
No finding leaves, for most findings are there or not by one patient. Whether something stops the study is said, for
the consortium has to know: that bit is exact, and docs/readiness.md says what it may tell. These are not differentially
private figures: they are for a consortium whose governance has agreed to thresholded counts.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wardround.client.readiness.finding import Finding, Severity
from wardround.client.readiness.gathered import Gathered
from wardround.protocol.contract import Column, NumberColumn

THRESHOLD: Final = 10
STEP: Final = 5
FORMAT: Final = "wardround.readiness/2"

Mask = npt.NDArray[np.bool_]


def shown(count: int, total: int, threshold: int = THRESHOLD) -> int | None:
    """``count`` of ``total`` rounded down to a multiple of five; None: suppressed."""
    if count < threshold or total - count < threshold:
        return None
    return count // STEP * STEP


def shown_total(total: int, threshold: int = THRESHOLD) -> int | None:
    """A total rounded down to a multiple of five; None: suppressed."""
    return None if total < threshold else total // STEP * STEP


def for_consortium(
    found: Gathered, findings: list[Finding], site: str, plan_digest: str, threshold: int = THRESHOLD
) -> dict[str, Any]:
    """What others may read, as a JSON value. Of ``findings`` it says only whether one of them stops the study."""
    people = _People(found)
    unusable = {
        column.name: people.total - people.with_any(_usable(found.columns[column.name].values, column))
        for column in found.contract.columns
        if column.name in found.columns
    }
    label = found.contract.label
    two_classes = label.kind in ("class", "survival")
    labelled = people.with_any(np.isfinite(found.label)) if two_classes else 0
    unlabelled = dict.fromkeys(label.columns, people.total - labelled)
    # With a number of patients without a label beside it, the positive ones would tell the negative ones.
    lost = any(name in found.absent for name in label.columns)
    positive = people.with_any(found.label == 1) if two_classes and not lost else 0
    return {
        "format": FORMAT,
        "site": site,
        "plan": plan_digest,
        "rule": {
            "threshold": threshold,
            "rounded_down_to": STEP,
            "words": f"a number of patients is shown if it and the rest of the patients are {threshold} or more",
        },
        "patients": shown_total(people.total, threshold),
        "label_positive": shown(positive, people.total, threshold),
        "unusable": {name: shown(count, people.total, threshold) for name, count in unusable.items()},
        "not_admitted": shown(people.outside, people.total, threshold),
        "absent": sorted(n for n, count in (unusable | unlabelled).items() if n in found.absent and count >= threshold),
        "ready": not any(finding.severity is Severity.STOPS for finding in findings),
    }


class _People:
    """The patients behind the records; without ids each record is one, and a record of nobody counts for nobody."""

    def __init__(self, found: Gathered) -> None:
        named = found.contract.patient_id is not None
        place = {id_: number for number, id_ in enumerate(dict.fromkeys(found.patients)) if id_}
        whose = [place.get(id_, -1) for id_ in found.patients] if named else range(found.rows)
        self._whose = np.array(whose, np.int64)
        self.total = len(place) if named else found.rows
        parts = found.division.parts(list(place)) if named else ()
        self.outside = sum(part is None for part in parts)

    def with_any(self, records: Mask) -> int:
        """Of how many patients one record or more is among ``records``."""
        return len(np.unique(self._whose[records & (self._whose >= 0)]))


def _usable(values: npt.NDArray[np.float64], column: Column) -> Mask:
    """The records that a round would take, as far as this column goes."""
    if isinstance(column, NumberColumn):
        inside = (values >= column.minimum) & (values <= column.maximum)
        return inside | np.isin(values, column.also_allowed)
    return np.isfinite(values)
