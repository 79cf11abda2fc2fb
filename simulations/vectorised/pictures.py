"""Gradients of many hospitals' small picture networks in one computation, in torch: ``client.tasks.networks``.

Site s has kernels of its own, so its convolution is one group of a grouped convolution over all sites; what has no
weights (group normalisation, rectifier, means) sees one long batch. Arrays lie record before site, (B, S, ...), as a
grouped convolution reads them. With a clip norm each record's gradient is made and kept: slopes times windows of the
input. Float32 inside and float64 outside, as the engine of one site.
"""

from dataclasses import dataclass
from math import prod
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from wardround.client.tasks.binary import torch_log_loss
from wardround.client.tasks.images import ImageClassifier
from wardround.privacy.clipping import SINGLE_SLACK, clip_factors
from wardround.privacy.gradients import Array
from wardround.protocol.image_tasks import ImageClassification

_VALUES_AT_ONCE: Final = 1 << 22
"""Numbers of one group: 16 MiB of float32."""

_VALUES_OF_A_PASS: Final = 1 << 26
"""Numbers of one pass: 256 MiB. A group of one site with a larger batch takes several."""


@dataclass(frozen=True, slots=True)
class _Use:
    """A convolution's inputs (B, S * inputs, H, W) and sums (B, S * units, H, W)."""

    inputs: torch.Tensor
    sums: torch.Tensor


class ManyPictures:
    """One small network a site, all with the layout and the loss of ``task``: 2D pictures (channels, H, W)."""

    several_threads = False
    values_at_once = _VALUES_AT_ONCE

    def __init__(
        self, task: ImageClassifier, device: torch.device | None = None, values_of_a_pass: int = _VALUES_OF_A_PASS
    ) -> None:
        """``device`` None: the first GPU that torch finds, else the processor."""
        self._values_of_a_pass = values_of_a_pass
        assert isinstance(task.spec, ImageClassification)
        spec = task.spec
        self._device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._shape, self._groups, self._loss = spec.shape, spec.groups, torch_log_loss(spec)
        self._tensors = [(tensor.shape, prod(tensor.shape)) for tensor in task.layout.tensors]
        self.size = task.layout.size
        height, width = spec.size
        taken = [self.size]
        for shape, _ in self._tensors[:-2]:
            taken.append(max(shape[0], prod(shape[1:])) * height * width)
            height, width = height // 2, width // 2
        self.width = max(taken)

    def gradient_sums(
        self, weights: Array, features: Array, targets: Array, counts: npt.NDArray[np.int64], clip_norm: float | None
    ) -> Array:
        """As ``Networks.gradient_sums``; features (S, B, channels, H, W), targets (S, B, outputs)."""
        sites, records = features.shape[:2]
        at_once = max(1, self._values_of_a_pass // (self.width * sites))
        total = np.zeros_like(weights)
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # float32 as on a processor
            for first in range(0, records, at_once):
                some = slice(first, first + at_once)
                total += self._summed(
                    self._tensor(weights),
                    self._tensor(features[:, some].swapaxes(0, 1)),
                    self._tensor(targets[:, some].swapaxes(0, 1)),
                    self._tensor(np.arange(records)[some, None] < counts),
                    clip_norm,
                )
        return total

    def _summed(
        self,
        weights: torch.Tensor,
        pictures: torch.Tensor,
        targets: torch.Tensor,
        real: torch.Tensor,
        clip_norm: float | None,
    ) -> Array:
        if clip_norm is None:
            total: Array = self.plain_sums(weights, pictures, targets, real).double().cpu().numpy()
            lost = ~np.isfinite(total.sum(axis=1))
            if lost.any():  # rare: sum these sites anew without the records whose gradient is not finite
                at = torch.from_numpy(np.flatnonzero(lost)).to(self._device)
                total[lost] = self._summed(
                    weights.detach()[at], pictures[:, at], targets[:, at], real[:, at], np.finfo(np.float64).max
                )
            return total
        parts = self.kept_gradients(weights, pictures, targets, real)
        squared = torch.zeros(real.shape, dtype=torch.float64, device=self._device)
        for part in parts:
            squared += torch.linalg.vector_norm(part, dim=2).double().square()
        factors = clip_factors(squared.cpu().numpy(), clip_norm, SINGLE_SLACK)
        scale = self._tensor(factors)[:, :, None]
        whole = bool(factors.all())
        sums = [(part * scale if whole else torch.where(scale > 0, part, 0.0) * scale).sum(0) for part in parts]
        clipped: Array = torch.cat(sums, dim=1).double().cpu().numpy()
        return clipped

    def plain_sums(
        self, weights: torch.Tensor, pictures: torch.Tensor, targets: torch.Tensor, real: torch.Tensor
    ) -> torch.Tensor:
        """Sums (S, d) of the gradients of the ``real`` (B, S) records, from float32 tensors on one device."""
        weights.requires_grad_()
        outputs, _, _ = self._forward(weights, pictures)
        (total,) = torch.autograd.grad(self._total_loss(outputs, targets, real), weights)
        return total

    def kept_gradients(
        self, weights: torch.Tensor, pictures: torch.Tensor, targets: torch.Tensor, real: torch.Tensor
    ) -> list[torch.Tensor]:
        """Each record's gradient, (B, S, n) for each tensor of n numbers; zero where a record is not ``real``."""
        outputs, features, uses = self._forward(weights, pictures)
        sums = [use.sums for use in uses]
        *slopes, last = torch.autograd.grad(self._total_loss(outputs, targets, real), [*sums, outputs])
        records, sites = real.shape
        parts = []
        for use, slope in zip(uses, slopes, strict=True):
            inputs = use.inputs.reshape(records * sites, -1, *use.inputs.shape[2:])
            windows = functional.unfold(inputs, 3, padding=1)
            each = torch.bmm(slope.reshape(records * sites, -1, windows.shape[2]), windows.transpose(1, 2))
            parts.append(each.reshape(records, sites, -1))
        dense = last[:, :, :, None] * features[:, :, None, :]
        return [*parts, dense.flatten(2), last]

    def _forward(self, weights: torch.Tensor, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, list[_Use]]:
        """Outputs (B, S, K) and features (B, S, F), for weights (S, d) and pictures (B, S, channels, H, W)."""
        records, sites = pictures.shape[:2]
        *kernels, (matrix_shape, _), _ = self._tensors
        *weights_of, matrix, bias = torch.split(weights, [size for _, size in self._tensors], dim=1)
        values, uses = pictures.flatten(1, 2), []
        for (shape, _), kernel in zip(kernels, weights_of, strict=True):
            filters = kernel.reshape(sites * shape[0], *shape[1:])
            sums = functional.conv2d(values, filters, padding=1, groups=sites)
            if not sums.requires_grad:
                sums.requires_grad_()
            uses.append(_Use(values.detach(), sums))
            one_batch = sums.view(records * sites, shape[0], *sums.shape[2:])
            values = functional.avg_pool2d(functional.group_norm(one_batch, self._groups).relu(), 2)
            values = values.view(records, sites * shape[0], *values.shape[2:])
        features = values.reshape(records, sites, matrix_shape[1], -1).mean(3)
        outputs = torch.einsum("bsf,skf->bsk", features, matrix.view(sites, *matrix_shape)) + bias
        return outputs, features.detach(), uses

    def _total_loss(self, outputs: torch.Tensor, targets: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        losses = self._loss(outputs.flatten(0, 1), targets.flatten(0, 1)).view(real.shape)
        return (losses * real).sum()

    def _tensor(self, values: npt.NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(self._device)
