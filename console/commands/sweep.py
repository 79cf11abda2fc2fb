"""``wardround sweep``: run a grid of simulations in parallel, each once, and compare them on one page."""

import os
from collections.abc import Sequence
from datetime import date, datetime
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from wardround.console.reports.html import render_report
from wardround.console.reports.numbers import plural
from wardround.console.reports.sweep import SweepView, render_sweep
from wardround.console.sweep_table import sweep_table
from wardround.protocol.errors import UsageError
from wardround.protocol.plan import StudyPlan
from wardround.server.store.checkpoint import write_checkpoint
from wardround.simulations.files import RunFolder
from wardround.simulations.result import SimulationResult
from wardround.simulations.sweep.comparison import compare
from wardround.simulations.sweep.folder import Finished, SweepFolder
from wardround.simulations.sweep.one_run import Ended
from wardround.simulations.sweep.price import prices
from wardround.simulations.sweep.sweeping import Prepared, prepare, run_all
from wardround.simulations.sweep.table import export
from wardround.simulations.tracking import Tracker, replay, tracker_for

PREFERRED: Final = ("auroc", "c_index", "dice", "mae")
"""The metric that is compared, unless another is asked for: the first that the runs have. One, so that it is not picked
among several after the fact."""

_LINES: Final = 10
"""Without a terminal, so many lines of progress are printed."""


def sweep_command(
    words: Sequence[str],
    folder: Path | None,
    jobs: int | None,
    metric: str | None,
    track: str | None,
    console: Console | None = None,
) -> SweepView:
    """Run what is left of the sweep and print its table and where its page lies."""
    console = console or Console()
    if not words:
        if folder is None:
            raise UsageError("nothing to sweep", "list values, for example: strategy=fedavg,fedprox seed=0..9")
        words = SweepFolder(folder).words()
    where = SweepFolder(folder or Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-sweep")
    tracker = None if track is None else tracker_for(track)
    started = perf_counter()
    prepared = prepare(words, where)
    processes = max(1, min(jobs or os.cpu_count() or 1, len(prepared.left) or 1))
    console.print(_begins(prepared, processes), highlight=False)
    try:
        _run(prepared, processes, tracker, console)
    except KeyboardInterrupt:
        hint = f"interrupted; what is done is kept. Go on with: wardround sweep --folder {where.path}"
        console.print(hint, highlight=False, soft_wrap=True)
        raise
    view = view_of(prepared, metric)
    export(view.runs, where.path)
    page = where.path / "comparison.html"
    write_checkpoint(page, render_sweep(view).encode())
    console.print(sweep_table(view))
    console.print(f"{plural(len(prepared.left), 'run')} in {perf_counter() - started:.0f} s", highlight=False)
    console.print(f"report: {page}", highlight=False, soft_wrap=True)
    return view


def view_of(prepared: Prepared, metric: str | None) -> SweepView:
    """What a sweep shows. Raises UsageError where no run ended well, or none has the metric."""
    runs, failed = prepared.folder.outcomes(prepared.grid)
    if not runs:
        why = failed[0] if failed else None
        raise UsageError(
            "no run of the sweep ended well" + (f"; the first: {why.message}" if why else ""),
            why.hint if why else "run it again",
        )
    chosen = metric or _preferred(runs)
    if not any(chosen in site.shared.metrics for run in runs for site in run.result.sites):
        known = sorted({name for run in runs for site in run.result.sites for name in site.shared.metrics})
        raise UsageError(f"no run has the metric '{chosen}'", f"known here: {', '.join(known)}")
    missing = prepared.grid.size - len(runs) - len(failed)
    return SweepView(prepared.manifest, runs, failed, missing, compare(runs, chosen), tuple(prices(runs)))


def _preferred(runs: Sequence[Finished]) -> str:
    """The metric that is compared where none was asked for."""
    known = {name for run in runs for site in run.result.sites for name in site.shared.metrics}
    return next((name for name in PREFERRED if name in known), runs[0].result.headline_metrics[0])


def write_run_page(folder: RunFolder, result: SimulationResult, plan: StudyPlan) -> None:
    """The page of a single run, in the process that made it."""
    folder.write_report(render_report(result, plan))


def _begins(prepared: Prepared, processes: int) -> str:
    grid, left = prepared.grid, len(prepared.left)
    axes = " x ".join(f"{len(axis.values)} {axis.key}" for axis in grid.axes)
    done = f", {grid.size - left} done before" if left < grid.size else ""
    implied = f"\nimplied: {' '.join(grid.implied)}" if grid.implied else ""
    return f"{plural(grid.size, 'run')}: {axes}{done}; in {plural(processes, 'process', 'processes')}{implied}"


def _run(prepared: Prepared, processes: int, tracker: Tracker | None, console: Console) -> None:
    failed, total = 0, len(prepared.left)
    points = prepared.grid.points
    bar = Progress(
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    every = ceil(total / _LINES) if total else 1
    ended_so_far = 0
    with bar:
        shown = bar.add_task("", total=total)

        def after(ended: Ended) -> None:
            nonlocal failed, ended_so_far
            ended_so_far += 1
            failed += bool(ended.message)
            words = f"{failed} failed" if failed else ""
            bar.update(shown, advance=1, description=words)
            if not console.is_terminal and (ended_so_far % every == 0 or ended_so_far == total):
                console.print(f"{ended_so_far}/{total} runs {words}".rstrip(), highlight=False)
            if tracker is not None and not ended.message:
                plan, result = prepared.folder.run(ended.number).finished()
                replay(tracker, plan, result, dict(points[ended.number - 1].settings))

        run_all(prepared, processes, date.today(), write_run_page, after)
