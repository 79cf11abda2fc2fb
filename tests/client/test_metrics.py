"""Measurements of a site and of a coordinator: exactly a list, with true figures, and nothing of a patient."""

import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from wardround.client.daemon import DaemonStatus
from wardround.client.governance import grant_for, open_domain
from wardround.client.metrics import MEASUREMENTS, site_values
from wardround.client.office import Office
from wardround.client.store.database import open_store
from wardround.client.store.folder import SiteFolder
from wardround.client.store.members import Members
from wardround.client.store.studies import Studies
from wardround.conf.compose import compose_configuration
from wardround.conf.monitoring import Measurement, Monitoring, Value, by_measurement, parse_address, serve
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import Reserve, Start, approve
from wardround.protocol.plan import StudyPlan
from wardround.server import metrics as coordinator
from wardround.server.folder import CoordinatorFolder
from wardround.server.store.registry import Registry

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
ANNA = Identity.generate("anna")
PATIENT = "Quillfeather-4711"


class Daemon:
    def status(self) -> DaemonStatus:
        return DaemonStatus(
            "north", "paused", "up", "train.sum", "2026-11-29T07:00:00Z", "ab" * 32, 7, 2, "1.0", "cd" * 32, 4, 5.5,
            f"because of {PATIENT}",
        )  # fmt: skip


def plan_of() -> StudyPlan:
    declared = "+data.declared={east:200,north:200,south:200}"
    given = compose_configuration(["study=heart_disease", "data.dataset=null", declared])
    return make_plan(
        parse_configuration(given), dict.fromkeys(("east", "north", "south"), 200), datetime.now(UTC).date()
    )


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    """A site with one patient, one domain, an approved plan of which two rounds were charged, and a proposed one."""
    folder = SiteFolder.create(tmp_path / "north", "north", [ANNA.public])
    ledger, plan = folder.ledger(), plan_of()
    ledger.record(approve(open_domain("training", 8.0, 1e-4), folder.identity().public.key.hex(), ANNA))
    ledger.record(approve(grant_for(plan, "north"), folder.identity().public.key.hex(), ANNA))
    for number in (1, 2):
        reserved = Reserve(
            domain="training",
            block=f"b{number}",
            plan=plan.digest,
            round_number=number,
            event=plan.round_event("north"),
        )
        ledger.reserve(reserved)
        ledger.record(Start(block=f"b{number}"))
    ledger.close()
    store = open_store(folder.database)
    Studies(store).add(plan.canonical)
    Members(store, folder.patients_key()).admit([PATIENT], test_share=0.3)
    store.close()
    daemon: Any = Daemon()
    made = Office(folder, daemon)
    yield made
    made.close()


def read(monitoring: Monitoring, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{monitoring.port}{path}", timeout=5) as answer:
        return str(answer.read().decode())


ALL = MEASUREMENTS | coordinator.MEASUREMENTS


def samples(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """By name and the values of the labels, in the list's order; a label that is not on the list is no key there."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            assert set(sample.labels) == set(ALL[sample.name].labels), sample.name
            found[sample.name, tuple(sample.labels[label] for label in ALL[sample.name].labels)] = sample.value
    return found


def test_a_site_says_exactly_its_list_with_true_figures(office: Office) -> None:
    monitoring = serve(("127.0.0.1", 0), MEASUREMENTS, lambda: site_values(office))
    try:
        text = read(monitoring)
    finally:
        monitoring.stop()
    found = samples(text)
    assert {name for name, _ in found} == set(MEASUREMENTS)
    assert found["wardround_site_state", ("paused",)] == 1 and found["wardround_site_state", ("running",)] == 0
    assert found["wardround_site_link_up", ()] == 1 and found["wardround_site_refusals_total", ()] == 2
    assert found["wardround_site_last_exchange_seconds", ()] == datetime(2026, 11, 29, 7, tzinfo=UTC).timestamp()
    assert found["wardround_site_rounds_charged_total", ()] == 2
    assert found["wardround_site_studies", ("approved",)] == 1 and found["wardround_site_studies", ("proposed",)] == 0
    # Open, officers, domain, grant, and two rounds of two entries each.
    assert found["wardround_site_ledger_entries", ()] == 8
    budget = office.studies()[0].budgets[0]
    assert 0 < found["wardround_site_budget_spent_ratio", ("training",)] == budget.spent / budget.allowance < 1
    # Nothing of a patient, and no free text of anybody: not even the reason why the site is paused.
    assert PATIENT not in text and "because" not in text


def test_there_is_nothing_else_at_that_address(office: Office) -> None:
    monitoring = serve(("127.0.0.1", 0), MEASUREMENTS, lambda: site_values(office))
    try:
        assert samples(read(monitoring, "/")).keys() == samples(read(monitoring)).keys()
        request = urllib.request.Request(f"http://127.0.0.1:{monitoring.port}/metrics", b"x", method="POST")
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(request, timeout=5)
        with pytest.raises(Unavailable):
            serve(("127.0.0.1", monitoring.port), MEASUREMENTS, lambda: site_values(office))
    finally:
        monitoring.stop()


KNOWN = {"one": Measurement("one", "One."), "two": Measurement("two", "Two.", labels=("site",))}


@pytest.mark.parametrize("value", [Value("three", 1.0), Value("one", 1.0, ("north",)), Value("two", 1.0)])
def test_what_is_not_on_the_list_is_never_said(value: Value, caplog: pytest.LogCaptureFixture) -> None:
    """The control of the list: a new name, or a label more or less, is a defect and shows nothing at all."""
    with pytest.raises(ValueError, match="not on the list"):
        list(by_measurement([Value("one", 2.0), value], KNOWN))
    monitoring = serve(("127.0.0.1", 0), KNOWN, lambda: [Value("one", 2.0), value])
    try:
        with pytest.raises((urllib.error.URLError, ConnectionError, OSError)):
            read(monitoring)
    finally:
        monitoring.stop()


def test_a_coordinator_says_exactly_its_list(tmp_path: Path) -> None:
    folder = CoordinatorFolder.create(tmp_path / "hub", "Hearts", "hub.example.org", 8443)
    plan = plan_of()
    Registry(folder.database).propose(plan)
    monitoring = serve(("127.0.0.1", 0), coordinator.MEASUREMENTS, lambda: coordinator.coordinator_values(folder))
    try:
        found = samples(read(monitoring))
    finally:
        monitoring.stop()
    said = {name for name, _ in found}
    assert said == set(coordinator.MEASUREMENTS) - {"wardround_coordinator_roster_epoch"}, "there is no roster yet"
    named = ("heart_disease", plan.digest[:12])
    assert found["wardround_coordinator_study_rounds", named] == plan.rounds
    assert found["wardround_coordinator_rounds_total", (*named, "closed")] == 0
    assert found["wardround_coordinator_sites", ("joined",)] == 0
    ends = found["wardround_coordinator_certificate_expires_seconds", ()]
    assert datetime.now(UTC).timestamp() < ends < datetime.now(UTC).timestamp() + 3 * 366 * 86400


@pytest.mark.parametrize(
    ("text", "address"), [("9464", ("127.0.0.1", 9464)), ("10.0.0.5:1", ("10.0.0.5", 1)), ("[::1]:80", ("[::1]", 80))]
)
def test_an_address_is_a_port_or_an_address_with_one(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "x", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:70000", "1:-1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no address"):
        parse_address(text)


def test_the_page_lists_every_measurement_and_no_other() -> None:
    told = set(re.findall(r"^\| `(wardround_(?:site|coordinator)_\w+)`", PAGE.read_text(), flags=re.M))
    assert told == set(MEASUREMENTS) | set(coordinator.MEASUREMENTS)
