"""Whether a model can be trained under patient-level differential privacy: found by trying it, not by its name.

The guarantee rests on three facts about the code that makes gradients: what one patient adds to the sum is at most C
long, whatever the patient's values; it does not depend on who else is in the batch; and nothing else of the model is
touched, so that nothing but the sum can leave. Each is tried on a few patients. A layer that is known to couple
patients (BatchNorm) is refused before that, when its engine is made.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np

from wardround.client.tasks import Task
from wardround.privacy.gradients import Array, Examples
from wardround.protocol.parameters import Vector

PATIENTS: Final = 4
"""Patients that are looked at."""

CLIP_NORM: Final = 0.5
EXTREME: Final = 1e4
"""Features are stretched by this much: a patient's values have no bound."""

_NEAR: Final = 2e-3
"""Of the length of what is compared: engines work in single precision, and batches sum in another order."""


def incompatibilities(task: Task, model: Vector, patients: Examples) -> list[str]:
    """Why ``task`` cannot be trained under differential privacy, in one sentence each; empty: it can.

    Args:
        model: where gradients are taken, shape (d,).
        patients: a few are looked at, the first ones; they may have several records.
    """
    if task.couples_patients:
        return ["the task couples patients by its own word, so no patient's gradient can be clipped alone"]
    few = patients.take(np.arange(min(PATIENTS, patients.patients)))
    return list(_faults(task, model.astype(np.float64), few))


def _faults(task: Task, model: Array, patients: Examples) -> Iterator[str]:
    engine = task.engine
    if engine.size != task.layout.size:
        yield f"the engine has {engine.size} parameters and the layout {task.layout.size}: something else would move"
        return
    together = engine.outputs(model, patients.features)
    alone = np.concatenate([engine.outputs(model, patients.features[[row]]) for row in range(len(patients.patient))])
    if not np.allclose(together, alone, rtol=_NEAR, atol=_NEAR * max(1.0, float(np.abs(alone).max()))):
        yield "what the model says of one record depends on the others in its batch"
    ones = [patients.take(np.array([patient])) for patient in range(patients.patients)]
    parts = [engine.gradient_sum(model, one, CLIP_NORM) for one in ones]
    total = engine.gradient_sum(model, patients, CLIP_NORM)
    if np.linalg.norm(total - np.sum(parts, axis=0)) > _NEAR * CLIP_NORM * patients.patients:
        yield "what a patient adds to the sum depends on the others in its batch"
    stretched = [replace(one, features=np.asarray(one.features) * EXTREME) for one in ones]
    parts += [engine.gradient_sum(model, one, CLIP_NORM) for one in stretched]
    if max(float(np.linalg.norm(part)) for part in parts) > CLIP_NORM * (1 + 1e-6):
        yield "one patient adds more to the sum than the clip norm allows"
    if not np.array_equal(engine.outputs(model, patients.features), together):
        yield "the model remembers what it was shown: a buffer moved"
