"""What a site can learn: one file per task, one line here. Plans name tasks, they never bring them."""

from collections.abc import Callable
from typing import Any, Final

from wardround.client.tasks.base import Metric, Scores, Task
from wardround.client.tasks.classification import Classification
from wardround.client.tasks.images import ImageClassifier
from wardround.client.tasks.probe import Frozen, Probe, frozen_part, with_frozen_part
from wardround.client.tasks.regression import Regression
from wardround.client.tasks.segmentation import Segmentation
from wardround.client.tasks.survival import Cox, Piecewise
from wardround.protocol.errors import UsageError
from wardround.protocol.indicators import Indicators
from wardround.protocol.plan import StudyPlan
from wardround.protocol.plugins import PluginTask
from wardround.protocol.statistics import Statistics

__all__ = ["TASKS", "Frozen", "Metric", "Scores", "Task", "frozen_part", "task_from", "with_frozen_part"]

TASKS: Final[dict[str, Callable[[Any, int], Task]]] = {
    "tabular_classification": Classification,
    "tabular_regression": Regression,
    "image_classification": ImageClassifier,
    "image_densenet121": ImageClassifier,
    "image_segmentation": Segmentation,
    "linear_probe": Probe,
    "survival_cox": Cox,
    "survival_piecewise": Piecewise,
}


def task_from(plan: StudyPlan) -> Task:
    """The task that a plan names. A task made by a program, or by a plugin, cannot come out of a plan: UsageError."""
    if isinstance(plan.task, Statistics | Indicators):
        raise UsageError(
            "this study counts and trains nothing, so it has no model",
            "wardround stats, or wardround live, shows its table",
        )
    if isinstance(plan.task, PluginTask):
        raise UsageError(
            f"the plugin '{plan.task.plugin.name}' is not installed here", "docs/plugins.md says how one is"
        )
    if plan.contract is None or plan.task.name not in TASKS:
        raise UsageError("this plan's task was made by a program", "pass the task object itself: simulation only")
    return TASKS[plan.task.name](plan.task, len(plan.contract.feature_names))
