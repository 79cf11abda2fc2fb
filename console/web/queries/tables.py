"""What a study has published so far, read from its table of sums on disk: kept for as long as the file stays as it is.

The table is the plan's result. The coordinator has it after every round in its checkpoint; a hospital after the last
one as its released model, and of a campaign before that as the newest tick brought it. All are what every hospital has
been told, and hold no number of one hospital that the plan does not release.
"""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from wardround.client.store.results import MODEL, SERIES, place_of
from wardround.protocol.errors import UsageError, WardroundError
from wardround.protocol.parameters import Vector, model_hash
from wardround.protocol.plan import StudyPlan
from wardround.protocol.receipt import Receipt
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
        self._kept: dict[Path, tuple[tuple[int, ...], T]] = {}

    def at_coordinator(self, place: StudyFolder, plan: StudyPlan) -> T:
        """As the coordinator's last checkpoint has it.

        Raises:
            UsageError: the checkpoint cannot be read.
        """

        def table(content: bytes) -> tuple[Vector, int]:
            progress = Progress.from_bytes(content, plan)
            return progress.state.model, progress.rounds_done

        return self._read(place.path / "progress.bin", plan, table)

    def at_hospital(self, folder: Path, plan: StudyPlan, receipts: Sequence[Receipt] = ()) -> T:
        """As a hospital has it: the released model, and before the study's end the newest table that it kept of a
        campaign (``client.store.results``).

        Args:
            receipts: the last that it signed, the newest first. A kept table that none of them names is not shown.

        Raises:
            UsageError: the file cannot be read, or is of no receipt.
        """
        place = place_of(folder, plan)
        if (place / MODEL).exists():
            return self._read(place / MODEL, plan, lambda content: (plan.layout.join(tensors_in(content)), plan.rounds))

        def table(content: bytes) -> tuple[Vector, int]:
            found = plan.layout.join(tensors_in(content))
            return found, over_by(receipts, plan, model_hash(found))

        return self._read(
            place / SERIES, plan, table, *((receipts[0].round_number, receipts[0].attempt) if receipts else ())
        )

    def _read(self, path: Path, plan: StudyPlan, table: Callable[[bytes], tuple[Vector, int]], *beside: int) -> T:
        """``beside``: numbers that what is made depends on besides the file."""
        try:
            about = path.stat()
        except OSError:
            return self._make(plan, None, 0)
        stamp = about.st_mtime_ns, about.st_size, *beside
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


def over_by(receipts: Sequence[Receipt], plan: StudyPlan, table: str) -> int:
    """How many rounds are over when ``table`` (a hash) is what they left, by the newest receipt that names it.

    Raises:
        UsageError: none does.
    """
    named = next((receipt for receipt in receipts if receipt.model_after == table), None)
    if named is None:
        raise UsageError("no receipt names this table", "keep the folder as it is")
    over = named.state == "closed" or named.attempt >= plan.attempts
    return named.round_number if over else named.round_number - 1
