"""The budget pages: sums, epsilons and forecasts, against what a test adds up from the raw facts itself."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from html import unescape
from math import ceil
from typing import Any

import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from dp_accounting.rdp import RdpAccountant

from wardround.client.governance import CONSORTIUM_DOMAIN, charge_for, grant_for, open_domain
from wardround.console.web.pages.budget import forecast_words
from wardround.console.web.queries import epsilons
from wardround.console.web.queries.ledger import Books
from wardround.console.web.queries.paging import PER_PAGE, newest
from wardround.console.web.queries.site import SiteQueries
from wardround.console.web.queries.timeline import MOST_SPANS, timeline
from wardround.console.web.sessions import COOKIE
from wardround.privacy.accounting import epsilon, rounded_up
from wardround.privacy.budget import allowance, cost
from wardround.protocol.entry import parse_content
from wardround.protocol.ledger import Abandon, Cancel, Close, Grant, Recover, Release, Reserve, Start, Waive, approve
from wardround.protocol.plan import StudyPlan

CAP, DELTA = 8.0, 1e-4


def text_of(answer: Any) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


@dataclass
class Story:
    """Three studies in mode local, dist and masks at one hospital, weeks apart, with every way that a round can end."""

    world: Any
    local: StudyPlan
    dist: StudyPlan
    masks: StudyPlan
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        self.world.opened("training", CONSORTIUM_DOMAIN)
        for plan in (self.local, self.dist, self.masks):
            self.world.proposed(plan)
        self.world.granted(self.local, "training", CONSORTIUM_DOMAIN)
        self.world.granted(self.dist, "training", CONSORTIUM_DOMAIN)
        waiver = Waive(domain="training", plan=self.masks.digest, reason="the ethics board accepted sums")
        self.world.office.record([self.world.signed(waiver, self.world.anna, self.world.ben)])
        self.world.granted(self.masks, "training")
        self.ledger = self.world.folder.ledger(lambda: self.now)
        for number in range(1, 7):
            self.ran(self.local, number)
            self.now += timedelta(days=4)
        self.ran(self.local, 7, end="cancelled")
        self.ran(self.local, 8, end="abandoned")
        self.ran(self.local, 9, end="reserved")
        self.ran(self.local, 10, end="started")
        for number in range(1, 4):
            self.ran(self.dist, number, "training", CONSORTIUM_DOMAIN)
            self.now += timedelta(days=9)
        self.ran(self.masks, 1)

    def ran(self, plan: StudyPlan, number: int, *domains: str, end: str = "released") -> None:
        for domain in domains or ("training",):
            block = f"{plan.digest[:16]}/{number:05d}/1/{domain}"
            event = charge_for(plan, "north", domain)
            self.ledger.record(Reserve(domain=domain, block=block, plan=plan.digest, round_number=number, event=event))
            if end == "cancelled":
                self.now += timedelta(days=3)
                self.ledger.record(Cancel(block=block))
            elif end != "reserved":
                self.ledger.record(Start(block=block, opted_out_at_most=10))
                if end == "abandoned":
                    self.ledger.record(Abandon(block=block))
                elif end == "released":
                    self.ledger.record(Release(block=block, attempt=1, content=f"{number:064x}"))

    def signs(self, *facts: Any) -> None:
        """Record facts that anna signs, at the story's own time."""
        self.ledger.record(*(type(fact).model_validate_json(self.world.signed(fact)) for fact in facts))

    @property
    def queries(self) -> SiteQueries:
        return SiteQueries(self.world.folder)

    def dated(self) -> list[Any]:
        """Every dated fact, straight from the file."""
        rows = self.ledger._store.execute("SELECT content FROM entries ORDER BY number").fetchall()
        return [parse_content(content) for (content,) in rows]

    def events(self, plan: StudyPlan, domain: str = "training") -> list[Any]:
        """The events of every reservation that was not cancelled, added up here and nowhere else."""
        facts = [one.fact for one in self.dated()]
        cancelled = {fact.block for fact in facts if isinstance(fact, Cancel)}
        return [
            fact.event
            for fact in facts
            if isinstance(fact, Reserve)
            and (fact.plan, fact.domain) == (plan.digest, domain)
            and fact.block not in cancelled
        ]


@pytest.fixture
def story(new_world: Any, helpers: Any) -> Iterator[Story]:
    plan = helpers.plan_of
    local = plan("rounds=20", "privacy.noise_multiplier=2.84", title="Chest pain at admission")
    dist = plan("privacy=dist", "rounds=5", "privacy.noise_multiplier=2.5", title="Readmission within a month")
    masks = plan("privacy=none", "secagg=on", "rounds=4", title="A sum under masks")
    told = Story(new_world, local, dist, masks)
    yield told
    told.ledger.close()


@pytest.fixture
def officer(story: Story, helpers: Any) -> Iterator[Any]:
    with helpers.new_client(story.world.app()) as client:
        helpers.log_in(client, story.world, "officer")
        yield client


def units(story: Story, plan: StudyPlan, domain: str = "training") -> int:
    order = story.ledger.state.domains[domain].fact.order
    return cost(charge_for(plan, "north", domain), order)


def test_what_each_study_spent_is_the_sum_of_its_reservations_that_were_not_cancelled(story: Story) -> None:
    found = story.queries.budgets.domain("training")
    spent = {study.plan.digest: study.spent for study in found.studies}
    assert spent[story.local.digest] == 9 * units(story, story.local)
    assert spent[story.dist.digest] == 3 * units(story, story.dist)
    assert spent[story.masks.digest] == 0
    assert sum(spent.values()) == found.spent == story.ledger.used("training")[0]
    assert found.allowance == allowance(CAP, DELTA, story.ledger.state.domains["training"].fact.order)


def test_the_series_follows_the_filter_to_the_day_and_gives_cancelled_rounds_back(story: Story) -> None:
    """What had been spent at the end of each week, from the dated facts alone."""
    by_week: dict[str, Counter[date]] = defaultdict(Counter)
    price = {plan.digest: units(story, plan) for plan in (story.local, story.dist)}
    reserved: dict[str, str] = {}
    for dated in story.dated():
        fact, day = dated.fact, date.fromisoformat(dated.at[:10])
        week = day - timedelta(days=day.weekday())
        if isinstance(fact, Reserve) and fact.domain == "training":
            reserved[fact.block] = fact.plan
            by_week[fact.plan][week] += price.get(fact.plan, 0)
        elif isinstance(fact, Cancel):
            by_week[reserved[fact.block]][week] -= price.get(reserved[fact.block], 0)
    found = story.queries.budgets.domain("training").timeline
    assert found.step == "week"
    for layer in found.layers:
        expected = [sum(n for week, n in by_week[layer.plan].items() if week <= span) for span in found.spans]
        assert list(layer.spent) == expected
    assert found.together[-1] == story.ledger.used("training")[0]
    assert [layer.plan for layer in found.layers] == [story.local.digest, story.dist.digest]


def test_epsilons_are_the_accountants_and_below_the_renyi_bound_of_dp_accounting(story: Story) -> None:
    found = story.queries.budgets.domain("training")
    every = []
    for plan in (story.local, story.dist):
        (study,) = [one for one in found.studies if one.plan.digest == plan.digest]
        events = story.events(plan)
        every += events
        assert study.promise.epsilon == pytest.approx(epsilon(events, DELTA), rel=1e-12)
        assert 0 < study.promise.epsilon <= renyi(events) * (1 + 1e-9)
    assert found.promise.epsilon == pytest.approx(epsilon(every, DELTA), rel=1e-12)
    assert found.promise.epsilon < sum(one.promise.epsilon for one in found.studies if one.promise)


def renyi(events: list[Any]) -> float:
    """What dp_accounting's own Renyi accountant says of the events, composed here."""
    accountant = RdpAccountant()
    for event in events:
        one = PoissonSampledDpEvent(event.sampling_probability, GaussianDpEvent(event.noise_multiplier))
        accountant.compose(SelfComposedDpEvent(one, event.steps))
    return float(accountant.get_epsilon(DELTA))


def test_a_study_of_mode_dist_shows_both_epsilons_each_for_whom_it_holds(story: Story, officer: Any) -> None:
    found = story.queries.budgets.domain("training")
    (study,) = [one for one in found.studies if one.plan.digest == story.dist.digest]
    (other,) = study.others
    assert other.consortium and other.epsilon == epsilon(story.events(story.dist, CONSORTIUM_DOMAIN), DELTA)
    assert other.epsilon < study.promise.epsilon
    assert all(not one.others for one in found.studies if one.plan.digest != story.dist.digest)
    shown = text_of(officer.get("/budget/training"))
    own, both = rounded_up(study.promise.epsilon), rounded_up(other.epsilon)
    assert re.search(rf"ε {own} at δ = 0.0001; for any one patient [^ε]*against everyone, whoever colludes", shown)
    assert re.search(
        rf"other curve: consortium ε {both} at δ = 0.0001; [^ε]*against the coordinator and as many", shown
    )


def test_no_epsilon_stands_on_a_budget_page_without_its_conditions(story: Story, officer: Any) -> None:
    plan = story.local.digest
    for path in ("/budget", "/budget/training", "/budget/consortium", f"/budget/training/{plan}"):
        shown = text_of(officer.get(path))
        values = re.split(r"ε \d", shown)[1:]
        assert values, path
        for after in values:
            head = after[:330]
            for words in ("at δ = 0.0001", "one patient", "adding or removing", "against", "rounded up"):
                assert words in head, (path, head)


def test_a_waived_study_has_no_epsilon_and_says_so(story: Story, officer: Any) -> None:
    (study,) = [
        one for one in story.queries.budgets.domain("training").studies if one.plan.digest == story.masks.digest
    ]
    assert (study.promise, study.waived, study.rounds, study.spent) == (None, 1, 1, 0)
    shown = text_of(officer.get(f"/budget/training/{story.masks.digest}"))
    assert "no privacy guarantee, sums only" in shown and "ε" not in shown
    assert "1 round had no privacy guarantee, sums only" in text_of(officer.get("/budget/training"))


def test_the_forecast_is_every_grant_that_is_not_used_and_what_the_filter_would_still_admit(story: Story) -> None:
    facts = [one.fact for one in story.dated()]
    granted = {fact.plan: fact.blocks for fact in facts if isinstance(fact, Grant) and fact.domain == "training"}
    left = [granted[plan.digest] - len(story.events(plan)) for plan in (story.local, story.dist, story.masks)]
    assert left == [11, 2, 3]
    found = story.queries.budgets.domain("training")
    more = 11 * units(story, story.local) + 2 * units(story, story.dist)
    assert (found.forecast.rounds, found.forecast.studies, found.forecast.granted) == (16, 3, more)
    assert found.forecast.spent == found.spent + more and found.forecast.fits
    # Like the last that has a price: the masks were granted later, and cost the filter nothing.
    like = units(story, story.dist)
    after = (found.allowance - found.spent - more) // like
    assert (found.forecast.rounds_left, found.forecast.studies_left) == (after, after // 5)
    words = " ".join(forecast_words(found))
    assert "If the 16 granted rounds of 3 studies that have not run yet all run" in words
    assert f"{ceil(1000 * (found.spent + more) / found.allowance) / 10:.1f}%" in words
    assert "an upper bound, not a prediction in time" in words


def test_the_filter_admits_exactly_what_the_forecast_leaves(story: Story, helpers: Any) -> None:
    found = story.queries.budgets.domain("training")
    again = helpers.plan_of("rounds=900", "privacy.noise_multiplier=2.84", title="One that is too long")
    story.world.proposed(again)
    story.signs(grant_for(again, "north"))
    like = units(story, again)
    over = story.queries.budgets.domain("training")
    assert not over.forecast.fits and over.forecast.spent == over.allowance and over.forecast.rounds_left == 0
    assert "They do not all fit" in " ".join(forecast_words(over))
    assert over.rounds_left == (found.allowance - found.spent) // like
    for number in range(1, over.rounds_left + 1):
        story.ran(again, number)
    with pytest.raises(Exception, match="too small"):
        story.ran(again, over.rounds_left + 1)
    assert story.queries.budgets.domain("training").rounds_left == 0


def test_a_revoked_grant_promises_nothing(story: Story) -> None:
    before = story.queries.budgets.domain("training").forecast
    grant = grant_for(story.local, "north").model_copy(update={"version": 2, "blocks": 0})
    story.signs(grant)
    after = story.queries.budgets.domain("training").forecast
    assert (before.rounds - after.rounds, before.granted - after.granted) == (11, 11 * units(story, story.local))


def test_rounds_are_counted_by_how_they_stand(story: Story) -> None:
    states = story.queries.budgets.domain("training").states
    assert dict(states) == dict(
        Counter(str(block.state) for block in story.ledger.blocks() if "training" in block.name)
    )
    assert [states[name] for name in ("reserved", "running", "released", "abandoned", "cancelled")] == [1, 1, 10, 1, 1]


def test_what_a_recovery_charged_counts_and_is_shown(story: Story, officer: Any) -> None:
    charges = story.ledger.state.missing_charges(story.ledger.state.size + 3)
    lost = Recover(
        seen_size=story.ledger.state.size + 3, seen_root="ab" * 32, charges=charges, reason="disk <b>lost</b>"
    )
    key = story.world.folder.identity().public.key.hex()
    story.ledger.record(approve(approve(lost, key, story.world.anna), key, story.world.ben))
    found = story.queries.budgets.domain("training")
    (study,) = [one for one in found.studies if one.plan.digest == story.local.digest]
    assert (study.recovered, study.rounds, found.spent) == (3, 12, story.ledger.used("training")[0])
    assert found.timeline.together[-1] == found.spent
    assert study.promise.epsilon == epsilon(
        story.events(story.local) + [charge_for(story.local, "north", "training")] * 3, DELTA
    )
    number = story.ledger.state.size
    page = text_of(officer.get(f"/budget/training/{story.local.digest}/{number}"))
    assert "Charged by a recovery" in page and "3 rounds" in page and "disk <b>lost</b>" in page


def test_a_charge_is_shown_down_to_its_event_and_every_entry_of_its_block(story: Story, officer: Any) -> None:
    rows = story.ledger._store.execute("SELECT number, hash FROM entries ORDER BY number").fetchall()
    facts = [one.fact for one in story.dated()]
    first = next(n for n, fact in enumerate(facts, 1) if isinstance(fact, Reserve) and fact.round_number == 2)
    answer = officer.get(f"/budget/training/{story.local.digest}/{first}")
    shown = text_of(answer)
    event = facts[first - 1].event
    raw = unescape(re.search(r"<pre[^>]*><code>(.*?)</code>", answer.text, re.S)[1])
    assert json.loads(raw) == event.model_dump(mode="json")
    block = [n for n, fact in enumerate(facts, 1) if getattr(fact, "block", "") == facts[first - 1].block]
    assert len(block) == 3
    for number, hash_ in rows:
        assert (bytes(hash_).hex() in shown) is (number in block)
    assert f"about {event.declared_patients} declared patients" in shown
    assert f"standard deviation of {event.noise_multiplier} times" in shown and "C = 1" in shown
    assert "At most 10 had opted out." in shown
    assert all(f'href="/audit/{number}"' in answer.text for number in block)


def test_charges_are_paged_and_none_is_lost(story: Story, officer: Any, helpers: Any) -> None:
    plan = helpers.plan_of("rounds=60", "privacy.noise_multiplier=9.0", title="A long one")
    story.world.proposed(plan)
    story.signs(grant_for(plan, "north"))
    for number in range(1, 58):
        story.ran(plan, number)
    seen: list[str] = []
    for page in (1, 2, 3):
        answer = officer.get(f"/budget/training/{plan.digest}?page={page}")
        seen += re.findall(r"Round (\d+)</a>", answer.text)
    assert [int(number) for number in seen] == list(range(57, 0, -1))
    beyond = officer.get(f"/budget/training/{plan.digest}?page=999")
    assert re.findall(r"Round (\d+)</a>", beyond.text)[-1] == "1"
    for wrong in ("0", "-1", "x", "9" * 30):
        assert officer.get(f"/budget/training/{plan.digest}?page={wrong}").status_code == 400


@pytest.mark.parametrize("items", [0, 1, PER_PAGE, PER_PAGE + 1, 3 * PER_PAGE])
def test_pages_of_a_list_hold_every_item_once(items: int) -> None:
    every, pages = list(range(items)), newest(range(items), 1).pages
    parts = [newest(every, page) for page in range(1, pages + 1)]
    assert [item for part in parts for item in part.items] == every[::-1]
    assert all(part.last - part.first + 1 == len(part.items) for part in parts if items)


@pytest.mark.parametrize(
    "path",
    ["/budget/nowhere", "/budget/training/ab", "/budget/training/{plan}/1", "/budget/consortium/{plan}/{number}"],
)
def test_what_is_not_there_is_not_found(story: Story, officer: Any, path: str) -> None:
    facts = [one.fact for one in story.dated()]
    number = next(n for n, fact in enumerate(facts, 1) if isinstance(fact, Reserve) and fact.domain == "training")
    assert officer.get(path.format(plan=story.local.digest, number=number)).status_code == 404


def test_a_new_site_and_a_new_domain_say_what_comes_first(new_world: Any, helpers: Any) -> None:
    with helpers.new_client(new_world.app()) as client:
        helpers.log_in(client, new_world, "officer")
        assert "wardround site domain open FOLDER training" in text_of(client.get("/budget"))
        new_world.opened("training")
        shown = text_of(client.get("/budget/training"))
    assert "Nothing was spent of this budget yet." in shown and "0.0% of the allowance spent" in shown
    assert "No round is granted and unused" in shown and "ε" not in shown.replace("ε so far", "")


def test_a_closed_domain_promises_nothing(story: Story, officer: Any) -> None:
    close = Close(domain="training", reason="the cohort was withdrawn")
    story.signs(close)
    found = story.queries.budgets.domain("training")
    assert (found.forecast.rounds, found.forecast.spent, found.rounds_left) == (0, found.spent, None)
    shown = text_of(officer.get("/budget/training"))
    assert shown.count("This data domain is closed") >= 2 and "no round that was granted can run" in shown


def test_a_domain_whose_name_fits_no_address_has_its_page(story: Story, officer: Any) -> None:
    for name in ("heart/2026", "..", "<script>", "~4"):
        story.signs(open_domain(name, CAP, DELTA))
        keys = re.findall(r'href="/budget/([^"]+)"', officer.get("/budget").text)
        assert f"~{story.world.folder.ledger().state.size}" in keys
    for key in keys:
        assert officer.get(f"/budget/{key}").status_code == 200


def test_a_broken_ledger_is_an_error_and_no_budget(story: Story, officer: Any, helpers: Any) -> None:
    store = story.ledger._store
    for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        store.execute(f"DROP TRIGGER {name}")
    store.execute("UPDATE entries SET content = CAST(content || ' ' AS BLOB) WHERE number = 9")
    with helpers.new_client(story.world.app()) as restarted:
        restarted.cookies.set(COOKIE, officer.cookies[COOKIE])
        for path in ("/budget", "/budget/training", f"/budget/training/{story.local.digest}"):
            answer = restarted.get(path)
            assert answer.status_code == 409 and "broken at entry 9" in text_of(answer)


def test_a_view_folds_nothing_twice_and_computes_no_epsilon_again(story: Story, monkeypatch: Any) -> None:
    queries = story.queries
    first = queries.budgets.domain("training")
    taken: list[int] = []
    take = Books.take
    monkeypatch.setattr(Books, "take", lambda books, entry: (taken.append(entry.number), take(books, entry))[1])
    monkeypatch.setattr(epsilons, "epsilon", lambda *_: pytest.fail("an epsilon was computed again"))
    assert queries.budgets.domain("training") == first
    assert taken == []


def test_a_timeline_of_any_length_has_few_spans_and_loses_nothing() -> None:
    for days, step in ((0, "day"), (30, "day"), (200, "week"), (900, "month"), (9000, "year"), (30000, "year")):
        first = date(2026, 1, 30)
        last = (first + timedelta(days=days)).isoformat()
        found = timeline({"a": Counter({"2026-01-30": 5}) + Counter({last: 7}), "b": {"2026-01-30": 1}}, last)
        assert found.step == step and len(found.spans) <= MOST_SPANS
        assert found.together[-1] == 13
        assert list(found.spans) == sorted(set(found.spans))


def test_studies_beyond_the_letters_are_one_layer() -> None:
    by_day = {f"{number:02d}": {"2026-01-30": number} for number in range(1, 12)}
    found = timeline(by_day, "2026-01-31")
    assert [layer.plan for layer in found.layers] == ["11", "10", "09", "08", "07", None]
    assert found.layers[-1].spent[-1] == sum(range(1, 7)) and found.together[-1] == 66


@pytest.mark.server("chromium")
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 360), ("dark", 360)])
def test_the_whole_story_is_accessible_and_fits(
    story: Story, visits: Any, axe: Any, screenshot: Any, scheme: str, width: int
) -> None:
    with visits.page(story.world, "officer", scheme=scheme, width=width) as window:
        for name, path in (
            ("domains", "/budget"),
            ("domain", "/budget/training"),
            ("study", f"/budget/training/{story.local.digest}"),
        ):
            window.goto(path)
            for summary in window.query_selector_all("summary"):
                summary.click()
            screenshot(window, f"site-budget-story-{name}-{scheme}-{width}")
            assert axe(window) == []
            assert window.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
            assert window.faults == []
