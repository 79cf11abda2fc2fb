"""What is computed with a plugin's model: one gradient, the outputs, or a loss. Runs wherever the plugin runs.

A request is a safetensors file: ``parameters`` (d,), ``features`` (records, F), ``targets`` (records, T), ``weights``
(records,), ``seed`` (1,), and in its metadata what is wanted. A patient's loss is the sum of ``weights`` times the
losses of the patient's records; with one over the number of records that is their mean.
"""

from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import load, save
from torch import nn

Wanted: TypeAlias = Literal["gradient", "outputs", "loss"]
RecordLoss: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

_WANTED: Final = ("gradient", "outputs", "loss")


def request(
    wanted: Wanted,
    parameters: npt.NDArray[Any],
    features: npt.NDArray[Any],
    targets: npt.NDArray[Any],
    weights: npt.NDArray[Any],
    seed: int,
) -> bytes:
    """The bytes of a request."""
    return save(
        {
            "parameters": np.ascontiguousarray(parameters, np.float32),
            "features": np.ascontiguousarray(features, np.float32),
            "targets": np.ascontiguousarray(targets, np.float32),
            "weights": np.ascontiguousarray(weights, np.float32),
            "about": np.array([_WANTED.index(wanted), seed], np.int64),
        }
    )


def label_loss(label: str, center: float, scale: float) -> RecordLoss:
    """The loss of a label for outputs and targets (records, 1): log loss of the logit, or half the squared error."""
    if label == "class":
        return lambda outputs, targets: nn.functional.binary_cross_entropy_with_logits(
            outputs, targets, reduction="none"
        ).mean(1)
    return lambda outputs, targets: 0.5 * (outputs - (targets - center) / scale).square().mean(1)


def computed(module: nn.Module, loss: RecordLoss | None, data: bytes, given: dict[str, Any]) -> npt.NDArray[Any]:
    """What a request asks for, float32: (d,), (records,) or (1,). Raises whatever the plugin raises."""
    made = load(data)
    wanted, seed = _WANTED[int(made["about"][0])], int(made["about"][1])
    torch.manual_seed(seed)
    parameters = [p for p in module.parameters() if p.requires_grad]
    nn.utils.vector_to_parameters(torch.from_numpy(made["parameters"]), parameters)
    features, targets = torch.from_numpy(made["features"]), torch.from_numpy(made["targets"])
    module.train(wanted == "gradient")
    with torch.set_grad_enabled(wanted == "gradient"):
        outputs = module(features)
        if wanted == "outputs":
            return _flat(outputs)
        each = (loss or label_loss(given["label"], given["center"], given["scale"]))(outputs, targets)
        total = (each * torch.from_numpy(made["weights"])).sum()
        if wanted == "loss":
            return _flat(total.reshape(1))
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    return np.concatenate(
        [np.zeros(p.numel(), np.float32) if g is None else _flat(g) for p, g in zip(parameters, gradients, strict=True)]
    )


def _flat(values: torch.Tensor) -> npt.NDArray[Any]:
    return np.ascontiguousarray(values.detach().numpy().reshape(-1), "<f4")
