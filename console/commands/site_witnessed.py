"""``wardround site witnessed``: who has signed whose ledger, up to which entry and when, and what does not agree."""

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import typer

from wardround.client.store.database import open_copy
from wardround.client.store.folder import SiteFolder
from wardround.client.store.roster import PinnedRoster
from wardround.client.store.witnessing import AlarmView, witnessing
from wardround.protocol.alarm import false_witnesses, parse_alarm
from wardround.protocol.identity import PublicIdentity


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
    parties = _parties(site) if found.alarms else {}
    for alarm in found.alarms:
        typer.echo(in_words(alarm, parties))
    if found.alarms:
        typer.echo("docs/operations.md says what to do. The evidence: wardround site evidence FOLDER --json")


def in_words(alarm: AlarmView, parties: Mapping[str, PublicIdentity]) -> str:
    """One line for an alarm; it names the witnesses among ``parties`` who signed both histories."""
    state = "ALARM" if alarm.answered is None else f"answered {alarm.answered}:"
    false = false_witnesses(parse_alarm(alarm.content, alarm.origin), parties)
    both = f"Signed both, as no honest witness does: {', '.join(false)}. " if false else ""
    about = f"{alarm.about} {both}Raised by '{alarm.by}'."
    return f"{state} {alarm.kind} since {alarm.since}. {about} SHA-256 {alarm.digest}"


def _parties(site: SiteFolder) -> dict[str, PublicIdentity]:
    """Whose keys the site knows by its roster; none before one is pinned."""
    with closing(open_copy(site.database)) as store:
        roster = PinnedRoster(store, site.identity().public).held()
    return {} if roster is None else roster.identities
