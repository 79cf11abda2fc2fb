"""What a site accepts: one pure decision before anything is reserved.

After a plan is approved no refusal depends on patients' values or exact counts, so a refusal tells a stranger nothing.
"""

from dataclasses import dataclass, replace
from datetime import date

import numpy as np

from wardround.protocol.messages import LocalRule, RefusalCode, RoundRequest
from wardround.protocol.parameters import model_hash
from wardround.protocol.plan import StudyPlan


@dataclass(frozen=True, slots=True)
class Accepted:
    """The request may be worked on, if the ledger agrees."""


@dataclass(frozen=True, slots=True)
class Denied:
    """The request is refused: ``code`` goes on the wire, ``reason`` into the site's own ledger and log."""

    code: RefusalCode
    reason: str


def decide(plan: StudyPlan, request: RoundRequest, expected: LocalRule, today: date) -> Accepted | Denied:
    """Accept ``request`` under the approved ``plan``, or say why not.

    ``expected`` is the rule that the plan's strategy gives for this model, computed here and not taken from the
    request.
    """
    if request.plan != plan.digest:
        return Denied(RefusalCode.POLICY, "the request names a plan that is not approved here")
    if today > plan.governance.expires_on:
        return Denied(RefusalCode.POLICY, f"the plan expired on {plan.governance.expires_on}")
    if not 1 <= request.round_number <= plan.rounds:
        return Denied(RefusalCode.PROTOCOL, f"round {request.round_number} is not in the plan")
    if request.model.shape != (plan.handed_out.size,) or request.model.dtype != "float32":
        return Denied(RefusalCode.PROTOCOL, "the model does not have the plan's layout")
    if model_hash(request.model) != request.model_hash:
        return Denied(RefusalCode.PROTOCOL, "the model is not the one that its hash names")
    if plan.follows is None and request.round_number == 1 and request.model_hash != plan.model.hash:
        return Denied(RefusalCode.POLICY, "round 1 does not start at the plan's initial model")
    if not _same_rule(request.rule, expected, plan.handed_out.size):
        return Denied(RefusalCode.POLICY, "the local rule is not the one that the plan's strategy gives")
    return Accepted()


def _same_rule(one: LocalRule, other: LocalRule, size: int) -> bool:
    """Equal but for the values of a linear term, which only the coordinator can know: ``size`` finite numbers.

    Whatever they are, they depend on no patient of this site beyond what it has released. What a site adds of its own
    (its memory) is no part of what is compared: it is added here, after this check.
    """
    if replace(one, linear_term=None) != replace(other, linear_term=None):
        return False
    if one.linear_term is None or other.linear_term is None:
        return one.linear_term is other.linear_term
    term = one.linear_term
    return term.shape == (size,) and term.dtype == "float32" and bool(np.isfinite(term).all())
