"""What is checked between a plan and its first round, from public numbers alone."""

from wardround.conf.schema import Configuration
from wardround.privacy.budget import allowance, cost, delta_for, fixed_order
from wardround.privacy.planner import small_batches
from wardround.privacy.promises import check_promises
from wardround.protocol.errors import UsageError
from wardround.protocol.events import DpEvent
from wardround.protocol.plan import PrivacyMode, StudyPlan
from wardround.simulations.cohorts import Gathered
from wardround.simulations.faults import Fault, FaultKind
from wardround.strategies import strategy_from


def check_cost(plan: StudyPlan, epsilon_cap: float, consortium_cap: float = 8.0) -> None:
    """Refuse a plan that costs more than it says, or more than a site's domain can give, before anything runs."""
    if plan.privacy.mode is PrivacyMode.NONE:
        return
    check_promises(plan)
    for participant in plan.participants:
        site, delta = participant.site, delta_for(participant.declared_patients)
        _check_room(plan, site, plan.round_event(site), delta, epsilon_cap, "epsilon_cap")
        if plan.privacy.mode is PrivacyMode.DIST:
            _check_room(plan, site, plan.consortium_event(site), delta, consortium_cap, "consortium_cap")


def _check_room(plan: StudyPlan, site: str, event: DpEvent, delta: float, cap: float, setting: str) -> None:
    order = fixed_order(cap, delta)
    needed, room = plan.charges * cost(event, order), allowance(cap, delta, order)
    if needed > room:
        raise UsageError(
            f"the plan needs {100 * needed / room:.0f} % of the budget of site '{site}' "
            f"({setting} {cap:g} at delta {delta:g} for each patient, over all studies)",
            f"take more noise (privacy.noise_multiplier), fewer rounds, or raise {setting}",
        )


def weaknesses(plan: StudyPlan) -> list[str]:
    """Named warnings of a plan that is legal but weak."""
    found = small_batches(plan)
    if plan.strategy.name == "fedbn" and not strategy_from(plan.strategy).personal(plan.layout).layers:
        found.append("fedbn keeps nothing at the sites: the model's normalisation has no weights, so this is fedavg")
    return found


def named_faults(configuration: Configuration, gathered: Gathered) -> tuple[Fault, ...]:
    known = {kind.name.lower(): kind for kind in FaultKind}
    faults = []
    for item in configuration.simulation.faults:
        if item.kind not in known:
            raise UsageError(f"there is no fault '{item.kind}'", f"known faults: {', '.join(known)}")
        if item.site not in gathered.declared:
            raise UsageError(f"a fault names the site '{item.site}'", f"sites here: {', '.join(gathered.declared)}")
        faults.append(Fault(item.site, item.round_number, known[item.kind]))
    return tuple(faults)
