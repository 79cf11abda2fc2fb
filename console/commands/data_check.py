"""``wardround data check``: whether a site's data are ready for a study, before anything is trained or charged."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from wardround.client.readiness import Finding, Severity, check, for_consortium, gather
from wardround.client.readiness.consortium import THRESHOLD
from wardround.client.settings import read_settings
from wardround.client.store.database import open_copy
from wardround.client.store.folder import SiteFolder
from wardround.client.store.members import Members
from wardround.client.store.studies import Studies
from wardround.protocol.errors import Unavailable, UsageError

NOTE = "Exact counts of this site: for the people who may see its patients, and for nobody else."
_SIGNS = {Severity.STOPS: ("✗", "red"), Severity.LOOK: ("!", "yellow"), Severity.FINE: ("✓", "green")}


def check_command(folder: Path, study: str, outward: Path | None, threshold: int, as_json: bool) -> None:
    """Say what was found; exit with 1 where something stops the study."""
    if threshold < THRESHOLD:
        raise UsageError(f"a threshold of {threshold} hides too little", f"write {THRESHOLD} or more")
    opened = SiteFolder.open(folder)
    store = open_copy(opened.database)
    try:
        plan, members = Studies(store).named(study).plan, Members(store, opened.patients_key())
        contract = plan.contract_or_fail
        declared = plan.declared_patients(opened.site)
        found = gather(contract, read_settings(opened.path), opened.path, members, declared)
        findings = check(found)
        document = for_consortium(found, findings, opened.site, plan.digest, threshold)
    finally:
        store.close()
    if outward is not None:
        try:
            outward.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise Unavailable(f"'{outward}' cannot be written: {error.strerror}", "name another file") from None
    if as_json:
        said = [asdict(finding) for finding in findings]
        typer.echo(json.dumps({"study": plan.study, "plan": plan.digest, "site": opened.site, "findings": said}))
    else:
        _show(f"'{plan.study}' ({plan.digest[:12]}) at {opened.site}", findings, outward)
    if any(finding.severity is Severity.STOPS for finding in findings):
        raise typer.Exit(1)


def _show(title: str, findings: list[Finding], outward: Path | None) -> None:
    console = Console()
    console.print(f"Data for {title}", highlight=False, style="bold")
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(width=1)
    table.add_column()
    for finding in findings:
        sign, style = _SIGNS[finding.severity]
        table.add_row(sign, finding.sentence, style=style if finding.severity is not Severity.FINE else None)
        if finding.cure:
            table.add_row("", finding.cure, style="dim")
    console.print(table, highlight=False)
    count = Counter(finding.severity for finding in findings)
    stops, look = count[Severity.STOPS], count[Severity.LOOK]
    if stops:
        stopping = "1 finding stops" if stops == 1 else f"{stops} findings stop"
        console.print(f"Not ready: {stopping} the study here; {look} to be looked at.", highlight=False)
    else:
        console.print(f"Ready; {look} to be looked at." if look else "Ready.", highlight=False)
    console.print(NOTE, highlight=False)
    if outward is not None:
        console.print(f"For the consortium, with thresholded counts: {outward}", highlight=False)
