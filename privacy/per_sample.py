"""Clipped gradients of any torch module: the one file that knows Opacus (Yousefpour et al. 2021).

One forward, one backward for the slopes at the layers' outputs only; parameter gradients are then made from
the kept inputs and slopes, so that nothing is back-propagated twice (book-keeping: Bu et al. 2022,
"Differentially private optimization on large model at small cost"). A layer whose output has few positions
T gets its norms from the T x T Gram matrices (ghost clipping: Li et al. 2022) and one weighted product; any
other keeps its per-sample gradients. Layers without a rule here, and parameters that are used twice, take
the grad samplers of Opacus.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from opacus.grad_sample import GradSampleModule
from opacus.grad_sample.functorch import ft_compute_per_sample_gradient, prepare_layer
from opacus.validators import ModuleValidator
from torch import nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional

from wardround.privacy.clipping import SINGLE_SLACK, clip_factors
from wardround.privacy.gradients import Array, Examples
from wardround.protocol.errors import UsageError
from wardround.protocol.parameters import Layout, Tensor

RecordLoss: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From outputs (records, ...) and float32 targets (records, targets) to losses (records,), one by one."""

Gradients: TypeAlias = dict[torch.Tensor, torch.Tensor]
"""By parameter."""

_BATCH_COUPLING: Final = (nn.modules.batchnorm._BatchNorm, nn.CrossMapLRN2d)
_GHOST_ADVANTAGE: Final = 32
_WINDOW_INPUTS: Final = 32
_KEPT_FLOATS: Final = 1 << 24
_CANCELLATION: Final = 2.0**-18
"""How far single precision may err in the Gram identity, as a fraction of the norm without cancellation."""


@dataclass(frozen=True, slots=True)
class _Use:
    """One call of a layer: its inputs, the version of each, and where its output sits in the graph."""

    layer: nn.Module
    inputs: list[torch.Tensor]
    versions: list[int]
    edge: GradientEdge


@dataclass(frozen=True, slots=True)
class _Part:
    """What one use gives: squared norms (patients,), and its gradients summed with factors (patients,)."""

    squared: torch.Tensor
    weighted: Callable[[torch.Tensor], Gradients]


@dataclass(frozen=True, slots=True)
class _Grouping:
    """Records of patients: as ``Examples``, with the bounds of each patient's rows when some have several."""

    patient: torch.Tensor | None
    bounds: list[int]
    patients: int

    def sums(self, rows: torch.Tensor) -> torch.Tensor:
        """From (records, ...) to (patients, ...)."""
        if self.patient is None:
            return rows
        return rows.new_zeros(self.patients, *rows.shape[1:]).index_add_(0, self.patient, rows)

    def spread(self, factors: torch.Tensor) -> torch.Tensor:
        """From (patients,) to (records,)."""
        return factors if self.patient is None else factors[self.patient]


def module_layout(module: nn.Module) -> Layout:
    """The trainable parameters in ``named_parameters`` order; frozen ones do not travel."""
    tensors = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            fan_in = math.prod(parameter.shape[1:]) if parameter.dim() > 1 else 1
            tensors.append(Tensor(name, tuple(parameter.shape), fan_in))
    return Layout(tuple(tensors))


class ModuleEngine:
    """A ``GradientEngine`` for a torch module whose forward keeps records (first axis) apart.

    Works in float32, returns float64. The engine takes the module over: its parameters become views of one
    vector that every call overwrites. Raises UsageError for layers that couple patients and for modules
    with buffers.
    """

    def __init__(self, module: nn.Module, loss: RecordLoss) -> None:
        _refuse_coupled(module)
        self._module, self._loss = module, loss
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        self._size = sum(p.numel() for p in self._parameters)
        self._vector = torch.empty(self._size)
        self._places: dict[torch.Tensor, tuple[int, int]] = {}
        start = 0
        for parameter in self._parameters:
            end = start + parameter.numel()
            self._vector[start:end] = parameter.detach().reshape(-1)
            parameter.data = self._vector[start:end].view(parameter.shape)
            self._places[parameter] = start, end
            start = end
        self._layers = list(_leaves(module))
        owners = Counter(p for layer in self._layers for p in layer.parameters())
        self._shared = {p for p, owned in owners.items() if owned > 1}

    @property
    def size(self) -> int:
        return self._size

    def outputs(self, parameters: Array, features: npt.NDArray[Any]) -> Array:
        self._set(parameters)
        self._module.eval()
        with torch.no_grad():
            result: Array = self._module(_tensor(features)).double().numpy()
        return result

    def mean_loss(self, parameters: Array, examples: Examples) -> float:
        if not examples.patients:
            return math.nan
        self._set(parameters)
        self._module.eval()
        with torch.no_grad():
            return float(self._total_loss(examples) / examples.patients)

    def gradient_sum(self, parameters: Array, examples: Examples, clip_norm: float | None) -> Array:
        total = np.zeros(self._size)
        if not examples.patients:
            return total
        self._set(parameters)
        self._module.train()
        if clip_norm is None:
            gradients = torch.autograd.grad(self._total_loss(examples), self._parameters, allow_unused=True)
            self._collect(total, dict(zip(self._parameters, gradients, strict=True)))
            if math.isfinite(float(total.sum())):
                return total
            clip_norm = np.finfo(np.float64).max  # clips nobody, finds who is not finite
        grouping = _grouping(examples)
        parts = list(self._parts(examples, grouping))
        squared = np.zeros(examples.patients)
        for part in parts:
            squared += part.squared.double().numpy()
        factors = clip_factors(squared, clip_norm, SINGLE_SLACK)
        if not factors.all():
            # Rare: again without the patients who are not finite, so that nothing needs masking.
            return self.gradient_sum(parameters, examples.take(np.flatnonzero(factors)), clip_norm)
        total[:] = 0.0
        scale = torch.from_numpy(factors.astype(np.float32))
        while parts:  # frees a layer's kept gradients as soon as they are summed
            self._collect(total, parts.pop().weighted(scale))
        return total

    def _set(self, parameters: Array) -> None:
        self._vector.copy_(torch.from_numpy(np.ascontiguousarray(parameters)))

    def _collect(self, total: Array, gradients: dict[torch.Tensor, Any]) -> None:
        for parameter, gradient in gradients.items():
            if gradient is not None and parameter in self._places:
                start, end = self._places[parameter]
                total[start:end] += gradient.reshape(-1).numpy()

    def _total_loss(self, examples: Examples) -> torch.Tensor:
        """The sum over patients of the mean over the patient's records."""
        losses = self._loss(self._module(_tensor(examples.features)), _tensor(examples.targets))
        if losses.shape != (len(examples.patient),):
            hint = "reduce over everything but the first axis"
            raise UsageError("the loss does not give one number per record", hint)
        if not examples.one_record_each:
            counts = np.bincount(examples.patient, minlength=examples.patients)
            losses = losses * torch.from_numpy((1.0 / counts)[examples.patient].astype(np.float32))
        return losses.sum()

    def _parts(self, examples: Examples, grouping: _Grouping) -> Iterator[_Part]:
        uses: list[_Use] = []
        with _recorded(self._layers, uses):
            loss = self._total_loss(examples)
        for use in uses:
            if any(tensor._version != version for tensor, version in zip(use.inputs, use.versions, strict=True)):
                name = type(use.layer).__name__
                raise UsageError(f"a {name} layer's input is changed in place behind it", "use inplace=False there")
        edges = [use.edge for use in uses]
        slopes: tuple[torch.Tensor | None, ...] = torch.autograd.grad(loss, edges, allow_unused=True)
        times = Counter(p for use in uses for p in use.layer.parameters())
        several = self._shared | {p for p, used in times.items() if used > 1}
        together: Gradients = {}
        with torch.no_grad():
            for use, slope in zip(uses, slopes, strict=True):
                if slope is None:
                    continue
                rule = _RULES.get(type(use.layer))
                if several.isdisjoint(use.layer.parameters()):
                    part = None if rule is None else rule(use.layer, use.inputs[0], slope, grouping)
                    yield part or _kept(_sampled(use, slope, grouping), grouping)
                else:
                    for parameter, gradient in _sampled(use, slope, grouping).items():
                        together[parameter] = together[parameter] + gradient if parameter in together else gradient
            if together:
                yield _kept(together, grouping)


def _refuse_coupled(module: nn.Module) -> None:
    hint = "use GroupNorm in place of BatchNorm, and keep nothing in buffers"
    for layer in module.modules():
        name = type(layer).__name__
        buffers = {key for key, value in layer._buffers.items() if value is not None}
        if isinstance(layer, _BATCH_COUPLING) or buffers - layer._non_persistent_buffers_set:
            raise UsageError(f"a {name} layer couples the patients of a batch or carries buffers", hint)
        if isinstance(layer, nn.modules.lazy.LazyModuleMixin) and layer.has_uninitialized_params():
            raise UsageError(f"a {name} layer has no shape yet", "run the module once on public data first")
    module.train()
    if ModuleValidator.validate(module, strict=False):
        raise UsageError("Opacus has no per-sample gradients for this module", hint)


def _leaves(module: nn.Module) -> Iterator[nn.Module]:
    """The layers that own trainable parameters; one without a sampler is taken whole, with its children."""
    own = any(p.requires_grad for p in module.parameters(recurse=False))
    known = type(module) in GradSampleModule.GRAD_SAMPLERS
    if own:
        if not known:
            prepare_layer(module)
        yield module
    if not own or known:
        for child in module.children():
            yield from _leaves(child)


@contextmanager
def _recorded(layers: list[nn.Module], uses: list[_Use]) -> Iterator[None]:
    """Append one ``_Use`` for each call of one of the ``layers``."""

    def record(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not isinstance(output, torch.Tensor) or not all(isinstance(i, torch.Tensor) for i in inputs):
            raise UsageError(
                f"a {type(layer).__name__} layer does not map tensors to one tensor",
                "build it from layers that do",
            )
        kept = [tensor.detach() for tensor in inputs]
        uses.append(_Use(layer, kept, [tensor._version for tensor in kept], get_gradient_edge(output)))

    handles = [layer.register_forward_hook(record) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensor(values: npt.NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.array(values, np.float32 if np.issubdtype(values.dtype, np.floating) else np.int64))


def _grouping(examples: Examples) -> _Grouping:
    if examples.one_record_each:
        return _Grouping(None, [], examples.patients)
    bounds = np.searchsorted(examples.patient, np.arange(examples.patients + 1)).tolist()
    return _Grouping(torch.from_numpy(np.array(examples.patient, np.int64)), bounds, examples.patients)


def _squares(gradient: torch.Tensor) -> torch.Tensor:
    norms: torch.Tensor = torch.linalg.vector_norm(gradient.reshape(len(gradient), -1), dim=1)
    return norms.double().square()


def _sampled(use: _Use, slope: torch.Tensor, grouping: _Grouping) -> Gradients:
    """Per-patient gradients (patients, *shape) by Opacus."""
    sampler = GradSampleModule.GRAD_SAMPLERS.get(type(use.layer), ft_compute_per_sample_gradient)
    return {p: grouping.sums(g) for p, g in sampler(use.layer, use.inputs, slope).items() if p.requires_grad}


def _kept(gradients: Gradients, grouping: _Grouping) -> _Part:
    """Per-patient gradients (patients, *shape), kept until the factors are known."""
    squared = torch.zeros(grouping.patients, dtype=torch.float64)
    for gradient in gradients.values():
        squared += _squares(gradient)
    return _Part(squared, lambda factors: {p: factors @ g.reshape(len(g), -1) for p, g in gradients.items()})


def _merged(*parts: _Part) -> _Part:
    def weighted(factors: torch.Tensor) -> Gradients:
        return {p: g for part in parts for p, g in part.weighted(factors).items()}

    return _Part(torch.stack([part.squared for part in parts]).sum(0), weighted)


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
    weight: torch.Tensor, slope: torch.Tensor, inputs: Callable[[int, int], torch.Tensor], grouping: _Grouping
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


def _linear(layer: nn.Linear, inputs: torch.Tensor, slope: torch.Tensor, grouping: _Grouping) -> _Part:
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
            parts.append(_Part(squared, product) if kept is None else _kept({weight: kept}, grouping))
        elif _prefers_ghost(slopes.shape[1], *values.shape[2:], *slopes.shape[2:]):
            parts.append(_Part(_ghost(slopes, values), product))
        else:
            parts.append(_kept({weight: torch.bmm(slopes.transpose(1, 2), values)}, grouping))
    if layer.bias is not None and layer.bias.requires_grad:
        parts.append(_kept({layer.bias: grouping.sums(slopes.sum(1))}, grouping))
    return _merged(*parts)


def _conv2d(layer: nn.Conv2d, inputs: torch.Tensor, slope: torch.Tensor, grouping: _Grouping) -> _Part | None:
    """None for what Opacus' own sampler does: groups, padding by name or with other than zeros."""
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
            parts.append(_Part(squared, product) if kept is None else _kept({weight: kept}, grouping))
        elif _prefers_ghost(positions, width, units):
            parts.append(_Part(_ghost(slopes.transpose(1, 2), windows(0, records)), product))
        elif width <= _WINDOW_INPUTS:
            parts.append(_kept({weight: torch.bmm(slopes, windows(0, records))}, grouping))
        else:  # one image with a group of channels for each record: its gradients are per record
            one_slope, one_input = (rows.reshape(1, -1, *rows.shape[2:]) for rows in (slope, inputs))
            gradients = backward(one_slope, one_input, records)
            parts.append(_kept({weight: gradients.view(records, -1)}, grouping))
    if layer.bias is not None and layer.bias.requires_grad:
        parts.append(_kept({layer.bias: grouping.sums(slopes.sum(2))}, grouping))
    return _merged(*parts)


def _group_norm(layer: nn.GroupNorm, inputs: torch.Tensor, slope: torch.Tensor, grouping: _Grouping) -> _Part:
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
    return _kept({p: grouping.sums(g) for p, g in both.items() if p.requires_grad}, grouping)


_RULES: Final[dict[type[nn.Module], Callable[..., _Part | None]]] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv2d,
    nn.GroupNorm: _group_norm,
}
