"""What a site does with what a strategy lets it keep for itself (``strategies.personal``): pure but for training."""

from collections.abc import Callable

import numpy as np

from wardround.client.connectors import Cohort
from wardround.client.fall_back import for_rounds
from wardround.client.own_model import own_schedule
from wardround.client.tasks import Task
from wardround.client.training import shuffle_seed, train_plain
from wardround.privacy.gradients import Examples
from wardround.protocol.messages import LocalRule
from wardround.protocol.parameters import Ranges, Vector
from wardround.protocol.plan import StudyPlan
from wardround.strategies.base import Memory, Strategy
from wardround.strategies.personal import LAYERS, MODEL, Personal


def corrections(strategy: Strategy, size: int, memory: Memory | None) -> Memory:
    """The arrays of ``memory`` that the strategy's own functions work on; zeros before there is a memory."""
    sizes = strategy.corrections(size)
    if memory is None:
        return {name: np.zeros(length) for name, length in sizes.items()}
    return {name: memory[name] for name in sizes}


def with_own_layers(personal: Personal, model: Vector, memory: Memory | None) -> Vector:
    """The shared model with the site's own layers put in; before there is a memory, as the shared model has them."""
    if memory is None or not personal.layers:
        return model
    own, start = model.copy(), 0
    for first, end in personal.layers:
        own[first:end] = memory[LAYERS][start : start + end - first]
        start += end - first
    return own


def without_own_layers(layers: Ranges, difference: Vector) -> Vector:
    """What of a difference of models may leave: zero at every coordinate that is the site's own."""
    if not layers:
        return difference
    shared = difference.copy()
    for first, end in layers:
        shared[first:end] = 0.0
    return shared


def own_layers(layers: Ranges, model: Vector) -> Memory:
    """A site's own layers of ``model``, for its memory."""
    if not layers:
        return {}
    return {LAYERS: np.concatenate([model[first:end] for first, end in layers]).astype(np.float64)}


def own_step(
    plan: StudyPlan,
    task: Task,
    site: str,
    patients: Examples,
    shared: Vector,
    round_number: int,
    pull: float,
    memory: Memory | None,
    before_step: Callable[[], None] = lambda: None,
) -> Memory:
    """A round of the site's own model beside the shared one: F(v) + pull / 2 |v - w|^2, on its patients, no noise."""
    begin = shared if memory is None else memory[MODEL].astype(np.float32)
    rule = LocalRule(plan.local.learning_rate, proximal_mu=pull)
    seed = shuffle_seed(plan.model.seed, site, round_number)
    schedule = own_schedule(plan, site, rounds=1)
    model = train_plain(task.engine, shared, patients, rule, schedule, seed, before_step, begin)
    return {MODEL: model.astype(np.float64)}


def personalised(
    plan: StudyPlan, task: Task, cohort: Cohort, strategy: Strategy, shared: Vector, memory: Memory | None
) -> Vector | None:
    """The model that the site itself would use at the end of a study, shape (d,); None: the shared one.

    Own layers and an own model are in ``memory``; without one (the site was in no sum) the shared model is all it has.
    """
    personal = strategy.personal(plan.layout)
    if personal.tuning_steps:
        seed = shuffle_seed(plan.model.seed, cohort.site, plan.rounds + 1)
        schedule = own_schedule(plan, cohort.site, rounds=1)
        schedule = schedule.model_copy(update={"steps": personal.tuning_steps, "epochs": None})
        patients = for_rounds(plan, cohort).train
        return train_plain(task.engine, shared, patients, LocalRule(plan.local.learning_rate), schedule, seed)
    if memory is None:
        return None
    if personal.pull is not None:
        return memory[MODEL].astype(np.float32)
    return with_own_layers(personal, shared, memory) if personal.layers else None
