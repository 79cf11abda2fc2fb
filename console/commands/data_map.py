"""``wardround data map``: a first mapping.yaml for a study, with a reason for every line."""

from pathlib import Path

import typer

from wardround.client.connectors import IMAGE_CONNECTORS, read_batches
from wardround.client.mapping.profile import profiles
from wardround.client.mapping.proposal import propose
from wardround.client.mapping.writing import as_yaml, one_line
from wardround.client.settings import read_settings
from wardround.client.store.database import open_copy
from wardround.client.store.folder import SiteFolder
from wardround.client.store.studies import Studies
from wardround.console.new_files import write_new
from wardround.protocol.errors import UsageError


def map_command(folder: Path, study: str, source: int, out: Path | None) -> None:
    """Print the proposal, or write it to a new file."""
    opened = SiteFolder.open(folder)
    store = open_copy(opened.database)
    try:
        plan = Studies(store).named(study).plan
    finally:
        store.close()
    settings = read_settings(opened.path)
    if not 1 <= source <= len(settings.data):
        raise UsageError(f"site.yaml has no data source {source}", f"write a number from 1 to {len(settings.data)}")
    chosen = settings.data[source - 1]
    if chosen.connector in IMAGE_CONNECTORS:
        raise UsageError("pictures have no columns to map", "docs/imaging.md says what is read of them")
    found = profiles(read_batches(chosen.connector, opened.path / chosen.path, chosen.options))
    proposed = propose(plan.contract_or_fail, found)
    text = as_yaml(proposed, f"'{plan.study}' ({plan.digest[:12]})")
    if out is None:
        typer.echo(text, nl=False)
        return
    write_new(out, text.encode())
    left = [each.name for each in proposed if each.is_open]
    typer.echo(f"{len(proposed) - len(left)} of {len(proposed)} columns are proposed in {out}")
    if left:
        typer.echo(f"left open: {', '.join(one_line(name) for name in left)}")
    if uncertain := [one_line(each.name) for each in proposed if each.doubts]:
        typer.echo(f"uncertain: {', '.join(uncertain)}")
    typer.echo("Read every line, then try it: wardround data check")
