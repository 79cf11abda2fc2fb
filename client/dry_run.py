"""A study's rounds on the site's own data, alone, with nothing released: how one debugs without showing data.

Everything happens in one process of the site's own people and nothing of it is kept, sent or logged, so nothing is
charged. The losses and norms below are exact, without noise: they are for the people who may see the patients anyway.
"""

import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from wardround.client.compatibility import incompatibilities
from wardround.client.connectors import Cohort
from wardround.client.evaluation import point, score
from wardround.client.fall_back import for_rounds
from wardround.client.own_model import one_class
from wardround.client.tasks import Task
from wardround.client.training import StepCounter, shuffle_seed, train_plain, train_private
from wardround.privacy.gradients import Array, Examples, Indices
from wardround.protocol.errors import UsageError
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.messages import LocalRule
from wardround.protocol.plan import StudyPlan
from wardround.protocol.weights import Installed, nothing_installed

LOOKED_AT: Final = 64
"""Training patients, evenly spread, whose gradients are measured one by one."""


@dataclass(frozen=True, slots=True)
class TriedRound:
    """One round: its seconds, the mean loss of the training patients after it, and metrics on the test patients."""

    seconds: float
    loss: float
    metrics: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a dry run found; it stays at the site.

    ``norms``: the smallest, median and largest 2-norm of a patient's gradient at the initial model; ``clipped``: the
    share of patients whose gradient is longer than ``clip_norm`` (None without clipping). ``peak_mib``: of the process.
    """

    train_patients: int
    test_patients: int
    excluded: dict[str, int]
    declared_patients: int
    norms: tuple[float, float, float]
    clip_norm: float | None
    clipped: float | None
    loss_at_start: float
    rounds: list[TriedRound]
    peak_mib: float
    warnings: list[str]


def dry_run(
    plan: StudyPlan,
    task: Task,
    cohort: Cohort,
    rounds: int,
    told: Callable[[int, TriedRound], None] = lambda number, tried: None,
    installed: Installed = nothing_installed,
) -> DryRun:
    """``rounds`` rounds of ``plan`` at this site alone: the model of a round begins the next.

    The noise is real and from the operating system, so that what is seen is what a round would do.

    Raises:
        UsageError: the plan does not name the site, or there are fewer rounds to try than one.
    """
    if rounds < 1:
        raise UsageError("a dry run has at least one round", "give --rounds 1 or more")
    cohort, declared = for_rounds(plan, cohort), plan.declared_patients(cohort.site)
    event, engine = plan.round_event(cohort.site), task.engine
    model = plan.starting_model(installed)
    rule, private = LocalRule(plan.local.learning_rate), isinstance(event, PoissonGaussian)
    clip = plan.privacy.clip_norm if private else None
    unfit = incompatibilities(task, model, cohort.train)
    lengths = _lengths(task, model.astype(np.float64), cohort.train)
    loss_at_start = engine.mean_loss(model.astype(np.float64), cohort.train)
    clipped = None if clip is None else float((lengths > clip).mean())
    tried_rounds: list[TriedRound] = []
    for number in range(1, rounds + 1):
        began = time.perf_counter()
        if isinstance(event, PoissonGaussian):
            counter = StepCounter()
            clip_norm = plan.privacy.clip_norm
            model = train_private(engine, model, cohort.train, rule, event, clip_norm, os.urandom, counter)
        else:
            seed = shuffle_seed(plan.model.seed, cohort.site, number)
            model = train_plain(engine, model, cohort.train, rule, plan.local, seed)
        seconds = time.perf_counter() - began
        scores = score(task, model, cohort.test) if cohort.test.patients else None
        metrics = {} if scores is None else {name: point(metric, scores) for name, metric in task.metrics.items()}
        tried = TriedRound(seconds, engine.mean_loss(model.astype(np.float64), cohort.train), metrics)
        tried_rounds.append(tried)
        told(number, tried)
    return DryRun(
        train_patients=cohort.train.patients,
        test_patients=cohort.test.patients,
        excluded=dict(cohort.excluded),
        declared_patients=declared,
        norms=(float(lengths.min()), float(np.median(lengths)), float(lengths.max())),
        clip_norm=clip,
        clipped=clipped,
        loss_at_start=loss_at_start,
        rounds=tried_rounds,
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        warnings=[
            *(f"the model is not fit for differential privacy: {fault}" for fault in unfit if private),
            *_warnings(plan, cohort, clipped, loss_at_start, tried_rounds),
        ],
    )


def _lengths(task: Task, model: Array, patients: Examples) -> Array:
    """The 2-norm of each looked-at patient's gradient, or of the whole mean gradient where patients are coupled."""
    if task.couples_patients:
        return np.array([np.linalg.norm(task.engine.gradient_sum(model, patients, None)) / patients.patients])
    chosen: Indices = np.unique(np.linspace(0, patients.patients - 1, LOOKED_AT).astype(np.int64))
    return np.array(
        [np.linalg.norm(task.engine.gradient_sum(model, patients.take(np.array([one])), None)) for one in chosen]
    )


def _warnings(
    plan: StudyPlan, cohort: Cohort, clipped: float | None, loss_at_start: float, rounds: list[TriedRound]
) -> list[str]:
    said, declared = [], plan.declared_patients(cohort.site)
    if plan.task.label_kind in ("class", "findings") and one_class(cohort.train.targets):
        said.append("the training patients have one class only: this site has no model of its own to compare with")
    if not cohort.test.patients:
        said.append("no patient tests at this site, so there is no metric")
    if not 0.5 * declared <= cohort.train.patients <= 2 * declared:
        said.append(
            f"the plan declares {declared} patients here, and there are {cohort.train.patients}: "
            "batches are sized by the declared number"
        )
    if clipped is not None and clipped > 0.95:
        said.append("almost every patient is clipped: the gradient's direction counts and its length does not")
    if not np.isfinite(rounds[-1].loss):
        said.append("the model ran away: its loss is not a finite number; the learning rate is too high")
    elif rounds[-1].loss > 1.5 * loss_at_start:
        said.append("the loss grew by more than half: noise or learning rate are high for this site alone")
    return said
