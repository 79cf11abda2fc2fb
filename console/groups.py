"""How a group of commands is made, alike in every part of the command line."""

import typer


def group(name: str, about: str, under: typer.Typer) -> typer.Typer:
    """A group of commands below ``under``; called without a command it says what there is."""
    made = typer.Typer(name=name, help=about, no_args_is_help=True, add_completion=False, rich_markup_mode=None)
    under.add_typer(made)
    return made
