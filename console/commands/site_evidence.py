"""``wardround site evidence``: what others signed and could not have signed honestly, to show or to hand over."""

import json
from pathlib import Path

import typer

from wardround.client.store.database import open_store
from wardround.client.store.evidence import Evidence, Exhibit
from wardround.client.store.folder import SiteFolder
from wardround.client.store.witnessing import all_alarms
from wardround.protocol.alarm import AlarmKind


def _alarms(site: SiteFolder) -> list[Exhibit]:
    """Alarms on ledgers that prove themselves, each with its evidence inside."""
    found = all_alarms(site.database, site.site)
    return [Exhibit(alarm.kind, alarm.since, alarm.content) for alarm in found if alarm.kind is not AlarmKind.SILENCE]


def evidence_command(folder: Path, as_json: bool) -> None:
    """Print every exhibit of the site in ``folder``: a line each, or whole as JSON."""
    site = SiteFolder.open(folder)
    exhibits = [*Evidence(open_store(site.database), site.site).all(), *_alarms(site)]
    if as_json:
        rows = [{"kind": e.kind, "since": e.since, "sha256": e.digest, "content": e.content.decode()} for e in exhibits]
        typer.echo(json.dumps(rows, indent=2))
        return
    if not exhibits:
        typer.echo("No evidence: nobody has signed two things that cannot both be honest.")
    for exhibit in exhibits:
        typer.echo(f"{exhibit.since}  {exhibit.kind:<8} SHA-256 {exhibit.digest}")
    if exhibits:
        typer.echo("With --json each is printed whole, with its signatures: give it to the governance officers.")
