"""From a plan to the terms of its secure sums: how wide a vector is, what its integers mean, who counts.

Public and the same for every party, because each derives it from the plan that all approved. A contribution's parts lie
in the order of their names; its ``weight`` is at most the largest declared number of patients, ``weight_steps`` that
times the most steps of a round, ``present`` 1 for each site, any other part the largest declared number times the range
that the plan allows an update.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from wardround.privacy.secagg.quantize import Quantizer
from wardround.privacy.secagg.ring import SMALL
from wardround.protocol.identity import PublicIdentity
from wardround.protocol.indicators import PRESENT
from wardround.protocol.owners import COORDINATOR
from wardround.protocol.plan import StudyPlan
from wardround.protocol.secagg import Session, colluding

VECTOR: Final = "contribution"
"""The name of the one vector of a round."""

_WEIGHT: Final = "weight"
_STEPS: Final = "weight_steps"


def quantizer_for(plan: StudyPlan, part_sizes: Mapping[str, int]) -> Quantizer:
    """Which integers stand for a contribution of ``plan`` whose parts have these names and lengths."""
    largest = float(max(participant.declared_patients for participant in plan.participants))
    bounds = {_WEIGHT: largest, _STEPS: largest * _longest(plan, largest), PRESENT: 1.0}
    ranges = tuple(
        (length, bounds.get(name, largest * plan.privacy.update_range)) for name, length in sorted(part_sizes.items())
    )
    return Quantizer(SMALL, len(plan.participants), ranges)


def _longest(plan: StudyPlan, patients: float) -> float:
    """The most steps that a site takes in a round."""
    local = plan.local
    if local.steps is not None:
        return float(local.steps)
    return float((local.epochs or 1) * -(-patients // min(local.batch_size or patients, patients)))


def session_for(
    plan: StudyPlan,
    members: Sequence[PublicIdentity],
    *,
    roster: str,
    name: str,
    length: int,
    rounds: Sequence[int],
    attempts: int,
    coordinator: PublicIdentity,
) -> Session:
    """The terms of a session of ``plan``: n, t and c are the plan's, whoever of its sites is missing today."""
    return Session(
        plan=plan.digest,
        roster=roster,
        name=name,
        members=tuple(sorted(members, key=lambda member: member.site)),
        threshold=plan.sum_threshold,
        colluding=colluding(len(plan.participants)),
        bits=SMALL.bits,
        length=length,
        rounds=tuple(rounds),
        attempts=attempts,
        coordinator=PublicIdentity(COORDINATOR, coordinator.key),
    )
