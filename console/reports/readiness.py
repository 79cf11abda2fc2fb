"""What ``data check`` found at one site, in full, as one HTML page for the people who may see its patients."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from wardround.client.readiness import Finding, Gathered, Severity
from wardround.console.reports import words
from wardround.console.reports.html import page
from wardround.console.reports.numbers import plural
from wardround.protocol.contract import DataContract
from wardround.protocol.plan import StudyPlan

NOTE = "Exact counts of this site: for the people who may see its patients, and for nobody else."

HEADINGS = {
    Severity.STOPS: ("Stops the study", "✗"),
    Severity.LOOK: ("To be looked at", "!"),
    Severity.FINE: ("In order", "✓"),
}
"""The heading of a section, and a sign that says the same without colour."""


@dataclass(frozen=True, slots=True)
class Row:
    """One column of the contract: ``missing`` and ``broken`` count records; ``said`` holds its findings' codes."""

    name: str
    meaning: str
    unit: str
    allowed: str
    missing: int | None
    broken: int | None
    said: tuple[str, ...]


def render_readiness(
    found: Gathered, findings: list[Finding], plan: StudyPlan, site: str, outward: dict[str, Any], made: datetime
) -> str:
    """The page: ``outward`` is what ``for_consortium`` lets others see, and ``made`` the time to write on it."""
    contract = plan.contract_or_fail
    known = found.label[np.isfinite(found.label)]
    return page(
        "readiness.html.j2",
        site=site,
        plan=plan,
        made=made,
        note=NOTE,
        answer=answer(findings),
        ready=outward["ready"],
        rows=_rows(found, findings, contract),
        records=found.rows,
        patients=len(set(found.patients) - {""}) if contract.patient_id is not None else None,
        labelled=len(known),
        positive=int((known == 1).sum()) if contract.label.kind in ("class", "survival") else None,
        sections=[
            (severity, *heading, [each for each in findings if each.severity is severity])
            for severity, heading in HEADINGS.items()
        ],
        outward=outward,
        words=words,
    )


def answer(findings: list[Finding]) -> str:
    """The whole in a sentence."""
    stops, look = (sum(each.severity is kind for each in findings) for kind in (Severity.STOPS, Severity.LOOK))
    if stops:
        stopping = "1 finding stops" if stops == 1 else f"{stops} findings stop"
        return f"Not ready: {stopping} the study here; {look} to be looked at."
    return f"Ready; {plural(look, 'finding')} to be looked at." if look else "Ready."


def _rows(found: Gathered, findings: list[Finding], contract: DataContract) -> list[Row]:
    rows = []
    for fact in words.column_facts(contract):
        kept = None if fact.name in found.absent else found.columns.get(fact.name)
        said = tuple(dict.fromkeys(each.code for each in findings if each.column == fact.name))
        missing, broken = (None, None) if kept is None else (kept.missing, kept.faults.total())
        rows.append(Row(fact.name, fact.meaning, fact.unit, fact.allowed, missing, broken, said))
    return rows
