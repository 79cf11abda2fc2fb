"""``console`` and ``account`` below ``wardround site`` and ``wardround coordinator``: alike, for either face."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from wardround.console.groups import group
from wardround.console.web.roles import Face

Folder: TypeAlias = Annotated[Path, typer.Argument(help="The site's or the coordinator's folder.")]
Name: TypeAlias = Annotated[str, typer.Argument(help="The account's name: a-z, 0-9, '.' and '-'.")]


def add(under: typer.Typer, face: Face) -> None:
    """Hang the commands below ``under``."""

    @under.command("console")
    def console(
        folder: Folder,
        listen: Annotated[str, typer.Option(help="The address to listen at; another needs TLS.")] = "127.0.0.1",
        port: Annotated[int, typer.Option(min=1, max=65535, help="The port.")] = 8640,
        certificate: Annotated[Path | None, typer.Option(help="A certificate (PEM) with its chain.")] = None,
        key: Annotated[Path | None, typer.Option(help="The key of that certificate.")] = None,
        origin: Annotated[
            list[str] | None,
            typer.Option(help="An address under which browsers reach it, for example https://console.example.org"),
        ] = None,
    ) -> None:
        """Serve the pages in a browser until Ctrl-C."""
        from wardround.console.commands.console import serve_command

        serve_command(folder, face, listen, port, certificate, key, origin or [])

    _accounts(group("account", "Who may log in to the pages.", under), face)


def _accounts(account: typer.Typer, face: Face) -> None:
    @account.command("add")
    def account_add(
        folder: Folder, name: Name, role: Annotated[str, typer.Option(help="What the account may do.")]
    ) -> None:
        """Make an account: asks for its password, and shows its second factor once."""
        from wardround.console.commands.console import add_command

        add_command(folder, face, name, role)

    @account.command("list")
    def account_list(folder: Folder) -> None:
        """Every account, its role, and when it last logged in."""
        from wardround.console.commands.console import list_command

        list_command(folder, face)

    @account.command("disable")
    def account_disable(folder: Folder, name: Name) -> None:
        """Let an account log in no more, and log it out."""
        from wardround.console.commands.console import disable_command

        disable_command(folder, face, name)

    @account.command("reset-totp")
    def account_reset_totp(folder: Folder, name: Name) -> None:
        """Give an account a new second factor, shown once."""
        from wardround.console.commands.console import reset_totp_command

        reset_totp_command(folder, face, name)
