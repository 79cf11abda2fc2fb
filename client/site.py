"""A hospital in the federation: its cohort, its ledger, its decisions. It answers one round at a time.

``work`` is a generator that stops after every phase (decided, reserved, started, trained, released). A caller that
drives it to the end gets the answer; a caller that stops is a crash at that point, and ``recover`` is the restart.
"""

import os
from collections.abc import Generator
from datetime import date
from enum import StrEnum

from wardround.client.connectors.cohort import Cohort
from wardround.client.policy import Denied, decide
from wardround.client.store.ledger import Ledger
from wardround.client.tasks import Task
from wardround.client.training import StepCounter, shuffle_seed, train_plain, train_private
from wardround.privacy.budget import Refused, allowance, fixed_order
from wardround.protocol.canonical import LABEL_RELEASE, digest
from wardround.protocol.errors import UsageError
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.ledger import OpenDomain
from wardround.protocol.messages import Refusal, RefusalCode, Reply, RoundRequest, join_contribution
from wardround.protocol.parameters import Update, Vector
from wardround.protocol.plan import PrivacyMode, StudyPlan
from wardround.strategies import State, Strategy

TRAINING_DOMAIN = "training"
"""The data domain of a site's training patients."""


class Phase(StrEnum):
    """Where a site stands in a round, after each durable or expensive step."""

    DECIDED = "decided"
    RESERVED = "reserved"
    STARTED = "started"
    TRAINED = "trained"
    RELEASED = "released"


Answer = Reply | Refusal


class Site:
    """One hospital under one approved plan. Noise and sampling always come from the operating system's CSPRNG."""

    def __init__(self, plan: StudyPlan, cohort: Cohort, task: Task, strategy: Strategy, ledger: Ledger) -> None:
        if task.layout != plan.layout:
            raise UsageError("the task's parameters are not the plan's", "build the task from the plan")
        self.plan = plan
        self.cohort = cohort
        self.ledger = ledger
        self._task = task
        self._strategy = strategy
        self._answered = ledger.released_rounds(plan.digest)

    @property
    def name(self) -> str:
        return self.cohort.site

    def open_domain(self, epsilon_cap: float, delta: float) -> None:
        """Give the training patients their lifetime budget at their own ``delta``, or note that there is none."""
        if self.plan.privacy.mode is PrivacyMode.NONE:
            fact = OpenDomain(domain=TRAINING_DOMAIN, delta=delta, epsilon_cap=None, order=None)
            self.ledger.open_domain(fact, None)
            return
        order = fixed_order(epsilon_cap, delta)
        fact = OpenDomain(domain=TRAINING_DOMAIN, delta=delta, epsilon_cap=epsilon_cap, order=order)
        self.ledger.open_domain(fact, allowance(epsilon_cap, delta, order))

    def recover(self) -> None:
        """Restart after a crash: the ledger settles what was open; a charge is never given back once drawn."""
        self.ledger.recover()

    def work(self, request: RoundRequest, today: date) -> Generator[Phase, None, Answer]:
        """Answer ``request``, phase by phase. The generator's value is a Reply or a Refusal."""
        expected = self._strategy.local_rule(State(request.model), self.plan.local.learning_rate)
        decision = decide(self.plan, request, expected, today, self._answered)
        yield Phase.DECIDED
        if isinstance(decision, Denied):
            return self._refuse(request, decision.code, decision.reason)
        block = f"{request.plan[:16]}/{request.round_number:05d}/{request.attempt}"
        event = self.plan.round_event(self.name)
        refused = self.ledger.reserve(block, TRAINING_DOMAIN, request.plan, request.round_number, event)
        if isinstance(refused, Refused):
            return self._refuse(request, RefusalCode.POLICY, refused.reason)
        yield Phase.RESERVED
        self.ledger.start(block)
        yield Phase.STARTED
        model = self._train(request)
        yield Phase.TRAINED
        update = Update(model - request.model, self._weight)
        vector = join_contribution(self._strategy.contribute(update))
        self.ledger.release(block, digest(LABEL_RELEASE, vector))
        self._answered.add(request.round_number)
        yield Phase.RELEASED
        return Reply(self.name, request.plan, request.round_number, request.attempt, request.model_hash, vector)

    def answer(self, request: RoundRequest, today: date) -> Answer:
        """Answer ``request`` without interruption."""
        work = self.work(request, today)
        while True:
            try:
                next(work)
            except StopIteration as finished:
                return finished.value  # type: ignore[no-any-return]

    @property
    def _weight(self) -> float:
        """The declared patients under DP (a public constant), the exact count in an unprotected simulation."""
        if self.plan.privacy.mode is PrivacyMode.NONE:
            return float(self.cohort.train.patients)
        return float(self.plan.declared_patients(self.name))

    def _train(self, request: RoundRequest) -> Vector:
        event = self.plan.round_event(self.name)
        if not isinstance(event, PoissonGaussian):
            seed = shuffle_seed(self.plan.model.seed, self.name, request.round_number)
            return train_plain(self._task.engine, request.model, self.cohort.train, request.rule, self.plan.local, seed)
        return train_private(
            self._task.engine,
            request.model,
            self.cohort.train,
            request.rule,
            event,
            self.plan.privacy.clip_norm,
            os.urandom,
            StepCounter(),
        )

    def _refuse(self, request: RoundRequest, code: RefusalCode, reason: str) -> Refusal:
        self.ledger.refuse(request.plan, request.round_number, reason)
        return Refusal(self.name, request.plan, request.round_number, request.attempt, code)
