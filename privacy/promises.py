"""Whether a plan keeps its word: the epsilon that it claims is never below the one that its mechanism costs.

A plan is written elsewhere, so nobody who answers for patients takes its claim on trust. ``check_promises`` is for
those who write plans and says what would fit; ``broken_promise`` is for those who were sent one.
"""

from collections.abc import Iterator
from typing import Final

from wardround.privacy.accounting import check_consortium_cost, check_plan_cost, epsilon, rounded_up
from wardround.privacy.meaning import AGAINST, AGAINST_CONSORTIUM, conditions
from wardround.privacy.rdp import rdp_epsilon
from wardround.protocol.events import DpEvent, PoissonGaussian
from wardround.protocol.plan import PrivacyMode, StudyPlan

MOST_KEPT: Final = 2_000
"""Plans whose answer is remembered. A plan never changes, and a desk asks before every round."""

_known: dict[str, str] = {}


def check_promises(plan: StudyPlan) -> None:
    """Raise UsageError, with what would fit, where ``plan`` costs more than it says."""
    if plan.privacy.mode is PrivacyMode.NONE:
        return
    check_plan_cost(plan)
    if plan.privacy.mode is PrivacyMode.DIST:
        check_consortium_cost(plan)


def broken_promise(plan: StudyPlan) -> str | None:
    """What ``plan`` claims and what it costs, under which conditions, where that is more; None: it keeps its word.

    Computed once for each plan.
    """
    if plan.digest not in _known:
        if len(_known) >= MOST_KEPT:
            _known.clear()
        _known[plan.digest] = next(_broken(plan), "")
    return _known.get(plan.digest) or None


def _broken(plan: StudyPlan) -> Iterator[str]:
    terms, site = plan.privacy, plan.participants[0].site
    if terms.mode is PrivacyMode.NONE or terms.delta is None:
        return
    claims = [("epsilon", terms.epsilon, plan.round_event(site), AGAINST)]
    if terms.mode is PrivacyMode.DIST:
        claims.append(("epsilon_consortium", terms.epsilon_consortium, plan.consortium_event(site), AGAINST_CONSORTIUM))
    for name, limit, event, against in claims:
        if limit is None or (cost := _cost(event, plan.charges, limit, terms.delta)) == "":
            continue
        if cost is None:
            yield f"the plan says {name} {limit:g} and no accountant can compute what it costs"
        else:
            yield f"the plan says {name} {limit:g} and costs {cost}, both {conditions(terms.delta, against)}"


def _cost(event: DpEvent, rounds: int, limit: float, delta: float) -> str | None:
    """ "" where all rounds cost at most ``limit``; else what they cost; None where that cannot be computed."""
    if isinstance(event, PoissonGaussian) and rdp_epsilon([event] * rounds, delta) <= limit:
        return ""  # the instant bound is above the tight one
    try:
        cost = epsilon([event] * rounds, delta)
        return "" if cost <= limit else rounded_up(cost)
    except ArithmeticError:
        return None
