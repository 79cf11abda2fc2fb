"""``wardround site console|account`` and ``coordinator console|account``: the pages, and who may log in to them."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from wardround.console.web.roles import Face

if TYPE_CHECKING:
    from wardround.console.web.accounts import Accounts

PASSWORD: Final = "WARDROUND_CONSOLE_PASSWORD"
"""The variable that holds a new account's password where nobody sits at a terminal."""


def serve_command(
    folder: Path,
    face: Face,
    listen: str,
    port: int,
    certificate: Path | None,
    key: Path | None,
    origins: list[str],
) -> None:
    """Serve the pages until Ctrl-C."""
    from wardround.console.web.serve import serve

    def listening(address: str) -> None:
        typer.echo(f"Console of '{folder}' at {address}; Ctrl-C stops it.")

    serve(folder, face, listen, port, certificate, key, tuple(origins), listening)


def add_command(folder: Path, face: Face, name: str, role: str) -> None:
    """Make an account, and show its second factor once."""
    accounts, place = _accounts(folder, face)
    password = os.environ.get(PASSWORD) or typer.prompt(
        "Password of the account", hide_input=True, confirmation_prompt=True, err=True
    )
    secret = accounts.add(name, role, password)
    typer.echo(f"Account '{name}' with the role '{role}'.")
    _show(name, secret, place)


def list_command(folder: Path, face: Face) -> None:
    """Every account."""
    accounts, _ = _accounts(folder, face)
    found = accounts.all()
    if not found:
        typer.echo("There is no account yet: make one with 'account add'.")
    for one in found:
        last = "never logged in" if one.last_login is None else f"last login {_text(one.last_login)}"
        typer.echo(f"{one.name:<24} {one.role.value:<12} {last}{'  DISABLED' * one.disabled}")


def disable_command(folder: Path, face: Face, name: str) -> None:
    """Let an account log in no more, from now on."""
    _accounts(folder, face)[0].disable(name)
    typer.echo(f"Account '{name}' is disabled and logged out. What its officer signed stays signed.")


def reset_totp_command(folder: Path, face: Face, name: str) -> None:
    """A new second factor, shown once; the old one is worth nothing."""
    accounts, place = _accounts(folder, face)
    _show(name, accounts.reset_totp(name), place)


def _accounts(folder: Path, face: Face) -> tuple["Accounts", str]:
    from wardround.console.web.accounts import Accounts
    from wardround.console.web.store import open_console

    place = _place(folder, face)
    return Accounts(open_console(folder), face), place


def _place(folder: Path, face: Face) -> str:
    if face is Face.SITE:
        from wardround.client.store.folder import SiteFolder

        return SiteFolder.open(folder).site
    from wardround.server.folder import CoordinatorFolder

    return CoordinatorFolder.open(folder).about.name


def _show(name: str, secret: str, place: str) -> None:
    import segno

    from wardround.console.web.accounts import provisioning_uri

    typer.echo("The second factor, shown this once. Let the account's owner scan it with an authenticator app:")
    segno.make(provisioning_uri(name, secret, f"Wardround {place}"), error="m").terminal(compact=True)
    typer.echo(f"Or type it into the app: {' '.join(secret[at : at + 4] for at in range(0, len(secret), 4))}")
    typer.echo("Clear this screen afterwards: who has it and the password can log in.")


def _text(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
