"""A campaign of indicators through real desks, feeds and the real conductor, with a clock that a test moves.

Without noise it must give, bit for bit, what the simulator makes of the same events.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from wardround.client.desk import Switches
from wardround.client.feeds.events import Event
from wardround.client.store.verify import verify_file
from wardround.conf.indicators import CampaignFile, campaign_plan
from wardround.privacy.budget import cost, fixed_order
from wardround.protocol.errors import UsageError
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import BlockState, Refuse, Release, Start
from wardround.protocol.owners import COORDINATOR
from wardround.protocol.plan import StudyPlan
from wardround.protocol.receipt import chain_fault
from wardround.server.carrier import Answered, Silent
from wardround.server.conductor import Conductor, Stopped, Wanted
from wardround.server.store.studies import StudyFolder
from wardround.simulations.desks import DeskCarrier
from wardround.simulations.indicators import Campaign
from wardround.simulations.made_up_events import MadeUpFeed, Told, made_up
from wardround.simulations.synthetic.as_feeds import whole_seconds
from wardround.strategies.series import Figure, of, read

START = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
NAMES = ("east", "middle", "north", "south", "west")
ASKED: list[dict[str, Any]] = [
    {"name": "admissions", "what": "count", "event": "admission", "contributions": 2},
    {"name": "beds", "what": "level", "enters": "admission", "leaves": "discharge", "contributions": 6, "share": 2},
    {"name": "minutes", "what": "total", "event": "waiting", "upper": 90, "unit": "min", "contributions": 3},
]
EXACT = {"privacy": {"mode": "none"}, "secagg": "off"}
UNPROTECTED = "allow_unprotected: true\nallow_mask_only: true\n"

Live = Callable[..., Any]


def planned(sites: int, ticks: int = 12, **more: Any) -> StudyPlan:
    indicators = {"start": START, "tick": "day", "ticks": ticks, "indicators": ASKED} | more.pop("indicators", {})
    study = {
        "name": "live", "title": "Beds and admissions", "purpose": "to see how full the hospitals are",
        "controllers": [{"name": "The health authority"}], "legal_basis": "a statute", "ethics_reference": "none",
        "recipients": ["the health authority"], "permitted_use": "planning of beds",
    }  # fmt: skip
    given = {"study": study, "hospitals": dict.fromkeys(NAMES[:sites], 2000), "indicators": indicators}
    given |= {"privacy": {"mode": "local", "epsilon": 3.0}} | more
    return campaign_plan(CampaignFile.model_validate(given), datetime.now(UTC).date())


def told_at(plan: StudyPlan, seed: int = 5) -> dict[str, list[Told]]:
    """Events of each hospital: a tenth is late, waiting times are corrected, and admissions are taken back."""
    given = CampaignFile.model_fields["made_up"].default.model_copy(
        update={"seed": seed, "admissions_per_day": 8.0, "late": 0.1, "corrected": 0.1}
    )
    found = {}
    for place, each in enumerate(plan.participants):
        told = made_up(plan.task, given, each.site, place, each.declared_patients)  # type: ignore[arg-type]
        entered = [one for one in told if one.event.kind == "admission"]
        undone = [Told(one.arrives + timedelta(days=1), replace(one.event, amount=0.0)) for one in entered[::9]]
        found[each.site] = whole_seconds([*told, *undone])
    return found


class Played:
    """A clock that a conductor's sleep moves on, by an hour at least, and the feeds that are told meanwhile."""

    def __init__(self, made: Any, plan: StudyPlan) -> None:
        self.now, self.made, self.task = START, made, plan.task

    def __call__(self) -> datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += max(timedelta(seconds=seconds), timedelta(hours=1))
        self.made.tell(self.task.begins(self.task.ended(self.now) + 1))


class World:
    """Hospitals with feeds, their desks, and a coordinator that can be restarted; ``away``: (tick, site)."""

    def __init__(self, make: Live, path: Any, plan: StudyPlan, **options: Any) -> None:
        self.plan, self.told = plan, options.pop("told", None) or told_at(plan)
        engines = options.pop("engines", NAMES[:3])
        policy = options.pop("policy", UNPROTECTED)
        self.made = make(path, Identity.generate(COORDINATOR), self.told, engines, policy)
        for site in self.made.folders:
            self.made.approve(plan, site)
        self.clock = Played(self.made, plan)
        self.folder = StudyFolder.create(path / "hub", plan)
        self.away: Callable[[int, str], bool] = options.pop("away", lambda tick, site: False)
        self.kinds: list[tuple[int, str]] = []
        self.wanted = Wanted.RUNNING
        self.start_desks()

    def start_desks(self) -> None:
        self.desks = {site: self.desk(site) for site in self.made.folders}

    def desk(self, site: str) -> Any:
        return self.made.desk(site, Switches(), clock=self.clock)

    def conductor(self) -> Conductor:
        return Conductor(
            self.folder,
            self.made.coordinator,
            lambda: self.made.roster,
            Watched(self),
            lambda: self.wanted,
            sleep=self.clock.sleep,
            clock=self.clock,
        )

    def run(self) -> Conductor:
        conductor = self.conductor()
        conductor.run()
        return conductor

    @property
    def model(self) -> Any:
        return self.folder.model(self.plan)

    @property
    def figures(self) -> list[Figure]:
        return read(self.plan, self.model, self.plan.rounds)

    def ledgers(self) -> Iterator[tuple[str, Any]]:
        for site, folder in self.made.folders.items():
            ledger = folder.ledger()
            yield site, ledger
            ledger.close()


class Watched(DeskCarrier):
    """Notes which exchanges a tick takes, and loses those with hospitals that are away."""

    def __init__(self, world: World) -> None:
        super().__init__(world.plan.digest, world.desks)
        self.world, self.begun = world, START

    def exchange(self, kind: str, asks: Any, *rest: Any, **options: Any) -> Iterator[Answered | Silent]:
        task = self.world.plan.task
        tick = task.ended(self.world.clock.now)  # type: ignore[union-attr]
        self.world.kinds.append((tick, kind))
        here = {site: ask for site, ask in asks.items() if not self.world.away(tick, site)}
        self.desks = self.world.desks
        yield from super().exchange(kind, here, *rest, **options)
        for site in sorted(set(asks) - set(here)):
            yield Silent(site, "no answer before the deadline")


def simulated(plan: StudyPlan, told: dict[str, list[Told]], away: Callable[[int, str], bool]) -> Any:
    """The same campaign by the simulator: the model, shape (d,)."""
    feeds = {site: MadeUpFeed(found, lambda: campaign.now) for site, found in told.items()}
    campaign = Campaign(plan, feeds, reachable=lambda tick, site: not away(tick, site))
    campaign.run()
    return campaign.study.progress.state.model


def test_without_noise_daemons_and_coordinator_give_what_the_simulator_makes_of_the_same_events(
    tmp_path: Any, make_live_of: Live
) -> None:
    """Bit for bit, from an HL7 folder and views, one hospital away for three ticks, all restarted in the middle."""
    plan = planned(5, **EXACT)

    def away(tick: int, site: str) -> bool:
        return site == "west" and 4 <= tick <= 6

    world = World(make_live_of, tmp_path, plan, away=away)
    conductor = world.conductor()
    conductor._told = lambda seen: (_ for _ in ()).throw(Crash) if seen.round_number == 8 else None
    with pytest.raises(Crash):
        conductor.run()
    world.start_desks()
    world.run()
    assert world.model.tobytes() == simulated(plan, world.told, away).tobytes()
    beds = [figure for figure in world.figures if figure.indicator == "beds"]
    assert [figure.tick for figure in beds if figure.value is None] == [4, 5, 6]


class Crash(Exception):
    """The coordinator's process ends here."""
