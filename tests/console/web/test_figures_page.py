"""The coordinator's page of figures: what a statistics study or an evaluation found, with intervals and costs.

Studies run over the heart disease data by the sites' own code, and lie in a coordinator's folder as its own process
leaves them: checkpoint, receipts and status.
"""

import csv
import json
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape
from io import StringIO
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from wardround.client.answers import answers_from
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.conf.statistics import parse_statistics
from wardround.privacy.accounting import epsilon, rounded_up
from wardround.protocol.plan import StudyPlan
from wardround.server.recording import Recorder
from wardround.server.store.database import open_database
from wardround.server.store.sites import Sites
from wardround.server.store.studies import StudyFolder
from wardround.server.study import Progress, Study
from wardround.simulations.cohorts import declared_in, gather
from wardround.simulations.consortium import simulated_roster
from wardround.simulations.site_by_site import SiteBySite, Terms
from wardround.strategies import strategy_for
from wardround.strategies.statistics import read

TODAY = datetime.now(UTC).date()
HEART = gather(parse_configuration(compose_configuration(["study=heart_disease"])))
TRAINING = ("study=heart_disease", "secagg=off", "rounds=6", "evaluation.rounds=[2,4,6]", "evaluation.epsilon=4", "+evaluation.ask.by=[sex]")

QUERIES: list[dict[str, Any]] = [
    {"name": "patients", "kind": "count", "by": ["sex", "num"]},
    {"name": "age_bands", "kind": "histogram", "column": "age", "cuts": [30, 40, 50, 60, 70], "by": ["sex"]},
    {"name": "age", "kind": "mean", "of": {"column": "age", "lower": 20, "upper": 90}, "by": ["num"]},
    {"name": "oldest", "kind": "mean", "of": {"column": "age", "lower": 20, "upper": 90},
     "where": [{"column": "age", "at_least": 79}]},
    {"name": "until_75", "kind": "survival", "time": "age", "event": "num", "times": [40, 50, 60, 70, 75]},
]  # fmt: skip


def counting(terms: dict[str, Any] | None = None, **statistics: Any) -> StudyPlan:
    given = {
        "like": "heart_disease",
        "privacy": terms or {"mode": "local", "epsilon": 3.0},
        "statistics": {"queries": QUERIES} | statistics,
        "secagg": "off",
    }
    configuration = parse_statistics(given)
    return make_plan(configuration, declared_in(HEART, configuration.task), TODAY)


def training() -> StudyPlan:
    configuration = parse_configuration(compose_configuration(list(TRAINING)))
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
def seats(helpers: Any) -> Iterator[Any]:
    """A function: what a page of a console answers somebody of a role; one login for each."""
    made: dict[tuple[str, str], Any] = {}

    def ask(world: Any, name: str, path: str = "", role: str = "researcher") -> Any:
        if (key := (str(world.path), role)) not in made:
            made[key] = helpers.new_client(world.app())
            helpers.log_in(made[key], world, role)
        return made[key].get(f"/studies/{world.plans[name].digest}/figures{path}")

    yield ask
    for one in made.values():
        one.close()


def text_of(answer: Any) -> str:
    assert answer.status_code == 200, answer.status_code
    main = answer.text.split("<main", 1)[1].split("</main>", 1)[0]
    main = re.sub(r"<svg.*?</svg>", " ", main, flags=re.S)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", main)).split())


def test_probe(counted: Any, seats: Any, visits: Any) -> None:
    for name in ("counted", "by site", "evaluated", "trained"):
        print(text_of(seats(counted, name)))
    print(seats(counted, "evaluated", "/figures.csv").text[:3000])
    for name in ("counted", "by site", "evaluated", "trained"):
        for width, scheme in ((1280, "light"), (360, "dark")):
            with visits.page(counted, "coordinator", width=width, scheme=scheme) as window:
                window.goto(f"/studies/{counted.plans[name].digest}/figures")
                for one in window.locator("details").all():
                    one.evaluate("e => e.open = true")
                window.screenshot(path=f"/tmp/me/figs-{name.replace(' ', '')}-{width}.png", full_page=True)
                print(name, window.faults, window.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))
