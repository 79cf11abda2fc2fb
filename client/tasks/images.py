"""Binary classification of pictures at the site: the network of ``ImageClassification``, through the torch engine."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from wardround.client.tasks.base import Metric, Scores, patient_means
from wardround.client.tasks.classification import accuracy, auroc, log_loss
from wardround.privacy.gradients import Array, Examples, GradientEngine
from wardround.protocol.image_tasks import ImageClassification
from wardround.protocol.parameters import Layout

if TYPE_CHECKING:
    import torch


def network(spec: ImageClassification) -> "torch.nn.Module":
    """The network as a torch module: pictures (records, channels, rows, columns) to logits (records, 1)."""
    from torch import nn

    inputs: int = spec.channels
    layers: dict[str, nn.Module] = {}
    for number, width in enumerate(spec.widths):
        layers[f"convolution{number}"] = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
        layers[f"normalisation{number}"] = nn.GroupNorm(spec.groups, width, affine=False)
        layers[f"rectifier{number}"] = nn.ReLU()
        layers[f"mean{number}"] = nn.AvgPool2d(2)
        inputs = width
    layers["whole"] = nn.AdaptiveAvgPool2d(1)
    layers["flat"] = nn.Flatten()
    layers["dense"] = nn.Linear(inputs, 1)
    module = nn.Sequential()
    for name, layer in layers.items():
        module.add_module(name, layer)
    return module


def record_log_loss(outputs: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    """The log loss of each record's logit: (records, 1) and (records, 1) to (records,)."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    return binary_cross_entropy_with_logits(outputs, targets, reduction="none")[:, 0]


@dataclass(frozen=True)
class ImageClassifier:
    """``ImageClassification`` at the site. ``features`` is not needed: pictures have a shape of their own."""

    spec: ImageClassification
    features: int = 1

    @property
    def couples_patients(self) -> bool:
        return self.spec.couples_patients

    @cached_property
    def layout(self) -> Layout:
        return self.spec.layout(self.features)

    @cached_property
    def engine(self) -> GradientEngine:
        from wardround.privacy.per_sample import ModuleEngine

        engine: Any = ModuleEngine(network(self.spec), record_log_loss)
        return engine  # type: ignore[no-any-return]

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return {"accuracy": accuracy, "auroc": auroc, "log_loss": log_loss}

    def scores(self, outputs: Array, examples: Examples) -> Scores:
        """Probability per patient: the mean over its pictures; the label of a patient is the mean of theirs."""
        with np.errstate(over="ignore"):
            probability = 1.0 / (1.0 + np.exp(-outputs[:, 0]))
        return Scores(patient_means(probability, examples), patient_means(examples.targets, examples))
