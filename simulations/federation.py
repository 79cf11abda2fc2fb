"""The federation in one process: the real ``Site`` of every hospital and the real ``Study``, joined by calls.

Deterministic from the plan, except for sampling and noise, which always come from the operating system's CSPRNG. The
clock is simulated: every answer takes no time, a late one arrives a second after the deadline.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from wardround.client.site import Site
from wardround.protocol.errors import Unavailable
from wardround.protocol.messages import Refusal, Reply, RoundRequest
from wardround.protocol.outgoing import bytes_to_send, parse_answer
from wardround.server.rounds import Round, RoundState
from wardround.server.study import RoundRecord, Study
from wardround.simulations.faults import LAST_PHASE, Fault, FaultKind, find, spoil

VOID_ROUNDS_IN_A_ROW: Final = 3
"""After so many void rounds a study stops: more charges would buy nothing."""


@dataclass(slots=True)
class Federation:
    """Sites and a study in one process. ``sites`` are in any order; answers are summed in the order of names."""

    study: Study
    sites: Sequence[Site]
    today: date
    faults: Sequence[Fault] = ()
    clock: float = 0.0

    def run(self, after_round: Callable[[RoundRecord], None] = lambda record: None) -> list[RoundRecord]:
        """Run every round that is left; ``after_round`` is called when a round is over and before the next opens.

        Raises:
            Unavailable: three rounds in a row were void; says who dropped and why.
        """
        records: list[RoundRecord] = []
        while not self.study.finished:
            record = self.step()
            records.append(record)
            after_round(record)
            last = records[-VOID_ROUNDS_IN_A_ROW:]
            if len(last) == VOID_ROUNDS_IN_A_ROW and all(r.state is RoundState.VOID for r in last):
                raise Unavailable(_why_void(record, self.study.plan.min_sites), _what_helps(record))
        return records

    def step(self) -> RoundRecord:
        """One round: ask every site, settle, step the strategy."""
        opened = self.study.open_round(self.clock)
        late: list[Reply | Refusal] = []
        for site in self.sites:
            self._ask(site, opened, late)
        if opened.settle(self.clock) is RoundState.OPEN:
            self.clock = opened.deadline
            opened.settle(self.clock)
        for answer in late:
            opened.receive(answer, opened.deadline + 1.0)
        return self.study.close_round(opened)

    def _ask(self, site: Site, opened: Round, late: list[Reply | Refusal]) -> None:
        request = opened.request
        fault = find(self.faults, site.name, request.round_number)
        if fault is FaultKind.UNREACHED:
            return
        if fault in LAST_PHASE:
            _die(site, request, self.today, fault)
            opened.lost(site.name, self.clock, "the connection ended")
            return
        answer = parse_answer(bytes_to_send(site.answer(request, self.today)), site.name)
        if fault is FaultKind.LATE:
            late.append(answer)
        elif fault is not None and isinstance(answer, Reply):
            opened.receive(spoil(answer, fault), self.clock)
        else:
            opened.receive(answer, self.clock)


def _die(site: Site, request: RoundRequest, today: date, fault: FaultKind) -> None:
    """Drive the site up to its last phase, leave it there as a crash would, and restart it."""
    work = site.work(request, today)
    for phase in work:
        if phase is LAST_PHASE[fault]:
            break
    work.close()
    site.recover()


def _what_helps(record: RoundRecord) -> str:
    if any("not finite" in report.detail for report in record.reports.values()):
        return "the training ran away: start again with a smaller local.learning_rate"
    return "bring the sites back and resume"


def _why_void(record: RoundRecord, min_sites: int) -> str:
    missing = [
        f"{site} ({report.outcome}{': ' + report.detail if report.detail else ''})"
        for site, report in record.reports.items()
        if report.outcome != "replied"
    ]
    return (
        f"{VOID_ROUNDS_IN_A_ROW} rounds in a row had fewer than {min_sites} sites; "
        f"missing in round {record.round_number}: {', '.join(missing)}"
    )
