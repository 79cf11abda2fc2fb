"""Which engine makes the rounds of a simulation, and why: every hospital by itself, all of them at once, or
every hospital on a worker of Ray's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from wardround.client.connectors import Cohort
from wardround.client.tasks import Task
from wardround.protocol.errors import UsageError
from wardround.simulations.faults import Fault
from wardround.simulations.vectorised.engine import unfit
from wardround.simulations.vectorised.networks import multiplications, small_pictures

EngineName: TypeAlias = Literal["auto", "sites", "vectorised", "flower"]


LARGEST_PICTURE_WORK: Final = 1 << 20
"""Multiplications of a picture's way through the convolutions, up to which one computation is the faster.

Measured with ``benchmarks/simulate.py --pictures`` (docs/simulation.md): at 0.02 million one computation is 2.5 to 4
times as fast as hospital by hospital, at 0.3 million 1.1 to 1.4 times. At 1.9 million it is at most 1.1 times as fast
without protection, and with it the hospitals one by one are the faster by 3 to 6 %.
"""


@dataclass(frozen=True, slots=True)
class Choice:
    """``engine`` makes the rounds; ``why`` in a sentence for people."""

    engine: Literal["sites", "vectorised", "flower"]
    why: str


def choose(wanted: EngineName, task: Task, cohorts: Sequence[Cohort], faults: Sequence[Fault]) -> Choice:
    """The engine that was wanted; for "auto" the faster one that can do it.

    Raises:
        UsageError: "vectorised" was wanted for a study that has to go site by site, or "flower" for one with faults.
    """
    if wanted == "sites":
        return Choice("sites", "asked for")
    if wanted == "flower":
        if faults:
            raise UsageError("faults are played between parties of one process", "use simulation.engine=sites")
        return Choice("flower", "asked for")
    why = "faults are played between parties" if faults else unfit(task, cohorts)
    if why is None and wanted == "vectorised":
        return Choice("vectorised", "asked for")
    if why is None:
        return _faster(task)
    if wanted == "vectorised":
        raise UsageError(f"this study has to go site by site: {why}", "use simulation.engine=auto")
    return Choice("sites", why)


def _faster(task: Task) -> Choice:
    """The faster of two engines that can both do it, as measured."""
    work = multiplications(task) if small_pictures(task) else 0
    if work <= LARGEST_PICTURE_WORK:
        return Choice("vectorised", "every hospital in one computation")
    measured = f"{work / 1e6:.1f} million multiplications a picture, above the {LARGEST_PICTURE_WORK / 1e6:.1f} million"
    return Choice("sites", f"{measured} up to which one computation was measured to be the faster")
