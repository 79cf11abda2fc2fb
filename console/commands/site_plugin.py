"""``wardround site plugin``: which code of others may run at a site. Nothing is fetched, and nothing is run here."""

import json
from pathlib import Path

import typer

from wardround.client.plugins.capabilities import capabilities
from wardround.client.store.folder import SiteFolder
from wardround.client.store.keys import fingerprint, read_officer_card
from wardround.console.plan_words import plain, shown_line
from wardround.protocol.errors import UsageError
from wardround.protocol.plugins import SignedPlugin

LEAST_PREFIX = 6


def install_command(folder: Path, file: Path, author: Path) -> None:
    """Install a signed file whose author's card came from elsewhere."""
    opened, card = SiteFolder.open(folder), read_officer_card(author)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UsageError(f"'{file}' cannot be read: {error.strerror}", "give the path of the signed file") from None
    signed = opened.plugins.install(data, card)
    typer.echo(f"Installed: {_line(signed)}")
    typer.echo(f"author's key {fingerprint(card.key)}")
    for line in capabilities(signed.plugin).said():
        typer.echo(f"  {shown_line(line)}")
    typer.echo("It runs under plans that name this digest and that an officer of this site has approved; nothing else.")


def list_command(folder: Path, as_json: bool) -> None:
    """What is installed."""
    held = SiteFolder.open(folder).plugins.held()
    if as_json:
        shown = [one.plugin.manifest.model_dump() | one.ref.model_dump(mode="json") for one in held]
        typer.echo(json.dumps(shown, indent=2))
        return
    if not held:
        typer.echo("No plugin is installed here.")
    for one in held:
        typer.echo(_line(one))


def remove_command(folder: Path, digest: str) -> None:
    """Remove one."""
    plugins = SiteFolder.open(folder).plugins
    found = [one for one in plugins.digests() if len(digest) >= LEAST_PREFIX and one.startswith(digest)]
    if len(found) != 1:
        raise UsageError(
            f"{len(found)} plugins here have a digest that begins so", "wardround site plugin list shows them"
        )
    plugins.remove(found[0])
    typer.echo(f"Removed: {found[0]}")


def _line(signed: SignedPlugin) -> str:
    manifest = signed.plugin.manifest
    about = f"{manifest.kind} {manifest.name} {manifest.version} by {signed.author}: {plain(manifest.summary)}"
    return f"{signed.plugin.digest}  {about}"
