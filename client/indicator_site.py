"""A hospital in a campaign of indicators: it answers one tick at a time, and is charged once for all of them.

As in ``client.site``, ``work`` is a generator that stops after every phase, and a caller that stops is a crash there.
The whole campaign is one block of the ledger, reserved and started before the first event is read, and every tick is a
release of it. What a tick took (``client.contributions``), the noised bytes, and the note of their hash are one
transaction: after a crash a tick either leaves again byte for byte, or nothing of it ever left and it is done anew.
So a tick has one vector here for ever, whatever attempts and sessions it is asked in. One charge is enough because of
it, and in mode dist, where its noise is a share, the promise against those who may collude rests on it (ADR 0033).
"""

import os
from collections.abc import Callable, Generator
from dataclasses import replace
from datetime import UTC, date, datetime
from sqlite3 import Connection

import numpy as np

from wardround.client.contributions import Contributions, Step
from wardround.client.counted import Everybody, Patients
from wardround.client.feeds.events import Event, Feed
from wardround.client.governance import CONSORTIUM_DOMAIN, charge_for
from wardround.client.policy import Denied, decide
from wardround.client.site import Phase, Seal, drive
from wardround.client.store.campaigns import CampaignSteps
from wardround.client.store.ledger import Ledger
from wardround.client.store.replies import StoredReplies
from wardround.privacy.books import Block, NotAllowed
from wardround.privacy.budget import Refused
from wardround.privacy.continual import closed_sums, noised, scale
from wardround.protocol.canonical import LABEL_RELEASE, digest
from wardround.protocol.errors import UsageError, WardroundError
from wardround.protocol.indicators import PRESENT, Indicators
from wardround.protocol.ledger import BlockState, Refuse, Release, Reserve, Start
from wardround.protocol.messages import Refusal, RefusalCode, Reply, RoundRequest, join_contribution
from wardround.protocol.outgoing import Outgoing, outgoing, parse_answer
from wardround.protocol.parameters import Contribution
from wardround.protocol.plan import PrivacyMode, StudyPlan
from wardround.strategies import TreeSums, strategy_for


class IndicatorSite:
    """One hospital under one approved plan of indicators. Noise comes from the operating system's CSPRNG.

    Args:
        domains: the data domains of all patients whose events the feed may tell of: each is charged the whole campaign.
        steps: keeps what each tick took.
        replies: keeps finished answers, so that a request that comes again gets the same bytes.
        patients: whose events count. Asked anew for every tick.
        now: what the clock says, UTC: no tick is answered before it is over.
        seal: what leaves for a finished reply: the reply itself, or under secure aggregation its masked form.
    """

    def __init__(
        self,
        name: str,
        plan: StudyPlan,
        feed: Feed,
        ledger: Ledger,
        *,
        domains: tuple[str, ...],
        steps: CampaignSteps,
        replies: StoredReplies,
        patients: Patients | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        seal: Seal = outgoing,
    ) -> None:
        strategy = strategy_for(plan)
        if not isinstance(plan.task, Indicators) or not isinstance(strategy, TreeSums):
            raise UsageError("this plan publishes no indicators", "give the plan of a campaign of indicators")
        self.plan = plan
        self.ledger = ledger
        self._name = name
        self._task = plan.task
        self._strategy = strategy
        self._feed = feed
        self._domains = domains
        self._steps = steps
        self._replies = replies
        self._patients = patients or Everybody()
        self._now = now
        self._seal = seal
        self._place = [participant.site for participant in plan.participants].index(name)
        self._held: Contributions | None = None
        self._unkept: set[int] = set()

    @property
    def name(self) -> str:
        return self._name

    def recover(self) -> None:
        """Restart after a crash: a campaign that had not started is not charged; one that had goes on as it is.

        Nothing of a tick that was under way has left, or else it is stored: so unlike a round of training nothing needs
        to be abandoned.
        """
        self._held = None
        self.ledger.recover(self.plan.digest)

    def work(self, request: RoundRequest, today: date) -> Generator[Phase, None, Outgoing]:
        """Answer ``request``, phase by phase. The generator's value is what may leave."""
        state = self._strategy.init(request.model).under(self.plan)
        decision = decide(self.plan, request, self._strategy.local_rule(state, self.plan.local.learning_rate), today)
        yield Phase.DECIDED
        if isinstance(decision, Denied):
            return self.refuse(request, decision.code, decision.reason)
        if (lost := self.ledger.missing_head()) is not None:
            reason = f"others have seen {lost} entries of this ledger that this file does not hold: it was put back"
            return self.refuse(request, RefusalCode.POLICY, reason)
        try:
            if (found := self._replies.find(request)) is not None:
                return self._again(request, *found)
            last = self._contributions().last
        except WardroundError as error:
            return self.refuse(request, RefusalCode.UNAVAILABLE, error.message)
        if request.round_number <= last:
            return self.refuse(request, RefusalCode.PROTOCOL, f"tick {last} was answered, and time does not go back")
        if request.round_number in self._unkept:
            # The masks of its session hold that vector still: another one beside it would be a second release.
            reason = f"tick {request.round_number} has a vector that could not be kept; it gets no other one"
            return self.refuse(request, RefusalCode.UNAVAILABLE, reason)
        if request.round_number > self._task.ended(self._now()):
            return self.refuse(request, RefusalCode.PROTOCOL, f"tick {request.round_number} is not over")
        try:
            left_out = self._patients.look()
        except WardroundError as error:
            return self.refuse(request, RefusalCode.UNAVAILABLE, error.message)
        refused = yield from self._charged(request, left_out)
        if refused is not None:
            return refused
        try:
            step = self._step(request)
            contribution = self._contribution(step)
            yield Phase.TRAINED
            about = (self._name, request.plan, request.round_number, request.attempt, request.model_hash)
            answer = self._release(request, Reply(*about, join_contribution(contribution)), step)
        except WardroundError as error:
            # Not allowed any more, not to be masked, or a source that cannot be read: nothing of the tick has left.
            self._held = None
            return self.refuse(request, RefusalCode.UNAVAILABLE, error.message)
        yield Phase.RELEASED
        return answer

    def answer(self, request: RoundRequest, today: date) -> Outgoing:
        """Answer ``request`` without interruption."""
        return drive(self.work(request, today))

    def block_of(self, reply: Reply) -> str:
        """The campaign's block and the tick: what names this reply's vector, and no other."""
        block = self._blocks()[self._domains[0]]
        assert block is not None
        return f"{block.name}/{reply.round_number}"

    def refuse(self, request: RoundRequest, code: RefusalCode, reason: str) -> Outgoing:
        """Tell the ledger why; the wire gets one of three words."""
        self.ledger.record(Refuse(plan=request.plan, round_number=request.round_number, reason=reason))
        return outgoing(Refusal(self._name, request.plan, request.round_number, request.attempt, code))

    def _charged_domains(self) -> tuple[str, ...]:
        needed = self.plan.privacy.mode is PrivacyMode.DIST or CONSORTIUM_DOMAIN in self.ledger.state.domains
        return (*self._domains, CONSORTIUM_DOMAIN) if needed else self._domains

    def _blocks(self) -> dict[str, Block | None]:
        """The campaign's block on each domain."""
        state = self.ledger.state
        return {domain: state.campaign(self.plan.digest, domain) for domain in self._charged_domains()}

    def _charged(self, request: RoundRequest, left_out: int) -> Generator[Phase, None, Outgoing | None]:
        """Reserve and start the whole campaign on every domain that it is not charged to yet; or why that cannot be."""
        known, number = self.ledger.state.blocks, 1
        missing = [domain for domain, block in self._blocks().items() if block is None]
        while any(self._named(number, domain) in known for domain in missing):
            number += 1  # One that was cancelled: nothing had been read.
        facts = [
            Reserve(
                domain=domain,
                block=self._named(number, domain),
                plan=request.plan,
                round_number=request.round_number,
                event=charge_for(self.plan, self._name, domain),
            )
            for domain in missing
        ]
        refused = self.ledger.reserve(*facts) if facts else None
        if isinstance(refused, Refused):
            return self.refuse(request, RefusalCode.POLICY, refused.reason)
        yield Phase.RESERVED
        waiting = [block for block in self._blocks().values() if block and block.state is BlockState.RESERVED]
        try:
            if waiting:
                self.ledger.record(*(Start(block=block.name, opted_out_at_most=left_out) for block in waiting))
        except NotAllowed as error:
            return self.refuse(request, RefusalCode.POLICY, error.message)
        yield Phase.STARTED
        return None

    def _named(self, number: int, domain: str) -> str:
        return f"{self.plan.digest[:16]}/campaign/{number}/{domain}"

    def _contributions(self) -> Contributions:
        """What the campaign has counted up to its last answered tick."""
        if self._held is None:
            held = Contributions(self._task)
            for data in self._steps.all(self.plan.digest):
                held.apply(Step.from_bytes(data))
            self._held = held
        return self._held

    def _step(self, request: RoundRequest) -> Step:
        """What this tick takes: events since the watermark, and what was counted in a tick that is in no sum."""
        held = self._contributions()
        present = self.plan.layout.split(request.model)[PRESENT]
        again = held.last > 0 and present[held.last - 1, self._place] < 0.5
        gone = self._patients.gone(held.pending(again))
        taken, watermark = list[Event](), held.watermark
        while True:
            events, watermark = self._feed.poll(watermark)
            if not events:
                return Step(request.round_number, bool(again), tuple(taken), watermark, gone)
            asked = [each for each in events if each.kind in self._task.kinds and each.at >= self._task.start]
            taken += self._patients.counted(asked)

    def _contribution(self, step: Step) -> Contribution:
        """The noised sums of the nodes that close at this tick, in units of the joint bound.

        Each sum is held within what the masks can carry before its noise, so that no refusal tells how large it is.
        Holding moves no two numbers apart, so a patient still moves all nodes by 1 at most.
        """
        held, task = self._contributions(), self._task
        held.apply(step)
        scales = np.array([scale(task, indicator) for indicator in task.indicators])
        reach = self.plan.most_of_a_statistic
        exact = np.clip(closed_sums(held.stream, step.tick) / scales, -reach, reach)
        sums = noised(exact, self.plan.privacy.noise_multiplier, os.urandom)
        return self._strategy.added(sums, self._place)

    def _again(self, request: RoundRequest, attempt: int, data: bytes) -> Outgoing:
        """The stored answer: the same bytes, or the same vector for a new attempt."""
        stored = parse_answer(data, self._name)
        if not isinstance(stored, Reply):
            raise TypeError("only a Reply is stored")
        if attempt == request.attempt:
            return self._seal(stored)
        return self._release(request, replace(stored, attempt=request.attempt), None)

    def _release(self, request: RoundRequest, reply: Reply, step: Step | None) -> Outgoing:
        """Note the hash of what leaves, and keep the bytes and the step, in one transaction, before they leave."""
        tick = request.round_number
        answer, kept = self._seal(reply), outgoing(reply)
        self._unkept.add(tick)
        content = digest(LABEL_RELEASE, answer.content)
        blocks = [block.name for block in self._blocks().values() if block is not None]
        facts = (Release(block=block, attempt=request.attempt, content=content, round_number=tick) for block in blocks)
        writers = [self._replies.writer(request, kept.content)]
        if step is not None:
            writers.append(self._steps.writer(self.plan.digest, tick, step.to_bytes()))

        def store(connection: Connection) -> None:
            for write in writers:
                write(connection)

        self.ledger.record(*facts, also=store)
        self._unkept.discard(tick)
        return answer
