"""The figures of a statistics study at one moment: those of its last round, or of each look at a model in training."""

from dataclasses import dataclass

from wardround.protocol.errors import Unavailable
from wardround.protocol.parameters import Vector, model_hash
from wardround.protocol.plan import StudyPlan
from wardround.protocol.statistics import Statistics
from wardround.strategies.statistics import Cell, read


@dataclass(frozen=True, slots=True)
class Figures:
    """What a page shows. ``done``: rounds that are over here; ``table``: the hash of the table that the figures are
    read from, as receipts name it, "" before the first round.

    ``cells``: none before the figures are there; of what is asked in rounds that is after the last one.
    """

    plan: StudyPlan
    task: Statistics
    done: int
    cells: tuple[Cell, ...]
    table: str

    @property
    def due(self) -> int:
        """The round with which the next figures come."""
        return self.plan.rounds if self.task.follows is None else self.done + 1

    @property
    def void(self) -> bool:
        """Whether the rounds that would have brought figures are over, and none of them has a sum."""
        return not self.cells and self.done > 0 and (self.task.follows is not None or self.done >= self.plan.rounds)

    @property
    def looks(self) -> tuple[tuple[int, tuple[Cell, ...]], ...]:
        """(round of training, figures) of each look at a model in training that is over; of a void one no figures."""
        if self.task.follows is None:
            return ()
        over = self.task.follows.rounds[: self.done]
        return tuple((after, tuple(cell for cell in self.cells if cell.after == after)) for after in over)


def figures(plan: StudyPlan, table: Vector | None, done: int) -> Figures:
    """The figures of ``plan`` when ``done`` rounds are over and their sums are in ``table``, shape (d,); None: none."""
    assert isinstance(plan.task, Statistics)
    task = plan.task
    if table is None:
        return Figures(plan, task, 0, (), "")
    cells: tuple[Cell, ...] = ()
    if task.follows is not None or done >= plan.rounds:
        try:
            cells = tuple(read(plan, table))
        except Unavailable:
            cells = ()
    return Figures(plan, task, done, cells, model_hash(table))
