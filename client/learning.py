"""What a hospital learns in one round: from the round's model and its own patients to an update and its next memory.

It reads no ledger and decides nothing: ``Site`` calls it for a round that is charged, and a simulation may call it in
another process. Noise and sampling come from the operating system's CSPRNG of the process that trains.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from wardround.client.personal import corrections, own_layers, own_step, with_own_layers, without_own_layers
from wardround.client.tasks import Task
from wardround.client.training import StepCounter, shuffle_seed, steps_of, train_plain, train_private
from wardround.privacy.gradients import Examples
from wardround.protocol.errors import WardroundError
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.messages import RoundRequest
from wardround.protocol.parameters import Update, Vector
from wardround.protocol.plan import PrivacyMode, StudyPlan
from wardround.strategies import Strategy
from wardround.strategies.base import Memory

Learn: TypeAlias = Callable[[RoundRequest, Memory | None, Examples], tuple[Update, Memory]]
"""From the request, the memory with which the round begins and the patients who may be drawn: see ``Learner.learn``."""


class Interrupted(WardroundError):
    """The work ended between two steps; what was charged stays charged, and nothing leaves."""


def weight_of(plan: StudyPlan, site: str, strategy: Strategy, patients: int) -> float:
    """The declared patients under DP (a public constant), the exact count in an unprotected simulation."""
    if plan.privacy.mode is PrivacyMode.NONE and not strategy.declared_weights:
        return float(patients)
    return float(plan.declared_patients(site))


@dataclass(frozen=True, slots=True)
class Learner:
    """One site's training under a plan. ``stopped`` is asked before every optimiser step."""

    plan: StudyPlan
    site: str
    task: Task
    strategy: Strategy
    stopped: Callable[[], bool] = lambda: False

    def learn(self, request: RoundRequest, memory: Memory | None, patients: Examples) -> tuple[Update, Memory]:
        """What a round teaches: the update, of which nothing that is the site's own is left, and the next memory.

        The strategy makes its part of the memory from that update and from nothing else. Raises Interrupted.
        """
        strategy, layout = self.strategy, self.plan.layout
        personal = strategy.personal(layout)
        known = corrections(strategy, layout.size, memory)
        begin = with_own_layers(personal, request.model, memory)
        rule = replace(strategy.own_rule(request.rule, known), head=personal.layers, head_steps=personal.head_steps)
        model = self._train(replace(request, model=begin, rule=rule), patients)
        released = without_own_layers(personal.layers, model - begin)
        weight = weight_of(self.plan, self.site, strategy, patients.patients)
        update = Update(released, weight, steps_of(self.plan.local, patients.patients))
        after = {**strategy.next_memory(known, request.rule, update), **own_layers(personal.layers, model)}
        if personal.pull is not None:
            shared, number = request.model, request.round_number
            after |= own_step(
                self.plan, self.task, self.site, patients, shared, number, personal.pull, memory, self._go_on
            )
        return update, after

    def _train(self, request: RoundRequest, patients: Examples) -> Vector:
        event = self.plan.round_event(self.site)
        if not isinstance(event, PoissonGaussian):
            seed = shuffle_seed(self.plan.model.seed, self.site, request.round_number)
            local = self.plan.local
            return train_plain(self.task.engine, request.model, patients, request.rule, local, seed, self._go_on)
        return train_private(
            self.task.engine,
            request.model,
            patients,
            request.rule,
            event,
            self.plan.privacy.clip_norm,
            os.urandom,
            StepCounter(),
            self._go_on,
        )

    def _go_on(self) -> None:
        if self.stopped():
            raise Interrupted("the work was stopped between two steps", "its charge stays; the study may be resumed")
