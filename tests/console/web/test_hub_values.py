"""Never a value of one site that was not declared for release: what the coordinator's pages and streams may say.

Three ways. Every field of the queries' views is on a list. Every number and hash of a page or an event is one that this
test finds by itself in the plan, the receipts and the roster. And whatever a site's answers have left in the
coordinator's folder is marked, and no mark comes out.
"""

import dataclasses
import json
import re
from datetime import UTC, date, datetime
from enum import StrEnum
from html import unescape
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from wardround.console.web.pages.coordinator_overview import hub_words
from wardround.console.web.pages.coordinator_study import study_words
from wardround.console.web.queries.coordinator import CoordinatorQueries, HubStudy, HubView
from wardround.console.web.queries.hub_releases import Release
from wardround.console.web.queries.hub_witnesses import WitnessTable
from wardround.privacy.accounting import rounded_up
from wardround.protocol.invitation import key_fingerprint
from wardround.protocol.receipt import Receipt, parse_receipt

MAY_BE_SHOWN = {
    "HubView": "name running studies sites roster certificate_days certificate_until alarms",
    "AlarmLine": "kind missing origin by at since answered digest own",
    "WitnessTable": "ledgers witnesses signed",
    "Countersigned": "origin witness size at",
    "HubStudy": "digest study title created_at state note rounds attempts quorum secure standings lines current done "
    "void epsilon delta fault faulty released campaign counts trains evaluated",
    "SiteStanding": "site standing must",
    "RoundLine": "number attempt closed at seconds cells opened_over voided_by model receipt file signed "
    "by_coordinator checked",
    "Cell": "site part step code",
    "Current": "number attempt phase cells seconds_left at",
    "HubSite": "site legal_entity fingerprint joined_at revoked_at invited_until in_roster key_until online "
    "answered_at answered_in answered_round approved",
    "RosterView": "consortium epoch issued expires days fingerprint directed",
    "Release": "digest study title at model files receipts signed_by_all checked same_model fault",
    "ReleasedFile": "name kind size sha256",
}
"""Class -> its fields. Of one site: its name, owner, key, dates, standing, what it did in a round in closed words."""

OF_ONE_SITE = {"SiteStanding", "Cell", "HubSite", "AlarmLine", "Countersigned"}
MARK = "MARKED"
WORDS = {"state", "tone", "rounds", "step", "left", "running", "waiting", "ended", "fresh"}


def classes_of(kind: Any, found: set[Any]) -> set[Any]:
    """Every dataclass that can be reached from ``kind``."""
    for part in get_args(kind):
        classes_of(part, found)
    if dataclasses.is_dataclass(kind) and kind not in found:
        found.add(kind)
        for hint in get_type_hints(kind).values():
            classes_of(hint, found)
    return found


def test_the_views_have_no_field_that_is_not_on_the_list() -> None:
    found = set()
    for kind in (HubView, HubStudy, Release, WitnessTable):
        classes_of(kind, found)
    assert {one.__name__: {field.name for field in dataclasses.fields(one)} for one in found} == {
        name: set(fields.split()) for name, fields in MAY_BE_SHOWN.items()
    }


def test_what_is_shown_of_one_site_has_no_type_that_could_hold_a_measurement() -> None:
    found: set[Any] = set()
    classes_of(HubView, found)
    classes_of(WitnessTable, found)
    for one in found:
        if one.__name__ in OF_ONE_SITE:
            for name, hint in get_type_hints(one).items():
                kinds = set(get_args(hint)) or {hint}
                allowed = {str, bool, int, datetime, date, type(None)}
                assert all(kind in allowed or issubclass(kind, StrEnum) for kind in kinds), (one, name)
                assert float not in kinds, (one, name)


def allowed_numbers(hub: Any) -> set[str]:
    """Every number and hash that a page may say, from plans, receipts, roster and files, and by no query."""
    found: set[str] = {"0"}
    for name, plan in hub.plans.items():
        receipts: list[Receipt] = hub.place(name).receipts()
        sites = len(plan.participants)
        counts = {*range(sites + 1), plan.rounds, plan.quorum, plan.attempts, *range(1, plan.rounds + 1), len(receipts)}
        found |= {str(count) for count in counts} | {
            plan.digest,
            plan.digest[:12],
            f"{plan.privacy.delta:.10f}".rstrip("0"),
        }
        times = [datetime.fromisoformat(receipt.at) for receipt in receipts]
        found |= {str(int((b - a).total_seconds())) for a, b in pairwise(times)}
        for receipt in receipts:
            found |= {receipt.model_after, receipt.model_after[:12]}
            found |= {f"{receipt.round_number:05d}", str(receipt.attempt)}
            found |= {rounded_up(line.epsilon_at_most) for line in receipt.sites if line.epsilon_at_most is not None}
        told = json.loads((hub.place(name).path / "status.json").read_bytes())
        if told["seconds_left"]:
            found.add(str(round(told["seconds_left"])))
    return found


def said_on(page: str) -> list[str]:
    """Numbers and hashes in the text of a page's content, without times, commands, the plan in words and titles."""
    main = page.split("<main", 1)[1].split(">", 1)[1]
    main = re.sub(r'<section aria-labelledby="part-.*?</section>', " ", main, flags=re.S)
    main = re.sub(r"<time.*?</time>", " ", main, flags=re.S)
    main = re.sub(r'<(code|a|h1|h2)\b[^>]*class="[^"]*as-given[^"]*"[^>]*>.*?</\1>', " ", main, flags=re.S)
    main = re.sub(r"<svg(?=[^>]*aria-hidden).*?</svg>", " ", main, flags=re.S)
    text = unescape(re.sub(r"<[^>]+>", " ", main)).replace("SHA-256", " ").replace("kB", " ")
    return re.findall(r"[0-9a-f]{12,64}|\d+(?:[.,]\d+)*", text)


@pytest.fixture
def listed(hub_copy: Any) -> Any:
    """The numbers and hashes of a study's page and of its events that this test does not know."""

    def unknown(name: str, helpers: Any, role: str = "researcher") -> list[str]:
        plan = hub_copy.plans[name]
        known = allowed_numbers(hub_copy)
        with helpers.new_client(hub_copy.app()) as client:
            helpers.log_in(client, hub_copy, role)
            page = client.get(f"/studies/{plan.digest}").text
        words = study_words(CoordinatorQueries(hub_copy.folder).study(plan.digest))
        assert set(words) <= WORDS
        events = [number for text in words.values() for number in re.findall(r"\d+(?:[.,]\d+)*", text)]
        return [number for number in [*said_on(page), *events] if number not in known]

    return unknown


@pytest.mark.parametrize("name", ["finished", "stuck", "going", "proposed"])
def test_every_number_of_a_study_is_of_the_plan_or_of_a_receipt(name: str, listed: Any, helpers: Any) -> None:
    assert listed(name, helpers) == []


def test_a_value_of_one_site_on_the_page_would_be_found(
    listed: Any, helpers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: the page says of one site how long its vector is."""
    from wardround.console.web.pages import coordinator_study

    known = coordinator_study.part_words
    monkeypatch.setattr(coordinator_study, "part_words", lambda cell: f"{known(cell)}, norm 0.7312")
    assert "0.7312" in listed("finished", helpers)


def marked(world: Any) -> None:
    """Mark whatever a site's answers leave in the folder: texts of receipts, of the status, sums and sessions."""
    for name in world.plans:
        place: Path = world.place(name).path
        for file in (place / "receipts").glob("*.json"):
            receipt = parse_receipt(file.read_bytes())
            lines = [one.model_copy(update={"detail": f"{MARK} {one.site} 0.123456"}) for one in receipt.sites]
            file.write_bytes(receipt.model_copy(update={"sites": tuple(lines)}).canonical)
        status = json.loads((place / "status.json").read_bytes())
        status |= {"note": f"{MARK} va: loss 0.123456", "losses": {"va": 0.123456}, MARK: MARK}
        (place / "status.json").write_text(json.dumps(status))
        for other in ("sum.bin", "session.json", "attempt.json", "progress.bin"):
            (place / other).write_text(f"{MARK} 0.123456")


def test_nothing_that_a_site_left_in_the_folder_comes_out(hub_copy: Any, helpers: Any) -> None:
    marked(hub_copy)
    queries = CoordinatorQueries(hub_copy.folder)
    said = [json.dumps(hub_words(queries.view()))]
    said += [json.dumps(study_words(queries.study(plan.digest))) for plan in hub_copy.plans.values()]
    with helpers.new_client(hub_copy.app()) as client:
        helpers.log_in(client, hub_copy, "coordinator")
        studies = [f"/studies/{plan.digest}" for plan in hub_copy.plans.values()]
        for path in ("/", "/studies", "/sites", "/releases", "/witnesses", *studies):
            answer = client.get(path)
            assert answer.status_code == 200
            said.append(answer.text)
    for text in said:
        assert MARK not in text and "0.123456" not in text


def test_unknown_words_of_a_study_process_are_not_believed(hub_copy: Any) -> None:
    status = hub_copy.place("going").path / "status.json"
    told = json.loads(status.read_bytes())
    for change in ({"phase": f"{MARK} loss of va is 0.3"}, {"sites": {"va": MARK}}, {"standing": {"va": MARK}}):
        status.write_text(json.dumps(told | change))
        study = CoordinatorQueries(hub_copy.folder).study(hub_copy.plans["going"].digest)
        assert study.current is None and MARK not in repr(study)


def test_a_fingerprint_is_of_the_public_key_and_no_private_key_is_read(hub: Any, monkeypatch: Any) -> None:
    from wardround.server.folder import CoordinatorFolder

    monkeypatch.setattr(CoordinatorFolder, "identity", lambda self: pytest.fail("the coordinator's key was read"))
    view = CoordinatorQueries(hub.folder, links=lambda: None, clock=lambda: datetime.now(UTC)).view_with_links()
    for site in view.sites:
        if site.in_roster:
            assert site.fingerprint == key_fingerprint(hub.roster.identities[site.site].key)
