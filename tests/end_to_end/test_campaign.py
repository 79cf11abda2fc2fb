"""A campaign of indicators through real desks, feeds and the real conductor, with a clock that a test moves.

Without noise it must give, bit for bit, what the simulator makes of the same events.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load

from wardround.client.desk import Switches
from wardround.client.feeds.events import Event
from wardround.client.store.results import SERIES, keep_model, place_of
from wardround.client.store.verify import verify_file
from wardround.conf.indicators import CampaignFile, campaign_plan
from wardround.privacy.accounting import epsilon
from wardround.privacy.budget import cost, fixed_order
from wardround.protocol.errors import UsageError
from wardround.protocol.identity import Identity
from wardround.protocol.incoming import SignReceipt, ask_bytes
from wardround.protocol.ledger import BlockState, Refuse, Release, Start
from wardround.protocol.outgoing import is_answer
from wardround.protocol.owners import COORDINATOR
from wardround.protocol.parameters import model_hash
from wardround.protocol.plan import StudyPlan
from wardround.protocol.receipt import chain_fault
from wardround.server import conductor as conductor_module
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
SHARED = {"privacy": {"mode": "dist", "epsilon": 4.5, "epsilon_consortium": 3.0}}
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
        self.kept: dict[str, dict[int, str]] = {}
        """Site -> round -> the hash of the table that it kept when it was last looked at in that round."""
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
    def counts(self) -> list[int | None]:
        """The admissions of each tick in whole numbers: a campaign without noise."""
        found = (figure.value for figure in of(self.figures, self.plan.task.indicators[0]))  # type: ignore[union-attr]
        return [None if value is None else round(value) for value in found]

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
    """Bit for bit, from an HL7 folder and views, one hospital away for two ticks, all restarted in the middle."""
    plan = planned(5, ticks=8, **EXACT)

    def away(tick: int, site: str) -> bool:
        return site == "west" and 3 <= tick <= 4

    world = World(make_live_of, tmp_path, plan, away=away)
    conductor = world.conductor()
    conductor._told = lambda seen: (_ for _ in ()).throw(Crash) if seen.round_number == 6 else None
    with pytest.raises(Crash):
        conductor.run()
    world.start_desks()
    world.run()
    assert world.model.tobytes() == simulated(plan, world.told, away).tobytes()
    beds = [figure for figure in world.figures if figure.indicator == "beds"]
    assert [figure.tick for figure in beds if figure.value is None] == [3, 4]


class Crash(Exception):
    """The coordinator's process ends here."""


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory, make_live_of: Live) -> World:
    """Five hospitals (t = 4) under masks; west is away for a while, and the daemon of north is restarted in between."""
    plan = planned(5, ticks=9)
    world = World(make_live_of, tmp_path_factory.mktemp("masked"), plan)
    world.away = lambda tick, site: site == "west" and 4 <= tick <= 5
    conductor = world.conductor()

    restarted: list[int] = []

    def told(seen: Any) -> None:
        for site, folder in world.made.folders.items():
            path = place_of(folder.path, plan) / SERIES
            if path.exists():
                table = plan.layout.join(load(path.read_bytes()))
                world.kept.setdefault(site, {})[seen.round_number] = model_hash(table)
        if seen.round_number == 8 and not restarted:
            restarted.append(8)
            world.desks["north"] = world.desk("north")

    conductor._told = told
    conductor.run()
    return world


def test_a_campaign_is_charged_once_on_every_domain_and_its_ledger_verifies(masked: World) -> None:
    price = cost(masked.plan.round_event("east"), fixed_order(12.0, 1e-5))
    for site, ledger in masked.ledgers():
        ticks = 7 if site == "west" else 9
        for domain in ("test", "training"):
            assert ledger.charged(masked.plan.digest, domain) == 1
            assert ledger.used(domain)[0] == price, site
            assert ledger.state.grants[masked.plan.digest, domain].left == 0
        facts = ledger.facts()
        assert len([fact for fact in facts if isinstance(fact, Release)]) == 2 * ticks, site
        assert {block.state for block in ledger.state.blocks.values()} == {BlockState.RELEASED}
    for folder in masked.made.folders.values():
        found = verify_file(folder.database)
        assert {(each.domain, each.blocks) for each in found.domains} == {("test", 1), ("training", 1)}
        assert all(each.epsilon is not None and each.epsilon <= 3.0 for each in found.domains)


def test_every_tick_has_its_receipt_and_each_costs_no_more_than_the_campaign(masked: World) -> None:
    receipts = masked.folder.receipts()
    assert [receipt.round_number for receipt in receipts] == list(range(1, 10))
    assert {receipt.state for receipt in receipts} == {"closed"} and chain_fault(receipts) is None
    for receipt in receipts:
        assert receipt.line["west"].outcome == ("lost" if receipt.round_number in (4, 5) else "replied")
        known = masked.made.roster.identities
        away = {"west"} if receipt.round_number in (3, 4) else set()
        assert set(receipt.verified_signers(known)) == set(NAMES) - away, "who is back signs the last one it missed"
        assert all(line.epsilon_at_most is not None and 2.9 < line.epsilon_at_most <= 3.0 for line in receipt.sites)


def test_each_hospital_keeps_the_table_that_the_newest_tick_brought_it_and_one_file_of_it(masked: World) -> None:
    """When round k is under way a hospital has what tick k - 1 left; west has nothing newer while it is away."""
    after = {receipt.round_number: receipt.model_after for receipt in masked.folder.receipts()}
    assert len(set(after.values())) == 9 and set(masked.kept) == set(NAMES)
    for site, kept in masked.kept.items():
        for number in range(3, 9):
            newest = 2 if site == "west" and number in (4, 5) else number - 1
            assert kept[number] == after[newest], (site, number)
    for folder in masked.made.folders.values():
        assert [file.name for file in place_of(folder.path, masked.plan).iterdir()] == [SERIES], "one file, and no rest"


def test_a_table_that_the_last_receipt_does_not_name_is_not_kept(masked: World) -> None:
    desk, folder = masked.desk("north"), masked.made.folders["north"]
    path = place_of(folder.path, masked.plan) / SERIES
    before = path.read_bytes()
    for table in (masked.model + np.float32(1), masked.model[1:], np.zeros_like(masked.model)):
        desk._keep_series(masked.plan.digest, table)
        assert path.read_bytes() == before
    desk._keep_series(masked.plan.digest, masked.model)
    assert path.read_bytes() != before, "the control: one that it names"
    keep_model(folder, masked.plan, masked.model)
    assert not path.exists(), "at the end it is the model"
    path.write_bytes(before)


def test_a_disk_that_is_full_costs_a_plot_and_no_tick(masked: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wardround.client.desk.keep_series", full)
    masked.desk("north")._keep_series(masked.plan.digest, masked.model)


def test_a_hospital_signs_no_receipt_of_a_tick_that_its_ledger_does_not_know(masked: World) -> None:
    """West was away in tick 4; the receipt that it would sign says so, one that says otherwise is refused."""
    true = masked.folder.receipts()[3]
    false = tuple(line.model_copy(update={"outcome": "replied"}) for line in true.sites)
    for receipt, signs in ((true.model_copy(update={"sites": false, "signatures": ()}), False), (true, True)):
        signed = receipt.signed_by(masked.made.coordinator) if not signs else receipt
        ask = b"".join(bytes(part) for part in ask_bytes(SignReceipt(signed.canonical.decode())))
        (answer,) = masked.desk("west").answer("query.receipt", masked.plan.digest, [ask])
        assert is_answer(answer.content, "west") is not signs, "a refusal is an answer, a signature none"


def test_no_hospital_loses_a_tick_to_a_restart_of_its_daemon(masked: World) -> None:
    assert all(receipt.line["north"].outcome == "replied" for receipt in masked.folder.receipts())
    assert sum(kind == "query.deal" for _, kind in masked.kinds) == 2, "north joins another session"


def test_a_masked_tick_takes_two_exchanges_and_its_greeting_comes_before(masked: World) -> None:
    """Vectors, and what opens their sum; also while west is away, which is not proposed to."""
    for tick in (2, 3, 4, 5, 6, 7):
        kinds = [kind for at, kind in masked.kinds if at == tick]
        assert kinds == ["query.hello", "train.round", "query.open"], tick


def test_a_hospital_that_is_lost_in_a_tick_and_a_coordinator_that_is_restarted_in_one(
    tmp_path: Any, make_live_of: Live
) -> None:
    """West is greeted and lost in tick 2, which needs signatures then. It is away in tick 3, in which the coordinator
    ends after the first vector, and back when that is asked again: as before, or there would be two proposals."""
    world = World(make_live_of, tmp_path, planned(5, ticks=4))
    back = False

    def away(tick: int, site: str) -> bool:
        lost = tick == 2 and world.kinds[-1][1] != "query.hello"
        return site == "west" and (lost or (tick == 3 and not back))

    def told(seen: Any) -> None:
        if seen.round_number == 3 and {"replied", "waiting"} <= set(seen.sites.values()):
            raise Crash

    world.away, conductor = away, world.conductor()
    conductor._told = told
    with pytest.raises(Crash):
        conductor.run()
    back = True
    world.run()
    kinds = [kind for at, kind in world.kinds if at == 2]
    assert kinds == ["query.hello", "train.round", "query.consent", "query.open"]
    receipts = world.folder.receipts()
    assert [receipt.state for receipt in receipts] == ["closed"] * 4
    assert [receipt.line["west"].outcome for receipt in receipts] == ["replied", "lost", "lost", "replied"]
    assert sum(kind == "query.deal" for _, kind in world.kinds) == 1, "nobody has left the session"
    for _, ledger in world.ledgers():
        # With round 0 are heads of ledgers that a coordinator offers anew after its restart.
        assert not [fact for fact in ledger.facts() if isinstance(fact, Refuse) and fact.round_number]


def test_masked_figures_are_the_exact_ones_within_their_noise(masked: World) -> None:
    """Of what each hospital's own steps say that it counted; beyond 6.5 standard deviations once in 10^8 runs."""
    counted = {site: counted_at(masked, site) for site in masked.made.folders}
    for number, indicator in enumerate(masked.plan.task.indicators):  # type: ignore[union-attr]
        for figure in of(masked.figures, indicator):
            here = [stream for site, stream in counted.items() if site not in figure.away]
            if figure.value is None:
                assert indicator.name == "beds" and figure.away == ("west",)
                continue
            first = 0 if indicator.name == "beds" else figure.tick - 1
            exact = sum(stream[first : figure.tick, number].sum() for stream in here)
            assert abs(figure.value - exact) < 6.5 * figure.deviation, figure


def counted_at(world: World, site: str) -> np.ndarray:
    """What a hospital's steps say of each tick and indicator; the last word of its events is the same in all."""
    hospital = world.desks[site]._hospitals.get(world.plan.digest) or world.desks[site]._hospital(world.plan.digest)
    held = getattr(hospital, "site", hospital)._contributions()
    return np.array(held.stream)


def test_steps_hold_no_id_of_a_patient_in_the_clear_even_when_they_are_opened(masked: World) -> None:
    from wardround.client.store.campaigns import CampaignSteps
    from wardround.client.store.database import open_store

    for site, folder in masked.made.folders.items():
        store = open_store(folder.database)
        opened = b"".join(CampaignSteps(store, site, folder.replies_key()).all(masked.plan.digest))
        store.close()
        raw = b"".join(file.read_bytes() for file in folder.path.glob("ledger.sqlite*"))
        for told in masked.told[site][:50]:
            for secret in (f'"{told.event.patient}"', told.event.identifier):
                assert secret.encode() not in opened
            assert told.event.identifier.encode() not in raw


def test_an_open_tick_takes_one_exchange_and_one_hospital_or_two_add_in_the_open(
    tmp_path: Any, make_live_of: Live
) -> None:
    for sites in (1, 2):
        plan = planned(sites, ticks=5, indicators={"on_absence": "local"})
        world = World(make_live_of, tmp_path / str(sites), plan, engines=("east",))
        world.away = lambda tick, site: site == "middle" and tick == 3
        world.run()
        assert [kind for tick, kind in world.kinds if tick in (2, 3, 4)] == ["train.round"] * 3
        assert [figure.hospitals for figure in world.figures[:5]] == [sites, sites, 1, sites, sites]
        for _, ledger in world.ledgers():
            assert ledger.charged(plan.digest, "training") == ledger.charged(plan.digest, "test") == 1


def test_with_three_hospitals_one_that_is_offline_voids_the_tick_and_the_campaign_goes_on(
    tmp_path: Any, make_live_of: Live
) -> None:
    """For five ticks: more void rounds in a row than a study of rounds survives."""
    plan = planned(3, ticks=9)
    world = World(make_live_of, tmp_path, plan)
    world.away = lambda tick, site: site == "north" and 3 <= tick <= 7
    world.run()
    receipts = world.folder.receipts()
    assert [receipt.state for receipt in receipts] == ["closed"] * 2 + ["void"] * 5 + ["closed"] * 2
    assert all(receipt.voided_by == ("north",) for receipt in receipts[2:7])
    assert all(receipt.model_after == receipt.model_before for receipt in receipts[2:7])
    assert chain_fault(receipts) is None
    beds = [figure for figure in world.figures if figure.indicator == "beds"]
    assert [figure.tick for figure in beds if figure.value is None] == [3, 4, 5, 6, 7]


@pytest.mark.parametrize("terms", [{}, SHARED], ids=["local", "dist"])
def test_where_the_plan_says_wait_a_tick_is_tried_again_before_the_next_one_is_over(
    tmp_path: Any, make_live_of: Live, terms: dict[str, Any]
) -> None:
    """And no attempt is a charge, on any curve, in any receipt."""
    plan = planned(3, ticks=4, indicators={"on_absence": "wait"}, **terms)
    world = World(make_live_of, tmp_path, plan)
    until = START + timedelta(days=2, hours=12)
    world.away = lambda tick, site: site == "north" and START + timedelta(days=2) <= world.clock.now < until
    world.run()
    states = [(receipt.round_number, receipt.attempt, receipt.state) for receipt in world.folder.receipts()]
    assert states == [
        (1, 1, "closed"),
        (2, 1, "void"),
        (2, 2, "void"),
        (2, 3, "closed"),
        (3, 1, "closed"),
        (4, 1, "closed"),
    ]
    limits = {"training": plan.privacy.epsilon, "test": plan.privacy.epsilon}
    limits |= {"consortium": plan.privacy.epsilon_consortium} if terms else {}
    for site, ledger in world.ledgers():
        for domain in limits:
            assert ledger.charged(plan.digest, domain) == 1, site
    for folder in world.made.folders.values():
        found = {each.domain: each.epsilon for each in verify_file(folder.database).domains}
        assert found.keys() == limits.keys()
        assert all(0.95 * limits[domain] < found[domain] <= limits[domain] for domain in ("training", *found)), found
    own = plan.round_event("north")
    assert {line.epsilon_at_most for receipt in world.folder.receipts() for line in receipt.sites} == {
        epsilon([own], plan.privacy.delta or 0.0)
    }


def test_a_stop_is_heard_while_the_next_tick_is_awaited_and_the_campaign_goes_on_when_it_is_resumed(
    tmp_path: Any, make_live_of: Live
) -> None:
    plan = planned(1, ticks=6, indicators={"on_absence": "local"})
    world = World(make_live_of, tmp_path, plan)
    conductor = world.conductor()

    def told(seen: Any) -> None:
        if seen.round_number == 3 and seen.note.startswith("tick 3 is asked at"):
            world.wanted = Wanted.STOPPED

    conductor._told = told
    with pytest.raises(Stopped):
        conductor.run()
    assert len(world.folder.receipts()) == 2 and world.clock.now < START + timedelta(days=3)
    world.wanted = Wanted.RUNNING
    world.run()
    assert [receipt.state for receipt in world.folder.receipts()] == ["closed"] * 6
    for _, ledger in world.ledgers():
        assert ledger.charged(plan.digest, "training") == 1


def test_a_stop_before_the_first_tick_left_does_not_end_a_campaign_that_has_started(
    tmp_path: Any, make_live_of: Live
) -> None:
    """A view that cannot be read: the campaign is charged, and nothing of it has left."""
    plan = planned(1, ticks=3, indicators={"on_absence": "local"})
    world = World(make_live_of, tmp_path, plan, engines=())
    view = world.made.folders["east"].path / "emr.yaml"
    view.rename(view.with_suffix(".gone"))
    conductor = world.conductor()
    conductor._told = lambda seen: setattr(world, "wanted", Wanted.STOPPED) if seen.round_number == 2 else None
    with pytest.raises(Stopped):
        conductor.run()
    assert world.folder.receipts()[0].line["east"].detail == "unavailable"
    states = {block.state for _, ledger in world.ledgers() for block in ledger.state.blocks.values()}
    assert states == {BlockState.RUNNING}
    view.with_suffix(".gone").rename(view)
    world.wanted = Wanted.RUNNING
    world.run()
    assert [receipt.state for receipt in world.folder.receipts()] == ["void", "closed", "closed"]
    for _, ledger in world.ledgers():
        assert ledger.charged(plan.digest, "training") == 1


def admitted(patient: str, day: float, identifier: str = "1", amount: float = 1.0, kind: str = "admission") -> Told:
    at = START + timedelta(days=day)
    return Told(at, Event(patient, at, kind, amount, f"{kind}{identifier}-{patient}"))


def opt_out(world: World, *ids: str) -> None:
    (world.made.folders["east"].path / "opt-outs.txt").write_text("\n".join(("# opted out", *ids)) + "\n")


def alone(make: Live, path: Any, told: list[Told], ticks: int = 6, **more: Any) -> World:
    """One hospital without noise, whose figures are exact."""
    asked = {"on_absence": "local", "indicators": ASKED[:2]}
    plan = planned(1, ticks=ticks, privacy={"mode": "none"}, indicators=asked)
    known = [*told, *(admitted(f"known{n}", 0.5, kind=kind) for n, kind in enumerate(("waiting", "discharge")))]
    return World(make, path, plan, told={"east": known}, engines=more.pop("engines", ()), **more)


def test_who_has_opted_out_is_in_no_later_tick_and_the_ledger_says_how_many_at_most(
    tmp_path: Any, make_live_of: Live
) -> None:
    world = alone(make_live_of, tmp_path, [admitted(f"p{n}", day + 0.2) for n, day in enumerate((0, 1, 2, 3, 4, 5))])
    opt_out(world, "p1")
    conductor = world.conductor()

    def told(seen: Any) -> None:
        if seen.round_number == 4:
            opt_out(world, "p1", "p3", "nobody-here")

    conductor._told = told
    conductor.run()
    assert world.counts == [1, 0, 1, 0, 1, 1]
    for _, ledger in world.ledgers():
        starts = [fact for fact in ledger.facts() if isinstance(fact, Start)]
        assert [start.opted_out_at_most for start in starts] == [10, 10]


def test_a_source_of_opt_outs_that_cannot_be_read_is_no_tick_and_its_events_are_in_the_next(
    tmp_path: Any, make_live_of: Live
) -> None:
    world = alone(make_live_of, tmp_path, [admitted(f"p{day}", day + 0.2) for day in range(6)])
    file = world.made.folders["east"].path / "opt-outs.txt"
    conductor = world.conductor()
    conductor._told = lambda seen: file.write_text("" if seen.round_number == 2 else "# nobody\n")
    conductor.run()
    assert world.counts == [1, None, 2, 1, 1, 1]


def test_two_ids_that_were_merged_are_one_patient_to_the_bound(tmp_path: Any, make_live_of: Live) -> None:
    """m is 2: of four admissions under two ids two count."""
    events = [admitted("a", 0.1, "1"), admitted("b", 0.2, "2"), admitted("a", 1.1, "3"), admitted("b", 1.2, "4")]
    merged = alone(make_live_of, tmp_path / "merged", events, ticks=2)
    apart = alone(make_live_of, tmp_path / "apart", events, ticks=2)
    desk = merged.desks["east"]
    desk.members.admit(["a", "b"], test_share=0.3)
    desk.members.merge("a", "b")
    for world, expected in ((merged, [2, 0]), (apart, [2, 2])):
        world.run()
        assert world.counts == expected


def test_a_patient_whom_the_site_did_not_know_belongs_to_a_charged_domain_from_the_first_event_on(
    tmp_path: Any, make_live_of: Live
) -> None:
    world = alone(make_live_of, tmp_path, [admitted("new", 2.5)], ticks=4)
    world.run()
    assert set(world.desks["east"].members.domains(["new"])) < {"test", "training"}
    assert world.counts == [0, 0, 1, 0]


def test_a_hospital_whose_feeds_do_not_tell_of_a_kind_refuses_and_says_so_to_its_own_people(
    tmp_path: Any, make_live_of: Live
) -> None:
    plan = planned(1, ticks=2, indicators={"on_absence": "local"})
    events = [admitted("a", 0.1), admitted("a", 0.2, kind="discharge")]
    world = World(make_live_of, tmp_path, plan, told={"east": events})
    world.run()
    assert all(receipt.line["east"].detail == "policy" for receipt in world.folder.receipts())
    for _, ledger in world.ledgers():
        reasons = [fact.reason for fact in ledger.facts() if isinstance(fact, Refuse)]
        assert "no feed of this site tells of 'waiting', which the plan counts" in reasons
        assert not ledger.state.blocks


def test_a_rehearsal_passes_days_in_seconds_and_needs_the_sites_policy(tmp_path: Any, make_live_of: Live) -> None:
    plan = planned(1, ticks=6, indicators={"on_absence": "local", "rehearsal_seconds": 2.0})
    task: Any = plan.task
    assert task.lasts == timedelta(seconds=2) and task.ended(START + timedelta(seconds=5)) == 2
    assert task.at(START + timedelta(seconds=5)) == START + timedelta(days=2.5)
    for policy, detail in (("", "policy"), ("allow_rehearsals: true\n", "")):
        world = World(make_live_of, tmp_path / (detail or "allowed"), plan, engines=("east",), policy=policy)
        world.run()
        assert {receipt.line["east"].detail for receipt in world.folder.receipts()} == {detail}
        reasons = [fact.reason for _, ledger in world.ledgers() for fact in ledger.facts() if isinstance(fact, Refuse)]
        assert any("rehearsal" in reason for reason in reasons) is bool(detail)


def test_a_plan_that_is_no_rehearsal_has_the_name_that_it_had_before_there_were_any() -> None:
    assert b"rehearsal" not in planned(1, indicators={"on_absence": "local"}).canonical
    with pytest.raises(UsageError, match="rehearsal_seconds"):
        planned(1, indicators={"on_absence": "local", "rehearsal_seconds": 3600})


@pytest.mark.parametrize(("limit", "value"), [("SESSION_TICKS", 3), ("SESSION_LASTS", timedelta(days=3))])
def test_a_longer_campaign_is_a_chain_of_sessions(
    tmp_path: Any, make_live_of: Live, monkeypatch: pytest.MonkeyPatch, limit: str, value: Any
) -> None:
    """No session has more ticks than so many, and none is used for longer."""
    monkeypatch.setattr(conductor_module, limit, value)
    plan = planned(3, ticks=7)
    world = World(make_live_of, tmp_path, plan)
    world.run()
    assert {receipt.state for receipt in world.folder.receipts()} == {"closed"}
    assert [tick for tick, kind in world.kinds if kind == "query.deal"] == [1, 4, 7]
