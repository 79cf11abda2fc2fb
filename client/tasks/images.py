"""Binary outcomes from pictures at the site: a network that is trained whole, through the torch engine."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from wardround.client.tasks.base import Metric, PlannedTask, Scores
from wardround.client.tasks.binary import binary_metrics, binary_scores, torch_log_loss
from wardround.client.tasks.networks import network
from wardround.privacy.gradients import Array, Examples, GradientEngine
from wardround.protocol.image_tasks import ImageClassification, ImageDenseNet


@dataclass(frozen=True)
class ImageClassifier(PlannedTask[ImageClassification | ImageDenseNet]):
    """A classification of pictures at the site."""

    @cached_property
    def engine(self) -> GradientEngine:
        from wardround.privacy.per_sample import ModuleEngine

        spec = self.spec
        module = network(spec.network, spec.channels, len(spec.size), spec.outputs)
        engine: Any = ModuleEngine(module, torch_log_loss(spec))
        return engine  # type: ignore[no-any-return]

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return binary_metrics(self.spec.outputs)

    def scores(self, outputs: Array, examples: Examples) -> Scores:
        """As ``binary_scores``: several pictures of a patient give one probability."""
        return binary_scores(outputs, examples)
