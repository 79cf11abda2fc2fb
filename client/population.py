"""Whose records a study reads: those who train, who test, or everyone; each patient is in one part only."""

from typing import Final

import numpy as np

from wardround.client.connectors.cohort import Cohort
from wardround.client.governance import TEST_DOMAIN, TRAINING_DOMAIN
from wardround.client.store.members import Part
from wardround.privacy.gradients import Examples
from wardround.protocol.indicators import Indicators
from wardround.protocol.statistics import Statistics
from wardround.protocol.tasks import TaskSpec

_PARTS: Final = {"training": (Part.TRAIN,), "test": (Part.TEST,), "everyone": (Part.TRAIN, Part.TEST)}


def parts_of(task: TaskSpec) -> tuple[Part, ...]:
    """The parts that ``task`` reads; what is trained reads those who train."""
    if isinstance(task, Indicators):
        return _PARTS["everyone"]
    return _PARTS[task.patients] if isinstance(task, Statistics) else (Part.TRAIN,)


def usual_domains(task: TaskSpec, training: str = TRAINING_DOMAIN) -> tuple[str, ...]:
    """The domains of these parts, in the order of their names.

    ``training`` is that of who trains; of the same year's test patients it is the one with ``test`` in its name.
    """
    named = {Part.TRAIN: training, Part.TEST: TEST_DOMAIN + training.removeprefix(TRAINING_DOMAIN)}
    if not training.startswith(TRAINING_DOMAIN):
        named[Part.TEST] = TEST_DOMAIN
    return tuple(sorted({named[part] for part in parts_of(task)}))


def read_by(task: TaskSpec, cohort: Cohort) -> Examples:
    """The records that ``task`` reads, numbered from 0: who trains first."""
    found = [{Part.TRAIN: cohort.train, Part.TEST: cohort.test}[part] for part in parts_of(task)]
    if len(found) == 1:
        return found[0]
    first, second = found
    return Examples(
        np.concatenate([first.features, second.features]),
        np.concatenate([first.targets, second.targets]),
        np.concatenate([first.patient, second.patient + first.patients]),
        first.patients + second.patients,
    )


def declared_for(task: TaskSpec, cohort: Cohort) -> int:
    """How many patients ``task`` reads, rounded up to the next 50: the only count that is ever public."""
    return max(50, -(-read_by(task, cohort).patients // 50) * 50)


def ids_of(task: TaskSpec, cohort: Cohort) -> tuple[str, ...] | None:
    """The patients of ``read_by`` in the order of their numbers; None: they have no names."""
    found: tuple[str, ...] = ()
    for part in parts_of(task):
        ids = cohort.train_ids if part is Part.TRAIN else cohort.test_ids
        if ids is None:
            return None
        found += ids
    return found
