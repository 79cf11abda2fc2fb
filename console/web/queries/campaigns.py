"""A campaign of indicators at one moment: its series up to the last tick that is over, who is away, and its alarms.

The table of node sums is the plan's result: the coordinator has it after every tick in its checkpoint, a hospital after
the last one as its released model. Both are what every hospital has been told, and hold no number of one hospital.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wardround.protocol.errors import UsageError, WardroundError
from wardround.protocol.indicators import PRESENT, Indicators
from wardround.protocol.parameters import Vector, model_hash
from wardround.protocol.plan import StudyPlan
from wardround.protocol.weights import tensors_in
from wardround.server.store.studies import StudyFolder
from wardround.server.study import Progress
from wardround.strategies.cusum import Raised, alarms
from wardround.strategies.series import Figure, of, read


@dataclass(frozen=True, slots=True)
class Attendance:
    """A hospital in the ticks that are over. ``last``: the last in whose sum it is, 0 for none; ``missed``: how many
    it is not in."""

    site: str
    last: int
    missed: int


@dataclass(frozen=True, slots=True)
class Campaign:
    """What a page shows. ``done``: ticks that are over here; ``void``: of these without a sum.

    ``table``: the hash of the table that the figures are read from, as receipts name it; "" before the first tick.
    """

    plan: StudyPlan
    task: Indicators
    done: int
    void: int
    hospitals: tuple[Attendance, ...]
    figures: tuple[Figure, ...]
    raised: tuple[Raised, ...]
    table: str

    @property
    def away(self) -> tuple[str, ...]:
        """Who is not in the sum of the last tick."""
        return tuple(one.site for one in self.hospitals if one.last < self.done)

    @property
    def last_is_void(self) -> bool:
        return self.done > 0 and all(one.last < self.done for one in self.hospitals)


class CampaignReader:
    """Reads tables from disk, and keeps what it made of each for as long as its file stays as it is."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[Path, tuple[tuple[int, int], Campaign]] = {}

    def at_coordinator(self, place: StudyFolder, plan: StudyPlan) -> Campaign:
        """The campaign as the coordinator's last checkpoint has it.

        Raises:
            UsageError: the plan publishes no indicators, or the checkpoint cannot be read.
        """

        def table(content: bytes) -> tuple[Vector, int]:
            progress = Progress.from_bytes(content, plan)
            return progress.state.model, progress.rounds_done

        return self._read(place.path / "progress.bin", plan, table)

    def at_hospital(self, folder: Path, plan: StudyPlan) -> Campaign:
        """The campaign as a hospital has it: nothing of its series before its end.

        Raises:
            UsageError: as for the coordinator.
        """
        path = folder / "studies" / plan.digest[:16] / "model.safetensors"
        return self._read(path, plan, lambda content: (plan.layout.join(tensors_in(content)), plan.rounds))

    def _read(self, path: Path, plan: StudyPlan, table: Callable[[bytes], tuple[Vector, int]]) -> Campaign:
        if not isinstance(plan.task, Indicators):
            raise UsageError("this study publishes no indicators", "look at its own page")
        try:
            about = path.stat()
        except OSError:
            return campaign(plan, None, 0)
        stamp = about.st_mtime_ns, about.st_size
        with self._lock:
            kept = self._kept.get(path)
            if kept is not None and kept[0] == stamp:
                return kept[1]
            try:
                made = campaign(plan, *table(path.read_bytes()))
            except (OSError, ValueError, KeyError, TypeError, WardroundError):
                raise UsageError(
                    f"the table of sums in '{path.name}' cannot be read, or is not of this plan",
                    "keep the folder as it is: receipts say which table is the right one",
                ) from None
            self._kept[path] = stamp, made
        return made


def campaign(plan: StudyPlan, table: Vector | None, done: int) -> Campaign:
    """The campaign of ``plan`` when ``done`` ticks are over and their sums are in ``table``, shape (d,); None: none."""
    assert isinstance(plan.task, Indicators)
    task, names = plan.task, [participant.site for participant in plan.participants]
    present = np.zeros((task.ticks, len(names)), bool) if table is None else plan.layout.split(table)[PRESENT] > 0.5
    figures = () if table is None else tuple(read(plan, table, done))
    over = present[:done]
    hospitals = tuple(
        Attendance(name, int(np.flatnonzero(here).max(initial=-1)) + 1, int((~here).sum()))
        for name, here in zip(names, over.T, strict=True)
    )
    raised = tuple(alarm for indicator in task.indicators for alarm in alarms(of(figures, indicator), task.alarm))
    return Campaign(
        plan,
        task,
        done,
        int((~over.any(axis=1)).sum()),
        hospitals,
        figures,
        raised,
        "" if table is None else model_hash(table),
    )
