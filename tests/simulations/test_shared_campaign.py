"""Campaigns of indicators in mode dist: shares of noise in every node, one sum over a tick's vectors, one charge."""

import os
from datetime import UTC, date, datetime, timedelta
from math import sqrt
from typing import Any

import numpy as np
import pytest

from wardround.client.feeds.events import Event
from wardround.client.governance import CONSORTIUM_DOMAIN
from wardround.client.secure import SecureSite
from wardround.conf.indicators import CampaignFile, campaign_plan
from wardround.privacy.accounting import epsilon
from wardround.privacy.books import NotAllowed
from wardround.privacy.continual import scale
from wardround.protocol.dyadic import nodes, prefix
from wardround.protocol.errors import UsageError
from wardround.protocol.events import TreeGaussian
from wardround.protocol.indicators import PRESENT, Indicators, alone
from wardround.protocol.ledger import Refuse
from wardround.protocol.messages import Refusal
from wardround.protocol.outgoing import parse_answer
from wardround.protocol.plan import StudyPlan
from wardround.server.rounds import RoundState
from wardround.simulations.indicators import Campaign
from wardround.simulations.made_up_events import MadeUpFeed, Told
from wardround.strategies.series import expected, of, read

REPETITIONS = 1000 if os.environ.get("WARDROUND_SOAK") == "1" else 25
START = datetime(2026, 1, 5, tzinfo=UTC)
NAMES = tuple(f"h{number:02d}" for number in range(1, 51))
SHARES = {3: 2, 4: 2, 5: 3, 6: 4, 7: 3, 10: 4, 20: 8, 50: 18}
"""h by the number of hospitals: of t = floor(2n/3) + 1 in a sum, c = floor((n - 1)/3) and at least one, are taken
away. By hand."""

COUNT = {"name": "visits", "what": "count", "event": "visit", "contributions": 2}
LEVEL = {"name": "beds", "what": "level", "enters": "visit", "leaves": "leave", "contributions": 4}


def planned(sites: int, ticks: int = 8, asked: Any = (COUNT, LEVEL), absence: str = "gap", **more: Any) -> StudyPlan:
    study = {
        "name": "live", "title": "Beds and visits", "purpose": "to see how full the hospitals are",
        "controllers": [{"name": "The health authority"}], "legal_basis": "a statute", "ethics_reference": "none",
        "recipients": ["the health authority"], "permitted_use": "planning of beds",
    }  # fmt: skip
    terms = {"mode": "dist", "epsilon": 8.0, "epsilon_consortium": 2.0} | more.pop("privacy", {})
    given = {
        "study": study,
        "hospitals": dict.fromkeys(NAMES[:sites], 2000),
        "indicators": {"start": START, "ticks": ticks, "on_absence": absence, "indicators": list(asked)},
        "privacy": {key: value for key, value in terms.items() if value is not None},
    }
    return campaign_plan(CampaignFile.model_validate(given | more), date(2026, 1, 1))


def local(sites: int, **more: Any) -> StudyPlan:
    """The campaign with every hospital's full noise, which costs against everyone what dist costs the consortium."""
    return planned(sites, **more, privacy={"mode": "local", "epsilon": 2.0, "epsilon_consortium": None})


def told(sites: int, ticks: int, each: int = 3) -> dict[str, list[Told]]:
    """Every day ``each`` patients come to each hospital, and nobody leaves."""
    return {
        site: [
            Told(at, Event(f"{site}-{day}-{number}", at, "visit", 1.0, "in"))
            for day in range(ticks)
            for number in range(each)
            if (at := START + timedelta(days=day, hours=1))
        ]
        for site in NAMES[:sites]
    }


def begun(plan: StudyPlan, each: int = 3, **more: Any) -> Campaign:
    sites, ticks = len(plan.participants), plan.rounds
    made: list[Campaign] = []
    feeds = {name: MadeUpFeed(found, lambda: made[0].now) for name, found in told(sites, ticks, each).items()}
    made.append(Campaign(plan, feeds, **more))
    return made[0]


def noise_of(plan: StudyPlan) -> float:
    assert plan.privacy.noise_multiplier is not None
    return plan.privacy.noise_multiplier


def task_of(plan: StudyPlan) -> Indicators:
    assert isinstance(plan.task, Indicators)
    return plan.task


@pytest.mark.parametrize(("sites", "shares"), SHARES.items())
def test_the_shares_that_nobody_who_may_collude_knows_cost_what_the_plan_says(sites: int, shares: int) -> None:
    plan = planned(sites)
    whole = epsilon([TreeGaussian(
        noise_multiplier=noise_of(plan) * sqrt(shares), sampling_probability=1.0, steps=1, declared_patients=2000,
        ticks=8, contributions=4,
    )], 1e-5)  # fmt: skip
    assert whole <= 2.0 and plan.consortium_event("h01").noise_multiplier == pytest.approx(  # type: ignore[union-attr]
        noise_of(plan) * sqrt(shares)
    )
    alone_ = epsilon([plan.round_event("h01")], 1e-5)
    assert whole > 1.98 or 7.8 < alone_ <= 8.0, "no limit asks for so much noise"


def test_every_node_has_the_share_of_every_hospital_in_its_sum_and_so_of_h_at_least(seeded: None) -> None:
    """Nothing happens, so the sums are noise: 1,984 numbers of ticks with one hospital away, 2,048 of others.

    The standard deviation of so many is off by more than 8 % less than once in a million runs.
    """
    asked = [{**COUNT, "name": f"visits_{number}"} for number in range(64)]
    plan = planned(5, 32, asked)
    campaign = begun(plan, each=0, reachable=lambda tick, site: tick % 4 != 0 or site != "h05")
    campaign.run()
    parts = plan.layout.split(campaign.study.progress.state.model)
    sums = np.array([parts[each.name] for each in task_of(plan).indicators])
    for away in (True, False):
        ticks = [tick for tick in range(1, 33) if (tick % 4 == 0) is away]
        places = [place for tick in ticks for place in range(nodes(tick - 1), nodes(tick))]
        assert parts[PRESENT][ticks[0] - 1].sum() == 5 - away and sums[:, places].size == (1984 if away else 2048)
        measured = np.std(sums[:, places])
        assert measured == pytest.approx(noise_of(plan) * sqrt(5 - away), rel=0.08)
        assert measured > noise_of(plan) * sqrt(SHARES[5])


def test_the_deviation_of_a_figure_is_that_of_the_shares_in_its_nodes() -> None:
    plan = planned(5, 8)
    model = plan.layout.split(np.zeros(plan.layout.size, np.float32))
    present = np.ones((8, 5), np.float32)
    present[1, 4] = present[5, 4] = 0.0
    table = plan.layout.join({**model, PRESENT: present})
    for indicator in task_of(plan).indicators:
        for figure in of(read(plan, table, 8), indicator):
            here = 5.0 - (figure.tick in (2, 6))
            used = [here]
            if indicator.name == "beds":
                # A node counts where whoever is not in its sum was away in all of it; none of these is halved.
                used = [5.0 - (node.end in (2, 6)) for node in prefix(figure.tick)]
                if figure.tick in (2, 3, 6, 7):
                    continue
            expected_ = scale(task_of(plan), indicator) * noise_of(plan) * sqrt(sum(used))
            assert figure.deviation == pytest.approx(expected_), figure
            assert (figure.hospitals, figure.value is None) == (here, here < 5 and indicator.name == "beds")


def test_intervals_cover_the_exact_figures(seeded: None) -> None:
    """95 % intervals of four hospitals, one of them away twice, hold 92 to 98 % of the exact figures."""
    asked = [{**each, "name": f"{each['name']}_{number}"} for number in range(6) for each in (COUNT, LEVEL)]
    plan, held = planned(4, 8, asked), list[bool]()
    for _ in range(REPETITIONS):
        campaign = begun(plan, reachable=lambda tick, site: site != "h02" or tick not in (2, 5))
        campaign.run()
        for figure in read(plan, campaign.study.progress.state.model, 8):
            if figure.comparable:
                exact = 4 * 3.0 * (figure.tick if figure.indicator.startswith("beds") else 1)
                assert figure.low is not None and figure.high is not None
                held.append(figure.low <= exact <= figure.high)
    assert len(held) == REPETITIONS * len(asked) * 4
    assert 0.92 <= sum(held) / len(held) <= 0.98


def test_a_campaign_is_charged_once_on_both_curves_whatever_is_offline_or_restarted() -> None:
    plan = planned(4, 8)
    campaign = begun(plan, reachable=lambda tick, site: site != "h01" or tick not in (3, 4))
    campaign.run(5)
    for name in plan_names(plan):
        campaign.restart(name)
    campaign.restart_coordinator()
    campaign.run()
    shares = {"training": 1, "test": 1, CONSORTIUM_DOMAIN: SHARES[4]}
    for house in campaign.houses.values():
        for domain, count in shares.items():
            assert house.site.ledger.charged(plan.digest, domain) == 1
            ((event, times),) = house.site.ledger.state.events(plan=plan.digest, domain=domain)
            assert isinstance(event, TreeGaussian) and times == 1
            assert event.noise_multiplier == pytest.approx(noise_of(plan) * sqrt(count))
            assert epsilon([event], 1e-5) <= (2.0 if domain == CONSORTIUM_DOMAIN else 8.0)


def plan_names(plan: StudyPlan) -> list[str]:
    return [participant.site for participant in plan.participants]


def test_without_the_consortiums_domain_nothing_is_answered_or_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    from wardround.simulations import indicators as module

    monkeypatch.setattr(module, "domains_for", lambda plan, domain: ["test", "training"])
    campaign = begun(planned(4, 3))
    assert campaign.tick() is RoundState.VOID
    for house in campaign.houses.values():
        assert house.site.ledger.charged(house.site.plan.digest) == 0
        assert "no data domain 'consortium'" in reasons(house.site.ledger)[-1]


def reasons(ledger: Any) -> list[str]:
    return [fact.reason for fact in ledger.facts() if isinstance(fact, Refuse)]


@pytest.mark.parametrize("again", ["attempt", "session", "session and restart"])
def test_of_a_tick_no_second_sum_is_opened_over_other_hospitals(again: str) -> None:
    """A coordinator has opened a tick, calls it void and asks for it anew, without one hospital and with another.

    The two sums would differ by single vectors, which have no more than a share of noise. The same sum it may have
    again, to the last integer.
    """
    plan = planned(5, 4, absence="wait")
    campaign = begun(plan)
    campaign.run(1)
    campaign._now = task_of(plan).clock(3)
    first, other = list(NAMES[:4]), [*NAMES[:3], NAMES[4]]
    assert campaign._session(2, list(NAMES[:5]))
    opened = campaign._attempt(1, first)
    assert opened.state is RoundState.CLOSED
    if again != "attempt":
        for name in NAMES[:5] if "restart" in again else ():
            campaign.restart(name)
        campaign._members = frozenset()
        assert campaign._session(2, list(NAMES[:5]))
    second = campaign._attempt(2, other)
    assert second.state is RoundState.VOID
    for name in NAMES[:3]:
        assert any("a second sum over inputs" in reason for reason in reasons(campaign.houses[name].site.ledger)), name
    third = campaign._attempt(3, first)
    assert third.state is RoundState.CLOSED
    sums = [total.parts["nodes"] for each in (opened, third) for _, total in each.totals(plan.layout.size)]
    assert (sums[0] == sums[1]).all()
    for house in campaign.houses.values():
        assert house.site.ledger.charged(plan.digest, CONSORTIUM_DOMAIN) == 1


def test_a_vector_that_was_sealed_and_could_not_be_kept_is_followed_by_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The masks of its session hold it, and would leave with a promise about another one."""
    plan = planned(3, 4)
    campaign = begun(plan)
    campaign.run(1)
    campaign._now = task_of(plan).clock(3)
    assert campaign._session(2, list(NAMES[:3]))
    house, sums = campaign.houses["h01"], campaign.study.open_round(0.0)
    assert isinstance(house.secure, SecureSite)
    ledger = house.site.ledger
    record = ledger.record

    def waits(*facts: Any, **more: Any) -> Any:
        if facts and facts[0].kind == "release":
            raise NotAllowed("the plan rests on a suspended key", "and waits to be signed again")
        return record(*facts, **more)

    def said() -> Any:
        assert house.secure is not None
        proposal = sums.sums.desk.proposal  # type: ignore[attr-defined]
        return parse_answer(house.secure.answer(sums.request, proposal, campaign._now.date()).content, "h01")  # type: ignore[arg-type]

    monkeypatch.setattr(ledger, "record", waits)
    assert isinstance(said(), Refusal)
    monkeypatch.setattr(ledger, "record", record)
    assert isinstance(said(), Refusal) and "gets no other one" in reasons(ledger)[-1]
    campaign.study.leave_out()
    assert campaign.tick() is RoundState.CLOSED, "its events are in the next tick"
    exact = [stream.stream[:3, 0].sum() for stream in counted(campaign)]
    assert exact == [9.0, 9.0, 9.0]


def counted(campaign: Campaign) -> list[Any]:
    return [house.site._contributions() for house in campaign.houses.values()]


def test_of_three_hospitals_one_that_is_offline_voids_the_tick_and_of_four_one_may_be() -> None:
    for sites, state in ((3, RoundState.VOID), (4, RoundState.CLOSED)):
        campaign = begun(planned(sites, 4), reachable=lambda tick, site: site != "h01" or tick != 2)
        found = [campaign.tick() for _ in range(4)]
        assert found == [RoundState.CLOSED, state, RoundState.CLOSED, RoundState.CLOSED]


@pytest.mark.parametrize("sites", [1, 2])
def test_one_or_two_hospitals_share_no_noise_and_the_refusal_says_why(sites: int) -> None:
    with pytest.raises(UsageError) as refused:
        planned(sites)
    assert alone(sites) in refused.value.message and "local" in refused.value.hint


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"absence": "local"}, "it is a share: write 'gap' or 'wait'"),
        ({"secagg": "off"}, "needs secure aggregation"),
        ({"privacy": {"epsilon_consortium": None}}, "needs an epsilon_consortium"),
        ({"privacy": {"epsilon": None}}, "needs an epsilon "),
        ({"privacy": {"mode": "local"}}, "belongs to privacy mode 'dist'"),
    ],
)
def test_terms_that_cannot_be_kept_are_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        planned(4, **more)


def test_a_share_that_is_too_small_for_the_plans_word_is_refused_before_anything_runs() -> None:
    plan = planned(5)
    weaker = plan.privacy.model_copy(update={"noise_multiplier": 0.98 * noise_of(plan)})
    with pytest.raises(UsageError, match="epsilon_consortium"):
        begun(plan.model_copy(update={"privacy": weaker}))


@pytest.mark.parametrize(("sites", "gain"), [(3, 1.41), (5, 1.73), (10, 2.0), (20, 2.83)])
def test_intervals_are_expected_to_be_narrower_by_the_root_of_h(sites: int, gain: float) -> None:
    pairs = zip(expected(local(sites)), expected(planned(sites)), strict=True)
    for whole, shared in pairs:
        assert whole.usual / shared.usual == pytest.approx(gain, abs=0.02)
        assert whole.worst / shared.worst == pytest.approx(gain, abs=0.02)
