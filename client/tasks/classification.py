"""Binary classification from a table: the log loss on one logit, with accuracy and AUROC as metrics."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wardround.client.tasks.base import Metric, Scores, patient_means
from wardround.client.tasks.dense import DenseTask
from wardround.privacy.gradients import Array, Examples
from wardround.protocol.tasks import TabularClassification


class LogLoss:
    """-(y log p + (1 - y) log(1 - p)) with p the logistic function of the logit; slope p - y."""

    couples_patients = False

    def loss_and_slope(self, outputs: Array, targets: Array) -> tuple[Array, Array]:
        """Loss (B,) and its slope in the logit (B, 1), for outputs and targets (B, 1)."""
        small = np.exp(-np.abs(outputs))
        probability = np.where(outputs >= 0, 1.0, small) / (1.0 + small)
        loss = np.maximum(outputs, 0.0) - outputs * targets + np.log1p(small)
        return loss[:, 0], probability - targets


def accuracy(scores: Scores, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Share of patients on the right side of probability 0.5."""
    right = ((scores.score > 0.5) == (scores.target[:, 0] > 0.5)).astype(np.float64)
    return np.asarray(weights @ right / weights.sum(axis=1))


def auroc(scores: Scores, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """P(score of a positive > score of a negative) + 1/2 P(tie); NaN where a class is absent (Hanley, McNeil 1982)."""
    values, group = np.unique(scores.score, return_inverse=True)
    positive = scores.target[:, 0] > 0.5
    by_value = np.zeros((len(scores.score), len(values)))
    by_value[np.arange(len(group)), group] = 1.0
    up = (weights * positive) @ by_value
    down = (weights * ~positive) @ by_value
    below = np.cumsum(down, axis=1) - down
    with np.errstate(invalid="ignore"):
        pairs = up.sum(axis=1) * down.sum(axis=1)
        return np.asarray((up * (below + 0.5 * down)).sum(axis=1) / np.where(pairs > 0, pairs, np.nan))


def log_loss(scores: Scores, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean negative log likelihood; lower is better."""
    p = np.clip(scores.score, 1e-12, 1 - 1e-12)
    y = scores.target[:, 0]
    return np.asarray(weights @ -(y * np.log(p) + (1 - y) * np.log1p(-p)) / weights.sum(axis=1))


@dataclass(frozen=True)
class Classification(DenseTask[TabularClassification]):
    """``TabularClassification`` at the site: a logistic regression or MLP."""

    @property
    def head(self) -> LogLoss:
        return LogLoss()

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return {"accuracy": accuracy, "auroc": auroc, "log_loss": log_loss}

    def scores(self, outputs: Array, examples: Examples) -> Scores:
        """Probability per patient: the mean over its records; the label of its first record."""
        with np.errstate(over="ignore"):
            probability = 1.0 / (1.0 + np.exp(-outputs[:, 0]))
        return Scores(patient_means(probability, examples), patient_means(examples.targets, examples))
