"""Faults: a site that drops out at a step, answers late, or answers nonsense. Played on real sites, without mocks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np

from wardround.client.site import Phase
from wardround.protocol.messages import Masked, Reply


class FaultKind(StrEnum):
    """What goes wrong. The first six are a site that is gone from that moment on, and restarts for the next round."""

    UNREACHED = "unreached"
    DIES_DECIDED = "dies after deciding"
    DIES_RESERVED = "dies after reserving"
    DIES_STARTED = "dies after starting"
    DIES_TRAINED = "dies after training"
    DIES_RELEASED = "dies after releasing"
    LATE = "late"
    WRONG_SHAPE = "wrong shape"
    NOT_FINITE = "not finite"
    WRONG_TYPE = "wrong type"
    WRONG_ROUND = "wrong round"
    WRONG_MODEL = "wrong model"
    SILENT_CONSENT = "silent from the list of survivors on"
    SILENT_OPENING = "silent when the sum is opened"


LAST_PHASE: Final[dict[FaultKind, Phase]] = {
    FaultKind.DIES_DECIDED: Phase.DECIDED,
    FaultKind.DIES_RESERVED: Phase.RESERVED,
    FaultKind.DIES_STARTED: Phase.STARTED,
    FaultKind.DIES_TRAINED: Phase.TRAINED,
    FaultKind.DIES_RELEASED: Phase.RELEASED,
}
"""The last phase that a dying site completes."""


@dataclass(frozen=True, slots=True)
class Fault:
    """``kind`` happens to ``site`` in ``round_number``."""

    site: str
    round_number: int
    kind: FaultKind


def find(faults: Sequence[Fault], site: str, round_number: int) -> FaultKind | None:
    """What goes wrong at ``site`` in this round, or None."""
    for fault in faults:
        if (fault.site, fault.round_number) == (site, round_number):
            return fault.kind
    return None


def spoil(reply: Reply | Masked, kind: FaultKind) -> Reply | Masked:
    """The reply as a broken or hostile site would send it."""
    assert isinstance(reply.vector, np.ndarray)
    if kind is FaultKind.WRONG_SHAPE:
        return replace(reply, vector=reply.vector[:-1])
    if kind is FaultKind.NOT_FINITE:
        return replace(reply, vector=np.full(reply.vector.shape, np.nan))
    if kind is FaultKind.WRONG_TYPE:
        return replace(reply, vector=reply.vector.astype(np.float32))
    if kind is FaultKind.WRONG_ROUND:
        return replace(reply, round_number=reply.round_number + 1)
    if kind is FaultKind.WRONG_MODEL:
        return replace(reply, model_hash="0" * 64)
    return reply
