"""``wardround data check``: whether a site's data are ready for a study, before anything is trained or charged."""

import json
import os
from dataclasses import asdict
from datetime import UTC, datetime
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
from wardround.console.reports.readiness import NOTE, answer, render_readiness
from wardround.protocol.errors import Unavailable, UsageError

_SIGNS = {Severity.STOPS: ("✗", "red"), Severity.LOOK: ("!", "yellow"), Severity.FINE: ("✓", "green")}


def check_command(
    folder: Path, study: str, outward: Path | None, threshold: int, as_json: bool, page: Path | None = None
) -> None:
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
        _write(outward, json.dumps(document, indent=1) + "\n", 0o666)
    if page is not None:
        made = datetime.now(UTC).replace(microsecond=0)
        _write(page, render_readiness(found, findings, plan, opened.site, document, made), 0o600)
    if as_json:
        said = [asdict(finding) for finding in findings]
        typer.echo(json.dumps({"study": plan.study, "plan": plan.digest, "site": opened.site, "findings": said}))
    else:
        _show(f"'{plan.study}' ({plan.digest[:12]}) at {opened.site}", findings, outward, page)
    if any(finding.severity is Severity.STOPS for finding in findings):
        raise typer.Exit(1)


def _write(path: Path, text: str, mode: int) -> None:
    """``text`` into ``path``, over what was there; ``mode`` is of a file that is new."""
    try:
        with open(path, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(text)
    except OSError as error:
        raise Unavailable(f"'{path}' cannot be written: {error.strerror}", "name another file") from None


def _show(title: str, findings: list[Finding], outward: Path | None, page: Path | None) -> None:
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
    console.print(answer(findings), highlight=False)
    console.print(NOTE, highlight=False)
    if outward is not None:
        console.print(f"For the consortium, with thresholded counts: {outward}", highlight=False)
    if page is not None:
        console.print(f"In full, as a page to be kept here: {page}", highlight=False)
