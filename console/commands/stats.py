"""``wardround stats``: what a statistics study would cost and show, a simulation of it, its proposal and its table."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

import typer
from rich.console import Console
from safetensors.numpy import load

from wardround.conf.planning import make_plan
from wardround.conf.schema import Configuration
from wardround.conf.statistics import read_statistics
from wardround.console.cli_stats import Form
from wardround.console.statistics_table import as_csv, as_json, errors, figures, promises
from wardround.privacy.meaning import ADJACENCY, UNIT
from wardround.privacy.planner import site_costs
from wardround.protocol.errors import UsageError
from wardround.protocol.plan import PrivacyMode, StudyPlan
from wardround.protocol.statistics import Statistics
from wardround.strategies.statistics import Cell, expected, read

LOGISTIC: Final = (
    "Of a logistic regression: a predictor's standard deviation is an eighth of its range, and one in five has a flag "
    "or the outcome."
)


def propose_command(file: Path, coordinator: Path | None) -> None:
    """Say what the study would cost each hospital and how exact its figures would be; hand it to a coordinator."""
    from wardround.simulations.cohorts import declared_patients

    configuration = read_statistics(file)
    plan = make_plan(configuration, declared_patients(configuration), datetime.now(UTC).date())
    console = Console()
    console.print(f"[bold]{plan.title}[/bold] · {len(plan.participants)} hospitals · plan {plan.digest[:12]}")
    for line in _cost(plan, configuration):
        typer.echo(line)
    console.print(errors(plan, expected(plan)))
    typer.echo("If patients are spread evenly: over the groups, and over each column's range.")
    if plan.rounds > 1:
        typer.echo(LOGISTIC)
    if coordinator is not None:
        from wardround.console.commands.study import hand_over

        hand_over(coordinator, plan)


def simulate_command(file: Path, form: Form) -> None:
    """Run the study over hospitals in this process, and print its figures."""
    from wardround.simulations.cohorts import declared_in, gather
    from wardround.simulations.statistics import count

    configuration, today = read_statistics(file), date.today()
    gathered = gather(configuration)
    plan = make_plan(configuration, declared_in(gathered, configuration.task), today)
    found = count(
        plan,
        gathered.taking_part,
        today,
        epsilon_cap=configuration.epsilon_cap,
        consortium_cap=configuration.consortium_cap,
        coordinator_directs=configuration.coordinator_directs,
        installed=configuration.installed,
    )
    _print(plan, list(found.cells), form, gathered.attribution)


def table_command(folder: Path, form: Form) -> None:
    """The figures of a finished study from ``plan.json`` and ``model.safetensors``, as ``study fetch`` wrote them."""
    try:
        plan = StudyPlan.parse((folder / "plan.json").read_bytes())
        tensors = load((folder / "model.safetensors").read_bytes())
    except OSError:
        raise UsageError(
            f"'{folder}' lacks plan.json or model.safetensors", "wardround study fetch writes both"
        ) from None
    if not isinstance(plan.task, Statistics):
        raise UsageError("this study trained a model and counted nothing", "give the folder of a statistics study")
    _print(plan, read(plan, plan.layout.join(tensors)), form, "")


def _print(plan: StudyPlan, cells: list[Cell], form: Form, attribution: str) -> None:
    said = promises(plan)
    if form == "json":
        typer.echo(as_json(plan, cells, said))
        return
    if form == "csv":
        typer.echo(as_csv(cells), nl=False)
        return
    Console().print(figures(plan, cells))
    for line in (*said, *([attribution] if attribution else [])):
        typer.echo(line)


def _cost(plan: StudyPlan, configuration: Configuration) -> list[str]:
    lines = promises(plan)
    if plan.privacy.mode is PrivacyMode.NONE:
        return lines
    lines.append(f"Noise: {plan.privacy.noise_multiplier:g} times what {UNIT} can move the sums by ({ADJACENCY}).")
    for cost in site_costs(plan, configuration.epsilon_cap):
        fits = "" if cost.fits else "; it does not fit"
        lines.append(
            f"{cost.site}: {cost.share:.1%} of a fresh domain's lifetime budget (cap ε {cost.epsilon_cap:g} at δ "
            f"{cost.domain_delta:g}); {cost.more_studies} more such studies would fit{fits}."
        )
    return lines
