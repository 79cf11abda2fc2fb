"""Asking before spending: what a plan costs each site, what would fit, and where its noise weighs much.

Pure functions of public numbers: a plan, a cap, what a domain has spent. Every epsilon and noise multiplier comes from
``accounting``, every amount of budget from ``budget``; nothing here rounds in the asker's favour. A round may be tried
again after a crash or a void round, and each attempt is charged, so what fits is counted at rounds x attempts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from wardround.privacy.accounting import calibrate_noise_multiplier, epsilon
from wardround.privacy.budget import allowance, cost, delta_for, fixed_order
from wardround.privacy.rdp import rdp_epsilon
from wardround.protocol.errors import UsageError
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.plan import PrivacyMode, PrivacyTerms, StudyPlan

LEAST_BATCH: Final = 64
"""Expected patients in a step, q N, below which a site's noise weighs much."""

LEAST_LOCAL_PATIENTS: Final = 200
"""Patients, N, below which it does in LOCAL when epsilon is below ``_PLENTY``."""

_PLENTY: Final = 8.0

MOST_ROUNDS: Final = 10_000
"""A plan has no more rounds than that."""


@dataclass(frozen=True, slots=True)
class SiteCost:
    """What a plan costs one site. Unit: one patient; adjacency: add or remove one; against everyone (LOCAL)."""

    site: str
    declared_patients: int
    expected_batch: float
    """q N, patients expected in a step."""
    noise_on_mean: float
    """Standard deviation of the noise on each coordinate of the mean gradient, sigma C / (q N)."""
    small_batch: bool
    delta: float
    """The plan's; epsilons are at it."""
    epsilon: float
    """Of every round run once."""
    epsilon_at_most: float
    """Of every round run ``attempts`` times."""
    domain_delta: float
    domain_order: int
    domain_units: int
    """What a domain of that cap may spend in its life, in ``budget.UNITS``."""
    left_units: int
    needed_units: int
    """Of rounds x attempts."""
    share: float
    """``needed_units`` of ``domain_units``; above 1 the plan can never be admitted."""
    fits: bool
    more_studies: int
    """How many more studies of this cost what is left holds after this one; 0 where this one does not fit."""
    rounds_in_domain: int
    """The most rounds that what is left of the domain holds."""


def site_costs(
    plan: StudyPlan, epsilon_cap: float, *, attempts: int = 1, spent: dict[str, int] | None = None
) -> list[SiteCost]:
    """The cost of ``plan`` at each of its sites, whose domains have a cap of ``epsilon_cap``.

    ``spent`` is by site, in units; a site that it lacks has spent nothing. Raises UsageError for a plan without
    differential privacy.
    """
    events = {participant.site: _event(plan, participant.site) for participant in plan.participants}
    _check_attempts(attempts)
    delta = _delta(plan)
    once, at_most = (epsilon([next(iter(events.values()))] * plan.rounds * times, delta) for times in (1, attempts))
    found = []
    for participant in plan.participants:
        event, count = events[participant.site], participant.declared_patients
        batch = event.sampling_probability * count
        domain_delta = delta_for(count)
        order = fixed_order(epsilon_cap, domain_delta)
        room = allowance(epsilon_cap, domain_delta, order)
        left = room - (spent or {}).get(participant.site, 0)
        # The ledger charges each attempt of each round by itself, rounded up by itself.
        needed = plan.rounds * attempts * cost(event, order)
        found.append(
            SiteCost(
                site=participant.site,
                declared_patients=count,
                expected_batch=batch,
                noise_on_mean=event.noise_multiplier * plan.privacy.clip_norm / batch,
                small_batch=is_small(plan.privacy, count),
                delta=delta,
                epsilon=once,
                epsilon_at_most=at_most,
                domain_delta=domain_delta,
                domain_order=order,
                domain_units=room,
                left_units=left,
                needed_units=needed,
                share=needed / room,
                fits=needed <= left,
                more_studies=max(0, left // needed - 1),
                rounds_in_domain=rounds_that_fit(event, left, order, attempts),
            )
        )
    return found


def rounds_that_fit(event: PoissonGaussian, left_units: int, order: int, attempts: int = 1) -> int:
    """The largest number of rounds, each charged ``attempts`` times, that ``left_units`` of a domain hold."""
    _check_attempts(attempts)
    return max(0, min(MOST_ROUNDS, left_units // (attempts * cost(event, order))))


def rounds_within_epsilon(event: PoissonGaussian, limit: float, delta: float, attempts: int = 1) -> int:
    """The largest number of rounds, each run ``attempts`` times, that cost at most ``limit`` at ``delta``.

    Found where the accountant's epsilon of that number is within the limit and of one more is not (or at
    ``MOST_ROUNDS``); the Renyi bound, whose shape is alike, says where to look.
    """
    _check_attempts(attempts)

    def total(rounds: int, steps: int = event.steps * attempts) -> list[PoissonGaussian]:
        return [event.model_copy(update={"steps": rounds * steps})]

    def predicted(ratio: float) -> int:
        low, high = enough, too_many
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if ratio * rdp_epsilon(total(middle), delta) <= limit else (low, middle)
        return low

    enough, too_many = 0, MOST_ROUNDS + 1
    enough = predicted(1.0)
    ratio = 0.95
    while too_many - enough > 1:
        # Once the prediction is known to be enough, its neighbour above is what remains to be excluded.
        guess = max(predicted(ratio), enough + 1)
        bound, value = rdp_epsilon(total(guess), delta), epsilon(total(guess), delta)
        enough, too_many = (guess, too_many) if value <= limit else (enough, guess)
        ratio = value / bound if 0 < value <= bound < math.inf else 1.0
    return enough


def noise_for(plan: StudyPlan, targets: Sequence[float], *, attempts: int = 1) -> dict[float, float | None]:
    """The smallest noise multiplier with which rounds x attempts of ``plan`` cost at most each target epsilon.

    None where none up to 1000 is enough.
    """
    _check_attempts(attempts)
    event = _event(plan, plan.participants[0].site)
    steps = plan.rounds * attempts * event.steps
    found: dict[float, float | None] = {}
    for target in targets:
        try:
            found[target] = calibrate_noise_multiplier(target, _delta(plan), event.sampling_probability, steps)
        except UsageError:
            found[target] = None
    return found


def is_small(terms: PrivacyTerms, patients: int) -> bool:
    """Whether a site of ``patients`` (declared) is small: q N < 64, or N < 200 in LOCAL below epsilon 8."""
    few = terms.mode is PrivacyMode.LOCAL and (terms.epsilon or _PLENTY) < _PLENTY and patients < LEAST_LOCAL_PATIENTS
    return few or (terms.sampling_probability or 1.0) * patients < LEAST_BATCH


def small_batches(plan: StudyPlan) -> list[str]:
    """The named warning of a plan that is legal but weak, or nothing: small sites under its noise."""
    if plan.privacy.sampling_probability is None:
        return []
    small = [p.site for p in plan.participants if is_small(plan.privacy, p.declared_patients)]
    if not small:
        return []
    limits = f"under {LEAST_BATCH} in a step, or under {LEAST_LOCAL_PATIENTS} in all"
    return [
        f"small batches: few patients are expected in a step at {', '.join(small)} ({limits}), so the noise weighs "
        "much there; distributed noise (privacy=dist, not in this version) is made for such sites"
    ]


def _event(plan: StudyPlan, site: str) -> PoissonGaussian:
    event = plan.round_event(site)
    if not isinstance(event, PoissonGaussian):
        raise UsageError(
            "a plan without differential privacy has no epsilon, and no budget holds it",
            "plan with privacy=local",
        )
    return event


def _delta(plan: StudyPlan) -> float:
    if plan.privacy.delta is None:
        raise UsageError("the plan names no delta", "write privacy.delta=auto")
    return plan.privacy.delta


def _check_attempts(attempts: int) -> None:
    if not 1 <= attempts <= 1000:
        raise UsageError(f"a round cannot have {attempts} attempts", "give a number from 1 to 1000")
