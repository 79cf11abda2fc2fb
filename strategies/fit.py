"""Which strategies a plan can have: what one asks of the rest of the plan, checked before anybody approves it."""

from typing import Final

from wardround.protocol.errors import UsageError
from wardround.protocol.indicators import Indicators
from wardround.protocol.plan import PrivacyMode, StudyPlan
from wardround.protocol.statistics import Statistics
from wardround.strategies.adding import Adding
from wardround.strategies.base import Strategy
from wardround.strategies.robust import Robust
from wardround.strategies.tree_sums import TreeSums

SINGLE_UPDATES: Final = "looks at single updates, and secure aggregation lets nobody see one"


def check_strategy(plan: StudyPlan, strategy: Strategy | Robust) -> None:
    """Raise UsageError, with the reason, where ``plan`` cannot have ``strategy``."""
    if isinstance(strategy, Adding) is not isinstance(plan.task, Statistics):
        raise UsageError(
            f"strategy '{strategy.name}' and task '{plan.task.name}' do not belong together",
            "strategy 'statistics' adds up what task 'statistics' asks, and trains nothing",
        )
    if isinstance(strategy, TreeSums) is not isinstance(plan.task, Indicators):
        raise UsageError(
            f"strategy '{strategy.name}' and task '{plan.task.name}' do not belong together",
            "strategy 'indicators' keeps the sums that task 'indicators' publishes, and trains nothing",
        )
    if isinstance(strategy, Robust):
        if plan.privacy.secure_aggregation:
            raise UsageError(
                f"strategy '{strategy.name}' {SINGLE_UPDATES}",
                "simulate it with secagg=off, or take a strategy that is a function of the sum",
            )
        return
    personal = strategy.personal(plan.layout)  # Raises where nothing would be shared.
    if plan.evaluation is not None and personal.layers:
        raise UsageError(
            f"strategy '{strategy.name}' keeps layers at each site, so there is no whole model to evaluate in between",
            "leave evaluation.rounds out, or take a strategy that shares every layer",
        )
    if strategy.equal_steps and plan.local.steps is None:
        raise UsageError(
            f"strategy '{strategy.name}' needs the same number of steps at every site",
            "give local.steps instead of local.epochs",
        )
    if personal.head_steps and plan.local.steps is not None and personal.head_steps >= plan.local.steps:
        raise UsageError(
            f"{plan.local.steps} steps a round, {personal.head_steps} for the head, leave none for what is shared",
            "give more local.steps, or fewer head_steps",
        )
    feeds_back = bool(strategy.corrections(plan.layout.size) or personal.layers)
    if feeds_back and plan.privacy.mode is PrivacyMode.DIST:
        # With site k missing in one sum and not in another, a memory carries noise shares from sum to sum, which the
        # consortium's accounting takes for independent (docs/adr/0024).
        raise UsageError(
            f"strategy '{strategy.name}' lets sites remember what they sent, which privacy mode 'dist' does not cover",
            "take privacy mode 'local', or a strategy without site memory",
        )
