"""Binary outcomes, one or several at once: the log loss, and accuracy and AUROC as metrics.

A finding that is not stated (``protocol.labels.UNKNOWN``) adds nothing: to a patient's loss, slope or metric.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from wardround.client.tasks.base import Metric, Scores, patient_means
from wardround.privacy.gradients import Array, Examples
from wardround.protocol.image_tasks import Outputs
from wardround.protocol.labels import UNKNOWN

if TYPE_CHECKING:
    import torch

    from wardround.privacy.per_sample import RecordLoss


@dataclass(frozen=True, slots=True)
class LogLoss:
    """-(w y log p + (1 - y) log(1 - p)) with p the logistic function of the logit, the mean over the outputs.

    ``positive_weights``: w of each output; empty: 1. They are the plan's and never from local counts.
    """

    positive_weights: tuple[float, ...] = ()

    @property
    def couples_patients(self) -> bool:
        return False

    def loss_and_slope(self, outputs: Array, targets: Array) -> tuple[Array, Array]:
        """Loss (B,) and its slopes in the logits (B, T), for outputs and targets (B, T)."""
        small = np.exp(-np.abs(outputs))
        probability = np.where(outputs >= 0, 1.0, small) / (1.0 + small)
        loss = np.maximum(outputs, 0.0) - outputs * targets + np.log1p(small)
        slope = probability - targets
        if self.positive_weights:
            weights = np.where(targets > 0.5, np.array(self.positive_weights), 1.0)
            loss, slope = loss * weights, slope * weights
        count = outputs.shape[1]
        if count == 1:
            return loss[:, 0], slope
        known = targets != UNKNOWN
        return np.where(known, loss, 0.0).sum(axis=1) / count, np.where(known, slope, 0.0) / count


def torch_log_loss(spec: Outputs) -> "RecordLoss":
    """``LogLoss`` in torch: from logits and targets (records, T) to losses (records,)."""

    def loss(outputs: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits

        known = targets != UNKNOWN
        weights = outputs.new_tensor(spec.positive_weights) if spec.positive_weights else None
        each = binary_cross_entropy_with_logits(
            outputs, torch.where(known, targets, 0.0), reduction="none", pos_weight=weights
        )
        return torch.where(known, each, 0.0).mean(1)

    return loss


def binary_scores(outputs: Array, examples: Examples) -> Scores:
    """Probability per patient, the mean over its records, (patients,) or (patients, T); and the mean of its labels."""
    with np.errstate(over="ignore"):
        probability = 1.0 / (1.0 + np.exp(-outputs))
    if outputs.shape[1] == 1:
        return Scores(patient_means(probability[:, 0], examples), patient_means(examples.targets, examples))
    known = examples.targets != UNKNOWN
    stated = patient_means(known.astype(np.float64), examples)
    positive = patient_means(np.where(known, examples.targets, 0.0), examples)
    target = np.where(stated > 0, positive / np.where(stated > 0, stated, 1.0), UNKNOWN)
    return Scores(patient_means(probability, examples), target)


def binary_metrics(outputs: int) -> Mapping[str, Metric]:
    """Accuracy, AUROC and log loss; of several findings the mean over those that can be estimated."""
    metrics: dict[str, Metric] = {"accuracy": accuracy, "auroc": auroc, "log_loss": log_loss}
    return metrics if outputs == 1 else {name: over_findings(metric) for name, metric in metrics.items()}


def over_findings(metric: Metric) -> Metric:
    """The mean of ``metric`` over findings, each on the patients of whom it is stated (macro average).

    A finding for which it cannot be estimated on all patients is left out of every resample, so that all are means of
    the same findings.
    """

    def mean(scores: Scores, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        found = []
        for number in range(scores.target.shape[1]):
            stated = np.flatnonzero(scores.target[:, number] != UNKNOWN)
            part = Scores(scores.score[stated, number], scores.target[stated, number : number + 1])
            if len(stated) and np.isfinite(metric(part, np.ones((1, len(stated))))[0]):
                with np.errstate(invalid="ignore", divide="ignore"):
                    found.append(metric(part, weights[:, stated]))
        return np.mean(found, axis=0) if found else np.full(len(weights), np.nan)

    return mean


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
