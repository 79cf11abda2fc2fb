"""``site weights``, ``coordinator weights`` and ``study weights``: install a weights file that people brought."""

from pathlib import Path

import typer

from wardround.client.store.folder import SiteFolder
from wardround.conf.weights import WeightsFolder
from wardround.server.folder import CoordinatorFolder


def site_weights_command(folder: Path, file: Path) -> None:
    """Install ``file`` at a site."""
    _install(SiteFolder.open(folder).weights, file)


def coordinator_weights_command(folder: Path, file: Path) -> None:
    """Install ``file`` at a coordinator."""
    _install(CoordinatorFolder.open(folder).weights, file)


def study_weights_command(folder: Path, file: Path) -> None:
    """Install ``file`` for a researcher's own plans and simulations."""
    _install(WeightsFolder(folder), file)
    typer.echo("A plan names it so: {source: file, sha256: <the above>, licence: ..., provenance: ...}")


def _install(folder: WeightsFolder, file: Path) -> None:
    held = folder.install(file)
    typer.echo(held.sha256)
    typer.echo(
        f"Installed in '{folder.path}': {held.tensors:,} tensors, {held.parameters:,} numbers, {held.bytes:,} bytes. "
        "Compare the SHA-256 above with the plan's."
    )
