"""Whose records a plan reads: those who train, who test, or everyone; each patient is in one part only."""

from typing import Final

import numpy as np

from wardround.client.connectors.cohort import Cohort
from wardround.client.governance import TEST_DOMAIN, TRAINING_DOMAIN
from wardround.client.store.members import Part
from wardround.privacy.gradients import Examples
from wardround.protocol.plan import StudyPlan
from wardround.protocol.statistics import Statistics

_PARTS: Final = {"training": (Part.TRAIN,), "test": (Part.TEST,), "everyone": (Part.TRAIN, Part.TEST)}
_DOMAINS: Final = {Part.TRAIN: TRAINING_DOMAIN, Part.TEST: TEST_DOMAIN}


def parts_of(plan: StudyPlan) -> tuple[Part, ...]:
    """The parts that ``plan`` reads; training reads those who train."""
    return _PARTS[plan.task.patients] if isinstance(plan.task, Statistics) else (Part.TRAIN,)


def usual_domains(plan: StudyPlan) -> tuple[str, ...]:
    """The domains of these parts where a site has not divided them further, in the order of their names."""
    return tuple(sorted(_DOMAINS[part] for part in parts_of(plan)))


def read_by(plan: StudyPlan, cohort: Cohort) -> Examples:
    """The records that ``plan`` reads, numbered from 0: who trains first."""
    found = [{Part.TRAIN: cohort.train, Part.TEST: cohort.test}[part] for part in parts_of(plan)]
    if len(found) == 1:
        return found[0]
    first, second = found
    return Examples(
        np.concatenate([first.features, second.features]),
        np.concatenate([first.targets, second.targets]),
        np.concatenate([first.patient, second.patient + first.patients]),
        first.patients + second.patients,
    )


def ids_of(plan: StudyPlan, cohort: Cohort) -> tuple[str, ...] | None:
    """The patients of ``read_by`` in the order of their numbers; None: they have no names."""
    found: tuple[str, ...] = ()
    for part in parts_of(plan):
        ids = cohort.train_ids if part is Part.TRAIN else cohort.test_ids
        if ids is None:
            return None
        found += ids
    return found
