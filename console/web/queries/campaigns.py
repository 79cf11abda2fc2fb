"""A campaign of indicators at one moment: its series up to the last tick that is over, who is away, and its alarms.

It is read from the table of node sums (``tables.TableReader``), which holds no number of one hospital.
"""

from dataclasses import dataclass

import numpy as np

from wardround.protocol.indicators import PRESENT, Indicators
from wardround.protocol.parameters import Vector, model_hash
from wardround.protocol.plan import StudyPlan
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
