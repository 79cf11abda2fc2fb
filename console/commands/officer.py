"""``wardround officer``: an officer's own key, made on the officer's own machine."""

import os
from pathlib import Path

import typer

from wardround.client.store.keys import MIN_PASSPHRASE, OfficerCard, fingerprint, write_officer_key
from wardround.console.commands.ledger import PASSPHRASE
from wardround.console.new_files import write_new
from wardround.protocol.errors import UsageError, WardroundError
from wardround.protocol.identity import Identity


def init_command(name: str, folder: Path) -> None:
    """Make ``name.key``, sealed with a passphrase, and ``name.pub``, the card for the sites; neither is overwritten."""
    try:
        officer = Identity.generate(name)
    except ValueError as error:
        raise UsageError(f"{error}".replace("site name", "officer's name"), "for example: anna") from None
    key, card = folder / f"{name}.key", folder / f"{name}.pub"
    if not folder.is_dir():
        raise UsageError(f"there is no folder '{folder}'", "make it first, or leave out --folder")
    for path in (key, card):
        if path.exists():
            raise UsageError(f"'{path}' exists already", "a key is never overwritten: choose another name or folder")
    write_officer_key(key, officer, _new_passphrase())
    public = OfficerCard(officer=name, key=officer.public.key.hex())
    try:
        write_new(card, f"{public.model_dump_json(indent=2)}\n".encode())
    except WardroundError:
        key.unlink()
        raise
    typer.echo(f"{key}: your private key, sealed with the passphrase. Keep it, and a copy of it, to yourself.")
    typer.echo(f"{card}: your card. Give it to the site.")
    typer.echo(f"Fingerprint: {fingerprint(officer.public.key)}")
    typer.echo("When the site names it, compare it by telephone. A lost passphrase or key cannot be replaced.")


def _new_passphrase() -> str:
    """From the environment (scripts), else asked for twice without showing it."""
    text = f"Passphrase, at least {MIN_PASSPHRASE} characters"
    return os.environ.get(PASSPHRASE) or typer.prompt(text, hide_input=True, confirmation_prompt=True, err=True)
