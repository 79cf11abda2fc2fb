"""From a layer's kept inputs and output slopes to each patient's squared norm and the weighted sum of gradients.

One rule for each kind of layer. Where the output has few positions T, the norms come from two T x T Gram matrices and
the sum from one weighted product, so that no gradient per patient is formed (ghost clipping: Li et al. 2022, "Large
language models can be strong differentially private learners"; T = 1 is Goodfellow 2015). Elsewhere the gradients per
patient are made and kept until the clipping factors are known; for a large convolution by one convolution with a group
for each record (Rochette et al. 2019). Torch only: what has no rule here is left to the engine, ``per_sample``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from wardround.privacy.gradients import Examples

Gradients: TypeAlias = dict[torch.Tensor, torch.Tensor]
"""By parameter."""

_GHOST_ADVANTAGE: Final = 32
_WINDOW_INPUTS: Final = 32
_KEPT_FLOATS: Final = 1 << 24
_CANCELLATION: Final = 2.0**-18
"""How far single precision may err in the Gram identity, as a fraction of the norm without cancellation."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one use gives: squared norms (patients,), and its gradients summed with factors (patients,)."""

    squared: torch.Tensor
    weighted: Callable[[torch.Tensor], Gradients]


@dataclass(frozen=True, slots=True)
class Grouping:
    """Records of patients: as ``Examples``, with the bounds of each patient's rows when some have several."""

    patient: torch.Tensor | None
    bounds: list[int]
    patients: int

    @classmethod
    def of(cls, examples: Examples) -> "Grouping":
        """From (records,) patients in non-decreasing order."""
        if examples.one_record_each:
            return cls(None, [], examples.patients)
        bounds = np.searchsorted(examples.patient, np.arange(examples.patients + 1)).tolist()
        return cls(torch.from_numpy(np.array(examples.patient, np.int64)), bounds, examples.patients)

    def sums(self, rows: torch.Tensor) -> torch.Tensor:
        """From (records, ...) to (patients, ...)."""
        if self.patient is None:
            return rows
        return rows.new_zeros(self.patients, *rows.shape[1:]).index_add_(0, self.patient, rows)

    def spread(self, factors: torch.Tensor) -> torch.Tensor:
        """From (patients,) to (records,)."""
        return factors if self.patient is None else factors[self.patient]


def rule_part(layer: nn.Module, inputs: list[torch.Tensor], slope: torch.Tensor, grouping: Grouping) -> Part | None:
    """What one use of a layer gives, from its inputs and the loss's slope at its output; None without a rule."""
    rule = _RULES.get(type(layer))
    return None if rule is None else rule(layer, inputs[0], slope, grouping)


def kept_part(gradients: Gradients, grouping: Grouping) -> Part:
    """Per-patient gradients (patients, *shape), kept until the factors are known."""
    squared = torch.zeros(grouping.patients, dtype=torch.float64)
    for gradient in gradients.values():
        squared += _squares(gradient)
    return Part(squared, lambda factors: {p: factors @ g.reshape(len(g), -1) for p, g in gradients.items()})


def _squares(gradient: torch.Tensor) -> torch.Tensor:
    norms: torch.Tensor = torch.linalg.vector_norm(gradient.reshape(len(gradient), -1), dim=1)
    return norms.double().square()


def _merged(*parts: Part) -> Part:
    def weighted(factors: torch.Tensor) -> Gradients:
        return {p: g for part in parts for p, g in part.weighted(factors).items()}

    return Part(torch.stack([part.squared for part in parts]).sum(0), weighted)


def _ghost(slope: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """Squared norms (B,) of the sums over T of slopes (B, T, units) by inputs (B, T, inputs), rounded up."""
    if slope.shape[1] == 1:
        return _squares(slope) * _squares(inputs)
    gram = torch.bmm(slope, slope.transpose(1, 2)) * torch.bmm(inputs, inputs.transpose(1, 2))
    sizes = gram.diagonal(dim1=1, dim2=2).sqrt().sum(1).double()
    return gram.sum((1, 2)).double().clamp_min(0.0) + _CANCELLATION * sizes.square()


def _prefers_ghost(positions: int, inputs: int, units: int) -> bool:
    return positions * positions * (inputs + units) <= _GHOST_ADVANTAGE * inputs * units


def _by_patient(
    weight: torch.Tensor, slope: torch.Tensor, inputs: Callable[[int, int], torch.Tensor], grouping: Grouping
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Several records per patient: each patient's gradient as one product over all of its positions.

    ``slope`` is (records, T, units) and ``inputs`` gives rows first..end of (records, T, inputs). Returns
    the squared norms, and the gradients (patients, weights) if they are few enough to keep.
    """
    keep = grouping.patients * weight.numel() <= _KEPT_FLOATS
    kept = slope.new_empty(grouping.patients, weight.numel()) if keep else None
    squared = torch.empty(grouping.patients, dtype=torch.float64)
    for patient in range(grouping.patients):
        first, end = grouping.bounds[patient], grouping.bounds[patient + 1]
        gradient = slope[first:end].flatten(0, 1).T @ inputs(first, end).flatten(0, 1)
        squared[patient] = torch.linalg.vector_norm(gradient).double().square()
        if kept is not None:
            kept[patient] = gradient.reshape(-1)
    return squared, kept


def _linear(layer: nn.Linear, inputs: torch.Tensor, slope: torch.Tensor, grouping: Grouping) -> Part:
    """The last axis is the layer's, whatever lies between it and the records is positions."""
    values = inputs.reshape(len(inputs), -1, layer.in_features)
    slopes = slope.reshape(len(slope), -1, layer.out_features)
    weight = layer.weight

    def product(factors: torch.Tensor) -> Gradients:
        scaled = slopes * grouping.spread(factors)[:, None, None]
        return {weight: scaled.flatten(0, 1).T @ values.flatten(0, 1)}

    parts = []
    if weight.requires_grad:
        if grouping.patient is not None:
            squared, kept = _by_patient(weight, slopes, lambda first, end: values[first:end], grouping)
            parts.append(Part(squared, product) if kept is None else kept_part({weight: kept}, grouping))
        elif _prefers_ghost(slopes.shape[1], *values.shape[2:], *slopes.shape[2:]):
            parts.append(Part(_ghost(slopes, values), product))
        else:
            parts.append(kept_part({weight: torch.bmm(slopes.transpose(1, 2), values)}, grouping))
    if layer.bias is not None and layer.bias.requires_grad:
        parts.append(kept_part({layer.bias: grouping.sums(slopes.sum(1))}, grouping))
    return _merged(*parts)


def _conv2d(layer: nn.Conv2d, inputs: torch.Tensor, slope: torch.Tensor, grouping: Grouping) -> Part | None:
    """None for what has no rule: groups, padding by name or with other than zeros, an image without a batch."""
    if layer.groups != 1 or isinstance(layer.padding, str) or layer.padding_mode != "zeros" or inputs.dim() != 4:
        return None
    weight, padding, records = layer.weight, layer.padding, len(inputs)
    units, width = weight.shape[0], weight[0].numel()
    positions = slope.shape[2] * slope.shape[3]

    def backward(slopes: torch.Tensor, values: torch.Tensor, groups: int) -> torch.Tensor:
        shape = weight.new_empty(1).expand(groups * units, *weight.shape[1:])  # only its shape is looked at
        geometry = list(layer.stride), list(padding), list(layer.dilation), False, [0, 0], groups
        gradient: torch.Tensor = torch.ops.aten.convolution_backward(
            slopes, values, shape, None, *geometry, [False, True, False]
        )[1]
        return gradient

    def windows(first: int, end: int) -> torch.Tensor:
        pairs = (tuple(weight.shape[2:]), layer.dilation, tuple(padding), layer.stride)
        return functional.unfold(inputs[first:end], *pairs).transpose(1, 2)

    def product(factors: torch.Tensor) -> Gradients:
        return {weight: backward(slope * grouping.spread(factors)[:, None, None, None], inputs, 1)}

    parts = []
    slopes = slope.flatten(2)
    if weight.requires_grad:
        if grouping.patient is not None:
            squared, kept = _by_patient(weight, slopes.transpose(1, 2), windows, grouping)
            parts.append(Part(squared, product) if kept is None else kept_part({weight: kept}, grouping))
        elif _prefers_ghost(positions, width, units):
            parts.append(Part(_ghost(slopes.transpose(1, 2), windows(0, records)), product))
        elif width <= _WINDOW_INPUTS:
            parts.append(kept_part({weight: torch.bmm(slopes, windows(0, records))}, grouping))
        else:  # one image with a group of channels for each record: its gradients are per record
            one_slope, one_input = (rows.reshape(1, -1, *rows.shape[2:]) for rows in (slope, inputs))
            gradients = backward(one_slope, one_input, records)
            parts.append(kept_part({weight: gradients.view(records, -1)}, grouping))
    if layer.bias is not None and layer.bias.requires_grad:
        parts.append(kept_part({layer.bias: grouping.sums(slopes.sum(2))}, grouping))
    return _merged(*parts)


def _group_norm(layer: nn.GroupNorm, inputs: torch.Tensor, slope: torch.Tensor, grouping: Grouping) -> Part:
    """The slopes of scale and shift, from the sums that the normalisation's own backward pass uses."""
    records, channels = inputs.shape[:2]
    values, slopes = inputs.reshape(records, channels, -1), slope.reshape(records, channels, -1)
    _, mean, inverse = torch.native_group_norm(
        values, None, None, records, channels, values.shape[2], layer.num_groups, layer.eps
    )
    per_group = channels // layer.num_groups
    shift = slopes.sum(2)
    mean, inverse = mean.repeat_interleave(per_group, 1), inverse.repeat_interleave(per_group, 1)
    scale = (torch.linalg.vecdot(slopes, values) - shift * mean) * inverse
    both = {layer.weight: scale, layer.bias: shift}
    return kept_part({p: grouping.sums(g) for p, g in both.items() if p.requires_grad}, grouping)


_RULES: Final[dict[type[nn.Module], Callable[..., Part | None]]] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv2d,
    nn.GroupNorm: _group_norm,
}
