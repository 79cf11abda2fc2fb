"""``wardround plugin``, for researchers and officers, and ``wardround site plugin``, for hospital IT."""

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from wardround.console.groups import group

Plugin: TypeAlias = Annotated[Path, typer.Argument(help="The plugin's folder, its wheel, or the signed file.")]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add(app: typer.Typer, site: typer.Typer) -> None:
    """Hang the commands below ``wardround`` and below ``wardround site``."""
    _researcher(group("plugin", "A researcher's own model, task or strategy: write, check, sign, read.", app))
    _hospital(group("plugin", "Code of others that may run here: install, list, remove.", site))


def _researcher(plugin: typer.Typer) -> None:
    @plugin.command("new")
    def plugin_new(
        name: Annotated[str, typer.Argument(help="The package's name: a-z, 0-9 and '_'.")],
        kind: Annotated[Literal["model", "task", "strategy"], typer.Option(help="What it brings.")] = "model",
        folder: Annotated[Path, typer.Option(help="Where the package's folder goes.")] = Path(),
    ) -> None:
        """Write a small package that works, with its tests."""
        from wardround.console.commands.plugin import new_command

        new_command(name, kind, folder)

    @plugin.command("check")
    def plugin_check(path: Plugin, as_json: AsJson = False) -> None:
        """Run its tests, the contract's, the check for differential privacy; say what its text reaches for."""
        from wardround.console.commands.plugin import check_command

        check_command(path, as_json)

    @plugin.command("sign")
    def plugin_sign(
        path: Plugin,
        key: Annotated[Path, typer.Option(help="The author's key file: wardround officer init makes one.")],
        out: Annotated[Path | None, typer.Option(help="A new file; left out: NAME-VERSION.plugin.json.")] = None,
    ) -> None:
        """Write the one file that goes to hospitals: the plugin's text with its author's signature."""
        from wardround.console.commands.plugin import sign_command

        sign_command(path, key, out)

    @plugin.command("show")
    def plugin_show(
        path: Plugin,
        before: Annotated[Path | None, typer.Option(help="An earlier version, to say what changed.")] = None,
    ) -> None:
        """Print what an officer reads: author, digest, what it reaches for, and its text or what changed."""
        from wardround.console.commands.plugin import show_command

        show_command(path, before)

    @plugin.command("task")
    def plugin_task(
        path: Plugin,
        features: Annotated[int, typer.Option(help="Feature columns of the study's contract.")],
        setting: Annotated[list[str] | None, typer.Option(metavar="NAME=NUMBER", help="A setting; repeat.")] = None,
    ) -> None:
        """Print the task of a plan that names this plugin, as YAML for a study file."""
        from wardround.console.commands.plugin import task_command

        task_command(path, features, setting or [])


def _hospital(plugin: typer.Typer) -> None:
    @plugin.command("install")
    def site_plugin_install(
        folder: Annotated[Path, typer.Argument(help="The site's folder.")],
        file: Annotated[Path, typer.Argument(help="The signed file, as its author gave it.")],
        author: Annotated[Path, typer.Option(help="The author's card, NAME.pub, from elsewhere than the file.")],
    ) -> None:
        """Keep a signed plugin in the site's folder. It runs only under a plan that an officer has approved."""
        from wardround.console.commands.site_plugin import install_command

        install_command(folder, file, author)

    @plugin.command("list")
    def site_plugin_list(
        folder: Annotated[Path, typer.Argument(help="The site's folder.")], as_json: AsJson = False
    ) -> None:
        """Every plugin that is installed, with its digest and author."""
        from wardround.console.commands.site_plugin import list_command

        list_command(folder, as_json)

    @plugin.command("remove")
    def site_plugin_remove(
        folder: Annotated[Path, typer.Argument(help="The site's folder.")],
        digest: Annotated[str, typer.Argument(help="The plugin's digest, or its beginning, six digits or more.")],
    ) -> None:
        """Take a plugin away: plans that name it are refused from now on."""
        from wardround.console.commands.site_plugin import remove_command

        remove_command(folder, digest)
