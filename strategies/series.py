"""From the result of a campaign to series that people read: one figure for each indicator and tick, with its interval.

All of it is post-processing of noised sums, and costs nothing. A count or total of a tick is that tick's own node. A
level is the running total, of as few nodes as can be: a node counts where every hospital either is in its sum or was
away in all of its ticks, and is else replaced by its two halves. So a hospital that was away a while, or a tick that
was void, costs a few more nodes and nothing else: what came in meanwhile is in the first tick afterwards
(``client.contributions``).

The noise of a node is that of every hospital in its sum: the full noise of each, or in mode dist as many shares.

Nothing is made up for who is away. A tick without a sum has no figure; a count says how many hospitals it is of; a
level has no figure while a hospital is away, because what is there of its patients is not known.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import sqrt
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

from wardround.privacy.continual import prefix_deviation, scale, worst_prefix_deviation
from wardround.protocol.dyadic import Node, prefix
from wardround.protocol.indicators import PRESENT, Indicator, Indicators, Level, Total
from wardround.protocol.parameters import Vector
from wardround.protocol.plan import StudyPlan

Present = npt.NDArray[np.bool_]

VOID: Final = "no sum: too few hospitals answered"


@dataclass(frozen=True, slots=True)
class Figure:
    """An indicator in a tick. ``value``, ``low`` and ``high`` are None where there is none, and ``note`` says why.

    ``deviation`` is that of the noise. ``away`` and ``back`` name hospitals: of the latter the tick holds all that came
    in while they were away, so it is not to be compared with others.
    """

    indicator: str
    tick: int
    begins: datetime
    value: float | None
    low: float | None
    high: float | None
    deviation: float
    hospitals: int
    away: tuple[str, ...] = ()
    back: tuple[str, ...] = ()

    @property
    def comparable(self) -> bool:
        """Whether it is a figure of this tick alone and of every hospital."""
        return self.value is not None and not self.away and not self.back

    @property
    def note(self) -> str:
        """What is to be known beside the value, "" if nothing."""
        if not self.hospitals:
            return VOID
        said = [f"without {', '.join(self.away)}"] if self.away else []
        if self.back:
            said.append(f"with what came in while {', '.join(self.back)} had no part in a sum")
        return "; ".join(said)


@dataclass(frozen=True, slots=True)
class Expected:
    """How far the ends of an interval will lie from a figure with every hospital there: at most, and usually."""

    indicator: Indicator
    usual: float
    worst: float


def read(plan: StudyPlan, model: Vector, ticks: int | None = None) -> list[Figure]:
    """Every figure up to tick ``ticks`` (None: the last that has a sum), indicator by indicator, in order of time."""
    task, parts = _task(plan), plan.layout.split(model)
    present = parts[PRESENT] > 0.5
    if ticks is None:
        ticks = int(np.flatnonzero(present.any(axis=1)).max(initial=-1)) + 1
    names = [participant.site for participant in plan.participants]
    noise, wide = plan.privacy.noise_multiplier or 0.0, NormalDist().inv_cdf((1 + task.confidence) / 2)
    found = []
    for indicator in task.indicators:
        sums = parts[indicator.name].astype(np.float64) * scale(task, indicator)
        for tick in range(1, ticks + 1):
            here = present[tick - 1]
            earlier = present[tick - 2] if tick > 1 else np.ones(len(names), bool)
            used = list(_cover(present, tick)) if isinstance(indicator, Level) else [Node(tick, 0)]
            summed = float(sum(sums[node.position] for node in used))
            variance = sum(float(present[node.end - 1].sum()) for node in used) * (noise * scale(task, indicator)) ** 2
            value = summed if here.all() or (here.any() and not isinstance(indicator, Level)) else None
            reach = wide * sqrt(variance)
            found.append(
                Figure(
                    indicator.name,
                    tick,
                    task.begins(tick),
                    value,
                    None if value is None else value - reach,
                    None if value is None else value + reach,
                    sqrt(variance),
                    int(here.sum()),
                    tuple(name for name, there in zip(names, here, strict=True) if not there),
                    tuple(name for name, a, b in zip(names, here, earlier, strict=True) if a and not b),
                )
            )
    return found


def expected(plan: StudyPlan) -> list[Expected]:
    """What the plan's intervals will be like, before anybody approves it: without a number of any patient."""
    task, noise = _task(plan), plan.privacy.noise_multiplier or 0.0
    wide = NormalDist().inv_cdf((1 + task.confidence) / 2)
    found = []
    for indicator in task.indicators:
        node = wide * noise * scale(task, indicator) * sqrt(len(plan.participants))
        usual = worst = node
        if isinstance(indicator, Level):
            worst = worst_prefix_deviation(task.ticks, node)
            usual = sqrt(sum(prefix_deviation(t, node) ** 2 for t in range(1, task.ticks + 1)) / task.ticks)
        found.append(Expected(indicator, usual, worst))
    return found


def unit_of(indicator: Indicator) -> str:
    return indicator.unit if isinstance(indicator, Total) else ""


def of(figures: Sequence[Figure], indicator: Indicator) -> list[Figure]:
    """The series of one indicator."""
    return [figure for figure in figures if figure.indicator == indicator.name]


def _cover(present: Present, tick: int) -> Iterator[Node]:
    """The fewest nodes that hold all that hospitals have added up to ``tick``."""
    waiting = list(reversed(prefix(tick)))
    while waiting:
        node = waiting.pop()
        closing, inside = present[node.end - 1], present[node.begin - 1 : node.end].any(axis=0)
        if (closing | ~inside).all():
            if closing.any():
                yield node
        else:
            waiting += reversed(node.halves)


def _task(plan: StudyPlan) -> Indicators:
    if not isinstance(plan.task, Indicators):
        raise TypeError(f"the plan's task is '{plan.task.name}'")
    return plan.task
