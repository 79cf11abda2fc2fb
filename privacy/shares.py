"""The noise of one share: what each limit of a plan in mode dist asks of it, and which asks for the most.

Each of n sites adds a share with noise multiplier s. Against everyone a patient has the site's own share alone; against
the coordinator with c sites the shares of h = t - max(c, 1) sites, which together are noise of s sqrt(h). So a plan has
four limits: an epsilon on either curve, which the accountant measures, and the budget of either curve at each site,
which the filter guards. The largest share that any of them asks for keeps all four. Pure, like ``planner``; shares are
rounded up to thousandths.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from wardround.privacy.accounting import calibrate_noise_multiplier
from wardround.privacy.books import Domain
from wardround.privacy.planner import (
    CurveCost,
    budgets_for,
    curve_costs,
    gaussian,
    plan_delta,
    tightest_budget,
)
from wardround.protocol.errors import UsageError
from wardround.protocol.plan import PrivacyMode, StudyPlan
from wardround.protocol.secagg import colluding

SHARE_STEPS: Final = 1000
"""Steps of the grid of shares in 1."""

Limit = Literal["epsilon_consortium", "epsilon_site", "budget_consortium", "budget_site"]
"""What a share must keep: an epsilon, or the budget of a domain, on the consortium's curve or the site's."""


@dataclass(frozen=True, slots=True)
class Share:
    """The share that a target on epsilon_consortium needs beside the plan's other limits; None: none is enough."""

    target: float
    """Of epsilon_consortium."""
    noise_multiplier: float | None
    binds: Limit
    asked: Mapping[Limit, float | None]
    """What each limit asks for by itself; the largest is ``noise_multiplier``."""
    whole: float | None
    """The noise that each site would add in mode local for ``target`` against everyone."""
    tightest_site: str
    """The site whose budget asks for the most, on the curve that asks for more."""

    @property
    def gain(self) -> float | None:
        """So many times less noise on the mean than with ``whole`` at every site; at most sqrt(h)."""
        return None if self.whole is None or self.noise_multiplier is None else self.whole / self.noise_multiplier


def consortium_costs(
    plan: StudyPlan, consortium_cap: float, *, attempts: int = 1, domains: Mapping[str, Domain] | None = None
) -> list[CurveCost]:
    """The cost of ``plan``, in mode dist, at each site against the coordinator with c sites: the noise of h shares.

    ``domains`` are the domains of that curve by site; a site that it lacks has a fresh one with ``consortium_cap``.
    """
    _check_mode(plan)
    events = {p.site: gaussian(plan.consortium_event(p.site)) for p in plan.participants}
    return curve_costs(plan, events, budgets_for(plan, consortium_cap, domains), attempts)


def shares_for(
    plan: StudyPlan,
    targets: Sequence[float],
    epsilon_cap: float,
    consortium_cap: float,
    *,
    attempts: int = 1,
    domains: Mapping[str, Domain] | None = None,
    consortium_domains: Mapping[str, Domain] | None = None,
) -> list[Share]:
    """For each target of epsilon_consortium the smallest share that keeps it, the plan's epsilon, and both budgets."""
    _check_mode(plan)
    blocks, delta, honest = plan.charges * attempts, plan_delta(plan), plan.honest_sites
    events = {p.site: gaussian(plan.round_event(p.site)) for p in plan.participants}
    one = next(iter(events.values()))
    q, steps = one.sampling_probability, blocks * one.steps
    own_site, own = tightest_budget(events, budgets_for(plan, epsilon_cap, domains), blocks)
    # A search sets the noise itself, so it is the noise of all h shares together.
    all_site, together = tightest_budget(events, budgets_for(plan, consortium_cap, consortium_domains), blocks)
    site = _calibrated(plan.privacy.epsilon or math.inf, delta, q, steps)
    found = []
    for target in targets:
        whole = _calibrated(target, delta, q, steps)
        asked: dict[Limit, float | None] = {
            "epsilon_consortium": _share(whole, honest),
            "epsilon_site": site,
            "budget_consortium": _share(together, honest),
            "budget_site": own,
        }
        binds = max(asked, key=lambda limit: _number(asked[limit]))
        tightest = own_site if _number(own) >= _number(asked["budget_consortium"]) else all_site
        found.append(Share(target, asked[binds], binds, asked, whole, tightest))
    return found


def share_of(together: float, honest: int) -> float:
    """The smallest share, in thousandths, of which ``honest`` are ``together``: together / sqrt(h), rounded up."""
    index = math.ceil(SHARE_STEPS * together / math.sqrt(honest))
    # A quotient that rounding brought below its thousandth is raised by one.
    while index / SHARE_STEPS * honest**0.5 < together:
        index += 1
    return index / SHARE_STEPS


def who_may_collude(plan: StudyPlan) -> str:
    """Against whom epsilon_consortium holds, in words."""
    sites = colluding(len(plan.participants))
    if not sites:
        return "the coordinator, or one other hospital, by itself"
    return f"the coordinator together with at most {sites} other hospital{'s' if sites > 1 else ''}"


def _calibrated(epsilon: float, delta: float, sampling_probability: float, steps: int) -> float | None:
    try:
        return calibrate_noise_multiplier(epsilon, delta, sampling_probability, steps)
    except UsageError:
        return None


def _share(together: float | None, honest: int) -> float | None:
    return None if together is None else share_of(together, honest)


def _number(share: float | None) -> float:
    return math.inf if share is None else share


def _check_mode(plan: StudyPlan) -> None:
    if plan.privacy.mode is not PrivacyMode.DIST:
        raise UsageError("only mode dist divides the noise into shares", "plan with privacy=dist")
