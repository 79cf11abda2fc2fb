"""A measured quantity from a table: squared error, with the mean absolute error and R2 as metrics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from wardround.client.tasks.base import Metric, Scores, patient_means
from wardround.client.tasks.dense import DenseTask
from wardround.privacy.gradients import Array, Examples
from wardround.protocol.tasks import TabularRegression


@dataclass(frozen=True, slots=True)
class SquaredError:
    """(o - (y - center) / scale)^2 / 2 of the output o; y, ``center`` and ``scale`` are in the label's unit."""

    center: float
    scale: float

    @property
    def couples_patients(self) -> bool:
        return False

    def loss_and_slope(self, outputs: Array, targets: Array) -> tuple[Array, Array]:
        """Loss (B,) and its slope in the output (B, 1), for outputs and targets (B, 1)."""
        error = outputs - (targets - self.center) / self.scale
        return 0.5 * error[:, 0] ** 2, error


def mean_absolute_error(scores: Scores, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """In the label's unit; lower is better."""
    return np.asarray(weights @ np.abs(scores.score - scores.target[:, 0]) / weights.sum(axis=1))


def root_mean_squared_error(scores: Scores, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """In the label's unit; lower is better."""
    return np.asarray(np.sqrt(weights @ (scores.score - scores.target[:, 0]) ** 2 / weights.sum(axis=1)))


def r_squared(scores: Scores, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """1 - (sum of squared errors) / (sum of squares around the patients' mean); NaN where the quantity is constant."""
    y, total = scores.target[:, 0], weights.sum(axis=1)
    mean = weights @ y / total
    around = (weights * (y - mean[:, None]) ** 2).sum(axis=1)
    errors = weights @ (scores.score - y) ** 2
    return np.asarray(1.0 - errors / np.where(around > 0, around, np.nan))


NUMBER_METRICS: Final[Mapping[str, Metric]] = {
    "mae": mean_absolute_error,
    "rmse": root_mean_squared_error,
    "r2": r_squared,
}


@dataclass(frozen=True)
class Regression(DenseTask[TabularRegression]):
    """``TabularRegression`` at the site."""

    @property
    def head(self) -> SquaredError:
        return SquaredError(self.spec.center, self.spec.scale)

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return NUMBER_METRICS

    def scores(self, outputs: Array, examples: Examples) -> Scores:
        """The predicted quantity per patient, in the label's unit: the mean over its records."""
        predicted = self.spec.center + self.spec.scale * outputs[:, 0]
        return Scores(patient_means(predicted, examples), patient_means(examples.targets, examples))
