"""``wardround live``: indicators of many hospitals, tick by tick, by continual counting."""

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from wardround.console.groups import group
from wardround.protocol.errors import UsageError

Form: TypeAlias = Literal["table", "json", "csv", "prometheus"]


def add(app: typer.Typer) -> None:
    """Hang the commands below ``wardround live``."""
    live = group("live", "Indicators of many hospitals over days to months, tick by tick.", app)

    @live.command()
    def propose(
        file: Annotated[Path, typer.Argument(help="What is asked, as YAML; docs/indicators.md shows one.")],
        coordinator: Annotated[
            Path | None, typer.Option(help="The coordinator's folder; left out: nothing is sent.")
        ] = None,
    ) -> None:
        """Say what a campaign costs and how exact it will be, and propose it to the hospitals."""
        from wardround.console.commands.live import propose_command

        propose_command(file, coordinator)

    @live.command()
    def simulate(
        file: Annotated[Path, typer.Argument(help="What is asked, as YAML; docs/indicators.md shows one.")],
        output: Annotated[
            Path | None, typer.Option(help="A new folder for plan, result and page; left out: nothing is written.")
        ] = None,
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
        as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
        as_prometheus: Annotated[bool, typer.Option("--prometheus", help="Print Prometheus text.")] = False,
    ) -> None:
        """Say what a campaign costs and how exact it is, and run it with made-up events in this process."""
        from wardround.console.commands.live import simulate_command

        simulate_command(file, output, _form(as_json, as_csv, as_prometheus))

    @live.command()
    def table(
        folder: Annotated[Path, typer.Argument(help="A folder with plan.json and model.safetensors.")],
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
        as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
        as_prometheus: Annotated[bool, typer.Option("--prometheus", help="Print Prometheus text.")] = False,
        page: Annotated[Path | None, typer.Option(help="A new file for the page of plots.")] = None,
    ) -> None:
        """The series of a campaign, each figure with its interval."""
        from wardround.console.commands.live import table_command

        table_command(folder, page, _form(as_json, as_csv, as_prometheus))


def _form(as_json: bool, as_csv: bool, as_prometheus: bool) -> Form:
    if as_json + as_csv + as_prometheus > 1:
        raise UsageError("one output has one form", "give --json, --csv or --prometheus")
    return "json" if as_json else "csv" if as_csv else "prometheus" if as_prometheus else "table"
