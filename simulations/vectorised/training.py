"""Local training of many hospitals at once: the two loops of ``client.training``, with one more axis.

Given the same random bytes both give the same models, but for the order in which a few sums are formed.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar

import numpy as np

from wardround.client.training import StepsMismatch, descend, single
from wardround.privacy.gradients import Array
from wardround.privacy.mechanisms import noisy_sums
from wardround.privacy.sampling import COIN_BYTES, chosen_of
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.messages import LocalRule
from wardround.protocol.parameters import Vector
from wardround.protocol.plan import LocalTraining
from wardround.simulations.vectorised.draws import Draw
from wardround.simulations.vectorised.networks import Networks
from wardround.simulations.vectorised.stack import Group, Rows, Stack

Part = TypeVar("Part")

_NOISE_AT_ONCE: Final = 1 << 18
"""Numbers of noise that are drawn in one go: two megabytes of random bytes."""


@dataclass(frozen=True, slots=True)
class Many:
    """What is trained: the networks and the patients of all sites. Sites are numbered 0 .. S - 1.

    ``pool``: threads that share the groups of a step; no sum crosses a group, so they change no bit.
    """

    networks: Networks
    stack: Stack
    pool: Executor | None = None

    @property
    def sites(self) -> int:
        return len(self.stack.patients)

    def each(self, work: Callable[[Part], None], parts: Iterable[Part]) -> None:
        """``work`` on all ``parts``, which touch different sites."""
        for _ in map(work, parts) if self.pool is None else self.pool.map(work, parts):
            pass


@dataclass(frozen=True, slots=True)
class Own:
    """What differs from site to site: where each begins (S, d), and its linear term (S, d). None: as all others."""

    begins: Vector | None = None
    linear: Vector | None = None

    def begin(self, start: Array, sites: int) -> Array:
        return np.repeat(start[None], sites, axis=0) if self.begins is None else self.begins.astype(np.float64)

    def rule(self, rule: LocalRule, sites: Rows) -> LocalRule:
        """The rule of ``sites``, a linear term for each."""
        return rule if self.linear is None else replace(rule, linear_term=self.linear[sites])


def train_plain(
    many: Many,
    model: Vector,
    rule: LocalRule,
    local: LocalTraining,
    seeds: Sequence[bytes],
    own: Own | None = None,
) -> Vector:
    """Mini-batch SGD of every site from ``model`` (d,); returns their models (S, d). ``seeds``: one for each site."""
    own = Own() if own is None else own
    start = model.astype(np.float64)
    weights = own.begin(start, many.sites)
    for taken, (sites, rows, counts) in enumerate(_steps(many.stack, local, seeds)):
        step = partial(_plain_step, many, weights, start, rule, own, taken)
        many.each(step, many.stack.groups(sites, rows, counts))
    return single(weights)


def _plain_step(many: Many, weights: Array, start: Array, rule: LocalRule, own: Own, taken: int, group: Group) -> None:
    """One step of the sites of a group, in place of their ``weights``."""
    batch, these = many.stack.load(group), weights[group.sites]
    gradient = many.networks.gradient_sums(these, batch.features, batch.targets, batch.counts, None)
    gradient /= batch.counts[:, None]
    descend(these, gradient, start, own.rule(rule, group.sites), taken)
    weights[group.sites] = these


def train_private(
    many: Many,
    model: Vector,
    rule: LocalRule,
    events: Sequence[PoissonGaussian],
    clip_norm: float,
    draw: Draw,
    own: Own | None = None,
) -> Vector:
    """DP-SGD of every site from ``model`` (d,), each as its event says; returns their models (S, d).

    All events have the same number of steps, noise and sampling probability; declared patients differ.

    Raises:
        StepsMismatch: the steps taken are not the steps charged.
    """
    event, all_sites = events[0], np.arange(many.sites)
    q, patients = event.sampling_probability, many.stack.patients
    expected = q * np.array([one.declared_patients for one in events], np.float64)[:, None]
    own = Own() if own is None else own
    start, rule = model.astype(np.float64), own.rule(rule, all_sites)
    weights = own.begin(start, many.sites)
    taken = np.zeros(many.sites, np.int64)
    for step in range(event.steps):
        rows = chosen_of(draw(all_sites, COIN_BYTES * patients), q) if q < 1.0 else np.arange(many.stack.none)
        counts = np.diff(np.searchsorted(rows, [*many.stack.first, many.stack.none]))
        gradient = np.zeros_like(weights)
        many.each(partial(_clipped, many, weights, gradient, clip_norm), many.stack.groups(all_sites, rows, counts))
        add_noise = partial(_noised, gradient, clip_norm, event.noise_multiplier)
        many.each(add_noise, _noise_bytes(many, draw))
        gradient /= expected
        descend(weights, gradient, start, rule, step)
        taken += 1
    if not (taken == np.array([one.steps for one in events])).all():
        raise StepsMismatch("the steps taken are not the steps charged", "this is a defect: report it")
    return single(weights)


def _clipped(many: Many, weights: Array, gradient: Array, clip_norm: float, group: Group) -> None:
    """Put the clipped sums of the sites of a group in their place."""
    batch = many.stack.load(group)
    gradient[group.sites] = many.networks.gradient_sums(
        weights[group.sites], batch.features, batch.targets, batch.counts, clip_norm
    )


def _noise_bytes(many: Many, draw: Draw) -> Iterator[tuple[slice, bytes]]:
    """For blocks of sites, in order, the bytes of their noise: 16 for every two parameters."""
    each, at_once = 16 * ((many.networks.size + 1) // 2), max(1, _NOISE_AT_ONCE // many.networks.size)
    for first in range(0, many.sites, at_once):
        sites = np.arange(first, min(first + at_once, many.sites))
        yield slice(first, first + len(sites)), draw(sites, np.full(len(sites), each, np.int64))


def _noised(gradient: Array, clip_norm: float, noise_multiplier: float, drawn: tuple[slice, bytes]) -> None:
    """Add the noise of a block of sites to their sums."""
    sites, noise = drawn
    gradient[sites] = noisy_sums(gradient[sites], clip_norm, noise_multiplier, noise)


def _steps(stack: Stack, local: LocalTraining, seeds: Sequence[bytes]) -> Iterator[tuple[Rows, Rows, Rows]]:
    """Per step: the sites that take it, the rows of their batches, and how many rows each has."""
    patients = stack.patients
    size = np.minimum(local.batch_size or int(patients.max()), patients)
    per_pass = -(-patients // size)
    steps = np.full(len(patients), local.steps) if local.steps is not None else (local.epochs or 1) * per_pass
    order = _Orders(stack, seeds)
    for step in range(int(steps.max())):
        sites = np.flatnonzero(steps > step)
        place = step % per_pass[sites]
        order.shuffle(sites[place == 0])
        begin = place * size[sites]
        counts = np.minimum(size[sites], patients[sites] - begin)
        starts = np.cumsum(counts) - counts
        within = np.arange(int(counts.sum())) - np.repeat(starts, counts)
        yield sites, order.rows[np.repeat(stack.first[sites] + begin, counts) + within], counts


class _Orders:
    """Each site's order of patients in its present pass, as ``client.training`` shuffles them."""

    def __init__(self, stack: Stack, seeds: Sequence[bytes]) -> None:
        self._stack = stack
        self._generators = [np.random.Generator(np.random.PCG64(int.from_bytes(seed, "big"))) for seed in seeds]
        self.rows = np.arange(stack.none)

    def shuffle(self, sites: Rows) -> None:
        """Begin a new pass at these sites."""
        for site in sites:
            first, count = self._stack.first[site], self._stack.patients[site]
            self.rows[first : first + count] = first + self._generators[site].permutation(count)
