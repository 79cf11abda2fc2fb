"""A statistics study in the console: every page that may show its plan answers, in every language, and says its words.

Its figures: ``test_figures_page`` and ``test_own_figures``.
"""

from datetime import UTC, datetime
from html import unescape
from typing import Any

import pytest

from wardround.client.governance import grant_for
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.conf.statistics import parse_statistics
from wardround.console.i18n import LANGUAGES, speaking
from wardround.console.paper.as_json import sign
from wardround.console.paper.gather import read_source, statement
from wardround.console.paper.model import Kind
from wardround.console.paper.sheets import render
from wardround.console.plan_words import in_words
from wardround.console.web.pages import PAGES
from wardround.console.web.roles import Face
from wardround.protocol.ledger import Reserve
from wardround.protocol.plan import StudyPlan
from wardround.protocol.tasks import TabularClassification
from wardround.server.store.studies import StudyFolder

EVERY_KIND: list[dict[str, Any]] = [
    {"name": "patients", "kind": "count", "by": ["sex", {"column": "age", "cuts": [40, 60]}]},
    {"name": "pressure", "kind": "sum", "of": {"column": "trestbps", "lower": 60, "upper": 260}},
    {"name": "age", "kind": "mean", "of": {"column": "age", "lower": 20, "upper": 90}, "by": "num"},
    {"name": "rate", "kind": "variance", "of": {"column": "thalach", "lower": 40, "upper": 240}},
    {"name": "bands", "kind": "histogram", "column": "age", "cuts": [40, 50, 60]},
    {
        "name": "cholesterol",
        "kind": "quantiles",
        "of": {"column": "chol", "lower": 100, "upper": 500},
        "where": [{"column": "chol", "at_least": 1}, {"column": "sex", "codes": ["0"]}],
    },
    {
        "name": "together",
        "kind": "correlation",
        "of": [
            {"column": "age", "lower": 20, "upper": 90},
            {"column": "thalach", "lower": 40, "upper": 240},
        ],
    },
    {
        "name": "line",
        "kind": "linear_regression",
        "of": [{"column": "age", "lower": 20, "upper": 90}],
        "outcome": {"column": "thalach", "lower": 40, "upper": 240},
        "rows_per_patient": 3,
    },
]


NEWTON: dict[str, Any] = {
    "name": "odds",
    "kind": "logistic_regression",
    "outcome": "num",
    "of": [{"column": "chol", "lower": 100, "upper": 500}],
    "flags": ["sex"],
    "ridge": 2.5,
}


def plan_of(mode: str = "local", queries: Any = EVERY_KIND) -> StudyPlan:
    terms = {"local": {"epsilon": 3.0}, "dist": {"epsilon": 8.0, "epsilon_consortium": 3.0}}[mode]
    given = {"like": "heart_disease", "privacy": {"mode": mode, **terms}, "statistics": {"queries": queries}}
    declared = {"east": 200, "north": 200, "south": 200}
    return make_plan(parse_statistics(given), declared, datetime.now(UTC).date())


def evaluation_plan() -> StudyPlan:
    """A plan that looks at a model which nobody here has: pages say its name, and need no file."""
    features = len(parse_configuration(compose_configuration(["study=heart_disease"])).contract.feature_names)
    task = TabularClassification()
    file = {"sha256": "5" * 64, "licence": "CC0-1.0", "provenance": "the model of a study that is over"}
    model = {"task": task.model_dump(), "file": file, "layout": task.layout(features).digest}
    model |= {"hash": "ab" * 32, "trained_by": "cd" * 32}
    query = {"name": "model", "kind": "evaluation", "model": model, "outcome": "num", "by": ["sex"]}
    statistics = {"patients": "test", "queries": [query]}
    given = {"like": "heart_disease", "privacy": {"mode": "local", "epsilon": 3.0}, "statistics": statistics}
    return make_plan(parse_statistics(given), {"east": 200, "north": 200, "south": 200}, datetime.now(UTC).date())


def test_an_evaluation_names_its_model_and_its_file_wherever_its_plan_is_shown(world: Any, client_as: Any) -> None:
    plan = world.proposed(evaluation_plan())
    text = unescape(client_as("officer").get(f"/studies/{plan.digest}").text)
    assert "abababababab" in text and "cdcdcdcdcdcd" in text and "5" * 64 in text
    assert "the patients who test; their budget is charged" in text
    for language in LANGUAGES:
        with speaking(language.code):
            words = "\n".join(in_words(plan))
        assert all(each in words for each in ("abababababab", "cdcdcdcdcdcd", "'num'", "5" * 64)), language.code
    world.opened("test")
    world.office.record([world.signed(grant_for(plan, "north", "test"))])
    world.ran(plan, 1, "test")
    source = read_source(world.folder)
    paper = statement(source, plan.digest, kind=Kind.DPIA, language="fr")
    assert "5" * 64 in render(sign(paper, source.identity), ".html").decode()


def test_an_officer_may_ask_for_other_noise_and_for_no_second_round(world: Any, client_as: Any) -> None:
    plan = world.proposed(plan_of())
    client, path = client_as("officer"), f"/studies/{plan.digest}/cost"
    assert client.get(path, params={"rounds": "1", "noise": "99.5"}).status_code == 200
    assert client.get(path, params={"rounds": "3", "noise": "5.5"}).status_code == 400


def test_an_officer_sees_what_all_rounds_cost_and_can_ask_for_no_others(world: Any, client_as: Any) -> None:
    plan = world.proposed(plan_of(queries=[NEWTON]))
    client, path = client_as("officer"), f"/studies/{plan.digest}/cost"
    assert client.get(path, params={"rounds": "6", "noise": "99.5"}).status_code == 200
    for rounds in ("1", "5", "7"):
        answer = client.get(path, params={"rounds": rounds, "noise": "99.5"})
        assert answer.status_code == 400 and "6" in answer.text
    page = unescape(client.get(f"/studies/{plan.digest}").text)
    assert "in rounds of which each is charged" in page and "'chol' (100 to 500)" in page


def test_the_coordinators_pages_show_a_study_that_counts(new_hub: Any, helpers: Any) -> None:
    plan = plan_of()
    new_hub.registry.propose(plan)
    place = StudyFolder.create(new_hub.folder.studies, plan)
    client = helpers.new_client(new_hub.app())
    helpers.log_in(client, new_hub, "coordinator")
    for state in ("proposed", "finished"):
        if state == "finished":
            place.keep_model(plan, plan.starting_model())
            new_hub.registry.ended(plan.digest, "finished", "")
        for path in ("/", "/studies", f"/studies/{plan.digest}", f"/studies/{plan.digest}/figures", "/releases"):
            answer = client.get(path)
            assert answer.status_code == 200, f"{path}, {state}: {answer.status_code}"
    client.close()


@pytest.mark.parametrize("mode", ["local", "dist"])
def test_every_page_shows_a_plan_that_counts(world: Any, client_as: Any, mode: str) -> None:
    plan = world.proposed(plan_of(mode))
    pages = [
        (page, route)
        for page in PAGES
        if page.face is Face.SITE
        for route in page.router.routes
        if "GET" in route.methods
    ]
    client = client_as("officer")

    def look() -> None:
        asked = 0
        values = world.examples | {"digest": plan.digest, "plan": plan.digest}
        values |= {"charge": str(world.numbers(Reserve)[-1])}
        for _, route in pages:
            path = route.path
            for name, value in values.items():
                path = path.replace(f"{{{name}}}", value)
            if "{" in path or path.endswith("/live"):  # a stream ends with its listener
                continue
            answer = client.get(path)
            assert answer.status_code < 500, f"{path}: {answer.text[:300]}"
            asked += 1
        assert asked > 20

    look()
    text = unescape(client.get(f"/studies/{plan.digest}").text)
    assert "Nothing is trained" in text and "'thalach' (40 to 240)" in text
    world.opened("test")
    domains = ("training", "test", *(("consortium",) if mode == "dist" else ()))
    world.office.record([world.signed(grant_for(plan, "north", domain)) for domain in domains])
    world.ran(plan, 1, "test")
    world.ran(plan, 1, "training")
    look()


def test_every_query_is_said_in_every_language_with_its_bounds() -> None:
    for queries, bounds in ((EVERY_KIND, ("260", "'num'", "3")), ([NEWTON], ("'sex'", "'num'", "100"))):
        said = set()
        for language in LANGUAGES:
            with speaking(language.code):
                text = "\n".join(in_words(plan_of(queries=queries)))
            said.add(text)
            assert all(query["name"] in text for query in queries)
            assert "gradient" not in text.casefold(), "nothing is trained, so nothing has a gradient"
            for bound in (*bounds, "500", "'chol'"):
                assert bound in text
        assert len(said) == len(LANGUAGES)


def test_papers_say_what_was_counted_and_not_what_was_trained(world: Any) -> None:
    plan = world.proposed(plan_of())
    world.opened("test")
    world.office.record([world.signed(grant_for(plan, "north", domain)) for domain in ("training", "test")])
    world.ran(plan, 1, "test")
    world.ran(plan, 1, "training")
    source = read_source(world.folder)
    for language in ("en", "fr"):
        for kind in (Kind.STATEMENT, Kind.DPIA):
            paper = statement(source, plan.digest, kind=kind, language=language)
            page = render(sign(paper, source.identity), ".html").decode()
            assert "gradient" not in page.casefold()
