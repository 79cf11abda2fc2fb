"""The audit of epsilon_consortium: the coordinator with c hospitals reads every secure sum, and guesses who was in.

What colluding hospitals put into a sum they know to the last integer, their shares of noise included, so the attacker
takes it away and keeps the sum of h honest hospitals with h shares of noise. It knows all of their patients but the
canaries, which coins put in or out at one of them. Each canary has a coordinate of its own and a gradient that is
clipped to length C along it, so coordinates are independent runs of the same question about one patient, and their
two rates bound epsilon (Kairouz, Oh and Viswanath 2015; ``bounds.from_rates``). The attacker's score is the likelihood
ratio of every step, the best there is against a sampled Gaussian (Neyman and Pearson 1933).

Sampling, noise, lattice, counting of steps, quantising and the ring are the hospitals' own code. Not attacked here are
the gradients of a model, which ``canaries`` does, and the masks, which the tests of ``privacy.secagg`` do.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wardround.client.training import StepCounter, train_private
from wardround.privacy.accounting import epsilon
from wardround.privacy.clipping import clip_factors
from wardround.privacy.gradients import Array, Examples
from wardround.privacy.secagg.quantize import Quantizer
from wardround.privacy.secagg.ring import SMALL
from wardround.protocol.errors import UsageError
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.messages import LocalRule
from wardround.protocol.parameters import Vector
from wardround.protocol.plan import Claim, StudyPlan
from wardround.simulations.attacks.bounds import from_rates

CANARIES: Final = 400_000
CALIBRATED: Final = 0.25
"""The share of canaries on which the threshold is set; the others are counted."""

ALARMS: Final = 3e-4
"""False alarms per canary that was out, at which the threshold is set: fixed before anything is seen."""

_LENGTH: Final = 10.0
"""A canary's gradient before clipping, in units of C."""

_RANGE: Final = 16.0
"""No update is larger: the default of ``privacy.update_range``."""

Train = Callable[..., Vector]


@dataclass(frozen=True, slots=True)
class ConsortiumAudit:
    """What the attacker found. ``epsilon`` is a lower bound at ``delta`` with 95 % confidence, of one run.

    ``upper`` is the accounted epsilon_consortium of every round run once.
    """

    honest: int
    members: int
    hits: int
    others: int
    alarms: int
    delta: float
    epsilon: float
    upper: float

    @property
    def contradicted(self) -> bool:
        return self.epsilon > self.upper


@dataclass(frozen=True, slots=True)
class Coordinates:
    """A gradient engine: a patient's gradient is ``features[1]`` along the coordinate ``features[0]``, clipped to C."""

    size: int

    def gradient_sum(self, parameters: Array, examples: Examples, clip_norm: float | None) -> Array:
        where, pull = examples.features[:, 0].astype(np.int64), examples.features[:, 1]
        factors = 1.0 if clip_norm is None else clip_factors(pull**2, clip_norm)
        return np.bincount(where, weights=pull * factors, minlength=self.size).astype(np.float64)

    def outputs(self, parameters: Array, features: npt.NDArray[Any]) -> Array:
        return np.asarray(parameters[features[:, 0].astype(np.int64), None] * features[:, 1:], np.float64)

    def mean_loss(self, parameters: Array, examples: Examples) -> float:
        return float(self.outputs(parameters, examples.features).mean())


def consortium_audit(
    share: PoissonGaussian,
    *,
    honest: int,
    rounds: int,
    clip_norm: float,
    delta: float,
    canaries: int = CANARIES,
    false_alarms: float = ALARMS,
    trains: Sequence[Train] = (),
) -> ConsortiumAudit:
    """Audit ``rounds`` secure sums of one step with the noise of ``honest`` shares; ``share`` is the event of one site.

    ``trains`` are what the honest sites run, the first at the site with the canaries; by default all train as they
    should.
    """
    coins = np.frombuffer(os.urandom(canaries), np.uint8) % 2 == 1
    scores = np.zeros(canaries)
    for _ in range(rounds):
        seen = honest_sum(_sites(coins, honest, clip_norm), share, clip_norm, trains or (train_private,) * honest)
        scores += _log_likelihood_ratio(seen / clip_norm, share, honest)
    first = round(canaries * CALIBRATED)
    threshold = np.quantile(scores[:first][~coins[:first]], 1 - false_alarms)
    called, members = scores[first:] > threshold, coins[first:]
    hits, alarms = int(called[members].sum()), int(called[~members].sum())
    count = int(members.sum())
    others = len(members) - count
    together = share.model_copy(update={"noise_multiplier": share.noise_multiplier * math.sqrt(honest)})
    return ConsortiumAudit(
        honest=honest,
        members=count,
        hits=hits,
        others=others,
        alarms=alarms,
        delta=delta,
        epsilon=from_rates(hits, count, alarms, others, delta),
        upper=epsilon([together] * rounds, delta),
    )


def audit_of(plan: StudyPlan, canaries: int = CANARIES) -> ConsortiumAudit:
    """``consortium_audit`` of the terms of ``plan``. Raises UsageError where it claims no epsilon_consortium."""
    event, delta = plan.round_event(plan.participants[0].site), plan.privacy.delta
    if plan.privacy.claim is not Claim.EPSILON_BOTH or not isinstance(event, PoissonGaussian) or delta is None:
        raise UsageError("this study claims no epsilon_consortium that an audit could refute", "audit privacy=dist")
    return consortium_audit(
        event, honest=plan.honest_sites, rounds=plan.rounds, clip_norm=plan.privacy.clip_norm, delta=delta,
        canaries=canaries,
    )  # fmt: skip


def honest_sum(
    sites: Sequence[tuple[Coordinates, Examples]], share: PoissonGaussian, clip_norm: float, trains: Sequence[Train]
) -> Array:
    """Shape (d,): the sum over the honest ``sites`` of clipped gradients and noise, as one secure sum tells it."""
    patients = share.declared_patients
    size = sites[0][0].size
    quantizer = Quantizer(SMALL, len(sites) + 1, ((size, _RANGE * patients),))
    total = np.zeros(size, SMALL.dtype)
    for (engine, examples), train in zip(sites, trains, strict=True):
        start = np.zeros(size, np.float32)
        model = train(engine, start, examples, LocalRule(1.0), share, clip_norm, os.urandom, StepCounter())
        update = patients * (model.astype(np.float64) - start)
        total += SMALL.encode(quantizer.quantize(update, os.urandom(32)))
    # A site moves against its gradient, by 1 / (q N) of the sum.
    return -share.sampling_probability * quantizer.dequantize(SMALL.decode(total))


def _sites(coins: npt.NDArray[np.bool_], honest: int, clip_norm: float) -> list[tuple[Coordinates, Examples]]:
    """The site with the canaries whose coin says in, and ``honest`` - 1 sites of which the attacker knows the rest."""
    engine, own = Coordinates(len(coins)), np.flatnonzero(coins)
    return [(engine, _patients(own, _LENGTH * clip_norm)), *[(engine, _patients(own[:1], 0.0))] * (honest - 1)]


def _patients(where: npt.NDArray[np.int64], pull: float) -> Examples:
    features = np.column_stack([where.astype(np.float64), np.full(len(where), pull)])
    return Examples(features, np.zeros((len(where), 1)), np.arange(len(where)), len(where))


def _log_likelihood_ratio(seen: Array, share: PoissonGaussian, honest: int) -> Array:
    """log (1 - q + q exp((2x - 1) / (2 s^2))) of each coordinate x, with s the noise of all h shares."""
    q, variance = share.sampling_probability, honest * share.noise_multiplier**2
    return np.asarray(np.logaddexp(math.log1p(-q) if q < 1 else -np.inf, math.log(q) + (2 * seen - 1) / (2 * variance)))
