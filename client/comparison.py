"""The models that a site could use, beside one another on its own test patients: its row of a result.

One function for a hospital's own report and for a simulation, so that a researcher sees what a hospital would see.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from wardround.client.benefit import benefit, has_verdict
from wardround.client.connectors.cohort import Cohort
from wardround.client.fall_back import kept
from wardround.client.own_model import assess, gains, own_model
from wardround.client.site_result import BenefitResult, EstimateResult, KeptResult, ModelResult, SiteResult
from wardround.client.tasks import Scores, Task
from wardround.protocol.parameters import Vector
from wardround.protocol.plan import StudyPlan
from wardround.protocol.weights import Installed, nothing_installed

HEADLINES: Final[dict[str, tuple[str, ...]]] = {
    "class": ("accuracy", "auroc"),
    "findings": ("accuracy", "auroc"),
    "survival": ("c_index",),
    "number": ("mae", "r2"),
    "mask": ("dice",),
}

Other = Literal["shared", "personalised"]


def headlines(plan: StudyPlan, task: Task) -> tuple[str, ...]:
    """The metrics that tables show; verdicts go by the first."""
    return HEADLINES.get(plan.task.label_kind, tuple(task.metrics)[:2])


@dataclass(frozen=True, slots=True)
class Comparison:
    """Own, shared and personalised model of a site (None: it has no other than the shared one), with their scores."""

    metric: str
    own: ModelResult
    shared: ModelResult
    personalised: ModelResult | None
    own_scores: Scores | None
    other_scores: Mapping[Other, Scores | None]
    gain: dict[str, EstimateResult]
    personalised_gain: dict[str, EstimateResult]
    kept: KeptResult | None

    @property
    def verdicts(self) -> int:
        """How many verdicts this site can be given."""
        enough = has_verdict(self.own_scores, self.metric)
        return sum(scores is not None for scores in self.other_scores.values()) if enough else 0

    def benefit(self, task: Task, comparisons: int) -> tuple[BenefitResult, ...]:
        """Does another model help: a verdict for each, of ``comparisons`` that are read together."""
        own = [] if self.own_scores is None else [self.own_scores]
        metric, together = task.metrics[self.metric], max(comparisons, 1)
        return tuple(
            benefit(name, self.metric, metric, own, [] if one is None else [one], together, self.own.reason)
            for name, one in self.other_scores.items()
        )


def compare(
    plan: StudyPlan,
    task: Task,
    cohort: Cohort,
    shared: Vector,
    personalised: Vector | None,
    installed: Installed = nothing_installed,
) -> Comparison:
    """Every model on the site's test patients; the own model is trained here, on all training patients of the site."""
    own, own_scores = assess(task, own_model(plan, task, cohort, installed), cohort)
    found, shared_scores = assess(task, shared, cohort)
    scores: dict[Other, Scores | None] = {"shared": shared_scores}
    personal = None
    if personalised is not None:
        personal, scores["personalised"] = assess(task, personalised, cohort)
    return Comparison(
        metric=headlines(plan, task)[0],
        own=own,
        shared=found,
        personalised=personal,
        own_scores=own_scores,
        other_scores=scores,
        gain=gains(task, own_scores, shared_scores),
        personalised_gain=gains(task, own_scores, scores.get("personalised")),
        kept=kept(plan, task, cohort, shared, personalised, installed),
    )


def row(
    plan: StudyPlan,
    task: Task,
    cohort: Cohort,
    compared: Comparison,
    comparisons: int,
    *,
    rounds_in_sum: int,
    epsilon_site: float | None,
) -> SiteResult:
    """The site's row; ``comparisons`` verdicts are read together with this one's."""
    return SiteResult(
        site=cohort.site,
        train_patients=cohort.train.patients,
        test_patients=cohort.test.patients,
        declared_patients=plan.declared_patients(cohort.site),
        left_out=dict(cohort.excluded),
        rounds_in_sum=rounds_in_sum,
        epsilon_site=epsilon_site,
        own=compared.own,
        shared=compared.shared,
        gain=compared.gain,
        personalised=compared.personalised,
        personalised_gain=compared.personalised_gain,
        benefit=compared.benefit(task, comparisons),
        kept=compared.kept,
    )


def together(compared: Sequence[Comparison]) -> int:
    """How many verdicts there are over all of these sites."""
    return sum(one.verdicts for one in compared)
