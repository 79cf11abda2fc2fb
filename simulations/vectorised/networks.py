"""What trains at all hospitals at once: one network a site, behind one interface, by the kind of the task."""

from math import prod
from typing import Protocol

import numpy as np
import numpy.typing as npt

from wardround.client.tasks import Task
from wardround.client.tasks.dense import DenseTask
from wardround.client.tasks.images import ImageClassifier
from wardround.privacy.gradients import Array
from wardround.protocol.errors import UsageError
from wardround.protocol.image_tasks import ImageClassification
from wardround.simulations.vectorised.dense import ManyDense


class Networks(Protocol):
    """One network a site, all of one layout with d parameters."""

    size: int
    """d."""
    width: int
    """Numbers that one record takes while its gradient is made."""
    values_at_once: int
    """Such numbers of one group of batches: what is fast, and bounds memory."""
    several_threads: bool
    """Whether groups may be computed by several threads at once; otherwise the library has threads of its own."""

    def gradient_sums(
        self, weights: Array, features: Array, targets: Array, counts: npt.NDArray[np.int64], clip_norm: float | None
    ) -> Array:
        """Shape (S, d): each site's sum over its ``counts`` records of their gradients, clipped as asked.

        Args:
            weights: (S, d), float64.
            features: (S, B, ...), rows from ``counts`` on are zero.
            targets: (S, B, T), of padded rows any finite number.
            counts: (S,), records of each site's batch; each record is one patient.
            clip_norm: None: no clipping. A record whose gradient is not finite adds nothing in either case.
        """


def small_pictures(task: Task) -> bool:
    """Whether the task is a small network on pictures of two axes."""
    return isinstance(task, ImageClassifier) and isinstance(task.spec, ImageClassification) and len(task.spec.size) == 2


def multiplications(task: Task) -> int:
    """Of one record's way through the convolutions of a small network on pictures."""
    assert isinstance(task, ImageClassifier)
    positions, total = prod(task.spec.size), 0
    for kernel in task.layout.tensors[:-2]:  # behind them the dense layer
        total += positions * prod(kernel.shape)
        positions //= 4
    return total


def networks_for(task: Task) -> Networks:
    """The networks of a task. Raises UsageError for a task that has to go site by site."""
    if isinstance(task, DenseTask):
        return ManyDense(task)
    if small_pictures(task):
        from wardround.simulations.vectorised.pictures import ManyPictures

        assert isinstance(task, ImageClassifier)
        return ManyPictures(task)
    raise UsageError("these networks cannot be computed at once", "use simulation.engine=auto")
