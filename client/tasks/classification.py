"""Binary outcomes from a table: logistic regression, or a multilayer perceptron."""

from collections.abc import Mapping
from dataclasses import dataclass

from wardround.client.tasks.base import Metric, Scores
from wardround.client.tasks.binary import LogLoss, binary_metrics, binary_scores
from wardround.client.tasks.dense import DenseTask
from wardround.privacy.gradients import Array, Examples
from wardround.protocol.tasks import TabularClassification


@dataclass(frozen=True)
class Classification(DenseTask[TabularClassification]):
    """``TabularClassification`` at the site."""

    @property
    def head(self) -> LogLoss:
        return LogLoss(self.spec.positive_weights)

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return binary_metrics(self.spec.outputs)

    def scores(self, outputs: Array, examples: Examples) -> Scores:
        """As ``binary_scores``."""
        return binary_scores(outputs, examples)
