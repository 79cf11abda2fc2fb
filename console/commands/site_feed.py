"""``wardround site feed``: whether a source of live indicators gives what it should, in numbers only."""

import json
from collections import Counter
from pathlib import Path

import typer

from wardround.client.feeds import open_feed
from wardround.client.settings import read_settings
from wardround.client.store.folder import SiteFolder


def check_command(folder: Path, name: str, as_json: bool) -> None:
    """Poll once from the beginning, keep nothing, and say how much there was."""
    opened = SiteFolder.open(folder)
    feed = open_feed(read_settings(folder).feed(name), folder, opened.feeds_key())
    events, _ = feed.poll(None)
    kinds = Counter(event.kind for event in events)
    # Of each identifier the last counts, so a correction and what it corrects are one.
    distinct = len({event.identifier for event in events})
    times = sorted(event.at for event in events)
    days = [times[0].date().isoformat(), times[-1].date().isoformat()] if times else [None, None]
    if as_json:
        found = {
            "feed": name,
            "events": len(events),
            "identifiers": distinct,
            "kinds": dict(sorted(kinds.items())),
            "first_day": days[0],
            "last_day": days[1],
            "set_aside": dict(sorted(feed.set_aside.items())),
        }
        typer.echo(json.dumps(found, indent=2))
        return
    typer.echo(f"{len(events):,} events in the first poll, of {distinct:,} identifiers; nothing is kept of them.")
    if events:
        for kind, count in sorted(kinds.items()):
            typer.echo(f"  {kind}: {count:,}")
        typer.echo(f"The first is of {days[0]}, the last of {days[1]} (UTC).")
    for reason, count in sorted(feed.set_aside.items()):
        typer.echo(f"Set aside: {count:,} times {reason}")
