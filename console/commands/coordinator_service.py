"""``wardround coordinator install-service``: the coordinator as a service of systemd, with a user of its own."""

import os
import sys
from pathlib import Path

import typer

from wardround.client.service.units import CoordinatorService, install, uninstall, unseen
from wardround.console.commands.coordinator import running
from wardround.protocol.errors import UsageError
from wardround.server.folder import CoordinatorFolder


def install_service_command(folder: Path, root: Path, show: bool) -> None:
    """Write one systemd unit, or print it."""
    service = _service(folder)
    if show:
        for name, text in service.units().items():
            typer.echo(f"# {name}\n{text}")
        for fault in unseen(service):
            typer.echo(f"On this machine it would not start: {fault}.", err=True)
        return
    for path in install(service, root):
        typer.echo(f"written: {path}")
    account = "--system --user-group --no-create-home --shell /usr/sbin/nologin"
    typer.echo("Next, as root:")
    typer.echo(f"  useradd {account} {service.user}")
    typer.echo(f"  chown -R {service.user}:{service.group} {service.folder} && chmod 700 {service.folder}")
    typer.echo(f"  systemctl daemon-reload && systemctl enable --now {' '.join(service.units())}")


def uninstall_service_command(folder: Path, root: Path) -> None:
    """Remove the unit; keys, receipts and databases stay."""
    service = _service(folder)
    if running(CoordinatorFolder.open(folder)):
        raise UsageError("the coordinator still runs", f"run: systemctl disable --now {' '.join(service.units())}")
    for path in uninstall(service, root):
        typer.echo(f"removed: {path}")
    typer.echo("Keys, receipts and databases are where they were.")


def _service(folder: Path) -> CoordinatorService:
    CoordinatorFolder.open(folder)
    return CoordinatorService(Path(os.path.abspath(folder)), Path(sys.executable))
