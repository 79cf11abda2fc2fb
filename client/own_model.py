"""Each hospital's own model: what it would have without the others.

The same model, schedule and learning rate, on the hospital's own training patients alone and without noise: this
model never leaves the hospital, so it costs no privacy. That makes it a strong rival of the shared model.
"""

import numpy as np
import numpy.typing as npt

from wardround.client.connectors import Cohort
from wardround.client.evaluation import Estimate, calibration_bins, estimate, roc_curve, score
from wardround.client.site_result import CurveResult, EstimateResult, ModelResult
from wardround.client.tasks import Metric, Scores, Task
from wardround.client.training import shuffle_seed, train_plain
from wardround.protocol.labels import UNKNOWN
from wardround.protocol.messages import LocalRule
from wardround.protocol.parameters import Vector
from wardround.protocol.plan import LocalTraining, StudyPlan
from wardround.protocol.weights import Installed, nothing_installed


def own_model(plan: StudyPlan, task: Task, cohort: Cohort, installed: Installed = nothing_installed) -> Vector | str:
    """The hospital's own model, shape (d,), or the reason why there is none."""
    targets = cohort.train.targets
    if plan.task.label_kind in ("class", "findings") and one_class(targets):
        return "its training patients have one class only"
    if plan.task.label_kind == "survival" and not targets[:, 1].any():
        return "its training patients have no event"
    start = plan.starting_model(installed)
    seed = shuffle_seed(plan.model.seed, cohort.site, 0)
    return train_plain(
        task.engine, start, cohort.train, LocalRule(plan.local.learning_rate), own_schedule(plan, cohort.site), seed
    )


def one_class(targets: npt.NDArray[np.float64]) -> bool:
    """Whether no outcome (a column of (records, T)) has two classes among those of whom it is stated."""
    return not any(len(np.unique(column[column != UNKNOWN])) > 1 for column in targets.T)


def own_schedule(plan: StudyPlan, site: str, rounds: int | None = None) -> LocalTraining:
    """So many rounds of the plan (None: all) in one go.

    Where the plan samples with probability q, in batches of q N declared patients.
    """
    local, q = plan.local, plan.privacy.sampling_probability
    batch = local.batch_size
    if q is not None:
        batch = max(1, round(q * plan.declared_patients(site)))
    times = plan.rounds if rounds is None else rounds
    length = {"steps": local.steps and local.steps * times, "epochs": local.epochs and local.epochs * times}
    return LocalTraining(**length, batch_size=batch, learning_rate=local.learning_rate)


def assess(task: Task, model: Vector | str, cohort: Cohort) -> tuple[ModelResult, Scores | None]:
    """A model on a hospital's test patients, with intervals and curves; a ``str`` says why there is no model."""
    if isinstance(model, str):
        missing = EstimateResult(value=None, reason=model)
        return ModelResult(metrics=dict.fromkeys(task.metrics, missing), reason=model), None
    if not cohort.test.patients:
        missing = EstimateResult(value=None, reason="no test patients")
        return ModelResult(metrics=dict.fromkeys(task.metrics, missing), reason="no test patients"), None
    scores = score(task, model, cohort.test)
    metrics = {name: _result(estimate(metric, scores)) for name, metric in task.metrics.items()}
    if "auroc" not in task.metrics or scores.score.ndim > 1:
        return ModelResult(metrics=metrics), scores
    curves = CurveResult(roc=tuple(roc_curve(scores)), calibration=tuple(calibration_bins(scores)))
    return ModelResult(metrics=metrics, curves=curves), scores


def gains(task: Task, own: Scores | None, shared: Scores | None) -> dict[str, EstimateResult]:
    """Shared minus own for every metric on the same patients: the bootstrap draws each patient for both at once."""
    if own is None or shared is None:
        return {}
    return {name: _result(estimate(_difference(metric, own), shared)) for name, metric in task.metrics.items()}


def _difference(metric: Metric, own: Scores) -> Metric:
    def difference(scores: Scores, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return metric(scores, weights) - metric(own, weights)

    return difference


def _result(found: Estimate) -> EstimateResult:
    return EstimateResult(value=found.value, low=found.low, high=found.high, reason=found.reason)
