"""Membership inference: was this patient in the training set? Asked with the model alone, and with shadow models.

Loss threshold (Yeom et al. 2018, arXiv 1709.01604): members have a lower loss. LiRA (Carlini et al. 2022, arXiv
2112.03570, the online attack): for each target, shadow models trained with and without it give two Gaussians of its
logit loss, and the likelihood ratio ranks the targets. Targets are real patients with outcomes tossed anew, so that
the only way to know an outcome is to have been trained on it; half of them, by coins, are members.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from wardround.client.connectors import Cohort
from wardround.client.tasks.classification import Classification
from wardround.privacy.gradients import Array, Examples
from wardround.protocol.tasks import TabularClassification
from wardround.simulations.attacks.bounds import from_rates

SHADOWS: Final = 32
HIDDEN: Final = (64,)
"""A model that is large enough to learn by heart what it is given: without protection it must be caught."""

Train = Callable[[Classification, Examples], Array]
"""Trains the attacked model on these patients; the hospital's own loop, with or without protection."""


@dataclass(frozen=True, slots=True)
class Attack:
    """How well members are told apart. ``found_at_1`` and ``found_at_10``: share of members called so with at most 1 %
    and 10 % of the others called so, too. ``epsilon``: the lower bound at the study's delta with 95 % confidence, from
    a threshold chosen on one half of the targets and counted on the other, as if each target were a run of its own."""

    name: str
    auc: float
    found_at_1: float
    found_at_10: float
    epsilon: float


def attack_membership(cohort: Cohort, train: Train, delta: float, shadows: int = SHADOWS) -> list[Attack]:
    """Both attacks on one model trained by ``train`` on a coin's half of the site's training patients."""
    targets = _targets(cohort.train)
    task = Classification(TabularClassification(hidden=HIDDEN), targets.features.shape[1])
    coins = [np.frombuffer(os.urandom(targets.patients), np.uint8) % 2 == 1 for _ in range(shadows + 1)]
    losses = np.array([_losses(task, train(task, targets.take(np.flatnonzero(coin))), targets) for coin in coins])
    members, own = coins[0], losses[0]
    ratio = _likelihood_ratio(own, losses[1:], np.array(coins[1:]))
    return [_attack("loss threshold", -own, members, delta), _attack("LiRA", ratio, members, delta)]


def _targets(real: Examples) -> Examples:
    """The site's patients, one record each, with outcomes tossed by a fair coin."""
    first = np.searchsorted(real.patient, np.arange(real.patients))
    outcomes = (np.frombuffer(os.urandom(real.patients), np.uint8) % 2).astype(np.float64)
    features = real.features[first].reshape(real.patients, -1)
    return Examples(features, outcomes[:, None], np.arange(real.patients), real.patients)


def _losses(task: Classification, model: Array, targets: Examples) -> Array:
    """Shape (patients,): the logit of the wrong outcome, log(e^loss - 1); nearly Gaussian (LiRA, section IV)."""
    logits = task.engine.outputs(model.astype(np.float64), targets.features)[:, 0]
    return np.where(targets.targets[:, 0] > 0.5, -logits, logits)


def _likelihood_ratio(own: Array, shadows: Array, inside: "np.ndarray") -> Array:
    """log p(own | in) - log p(own | out): Gaussians, a mean for each target, one variance for all (few shadows)."""
    counts = np.maximum(inside.sum(axis=0), 1), np.maximum((~inside).sum(axis=0), 1)
    mean_in = (shadows * inside).sum(axis=0) / counts[0]
    mean_out = (shadows * ~inside).sum(axis=0) / counts[1]
    spread_in = np.sqrt((((shadows - mean_in) ** 2) * inside).sum() / inside.sum() + 1e-12)
    spread_out = np.sqrt((((shadows - mean_out) ** 2) * ~inside).sum() / (~inside).sum() + 1e-12)
    log_in = -0.5 * ((own - mean_in) / spread_in) ** 2 - np.log(spread_in)
    return np.asarray(log_in + 0.5 * ((own - mean_out) / spread_out) ** 2 + np.log(spread_out))


def _attack(name: str, scores: Array, members: "np.ndarray", delta: float) -> Attack:
    inside, outside = scores[members], scores[~members]
    auc = float((inside[:, None] > outside).mean() + 0.5 * (inside[:, None] == outside).mean())
    found_at_1, found_at_10 = (_found(inside, outside, rate) for rate in (0.01, 0.1))
    return Attack(name, auc, found_at_1, found_at_10, _lower_bound(scores, members, delta))


def _found(inside: Array, outside: Array, rate: float) -> float:
    """Share of ``inside`` above a threshold that at most ``rate`` of ``outside`` exceed; 99 others allow no alarm."""
    threshold = np.sort(outside)[::-1][int(rate * len(outside))]
    return float((inside > threshold).mean())


def _lower_bound(scores: Array, members: "np.ndarray", delta: float) -> float:
    first = np.arange(len(scores)) < len(scores) // 2
    thresholds = np.unique(scores[first])
    best = max(thresholds, key=lambda t: _counted(scores[first], members[first], t, delta))
    return _counted(scores[~first], members[~first], best, delta)


def _counted(scores: Array, members: "np.ndarray", threshold: float, delta: float) -> float:
    called = scores >= threshold
    return from_rates(
        int((called & members).sum()), int(members.sum()), int((called & ~members).sum()), int((~members).sum()), delta
    )
