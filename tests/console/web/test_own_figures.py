"""A hospital's page of figures: what a study released to all of them, and what this hospital alone has."""

import ast
import csv
import json
import re
import stat
from contextlib import closing
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wardround.client.site_result import (
    BenefitResult,
    CurveResult,
    EstimateResult,
    KeptResult,
    ModelResult,
    SiteResult,
)
from wardround.client.store.database import open_store
from wardround.client.store.results import MODEL, REPORT, keep_model, keep_report, kept_report, place_of
from wardround.client.store.studies import Studies
from wardround.conf.planning import make_plan
from wardround.conf.statistics import parse_statistics
from wardround.console.web import pages
from wardround.console.web.figures_own import own_figures
from wardround.console.web.pages import PAGES, figures
from wardround.console.web.roles import ROLES, Face, Role
from wardround.protocol.errors import UsageError
from wardround.protocol.parameters import Vector, model_hash
from wardround.protocol.plan import StudyPlan
from wardround.protocol.statistics import SITES, Statistics
from wardround.server.store.studies import StudyFolder
from wardround.strategies.statistics import statistic_for

TODAY = datetime.now(UTC).date()
MARK = 0.734519
"""An own figure that nothing else on any page has."""


def report_of(own: float = MARK) -> SiteResult:
    """A report of north with figures of its own."""
    calibration = ((0.2, 0.15, 20), (0.5, 0.55, 31), (0.8, 0.7, 12))
    roc = ((0.0, 0.0), (0.1, 0.6), (0.4, 0.9), (1.0, 1.0))
    return SiteResult(
        site="north", train_patients=137, test_patients=63, declared_patients=200, left_out={}, rounds_in_sum=19,
        own=ModelResult(
            metrics={"auroc": EstimateResult(value=own, low=own - 0.1, high=own + 0.1),
                     "accuracy": EstimateResult(value=None, reason="one class only")},
            curves=CurveResult(roc=roc, calibration=calibration),
        ),
        shared=ModelResult(
            metrics={"auroc": EstimateResult(value=0.853127, low=0.77, high=0.91),
                     "accuracy": EstimateResult(value=0.77, low=0.68, high=0.85)},
            curves=CurveResult(roc=((0.0, 0.0), (0.05, 0.7), (0.3, 0.95), (1.0, 1.0)), calibration=((0.3, 0.33, 63),)),
        ),
        gain={"auroc": EstimateResult(value=0.1186, low=0.02, high=0.21)},
        benefit=(BenefitResult(model="shared", metric="auroc", comparisons=1, verdict="helps",
                               better_by=EstimateResult(value=0.1186, low=0.02, high=0.21)),),
        kept=KeptResult(model="shared", held_back=25, because="the smallest mean loss on held-back patients"),
    )  # fmt: skip


def counting(**statistics: Any) -> StudyPlan:
    queries = [
        {"name": "patients", "kind": "count", "by": ["sex"]},
        {"name": "bands", "kind": "histogram", "column": "age", "cuts": [40, 50, 60]},
    ]
    given = {
        "like": "heart_disease",
        "privacy": {"mode": "dist", "epsilon": 8.0, "epsilon_consortium": 3.0},
        "statistics": {"queries": queries} | statistics,
    }
    return make_plan(parse_statistics(given), {"east": 200, "north": 200, "south": 200}, TODAY)


def sums_of(plan: StudyPlan, counts: dict[str, Any]) -> Vector:
    """The table of one round with these numbers of patients."""
    task = plan.task
    assert isinstance(task, Statistics)
    parts: dict[str, Any] = {SITES: np.array([3.0], np.float32)}
    for query in task.queries:
        bound = statistic_for(query, {}, task.confidence).patient_bound
        parts[query.name] = (np.asarray(counts[query.name]) * task.weight(query) / bound).astype(np.float32)
    return plan.layout.join(parts)


@pytest.mark.parametrize("role", ["officer", "it", "auditor"])
def test_the_hospitals_own_people_see_its_own_figures_and_that_nobody_else_does(
    world: Any, client_as: Any, role: str, text_of: Any
) -> None:
    plan = world_plan(world)
    client, at = client_as(role), f"/studies/{plan.digest}/figures"
    text = text_of(client.get(at))
    assert "Nobody else sees this." in text and "There is no report yet." in text and "wardround site report" in text
    keep_report(world.folder, plan, report_of())
    page = client.get(at)
    text = text_of(page)
    for part in (
        "AUROC 0.7345 [0.6345 to 0.8345] 0.8531 [0.77 to 0.91] 0.1186 [0.02 to 0.21]",
        "Accuracy not estimable 0.77 [0.68 to 0.85]",
        "Shared model: it helps, by 0.1186 (interval 0.02 to 0.21).",
        "fall-back keeps here: shared model.",
        "137 for training, 63 for testing",
        "one class only",
        "no message to the coordinator or another hospital",
    ):
        assert part in text, part
    assert len(re.findall(r'<svg[^>]*class="panel"', page.text)) == 2 and "style=" not in page.text
    for form in ("csv", "json"):
        assert client.get(f"{at}/figures.{form}").status_code == 404, "of own figures there is no file"
    assert f'href="{at}"' in client.get(f"/studies/{plan.digest}").text


def world_plan(world: Any) -> StudyPlan:
    """The training that runs in every world of these tests."""
    with closing(open_store(world.folder.database)) as store:
        found = Studies(store).get(world.examples["plan"])
    assert found is not None
    return found.plan


def test_own_figures_need_a_session_of_this_hospital(shown: Any, helpers: Any) -> None:
    digest = shown.examples["plan"]
    asker = helpers.Asker(shown.app(), None)
    for name in ("", "/figures.csv", "/figures.json"):
        assert asker.ask("GET", f"/studies/{digest}/figures{name}").status in (303, 403)
    half = helpers.Asker(shown.app(), None)
    half.begin("officer", complete=False)
    answer = half.ask("GET", f"/studies/{digest}/figures")
    assert answer.status in (303, 403) and "Nobody else sees this" not in answer.text, "a password alone"
    assert figures.PAGE.roles == set(ROLES[Face.SITE]) == {Role.OFFICER, Role.IT, Role.AUDITOR}
    assert figures.PAGE.face is Face.SITE


def test_a_coordinators_console_shows_no_own_figure_whatever_lies_in_its_folder(hub_copy: Any, helpers: Any) -> None:
    """A report in the coordinator's folder, under every name that its pages read, stays unread."""
    content = report_of().model_dump_json()
    for name, plan in hub_copy.plans.items():
        place = StudyFolder.of(hub_copy.folder.studies, plan).path
        (place / REPORT).write_text(content)
        (hub_copy.path / "studies" / plan.digest[:16]).mkdir()
        (hub_copy.path / "studies" / plan.digest[:16] / REPORT).write_text(content)
        assert name
    with helpers.new_client(hub_copy.app()) as client:
        helpers.log_in(client, hub_copy, "coordinator")
        for page in (page for page in PAGES if page.face is Face.COORDINATOR):
            for plan in hub_copy.plans.values():
                answer = client.get(page.path.replace("{digest}", plan.digest).replace("{name}", REPORT))
                assert "7345" not in answer.text and "Nobody else sees this" not in answer.text, page.path


def test_no_page_of_a_coordinator_can_reach_the_code_that_reads_own_figures() -> None:
    """By what its modules import, directly or through others of the console."""
    root = Path(pages.__file__).parent.parent
    owns = {"wardround.console.web.figures_own", "wardround.console.web.queries.figures_here"}

    def imported(name: str, found: set[str]) -> set[str]:
        path = root / Path(*name.removeprefix("wardround.console.web").strip(".").split("."))
        file = path.with_suffix(".py")
        if name in found or not name.startswith("wardround.console.web") or not file.exists():
            return found
        found.add(name)
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                imported(node.module, found)
        return found

    for page in PAGES:
        module = next(
            name
            for name, each in vars(pages).items()
            if page in getattr(each, "__dict__", {}).values() and name != "PAGES"
        )
        reached = imported(f"wardround.console.web.pages.{module}", set())
        assert len(reached) > 5
        if page.face is Face.COORDINATOR:
            assert not reached & owns, module
    assert owns <= imported("wardround.console.web.pages.figures", set()), "the control"


def test_a_model_that_harms_is_said_with_what_it_costs(world: Any) -> None:
    worse = EstimateResult(value=-0.05, low=-0.09, high=-0.01)
    harms = BenefitResult(model="personalised", metric="auroc", comparisons=1, verdict="harms", better_by=worse)
    none = harms.model_copy(update={"verdict": "none", "reason": "fewer than 30 test patients"})
    found = own_figures(report_of().model_copy(update={"benefit": (harms, none), "kept": None}))
    assert [words.replace("\N{MINUS SIGN}", "-") for words in found.verdicts] == [
        "Personalised model: it harms, by 0.05 (interval 0.01 to 0.09).",
        "Personalised model: no verdict; better by -0.05 (interval -0.09 to -0.01).",
    ]
    assert "fewer than 30 test patients" in found.reasons


def test_a_report_is_for_the_sites_own_account_and_one_that_is_broken_is_said(
    world: Any, client_as: Any, text_of: Any
) -> None:
    plan = world_plan(world)
    path = keep_report(world.folder, plan, report_of(0.6))
    assert keep_report(world.folder, plan, report_of()) == path and kept_report(world.folder.path, plan) == report_of()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and not list(path.parent.glob("*.new"))
    for content in (b"", b"{}", json.dumps({"site": "north"}).encode(), b"\xff"):
        path.write_bytes(content)
        with pytest.raises(UsageError):
            kept_report(world.folder.path, plan)
    answer = client_as("it").get(f"/studies/{plan.digest}/figures")
    assert "The figures cannot be shown now." in text_of(answer) and "make it again" in answer.text


def test_a_hospital_sees_what_a_statistics_study_released_as_the_coordinator_does(
    world: Any, client_as: Any, text_of: Any
) -> None:
    plan = world.proposed(counting())
    client, at = client_as("officer"), f"/studies/{plan.digest}/figures"
    text = text_of(client.get(at))
    assert "There are no figures yet. They come to this hospital with the end of the study." in text
    assert "has signed no receipt of a sum of this study yet" in text
    assert client.get(f"{at}/figures.csv").status_code == 404
    sums = sums_of(plan, {"patients": [[61.0], [142.0]], "bands": [[7.328125, 71.0, 82.0, 43.0]]})
    keep_model(world.folder, plan, sums)
    assert "These figures may not be believed." in text_of(client.get(at)), "no receipt names them"
    world.receipted(plan, 1, models=(plan.model.hash, model_hash(sums)))
    page = client.get(at)
    text = text_of(page)
    assert "These figures may not be believed." not in text and "male count 142" in text and "Nobody else" not in text
    assert "below 40 count not shown fewer patients than the plan shows" in text and "7.328" not in page.text
    assert "east in the sum" in text and "south not in the sum" in text
    cost = text.split("What it costs", 1)[1]
    assert "against everyone, whoever colludes; rounded up" in cost
    assert "against the coordinator and as many hospitals as a plan counts as colluding" in cost
    rows = list(csv.DictReader(StringIO(client.get(f"{at}/figures.csv").text)))
    assert [float(row["value"]) for row in rows if row["query"] == "patients"] == pytest.approx([61, 142, 203])
    assert "7.328" not in client.get(f"{at}/figures.json").text + client.get(f"{at}/figures.csv").text


def test_a_void_study_and_a_broken_table_are_said(world: Any, client_as: Any, text_of: Any) -> None:
    plan = world.proposed(counting())
    client, at = client_as("auditor"), f"/studies/{plan.digest}/figures"
    keep_model(world.folder, plan, np.zeros(plan.layout.size, np.float32))
    text = text_of(client.get(at))
    assert "There is no sum, so there are no figures." in text and "What it charged stays charged" in text
    (place_of(world.folder.path, plan) / MODEL).write_bytes(b"junk")
    assert "The figures cannot be shown now." in text_of(client.get(at))


def test_a_campaign_of_indicators_has_its_figures_on_its_own_page(
    world: Any, client_as: Any, helpers: Any, text_of: Any
) -> None:
    plan = world.proposed(helpers.campaign_of())
    page = client_as("it").get(f"/studies/{plan.digest}/figures")
    assert "They have a page of their own." in text_of(page) and f"/studies/{plan.digest}/indicators" in page.text
    assert client_as("it").get(f"/studies/{'0' * 64}/figures").status_code == 404


@pytest.mark.server("chromium")
@pytest.mark.parametrize(("width", "scheme", "language"), [(1280, "light", "en"), (360, "dark", "fr")])
def test_the_page_reads_well_on_a_desk_and_a_telephone(
    world: Any, visits: Any, axe: Any, screenshot: Any, width: int, scheme: str, language: str
) -> None:
    plan, counted = world_plan(world), world.proposed(counting())
    keep_report(world.folder, plan, report_of())
    sums = sums_of(counted, {"patients": [[61.0], [142.0]], "bands": [[7.3, 71.0, 82.0, 43.0]]})
    keep_model(world.folder, counted, sums)
    world.receipted(counted, 1, models=(counted.model.hash, model_hash(sums)))
    with visits.page(world, "officer", width=width, scheme=scheme, language=language) as window:
        for name, each in (("own", plan), ("released", counted)):
            window.goto(f"/studies/{each.digest}/figures")
            assert window.locator("svg.panel >> visible=true").count() == (2 if name == "own" else 1)
            screenshot(window, f"site-figures-{name}-{language}-{width}")
            assert axe(window) == [] and window.faults == []
            assert "\\x" not in window.inner_text("main"), "a French space is a space"
            assert window.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
