"""A task made of any torch module: for research in a program. Its gradients per patient come through Opacus.

No plan can name such a task, so no hospital can be asked to run one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from wardround.client.tasks.base import Metric, Scores, patient_means
from wardround.client.tasks.binary import accuracy, auroc
from wardround.privacy.gradients import Array, Examples, GradientEngine
from wardround.protocol.parameters import Layout

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ModuleTask:
    """``module`` with a loss per record, and metrics of the mean score of each patient.

    ``loss`` maps outputs (records, ...) and targets (records, T) to losses (records,). ``score`` maps outputs, as
    float64, to one number per record. Layers that couple patients (BatchNorm) are refused when the engine is made.
    """

    module: "torch.nn.Module"
    loss: Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
    metrics: Mapping[str, Metric]
    score: Callable[[Array], Array] = field(default=lambda outputs: outputs[:, 0])

    couples_patients = False

    @cached_property
    def layout(self) -> Layout:
        from wardround.privacy.per_sample import module_layout

        return module_layout(self.module)

    @cached_property
    def engine(self) -> GradientEngine:
        from wardround.privacy.per_sample import ModuleEngine

        engine: Any = ModuleEngine(self.module, self.loss)
        return engine  # type: ignore[no-any-return]

    def scores(self, outputs: Array, examples: Examples) -> Scores:
        """Mean score per patient and its target."""
        return Scores(patient_means(self.score(outputs), examples), patient_means(examples.targets, examples))


def binary_task(module: "torch.nn.Module") -> ModuleTask:
    """A yes or no for each record: ``module`` maps features (records, ...) to one logit each, shape (records, 1).

    The loss is the log loss, the score the probability; metrics are accuracy and AUROC.
    """
    return ModuleTask(module, _log_loss, {"accuracy": accuracy, "auroc": auroc}, _probability)


def _log_loss(outputs: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    from torch.nn.functional import binary_cross_entropy_with_logits

    return binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(dim=1)


def _probability(outputs: Array) -> Array:
    clipped: Array = 1.0 / (1.0 + np.exp(-np.clip(outputs[:, 0], -500.0, 500.0)))
    return clipped
