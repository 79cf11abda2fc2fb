"""What a study has published so far, read from its table of sums on disk: kept for as long as the file stays as it is.

The table is the plan's result. The coordinator has it after every round in its checkpoint, a hospital after the last
one as its released model. Both are what every hospital has been told, and hold no number of one hospital that the plan
does not release.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from wardround.protocol.errors import UsageError, WardroundError
from wardround.protocol.parameters import Vector
from wardround.protocol.plan import StudyPlan
from wardround.protocol.weights import tensors_in
from wardround.server.store.studies import StudyFolder
from wardround.server.study import Progress

T = TypeVar("T")

Made = Callable[[StudyPlan, Vector | None, int], T]
"""What is shown of a plan's table, shape (d,), when so many rounds are over; None and 0 before the first."""


class TableReader(Generic[T]):
    """Reads tables from disk. May be used from any thread.

    Args:
        make: what a table is made into.
    """

    def __init__(self, make: Made[T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._kept: dict[Path, tuple[tuple[int, int], T]] = {}

    def at_coordinator(self, place: StudyFolder, plan: StudyPlan) -> T:
        """As the coordinator's last checkpoint has it.

        Raises:
            UsageError: the checkpoint cannot be read.
        """

        def table(content: bytes) -> tuple[Vector, int]:
            progress = Progress.from_bytes(content, plan)
            return progress.state.model, progress.rounds_done

        return self._read(place.path / "progress.bin", plan, table)

    def at_hospital(self, folder: Path, plan: StudyPlan) -> T:
        """As a hospital's released model has it: nothing before the study's end.

        Raises:
            UsageError: as for the coordinator.
        """
        path = folder / "studies" / plan.digest[:16] / "model.safetensors"
        return self._read(path, plan, lambda content: (plan.layout.join(tensors_in(content)), plan.rounds))

    def _read(self, path: Path, plan: StudyPlan, table: Callable[[bytes], tuple[Vector, int]]) -> T:
        try:
            about = path.stat()
        except OSError:
            return self._make(plan, None, 0)
        stamp = about.st_mtime_ns, about.st_size
        with self._lock:
            kept = self._kept.get(path)
            if kept is not None and kept[0] == stamp:
                return kept[1]
            try:
                made = self._make(plan, *table(path.read_bytes()))
            except (OSError, ValueError, KeyError, TypeError, WardroundError):
                raise UsageError(
                    f"the table of sums in '{path.name}' cannot be read, or is not of this plan",
                    "keep the folder as it is: receipts say which table is the right one",
                ) from None
            self._kept[path] = stamp, made
        return made
