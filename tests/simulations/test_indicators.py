"""Campaigns of indicators with every hospital in one process, on the real sites, ledgers, masks and rounds."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wardround.client.feeds.events import Event
from wardround.client.site import Phase
from wardround.client.store.database import open_store, store_bytes
from wardround.client.store.ledger import Ledger
from wardround.conf.indicators import CampaignFile, campaign_plan
from wardround.console.reports.indicators_words import absence_words
from wardround.privacy.accounting import epsilon
from wardround.privacy.books import NotAllowed
from wardround.privacy.budget import cost, fixed_order
from wardround.protocol.errors import UsageError
from wardround.protocol.events import TreeGaussian
from wardround.protocol.indicators import Level, alone
from wardround.protocol.ledger import BlockState, Close, Recover, Refuse, Release, Reserve
from wardround.protocol.messages import Refusal
from wardround.protocol.outgoing import parse_answer
from wardround.protocol.plan import StudyPlan
from wardround.protocol.tree import Head
from wardround.server.rounds import RoundState
from wardround.simulations.indicators import Campaign
from wardround.simulations.made_up_events import MadeUpFeed, Told, made_up
from wardround.strategies.series import VOID, Figure, expected, of, read

START = datetime(2026, 1, 5, tzinfo=UTC)
NAMES = ("east", "middle", "north", "south", "west")
ASKED: list[dict[str, Any]] = [
    {"name": "admissions", "what": "count", "event": "admission", "contributions": 2},
    {"name": "beds", "what": "level", "enters": "admission", "leaves": "discharge", "contributions": 4, "share": 2},
    {"name": "minutes", "what": "total", "event": "waiting", "upper": 90, "unit": "min", "contributions": 2},
]


def file_for(sites: int, **more: Any) -> CampaignFile:
    indicators = {"start": START, "tick": "day", "ticks": 90, "indicators": ASKED} | more.pop("indicators", {})
    study = {
        "name": "live", "title": "Beds and admissions", "purpose": "to see how full the hospitals are",
        "controllers": [{"name": "The health authority"}], "legal_basis": "a statute", "ethics_reference": "none",
        "recipients": ["the health authority"], "permitted_use": "planning of beds",
    }  # fmt: skip
    given = {"study": study, "hospitals": dict.fromkeys(NAMES[:sites], 2000), "indicators": indicators}
    return CampaignFile.model_validate({**given, "privacy": {"mode": "local", "epsilon": 3.0}, **more})


def planned(sites: int, **more: Any) -> StudyPlan:
    return campaign_plan(file_for(sites, **more), date(2026, 1, 1))


EXACT = {"privacy": {"mode": "none"}, "secagg": "off"}
OPEN = {"secagg": "off"}


class Story:
    """A campaign over events that are known, and the exact figures of its events."""

    def __init__(self, plan: StudyPlan, told: dict[str, list[Told]], **more: Any) -> None:
        self.plan, self.told = plan, told
        feeds = {name: MadeUpFeed(found, lambda: self.campaign.now, at_once=7) for name, found in told.items()}
        self.campaign = Campaign(plan, feeds, **more)

    @property
    def figures(self) -> list[Figure]:
        return read(self.plan, self.campaign.study.progress.state.model, self.campaign.study.progress.rounds_done)

    def exact(self, name: str, tick: int) -> float:
        """The figure of everybody's events that had arrived by then, by a way of its own: the last word on each."""
        task, level = self.plan.task, name == "beds"

        def total(until: datetime) -> float:
            last: dict[tuple[str, str, str], Event] = {}
            for site, found in self.told.items():
                for each in sorted(found, key=lambda each: each.arrives):
                    if each.arrives <= until:
                        last[site, each.event.patient, each.event.identifier] = each.event
            known = [(key[:2], event) for key, event in last.items() if event.at < until]
            if level:
                entered = {patient for patient, event in known if event.kind == "admission"}
                return float(len(entered - {patient for patient, event in known if event.kind == "discharge"}))
            kind = {"admissions": "admission", "minutes": "waiting"}[name]
            return sum(min(event.amount, 90.0) for _, event in known if event.kind == kind)

        ends = task.begins(tick + 1)  # type: ignore[union-attr]
        return total(ends) - (0.0 if level else total(task.begins(tick)))  # type: ignore[union-attr]


def everybody(sites: int, days: int, seed: int = 0) -> dict[str, list[Told]]:
    """Events of patients who come once each, so that no bound is met; a tenth is told late, some are corrected."""
    random, found = np.random.default_rng(seed), dict[str, list[Told]]()
    for site in NAMES[:sites]:
        told: list[Told] = []
        for number in range(days * 6):
            at, patient = START + timedelta(days=float(random.uniform(0, days))), f"{site}{number}"
            late = timedelta(days=float(random.uniform(0, 3))) if random.random() < 0.1 else timedelta()
            told.append(Told(at + late, Event(patient, at, "admission", 1.0, "in")))
            leaves = at + timedelta(days=float(random.exponential(3)))
            told.append(Told(leaves, Event(patient, leaves, "discharge", 1.0, "out")))
            told.append(Told(at, Event(patient, at, "waiting", float(random.uniform(0, 100)), "wait")))
            if random.random() < 0.1:
                told.append(Told(at + timedelta(days=1), Event(patient, at, "waiting", 10.0, "wait")))
        found[site] = told
    return found


def test_without_noise_the_series_are_the_exact_running_figures() -> None:
    story = Story(planned(5, **EXACT, indicators={"ticks": 30}), everybody(5, 30))
    story.campaign.run()
    assert len(story.figures) == 3 * 30
    for figure in story.figures:
        assert figure.value == pytest.approx(story.exact(figure.indicator, figure.tick), abs=0.02), figure
        assert figure.comparable and figure.low == figure.high == figure.value


def test_hours_are_ticks_too() -> None:
    story = Story(planned(2, **EXACT, indicators={"ticks": 100, "tick": "hour"}), everybody(2, 5))
    story.campaign.run()
    beds = [figure for figure in story.figures if figure.indicator == "beds"]
    assert len(beds) == 100 and beds[1].begins - beds[0].begins == timedelta(hours=1)
    assert all(figure.value == pytest.approx(story.exact("beds", figure.tick), abs=0.02) for figure in beds)


@pytest.fixture(scope="module")
def season() -> Story:
    """Five hospitals under masks for 90 days, one offline for a week, everything restarted in the middle."""
    plan = planned(5)
    given = file_for(5, made_up={"seed": 3, "admissions_per_day": 20})
    told = {name: made_up(plan.task, given.made_up, name, n, 2000) for n, name in enumerate(NAMES)}  # type: ignore[arg-type]
    story = Story(plan, told, reachable=lambda tick, site: site != "west" or not 30 <= tick < 37)
    story.campaign.run(45)
    for name in NAMES:
        story.campaign.restart(name)
    story.campaign.restart_coordinator()
    story.campaign.run()
    return story


def test_a_campaign_is_charged_once_and_exactly_whatever_is_offline_or_restarted(season: Story) -> None:
    story = season
    price = cost(story.plan.round_event("east"), fixed_order(8.0, 1e-5))
    for name, house in story.campaign.houses.items():
        assert story.campaign.domains == ("test", "training")
        for domain in story.campaign.domains:
            assert house.site.ledger.used(domain)[0] == price, name
            assert house.site.ledger.charged(story.plan.digest, domain) == 1
        events = list(house.site.ledger.state.events(plan=story.plan.digest, domain="training"))
        assert [(type(event), count) for event, count in events] == [(TreeGaussian, 1)]
        assert epsilon([events[0][0]], 1e-5) <= 3.0
        released = [fact for fact in house.site.ledger.facts() if isinstance(fact, Release)]
        assert len(released) == 2 * (83 if name == "west" else 90)


def test_the_ledgers_of_a_campaign_can_be_played_again(season: Story) -> None:
    """Whoever takes every entry on the disk through the rules comes to the same state."""
    story = season
    for name, house in story.campaign.houses.items():
        again, kept = Ledger(open_store(None, store_bytes(house.store)), name), house.site.ledger
        assert again.state.parts == kept.state.parts and again.state.blocks == kept.state.blocks
        assert len(again.state.answered[story.plan.digest]) == (83 if name == "west" else 90)


def test_who_was_offline_is_shown_and_what_came_in_meanwhile_is_in_the_tick_of_the_return(
    season: Story,
) -> None:
    story = season
    beds, visits = (of(story.figures, story.plan.task.indicators[n]) for n in (1, 0))  # type: ignore[union-attr]
    assert [figure.tick for figure in beds if figure.value is None] == list(range(30, 37))
    assert all(figure.away == ("west",) and figure.hospitals == 4 for figure in visits[29:36])
    assert visits[36].back == ("west",) and not visits[36].comparable
    assert all(figure.comparable for figure in visits[37:])
    assert "without west" in visits[30].note and "while west" in visits[36].note


def test_the_series_of_levels_is_complete_again_after_the_return(season: Story) -> None:
    """Exact figures of the same events, within what the noise allows: 83 figures, beyond it once in 10^6 runs."""
    story = season
    for figure in story.figures:
        if figure.indicator == "beds" and figure.value is not None:
            bounded = sum(h.site._contributions().stream[: figure.tick, 1].sum()
                          for h in story.campaign.houses.values())  # fmt: skip
            assert abs(figure.value - bounded) < 6.0 * figure.deviation, figure


def test_a_request_that_comes_again_after_a_restart_gets_the_same_bytes(tmp_path: Path) -> None:
    story = Story(planned(2, **OPEN), everybody(2, 8), folder=tmp_path)
    story.campaign.run(4)
    site, request = story.campaign.houses["east"].site, story.campaign.study.request()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(story.campaign, "_now", START + timedelta(days=5))
        before = site.answer(request, date(2026, 1, 10)).content
        story.campaign.restart("east")
        again = story.campaign.houses["east"].site
        assert again is not site
        assert again.answer(request, date(2026, 1, 10)).content == before
        other = again.answer(story.campaign.study.request(2), date(2026, 1, 10)).content
    vectors = [parse_answer(content, "east").vector for content in (before, other)]  # type: ignore[union-attr]
    assert (vectors[0] == vectors[1]).all()


@pytest.mark.parametrize("last", [Phase.DECIDED, Phase.RESERVED, Phase.STARTED, Phase.TRAINED, Phase.RELEASED])
def test_a_crash_after_any_phase_loses_no_event_counts_none_twice_and_charges_once(last: Phase) -> None:
    story = Story(planned(2, **EXACT, indicators={"ticks": 6}), everybody(2, 6))
    for tick in range(1, 7):
        request = story.campaign.study.request()
        story.campaign._now = START + timedelta(days=tick)
        work = story.campaign.houses["east"].site.work(request, date(2026, 1, 5))
        for phase in work:
            if phase is last:
                break
        work.close()
        story.campaign.restart("east")
        assert story.campaign.tick() is RoundState.CLOSED
    for figure in story.figures:
        assert figure.value == pytest.approx(story.exact(figure.indicator, figure.tick), abs=0.02)
    ledger = story.campaign.houses["east"].site.ledger
    assert ledger.charged(story.plan.digest, "training") == 1
    states = [block.state for block in ledger.blocks() if block.domain == "training"]
    cancelled = 1 if last is Phase.RESERVED else 0
    assert states == [BlockState.CANCELLED] * cancelled + [BlockState.RELEASED]


def test_of_three_hospitals_one_that_is_offline_voids_the_tick_and_of_four_one_may_be() -> None:
    for sites, state in ((3, RoundState.VOID), (4, RoundState.CLOSED)):
        plan = planned(sites, indicators={"ticks": 4})
        story = Story(plan, everybody(sites, 4), reachable=lambda tick, site: site != "east" or tick != 2)
        states = [story.campaign.tick() for _ in range(4)]
        assert states == [RoundState.CLOSED, state, RoundState.CLOSED, RoundState.CLOSED]
        assert ("void" in absence_words(plan)) is (sites == 3)
        second = next(figure for figure in story.figures if figure.tick == 2)
        assert (second.value is None, second.note == VOID) == (sites == 3, sites == 3)


def test_a_void_tick_is_a_gap_and_what_it_counted_is_in_the_next() -> None:
    """Answers were made, stored and lost: what was in them counts again, as further contributions, and exactly once."""
    roomy = [{**indicator, "contributions": 12} for indicator in ASKED]
    plan = planned(3, **EXACT, indicators={"ticks": 20, "indicators": roomy})
    story = Story(plan, everybody(3, 20), reachable=lambda tick, site: site != "east" or tick not in (8, 13, 14))
    story.campaign.run()
    beds = of(story.figures, plan.task.indicators[1])  # type: ignore[union-attr]
    assert [figure.tick for figure in beds if figure.value is None] == [8, 13, 14]
    assert all(f.value == pytest.approx(story.exact("beds", f.tick), abs=0.02) for f in beds if f.value is not None)
    admissions = [f.value for f in of(story.figures, plan.task.indicators[0])]  # type: ignore[union-attr]
    both = sum(story.exact("admissions", tick) for tick in (8, 9))
    assert admissions[7] is None and admissions[8] == pytest.approx(both, abs=0.02)


@pytest.mark.parametrize("sites", [1, 2])
def test_one_or_two_hospitals_are_local_only_and_the_page_says_why(sites: int) -> None:
    plan = planned(sites, indicators={"ticks": 10, "on_absence": "local"})
    assert not plan.privacy.secure_aggregation and alone(sites) in absence_words(plan)
    story = Story(plan, everybody(sites, 10), reachable=lambda tick, site: site == "east" or tick != 5)
    story.campaign.run()
    assert all(figure.hospitals == (1 if figure.tick == 5 else sites) for figure in story.figures)
    with pytest.raises(UsageError, match="no secure sum"):
        planned(sites, secagg="on", indicators={"ticks": 10, "on_absence": "gap" if sites == 2 else "local"})


def test_a_tick_is_tried_again_where_the_plan_says_wait() -> None:
    plan = planned(3, indicators={"ticks": 3, "on_absence": "wait"})
    asked: list[int] = []

    def reachable(tick: int, site: str) -> bool:
        asked.append(tick)
        return True

    Story(plan, everybody(3, 3), reachable=reachable).campaign.run()
    assert plan.attempts == 3 and asked == [1] * 3 + [2] * 3 + [3] * 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"indicators": {"on_absence": "local"}, "secagg": "on"}, "on_absence 'local'"),
        ({"indicators": {"ticks": 20_000}}, "ticks"),
        ({"indicators": {"indicators": [ASKED[0], ASKED[0]]}}, "distinct"),
        ({"indicators": {"indicators": [{**ASKED[1], "leaves": "admission"}]}}, "two kinds"),
        ({"indicators": {"start": "2026-01-05T00:00:00+01:00"}}, "UTC"),
        ({"privacy": {"mode": "local"}}, "epsilon"),
    ],
)
def test_a_plan_that_cannot_be_kept_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        planned(4, **more)


def test_a_plan_has_one_name_and_comes_back_from_its_bytes() -> None:
    plan = planned(4)
    assert StudyPlan.parse(plan.canonical) == plan and plan.rounds == 90 and plan.charges == 1


def test_no_tick_is_answered_before_it_is_over_or_after_a_later_one() -> None:
    story = Story(planned(1, indicators={"ticks": 9, "on_absence": "local"}), everybody(1, 9))
    story.campaign.run(2)
    site = story.campaign.houses["east"].site
    request = story.campaign.study.request()
    for wrong in (request, replace(request, round_number=2)):
        said = parse_answer(site.answer(wrong, date(2026, 1, 8)).content, "east")  # type: ignore[arg-type]
        assert isinstance(said, Refusal) and said.code == "protocol"
    assert site.ledger.charged(story.plan.digest, "training") == 1


def test_a_ledger_takes_parts_of_a_campaign_only_and_one_campaign_of_a_plan() -> None:
    story = Story(planned(1, indicators={"ticks": 9, "on_absence": "local"}), everybody(1, 9))
    story.campaign.run(2)
    ledger, plan = story.campaign.houses["east"].site.ledger, story.plan
    block = ledger.state.campaign(plan.digest, "training")
    assert block is not None
    for fact, reason in (
        (Release(block=block.name, attempt=1, content="0" * 64, round_number=10), "9 ticks"),
        (Release(block=block.name, attempt=1, content="0" * 64, round_number=2), "already"),
        (Release(block=block.name, attempt=1, content="0" * 64), "tick by tick"),
        (
            Reserve(domain="training", block="x", plan=plan.digest, round_number=3, event=plan.round_event("east")),
            "once and whole",
        ),
    ):
        with pytest.raises(NotAllowed, match=reason):
            ledger.record(fact)


def refused(story: Story) -> str:
    """Why the one hospital does not answer the next tick, as its ledger says."""
    assert story.campaign.tick() is RoundState.VOID
    facts = story.campaign.houses["east"].site.ledger.facts()
    return next(fact.reason for fact in reversed(facts) if isinstance(fact, Refuse))


def begun() -> Story:
    story = Story(planned(1, indicators={"ticks": 9, "on_absence": "local"}), everybody(1, 9))
    story.campaign.run(3)
    return story


def test_a_campaign_that_is_revoked_or_whose_domain_is_closed_releases_nothing_more() -> None:
    story, closed = begun(), begun()
    grant = story.campaign.houses["east"].site.ledger.state.grants[story.plan.digest, "training"].fact
    story.campaign.houses["east"].site.ledger.record(grant.model_copy(update={"blocks": 0, "version": 2}))
    assert "revoked" in refused(story)
    closed.campaign.houses["east"].site.ledger.record(Close(domain="test", reason="the end of the year"))
    assert "closed" in refused(closed)


def test_a_ledger_that_was_put_back_answers_no_tick_and_after_a_recovery_the_campaign_is_over() -> None:
    """What left in the entries that are lost would be released again with other noise."""
    story = begun()
    ledger, seen = story.campaign.houses["east"].site.ledger, Head(500, b"\x07" * 32)
    assert ledger.rolled_back(seen, "witness")
    assert "put back" in refused(story)
    ledger.record(Recover(seen_size=500, seen_root=seen.root.hex(), charges=(), reason="restored from a copy"))
    assert "it is over" in refused(story)
    assert ledger.charged(story.plan.digest, "training") == 1


def steady(sites: int, days: int) -> dict[str, list[Told]]:
    return {
        site: [
            Told(at, Event(f"{site}{day}{n}", at, "admission", 1.0, "in"))
            for day in range(days)
            for n in range(5)
            if (at := START + timedelta(days=day, hours=1))
        ]
        for site in NAMES[:sites]
    }


def test_intervals_cover_the_exact_figures(seeded: None) -> None:
    """100 campaigns of 8 ticks, one hospital away twice: 95 % intervals hold 92 to 98 % of the exact figures."""
    asked = [ASKED[0], ASKED[1]]
    plan = planned(2, indicators={"ticks": 8, "indicators": asked, "on_absence": "local"})
    told, held = steady(2, 8), list[bool]()
    for _ in range(100):
        story = Story(plan, told, reachable=lambda tick, site: site != "east" or tick not in (2, 5))
        story.campaign.run()
        for figure in story.figures:
            if figure.comparable:
                truth = 10.0 * (figure.tick if figure.indicator == "beds" else 1)
                assert figure.low is not None and figure.high is not None
                held.append(figure.low <= truth <= figure.high)
    assert len(held) == 100 * 2 * 4
    assert 0.92 <= sum(held) / len(held) <= 0.98


def test_the_expected_error_is_that_of_the_figures() -> None:
    plan = planned(5)
    figures = {e.indicator.name: e for e in expected(plan)}
    assert plan.privacy.noise_multiplier is not None
    count, beds = figures["admissions"], figures["beds"]
    node = 1.959964 * plan.privacy.noise_multiplier * sqrt(5)
    assert count.usual == count.worst == pytest.approx(node * 2 * sqrt(7) / sqrt(1 / 4), rel=1e-6)
    assert isinstance(beds.indicator, Level)
    assert beds.worst == pytest.approx(node * 4 * sqrt(7) / sqrt(2 / 4) * sqrt(6), rel=1e-6)


def test_a_tree_of_quarter_hours_over_90_days_is_too_noisy_for_beds() -> None:
    """Why hours or days are the default."""
    beds = {}
    for tick, ticks in (("15min", 8640), ("day", 90)):
        plan = planned(5, indicators={"tick": tick, "ticks": ticks, "indicators": [ASKED[1]]})
        beds[tick] = expected(plan)[0].worst
    assert beds["15min"] > 1.8 * beds["day"]
