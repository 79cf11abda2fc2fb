"""``wardround site witnessed``: who has signed whose ledger, up to which entry and when, and what does not agree."""

import json
from dataclasses import asdict
from pathlib import Path

import typer

from wardround.client.store.folder import SiteFolder
from wardround.client.store.witnessing import AlarmView, witnessing


def witnessing_command(folder: Path, as_json: bool) -> None:
    """Print what the site in ``folder`` holds of witnesses and alarms."""
    site = SiteFolder.open(folder)
    found = witnessing(site.database, site.site)
    if as_json:
        alarms = [asdict(alarm) | {"content": json.loads(alarm.content)} for alarm in found.alarms]
        typer.echo(json.dumps(asdict(found) | {"alarms": alarms}, indent=2))
        return
    typer.echo(f"The ledger of '{site.site}' has {found.entries} entries.")
    for one in found.own:
        typer.echo(f"  '{one.witness}' has signed the first {one.size}, {one.at}.")
    if not found.own:
        typer.echo("  Nobody has signed its head yet: that begins with the first round of a study of three hospitals.")
    for one in found.others:
        when = f", {one.at}" if one.at else ""
        typer.echo(f"This site has signed the first {one.size} entries of the ledger of '{one.origin}'{when}.")
    if not found.alarms:
        typer.echo("No alarm: everything that was heard of ledgers agrees.")
    for alarm in found.alarms:
        typer.echo(in_words(alarm))
    if found.alarms:
        typer.echo("docs/operations.md says what to do. The evidence: wardround site evidence FOLDER --json")


def in_words(alarm: AlarmView) -> str:
    """One line for an alarm."""
    state = "ALARM" if alarm.answered is None else f"answered {alarm.answered}:"
    return f"{state} {alarm.kind} since {alarm.since}. {alarm.about} Raised by '{alarm.by}'. SHA-256 {alarm.digest}"
