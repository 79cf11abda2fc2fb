"""The one-run audit: made-up patients, in or out by a coin, and a reader of every update who guesses which were in.

Each canary has a column of its own in a logistic regression and nothing else, so its clipped gradient is almost one
coordinate, of length C: the strongest that a patient can be (the Dirac canary of Nasr et al. 2023, arXiv 2302.07956).
The adversary is the coordinator at its worst: it sends the same model each round and reads every update. The code is
the hospitals' own: Poisson sampling, clipping, noise, the step counter (``client.training``).
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from wardround.client.connectors import Cohort
from wardround.client.tasks.classification import Classification
from wardround.client.training import StepCounter, train_private
from wardround.privacy.gradients import Array, Examples
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.messages import LocalRule
from wardround.protocol.parameters import Vector
from wardround.protocol.tasks import TabularClassification
from wardround.simulations.attacks.bounds import from_one_run

CANARIES: Final = 2000
GUESSED: Final = 0.1
"""The share of canaries that are guessed, half of them as in and half as out; fixed before anything is seen."""

_LENGTH: Final = 10.0
"""A canary's own feature: long enough that its gradient is clipped in every step of a round."""

_RATE: Final = 0.01
"""Small, so that the model hardly moves in a round and every gradient stays what it was at the start."""

Train = Callable[..., Vector]


@dataclass(frozen=True, slots=True)
class OneRun:
    """What the audit found. ``epsilon`` is a lower bound at ``delta`` with 95 % confidence."""

    canaries: int
    guesses: int
    correct: int
    delta: float
    epsilon: float


def one_run_audit(
    cohort: Cohort,
    event: PoissonGaussian,
    *,
    rounds: int,
    clip_norm: float,
    delta: float,
    canaries: int = CANARIES,
    train: Train = train_private,
) -> OneRun:
    """Audit ``rounds`` rounds of ``event`` on a site's training patients and the canaries that coins put among them."""
    coins = np.frombuffer(os.urandom(canaries), np.uint8) % 2 == 1
    scores = _scores(cohort, coins, event, rounds, clip_norm, train)
    order = np.argsort(scores)
    half = max(1, round(canaries * GUESSED / 2))
    correct = int(coins[order[-half:]].sum() + (~coins[order[:half]]).sum())
    return OneRun(canaries, 2 * half, correct, delta, from_one_run(correct, 2 * half, canaries, delta))


def _scores(
    cohort: Cohort, coins: "np.ndarray", event: PoissonGaussian, rounds: int, clip_norm: float, train: Train
) -> Array:
    """Shape (canaries,): how far each canary's own weight moved, summed over the rounds."""
    patients = _with_canaries(cohort.train, coins)
    width = patients.features.shape[1]
    task = Classification(TabularClassification(hidden=()), width)
    first, weights = width - len(coins), task.layout.tensors[0].name
    start, moved = np.zeros(task.engine.size, np.float32), np.zeros(len(coins))
    for _ in range(rounds):
        model = train(task.engine, start, patients, LocalRule(_RATE), event, clip_norm, os.urandom, StepCounter())
        moved += task.layout.split(model.astype(np.float64))[weights].reshape(-1)[first:]
    return moved


def _with_canaries(real: Examples, coins: "np.ndarray") -> Examples:
    """The site's patients and, behind them, the canaries whose coin says in; a column for each canary, in or out."""
    records, own = real.features.reshape(len(real.features), -1), np.eye(len(coins))[coins] * _LENGTH
    features = np.zeros((len(records) + len(own), records.shape[1] + len(coins)))
    features[: len(records), : records.shape[1]] = records
    features[len(records) :, records.shape[1] :] = own
    outcomes = (real.targets[:, -1:] > 0).astype(np.float64)
    targets = np.concatenate([outcomes, np.ones((len(own), 1))])
    numbers = np.concatenate([real.patient, np.arange(len(own)) + real.patients])
    return Examples(features, targets, numbers, real.patients + len(own))
