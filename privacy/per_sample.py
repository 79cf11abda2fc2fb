"""Clipped gradients of any torch module: the one file that knows Opacus (Yousefpour et al. 2021).

One forward, one backward for the slopes at the layers' outputs only; parameter gradients are then made from the kept
inputs and slopes, so that nothing is back-propagated twice (book-keeping: Bu et al. 2022, "Differentially private
optimization on large model at small cost"). How a layer makes its own is in ``layer_rules``. Layers without a rule
there, and parameters that are used twice, take the grad samplers of Opacus.
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

from wardround.privacy.clipping import SINGLE_SLACK, clip_factors
from wardround.privacy.gradients import Array, Examples
from wardround.privacy.layer_rules import Gradients, Grouping, Part, kept_part, rule_part
from wardround.protocol.errors import UsageError
from wardround.protocol.parameters import Layout, Tensor

RecordLoss: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From outputs (records, ...) and float32 targets (records, targets) to losses (records,), one by one."""

_FLOATS_AT_ONCE: Final = 1 << 28
"""Kept gradients, and about as many activations, of the patients of one pass: 1 GiB."""

_ACTIVATIONS: Final = 64
"""Numbers that a network keeps for each input number, about."""

_RECORDS_AT_ONCE: Final = 1 << 24
"""Input numbers of one pass without gradients."""

_BATCH_COUPLING: Final = (nn.modules.batchnorm._BatchNorm, nn.CrossMapLRN2d)


@dataclass(frozen=True, slots=True)
class _Use:
    """One call of a layer: its inputs, the version of each, and where its output sits in the graph."""

    layer: nn.Module
    inputs: list[torch.Tensor]
    versions: list[int]
    edge: GradientEdge


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
        each = max(1, _RECORDS_AT_ONCE // max(1, math.prod(features.shape[1:])))
        with torch.no_grad():
            parts = [
                self._module(_tensor(features[first : first + each])).double().numpy()
                for first in range(0, max(1, len(features)), each)
            ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def mean_loss(self, parameters: Array, examples: Examples) -> float:
        if not examples.patients:
            return math.nan
        self._set(parameters)
        self._module.eval()
        with torch.no_grad():
            losses = [float(self._total_loss(group)) for group in self._groups(examples)]
        return math.fsum(losses) / examples.patients

    def gradient_sum(self, parameters: Array, examples: Examples, clip_norm: float | None) -> Array:
        total = np.zeros(self._size)
        for group in self._groups(examples):
            total += self._one_pass(parameters, group, clip_norm)
        return total

    def _one_pass(self, parameters: Array, examples: Examples, clip_norm: float | None) -> Array:
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
        grouping = Grouping.of(examples)
        parts = list(self._parts(examples, grouping))
        squared = np.zeros(examples.patients)
        for part in parts:
            squared += part.squared.double().numpy()
        factors = clip_factors(squared, clip_norm, SINGLE_SLACK)
        if not factors.all():
            # Rare: again without the patients who are not finite, so that nothing needs masking.
            return self._one_pass(parameters, examples.take(np.flatnonzero(factors)), clip_norm)
        total[:] = 0.0
        scale = torch.from_numpy(factors.astype(np.float32))
        while parts:  # frees a layer's kept gradients as soon as they are summed
            self._collect(total, parts.pop().weighted(scale))
        return total

    def _groups(self, examples: Examples) -> Iterator[Examples]:
        """The patients, as many at once as fit into memory: all of them where they do, else in their order."""
        most = max(1, _FLOATS_AT_ONCE // max(self._size, _ACTIVATIONS * math.prod(examples.features.shape[1:])))
        if len(examples.patient) <= most:
            yield examples
            return
        ends, first = np.searchsorted(examples.patient, np.arange(examples.patients), side="right"), 0
        while first < examples.patients:
            start = int(ends[first - 1]) if first else 0
            last = max(first + 1, int(np.searchsorted(ends, start + most, side="right")))
            yield examples.take(np.arange(first, last))
            first = last

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

    def _parts(self, examples: Examples, grouping: Grouping) -> Iterator[Part]:
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
                if several.isdisjoint(use.layer.parameters()):
                    part = rule_part(use.layer, use.inputs, slope, grouping)
                    yield part or kept_part(_sampled(use, slope, grouping), grouping)
                else:
                    for parameter, gradient in _sampled(use, slope, grouping).items():
                        together[parameter] = together[parameter] + gradient if parameter in together else gradient
            if together:
                yield kept_part(together, grouping)


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


def _sampled(use: _Use, slope: torch.Tensor, grouping: Grouping) -> Gradients:
    """Per-patient gradients (patients, *shape) by Opacus."""
    sampler = GradSampleModule.GRAD_SAMPLERS.get(type(use.layer), ft_compute_per_sample_gradient)
    return {p: grouping.sums(g) for p, g in sampler(use.layer, use.inputs, slope).items() if p.requires_grad}
