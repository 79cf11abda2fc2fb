"""Gradients of many hospitals' dense networks in one computation: the closed form of ``privacy.closed_form``.

Every array has one more axis, the site: weights (S, d), features (S, B, inputs), slopes (S, B, units). A site with
fewer than B records in its batch is padded with rows of zeros behind its own; their slopes are set to zero, so they add
nothing to a sum.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wardround.client.tasks.dense import DenseTask
from wardround.client.tasks.survival import CoxLoss
from wardround.privacy.clipping import clip_factors
from wardround.privacy.closed_form import DenseEngine, Head
from wardround.privacy.gradients import Array
from wardround.simulations.vectorised.cox import cox_slopes

Counts = npt.NDArray[np.int64]

_VALUES_AT_ONCE: Final = 1 << 17
"""Numbers of one layer of one group: a megabyte, which stays in the processor's cache."""


class ManyDense:
    """One dense network a site, all with the layout and the loss of ``task``: ``Networks``."""

    several_threads = True
    values_at_once = _VALUES_AT_ONCE

    def __init__(self, task: DenseTask[Any]) -> None:
        engine: DenseEngine = task.engine
        self._layers = engine.layers
        self._hazards = engine.hazards
        self._tanh = task.spec.activation == "tanh"
        self._slopes = _slopes_of(task.head)
        self.size = engine.size
        self.width = max(layer.shape[side] for layer in engine.layers for side in (0, 1))

    def gradient_sums(
        self, weights: Array, features: Array, targets: Array, counts: Counts, clip_norm: float | None
    ) -> Array:
        """As ``Networks.gradient_sums``; features (S, B, inputs) in float64."""
        with np.errstate(all="ignore"):  # a record whose gradient is not finite is left out below
            inputs, outputs = self._forward(weights, features)
            slope = self._slopes(outputs, targets, counts)
            padded = np.arange(features.shape[1]) >= counts[:, None]
            if padded.any():
                slope[padded] = 0.0
            slopes = self._backward(weights, inputs, slope)
            if clip_norm is None:
                total = self._sum(inputs, slopes)
                finite = np.isfinite(total.sum(axis=1))
                if not finite.all():
                    self._leave_out(total, ~finite, inputs, slopes)
                return total
            scale = clip_factors(self._squared_norms(inputs, slopes), clip_norm)
            for one in slopes:
                one *= scale[:, :, None]
            if not scale.all():
                _blank(inputs, slopes, scale == 0.0)
            return self._sum(inputs, slopes)

    def _leave_out(self, total: Array, sites: npt.NDArray[np.bool_], inputs: list[Array], slopes: list[Array]) -> None:
        """Sum the ``sites`` anew without the records whose gradient is not finite."""
        inputs, slopes = [one[sites].copy() for one in inputs], [one[sites].copy() for one in slopes]
        _blank(inputs, slopes, ~np.isfinite(self._squared_norms(inputs, slopes)))
        total[sites] = self._sum(inputs, slopes)

    def _forward(self, weights: Array, features: Array) -> tuple[list[Array], Array]:
        """The inputs of each layer (S, B, inputs), and the outputs (S, B, K)."""
        inputs, values, last = [], features, len(self._layers) - 1
        for index, layer in enumerate(self._layers):
            inputs.append(values)
            matrix = weights[:, layer.weight].reshape(-1, *layer.shape)
            values = values @ matrix.transpose(0, 2, 1)
            if layer.bias is not None:
                values += weights[:, None, layer.bias]
            if index < last:
                np.tanh(values, out=values) if self._tanh else np.maximum(values, 0.0, out=values)
        return inputs, values if self._hazards is None else values + weights[:, None, self._hazards]

    def _backward(self, weights: Array, inputs: list[Array], slope: Array) -> list[Array]:
        """The slopes at each layer's sums, (S, B, units), in the order of the layers; behind them those of hazards."""
        slopes: list[Array] = []
        if self._hazards is not None:
            slopes.append(slope)
            slope = slope.sum(axis=2, keepdims=True)
        for index in range(len(self._layers) - 1, -1, -1):
            layer = self._layers[index]
            slopes.insert(0, slope)
            if index:
                values = inputs[index]
                slope = slope @ weights[:, layer.weight].reshape(-1, *layer.shape)
                slope *= 1.0 - values * values if self._tanh else values > 0.0
        return slopes

    def _squared_norms(self, inputs: list[Array], slopes: list[Array]) -> Array:
        """Squared 2-norm of each record's gradient, shape (S, B): |delta|^2 (|a|^2 + 1 for a bias) a layer."""
        squared = np.zeros(slopes[0].shape[:2])
        for layer, values, slope in zip(self._layers, inputs, slopes, strict=False):
            squared += _row_dots(slope) * (_row_dots(values) + (layer.bias is not None))
        if self._hazards is not None:
            squared += _row_dots(slopes[-1])
        return squared

    def _sum(self, inputs: list[Array], slopes: list[Array]) -> Array:
        total = np.empty((len(slopes[0]), self.size))
        for layer, values, slope in zip(self._layers, inputs, slopes, strict=False):
            if layer.bias is not None:
                slope.sum(axis=1, out=total[:, layer.bias])
            np.matmul(slope.transpose(0, 2, 1), values, out=total[:, layer.weight].reshape(-1, *layer.shape))
        if self._hazards is not None:
            slopes[-1].sum(axis=1, out=total[:, self._hazards])
        return total


def _slopes_of(head: Head) -> Callable[[Array, Array, Counts], Array]:
    """The slopes of a loss for many batches. Records of a loss that couples nobody can lie one behind the other."""
    if isinstance(head, CoxLoss):
        return cox_slopes

    def flat(outputs: Array, targets: Array, counts: Counts) -> Array:
        _, slope = head.loss_and_slope(outputs.reshape(-1, outputs.shape[2]), targets.reshape(-1, targets.shape[2]))
        return slope.reshape(outputs.shape)

    return flat


def _row_dots(rows: Array) -> Array:
    dots: Array = np.einsum("sbi,sbi->sb", rows, rows)
    return dots


def _blank(inputs: list[Array], slopes: list[Array], records: npt.NDArray[np.bool_]) -> None:
    """Set the rows of these records to zero: 0 * NaN would be NaN."""
    for one in (*inputs, *slopes):
        one[records] = 0.0
