"""``wardround site status|pause|resume|stop``: a daemon's people, over its control socket."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import typer

from wardround.client.control import control_pb2 as pb
from wardround.client.control.client import SECONDS, control, socket_of
from wardround.protocol.errors import Unavailable

STOP_SECONDS = 60.0


def status_command(folder: Path, as_json: bool) -> None:
    """Say how the daemon stands."""
    with control(folder) as site:
        found = site.Status(pb.StatusRequest(), timeout=SECONDS)
    if as_json:
        values = {field.name: getattr(found, field.name) for field in pb.StatusReply.DESCRIPTOR.fields}
        typer.echo(json.dumps(values, indent=2))
        return
    since = datetime.fromtimestamp(found.started_at, UTC)
    why = f" ({found.reason})" if found.reason else ""
    typer.echo(f"Site '{found.site}': {found.state}{why}, link {found.link}.")
    typer.echo(f"Process {found.pid}, since {since:%Y-%m-%d %H:%M} UTC.")
    if found.last_at:
        study = f" of plan {found.last_plan[:12]}" if found.last_plan else ""
        typer.echo(f"Last message: {found.last_exchange}{study}, {found.last_at}; round {found.round_number}.")
    else:
        typer.echo("No message since it started.")
    typer.echo(f"Requests refused since it started: {found.refusals}.")
    if found.open_alarms:
        typer.echo(f"ALARMS on ledgers: {found.open_alarms} without an answer. wardround site witnessed {folder}")
    typer.echo(f"Version {found.version}, behaviour {found.behaviour[:12]}.")


def pause_command(folder: Path, reason: str) -> None:
    """Answer no round until resumed."""
    with control(folder) as site:
        site.Pause(pb.PauseRequest(reason=reason), timeout=SECONDS)
    typer.echo("Paused: no round is answered. A round that runs is finished.")


def resume_command(folder: Path) -> None:
    """Answer rounds again."""
    with control(folder) as site:
        site.Resume(pb.Empty(), timeout=SECONDS)
    typer.echo("Rounds are answered again.")


def stop_command(folder: Path) -> None:
    """End the daemon, and wait until it has ended."""
    path = socket_of(folder)
    with control(folder) as site:
        site.Stop(pb.Empty(), timeout=SECONDS)
    until = time.monotonic() + STOP_SECONDS
    while path is not None and path.exists():
        if time.monotonic() > until:
            raise Unavailable("the daemon has not ended yet", "it stops at the next step; look at its log")
        time.sleep(0.1)
    typer.echo("Stopped. What was charged stays charged; nothing is lost.")
