"""Structures in pictures at the site: a U-Net, cross-entropy and Dice loss, and Dice as the metric.

A record's features are its channels and, behind them, its mask: 0 the background, 1 .. K the structures. The network
sees the channels only.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from wardround.client.tasks.base import Metric, PlannedTask, Scores, patient_means
from wardround.client.tasks.networks import unet
from wardround.privacy.gradients import Array, Examples, GradientEngine
from wardround.protocol.image_tasks import ImageSegmentation

if TYPE_CHECKING:
    import torch

SMOOTH: Final = 1e-5
"""Added to both sides of the fraction, so that an empty structure has a Dice (as MONAI's DiceLoss)."""

_MAPS_AT_ONCE: Final = 1 << 24
"""Numbers of the maps of one pass, 128 MiB."""


def segmentation_loss(outputs: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    """Of each record: the mean cross-entropy of its voxels, plus one minus the mean Dice of its structures.

    ``outputs`` (records, 1 + K + 1, *size): the maps' logits and, last, the mask. ``targets`` is not looked at.
    """
    from torch.nn.functional import cross_entropy, one_hot

    logits = outputs[:, :-1]
    # What is no structure is the background: nothing in one patient's mask may stop the others' round.
    mask = outputs[:, -1].nan_to_num().clamp(0, logits.shape[1] - 1).long()
    crossed = cross_entropy(logits, mask, reduction="none").flatten(1).mean(1)
    probability = logits.softmax(1)[:, 1:].flatten(2)
    truth = one_hot(mask, logits.shape[1]).movedim(-1, 1)[:, 1:].flatten(2).to(probability.dtype)
    both, either = (probability * truth).sum(2), probability.sum(2) + truth.sum(2)
    return crossed + 1.0 - ((2.0 * both + SMOOTH) / (either + SMOOTH)).mean(1)


def dice(scores: Scores, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """2 |A and B| / (|A| + |B|) over all patients together, the mean over structures (Dice 1945); NaN if all are empty.

    Sums over patients, so a patient without the structure counts by what the model finds there.
    """
    both, either = weights @ scores.score, weights @ scores.target
    each = both / np.where(either > 0, either, np.nan)
    stated = np.isfinite(each)
    return np.asarray(np.where(stated, each, 0.0).sum(1) / np.where(stated.any(1), stated.sum(1), np.nan))


def dice_per_patient(scores: Scores, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The mean over patients of their own Dice; a structure that neither has is left out, a patient without any too."""
    stated = scores.target > 0
    own = np.where(stated, scores.score / np.where(stated, scores.target, 1.0), 0.0)
    counted = stated.any(1)
    each = own.sum(1) / np.maximum(stated.sum(1), 1)
    total = weights @ counted
    return np.asarray(weights @ (each * counted) / np.where(total > 0, total, np.nan))


def overlaps(outputs: Array) -> Array:
    """Voxels of each record and structure in prediction and reference alike, and in each: (records, K, 3).

    ``outputs``: as for ``segmentation_loss``. A voxel is of the structure whose map is highest there.
    """
    found, truth = outputs[:, :-1].argmax(1), np.rint(outputs[:, -1])
    axes = tuple(range(1, found.ndim))
    counted = np.zeros((len(outputs), outputs.shape[1] - 2, 3))
    for number in range(1, outputs.shape[1] - 1):
        predicted, there = found == number, truth == number
        for place, voxels in enumerate((predicted & there, predicted, there)):
            counted[:, number - 1, place] = voxels.sum(axes)
    return counted


@dataclass(frozen=True)
class Segmentation(PlannedTask[ImageSegmentation]):
    """``ImageSegmentation`` at the site."""

    @cached_property
    def engine(self) -> GradientEngine:
        from wardround.privacy.per_sample import ModuleEngine

        engine: Any = ModuleEngine(_beside_its_mask(unet(self.spec)), segmentation_loss)
        return engine  # type: ignore[no-any-return]

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return {"dice": dice, "dice_per_patient": dice_per_patient}

    def scores(self, outputs: Array, examples: Examples) -> Scores:
        """For ``dice``: per patient and structure twice the voxels in both, (patients, K), and the sum of each's."""
        both, predicted, there = np.moveaxis(overlaps(outputs), -1, 0)
        return Scores(patient_means(2.0 * both, examples), patient_means(predicted + there, examples))

    def overlaps(self, weights: Array, features: npt.NDArray[Any]) -> Array:
        """``overlaps`` of what the model of ``weights`` marks, some records at a time: maps are many times as large."""
        each = max(1, _MAPS_AT_ONCE // (self.spec.structures * math.prod(self.spec.size)))
        starts = range(0, len(features), each)
        parts = [overlaps(self.engine.outputs(weights, features[first : first + each])) for first in starts]
        return np.concatenate([np.zeros((0, self.spec.structures, 3)), *parts])


def _beside_its_mask(module: "torch.nn.Module") -> "torch.nn.Module":
    """``module`` on all channels but the last, which stands unchanged behind its outputs."""
    import torch
    from torch import nn

    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # Under MONAI's own name, so that the tensors are called as the protocol calls them.
            self.model = module.get_submodule("model")

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            maps: torch.Tensor = self.model(features[:, :-1])
            return torch.cat([maps, features[:, -1:]], 1)

    return Beside()
