"""The coordinator's page of figures: what a statistics study or an evaluation found, with intervals and costs.

Studies run over the heart disease data by the sites' own code, and lie in a coordinator's folder as its own process
leaves them: checkpoint, receipts and status.
"""

import csv
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from wardround.client.answers import answers_from
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.conf.statistics import parse_statistics
from wardround.console.cli import app
from wardround.console.i18n import _, speaking
from wardround.console.reports import figures_words
from wardround.console.reports.figures_words import name_words
from wardround.console.web.figures_view import FORMS, costs, download, questions
from wardround.console.web.queries.figures import figures
from wardround.privacy.accounting import epsilon, rounded_up
from wardround.protocol.parameters import Vector
from wardround.protocol.plan import StudyPlan
from wardround.protocol.statistics import SITES, Statistics, rounds_before
from wardround.server.folder import CoordinatorFolder
from wardround.server.recording import Recorder
from wardround.server.store.database import open_database
from wardround.server.store.registry import Registry
from wardround.server.store.sites import Sites
from wardround.server.store.studies import StudyFolder
from wardround.server.study import Progress, Study
from wardround.simulations.cohorts import declared_in, gather
from wardround.simulations.consortium import simulated_roster
from wardround.simulations.site_by_site import SiteBySite, Terms
from wardround.strategies import strategy_for
from wardround.strategies.statistics import FEW_SITES, HIDDEN, expected, read, statistic_for
from wardround.strategies.statistics.base import NOISY
from wardround.strategies.statistics.newton import UNDETERMINED, UNSETTLED

TODAY = datetime.now(UTC).date()
HEART = gather(parse_configuration(compose_configuration(["study=heart_disease"])))
TRAINING = (
    "study=heart_disease",
    "secagg=off",
    "rounds=6",
    "evaluation.rounds=[2,4,6]",
    "evaluation.epsilon=4",
    "+evaluation.ask.by=[sex]",
)

QUERIES: list[dict[str, Any]] = [
    {"name": "patients", "kind": "count", "by": ["sex", "num"]},
    {"name": "age_bands", "kind": "histogram", "column": "age", "cuts": [30, 40, 50, 60, 70], "by": ["sex"]},
    {"name": "age", "kind": "mean", "of": {"column": "age", "lower": 20, "upper": 90}, "by": ["num"]},
    {"name": "oldest", "kind": "mean", "of": {"column": "age", "lower": 20, "upper": 90},
     "where": [{"column": "age", "at_least": 79}]},
    {"name": "until_75", "kind": "survival", "time": "age", "event": "num", "times": [40, 50, 60, 70, 75]},
]  # fmt: skip


def counting(terms: dict[str, Any] | None = None, secagg: str = "off", **statistics: Any) -> StudyPlan:
    given = {
        "like": "heart_disease",
        "privacy": terms or {"mode": "local", "epsilon": 3.0},
        "statistics": {"queries": QUERIES} | statistics,
        "secagg": secagg,
    }
    configuration = parse_statistics(given)
    return make_plan(configuration, declared_in(HEART, configuration.task), TODAY)


def training(*words: str) -> StudyPlan:
    configuration = parse_configuration(compose_configuration([*TRAINING, *words]))
    return make_plan(configuration, declared_in(HEART, configuration.task), TODAY)


def ran(plan: StudyPlan) -> tuple[Progress, tuple[Any, ...]]:
    """What every round of ``plan`` left at the coordinator, by the sites' own code: the last progress, the records."""
    study = Study(plan, strategy_for(plan))
    parties = SiteBySite(
        Terms(plan, answers_from(plan), strategy_for(plan), HEART.taking_part, TODAY, 40.0, 40.0), study, (), None, None
    )
    records: list[Any] = []
    while not study.finished:
        if plan.follows is not None:
            study.in_training = np.full(plan.handed_out.size, 0.1 * (len(records) + 1), np.float32)
        records.append(parties.federation.step())
    return study.progress, tuple(records)


def put(hub: Any, name: str, plan: StudyPlan) -> StudyFolder:
    hub.plans[name] = plan
    hub.registry.propose(plan)
    return StudyFolder.create(hub.folder.studies, plan)


def leave(hub: Any, name: str, plan: StudyPlan, state: str = "finished") -> None:
    """The study in the coordinator's folder, as its own process leaves it."""
    place, (progress, records) = put(hub, name, plan), ran(plan)
    recorder = Recorder(place, hub.folder.identity(), lambda: hub.roster)
    for record in records:
        place.keep_receipt(recorder.record(record, 1))
    place.keep_progress(progress)
    if state == "finished":
        place.keep_model(plan, progress.state.model)
    hub.registry.ended(plan.digest, state, "")


@pytest.fixture(scope="module")
def counted(helpers: Any) -> Iterator[Any]:
    """A coordinator with figures of every kind. Many tests look at it, so none may change it."""
    with helpers.short_folder() as folder:
        made = helpers.HubWorld(folder / "hub", helpers.Face.COORDINATOR)
        made.begin()
        hospitals = [each.site for each in counting().participants]
        identities = [helpers.identity(name) for name in hospitals]
        made.roster = simulated_roster(identities, made.folder.identity(), (), TODAY)
        with closing(open_database(made.folder.database)) as store:
            Sites(store).put_in_force(made.roster)
        leave(made, "counted", counting())
        leave(made, "by site", counting(by_site=hospitals, queries=QUERIES[:1]))
        trained = training()
        assert trained.evaluation_plan is not None
        put(made, "trained", trained)
        leave(made, "evaluated", trained.evaluation_plan)
        yield made


@pytest.fixture(scope="module")
def seats(asked: Any) -> Any:
    """A function: what a study's page of figures answers somebody of a role."""
    return lambda world, name, path="", role="researcher": asked(
        world, f"/studies/{world.plans[name].digest}/figures{path}", role
    )


@pytest.fixture
def copied(counted: Any, helpers: Any) -> Iterator[Any]:
    """The same, of one's own: its folder may be changed."""
    with helpers.short_folder() as folder:
        shutil.copytree(counted.path, folder / "hub")
        made = replace(counted, path=folder / "hub", clock=type(counted.clock)(), secrets=dict(counted.secrets))
        made.clock.now = counted.clock.now
        made.folder = CoordinatorFolder.open(made.path)
        made.registry = Registry(made.folder.database)
        made.roster = counted.roster
        yield made


def known_sums(plan: StudyPlan, counts: dict[str, Any]) -> Vector:
    """The table of one round whose sums are these numbers of patients; of other queries there are none."""
    task = plan.task
    assert isinstance(task, Statistics)
    parts = {name: np.zeros(shape) for name, shape in ((t.name, t.shape) for t in plan.layout.tensors)}
    parts[SITES] = np.array([4.0])
    for query in task.queries:
        if query.name in counts:
            wide = np.zeros((query.groups, query.sent))
            wide[:, : query.width] = counts[query.name]
            bound = statistic_for(query, {}, task.confidence).patient_bound
            parts[query.name] = wide * task.weight(query) / bound
    return plan.layout.join({name: part.astype(np.float32) for name, part in parts.items()})


def test_the_page_has_the_figures_that_the_command_line_prints(counted: Any, seats: Any, text_of: Any) -> None:
    plan, place = counted.plans["counted"], StudyFolder.of(counted.folder.studies, counted.plans["counted"])
    for form in ("csv", "json"):
        done = CliRunner().invoke(app, ["stats", "table", str(place.path), f"--{form}"])
        assert done.exit_code == 0, done.output
        assert seats(counted, "counted", f"/figures.{form}").text == done.output
    page = seats(counted, "counted", role="coordinator")
    cells = read(plan, place.model(plan))
    for cell in cells:
        if cell.value is not None and cell.query in ("patients", "age"):
            assert f"{cell.value:.4g}" in page.text, cell
    text = text_of(page)
    assert "male · all count" in text and "these patients" in text and "the population" in text
    assert "In the sum of round 1: 4 of 4." in text and "switzerland in the sum" in text
    assert "These figures may not be believed." not in text and "style=" not in page.text


def test_a_hidden_figure_has_no_number_in_page_pictures_or_files(counted: Any) -> None:
    plan = counted.plans["counted"]
    bands = np.array([[3.0, 7.321875, 6.453125, 41.0, 52.0, 63.0], [81.0, 72.0, 93.0, 64.0, 5.578125, 96.0]])
    ages = [[40.0, 12.0, 60.0, 8.0]]
    found = figures(plan, known_sums(plan, {"age_bands": bands, "patients": np.array(ages).T}), 1)
    shown = json.dumps([asdict(one) for one in questions(found)], default=str)
    files = [download(found, form).body.decode() for form in FORMS]
    for number in ("7.321", "7.322", "6.453", "5.578", "8.0"):
        assert all(number not in text for text in (shown, *files)), number
    for seen in ("41", "72", "96", "12"):
        assert all(seen in text for text in (shown, *files)), "what is large enough is there"
    bars = next(one for one in questions(found) if one.name == "age_bands")
    assert bars.hidden == 4 and bars.rows[0].why == "fewer patients than the plan shows"
    assert bars.rows[0].group == "female · below 30" and bars.rows[0].value == bars.rows[0].interval == ""
    assert bars.panels[0].chart.count('class="void-band"') == 3 and bars.panels[1].chart.count("void-band") == 1
    assert "below 30: not shown" in bars.panels[0].chart
    lines = list(csv.DictReader(StringIO(files[0])))
    hidden = [line for line in lines if not line["value"]]
    assert len(hidden) > 4 and all(line["note"] and not line["patients"] for line in hidden)


def test_a_figure_that_its_statistic_hides_keeps_no_number_of_patients(counted: Any) -> None:
    plan = counted.plans["evaluated"]
    cells = read(plan, StudyFolder.of(counted.folder.studies, plan).model(plan))
    hidden = [cell for cell in cells if cell.value is None]
    assert len(hidden) > 10 and all((cell.low, cell.high, cell.patients) == (None,) * 3 for cell in hidden)


def test_the_cost_stands_with_delta_unit_adjacency_and_who_may_collude(counted: Any, seats: Any, text_of: Any) -> None:
    plan = counted.plans["counted"]
    text = text_of(seats(counted, "counted")).split("What it costs", 1)[1]
    own = rounded_up(epsilon([plan.round_event("va")], plan.privacy.delta))
    words = "at δ = 0.0001; for any one patient of any one hospital; adding or removing that patient; against everyone"
    assert f"ε at most {own} {words}, whoever colludes; rounded up" in text
    both = counting({"mode": "dist", "epsilon": 8.0, "epsilon_consortium": 3.0}, secagg="auto")
    site, consortium = costs(both)
    assert (site.consortium, consortium.consortium) == (False, True)
    assert site.epsilon > consortium.epsilon == pytest.approx(epsilon([both.consortium_event("va")], 1e-4))
    assert costs(plan, 2)[0].epsilon > costs(plan, 1)[0].epsilon == costs(plan)[0].epsilon, "void rounds cost too"


def test_an_evaluation_on_a_schedule_shows_each_figure_over_the_rounds(counted: Any, seats: Any, text_of: Any) -> None:
    page = seats(counted, "evaluated").text
    over = re.findall(r'<svg[^>]*aria-labelledby="over-1-\d+-t.*?</svg>', page, flags=re.S)
    assert len(over) == 5
    cells = read(
        counted.plans["evaluated"],
        StudyFolder.of(counted.folder.studies, counted.plans["evaluated"]).model(counted.plans["evaluated"]),
    )
    brier = {cell.after: cell.value for cell in cells if cell.group == ("all",) and cell.quantity == "Brier score"}
    drawn = next(one for one in over if "<title" in one and ">Brier score<" in one)
    for after, value in brier.items():
        assert value is not None and f"after round {after}: {value:.4g}, interval" in drawn
    assert drawn.count('class="between"') == 2, "a line from look to look"
    training = counted.plans["trained"].digest
    assert f'href="/studies/{training}"' in page
    assert f'href="/studies/{counted.plans["evaluated"].digest}/figures"' in seats(counted, "trained").text
    assert "This study trains a model." in text_of(seats(counted, "trained"))


def test_from_the_pages_of_studies_a_link_leads_to_their_figures(counted: Any, helpers: Any) -> None:
    own, evaluated = counted.plans["counted"].digest, counted.plans["evaluated"].digest
    with helpers.new_client(counted.app()) as client:
        helpers.log_in(client, counted, "coordinator")
        for study, leads in ((own, own), (evaluated, evaluated), (counted.plans["trained"].digest, evaluated)):
            assert f'href="/studies/{leads}/figures"' in client.get(f"/studies/{study}").text


def test_a_void_look_has_no_figure_and_no_dot(counted: Any) -> None:
    plan = counted.plans["evaluated"]
    task, place = plan.task, StudyFolder.of(counted.folder.studies, plan)
    table = place.model(plan).copy()
    parts = {name: part.copy() for name, part in plan.layout.split(table).items()}
    parts[rounds_before(SITES, 1)][:] = 0.0
    found = figures(plan, plan.layout.join(parts), 3)
    assert [(after, bool(cells)) for after, cells in found.looks] == [(2, True), (4, False), (6, True)]
    chart = next(one.chart for one in questions(found)[0].over if one.caption == "Brier score")
    assert "after round 4: not shown" in chart and chart.count("shared-dot") == 2 and ">none<" in chart
    assert task.follows is not None and not found.void


def test_figures_of_each_hospital_are_there_only_where_the_plan_releases_them(
    counted: Any, seats: Any, text_of: Any
) -> None:
    text = text_of(seats(counted, "by site"))
    assert "cleveland · male · 1 count" in text and "The plan releases the figures of each hospital by itself" in text
    sites = {row["site"] for row in csv.DictReader(StringIO(seats(counted, "by site", "/figures.csv").text))}
    assert sites == {each.site for each in counted.plans["by site"].participants}
    for name in ("counted", "evaluated"):
        rows = list(csv.DictReader(StringIO(seats(counted, name, "/figures.csv").text)))
        assert rows and {row["site"] for row in rows} == {""}


def test_before_there_is_a_sum_the_page_says_so_and_has_no_files(copied: Any, seats: Any, text_of: Any) -> None:
    new = counting(queries=QUERIES[:2])
    put(copied, "new", new)
    text = text_of(seats(copied, "new"))
    assert "There are no figures yet. They are here when the last round is over" in text and "ε at most" in text
    assert "No sum was opened yet." in text and "Downloads" not in text
    assert all(seats(copied, "new", f"/figures.{form}").status_code == 404 for form in FORMS)
    beside = training("evaluation.rounds=[3,6]").evaluation_plan
    put(copied, "beside", beside)
    assert "The first look is after round 3 of the training." in text_of(seats(copied, "beside"))


def test_a_void_round_says_that_there_are_no_figures_and_that_it_cost(copied: Any, seats: Any, text_of: Any) -> None:
    plan = copied.plans["counted"]
    place = StudyFolder.of(copied.folder.studies, plan)
    before = place.progress(plan)
    empty = np.zeros_like(before.state.model)
    place.keep_progress(replace(before, state=replace(before.state, model=empty)))
    text = text_of(seats(copied, "counted"))
    assert "There is no sum, so there are no figures." in text and "What it charged stays charged" in text
    assert seats(copied, "counted", "/figures.csv").status_code == 404


def test_a_table_that_no_receipt_names_is_not_believed(copied: Any, seats: Any, text_of: Any) -> None:
    plan = copied.plans["counted"]
    place = StudyFolder.of(copied.folder.studies, plan)
    before = place.progress(plan)
    place.keep_progress(replace(before, state=replace(before.state, model=before.state.model + np.float32(1e-3))))
    assert "These figures may not be believed." in text_of(seats(copied, "counted"))


@pytest.mark.parametrize("content", [b"", b"junk\nmore", b'{"plan": "x", "rounds_done": 1}\n', b"\xff" * 100])
def test_a_checkpoint_that_cannot_be_read_is_said_and_gives_no_files(
    copied: Any, seats: Any, content: bytes, text_of: Any
) -> None:
    (StudyFolder.of(copied.folder.studies, copied.plans["counted"]).path / "progress.bin").write_bytes(content)
    text = text_of(seats(copied, "counted"))
    assert "The figures cannot be shown now." in text and "Traceback" not in text
    assert seats(copied, "counted", "/figures.csv").status_code == 404


def test_what_is_asked_in_rounds_has_figures_after_the_last_one_only() -> None:
    newton = {"name": "odds", "kind": "logistic_regression", "outcome": "num", "ridge": 2.5, "flags": ["sex"],
              "of": [{"column": "age", "lower": 20, "upper": 90}]}  # fmt: skip
    plan = counting(queries=[newton], rounds=2)
    table = np.ones(plan.layout.size, np.float32)
    early, late = figures(plan, table, 1), figures(plan, table, 2)
    assert early.cells == () and not early.void and early.due == 2 and late.cells


def test_a_page_of_very_many_figures_stays_short_and_its_files_have_all() -> None:
    many = [
        QUERIES[0] | {"name": f"q{number}", "by": ["sex", {"column": "age", "cuts": list(range(25, 85, 5))}]}
        for number in range(40)
    ]
    many += [QUERIES[1] | {"name": f"h{number}", "cuts": list(range(20, 79))} for number in range(40)]
    plan = counting(queries=many)
    table = np.full(plan.layout.size, 1000.0, np.float32)
    found = figures(plan, table, 1)
    shown = questions(found)
    assert all(len(one.rows) == 12 and one.left_out > 0 for one in shown)
    assert sum(len(one.panels) for one in shown) == 40 and len(found.cells) > 6000
    assert len(list(csv.DictReader(StringIO(download(found, "csv").body.decode())))) == len(found.cells)


def test_nobody_reads_a_figure_without_a_session(counted: Any, helpers: Any) -> None:
    asker = helpers.Asker(counted.app(), None)
    for name in ("", "/figures.csv", "/figures.json", "/live"):
        answer = asker.ask("GET", f"/studies/{counted.plans['counted'].digest}/figures{name}")
        assert answer.status in (303, 403) and "patients" not in answer.text, name


def test_every_name_and_every_reason_of_a_figure_is_said_in_every_language(counted: Any) -> None:
    names = {cell.quantity for name in ("counted", "evaluated") for cell in expected(counted.plans[name])}
    names |= {"quantile 0.5", "log-rank chi-square (1 df)", "rate until 365 d", "odds ratio of sex", "c-index"}
    names |= {"integrated Brier score until 365 d", "Brier score at 365 d", "below 40", "40 to below 50", "60 and more"}
    reasons = {HIDDEN, FEW_SITES, NOISY, UNDETERMINED, UNSETTLED}
    assert reasons < set(figures_words.HIDDEN)
    own = {"fr": {"variance"}, "de": {"AUROC"}, "vi": set()}
    for language in ("fr", "de", "vi"):
        with speaking(language):
            same = {name for name in names if name_words(name) == name} - {"AUROC", "AUPRC", "c-index"}
            assert same <= own[language], language
            assert all(_(reason) != reason for reason in reasons), language
    with speaking("fr"):
        assert name_words("observed at 0.1 to 0.2") == "observé de 0,1 à 0,2" and name_words("age") == "age"


@pytest.mark.server("chromium")
@pytest.mark.parametrize(("width", "scheme", "language"), [(1280, "light", "en"), (360, "dark", "fr")])
def test_the_page_reads_well_on_a_desk_and_a_telephone(
    counted: Any, visits: Any, axe: Any, screenshot: Any, width: int, scheme: str, language: str
) -> None:
    with visits.page(counted, "coordinator", width=width, scheme=scheme, language=language) as window:
        for name, panels in (("counted", 3), ("evaluated", 6)):
            window.goto(f"/studies/{counted.plans[name].digest}/figures")
            assert window.locator("svg.panel >> visible=true").count() >= panels
            screenshot(window, f"coordinator-figures-{name}-{language}-{width}")
            assert axe(window) == [] and window.faults == []
            assert "\\x" not in window.inner_text("main"), "a French space is a space"
            assert window.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
