"""``wardround coordinator start|status``: run the coordinator, and say how it stands."""

import json
import logging
import logging.handlers
import signal
from pathlib import Path
from typing import Any

import typer

from wardround.conf.monitoring import Monitoring, parse_address, serve
from wardround.protocol.alarm import in_words
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.roster import standing
from wardround.server.folder import CoordinatorFolder
from wardround.server.store.registry import Registry
from wardround.server.store.witness import kept_alarms


def start_command(folder: Path, metrics: str | None) -> None:
    """Run the coordinator in ``folder`` until a signal; every process that it started has ended then."""
    from wardround.server.supervisor import Supervisor

    opened = CoordinatorFolder.open(folder)
    if running(opened):
        raise UsageError("this coordinator runs already", "stop it first, or look at 'wardround coordinator status'")
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _: told.append(got))
    _log_to(opened)
    about = opened.about
    typer.echo(f"Coordinator '{about.name}' at {about.public_host}:{about.public_port}; Ctrl-C stops it.")
    typer.echo(f"Logs: {opened.logs}")
    monitoring = None if metrics is None else _monitoring(opened, metrics)
    try:
        Supervisor(opened, lambda: bool(told)).run()
    finally:
        if monitoring is not None:
            monitoring.stop()


def _monitoring(folder: CoordinatorFolder, address: str) -> Monitoring:
    from wardround.server.metrics import MEASUREMENTS, coordinator_values

    return serve(parse_address(address), MEASUREMENTS, lambda: coordinator_values(folder))


def status_command(folder: Path, as_json: bool) -> None:
    """Say whether the coordinator runs, which sites it knows, and what its studies do."""
    opened = CoordinatorFolder.open(folder)
    found = _status(opened)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    typer.echo(f"Coordinator '{found['name']}': {'running' if found['running'] else 'not running'}.")
    roster = found["roster"]
    typer.echo("No roster is in force yet." if roster is None else f"Roster: epoch {roster['epoch']}. {roster['who']}")
    for site in found["sites"]:
        state = "revoked" if site["revoked"] else "online" if site["online"] else "not heard of"
        typer.echo(f"  {site['site']}: {state}")
    for alarm in found["alarms"]:
        typer.echo(f"ALARM {alarm['kind']} since {alarm['at']}, SHA-256 {alarm['sha256']}. {alarm['about']}")
    for study in found["studies"]:
        words = study["state"] or study["wanted"]
        typer.echo(f"Study {study['study']} ({study['digest'][:12]}): {words}. {study['note']}".rstrip())


def running(folder: CoordinatorFolder) -> bool:
    """Whether a supervisor of this folder is alive."""
    try:
        pid = int((folder.path / "coordinator.pid").read_text())
        return "wardround" in Path(f"/proc/{pid}/cmdline").read_text()
    except (OSError, ValueError):
        return False


def _status(folder: CoordinatorFolder) -> dict[str, Any]:
    registry, online = Registry(folder.database), set[int]()
    alive = running(folder)
    if alive:
        from wardround.server.flower.control import SuperLinkControl

        try:
            control = SuperLinkControl(folder.runtime_port, folder.superexec_secret())
            online = {node.node_id for node in control.nodes() if node.online}
            control.close()
        except Unavailable:
            alive = False
    nodes, roster = registry.nodes(), registry.roster()
    return {
        "name": folder.about.name,
        "running": alive,
        "roster": None if roster is None else {"epoch": roster.epoch, "who": standing(roster)},
        "sites": [
            {"site": s.site, "revoked": s.revoked, "online": nodes.get(s.site) in online} for s in registry.sites()
        ],
        "alarms": [
            {"kind": a.kind, "origin": a.origin, "by": a.by, "at": a.at, "sha256": a.digest, "about": in_words(a)}
            for a in kept_alarms(folder.witness)
        ],
        "studies": [
            {"study": r.plan.study, "digest": r.plan.digest, "state": r.state, "wanted": r.wanted, "note": r.note}
            for r in registry.studies()
        ],
    }


def _log_to(folder: CoordinatorFolder) -> None:
    folder.logs.mkdir(mode=0o700, exist_ok=True)
    file = logging.handlers.RotatingFileHandler(folder.logs / "coordinator.log", maxBytes=5_000_000, backupCount=4)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.getLogger().addHandler(file)
    logging.getLogger().setLevel(logging.INFO)
    for noisy in ("httpx", "flwr", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
