"""The fall-back of a plan: a site keeps its own model where the shared one does not help it.

The plan says which share of a site's training patients is held back. They are drawn in no round, so no model has seen
them, and they are no test patients. When the study is over the site compares the models that it could use on them and
takes the one with the smallest mean loss; at a tie its own.

**Privacy.** Nothing of this leaves: neither the pick nor a figure behind it, and no round depends on it. Who sees what
the site releases learns nothing of the held-back patients at all, which is less than epsilon allows. A pick that was
published would be a release, and would have to be paid for (``privacy``); there is no message that could carry one.
"""

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from wardround.client.connectors.cohort import Cohort
from wardround.client.own_model import own_model
from wardround.client.site_result import KeptResult
from wardround.client.tasks import Task
from wardround.protocol.canonical import LABEL_HELD_BACK
from wardround.protocol.parameters import Vector
from wardround.protocol.plan import PrivacyMode, StudyPlan
from wardround.protocol.weights import Installed, nothing_installed

Flags = npt.NDArray[np.bool_]
Name = Literal["own", "shared", "personalised"]

FEWEST_DRAWN: Final = 2
"""Training patients that a round without privacy needs; where holding back would leave fewer, nobody is held back."""


def in_rounds(plan: StudyPlan, cohort: Cohort) -> Flags | None:
    """Which training patients may be drawn in a round, shape (patients,); None: all of them.

    A patient is held back when SHA-256 over study, seed, site and the patient's id (at a hospital its keyed hash), as
    a number in [0, 1), is below the plan's share: the same after a restart, whoever else comes or opts out, and
    another choice in each study. Under differential privacy nothing else may decide: if it depended on how many are
    left, one patient more could change who all the others are.
    """
    if not plan.fall_back_share:
        return None
    names = cohort.train_ids or tuple(str(number) for number in range(cohort.train.patients))
    begin = f"{LABEL_HELD_BACK}\x00{plan.study}\x00{plan.model.seed}\x00{cohort.site}\x00"
    drawn = [int.from_bytes(sha256((begin + name).encode()).digest()[:8], "big") / 2.0**64 for name in names]
    flags: Flags = np.array(drawn) >= plan.fall_back_share
    if plan.privacy.mode is PrivacyMode.NONE and flags.sum() < FEWEST_DRAWN:
        return None
    return flags


def for_rounds(plan: StudyPlan, cohort: Cohort) -> Cohort:
    """The cohort with those training patients only whom a round may draw."""
    drawn = in_rounds(plan, cohort)
    if drawn is None:
        return cohort
    chosen = np.flatnonzero(drawn)
    ids = None if cohort.train_ids is None else tuple(cohort.train_ids[number] for number in chosen)
    return replace(cohort, train=cohort.train.only(chosen), train_ids=ids)


def kept(
    plan: StudyPlan,
    task: Task,
    cohort: Cohort,
    shared: Vector,
    personalised: Vector | None,
    installed: Installed = nothing_installed,
) -> KeptResult | None:
    """Which model the site goes on with; None where the plan has no fall-back.

    The own model that is compared has seen no held-back patient either. A site that keeps its own model then uses the
    one of all its training patients.
    """
    if not plan.fall_back_share:
        return None
    drawn = in_rounds(plan, cohort)
    held_back = np.zeros(0, np.int64) if drawn is None else np.flatnonzero(~drawn)
    given: dict[Name, Vector] = {"shared": shared}
    if personalised is not None:
        given["personalised"] = personalised
    own = own_model(plan, task, for_rounds(plan, cohort), installed)
    if isinstance(own, str):
        return KeptResult(model=list(given)[-1], held_back=len(held_back), because=f"there is no own model, {own}")
    if not len(held_back):
        return KeptResult(model="own", held_back=0, because="no training patient could be held back")
    patients = cohort.train.take(held_back)
    candidates: dict[Name, Vector] = {"own": own, **given}
    losses = {name: task.engine.mean_loss(w.astype(np.float64), patients) for name, w in candidates.items()}
    return KeptResult(
        model=smallest(losses), held_back=len(held_back), because=f"chosen on {len(held_back)} training patients"
    )


def smallest(losses: Mapping[Name, float]) -> Name:
    """The name with the smallest loss; the first at a tie. A loss that is no number is the largest."""
    return min(losses, key=lambda name: losses[name] if np.isfinite(losses[name]) else np.inf)
