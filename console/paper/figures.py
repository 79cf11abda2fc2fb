"""Whether the figures of a paper follow from the events and counts beside them, by this installation's accountant."""

from collections.abc import Iterator, Sequence

from wardround.console.paper.model import Budget, Charged, Paper, Spending
from wardround.console.paper.spending import promised, stated
from wardround.privacy import budget as filter_
from wardround.privacy.accounting import epsilon
from wardround.privacy.books import repeated, without_waived
from wardround.protocol.errors import UsageError
from wardround.protocol.events import Unprotected
from wardround.protocol.secagg import colluding


def wrong_figures(paper: Paper) -> list[str]:
    """Every fault of the figures, a sentence each. Raises ModuleNotFoundError without the accountant."""
    faults: list[str] = []
    budgets: Sequence[Budget] = ()
    if paper.about is not None:
        budgets, c = paper.about.budgets, colluding(len(paper.about.plan.participants))
        for one in paper.about.spendings:
            faults += _wrong_spending(one, c)
        for granted in paper.about.granted:
            if granted.blocks and not _follows(
                granted.epsilon, [Charged(granted.event, granted.blocks)], granted.domain, c
            ):
                faults.append(f"the figure of all approved rounds on '{granted.domain}' does not follow from its event")
    if paper.audit is not None:
        budgets = paper.audit.budgets
    for budget in budgets:
        faults += _wrong_budget(budget)
    return faults


def _wrong_spending(one: Spending, c: int | None) -> Iterator[str]:
    if not _follows(one.epsilon, one.charges, one.domain, c):
        yield f"the figure of plan {one.plan[:12]} on '{one.domain}' does not follow from its rounds"
    if one.in_period > sum(charge.blocks for charge in one.charges):
        yield f"plan {one.plan[:12]} charged more rounds in the period than in all on '{one.domain}'"


def _follows(found: object, charges: Sequence[Charged], domain: str, c: int | None) -> bool:
    delta = getattr(found, "delta", 0.5)
    try:
        return promised(charges, domain, delta, c) == found
    except UsageError:
        return False


def _wrong_budget(budget: Budget) -> Iterator[str]:
    name, delta = budget.domain, budget.cap.delta
    charges = [charge for one in budget.spendings for charge in one.charges]
    counted, waived = without_waived([(one.event, one.blocks) for one in charges])
    try:
        spent = stated(epsilon(repeated(counted), delta) if counted else 0.0, name, delta)
        whole = filter_.allowance(budget.cap_exact, delta, budget.order)
        used = sum(
            filter_.cost(one.event, budget.order) * one.blocks
            for one in charges
            if not isinstance(one.event, Unprotected)
        )
    except UsageError as error:
        yield f"the budget of '{name}' cannot be: {error.message}"
        return
    if (budget.spent, budget.cap) != (spent, stated(budget.cap_exact, name, delta)):
        yield f"the epsilon of '{name}' does not follow from its rounds"
    if (budget.allowance, budget.used) != (whole, used):
        yield f"the filter's numbers of '{name}' do not follow from its rounds"
    if (budget.blocks, budget.without_privacy) != (sum(one.blocks for one in charges), waived):
        yield f"the rounds of '{name}' are not the sum of its studies'"
    for one in budget.spendings:
        if one.domain != name:
            yield f"a spending of '{one.domain}' stands under '{name}'"
        yield from _wrong_spending(one, None)
