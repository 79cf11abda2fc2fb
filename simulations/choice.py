"""Which engine makes the rounds of a simulation, and why: every hospital by itself, all of them at once, or
every hospital on a worker of Ray's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from wardround.client.connectors import Cohort
from wardround.client.tasks import Task
from wardround.protocol.errors import UsageError
from wardround.protocol.plan import StudyPlan
from wardround.simulations.faults import Fault
from wardround.simulations.vectorised.engine import unfit

EngineName: TypeAlias = Literal["auto", "sites", "vectorised", "flower"]


@dataclass(frozen=True, slots=True)
class Choice:
    """``engine`` makes the rounds; ``why`` in a sentence for people."""

    engine: Literal["sites", "vectorised", "flower"]
    why: str


def choose(
    wanted: EngineName, plan: StudyPlan, task: Task, cohorts: Sequence[Cohort], faults: Sequence[Fault]
) -> Choice:
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
    why = "faults are played between parties" if faults else unfit(plan, task, cohorts)
    if why is None:
        return Choice("vectorised", "asked for" if wanted == "vectorised" else "every hospital in one computation")
    if wanted == "vectorised":
        raise UsageError(f"this study has to go site by site: {why}", "use simulation.engine=auto")
    return Choice("sites", why)
