"""A plugin as a task of the client: its engine, and the metrics of its label. Metrics are ours: they need no plugin."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from wardround.client.plugins.engine import IsolatedEngine, slots_for
from wardround.client.tasks.base import Metric, PlannedTask, Scores, patient_means
from wardround.client.tasks.binary import binary_metrics, binary_scores
from wardround.client.tasks.regression import NUMBER_METRICS
from wardround.privacy.gradients import Array, Examples, GradientEngine
from wardround.protocol.errors import UsageError
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.plan import StudyPlan
from wardround.protocol.plugins import Plugin, PluginTask


@dataclass(frozen=True)
class PluginAtSite(PlannedTask[PluginTask]):
    """``PluginTask`` with an engine that others made."""

    made: GradientEngine | None = None

    @cached_property
    def engine(self) -> GradientEngine:
        if self.made is None:
            raise UsageError("the plugin of this task is not here", "docs/plugins.md says how one is installed")
        return self.made

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return binary_metrics(1) if self.spec.label_kind == "class" else NUMBER_METRICS

    def scores(self, outputs: Array, examples: Examples) -> Scores:
        """As those of ``tabular_classification`` or ``tabular_regression``."""
        if self.spec.label_kind == "class":
            return binary_scores(outputs, examples)
        predicted = self.spec.center + self.spec.scale * outputs[:, 0]
        return Scores(patient_means(predicted, examples), patient_means(examples.targets, examples))


def isolated_task(plan: StudyPlan, plugin: Plugin, site: str | None) -> PluginAtSite:
    """The task of ``plan`` at ``site``, behind the wall; None: for a dry run, where nobody waits for a slot's end.

    Raises:
        UsageError: the plan names another plugin, or one that is no model or task.
    """
    spec, features = plan.task, len(plan.contract_or_fail.feature_names)
    if not isinstance(spec, PluginTask) or plugin.digest != spec.plugin.digest or plugin.manifest.kind == "strategy":
        raise UsageError("the plan's task is not this plugin", "install the one that the plan names")
    slots = None
    if site is not None:
        event = plan.round_event(site)
        if not isinstance(event, PoissonGaussian):
            raise UsageError("a plugin runs under differential privacy only", "another plan of the researcher has it")
        slots = slots_for(event.declared_patients, event.sampling_probability)
    return PluginAtSite(spec, features, IsolatedEngine(plugin, spec, features, slots))
