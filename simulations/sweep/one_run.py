"""One run of a sweep, in a process that stays: what was read for one run is kept for the next."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from shutil import rmtree
from time import perf_counter
from typing import Any

from wardround.conf.schema import Configuration, parse_configuration
from wardround.protocol.errors import WardroundError
from wardround.protocol.plan import StudyPlan
from wardround.simulations.cohorts import Gathered, data_key, gather
from wardround.simulations.configured import resume, simulate
from wardround.simulations.files import RunFolder
from wardround.simulations.result import SimulationResult
from wardround.simulations.sweep.folder import SweepFolder

WriteReport = Callable[[RunFolder, SimulationResult, StudyPlan], object]
"""Writes the page of a run; given by whoever draws pages. A function at the top of a module, so that it has a name."""

CHECKPOINT_SECONDS = 2.0
"""A run that is over sooner is done again rather than gone on with."""

MOST_KEPT = 16


@dataclass(frozen=True, slots=True)
class Job:
    """Which run, and its composed configuration."""

    number: int
    configuration: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that is over: well, or with the two sentences of an error."""

    number: int
    seconds: float
    message: str = ""
    hint: str = ""


@dataclass(slots=True)
class Runner:
    """Does jobs of the sweep in ``folder``, one after the other."""

    folder: SweepFolder
    today: date
    write_report: WriteReport
    _kept: dict[str, Gathered] = field(default_factory=dict)

    def __call__(self, job: Job) -> Ended:
        started = perf_counter()
        try:
            self._run(job, started)
        except WardroundError as error:
            return Ended(job.number, perf_counter() - started, error.message, error.hint)
        except Exception as error:
            # A defect's text may hold a patient's value, so its kind alone is said.
            message = f"a defect in Wardround ({type(error).__name__})"
            return Ended(job.number, perf_counter() - started, message, "run it alone: wardround simulate")
        return Ended(job.number, perf_counter() - started)

    def _run(self, job: Job, started: float) -> None:
        folder = self.folder.run(job.number)
        if (folder.path / "result.json").exists():
            plan, result = folder.finished()
            self.write_report(folder, result, plan)
            return
        if (folder.path / "checkpoint.bin").exists():
            simulated = resume(folder, self.today, started, source=self._gather, checkpoint_seconds=CHECKPOINT_SECONDS)
        else:
            with suppress(FileNotFoundError):
                rmtree(folder.path)
            folder.path.mkdir(parents=True)
            simulated = simulate(
                parse_configuration(job.configuration),
                today=self.today,
                started=started,
                folder=folder,
                source=self._gather,
                checkpoint_seconds=CHECKPOINT_SECONDS,
            )
        (folder.path / "failed.json").unlink(missing_ok=True)
        self.write_report(folder, simulated.result, simulated.plan)

    def _gather(self, configuration: Configuration) -> Gathered:
        """The sites of a configuration: read once for all runs that ask for the same data."""
        key = data_key(configuration)
        if key not in self._kept:
            if len(self._kept) >= MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = gather(configuration)
        return self._kept[key]
