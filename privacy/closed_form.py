"""Clipped gradients of dense networks in closed form: numpy float64, no per-patient gradients, no torch.

The gradient of one record in a dense layer is the outer product of delta (the slope at the layer's sums)
and a (the layer's inputs), so its squared norm is |delta|^2 (|a|^2 + 1 for a bias): Goodfellow 2015,
"Efficient per-example gradient computations". For a patient of several records it is the sum over pairs of
records of (delta_k . delta_l) (a_k . a_l + 1), the Gram identity behind ghost clipping (Li et al. 2022).
The clipped sum is then one matrix product for each layer.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from wardround.privacy.clipping import DOUBLE_SLACK, clip_factors
from wardround.privacy.gradients import Array, Examples, Indices
from wardround.protocol.errors import UsageError
from wardround.protocol.parameters import Layout

_RECORDS_AT_ONCE: Final = 512

Factors: TypeAlias = tuple[Array, Array | None, bool]
"""The slopes (records, units) and inputs (records, inputs) of one layer, and whether it has a bias; without
inputs it is a bias alone."""


class Head(Protocol):
    """What turns a network's outputs and the targets into a loss."""

    @property
    def couples_patients(self) -> bool:
        """Whether one record's loss depends on other records of the batch."""

    def loss_and_slope(self, outputs: Array, targets: Array) -> tuple[Array, Array]:
        """Losses (B,) of B records, and their slopes (B, K) in the outputs (B, K); targets are (B, T).

        A coupled head gives the slope of the batch's mean loss times B, so that the sum over records
        divided by B is the gradient of the batch's loss; its losses must have that loss for their mean.
        """


@dataclass(frozen=True, slots=True)
class _Dense:
    weight: slice
    shape: tuple[int, int]
    bias: slice | None


class DenseEngine:
    """A ``GradientEngine`` for the layouts of ``protocol/tasks``: dense layers, then perhaps hazards (K,).

    With the hazards, the last dense layer has one output, the log relative risk, and the K outputs are that
    plus the hazards. Deterministic; parameters and results are float64.
    """

    def __init__(
        self, layout: Layout, hidden: tuple[int, ...], activation: Literal["tanh", "relu"], head: Head
    ) -> None:
        """Raises UsageError when the layout is not of dense layers with the ``hidden`` sizes."""
        self.layers, self.hazards = _read(layout)
        self._size = layout.size
        self._tanh = activation == "tanh"
        self._head = head
        sizes = tuple(layer.shape[0] for layer in self.layers[:-1])
        if sizes != tuple(hidden):
            message = f"the layout has hidden layers of {sizes} units, not {tuple(hidden)}"
            raise UsageError(message, "use the task's layout")

    @property
    def size(self) -> int:
        return self._size

    def outputs(self, parameters: Array, features: npt.NDArray[Any]) -> Array:
        with np.errstate(all="ignore"):
            return self._forward(parameters, features)[1]

    def mean_loss(self, parameters: Array, examples: Examples) -> float:
        if not examples.patients:
            return math.nan
        with np.errstate(all="ignore"):
            loss, _ = self._head.loss_and_slope(self.outputs(parameters, examples.features), examples.targets)
        if examples.one_record_each or self._head.couples_patients:
            return float(loss.mean())
        return float((loss * _shares(examples)).sum() / examples.patients)

    def gradient_sum(self, parameters: Array, examples: Examples, clip_norm: float | None) -> Array:
        coupled = self._head.couples_patients
        if coupled and clip_norm is not None:
            raise UsageError(
                "this loss couples patients, so no patient's gradient can be clipped",
                "use survival_piecewise under differential privacy, or a plan without it",
            )
        with np.errstate(all="ignore"):  # a patient whose gradient is not finite is left out below, silently
            if coupled:
                examples = _finite_features(examples)
            if not examples.patients:
                return np.zeros(self._size)
            inputs, outputs = self._forward(parameters, examples.features)
            _, slope = self._head.loss_and_slope(outputs, examples.targets)
            if coupled:
                slope = slope * (examples.patients / len(slope))
            elif not examples.one_record_each:
                slope = slope * _shares(examples)[:, None]
            factors = self._backward(parameters, inputs, slope)
            if clip_norm is None:
                total = self._sum(factors, np.ones(len(slope)))
                if coupled or math.isfinite(float(total.sum())):
                    return total
                clip_norm = np.finfo(np.float64).max  # clips nobody, finds who is not finite
            squared = _squared_norms(factors, examples)
            scale = clip_factors(squared, clip_norm)
            if not examples.one_record_each:
                scale = scale[examples.patient]
            if not scale.all():
                factors = [_without(factor, scale > 0.0) for factor in factors]
            return self._sum(factors, scale)

    def _forward(self, parameters: Array, features: npt.NDArray[Any]) -> tuple[list[Array], Array]:
        """The inputs of each dense layer, and the outputs."""
        values: Array = np.asarray(features, dtype=np.float64)
        inputs = []
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            inputs.append(values)
            values = values @ parameters[layer.weight].reshape(layer.shape).T
            if layer.bias is not None:
                values += parameters[layer.bias]
            if index < last:
                np.tanh(values, out=values) if self._tanh else np.maximum(values, 0.0, out=values)
        return inputs, values if self.hazards is None else values + parameters[self.hazards]

    def _backward(self, parameters: Array, inputs: list[Array], slope: Array) -> list[Factors]:
        """The factors of the gradient, layer by layer from the outputs to the features."""
        factors: list[Factors] = []
        if self.hazards is not None:
            factors.append((slope, None, True))
            slope = slope.sum(1, keepdims=True)
        for index in range(len(self.layers) - 1, -1, -1):
            layer, values = self.layers[index], inputs[index]
            factors.append((slope, values, layer.bias is not None))
            if index:
                slope = slope @ parameters[layer.weight].reshape(layer.shape)
                slope *= 1.0 - values * values if self._tanh else values > 0.0
        return factors

    def _sum(self, factors: list[Factors], scale: Array) -> Array:
        """Shape (d,): the sum over records of their gradients times ``scale`` (records,)."""
        total = np.empty(self._size)
        places: list[_Dense | None] = [*reversed(self.layers)]
        if self.hazards is not None:
            places.insert(0, None)
        for place, (slope, values, _) in zip(places, factors, strict=True):
            if place is None or values is None:
                total[self.hazards] = scale @ slope
                continue
            if place.bias is not None:
                total[place.bias] = scale @ slope
            np.matmul((slope * scale[:, None]).T, values, out=total[place.weight].reshape(place.shape))
        return total


def _read(layout: Layout) -> tuple[list[_Dense], slice | None]:
    places: dict[str, tuple[slice, tuple[int, ...]]] = {}
    start = 0
    for tensor in layout.tensors:
        places[tensor.name] = slice(start, start + tensor.size), tensor.shape
        start += tensor.size
    layers: list[_Dense] = []
    while (weight := places.pop(f"dense{len(layers)}.weight", None)) is not None:
        bias = places.pop(f"dense{len(layers)}.bias", None)
        units, inputs = weight[1]
        layers.append(_Dense(weight[0], (units, inputs), None if bias is None else bias[0]))
    hazards = places.pop("hazard.bias", None)
    chained = all(b.shape[1] == a.shape[0] for a, b in pairwise(layers))
    if places or not layers or not chained or (hazards is not None and layers[-1].shape[0] != 1):
        raise UsageError("the layout is not one of dense layers", "other models use the per-sample engine")
    return layers, None if hazards is None else hazards[0]


def _shares(examples: Examples) -> Array:
    """One over the number of records of each record's patient, shape (records,)."""
    counts = np.bincount(examples.patient, minlength=examples.patients)
    shares: Array = (1.0 / counts)[examples.patient]
    return shares


def _finite_features(examples: Examples) -> Examples:
    bad = ~np.isfinite(examples.features).all(axis=1)
    if not bad.any():
        return examples
    return examples.take(np.setdiff1d(np.arange(examples.patients), examples.patient[bad]))


def _without(factor: Factors, kept: npt.NDArray[np.bool_]) -> Factors:
    """The factors with the other records' rows zero: 0 * NaN would be NaN."""
    slope, values, bias = factor
    rows = kept[:, None]
    return np.where(rows, slope, 0.0), None if values is None else np.where(rows, values, 0.0), bias


def _row_dots(rows: Array) -> Array:
    dots: Array = np.einsum("ij,ij->i", rows, rows)
    return dots


def _squared_norms(factors: list[Factors], examples: Examples) -> Array:
    """Squared 2-norm of each patient's gradient, shape (patients,)."""
    if examples.one_record_each:
        squared = np.zeros(examples.patients)
        for slope, values, bias in factors:
            squared += _row_dots(slope) if values is None else _row_dots(slope) * (_row_dots(values) + bias)
        return squared
    starts = np.searchsorted(examples.patient, np.arange(examples.patients + 1))
    parts = []
    for first, end in _groups(starts):
        rows = slice(starts[first], starts[end])
        part: list[Factors] = [(d[rows], None if a is None else a[rows], bias) for d, a, bias in factors]
        if rows.stop - rows.start > _RECORDS_AT_ONCE:
            parts.append(np.array([_squared_norm_of_one(part)]))
        else:
            parts.append(_gram_squared_norms(part, examples.patient[rows], starts[first:end] - starts[first]))
    return np.concatenate(parts)


def _groups(starts: Indices) -> Iterator[tuple[int, int]]:
    """Runs of patients with at most ``_RECORDS_AT_ONCE`` records together, or one patient with more."""
    first, patients = 0, len(starts) - 1
    while first < patients:
        end = int(np.searchsorted(starts, starts[first] + _RECORDS_AT_ONCE, side="right")) - 1
        end = max(end, first + 1)
        yield first, end
        first = end


def _gram_squared_norms(factors: list[Factors], patient: Indices, starts: Indices) -> Array:
    """By pairs of records of one patient. Rounded up by more than cancellation between records can hide."""
    gram = np.zeros((len(patient), len(patient)))
    for slope, values, bias in factors:
        gram += slope @ slope.T if values is None else (slope @ slope.T) * (values @ values.T + bias)
    sizes = np.add.reduceat(np.sqrt(gram.diagonal()), starts)  # the norm, had the records not cancelled
    gram = np.where(patient[:, None] == patient, gram, 0.0)
    squared: Array = np.maximum(np.add.reduceat(gram.sum(1), starts), 0.0) + DOUBLE_SLACK * sizes * sizes
    return squared


def _squared_norm_of_one(factors: list[Factors]) -> float:
    """For a patient of very many records the gradient itself is smaller than the table of pairs."""
    squared = 0.0
    for slope, values, bias in factors:
        summed = slope.sum(0)
        squared += float(summed @ summed) if bias else 0.0
        if values is not None:
            gradient = slope.T @ values
            squared += float(np.vdot(gradient, gradient))
    return squared
