"""The list of checks: a function that looks at what was gathered, and a line here."""

from collections.abc import Callable, Iterator
from typing import Final

from wardround.client.readiness.finding import Finding, Severity
from wardround.client.readiness.gathered import Gathered
from wardround.client.readiness.label import check_label, check_leaks
from wardround.client.readiness.machines import check_header_leaks, check_machines
from wardround.client.readiness.people import check_duplicates, check_patients, check_split
from wardround.client.readiness.values import check_columns, check_left_out, check_pictures, check_units

CHECKS: Final[dict[str, Callable[[Gathered], Iterator[Finding]]]] = {
    "columns": check_columns,
    "units": check_units,
    "label": check_label,
    "leaks": check_leaks,
    "patients": check_patients,
    "duplicates": check_duplicates,
    "split": check_split,
    "pictures": check_pictures,
    "machines": check_machines,
    "header leaks": check_header_leaks,
    "left out": check_left_out,
}


def check(gathered: Gathered) -> list[Finding]:
    """Every finding of every check, what stops the study first."""
    found = [finding for run in CHECKS.values() for finding in run(gathered)]
    return sorted(found, key=lambda finding: list(Severity).index(finding.severity))
