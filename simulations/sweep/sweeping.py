"""A sweep from its words to finished runs: composed and checked first, then run in parallel, each once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

from wardround.conf.compose import composer
from wardround.conf.grid import Grid, parse_grid
from wardround.conf.schema import parse_configuration
from wardround.protocol.errors import UsageError
from wardround.simulations.plugins.configured import plugins_of, with_plugins
from wardround.simulations.sweep.folder import Manifest, SweepFolder, manifest_of
from wardround.simulations.sweep.one_run import Ended, Job, Runner, WriteReport
from wardround.simulations.sweep.workers import in_parallel


@dataclass(frozen=True, slots=True)
class Prepared:
    """A sweep whose every run was composed and checked; ``left`` are the jobs that are not done yet."""

    grid: Grid
    manifest: Manifest
    folder: SweepFolder
    left: tuple[Job, ...]


def prepare(words: Sequence[str], folder: SweepFolder) -> Prepared:
    """Compose every run of the sweep, and claim its folder.

    Raises:
        UsageError: no run of the grid composes, one of its words is unknown, or the folder is another sweep's.
    """
    grid = parse_grid(words)
    jobs, plugins = list[Job](), set[str]()
    with composer() as compose:
        for number, point in enumerate(grid.points, 1):
            try:
                configuration = with_plugins(compose(point.words))
                plugins |= plugins_of(parse_configuration(configuration))
            except UsageError as error:
                where = ", ".join(f"{key}={value}" for key, value in point.settings)
                raise UsageError(f"the run with {where}: {error.message}", error.hint) from None
            jobs.append(Job(number, configuration))
    manifest = manifest_of(words, grid, plugins)
    folder.claim(manifest)
    return Prepared(grid, manifest, folder, tuple(job for job in jobs if not folder.is_done(job.number)))


def run_all(
    prepared: Prepared, processes: int, today: date, write_report: WriteReport, after: Callable[[Ended], None]
) -> None:
    """Do what is left, in parallel; ``after`` is called when a run has ended, well or not."""
    runner = Runner(prepared.folder, today, write_report)
    with prepared.folder.alone():
        for ended in in_parallel(runner, prepared.left, processes, _died):
            if ended.message:
                prepared.folder.fail(ended.number, ended.message, ended.hint)
            after(ended)


def _died(job: Job) -> Ended:
    return Ended(job.number, 0.0, "its process was killed", "memory may have been short: take fewer --jobs")
