"""``wardround site notify``: tell people of what they must hear without looking; once each."""

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import typer

from wardround.client.store.folder import SiteFolder
from wardround.console.notices.channels import Channel, channels_of
from wardround.console.notices.journal import Journal, Outcome
from wardround.console.notices.looking import Looker
from wardround.console.notices.settings import read_notify
from wardround.console.notices.told import Told
from wardround.console.notices.watching import Seen, notices
from wardround.protocol.errors import Unavailable, UsageError, WardroundError


def notify_command(folder: Path, once: bool, show: bool) -> None:
    """Look at the site every few minutes and send what is new; ``show`` prints what there is now and sends nothing."""
    opened = SiteFolder.open(folder)
    looker = Looker(opened)
    if show:
        found = notices(looker.look(datetime.now(UTC)))
        for notice in found:
            typer.echo(f"{notice.level.value}: {notice.sentence}\n  {notice.cure}")
        if not found:
            typer.echo("There is nothing that people must know now.")
        return
    settings = read_notify(opened.path)
    channels = channels_of(settings, opened.path)
    if not channels:
        raise UsageError("notify.yaml names nobody", "write 'email:' or 'webhook:'; docs/notices.md shows both")
    told = Told.open(opened.path)
    while True:
        failed = tell(looker.look(datetime.now(UTC)), channels, told, lambda line: typer.echo(line, err=True))
        if once:
            raise typer.Exit(1 if failed else 0)
        time.sleep(60.0 * settings.every_minutes)


def tell(seen: Seen, channels: dict[str, Channel], told: Told, say: Callable[[str], None]) -> int:
    """Send to each channel what it was not told yet; returns how many channels could not be told."""
    found, failed, journal = notices(seen), 0, Journal.beside(told.path)
    for name, channel in channels.items():
        fresh = told.fresh(name, found)
        try:
            if fresh:
                channel.send(seen, fresh)
        except WardroundError as error:
            failed += 1
            say(f"{name}: {error.message}; {error.hint}")
            with suppress(Unavailable):
                journal.note(seen.at, name, Outcome.FAILED, fresh, error.message)
            told.note(name, [notice for notice in found if notice not in fresh], all_known=seen.answers)
            continue
        if fresh:
            say(f"{name}: {len(fresh)} notice(s) sent")
            with suppress(Unavailable):
                journal.note(seen.at, name, Outcome.SENT, fresh)
        told.note(name, found, all_known=seen.answers)
    return failed
