"""A hospital in the federation: its cohort, its ledger, its decisions. It answers one round at a time.

``work`` is a generator that stops after every phase (decided, reserved, started, trained, released). A caller that
drives it to the end gets the answer; a caller that stops is a crash at that point, and ``recover`` is the restart.
"""

import os
from collections.abc import Callable, Generator
from dataclasses import replace
from datetime import date
from enum import StrEnum
from sqlite3 import Connection

import numpy as np

from wardround.client.answers import Answers
from wardround.client.connectors.cohort import Cohort
from wardround.client.fall_back import in_rounds
from wardround.client.governance import CONSORTIUM_DOMAIN, TRAINING_DOMAIN, charge_for
from wardround.client.learning import Interrupted, Learn, Learner
from wardround.client.policy import Denied, decide
from wardround.client.population import read_by
from wardround.client.store.ledger import Ledger
from wardround.client.store.memory import SiteMemory
from wardround.client.store.replies import StoredReplies
from wardround.client.tasks import Task
from wardround.privacy.books import NotAllowed
from wardround.privacy.budget import Refused
from wardround.privacy.gradients import Examples
from wardround.protocol.canonical import LABEL_RELEASE, digest
from wardround.protocol.errors import ProtocolViolation, UsageError, WardroundError
from wardround.protocol.ledger import Abandon, BlockState, Refuse, Release, Reserve, Start
from wardround.protocol.messages import Refusal, RefusalCode, Reply, RoundRequest, join_contribution
from wardround.protocol.outgoing import Outgoing, outgoing, parse_answer
from wardround.protocol.owners import COORDINATOR
from wardround.protocol.parameters import Contribution
from wardround.protocol.plan import PrivacyMode, StudyPlan
from wardround.strategies import Adding, Strategy
from wardround.strategies.base import Memory


class Phase(StrEnum):
    """Where a site stands in a round, after each durable or expensive step; TRAINED: or added up."""

    DECIDED = "decided"
    RESERVED = "reserved"
    STARTED = "started"
    TRAINED = "trained"
    RELEASED = "released"


Seal = Callable[[Reply], Outgoing]


Consent = Callable[[], "np.ndarray | None"]
"""Who of those that the plan reads may be drawn now, a mask (patients,); None: all. Asked before every round."""


class Site:
    """One hospital under one approved plan. Noise and sampling always come from the operating system's CSPRNG.

    Args:
        task: what is trained, or the queries of a statistics study.
        domains: the data domains that the patients whom the plan reads belong to; a round is charged to each of them.
        replies: keeps finished answers, so that a request that comes again gets the same bytes. None: a simulation,
            whose coordinator never asks twice.
        consent: who has not opted out.
        stopped: asked before every optimiser step: whether people have stopped the study.
        learn: what trains in a round that is charged; None: a ``Learner`` of this process.
        seal: what leaves for a finished reply: the reply itself, or under secure aggregation its masked form.
        memory: keeps what the strategy lets a site remember; needed by those that do.
    """

    def __init__(
        self,
        plan: StudyPlan,
        cohort: Cohort,
        task: Task | Answers,
        strategy: Strategy,
        ledger: Ledger,
        *,
        domains: tuple[str, ...] = (TRAINING_DOMAIN,),
        replies: StoredReplies | None = None,
        consent: Consent = lambda: None,
        stopped: Callable[[], bool] = lambda: False,
        learn: Learn | None = None,
        seal: Seal = outgoing,
        memory: SiteMemory | None = None,
    ) -> None:
        if task.layout != plan.layout:
            raise UsageError("the task's parameters are not the plan's", "build the task from the plan")
        if memory is None and strategy.memory_sizes(plan.layout):
            raise UsageError(f"strategy '{strategy.name}' needs a site memory", "give the site a store for it")
        self.plan = plan
        self.cohort = cohort
        self.ledger = ledger
        self._task = task
        self._strategy = strategy
        self._domains = domains
        self._replies = replies
        self._consent = consent
        self._stopped = stopped
        self._learn = learn
        self._seal = seal
        self._memory = memory
        self._patients = read_by(plan.task, cohort)
        self._drawn = in_rounds(plan, cohort)

    @property
    def name(self) -> str:
        return self.cohort.site

    def recover(self) -> None:
        """Restart after a crash: the ledger settles what was open; a charge is never given back once drawn."""
        self.ledger.recover(self.plan.digest)

    def work(self, request: RoundRequest, today: date) -> Generator[Phase, None, Outgoing]:
        """Answer ``request``, phase by phase. The generator's value is what may leave."""
        state = self._strategy.init(request.model).under(self.plan)
        expected = self._strategy.local_rule(state, self.plan.local.learning_rate)
        decision = decide(self.plan, request, expected, today)
        yield Phase.DECIDED
        if isinstance(decision, Denied):
            return self.refuse(request, decision.code, decision.reason)
        try:
            if (again := self._answered_before(request)) is not None:
                return again
        except ProtocolViolation as error:
            return self.refuse(request, RefusalCode.UNAVAILABLE, error.message)
        self._give_up(request)
        books = self.ledger.state
        if request.round_number in books.answered.get(request.plan, ()):
            return self.refuse(
                request, RefusalCode.PROTOCOL, f"round {request.round_number} was answered from another model"
            )
        if self._ended_by_a_crash(request):
            return self.refuse(request, RefusalCode.UNAVAILABLE, "this round was ended by a restart, and stays charged")
        try:
            patients, left_out = self._present()
        except WardroundError as error:
            return self.refuse(request, RefusalCode.UNAVAILABLE, error.message)
        blocks = {domain: self._block(request, domain) for domain in self._charged_domains()}
        if any(block in books.blocks for block in blocks.values()):
            return self.refuse(request, RefusalCode.UNAVAILABLE, "this attempt was ended by a restart")
        facts = [
            Reserve(
                domain=domain,
                block=block,
                plan=request.plan,
                round_number=request.round_number,
                event=charge_for(self.plan, self.name, domain),
            )
            for domain, block in blocks.items()
        ]
        refused = self.ledger.reserve(*facts)
        if isinstance(refused, Refused):
            return self.refuse(request, RefusalCode.POLICY, refused.reason)
        yield Phase.RESERVED
        try:
            self.ledger.record(*(Start(block=block, opted_out_at_most=left_out) for block in blocks.values()))
        except NotAllowed as error:
            self.ledger.recover(request.plan)
            return self.refuse(request, RefusalCode.POLICY, error.message)
        yield Phase.STARTED
        try:
            contribution, memory = self._contribute(request, patients)
        except Interrupted as error:
            self.ledger.recover(request.plan)
            return self.refuse(request, RefusalCode.UNAVAILABLE, error.message)
        yield Phase.TRAINED
        vector = join_contribution(contribution)
        reply = Reply(self.name, request.plan, request.round_number, request.attempt, request.model_hash, vector)
        try:
            answer = self._release(request, reply, memory)
        except WardroundError as error:
            # Not allowed any more, or not to be masked. What depends on patients here is a noised vector.
            return self.refuse(request, RefusalCode.UNAVAILABLE, error.message)
        yield Phase.RELEASED
        return answer

    def block_of(self, reply: Reply) -> str:
        """The ledger's block in which this reply was made. A block is trained once, so it names the reply's vector."""
        return self.ledger.state.current[reply.plan, self._domains[0], reply.round_number]

    def answer(self, request: RoundRequest, today: date) -> Outgoing:
        """Answer ``request`` without interruption."""
        return drive(self.work(request, today))

    def _charged_domains(self) -> tuple[str, ...]:
        """The patients' own domains, and the consortium's curve where there is one or the plan needs it."""
        needed = self.plan.privacy.mode is PrivacyMode.DIST or CONSORTIUM_DOMAIN in self.ledger.state.domains
        return (*self._domains, CONSORTIUM_DOMAIN) if needed else self._domains

    def _block(self, request: RoundRequest, domain: str) -> str:
        return f"{request.plan[:16]}/{request.round_number:05d}/{request.attempt}/{domain}"

    def _ended_by_a_crash(self, request: RoundRequest) -> bool:
        """Whether an attempt at this round was charged and released nothing: under privacy it is not drawn twice."""
        blocks, domain = self.ledger.state.blocks, self._domains[0]
        if self.plan.privacy.mode is PrivacyMode.NONE:
            return False
        names = (self._block(replace(request, attempt=attempt), domain) for attempt in range(1, request.attempt + 1))
        found = [blocks[name] for name in names if name in blocks]
        return any(block.state is BlockState.ABANDONED and not block.attempts for block in found)

    def _answered_before(self, request: RoundRequest) -> Outgoing | None:
        """The answer that this round had from the same model: the same bytes, or the same vector for a new attempt."""
        found = None if self._replies is None else self._replies.find(request)
        if found is None:
            return None
        attempt, data = found
        if attempt != request.attempt and self.plan.privacy.mode is PrivacyMode.DIST:
            return None
        stored = parse_answer(data, self.name)
        if not isinstance(stored, Reply):
            raise TypeError("only a Reply is stored")
        if attempt not in self._attempts(stored):
            raise ProtocolViolation(COORDINATOR, f"attempt {attempt} was given up for another batch")
        if attempt == request.attempt:
            return self._seal(stored)
        return self._release(request, replace(stored, attempt=request.attempt))

    def _attempts(self, stored: Reply) -> tuple[int, ...]:
        """The attempts that the round's block has answered; a block that was given up answers no more."""
        state = self.ledger.state
        name = state.current.get((stored.plan, self._domains[0], stored.round_number))
        return () if name is None else state.blocks[name].attempts

    def _give_up(self, request: RoundRequest) -> None:
        """In mode dist every attempt is another batch, with noise of its own and a charge.

        A sum that looks void may have been opened: the same answer in a second sum would show it twice, each time
        beside the noise of others, for one charge.
        """
        if self.plan.privacy.mode is not PrivacyMode.DIST or self._replies is None or not self._replies.find(request):
            return
        state, number = self.ledger.state, request.round_number
        blocks = [state.current.get((request.plan, domain, number)) for domain in self._charged_domains()]
        released = [name for name in blocks if name and state.blocks[name].state is BlockState.RELEASED]
        if released:
            self.ledger.record(*(Abandon(block=name) for name in released))

    def _release(self, request: RoundRequest, reply: Reply, memory: Memory | None = None) -> Outgoing:
        """Note the hash of what leaves, and keep the bytes and the next memory, in one transaction, before they leave.

        A memory that is not finite is not kept: no later round could begin with it.
        """
        answer, kept = self._seal(reply), outgoing(reply)
        content = digest(LABEL_RELEASE, answer.content)
        current, number = self.ledger.state.current, request.round_number
        blocks = [current.get((request.plan, domain, number), "none") for domain in self._charged_domains()]
        facts = (Release(block=block, attempt=request.attempt, content=content) for block in blocks)
        writers = [] if self._replies is None else [self._replies.writer(request, kept.content)]
        if self._memory is not None and memory and all(np.isfinite(part).all() for part in memory.values()):
            writers.append(self._memory.writer(request, memory))

        def store(connection: Connection) -> None:
            for write in writers:
                write(connection)

        self.ledger.record(*facts, also=store)
        return answer

    def _present(self) -> tuple[Examples, int]:
        """The patients who may be drawn, and how many may not, rounded up to the next 10."""
        patients, present = self._patients, self._consent()
        if present is None:
            present = np.ones(patients.patients, bool)
        left_out = -(-int((~present).sum()) // 10) * 10
        if self._drawn is not None:
            present = present & self._drawn
        return (patients if present.all() else patients.only(np.flatnonzero(present))), left_out

    def remembered(self, round_number: int, model_hash: str) -> Memory | None:
        """The memory with which a round from this model begins. Raises UsageError where it cannot be opened."""
        if self._memory is None:
            return None
        return self._memory.before(self.plan.digest, round_number, model_hash)

    def _contribute(self, request: RoundRequest, patients: Examples) -> tuple[Contribution, Memory]:
        """What the site adds to the sum, and what it remembers: of a statistics study nothing."""
        if isinstance(self._task, Answers):
            assert isinstance(self._strategy, Adding)
            if self._stopped():
                raise Interrupted("the work was stopped before it began", "its charge stays; the study may be resumed")
            return self._strategy.added(self._task.vector(patients, os.urandom, request.model, self.name)), {}
        learn = self._learn or Learner(self.plan, self.name, self._task, self._strategy, self._stopped).learn
        update, memory = learn(request, self.remembered(request.round_number, request.model_hash), patients)
        return self._strategy.contribute(update), memory

    def refuse(self, request: RoundRequest, code: RefusalCode, reason: str) -> Outgoing:
        """Tell the ledger why; the wire gets one of three words."""
        self.ledger.record(Refuse(plan=request.plan, round_number=request.round_number, reason=reason))
        return outgoing(Refusal(self.name, request.plan, request.round_number, request.attempt, code))


def drive(work: Generator[Phase, None, Outgoing]) -> Outgoing:
    """The value of a site's work, driven to its end."""
    while True:
        try:
            next(work)
        except StopIteration as finished:
            return finished.value  # type: ignore[no-any-return]
