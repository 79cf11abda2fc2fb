"""A campaign of indicators in one process: every hospital with its own ledger, database and keys, tick after tick.

The hospitals' and the coordinator's code is the real one; the clock is played, and events come from feeds. Under secure
aggregation rounds belong to sessions of at most so many ticks, set up anew when hospitals come back or time is over.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from sqlite3 import Connection
from typing import Final

from wardround.client.asking import domains_for
from wardround.client.feeds.events import Feed
from wardround.client.governance import CONSORTIUM_DOMAIN, TRAINING_DOMAIN, budget_for, grant_for
from wardround.client.indicator_site import IndicatorSite
from wardround.client.population import usual_domains
from wardround.client.secure import SECRET_SIZE, SecureSite
from wardround.client.store.campaigns import CampaignSteps
from wardround.client.store.database import open_store
from wardround.client.store.evidence import Evidence
from wardround.client.store.ledger import Ledger
from wardround.client.store.replies import KEY_SIZE, StoredReplies
from wardround.client.store.roster import PinnedRoster
from wardround.privacy.budget import delta_for
from wardround.privacy.secagg.scale import quantizer_for
from wardround.protocol.errors import UsageError
from wardround.protocol.identity import Identity
from wardround.protocol.indicators import Indicators
from wardround.protocol.messages import Reply
from wardround.protocol.outgoing import Outgoing, bytes_to_send, outgoing, parse_answer
from wardround.protocol.owners import COORDINATOR
from wardround.protocol.plan import StudyPlan
from wardround.protocol.roster import Roster
from wardround.server.exchange import begin, open_sum, set_up
from wardround.server.rounds import Round, RoundState
from wardround.server.study import Progress, Study
from wardround.server.sums import MaskedSum
from wardround.simulations.checks import check_cost
from wardround.simulations.consortium import simulated_roster
from wardround.simulations.parties import asking
from wardround.strategies import strategy_for

SESSION_TICKS: Final = 28
"""Ticks of one session: its set-up exchanges shares for every one of them."""

SESSION_DAYS: Final = 28
"""Days of one session; a hospital gives up a session after 30."""

Reachable = Callable[[int, str], bool]
"""Whether a hospital is there in a tick."""


@dataclass(slots=True)
class House:
    """One hospital: what is on its disk, and the process that was started on it last."""

    name: str
    store: Connection
    identity: Identity
    secret: bytes
    feed: Feed
    site: IndicatorSite = field(init=False)
    secure: SecureSite | None = None


class Campaign:
    """The campaign of ``plan`` over ``feeds``, by hospital.

    Args:
        folder: where the hospitals' databases lie; None: in memory.
        reachable: who is there.

    Raises:
        UsageError: the plan costs more than it says or a domain has, or is of no indicators.
    """

    def __init__(
        self,
        plan: StudyPlan,
        feeds: Mapping[str, Feed],
        *,
        reachable: Reachable = lambda tick, site: True,
        epsilon_cap: float = 8.0,
        consortium_cap: float = 8.0,
        folder: Path | None = None,
    ) -> None:
        if not isinstance(plan.task, Indicators):
            raise UsageError("this plan publishes no indicators", "give the plan of a campaign of indicators")
        check_cost(plan, epsilon_cap, consortium_cap)
        self.plan, self._task, self._reachable = plan, plan.task, reachable
        self.domains = usual_domains(plan.task)
        self._coordinator = Identity.generate(COORDINATOR)
        self._now = plan.task.clock(1)
        self._sessions, self._until, self._members = 0, date.min, frozenset[str]()
        self.houses = {
            name: House(
                name,
                open_store(None if folder is None else folder / f"{name}.sqlite"),
                Identity.generate(name),
                os.urandom(SECRET_SIZE),
                feed,
            )
            for name, feed in sorted(feeds.items())
        }
        self._roster: Roster | None = None
        if plan.privacy.secure_aggregation:
            keys = [house.identity for house in self.houses.values()]
            self._roster = simulated_roster(keys, self._coordinator, (), self._now.date())
        for house in self.houses.values():
            ledger = Ledger(house.store, house.name, clock=lambda: self._now)
            delta = delta_for(plan.declared_patients(house.name))
            for domain in domains_for(plan, TRAINING_DOMAIN):
                cap = consortium_cap if domain == CONSORTIUM_DOMAIN else epsilon_cap
                ledger.record(budget_for(plan, cap, delta, domain))
                ledger.record(grant_for(plan, house.name, domain))
            self._start(house)
        self.study = Study(plan, strategy_for(plan))

    def run(self, last: int | None = None) -> None:
        """Every tick up to ``last`` (None: to the end) that is not over yet."""
        while self.study.progress.rounds_done < (last or self._task.ticks):
            self.tick()

    def tick(self) -> RoundState:
        """The next tick: ask who is there, as often as the plan says, and go on with or without a sum."""
        number = self.study.progress.rounds_done + 1
        self._now = self._task.clock(number + 1)
        here = [name for name in self.houses if self._reachable(number, name)]
        for attempt in range(1, self.plan.attempts + 1):
            if self._roster is not None and not self._session(number, here):
                break
            opened = self._attempt(attempt, here)
            if opened.state is RoundState.CLOSED or attempt == self.plan.attempts:
                return self.study.close_round(opened).state
        self.study.leave_out()
        return RoundState.VOID

    def restart(self, name: str) -> None:
        """The hospital's process ends and begins anew on what is on its disk."""
        self._start(self.houses[name])
        self._members -= {name}

    def restart_coordinator(self) -> None:
        """The coordinator ends, and goes on from what it had written down after its last tick."""
        written = self.study.progress.to_bytes()
        self.study = Study(self.plan, strategy_for(self.plan), Progress.from_bytes(written, self.plan))
        self._members = frozenset()

    def spent(self) -> dict[str, tuple[int, int | None]]:
        """(spent, allowance) of each hospital's first domain, in units of its filter; all domains have the same."""
        return {name: house.site.ledger.used(self.domains[0]) for name, house in self.houses.items()}

    def _start(self, house: House) -> None:
        ledger = Ledger(house.store, house.name, clock=lambda: self._now)
        key = bytes(KEY_SIZE)  # The database is the researcher's own: there is nobody to seal it against.

        def make(seal: Callable[[Reply], Outgoing]) -> IndicatorSite:
            return IndicatorSite(
                house.name,
                self.plan,
                house.feed,
                ledger,
                domains=self.domains,
                steps=CampaignSteps(house.store, house.name, key),
                replies=StoredReplies(house.store, house.name, key),
                now=lambda: self._now,
                seal=seal,
            )

        if self._roster is None:
            house.site = make(outgoing)
        else:
            made: list[IndicatorSite] = []

            def kept(seal: Callable[[Reply], Outgoing]) -> IndicatorSite:
                made.append(make(seal))
                return made[0]

            pinned = PinnedRoster(house.store, house.identity.public)
            if pinned.held() is None:
                pinned.pin(self._roster.canonical, self._roster.digest)
            quantizer = quantizer_for(self.plan, strategy_for(self.plan).part_sizes(self.plan.layout.size))
            evidence = Evidence(house.store, house.name)
            house.secure = SecureSite(kept, house.identity, pinned, evidence, quantizer, house.secret, os.urandom)
            house.site = made[0]
        house.site.recover()

    def _session(self, number: int, here: list[str]) -> bool:
        """Whether there is a session for this tick among who is there; one is set up where it takes that."""
        today, desk = self._now.date(), self.study.desk
        lasts = desk is not None and number in desk.session.rounds and today < self._until
        if lasts and set(here) <= self._members:
            return len(here) >= self.plan.quorum
        if len(here) < self.plan.quorum or self._roster is None:
            return False
        self._sessions += 1
        parties = {name: secure for name in here if (secure := self.houses[name].secure) is not None}
        self.study.desk = set_up(
            self.plan,
            self._roster,
            self._coordinator,
            asking(parties, today),
            here,
            name=f"{self.plan.digest[:16]}/{self._sessions}",
            length=self.study.vector_length,
            rounds=range(number, min(number + SESSION_TICKS, self._task.ticks + 1)),
            today=today,
            attempts=self.plan.attempts,
        )
        for party in parties.values():
            party.begin(begin(self.plan, self.study.desk).agreements)
        self._members = frozenset(here)
        self._until = date.fromordinal(today.toordinal() + SESSION_DAYS)
        return True

    def _attempt(self, attempt: int, here: list[str]) -> Round:
        opened = self.study.open_round(0.0, attempt, here)
        sums, today = opened.sums, self._now.date()
        for name, house in self.houses.items():
            if name not in here:
                opened.lost(name, 0.0, "it is offline")
            elif isinstance(sums, MaskedSum) and house.secure is not None:
                answer = house.secure.answer(opened.request, sums.desk.proposal, today)
                opened.receive(parse_answer(bytes_to_send(answer), name), 0.0)
            else:
                answer = house.site.answer(opened.request, today)
                opened.receive(parse_answer(bytes_to_send(answer), name), 0.0)
        opened.settle(opened.deadline)
        parties = {name: secure for name in here if (secure := self.houses[name].secure) is not None}
        open_sum(opened, asking(parties, today))
        return opened

    @property
    def now(self) -> datetime:
        """The campaign's time, which is played."""
        return self._task.at(self._now)
