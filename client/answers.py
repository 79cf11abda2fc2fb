"""A site's part in a statistics study: the vector of all queries over the patients who may be drawn, with its noise.

A model that is evaluated was released and is installed, or is in training and comes with the request.

As in training: the clipped sum in double precision, Gaussian noise from the operating system, rounded to a lattice
(``privacy.mechanisms``). Every patient who may be drawn is in it (sampling probability 1). What a round after the first
asks follows from the sums that the request hands out, by the function with which the result is read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from wardround.client.tasks import TASKS
from wardround.client.tasks.segmentation import Segmentation
from wardround.privacy.gradients import Array, Examples, RandomBytes
from wardround.privacy.mechanisms import noisy_sum
from wardround.protocol.contract import DataContract
from wardround.protocol.errors import UsageError
from wardround.protocol.evaluations import ModelQuery, SegmentationEvaluation, SurvivalEvaluation
from wardround.protocol.image_tasks import ImageClassification, ImageDenseNet, ImageSegmentation, Outputs
from wardround.protocol.labels import FindingsLabel, MaskLabel
from wardround.protocol.parameters import Layout, Sums, Vector
from wardround.protocol.plan import StudyPlan
from wardround.protocol.statistics import Statistics
from wardround.protocol.tabular_tasks import (
    HAZARD,
    SurvivalCox,
    SurvivalPiecewise,
    TabularClassification,
    TabularRegression,
)
from wardround.protocol.weights import Installed, nothing_installed
from wardround.strategies.statistics import opened, table_of, vector_of

ScoredTask: TypeAlias = (
    TabularClassification | TabularRegression | SurvivalCox | SurvivalPiecewise | ImageClassification | ImageDenseNet
)


@dataclass(frozen=True, slots=True)
class Scored:
    """A model that is evaluated: its task, its weights, (d,), and which of its outputs."""

    task: ScoredTask
    weights: Vector
    output: int = 0


@dataclass(frozen=True, slots=True)
class Marking:
    """A model that marks structures and is evaluated: which of them, by their place in the label."""

    task: Segmentation
    weights: Vector
    structures: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Answers:
    """The queries of one plan at a site.

    ``reach``: no sum of the site exceeds it, so that the sum can be masked. ``models``: the released ones that are
    evaluated, by the query's name, with this site's own code for their task.
    """

    task: Statistics
    contract: DataContract
    layout: Layout
    noise_multiplier: float | None
    reach: float
    models: Mapping[str, Scored | Marking] = field(default_factory=dict)

    def vector(
        self, patients: Examples, random_bytes: RandomBytes, model: Vector | None = None, site: str = ""
    ) -> Sums:
        """What the site adds to the sum of a round, shape (task.added,).

        Args:
            model: what the request hands out: the sums of the rounds before, or the model in training that is
                evaluated; None: there are no rounds before.
            site: whose place it is, where figures of each hospital are released.

        Each number is held within ``reach`` before its noise: the plan leaves room for the noise behind it, so no
        refusal tells how many patients there are. Holding a number moves none of them apart, so a patient still moves
        the vector by 1 at most.
        """
        following = self.task.follows is not None
        before = () if model is None or following or self.task.by_site else opened(self.task, model)
        models = self._in_training(model) if following else self.models
        scores = {name: predicted(of, patients) for name, of in models.items() if isinstance(of, Scored)}
        overlaps = {name: marked(of, patients) for name, of in models.items() if isinstance(of, Marking)}
        table = replace(table_of(self.contract, patients), scores=scores, overlaps=overlaps)
        noise = self.noise_multiplier or 0.0
        exact = np.clip(vector_of(self.task, table, before, noise), -self.reach, self.reach)
        if self.noise_multiplier is not None:
            exact = noisy_sum(exact, 1.0, self.noise_multiplier, random_bytes)
        return _placed(exact, self.task.by_site, site) if self.task.by_site else exact

    def _in_training(self, model: Vector | None) -> dict[str, Scored | Marking]:
        if model is None:
            raise UsageError("the round brings no model", "what follows a training hands its model out")
        return {query.name: _scored(query, self.contract, model) for query in self.task.evaluations}


def _placed(numbers: Sums, sites: Sequence[str], site: str) -> Sums:
    """1 and ``numbers`` in the place of ``site``, zeros in that of every other."""
    found = np.zeros((len(sites), 1 + len(numbers)))
    found[sites.index(site)] = [1.0, *numbers]
    return found.ravel()


def predicted(model: Scored, patients: Examples) -> Array:
    """What ``model`` predicts for each row, shape (rows,): probability, quantity in its unit, or log relative risk.

    The risk is that against a patient whose features are all zero, but for a constant that a Cox model may have.
    """
    spec, features = model.task, patients.features.shape[1]
    task = TASKS[spec.name](spec, features)
    found: Array = task.engine.outputs(model.weights.astype(np.float64), patients.features)[:, model.output]
    match spec:
        case TabularRegression():
            return spec.center + spec.scale * found
        case SurvivalCox():
            return found
        case SurvivalPiecewise():
            return found - float(_hazards(spec, model.weights, features)[0])
        case TabularClassification() | ImageClassification() | ImageDenseNet():
            with np.errstate(over="ignore"):
                return np.asarray(1.0 / (1.0 + np.exp(-found)))


def marked(model: Marking, patients: Examples) -> Array:
    """What ``model`` marks in each row's picture beside its mask: as ``Table.overlaps``."""
    found = model.task.overlaps(model.weights.astype(np.float64), patients.features)
    return found[:, model.structures]


def answers_from(plan: StudyPlan, installed: Installed = nothing_installed) -> Answers:
    """The queries of ``plan``. Raises UsageError for a plan that trains, and where a model is not installed."""
    if not isinstance(plan.task, Statistics):
        raise UsageError("this plan trains a model", "it has no queries to answer")
    models = {
        query.name: _installed(query, plan.contract_or_fail, installed)
        for query in plan.task.evaluations
        if query.model.file is not None
    }
    return Answers(
        plan.task, plan.contract_or_fail, plan.layout, plan.privacy.noise_multiplier, plan.most_of_a_statistic, models
    )


def _installed(query: ModelQuery, contract: DataContract, installed: Installed) -> Scored | Marking:
    """The model that ``query`` evaluates. Raises UsageError where it is not installed, or not what the plan says."""
    features = len(contract.feature_names)
    task, model = query.model.task, query.model.weights(features, installed)
    if isinstance(task, SurvivalPiecewise) and isinstance(query, SurvivalEvaluation) and query.baseline:
        own = task.baseline(_hazards(task, model, features).tolist(), query.times)
        if not np.allclose(own, query.baseline, rtol=1e-6, atol=0):
            raise UsageError(
                f"the baseline of query '{query.name}' is not that of its model",
                "propose the study again from its file",
            )
    return _scored(query, contract, model)


def _scored(query: ModelQuery, contract: DataContract, weights: Vector) -> Scored | Marking:
    task, label = query.model.task, contract.label
    if isinstance(task, ImageSegmentation):
        assert isinstance(query, SegmentationEvaluation) and isinstance(label, MaskLabel)
        meanings = list(label.structures.values())
        return Marking(Segmentation(task), weights, tuple(meanings.index(structure) for structure in query.structures))
    several = isinstance(label, FindingsLabel) and query.outcome in label.columns
    return Scored(task, weights, label.columns.index(query.outcome) if several and _outputs(task) > 1 else 0)


def _outputs(task: ScoredTask) -> int:
    return task.outputs if isinstance(task, Outputs) else 1


def _hazards(spec: SurvivalPiecewise, model: Vector, features: int) -> Array:
    found: Array = spec.layout(features).split(model)[HAZARD].astype(np.float64)
    return found
