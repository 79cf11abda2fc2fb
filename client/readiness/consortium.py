"""The part of the findings that may leave the site: counts above a threshold, rounded, and the names of findings.

The rule: a count is shown only when it and what is left of its total both reach the threshold, and then rounded down
to a multiple of five. So a suppressed count may be small or nearly all, and no difference of two shown counts is
smaller than what rounding hides. A finding about fewer records than the threshold is not named, but whether something
stops the study is said, for the consortium has to know. These are not
differentially private figures: they are for a consortium whose governance has agreed to thresholded counts.
"""

from typing import Any, Final

import numpy as np

from wardround.client.readiness.finding import Finding, Severity
from wardround.client.readiness.gathered import Gathered

THRESHOLD: Final = 10
STEP: Final = 5
FORMAT: Final = "wardround.readiness/1"


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
    """What others may read, as a JSON value. It holds the contract's own names, and no value and no distribution."""
    people = set(found.patients) - {""}
    known = found.label[np.isfinite(found.label)]
    positive = int(known.sum())
    names = [column.name for column in found.contract.columns]
    said = sorted(
        {
            (code, finding.column if finding.column in names else "", finding.severity.value)
            for finding in findings
            if (code := _named(finding, threshold)) is not None
        }
    )
    return {
        "format": FORMAT,
        "site": site,
        "plan": plan_digest,
        "rule": {
            "threshold": threshold,
            "rounded_down_to": STEP,
            "words": f"a count is shown if it and the rest of its total are {threshold} or more",
        },
        "patients": shown_total(len(people), threshold),
        "records": shown_total(found.rows, threshold),
        "label_positive": shown(positive, len(known), threshold),
        "missing": {
            name: shown(found.columns[name].missing, found.rows, threshold) for name in names if name in found.columns
        },
        "left_out": shown_total(sum(found.left_out.values()), threshold),
        "findings": [{"code": code, "column": column, "severity": severity} for code, column, severity in said],
        "ready": not any(finding.severity is Severity.STOPS for finding in findings),
    }


def _named(finding: Finding, threshold: int) -> str | None:
    """The word for a finding outside the site; None: it is not named there."""
    few = finding.count is not None and finding.count < threshold
    return None if finding.severity is Severity.FINE or few else _OUTSIDE.get(finding.code, finding.code)


_OUTSIDE: Final[dict[str, str | None]] = {
    # That all patients are of one class would say each patient's.
    "one class": "few of a class",
    "rare class": "few of a class",
    "one test class": None,
}
