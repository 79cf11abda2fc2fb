"""What the evaluation phase of a plan costs a test patient, and how exact it will be, before anybody approves it."""

from collections.abc import Iterator
from typing import Any

from wardround.privacy.accounting import rounded_up
from wardround.privacy.meaning import conditions
from wardround.privacy.planner import site_costs
from wardround.protocol.plan import StudyPlan
from wardround.strategies.statistics import expected


def phase_facts(beside: StudyPlan, epsilon_cap: float, attempts: int) -> dict[str, Any]:
    """Of ``beside``, which follows a training: all that is said of it; on test domains that have spent nothing yet."""
    assert beside.follows is not None
    costs = site_costs(beside, epsilon_cap, attempts=attempts)
    return {
        "plan": beside.digest,
        "after_rounds": list(beside.follows.rounds),
        "noise_multiplier": beside.privacy.noise_multiplier,
        "epsilon": costs[0].epsilon_at_most,
        "epsilon_shown": rounded_up(costs[0].epsilon_at_most),
        "epsilon_limit": beside.privacy.epsilon,
        "epsilon_consortium_limit": beside.privacy.epsilon_consortium,
        "domain_share": max(cost.share for cost in costs),
        "fits": all(cost.fits for cost in costs),
        "half_intervals": {
            cell.quantity: (cell.high - cell.low) / 2
            for cell in expected(beside)
            if set(cell.group) <= {"all"}
            and cell.low is not None
            and cell.high is not None
            and " at " not in cell.quantity
        },
    }


def phase_lines(found: dict[str, Any], delta: float) -> Iterator[str]:
    """The same in sentences."""
    rounds = ", ".join(map(str, found["after_rounds"]))
    yield (
        f"Evaluation after rounds {rounds}, on test patients alone: ε {found['epsilon_shown']} at most "
        f"{conditions(delta)}; rounded up. It is a plan of its own ({found['plan'][:12]}), approved by itself."
    )
    yield (
        f"Of a test patient's lifetime budget it takes {100 * found['domain_share']:.1f} %"
        f"{'' if found['fits'] else ', so it does not fit'}, where nothing was spent yet."
    )
    reach = "; ".join(f"{name} ± {half:.2g}" for name, half in found["half_intervals"].items()) or "none is shown"
    yield (
        f"Its intervals after each round, with as many test patients as the plan declares patients, evenly spread: "
        f"{reach}. With fewer they are wider."
    )
