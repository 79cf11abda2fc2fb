"""Asking before spending: what a plan costs each site, what would fit, and where its noise weighs much.

Pure functions of a plan, a cap, and what is left of a domain. Every epsilon and noise multiplier comes from
``accounting``, every amount of budget from ``budget``; nothing here rounds in the asker's favour. A round may be tried
again after a crash or a void round, and each attempt is charged, so what fits is counted at rounds x attempts.

A plan has two limits: its own epsilon, which the accountant measures, and what is left in each site's domain, which the
filter guards. The filter is the more cautious one; a plan must keep both.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final, Literal

from wardround.privacy.accounting import (
    LARGEST_NOISE_MULTIPLIER,
    SIGMA_STEPS,
    calibrate_noise_multiplier,
    epsilon,
    within,
)
from wardround.privacy.books import Domain
from wardround.privacy.budget import allowance, cost, delta_for, fixed_order
from wardround.privacy.rdp import rdp_epsilon
from wardround.protocol.errors import UsageError
from wardround.protocol.events import DpEvent, PoissonGaussian
from wardround.protocol.plan import PrivacyMode, PrivacyTerms, StudyPlan

LEAST_BATCH: Final = 64
"""Expected patients in a step, q N, below which a site's noise weighs much."""

LEAST_LOCAL_PATIENTS: Final = 200
"""Patients, N, below which it does in LOCAL when epsilon is below ``_PLENTY``."""

_PLENTY: Final = 8.0

MOST_ROUNDS: Final = 10_000
"""A plan has no more rounds than that."""


@dataclass(frozen=True, slots=True)
class CurveCost:
    """What a plan costs one site on one of its curves. Unit: one patient; adjacency: add or remove one."""

    site: str
    delta: float
    """The plan's; epsilons are at it."""
    epsilon: float
    """Of every round run once."""
    epsilon_at_most: float
    """Of every round run ``attempts`` times."""
    epsilon_cap: float
    """The domain's, at ``domain_delta``."""
    domain_delta: float
    domain_order: int
    domain_units: int
    """What the domain may spend in its life, in ``budget.UNITS``."""
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


@dataclass(frozen=True, slots=True)
class SiteCost(CurveCost):
    """The cost against everyone, whoever colludes: of the site's own noise alone."""

    declared_patients: int
    expected_batch: float
    """q N, patients expected in a step."""
    noise_on_mean: float
    """Standard deviation of the noise on each coordinate of the site's mean gradient, sigma C / (q N)."""
    small_batch: bool


@dataclass(frozen=True, slots=True)
class Budget:
    """What a plan meets at a site: the filter of the domain there, in ``budget.UNITS``."""

    epsilon_cap: float
    delta: float
    order: int
    allowance: int
    left: int

    @classmethod
    def fresh(cls, epsilon_cap: float, delta: float) -> "Budget":
        """A domain that has spent nothing. Raises UsageError where the cap leaves nothing to spend."""
        order = fixed_order(epsilon_cap, delta)
        room = allowance(epsilon_cap, delta, order)
        return cls(epsilon_cap, delta, order, room, room)

    @classmethod
    def of(cls, domain: Domain) -> "Budget":
        """What a ledger says is left; nothing in a closed domain. Raises UsageError for one without a budget."""
        fact, room = domain.fact, domain.allowance
        if room is None or fact.epsilon_cap is None or fact.order is None:
            raise UsageError(
                f"the data domain '{fact.domain}' is a simulation's and has no budget", "name a hospital's ledger"
            )
        left = 0 if domain.closed else max(0, room - domain.spent)
        return cls(fact.epsilon_cap, fact.delta, fact.order, room, left)


@dataclass(frozen=True, slots=True)
class Noise:
    """The noise multiplier that a target needs, rounded up to hundredths; None: none up to 1000 is enough.

    It keeps both limits: ``for_epsilon`` the target by the accountant, ``for_budget`` what is left at every site by the
    filter. ``binds`` names the one that asks for more.
    """

    target: float
    noise_multiplier: float | None
    for_epsilon: float | None
    for_budget: float | None
    binds: Literal["epsilon", "budget"]
    tightest_site: str
    """The site whose budget asks for the most noise."""


def budgets_for(plan: StudyPlan, epsilon_cap: float, domains: Mapping[str, Domain] | None = None) -> dict[str, Budget]:
    """By site: the budget of its domain in ``domains``, or a fresh one of ``epsilon_cap`` where that has none."""
    known = domains or {}
    if unknown := sorted(known.keys() - {p.site for p in plan.participants}):
        raise UsageError(
            f"'{unknown[0]}' takes no part in this plan", "give ledgers of the plan's own sites, or add the site"
        )
    return {
        p.site: Budget.of(known[p.site])
        if p.site in known
        else Budget.fresh(epsilon_cap, delta_for(p.declared_patients))
        for p in plan.participants
    }


def site_costs(
    plan: StudyPlan, epsilon_cap: float, *, attempts: int = 1, domains: Mapping[str, Domain] | None = None
) -> list[SiteCost]:
    """The cost of ``plan`` at each of its sites.

    ``domains`` is by site, as its ledger says; a site that it lacks has a fresh domain with a cap of ``epsilon_cap``.
    Raises UsageError for a plan without differential privacy.
    """
    events = {participant.site: gaussian(plan.round_event(participant.site)) for participant in plan.participants}
    curves = curve_costs(plan, events, budgets_for(plan, epsilon_cap, domains), attempts)
    found = []
    for participant, curve in zip(plan.participants, curves, strict=True):
        event, count = events[participant.site], participant.declared_patients
        batch = event.sampling_probability * count
        found.append(
            SiteCost(
                **{field.name: getattr(curve, field.name) for field in fields(curve)},
                declared_patients=count,
                expected_batch=batch,
                noise_on_mean=event.noise_multiplier * plan.privacy.clip_norm / batch,
                small_batch=is_small(plan.privacy, count),
            )
        )
    return found


def curve_costs(
    plan: StudyPlan, events: Mapping[str, PoissonGaussian], budgets: Mapping[str, Budget], attempts: int = 1
) -> list[CurveCost]:
    """The cost of ``plan`` at each of its sites, where one round is the site's event of ``events`` on its budget.

    ``events`` differ in their declared patients only, which no epsilon depends on.
    """
    _check_attempts(attempts)
    delta = plan_delta(plan)
    once, at_most = (epsilon([next(iter(events.values()))] * plan.charges * times, delta) for times in (1, attempts))
    found = []
    for participant in plan.participants:
        event, budget = events[participant.site], budgets[participant.site]
        # The ledger charges each attempt of each round by itself, rounded up by itself.
        needed = plan.charges * attempts * cost(event, budget.order)
        found.append(
            CurveCost(
                site=participant.site,
                delta=delta,
                epsilon=once,
                epsilon_at_most=at_most,
                epsilon_cap=budget.epsilon_cap,
                domain_delta=budget.delta,
                domain_order=budget.order,
                domain_units=budget.allowance,
                left_units=budget.left,
                needed_units=needed,
                share=needed / budget.allowance,
                fits=needed <= budget.left,
                more_studies=max(0, budget.left // needed - 1),
                rounds_in_domain=rounds_that_fit(event, budget.left, budget.order, attempts),
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
        bound, (kept, value) = rdp_epsilon(total(guess), delta), within(total(guess), limit, delta)
        enough, too_many = (guess, too_many) if kept else (enough, guess)
        ratio = value / bound if 0 < value <= bound < math.inf else 1.0
    return enough


def noise_for(
    plan: StudyPlan,
    targets: Sequence[float],
    epsilon_cap: float,
    *,
    attempts: int = 1,
    domains: Mapping[str, Domain] | None = None,
) -> list[Noise]:
    """For each target epsilon the smallest noise multiplier with which rounds x attempts cost at most that, and fit."""
    _check_attempts(attempts)
    blocks = plan.charges * attempts
    budgets = budgets_for(plan, epsilon_cap, domains)
    events = {site: gaussian(plan.round_event(site)) for site in budgets}
    tightest, for_budget = tightest_budget(events, budgets, blocks)
    event = events[tightest]
    found = []
    for target in targets:
        try:
            for_epsilon: float | None = calibrate_noise_multiplier(
                target, plan_delta(plan), event.sampling_probability, blocks * event.steps
            )
        except UsageError:
            for_epsilon = None
        both = None if for_epsilon is None or for_budget is None else max(for_epsilon, for_budget)
        binds: Literal["epsilon", "budget"] = "epsilon"
        if (for_budget or math.inf) > (for_epsilon or math.inf):
            binds = "budget"
        found.append(Noise(target, both, for_epsilon, for_budget, binds, tightest))
    return found


def tightest_budget(
    events: Mapping[str, PoissonGaussian], budgets: Mapping[str, Budget], blocks: int
) -> tuple[str, float | None]:
    """The site whose budget asks for the most noise so that ``blocks`` of its event fit, and that noise multiplier."""
    fitting = {site: noise_that_fits(events[site], budget, blocks) for site, budget in budgets.items()}
    tightest = max(fitting, key=lambda site: fitting[site] or math.inf)
    return tightest, fitting[tightest]


def noise_that_fits(event: PoissonGaussian, budget: Budget, blocks: int) -> float | None:
    """The smallest noise multiplier, in steps of 0.01, with which ``blocks`` of ``event`` fit; None: none does."""

    def fits(index: int) -> bool:
        try:
            price = cost(event.model_copy(update={"noise_multiplier": index / SIGMA_STEPS}), budget.order)
        except UsageError:  # beyond any budget
            return False
        return blocks * price <= budget.left

    too_small, enough = 0, round(LARGEST_NOISE_MULTIPLIER * SIGMA_STEPS)
    if not fits(enough):
        return None
    while enough - too_small > 1:
        middle = (too_small + enough) // 2
        too_small, enough = (too_small, middle) if fits(middle) else (middle, enough)
    return enough / SIGMA_STEPS


def is_small(terms: PrivacyTerms, patients: int) -> bool:
    """Whether a site of ``patients`` (declared) is small: q N < 64, or N < 200 in LOCAL below epsilon 8.

    Never in DIST, where the noise weighs on the sum over the sites.
    """
    if terms.mode is PrivacyMode.DIST:
        return False
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
        "much there; distributed noise (privacy=dist) is made for such sites"
    ]


def gaussian(event: DpEvent) -> PoissonGaussian:
    """``event``, where it has an epsilon. Raises UsageError for any other kind."""
    if not isinstance(event, PoissonGaussian):
        raise UsageError(
            "a plan without differential privacy has no epsilon, and no budget holds it",
            "plan with privacy=local",
        )
    return event


def plan_delta(plan: StudyPlan) -> float:
    """The delta of ``plan``. Raises UsageError where it names none."""
    if plan.privacy.delta is None:
        raise UsageError("the plan names no delta", "write privacy.delta=auto")
    return plan.privacy.delta


def _check_attempts(attempts: int) -> None:
    if not 1 <= attempts <= 1000:
        raise UsageError(f"a round cannot have {attempts} attempts", "give a number from 1 to 1000")
