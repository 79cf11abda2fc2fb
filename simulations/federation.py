"""The federation in one process: the real ``Site`` of every hospital and the real ``Study``, joined by calls.

Deterministic from the plan, except for sampling and noise, which always come from the operating system's CSPRNG. The
clock is simulated: every answer takes no time, a late one arrives a second after the deadline.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from wardround.client.secure import SecureSite
from wardround.client.site import Phase, Site, drive
from wardround.protocol.identity import Identity
from wardround.protocol.messages import Refusal
from wardround.protocol.outgoing import Answer, Outgoing, bytes_to_send, parse_answer
from wardround.protocol.roster import Roster
from wardround.server.exchange import begin, open_sum, set_up
from wardround.server.rounds import Round, RoundState
from wardround.server.study import RoundRecord, Study
from wardround.server.sums import MaskedSum
from wardround.simulations.elsewhere import Elsewhere
from wardround.simulations.faults import LAST_PHASE, Fault, FaultKind, find, spoil
from wardround.simulations.parties import asking
from wardround.simulations.running import run_rounds


@dataclass(slots=True)
class Federation:
    """Sites and a study in one process. ``sites`` are in any order; answers are summed in the order of names.

    With ``elsewhere`` the sites are all charged first, train there at the same time, and then answer; faults are not
    played.
    """

    study: Study
    sites: Sequence[Site]
    today: date
    faults: Sequence[Fault] = ()
    secure: Mapping[str, SecureSite] = field(default_factory=dict)
    roster: Roster | None = None
    coordinator: Identity | None = None
    elsewhere: Elsewhere | None = None
    clock: float = 0.0

    def run(self, after_round: Callable[[RoundRecord], None] = lambda record: None) -> list[RoundRecord]:
        """Run every round that is left; ``after_round`` is called when a round is over and before the next opens.

        Raises:
            Unavailable: three rounds in a row were void, or three through one site; says who dropped and why.
        """
        return run_rounds(self.study, self.step, after_round)

    def step(self) -> RoundRecord:
        """One round: ask every site, settle, open the sum where it is masked, step the strategy."""
        self._set_up()
        opened = self.study.open_round(self.clock)
        late: list[Answer] = []
        if self.elsewhere is not None:
            self._ask_together(opened, self.elsewhere)
        else:
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

    def _ask_together(self, opened: Round, elsewhere: Elsewhere) -> None:
        request, charged = opened.request, dict[str, tuple[Site, Generator[Phase, None, Outgoing]]]()
        for site in self.sites:
            work = self._work(site, opened)
            answer = _until_started(work)
            if answer is None:
                charged[site.name] = (site, work)
            else:
                opened.receive(parse_answer(bytes_to_send(answer), site.name), self.clock)
        begin = {name: site.remembered(request.round_number, request.model_hash) for name, (site, _) in charged.items()}
        lost = elsewhere.train(request, begin)
        for name, (site, work) in charged.items():
            if name in lost:
                work.close()
                site.recover()
                opened.lost(name, self.clock, lost[name])
            else:
                opened.receive(parse_answer(bytes_to_send(drive(work)), name), self.clock)


def _until_started(work: Generator[Phase, None, Outgoing]) -> Outgoing | None:
    """Drive a site's work until its round is charged and noted as begun: None. Otherwise its answer."""
    try:
        while next(work) is not Phase.STARTED:
            pass
    except StopIteration as finished:
        return finished.value  # type: ignore[no-any-return]
    return None
