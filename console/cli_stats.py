"""``wardround stats``: counts, means and tests over many hospitals, on the same ledger as training."""

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from wardround.console.groups import group
from wardround.protocol.errors import UsageError

Form: TypeAlias = Literal["table", "json", "csv"]


def add(app: typer.Typer) -> None:
    """Hang the commands below ``wardround stats``."""
    stats = group("stats", "Counts, means and tests over many hospitals' patients, without their rows.", app)

    @stats.command()
    def propose(
        file: Annotated[Path, typer.Argument(help="What is asked, as YAML; docs/statistics.md shows one.")],
        coordinator: Annotated[
            Path | None, typer.Option(help="The coordinator's folder; left out: nothing is sent.")
        ] = None,
    ) -> None:
        """Say what a study would cost and how exact it would be, and propose it to the hospitals."""
        from wardround.console.commands.stats import propose_command

        propose_command(file, coordinator)

    @stats.command()
    def simulate(
        file: Annotated[Path, typer.Argument(help="What is asked, as YAML.")],
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
        as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    ) -> None:
        """Run a statistics study with every hospital in this process."""
        from wardround.console.commands.stats import simulate_command

        simulate_command(file, _form(as_json, as_csv))

    @stats.command()
    def table(
        folder: Annotated[Path, typer.Argument(help="What 'wardround study fetch' wrote.")],
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
        as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    ) -> None:
        """The figures of a finished study, each with its interval."""
        from wardround.console.commands.stats import table_command

        table_command(folder, _form(as_json, as_csv))


def _form(as_json: bool, as_csv: bool) -> Form:
    if as_json and as_csv:
        raise UsageError("one output has one form", "give --json or --csv")
    return "json" if as_json else "csv" if as_csv else "table"
