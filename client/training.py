"""Local training: from the round's model to one hospital's new model.

Two loops. ``train_plain`` is mini-batch SGD in an order fixed by public numbers, for simulations without protection.
``train_private`` takes steps on Poisson samples with clipped, noised sums (``privacy/dpsgd``). Both interpret the
``LocalRule``; its terms are added after clipping and noise, so they depend on no patient of this site.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from wardround.privacy.dpsgd import private_gradient
from wardround.privacy.gradients import Array, Examples, GradientEngine, RandomBytes
from wardround.protocol.errors import WardroundError
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.messages import LocalRule
from wardround.protocol.parameters import Vector
from wardround.protocol.plan import LocalTraining


class StepsMismatch(WardroundError):
    """The code took another number of steps than the ledger was charged for. Nothing may leave the site."""


@dataclass(slots=True)
class StepCounter:
    """Counts the steps that moved the weights, where they are moved: independent of the loop that asks for them."""

    taken: int = 0

    def check(self, charged: int) -> None:
        """Raise StepsMismatch unless exactly ``charged`` steps were taken."""
        if self.taken != charged:
            raise StepsMismatch(
                f"{self.taken} steps were taken, but the ledger was charged for {charged}",
                "this is a defect: stop the study at this site and report it",
            )


def train_private(
    engine: GradientEngine,
    model: Vector,
    patients: Examples,
    rule: LocalRule,
    event: PoissonGaussian,
    clip_norm: float,
    random_bytes: RandomBytes,
    counter: StepCounter,
    before_step: Callable[[], None] = lambda: None,
) -> Vector:
    """``event.steps`` steps of DP-SGD from ``model``; returns the new model, shape (d,).

    Each step: Poisson sample, clipped sum, noise, divided by the declared q N. ``counter`` is compared with the charge
    before the caller gets a result. What ``before_step`` raises ends the work, and nothing comes out of it.

    Raises:
        StepsMismatch: the steps taken are not the steps charged.
    """
    start = model.astype(np.float64)
    weights = start.copy()

    for _ in range(event.steps):
        before_step()
        gradient = private_gradient(
            engine,
            weights,
            patients,
            clip_norm=clip_norm,
            noise_multiplier=event.noise_multiplier,
            sampling_probability=event.sampling_probability,
            declared_patients=event.declared_patients,
            random_bytes=random_bytes,
        )
        _descend(weights, gradient, start, rule, counter)
    counter.check(event.steps)
    return single(weights)


def train_plain(
    engine: GradientEngine,
    model: Vector,
    patients: Examples,
    rule: LocalRule,
    local: LocalTraining,
    seed: bytes,
    before_step: Callable[[], None] = lambda: None,
    begin: Vector | None = None,
) -> Vector:
    """Mini-batch SGD without protection: ``local.steps`` steps or ``local.epochs`` epochs; returns the new model.

    It starts at ``begin``, where that is given; ``model`` is what the proximal term pulls to.

    The order of patients is a function of ``seed`` alone. Batches run through a fresh shuffle in each pass; the last
    batch of a pass may be smaller.
    """
    start = model.astype(np.float64)
    weights = start.copy() if begin is None else begin.astype(np.float64)
    counter = StepCounter()
    for batch in _batches(patients, local, seed):
        before_step()
        gradient = engine.gradient_sum(weights, batch, None)
        gradient /= batch.patients
        _descend(weights, gradient, start, rule, counter)
    return single(weights)


def steps_of(local: LocalTraining, patients: int) -> int:
    """The steps that a round takes at a site with so many patients."""
    if local.steps is not None:
        return local.steps
    return (local.epochs or 1) * -(-patients // min(local.batch_size or patients, patients))


def shuffle_seed(study_seed: int, site: str, round_number: int) -> bytes:
    """The public seed of a site's batch order in one round."""
    return sha256(f"wardround/shuffle\x00{study_seed}\x00{site}\x00{round_number}".encode()).digest()


def single(weights: Array) -> Vector:
    """Rounded to float32; a model that ran away becomes infinite, which the round then names."""
    with np.errstate(over="ignore"):
        return weights.astype(np.float32)


def _descend(weights: Array, gradient: Array, start: Array, rule: LocalRule, counter: StepCounter) -> None:
    """One step in place, counted."""
    descend(weights, gradient, start, rule, counter.taken)
    counter.taken += 1


def descend(weights: Array, gradient: Array, start: Array, rule: LocalRule, taken: int) -> None:
    """The step after ``taken`` others, in place: w <- w - lr (g + mu (w - w_round) + linear term).

    Parameters are on the last axis; ``gradient`` is spent.
    """
    if rule.proximal_mu:
        gradient += rule.proximal_mu * (weights - start)
    if rule.linear_term is not None:
        gradient += rule.linear_term
    _keep_still(gradient, rule, taken)
    gradient *= rule.learning_rate
    weights -= gradient


def _keep_still(gradient: Array, rule: LocalRule, taken: int) -> None:
    """Zero, in place, what does not move in the step after ``taken`` others; coordinates are on the last axis."""
    if not rule.head_steps:
        return
    if taken >= rule.head_steps:
        for first, end in rule.head:
            gradient[..., first:end] = 0.0
        return
    behind = 0
    for first, end in (*rule.head, (gradient.shape[-1], gradient.shape[-1])):
        gradient[..., behind:first] = 0.0
        behind = end


def _batches(patients: Examples, local: LocalTraining, seed: bytes) -> Iterator[Examples]:
    size = min(local.batch_size or patients.patients, patients.patients)
    per_pass = -(-patients.patients // size)
    left = steps_of(local, patients.patients)
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(seed, "big")))
    while left > 0:
        order = generator.permutation(patients.patients)
        if patients.one_record_each:
            yield from _slices(patients, order, size, left)
        else:
            for first in range(0, min(per_pass, left) * size, size):
                yield patients.take(np.sort(order[first : first + size]))
        left -= per_pass


def _slices(patients: Examples, order: np.ndarray, size: int, batches: int) -> Iterator[Examples]:
    """Batches as views of one shuffled copy: one gather a pass instead of one a batch."""
    features, targets, numbers = patients.features[order], patients.targets[order], np.arange(size)
    for first in range(0, min(len(order), batches * size), size):
        chosen = slice(first, first + size)
        count = len(targets[chosen])
        yield Examples(features[chosen], targets[chosen], numbers[:count], count)
