"""Gradient inversion: a patient's record from the gradient that the record caused.

Closed form: the gradient of a dense first layer is slope x input, and that of its bias the slope alone, so their
ratio is the input, exactly (Phong et al. 2018, "Privacy-Preserving Deep Learning via Additively Homomorphic
Encryption", section 3). Optimisation: an image is moved until its gradient points where the one that was seen does
(Geiping et al. 2020, arXiv 2003.14053), here on a small convolutional network. Both see one step on one patient, the
worst case that a coordinator can arrange.
"""

import copy
import os
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cosine_similarity

from wardround.client.tasks.classification import Classification
from wardround.privacy.dpsgd import private_gradient
from wardround.privacy.gradients import Array, Examples, GradientEngine
from wardround.privacy.per_sample import ModuleEngine
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.tasks import TabularClassification

SIDE: Final = 8
"""Pixels on a side of the image."""

STEPS: Final = 400
_STARTS: Final = 3


@dataclass(frozen=True, slots=True)
class Inversion:
    """Similarity (cosine, -1..1) of what was reconstructed to the truth, and of a stranger's record to it."""

    name: str
    similarity: float
    stranger: float


def invert_dense(patients: Examples, event: PoissonGaussian | None, clip_norm: float, seed: int = 0) -> Inversion:
    """The first record of ``patients`` from one step of a perceptron on it; ``event`` None: without protection."""
    width = patients.features.reshape(patients.features.shape[0], -1).shape[1]
    task = Classification(TabularClassification(hidden=(16,)), width)
    weights, bias = task.layout.tensors[0].name, task.layout.tensors[1].name
    model = np.random.default_rng(seed).normal(size=task.engine.size) / np.sqrt(width)
    one = _alone(patients, 0)
    seen = task.layout.split(_step(task.engine, model, one, event, clip_norm))
    slopes = np.asarray(seen[bias]).reshape(-1)
    rows = np.asarray(seen[weights]).reshape(len(slopes), width)
    unit = int(np.argmax(np.abs(slopes)))
    found = rows[unit] / slopes[unit] if slopes[unit] else rows[unit]
    truth, other = (patients.features[number].reshape(-1) for number in (0, 1))
    return Inversion("dense layer, closed form", _cosine(found, truth), _cosine(other, truth))


def invert_image(event: PoissonGaussian | None, clip_norm: float, seed: int = 0, steps: int = STEPS) -> Inversion:
    """A made-up image of 8 x 8 from one step of a small convolutional network on it."""
    torch.manual_seed(seed)  # the attacker's own choices and a public model; noise comes from elsewhere
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.Sigmoid(), nn.Conv2d(8, 8, 3, padding=1, stride=2), nn.Sigmoid(),
        nn.Flatten(), nn.Linear(8 * (SIDE // 2) ** 2, 1),
    )  # fmt: skip
    for parameter in network.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    engine = ModuleEngine(network, _loss)
    model = np.concatenate([p.detach().numpy().reshape(-1) for p in network.parameters()]).astype(np.float64)
    truth, other = _image(seed), _image(seed + 1)
    one = Examples(truth[None, None].astype(np.float32), np.ones((1, 1)), np.zeros(1, np.int64), 1)
    seen = torch.from_numpy(_step(engine, model, one, event, clip_norm))
    network = copy.deepcopy(network).double()
    found = max((_matched(network, seen, seed + start, steps) for start in range(_STARTS)), key=lambda one: one[0])[1]
    return Inversion("image, by matching gradients", _centred(found, truth), _centred(other, truth))


def _step(
    engine: GradientEngine, model: Array, one: Examples, event: PoissonGaussian | None, clip_norm: float
) -> Array:
    """The gradient that an observer of one step sees, shape (d,), where one patient is drawn for certain."""
    if event is None:
        return engine.gradient_sum(model, one, None)
    return private_gradient(
        engine,
        model,
        one,
        clip_norm=clip_norm,
        noise_multiplier=event.noise_multiplier,
        sampling_probability=1.0,
        declared_patients=1,
        random_bytes=os.urandom,
    )


def _matched(network: nn.Module, seen: torch.Tensor, seed: int, steps: int) -> tuple[float, Array]:
    """(how well the gradients agree, the image): gradient descent on 1 - cosine, from noise."""
    generator = torch.Generator().manual_seed(seed)
    guess = torch.randn(1, 1, SIDE, SIDE, generator=generator, dtype=torch.float64).requires_grad_()
    optimiser = torch.optim.LBFGS(
        [guess], max_iter=steps, history_size=50, tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe"
    )
    target = torch.ones(1, 1, dtype=torch.float64)

    def distance() -> torch.Tensor:
        loss = _loss(network(guess), target).sum()
        gradients = torch.autograd.grad(loss, list(network.parameters()), create_graph=True)
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        return 1 - cosine_similarity(flat, seen, dim=0)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        value = distance()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return 1 - float(distance().detach()), guess.detach().numpy().reshape(SIDE, SIDE).astype(np.float64)


def _loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return binary_cross_entropy_with_logits(outputs, targets, reduction="none")[:, 0]


def _image(seed: int) -> Array:
    """Smooth blobs, shape (8, 8): as structured as an organ, and nobody's."""
    chance = np.random.default_rng(seed)
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    blobs = [
        chance.normal() * np.exp(-((x - chance.uniform(0, SIDE)) ** 2 + (y - chance.uniform(0, SIDE)) ** 2) / 6)
        for _ in range(4)
    ]
    return np.asarray(np.sum(blobs, axis=0))


def _alone(patients: Examples, number: int) -> Examples:
    one = patients.take(np.array([number]))
    return Examples(one.features[:1].reshape(1, -1), (one.targets[:1, -1:] > 0).astype(np.float64), one.patient[:1], 1)


def _cosine(one: Array, other: Array) -> float:
    length = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one.reshape(-1) @ other.reshape(-1)) / length if length else 0.0


def _centred(one: Array, other: Array) -> float:
    """Cosine of the deviations from the mean, which is the correlation of the pixels."""
    return _cosine(one - one.mean(), other - other.mean())
