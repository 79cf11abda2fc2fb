"""``wardround simulate``: compose, check, run, and show."""

from collections.abc import Sequence
from datetime import date

from rich.console import Console

from wardround.console.progress import RunProgress
from wardround.console.reports.html import render_report
from wardround.console.table import result_table
from wardround.protocol.plan import StudyPlan
from wardround.simulations.cohorts import Gathered
from wardround.simulations.configured import simulate
from wardround.simulations.plugins.configured import configuration_of
from wardround.simulations.result import RoundResult
from wardround.simulations.tracking import tracker_for


def simulate_command(overrides: Sequence[str], started: float, track: str | None = None) -> None:
    """Run the study that ``overrides`` describe and print the table and where the report lies.

    ``track`` names a tracker that is told of every round: see ``simulations.tracking``.
    """
    console = Console()
    tracker = None if track is None else tracker_for(track)
    configuration = configuration_of(overrides)
    progress: list[RunProgress] = []

    def prepared(plan: StudyPlan, gathered: Gathered) -> None:
        console.print(f"[bold]{plan.title}[/bold] · {len(gathered.taking_part)} hospitals · plan {plan.digest[:12]}")
        for site, reason in gathered.left_out.items():
            console.print(f"{site} takes no part: {reason}")
        if tracker is not None:
            tracker.started(plan, {})
        progress.append(RunProgress(plan, console))
        progress[0].__enter__()

    def listener(plan: StudyPlan, result: RoundResult) -> None:
        progress[0].advance(result)
        if tracker is not None:
            tracker.round(plan, result)

    try:
        simulated = simulate(configuration, today=date.today(), started=started, prepared=prepared, listener=listener)
    except BaseException:
        if tracker is not None:
            tracker.stopped()
        raise
    finally:
        for shown in progress:
            shown.__exit__(None, None, None)
    if tracker is not None:
        tracker.ended(simulated.result)
    report = simulated.folder.write_report(render_report(simulated.result, simulated.plan))
    console.print(result_table(simulated.result))
    console.print(f"report: {report}", highlight=False, soft_wrap=True)
