"""The pages of a campaign of indicators: figures are the checkpoint's, who is away is shown, and nothing is made up.

Checkpoint, receipts and status are what the coordinator's own code left. Expected figures are read from the table of
sums by hand: a count is its own node, a level the sum of the fewest nodes that hold all ticks so far.
"""

import csv
import json
import re
from dataclasses import replace
from datetime import timedelta
from io import StringIO
from typing import Any, get_type_hints

import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from wardround.client.store.results import keep_model, keep_series
from wardround.console.cli import app
from wardround.console.web.indicators_view import live_words
from wardround.console.web.queries.campaigns import Attendance, Campaign, campaign
from wardround.console.web.queries.coordinator import CoordinatorQueries
from wardround.privacy.accounting import epsilon, rounded_up
from wardround.privacy.continual import scale
from wardround.protocol.dyadic import prefix
from wardround.protocol.parameters import model_hash
from wardround.server.store.studies import StudyFolder
from wardround.server.study import Progress
from wardround.strategies.series import Figure

BEDS, DONE = "beds_in_use", 48


@pytest.fixture(scope="module")
def seats(asked: Any) -> Any:
    """A function: what the campaign's page answers somebody of a role."""
    return lambda world, path="", role="coordinator": asked(
        world, f"/studies/{world.plans['campaign'].digest}/indicators{path}", role
    )


def expected_figure(world: Any, name: str, tick: int) -> float:
    plan = world.plans["campaign"]
    indicator = next(each for each in plan.task.indicators if each.name == name)
    sums = plan.layout.split(world.truth[DONE])[name]
    nodes = prefix(tick) if name == BEDS else [node for node in prefix(tick) if node.level == 0]
    if name != BEDS and tick % 2 == 0:
        raise ValueError("an even tick's own node is in no prefix")
    return float(sum(float(sums[node.position]) for node in nodes)) * scale(plan.task, indicator)


def place_of(world: Any) -> StudyFolder:
    return StudyFolder.of(world.folder.studies, world.plans["campaign"])


def test_the_downloads_hold_the_figures_of_the_checkpoint_and_none_for_who_is_away(live_hub: Any, seats: Any) -> None:
    rows = list(csv.DictReader(StringIO(seats(live_hub, "/series.csv").text)))
    assert len(rows) == 3 * DONE
    by = {(row["indicator"], int(row["tick"])): row for row in rows}
    for tick in (1, 11, 19, 41, 45):
        assert float(by[BEDS, tick]["value"]) == pytest.approx(expected_figure(live_hub, BEDS, tick), rel=1e-5)
        for name in ("admissions", "minutes_waited"):
            assert float(by[name, tick]["value"]) == pytest.approx(expected_figure(live_hub, name, tick), rel=1e-5)
    away = {tick for tick in range(1, DONE + 1) if not by[BEDS, tick]["value"]}
    assert away == {*range(20, 27), 47, 48}, "a level has no figure while a hospital is away"
    assert all(by["admissions", tick]["value"] and by["admissions", tick]["hospitals"] == "4" for tick in away)
    whole = json.loads(seats(live_hub, "/series.json").text)
    assert [(f["indicator"], f["tick"], f["value"]) for f in whole["figures"]] == [
        (row["indicator"], int(row["tick"]), float(row["value"]) if row["value"] else None) for row in rows
    ]
    assert "at delta 1e-06" in whole["privacy"][0] and "whoever colludes" in whole["privacy"][0]


def test_prometheus_reads_the_last_tick_and_finds_no_level_without_a_figure(live_hub: Any, seats: Any) -> None:
    answer = seats(live_hub, "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {
        (sample.name, sample.labels["indicator"]): (sample.value, sample.timestamp)
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    last = seats(live_hub, "/series.json").json()["figures"][DONE - 1]
    assert last["indicator"] == "admissions"
    plan = live_hub.plans["campaign"]
    at = plan.task.begins(DONE + 1).timestamp()
    assert found["wardround_indicator", "admissions"] == (last["value"], at)
    assert ("wardround_indicator", BEDS) not in found and found["wardround_indicator_hospitals", BEDS][0] == 4


@pytest.mark.parametrize("role", ["coordinator", "researcher"])
def test_the_page_says_who_is_away_what_is_next_and_what_all_of_it_costs(
    live_hub: Any, seats: Any, role: str, text_of: Any
) -> None:
    plan, text = live_hub.plans["campaign"], text_of(seats(live_hub, role=role))
    assert "48 of 90" in text and "4 of 5" in text and "Next tick ends 23 Feb 2026, 00:00 UTC" in text
    assert "east is away: its patients are in no figure of the last tick. Nothing is filled in." in text
    assert "east away 19 Feb 2026, 00:00 UTC 2" in text and "north in the sum 21 Feb 2026, 00:00 UTC 7" in text
    assert "no figure in the tick that began 2026-02-21 UTC; hospitals: 4 of 5; without east" in text
    cost = rounded_up(epsilon([plan.round_event("north")], plan.privacy.delta))
    promised = text.split("What it costs", 1)[1]
    for part in (
        f"ε at most {cost}",
        "at δ = 0.000001; for any one patient of any one hospital; adding or removing that patient; against everyone, "
        "whoever colludes; rounded up",
        "charged once to every data domain before the first event is read",
        "admissions 2, beds_in_use 6, minutes_waited 4",
        "neither charged nor promised: one single event",
    ):
        assert part in promised, part
    assert "A tick needs 4 of 5 hospitals: 1 may be offline." in text


def test_the_command_line_reads_a_running_coordinators_folder(live_hub: Any, seats: Any) -> None:
    done = CliRunner().invoke(app, ["live", "table", str(place_of(live_hub).path), "--csv"])
    assert done.exit_code == 0, done.output
    assert done.output == seats(live_hub, "/series.csv").text
    done = CliRunner().invoke(app, ["live", "table", str(place_of(live_hub).path), "--prometheus"])
    assert done.output == seats(live_hub, "/metrics").text


def test_a_surge_is_an_alarm_that_stands_and_is_marked_in_the_plot(live_hub: Any, seats: Any, text_of: Any) -> None:
    page = seats(live_hub)
    assert "▲ admissions is above what is usual" in text_of(page)
    plots = re.findall(r'<svg[^>]*aria-labelledby="plot-admissions.*?</svg>', page.text, flags=re.S)
    assert len(plots) == 1 and "▲" in plots[0] and 'class="limit-line"' in plots[0]
    assert page.text.count("<script") == 1 and 'src="/static/live.js"' in page.text
    assert "style=" not in page.text


@pytest.mark.parametrize(
    ("sites", "absence", "words"),
    [
        (1, "local", "one hospital's sum is its own, so only its own full noise (LOCAL)"),
        (2, "local", "of two hospitals each knows the other's part of a sum"),
        (3, "gap", "A tick needs all 3 hospitals: with one of them offline its secure sum is void, and a gap."),
        (4, "gap", "A tick needs 3 of 4 hospitals: 1 may be offline."),
    ],
)
def test_before_the_first_tick_the_page_says_why_and_what_it_will_cost(
    new_hub: Any, helpers: Any, sites: int, absence: str, words: str, text_of: Any
) -> None:
    plan = helpers.campaign_of(("north", "east", "middle", "south")[:sites], on_absence=absence)
    new_hub.registry.propose(plan)
    StudyFolder.create(new_hub.folder.studies, plan)
    with helpers.new_client(new_hub.app()) as client:
        helpers.log_in(client, new_hub, "researcher")
        at = f"/studies/{plan.digest}/indicators"
        text = text_of(client.get(at))
        assert words in text and "No tick is over yet." in text and "ε at most" in text and "0 of 90" in text
        assert text.count("no tick is over yet") == sites
        assert client.get(f"{at}/series.csv").text.count("\n") == 1, "a header and no figure"
        assert json.loads(client.get(f"{at}/series.json").text)["figures"] == []
        study = client.get(f"/studies/{plan.digest}").text
        assert study.count(f'href="{at}"') == 1 and "Figures are published after every tick" in study
        assert "Nothing is released before" not in study


def test_the_coordinators_page_names_both_promises_of_a_campaign_of_shares(
    new_hub: Any, helpers: Any, text_of: Any
) -> None:
    plan = helpers.campaign_of(shared=True)
    new_hub.registry.propose(plan)
    StudyFolder.create(new_hub.folder.studies, plan)
    with helpers.new_client(new_hub.app()) as client:
        helpers.log_in(client, new_hub, "researcher")
        at = f"/studies/{plan.digest}/indicators"
        promised = text_of(client.get(at)).split("What it costs", 1)[1]
        found = json.loads(client.get(f"{at}/series.json").text)["privacy"]
    share = plan.round_event("north")
    for shares, against in ((1, "everyone, whoever colludes"), (3, "the coordinator and as many hospitals")):
        event = share.model_copy(update={"noise_multiplier": share.noise_multiplier * shares**0.5})
        said = f"ε at most {rounded_up(epsilon([event], 1e-6))} at δ = 0.000001; for any one patient"
        assert said in promised and f"against {against}" in promised.split(said, 1)[1]
    assert "against the coordinator together with at most 1 other hospital" in found[1]


def test_a_void_tick_is_a_gap_and_the_page_says_so(live_copy: Any, seats: Any, text_of: Any) -> None:
    plan, place = live_copy.plans["campaign"], place_of(live_copy)
    before = place.progress(plan)
    place.keep_progress(replace(before, rounds_done=DONE + 1))
    text = text_of(seats(live_copy))
    assert "49 of 90" in text and "0 of 5" in text
    assert "The last tick has no sum: too few hospitals answered." in text and "is away:" not in text
    assert "1 tick has no sum so far." in text and text.count("no sum was opened") == 5
    assert "no figure in the tick that began 2026-02-22 UTC; hospitals: 0 of 5; no sum: too few" in text


def test_a_table_that_no_receipt_names_is_not_believed(live_copy: Any, seats: Any, text_of: Any) -> None:
    plan, place = live_copy.plans["campaign"], place_of(live_copy)
    assert "These figures may not be believed." not in text_of(seats(live_copy))
    progress = place.progress(plan)
    older = replace(progress, state=replace(progress.state, model=live_copy.truth[40]))
    place.keep_progress(older)
    assert "These figures may not be believed." in text_of(seats(live_copy))
    queries = CoordinatorQueries(live_copy.folder)
    newest = campaign(plan, live_copy.truth[DONE], DONE)
    between = campaign(plan, live_copy.truth[DONE - 1], DONE - 1)
    study, start = queries.study(plan.digest), plan.model.hash
    assert all(study.names(one.table, start) for one in (newest, between)), "a receipt is written before the checkpoint"
    assert not study.names(campaign(plan, live_copy.truth[DONE - 2], DONE - 2).table, start)


@pytest.mark.parametrize("content", [b"", b"junk\nmore", b'{"plan": "x", "rounds_done": 1}\n', b"\xff" * 100])
def test_a_checkpoint_that_cannot_be_read_is_said_and_gives_no_download(
    live_copy: Any, seats: Any, content: bytes, text_of: Any
) -> None:
    (place_of(live_copy).path / "progress.bin").write_bytes(content)
    text = text_of(seats(live_copy))
    assert "The series cannot be shown now." in text and "Traceback" not in text
    assert seats(live_copy, "/series.csv").status_code == 404


def test_a_study_that_trains_has_no_series(hub: Any, helpers: Any, text_of: Any) -> None:
    digest = hub.plans["finished"].digest
    with helpers.new_client(hub.app()) as client:
        helpers.log_in(client, hub, "researcher")
        assert "This study publishes no indicators." in text_of(client.get(f"/studies/{digest}/indicators"))
        for name in ("series.csv", "series.json", "metrics"):
            assert client.get(f"/studies/{digest}/indicators/{name}").status_code == 404
        assert client.get(f"/studies/{'0' * 64}/indicators").status_code == 404


def test_nobody_reads_a_figure_without_a_session(live_hub: Any, helpers: Any) -> None:
    asker = helpers.Asker(live_hub.app(), None)
    for name in ("", "/series.csv", "/series.json", "/metrics", "/live"):
        answer = asker.ask("GET", f"/studies/{live_hub.plans['campaign'].digest}/indicators{name}")
        assert answer.status in (303, 403) and "admissions" not in answer.text, name


def test_of_one_hospital_a_page_has_its_name_and_ticks_and_no_measurement() -> None:
    assert get_type_hints(Attendance) == {"site": str, "last": int, "missed": int}
    named = {name for name, hint in get_type_hints(Figure).items() if hint == tuple[str, ...]}
    assert named == {"away", "back"}, "figures are sums over hospitals, and name those that are in none"
    held = {name for name, hint in get_type_hints(Campaign).items() if hint not in (int, str)}
    assert held == {"plan", "task", "hospitals", "figures", "raised"}


def test_a_new_checkpoint_is_heard_by_who_listens(live_copy: Any) -> None:
    queries = CoordinatorQueries(live_copy.folder)
    before, place = queries.store.mark(), place_of(live_copy)
    assert queries.store.mark() == before
    place.keep_progress(Progress.from_bytes((place.path / "progress.bin").read_bytes(), live_copy.plans["campaign"]))
    assert queries.store.mark() != before


def test_when_the_last_tick_is_over_there_is_no_next_one(live_hub: Any) -> None:
    plan = live_hub.plans["campaign"]
    assert live_words(campaign(plan, live_hub.truth[DONE], 90))["next"] == "none: the campaign is over"
    assert live_words(campaign(plan, None, 0))["next"] == "6 Jan 2026, 00:00 UTC", "the first tick's end"
    assert plan.task.begins(2) - plan.task.start == timedelta(days=1)


def test_a_hospital_sees_what_it_has_answered_and_the_series_as_of_the_tick_that_came(
    world: Any, client_as: Any, live_hub: Any, helpers: Any, text_of: Any
) -> None:
    plan = world.proposed(helpers.campaign_of())
    assert plan.digest == live_hub.plans["campaign"].digest
    client, at = client_as("auditor"), f"/studies/{plan.digest}/indicators"
    text = text_of(client.get(at))
    assert "0 of 90" in text and "nothing yet" in text and "has signed no receipt of this campaign yet" in text
    world.opened("test")
    world.granted(plan, "training", "test")
    world.published(plan, 5, "training", "test")
    world.receipted(plan, 1, 2)
    text = text_of(client.get(at))
    assert "5 of 90" in text and "charged, the whole campaign once" in text
    assert "Next tick ends 11 Jan 2026, 00:00 UTC" in text and "tick 2, attempt 1" in text
    assert "east in the sum" in text and "west away" in text
    assert "No figures have come to this hospital yet." in text
    assert client.get(f"{at}/series.csv").status_code == 404
    keep_series(world.folder, plan, live_hub.truth[40])
    text = text_of(client.get(at))
    assert "The series cannot be shown now." in text, "no receipt names it"
    assert client.get(f"{at}/series.csv").status_code == 404
    world.receipted(plan, 41, models=(model_hash(live_hub.truth[40]), model_hash(live_hub.truth[41])))
    world.receipted(plan, 40, models=(model_hash(live_hub.truth[39]), model_hash(live_hub.truth[40])))
    text = text_of(client.get(at))
    assert "As of tick 40, which began 13 Feb 2026, 00:00 UTC" in text and "minutes waited" in text
    rows = list(csv.DictReader(StringIO(client.get(f"{at}/series.csv").text)))
    assert {int(row["tick"]) for row in rows} == set(range(1, 41)), "nothing of the ticks to come"
    keep_model(world.folder, plan, live_hub.truth[DONE])
    text = text_of(client.get(at))
    assert "As of tick" not in text and "minutes waited" in text
    rows = list(csv.DictReader(StringIO(client.get(f"{at}/series.csv").text)))
    shown = next(row for row in rows if (row["indicator"], row["tick"]) == (BEDS, "41"))
    assert float(shown["value"]) == pytest.approx(expected_figure(live_hub, BEDS, 41), rel=1e-5)


@pytest.mark.server("chromium")
@pytest.mark.parametrize(("width", "scheme", "language"), [(1280, "light", "en"), (360, "dark", "fr")])
def test_the_page_reads_well_on_a_desk_and_a_telephone(
    live_hub: Any, visits: Any, axe: Any, screenshot: Any, width: int, scheme: str, language: str
) -> None:
    with visits.page(live_hub, "coordinator", width=width, scheme=scheme, language=language) as window:
        window.goto(f"/studies/{live_hub.plans['campaign'].digest}/indicators")
        window.wait_for_selector("svg.series >> visible=true")
        shown = window.locator("svg.series >> visible=true").count()
        assert shown == 3, "one plot for each indicator, the wide or the narrow one"
        screenshot(window, f"coordinator-indicators-{language}-{width}")
        assert axe(window) == [] and window.faults == []
        assert window.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0


@pytest.mark.server("chromium")
def test_an_open_page_shows_the_next_tick_by_itself(live_copy: Any, visits: Any) -> None:
    plan, place = live_copy.plans["campaign"], place_of(live_copy)
    with visits.page(live_copy, "researcher") as window:
        window.goto(f"/studies/{plan.digest}/indicators")
        window.wait_for_selector("text=48 of 90")
        window.evaluate("window.kept = true")
        place.keep_progress(replace(place.progress(plan), rounds_done=DONE + 1))
        window.wait_for_selector("text=49 of 90", timeout=30_000)
        window.wait_for_selector("text=The last tick has no sum", timeout=30_000)
        assert window.evaluate("window.kept") is True and window.faults == []
