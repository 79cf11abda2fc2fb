"""A linear model on what a frozen network makes of a picture, at the site (Alain, Bengio 2016).

The network is not trained, so what it makes of a picture never changes: ``frozen_part`` is run once for each picture
while the cohort is read, and the site's cache keeps its features in place of the pixels. What is then trained is a
logistic regression, with the closed-form engine of tables.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from wardround.client.connectors.table import Records
from wardround.client.tasks.base import Metric, PlannedTask, Scores
from wardround.client.tasks.binary import LogLoss, binary_metrics, binary_scores
from wardround.client.tasks.networks import network
from wardround.privacy.closed_form import DenseEngine
from wardround.privacy.gradients import Array, Examples
from wardround.protocol.image_tasks import LinearProbe
from wardround.protocol.parameters import Layout
from wardround.protocol.tasks import TaskSpec
from wardround.protocol.weights import Installed, weights_of

Frozen: TypeAlias = Callable[[npt.NDArray[Any]], npt.NDArray[np.float64]]
"""From pixels (records, channels, *size) to features (records, F), record by record."""

AT_ONCE: Final = 32


def frozen_part(task: TaskSpec, installed: Installed) -> Frozen | None:
    """What is done to a picture's pixels before anything is trained; None for tasks that train all they have.

    Raises:
        UsageError: the network's weights are not installed, or are another network's.
    """
    if not isinstance(task, LinearProbe):
        return None
    vector = weights_of(task.weights, task.frozen, installed)
    import torch

    module = network(task.network, task.channels, len(task.size), None).eval()
    parts = Layout(task.frozen).split(vector)
    for parameter, part in zip(module.parameters(), parts.values(), strict=True):
        parameter.requires_grad_(False)
        parameter.copy_(torch.from_numpy(part))

    def features(pixels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        made = np.zeros((len(pixels), task.network.features))
        for first in range(0, len(pixels), AT_ONCE):
            batch = torch.from_numpy(np.array(pixels[first : first + AT_ONCE], np.float32))
            with torch.no_grad():
                made[first : first + AT_ONCE] = module(batch).double().numpy()
        # Each picture by itself: nothing is fitted to patients, and the linear model starts well scaled.
        length = np.sqrt((made**2).mean(axis=1, keepdims=True))
        return np.asarray(made / np.where(length > 0, length, 1.0))

    return features


def with_frozen_part(records: Iterable[Records], frozen: Frozen | None) -> Iterator[Records]:
    """``records`` with the frozen part's features in place of pixels."""
    for each in records:
        yield each if frozen is None else replace(each, features=frozen(each.features))


@dataclass(frozen=True)
class Probe(PlannedTask[LinearProbe]):
    """``LinearProbe`` at the site: examples hold the frozen part's features."""

    @cached_property
    def engine(self) -> DenseEngine:
        return DenseEngine(self.layout, (), "tanh", LogLoss(self.spec.positive_weights))

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return binary_metrics(self.spec.outputs)

    def scores(self, outputs: Array, examples: Examples) -> Scores:
        """As ``binary_scores``."""
        return binary_scores(outputs, examples)
