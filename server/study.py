"""A study at the coordinator: its rounds one after another, as a value that can be written down and read back.

Everything that the next round depends on is in ``Progress``; a coordinator that was killed reads the last checkpoint
and goes on bit for bit.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from wardround.privacy.secagg.scale import VECTOR, quantizer_for
from wardround.privacy.secagg.server import AttemptDesk, SetupDesk
from wardround.protocol.errors import UsageError
from wardround.protocol.indicators import Indicators
from wardround.protocol.messages import RoundRequest
from wardround.protocol.parameters import Total, Vector, model_hash
from wardround.protocol.plan import StudyPlan
from wardround.protocol.weights import Installed, nothing_installed
from wardround.server.plausible import Lengths, lengths
from wardround.server.rounds import Report, Round, RoundState
from wardround.server.sums import Adding, MaskedSum, OpenSum
from wardround.strategies import State, Strategy, step_in_blocks

VOIDS_OF_A_SITE: Final = 3
"""Void rounds of one site's making after which a study stops: each costs the other hospitals a charge for nothing."""


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """What happened in a round: who was in it, who was not and why, and which model came out.

    ``evaluated``: of a round that evaluated a model in training, that model's hash; what came out are sums.
    """

    round_number: int
    state: RoundState
    reports: Mapping[str, Report]
    model_before: str
    model_after: str
    voided_by: tuple[str, ...] = ()
    warning: str = ""
    evaluated: str | None = None

    @property
    def contributors(self) -> tuple[str, ...]:
        return tuple(site for site, report in self.reports.items() if report.outcome == "replied")


@dataclass(frozen=True, slots=True)
class Progress:
    """A study between two rounds: plan, strategy state, rounds done, and how many rounds each site has voided."""

    plan: str
    state: State
    rounds_done: int
    voided: Mapping[str, int] = field(default_factory=dict)

    def to_parts(self) -> tuple[bytes | memoryview, ...]:
        """A header line of JSON, and the state's safetensors that follow it."""
        header = {"plan": self.plan, "rounds_done": self.rounds_done, "voided": dict(self.voided)}
        return json.dumps(header, sort_keys=True).encode() + b"\n", *self.state.to_parts()

    def to_bytes(self) -> bytes:
        """The two in one."""
        return b"".join(self.to_parts())

    @classmethod
    def from_bytes(cls, data: bytes, plan: StudyPlan) -> "Progress":
        """The progress in ``data``. Raises UsageError when it belongs to another plan."""
        header, _, state = data.partition(b"\n")
        fields = json.loads(header)
        if fields["plan"] != plan.digest:
            raise UsageError("this checkpoint belongs to another plan", "resume with the plan.json beside it")
        return cls(fields["plan"], State.from_bytes(state), fields["rounds_done"], fields["voided"])


class Study:
    """Opens rounds, takes their totals into the strategy, keeps the record."""

    def __init__(
        self,
        plan: StudyPlan,
        strategy: Strategy,
        progress: Progress | None = None,
        installed: Installed = nothing_installed,
    ) -> None:
        self.plan = plan
        self.desk: SetupDesk | None = None
        """The session of secure aggregation that rounds use; a plan that asks for it opens no round without."""
        self.stopped_by: tuple[str, ...] = ()
        """The sites that have now voided ``VOIDS_OF_A_SITE`` rounds: no round is opened before people decide."""
        self.in_training: Vector | None = None
        """What the next round evaluates, in a study that follows a training."""
        self._strategy = strategy
        self._squared = 0.0
        if progress is None:
            progress = Progress(plan.digest, strategy.init(plan.starting_model(installed)), 0)
        self.progress = replace(progress, state=progress.state.under(plan))

    @property
    def vector_length(self) -> int:
        """Coordinates of a contribution."""
        return sum(self._strategy.part_sizes(self.plan.layout.size).values())

    @property
    def finished(self) -> bool:
        return self.progress.rounds_done >= self.plan.rounds

    def request(self, attempt: int = 1) -> RoundRequest:
        """What every participant is asked in the next round."""
        state = self.progress.state
        model = state.model if self.plan.follows is None else self.in_training
        if model is None:
            raise UsageError("a study that follows a training evaluates a model of it", "give it one for each round")
        return RoundRequest(
            plan=self.plan.digest,
            round_number=self.progress.rounds_done + 1,
            attempt=attempt,
            model=model,
            model_hash=model_hash(model),
            rule=self._strategy.local_rule(state, self.plan.local.learning_rate),
        )

    def open_round(self, now: float, attempt: int = 1, among: Sequence[str] = ()) -> Round:
        """An attempt at the next round, open for every participant of the plan from ``now`` (seconds) on.

        ``among``: the sites of the session that are proposed for a sum under masks (sorted, at least t); none: all.
        """
        request = self.request(attempt)
        participants = tuple(participant.site for participant in self.plan.participants)
        sums, quorum = self._sums(request, among)
        deadline = now + self.plan.deadline_seconds
        return Round(request, participants, sums, quorum, deadline, self.plan.must_include)

    def close_round(self, closed: Round) -> RoundRecord:
        """Take a settled round: step the strategy, or leave the model alone when the round is void."""
        state, warning = self.progress.state, ""
        before, size = self._before(closed), len(state.model)
        if closed.state is RoundState.CLOSED:
            totals, memory = self._measured(closed.totals(size)), closed.spare(size)
            state = step_in_blocks(self._strategy, state.at(closed.request.round_number), totals, memory)
            expected = self._expected(closed.contributors)
            warning = "" if expected is None else expected.warning(self._squared**0.5)
        elif closed.state is RoundState.OPEN:
            raise UsageError("the round is still open", "settle it first")
        number, reports = closed.request.round_number, dict(closed.reports)
        # A void tick of a campaign costs nobody a charge: whoever is away is a gap in its series.
        voided = Counter(self.progress.voided) + Counter(() if self._campaign else closed.voided_by)
        self.stopped_by = tuple(sorted(site for site, times in voided.items() if times >= VOIDS_OF_A_SITE))
        for site in self.stopped_by:
            del voided[site]
        self.progress = Progress(self.plan.digest, state, number, dict(sorted(voided.items())))
        after, evaluated = model_hash(state.model), self._evaluated(closed)
        return RoundRecord(number, closed.state, reports, before, after, closed.voided_by, warning, evaluated)

    def void_record(self, void: Round) -> RoundRecord:
        """A void attempt that is tried again: the model stays, and who voided it is named."""
        reports, before, evaluated = dict(void.reports), self._before(void), self._evaluated(void)
        number = void.request.round_number
        return RoundRecord(number, RoundState.VOID, reports, before, before, void.voided_by, "", evaluated)

    def _before(self, one: Round) -> str:
        """The hash of what the study had made when the round began."""
        return one.request.model_hash if self.plan.follows is None else model_hash(self.progress.state.model)

    def _evaluated(self, one: Round) -> str | None:
        return None if self.plan.follows is None else one.request.model_hash

    def leave_out(self) -> None:
        """The next tick of a campaign is over without a sum: too few hospitals were there to be asked."""
        done = self.progress
        self.progress = replace(done, rounds_done=done.rounds_done + 1)

    @property
    def _campaign(self) -> bool:
        return isinstance(self.plan.task, Indicators)

    def _expected(self, sites: tuple[str, ...]) -> Lengths | None:
        """What lengths the sum may have; None: nothing is predicted."""
        return lengths(self.plan, self._strategy, sites)

    def _measured(self, totals: Iterator[tuple[slice, Total]]) -> Iterator[tuple[slice, Total]]:
        """The same sums; on the way the squared length of the update is added up."""
        self._squared = 0.0
        for at, total in totals:
            update = total.parts.get("update")
            self._squared += 0.0 if update is None else float(np.square(update).sum())
            yield at, total

    def _sums(self, request: RoundRequest, among: Sequence[str]) -> tuple[Adding, int]:
        """What adds the round's vectors up, and how many it takes at least."""
        sizes = self._strategy.part_sizes(self.plan.layout.size)
        if not self.plan.privacy.secure_aggregation:
            return OpenSum(sizes), self.plan.min_sites
        if self.desk is None:
            raise UsageError("this study needs a session of secure aggregation", "set one up with its sites first")
        asked = request.round_number, request.attempt, request.model_hash
        desk = AttemptDesk(self.desk, self.desk.proposal(*asked, VECTOR, among))
        return MaskedSum(desk, quantizer_for(self.plan, sizes), sizes), self.desk.session.threshold
