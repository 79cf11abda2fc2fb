"""What differential privacy costs a training step: ratios to plain SGD, measured side by side in one run.

    python benchmarks/dp_step.py [--quick] [--json FILE]

* plain: autograd and ``p -= rate * gradient`` on tensors, by hand: no optimiser object, no privacy;
* Opacus: ``GradSampleModule`` hooks with ``DPOptimizer`` over ``torch.optim.SGD``, as its users run it;
* ours: clipped sum, noise from the operating system's random bytes, lattice, declared mean, and the update.

All three take the same fixed batch (no sampling), with two threads. They take turns, so that what else the
machine does falls on all alike; the medians of the turns are compared, and only ratios travel to another
machine.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import nn
from torch.nn import functional

from wardround.privacy.closed_form import DenseEngine
from wardround.privacy.dpsgd import clipped_sum
from wardround.privacy.gradients import Array, Examples, GradientEngine
from wardround.privacy.mechanisms import noisy_sum
from wardround.privacy.per_sample import ModuleEngine
from wardround.protocol.tasks import TabularClassification

RATE, CLIP_NORM, NOISE_MULTIPLIER = 1e-3, 1.0, 1.0

Step = Callable[[], None]


class LogLoss:
    """The log loss of one logit."""

    couples_patients = False

    def loss_and_slope(self, outputs: Array, targets: Array) -> tuple[Array, Array]:
        loss = np.logaddexp(0.0, outputs) - targets * outputs
        return loss[:, 0], 1.0 / (1.0 + np.exp(-outputs)) - targets


class Block(nn.Module):
    """The basic block of He et al. 2016, with GroupNorm in place of BatchNorm."""

    def __init__(self, inputs: int, units: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, units, 3, stride, 1, bias=False)
        self.first_norm = nn.GroupNorm(8, units)
        self.second = nn.Conv2d(units, units, 3, 1, 1, bias=False)
        self.second_norm = nn.GroupNorm(8, units)
        self.short: nn.Module = nn.Identity()
        if stride != 1 or inputs != units:
            self.short = nn.Sequential(nn.Conv2d(inputs, units, 1, stride, bias=False), nn.GroupNorm(8, units))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.first_norm(self.first(images)))
        return torch.relu(self.second_norm(self.second(hidden)) + self.short(images))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(13, 32), nn.Tanh(), nn.Linear(32, 1))


def cnn() -> nn.Module:
    """105,866 parameters."""
    first = (nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    second = (nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    return nn.Sequential(*first, *second, nn.Linear(32 * 7 * 7, 64), nn.ReLU(), nn.Linear(64, 10))


def resnet() -> nn.Module:
    """Eleven million parameters: ResNet-18 with a 3 x 3 stem of stride 2 for small images."""
    stem = (nn.Conv2d(3, 64, 3, 2, 1, bias=False), nn.GroupNorm(8, 64), nn.ReLU())
    widths = (64, 64, 128, 256, 512)
    blocks: list[nn.Module] = []
    for index in range(4):
        blocks.append(Block(widths[index], widths[index + 1], 1 if index == 0 else 2))
        blocks.append(Block(widths[index + 1], widths[index + 1], 1))
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 2))


@dataclass(frozen=True, slots=True)
class Case:
    """A module, the shape of its features, the batch, how many classes (1: a logit), and turns to take."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    batch: int
    classes: int
    turns: int
    quick_turns: int
    target: float


CASES = (
    Case("MLP 13-32-1, batch 64", mlp, (13,), 64, 1, 2000, 400, 1.0),
    Case("CNN 28x28, batch 64", cnn, (1, 28, 28), 64, 10, 100, 25, 2.0),
    Case("ResNet18-GN 3x64x64, batch 16", resnet, (3, 64, 64), 16, 2, 15, 4, 2.5),
)


def record_loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    if outputs.shape[1] == 1:
        return functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")[:, 0]
    return functional.cross_entropy(outputs, targets[:, 0].long(), reduction="none")


def plain(module: nn.Module, features: torch.Tensor, targets: torch.Tensor) -> Step:
    parameters = list(module.parameters())

    def step() -> None:
        gradients = torch.autograd.grad(record_loss(module(features), targets).mean(), parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= RATE * gradient

    return step


def opacus(module: nn.Module, features: torch.Tensor, targets: torch.Tensor) -> Step:
    wrapped = GradSampleModule(module)
    optimizer = DPOptimizer(
        torch.optim.SGD(wrapped.parameters(), lr=RATE),
        noise_multiplier=NOISE_MULTIPLIER,
        max_grad_norm=CLIP_NORM,
        expected_batch_size=len(features),
    )

    def step() -> None:
        optimizer.zero_grad()
        record_loss(wrapped(features), targets).mean().backward()
        optimizer.step()

    return step


def ours(engine: GradientEngine, start: Array, features: torch.Tensor, targets: torch.Tensor) -> Step:
    count = len(features)
    everybody = np.arange(count)
    examples = Examples(features.numpy(), targets.double().numpy(), everybody, count)
    parameters = start.copy()

    def step() -> None:
        total = clipped_sum(engine, parameters, examples, everybody, CLIP_NORM)
        noised = noisy_sum(total, CLIP_NORM, NOISE_MULTIPLIER, os.urandom)
        noised *= -RATE / count
        np.add(parameters, noised, out=parameters)

    return step


def steps(case: Case) -> dict[str, Step]:
    features = torch.randn(case.batch, *case.shape)
    targets = torch.randint(0, max(case.classes, 2), (case.batch, 1)).float()
    module = case.build()
    start = torch.cat([p.detach().reshape(-1) for p in module.parameters()]).double().numpy()
    result = {
        "plain SGD": plain(case.build(), features, targets),
        "Opacus hooks": opacus(case.build(), features, targets),
        "ours, any module": ours(ModuleEngine(module, record_loss), start, features, targets),
    }
    if case.build is mlp:
        layout = TabularClassification(hidden=(32,)).layout(13)
        engine = DenseEngine(layout, (32,), "tanh", LogLoss())
        result["ours, closed form"] = ours(engine, start, features, targets)
    return result


def measure(turned: dict[str, Step], turns: int) -> dict[str, float]:
    """Median milliseconds of each step, after three turns that warm up."""
    times: dict[str, list[float]] = {name: [] for name in turned}
    for turn in range(-3, turns):
        for name, step in turned.items():
            began = time.perf_counter()
            step()
            if turn >= 0:
                times[name].append(1e3 * (time.perf_counter() - began))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="DP-SGD steps against plain SGD, in one run")
    parser.add_argument("--quick", action="store_true", help="fewer turns: under a minute")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(0)  # the data and the starting weights; noise is the operating system's
    rows = []
    print(f"{'case':32}{'step':20}{'ms':>10}{'x plain':>10}{'target':>10}")
    for case in CASES:
        medians = measure(steps(case), case.quick_turns if options.quick else case.turns)
        best = list(medians)[-1]
        for name, milliseconds in medians.items():
            ratio = milliseconds / medians["plain SGD"]
            target = f"{case.target:.1f}" if name == best else ""
            print(f"{case.name:32}{name:20}{milliseconds:10.2f}{ratio:10.2f}{target:>10}", flush=True)
            row = {"case": case.name, "metric": name, "value": milliseconds, "unit": "ms"}
            rows.append(row | {"against": "plain SGD", "ratio": ratio})
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
