"""The federation in one process: the real ``Site`` of every hospital and the real ``Study``, joined by calls.

Deterministic from the plan, except for sampling and noise, which always come from the operating system's CSPRNG. The
clock is simulated: every answer takes no time, a late one arrives a second after the deadline.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final

from wardround.client.secure import SecureSite
from wardround.client.site import Phase, Site, drive
from wardround.protocol.errors import Unavailable
from wardround.protocol.identity import Identity
from wardround.protocol.messages import Refusal
from wardround.protocol.outgoing import Answer, Outgoing, bytes_to_send, parse_answer
from wardround.protocol.roster import Roster
from wardround.server.exchange import begin, open_sum, set_up
from wardround.server.rounds import Round, RoundState
from wardround.server.study import RoundRecord, Study
from wardround.server.sums import MaskedSum
from wardround.simulations.faults import LAST_PHASE, Fault, FaultKind, find, spoil
from wardround.simulations.parties import asking

VOID_ROUNDS_IN_A_ROW: Final = 3
"""After so many void rounds a study stops: more charges would buy nothing."""


@dataclass(slots=True)
class Federation:
    """Sites and a study in one process. ``sites`` are in any order; answers are summed in the order of names."""

    study: Study
    sites: Sequence[Site]
    today: date
    faults: Sequence[Fault] = ()
    secure: Mapping[str, SecureSite] = field(default_factory=dict)
    roster: Roster | None = None
    coordinator: Identity | None = None
    clock: float = 0.0

    def run(self, after_round: Callable[[RoundRecord], None] = lambda record: None) -> list[RoundRecord]:
        """Run every round that is left; ``after_round`` is called when a round is over and before the next opens.

        Raises:
            Unavailable: three rounds in a row were void, or three through one site; says who dropped and why.
        """
        records: list[RoundRecord] = []
        while not self.study.finished:
            record = self.step()
            records.append(record)
            after_round(record)
            last = records[-VOID_ROUNDS_IN_A_ROW:]
            if len(last) == VOID_ROUNDS_IN_A_ROW and all(r.state is RoundState.VOID for r in last):
                raise Unavailable(_why_void(record, self.study.plan.quorum), _what_helps(record))
            if self.study.stopped_by and not self.study.finished:
                raise Unavailable(
                    f"three rounds were void through {' and '.join(self.study.stopped_by)}; the study has stopped",
                    "each cost the other sites a charge for nothing: mend the site, or plan the study without it",
                )
        return records

    def step(self) -> RoundRecord:
        """One round: ask every site, settle, open the sum where it is masked, step the strategy."""
        self._set_up()
        opened = self.study.open_round(self.clock)
        late: list[Answer] = []
        for site in self.sites:
            self._ask(site, opened, late)
        if opened.settle(self.clock) is RoundState.OPEN:
            self.clock = opened.deadline
            opened.settle(self.clock)
        for answer in late:
            opened.receive(answer, opened.deadline + 1.0)
        open_sum(opened, asking(self.secure, self.today, self._reaches))
        return self.study.close_round(opened)

    def _set_up(self) -> None:
        """A session for the rounds that are left: before the first, and after a site has lost its own in a restart."""
        if self.roster is None or self.coordinator is None or all(site.ready for site in self.secure.values()):
            return
        done, plan = self.study.progress.rounds_done, self.study.plan
        desk = self.study.desk = set_up(
            plan,
            self.roster,
            self.coordinator,
            asking(self.secure, self.today),
            list(self.secure),
            name=f"rounds from {done + 1}",
            length=self.study.vector_length,
            rounds=range(done + 1, plan.rounds + 1),
            today=self.today,
        )
        for party in self.secure.values():
            party.begin(begin(plan, desk).agreements)

    def _reaches(self, exchange: str, site: str) -> bool:
        fault = find(self.faults, site, self.study.progress.rounds_done + 1)
        both = (FaultKind.SILENT_CONSENT, FaultKind.SILENT_OPENING)
        return fault not in {"query.consent": both[:1], "query.open": both}[exchange]

    def _work(self, site: Site, opened: Round) -> Generator[Phase, None, Outgoing]:
        sums = opened.sums
        if isinstance(sums, MaskedSum):
            return self.secure[site.name].work(opened.request, sums.desk.proposal, self.today)
        return site.work(opened.request, self.today)

    def _die(self, site: Site, opened: Round, fault: FaultKind) -> None:
        """Drive the site up to its last phase, leave it there as a crash would, and restart it."""
        work = self._work(site, opened)
        for phase in work:
            if phase is LAST_PHASE[fault]:
                break
        work.close()
        if site.name in self.secure:
            self.secure[site.name].restart()
        else:
            site.recover()

    def _ask(self, site: Site, opened: Round, late: list[Answer]) -> None:
        request = opened.request
        fault = find(self.faults, site.name, request.round_number)
        if fault is FaultKind.UNREACHED:
            return
        if fault in LAST_PHASE:
            self._die(site, opened, fault)
            opened.lost(site.name, self.clock, "the connection ended")
            return
        answer = parse_answer(bytes_to_send(drive(self._work(site, opened))), site.name)
        if fault is FaultKind.LATE:
            late.append(answer)
        elif fault is not None and not isinstance(answer, Refusal):
            opened.receive(spoil(answer, fault), self.clock)
        else:
            opened.receive(answer, self.clock)


def _what_helps(record: RoundRecord) -> str:
    if any("not finite" in report.detail for report in record.reports.values()):
        return "the training ran away: start again with a smaller local.learning_rate"
    return "bring the sites back and resume"


def _why_void(record: RoundRecord, quorum: int) -> str:
    missing = [
        f"{site} ({report.outcome}{': ' + report.detail if report.detail else ''})"
        for site, report in record.reports.items()
        if report.outcome != "replied"
    ]
    return (
        f"{VOID_ROUNDS_IN_A_ROW} rounds in a row had fewer than {quorum} sites; "
        f"missing in round {record.round_number}: {', '.join(missing)}"
    )
