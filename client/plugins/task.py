"""A plugin as a task of the client: its engine, and the metrics of its label. Metrics are ours: they need no plugin."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from wardround.client.store.folder import SiteFolder
from wardround.client.tasks import Task, task_from
from wardround.client.tasks.base import Metric, PlannedTask, Scores, patient_means
from wardround.client.tasks.binary import binary_metrics, binary_scores
from wardround.client.tasks.regression import NUMBER_METRICS
from wardround.privacy.dpsgd import PATIENTS_AT_ONCE
from wardround.privacy.gradients import Array, Examples, GradientEngine
from wardround.protocol.errors import UsageError
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.plan import StudyPlan
from wardround.protocol.plugins import PluginTask
from wardround.strategies import strategy_for


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


def site_task(plan: StudyPlan, folder: SiteFolder, *, released: bool) -> Task:
    """The task of ``plan`` at a site: of the registry, or the installed plugin behind the wall.

    ``released``: whether something of it will leave the site. Where nothing does (a dry run, a report), nobody waits
    for the end of a slot.

    Raises:
        UsageError: the plugin is not here, is not the one that the plan names, does not work, or is too slow.
        Unavailable: this machine cannot isolate it.
    """
    spec = plan.task
    if not isinstance(spec, PluginTask):
        return task_from(plan)
    fault, held = folder.plugins.fault(plan), folder.plugins.get(spec.plugin.digest)
    if fault is not None or held is None:
        raise UsageError(fault or "the plugin is not installed here", "wardround site plugin install")
    if released and strategy_for(plan).personal(plan.layout).pull is not None:
        # That model is trained without slots: how long it takes, and whether it works, would depend on patients.
        raise UsageError(
            f"strategy '{plan.strategy.name}' trains a second model at the site, which a plugin does not do",
            "another plan of the researcher has another strategy",
        )
    from wardround.client.plugins.engine import IsolatedEngine

    features = len(plan.contract_or_fail.feature_names)
    slots = _slots(plan, folder.site) if released else None
    engine = IsolatedEngine(held.plugin, spec, features, slots)
    seconds = engine.pace().step_seconds * (plan.local.steps or 0)
    if released and seconds > plan.deadline_seconds:
        raise UsageError(
            f"a round of this plugin takes {seconds:.0f} s here, and the plan waits {plan.deadline_seconds:.0f} s",
            "another plan of the researcher has fewer steps, a lower q, a smaller model, or waits longer",
        )
    return PluginAtSite(spec, features, engine)


def _slots(plan: StudyPlan, site: str) -> int:
    """Slots of a step. Raises UsageError for a plan that draws too many patients, or without privacy."""
    event = plan.round_event(site)
    if not isinstance(event, PoissonGaussian):
        raise UsageError("a plugin runs under differential privacy only", "another plan of the researcher has it")
    from wardround.client.plugins.engine import slots_for

    slots = slots_for(event.declared_patients, event.sampling_probability)
    if slots > PATIENTS_AT_ONCE:
        raise UsageError(
            f"a step may draw {slots} patients, and a plugin takes at most {PATIENTS_AT_ONCE}",
            "another plan of the researcher has a lower sampling probability",
        )
    return slots
