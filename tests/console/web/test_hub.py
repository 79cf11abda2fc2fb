"""The coordinator's console: studies, rounds, hospitals and releases are what the real study left, and it is live."""

import asyncio
import hashlib
import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest

from wardround.console.commands.study import propose_command
from wardround.console.plan_words import sections
from wardround.console.web.hub_live import HubLive
from wardround.console.web.pages.coordinator_overview import hub_words, waiting
from wardround.console.web.pages.coordinator_study import study_words
from wardround.console.web.queries.coordinator import CoordinatorQueries, State
from wardround.console.web.queries.hub_releases import FILES
from wardround.console.web.queries.hub_rounds import Part, Step
from wardround.console.web.roles import Role
from wardround.console.web.rounds_chart import SHAPES, grid
from wardround.console.web.sessions import COOKIE
from wardround.protocol.errors import UsageError
from wardround.protocol.identity import Identity
from wardround.protocol.messages import Standing
from wardround.protocol.receipt import parse_receipt
from wardround.server.enrolment import Enrolment
from wardround.server.store.database import read_database
from wardround.server.store.studies import StudyFolder

BOTH = (Role.COORDINATOR, Role.RESEARCHER)


def apart(work: Any) -> Any:
    """What a coroutine returns, run on a thread of its own: the browser's driver keeps a loop on this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def text_of(answer: Any) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def main_of(answer: Any) -> str:
    return str(answer.text.split("<main", 1)[1])


def study_of(world: Any, name: str) -> Any:
    return CoordinatorQueries(world.folder).study(world.plans[name].digest)


@pytest.fixture
def ask(helpers: Any) -> Any:
    """A function: what a page answers somebody of a role, in the console of a world; one login for each."""
    made: dict[tuple[str, str], Any] = {}

    def answer(world: Any, path: str, role: str = "coordinator") -> Any:
        key = (str(world.path), role)
        if key not in made:
            made[key] = helpers.new_client(world.app())
            helpers.log_in(made[key], world, role)
        return made[key].get(path)

    yield answer
    for one in made.values():
        one.close()


def test_rounds_are_what_the_receipts_say(hub: Any) -> None:
    study, receipts = study_of(hub, "finished"), hub.place("finished").receipts()
    assert [(line.number, line.attempt) for line in study.lines] == [(1, 1), (2, 1), (3, 1), (4, 1)]
    for line, receipt in zip(study.lines, receipts, strict=True):
        assert (line.model, line.receipt, line.at) == (receipt.model_after, receipt.digest, receipt.at)
        replied = [one.site for one in receipt.sites if one.outcome == "replied"]
        assert line.opened_over == len(replied)
        assert [cell.site for cell in line.cells if cell.part in (Part.IN_SUM, Part.SILENT)] == replied
        named = {one.site for one in receipt.signatures}
        assert {*line.signed, "coordinator"} == named and line.checked and line.by_coordinator
    assert study.state is State.FINISHED and (study.done, study.void) == (4, 0)
    assert study.epsilon == max(one.epsilon_at_most for one in receipts[-1].sites)


def test_who_dropped_is_named_with_the_step(hub: Any) -> None:
    found = {(line.number, cell.site, cell.part, cell.step) for line in study_of(hub, "finished").lines
             for cell in line.cells if cell.step is not None}  # fmt: skip
    assert found == {(2, "va", Part.LOST, Step.VECTOR), (3, "switzerland", Part.SILENT, Step.OPENING)}


def test_void_rounds_are_counted_and_nobody_who_answered_is_blamed(hub: Any) -> None:
    study = study_of(hub, "stuck")
    assert study.state is State.NEEDS_PEOPLE and (study.done, study.void) == (3, 3)
    for line in study.lines:
        assert not line.closed and line.opened_over == 0 and set(line.voided_by) == {"hungarian", "va"}
        assert {cell.site for cell in line.cells if cell.step is not None} == {"hungarian", "va"}


def test_a_running_round_shows_who_has_answered_so_far(hub: Any) -> None:
    study = study_of(hub, "going")
    assert study.state is State.RUNNING and study.done == 1
    assert (study.current.number, study.current.phase) == (2, "training")
    assert [cell.part for cell in study.current.cells] == [Part.UNOPENED] * 2 + [Part.WAITING] * 2
    words = study_words(study)
    assert words["step"] == "Training at the hospitals: round 2" and words["rounds"] == "1 of 6"


def test_a_refused_plan_shows_who_refused_and_never_why(hub: Any, ask: Any, helpers: Any) -> None:
    study = study_of(hub, "proposed")
    said = {one.site: one.standing for one in study.standings}
    assert said == {
        "cleveland": Standing.APPROVED,
        "hungarian": Standing.APPROVED,
        "switzerland": Standing.PROPOSED,
        "va": Standing.REFUSED,
    }
    assert study.state is State.WAITING
    answer = ask(hub, f"/studies/{study.digest}")
    assert "Refused" in text_of(answer)
    assert helpers.REASON not in text_of(answer) and "Doctor Lee" not in answer.text


def test_a_refusal_shows_its_code_and_nothing_else_of_the_receipt(hub_copy: Any, ask: Any) -> None:
    """Only the three words that a site may say come through, whatever a receipt's text holds."""
    file = hub_copy.place("finished").path / "receipts" / "00002-1.json"
    receipt = parse_receipt(file.read_bytes())
    for detail, shown in (("policy", "refused (its policy)"), ("policy: 3 patients of VA", "refused,")):
        lines = [one.model_copy(update={"outcome": "refused", "detail": detail}) if one.site == "va" else one
                 for one in receipt.sites]  # fmt: skip
        file.write_bytes(receipt.model_copy(update={"sites": tuple(lines)}).canonical)
        os.utime(file, ns=(1, len(detail)))
        text = text_of(ask(hub_copy, f"/studies/{receipt.plan}"))
        assert shown in text and "3 patients" not in text


def test_a_receipt_that_was_changed_taken_out_or_broken_is_an_alarm(hub_copy: Any, ask: Any) -> None:
    receipts, queries = hub_copy.place("finished").path / "receipts", CoordinatorQueries(hub_copy.folder)
    digest, file = hub_copy.plans["finished"].digest, receipts / "00002-1.json"
    whole = file.read_bytes()
    assert queries.study(digest).fault == ""
    file.unlink()
    assert queries.study(digest).fault == "chain"
    file.write_bytes(whole.replace(b'"closed"', b'"void"'))
    assert queries.study(digest).fault == "signature"
    file.write_bytes(b"{}")
    assert queries.study(digest).fault == "unreadable" and queries.study(digest).faulty == file.name
    assert "The receipts of this study do not hold" in text_of(ask(hub_copy, f"/studies/{digest}"))
    assert "take no file of it" in text_of(ask(hub_copy, "/releases"))
    for role in BOTH:
        assert [one.kind for one in waiting(role, queries.view()) if "receipts" in one.words] == ["alert"]
    file.write_bytes(whole)
    assert queries.study(digest).fault == ""


def test_what_waits_is_said_with_the_command_and_by_role(hub_copy: Any) -> None:
    queries = CoordinatorQueries(hub_copy.folder)
    found = waiting(Role.COORDINATOR, queries.view())
    words = " ".join(f"{one.words} {one.more} {one.typed}" for one in found)
    assert "Not there yet: switzerland. Refused: va." in words and "2 of the 3 that a round needs" in words
    stuck = hub_copy.plans["stuck"].digest[:12]
    assert f"wardround study resume {stuck} --coordinator FOLDER" in words
    assert "wardround coordinator start FOLDER" in words
    assert "wardround coordinator invite FOLDER lyon" in words
    kinds = [one.kind for one in found]
    assert kinds == sorted(kinds)
    theirs = " ".join(one.typed for one in waiting(Role.RESEARCHER, queries.view()))
    assert f"study resume {stuck}" in theirs and "wardround coordinator" not in theirs


def test_enough_approvals_wait_for_the_start(hub_copy: Any) -> None:
    plan, place = hub_copy.plans["proposed"], hub_copy.place("proposed")
    told = json.loads((place.path / "status.json").read_bytes())
    told["standing"]["switzerland"] = "approved"
    (place.path / "status.json").write_text(json.dumps(told))
    study = study_of(hub_copy, "proposed")
    assert study.state is State.READY
    typed = [one.typed for one in waiting(Role.RESEARCHER, CoordinatorQueries(hub_copy.folder).view())]
    assert f"wardround study start {plan.digest[:12]} --coordinator FOLDER" in typed


@pytest.mark.parametrize(("days", "words"), [(360, "ends on"), (400, "ended on")])
def test_certificate_and_roster_are_noticed_before_they_end(hub_copy: Any, days: int, words: str) -> None:
    later = datetime.now(UTC) + timedelta(days=days)
    view = CoordinatorQueries(hub_copy.folder, clock=lambda: later).view()
    found = " ".join(one.words for one in waiting(Role.COORDINATOR, view))
    assert ("The roster expired" if days > 366 else "The roster expires") in found
    if view.certificate_days < 30:
        assert words in found
    far = CoordinatorQueries(hub_copy.folder).view()
    assert "roster expire" not in " ".join(one.words for one in waiting(Role.COORDINATOR, far))


def test_hospitals_are_shown_with_key_link_and_last_answer(hub: Any, ask: Any) -> None:
    view = CoordinatorQueries(hub.folder, links=lambda: frozenset({7})).view_with_links()
    sites = {site.site: site for site in view.sites}
    assert set(sites) == {"bern", "cleveland", "hungarian", "lyon", "switzerland", "va"}
    assert sites["cleveland"].online is True and sites["va"].online is False and sites["lyon"].online is None
    assert sites["bern"].revoked_at is not None and sites["lyon"].invited_until is not None
    key = hub.roster.identities["va"].key
    shown = sites["va"].fingerprint.replace(" ", "")
    assert shown == hashlib.sha256(key).hexdigest()[:32]
    assert sites["va"].answered_at == max(
        receipt.at for name in ("finished", "stuck", "going") for receipt in hub.place(name).receipts()
        if receipt.line["va"].outcome == "replied"
    )  # fmt: skip
    text = text_of(ask(hub, "/sites"))
    assert sites["va"].fingerprint in text and "hub.example.org" not in text


def test_reading_writes_nothing(hub_copy: Any, ask: Any) -> None:
    def content() -> dict[str, bytes]:
        files = [file for file in hub_copy.path.rglob("*") if file.is_file() and "console" not in file.name]
        return {str(file): file.read_bytes() for file in files if not file.name.endswith(("-shm", "-wal"))}

    shutil.rmtree(hub_copy.place("proposed").path)
    before = content()
    for path in ("/", "/studies", "/sites", "/releases", *(f"/studies/{p.digest}" for p in hub_copy.plans.values())):
        assert ask(hub_copy, path).status_code == 200
    assert content() == before and not hub_copy.place("proposed").path.exists()
    with closing(read_database(hub_copy.folder.database)) as store, pytest.raises(Exception, match="readonly"):
        store.execute("DELETE FROM studies")


def test_a_release_is_hashed_compared_and_given_to_both_roles(hub: Any, ask: Any) -> None:
    (release,) = CoordinatorQueries(hub.folder).releases()
    place = hub.place("finished").path
    assert release.same_model is True and release.signed_by_all == 3
    assert {file.name: file.sha256 for file in release.files} == {
        name: hashlib.sha256((place / name).read_bytes()).hexdigest() for name in ("model.safetensors", "plan.json")
    }
    for role in BOTH:
        for name in ("model.safetensors", "plan.json", "00002-1.json"):
            answer = ask(hub, f"/releases/{release.digest}/{name}", role.value)
            file = place / name if (place / name).exists() else place / "receipts" / name
            assert answer.content == file.read_bytes()
            assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
            assert answer.headers["content-type"] == "application/octet-stream"


def test_nothing_but_a_released_file_can_be_taken(hub_copy: Any, helpers: Any) -> None:
    finished, going = (hub_copy.plans[name].digest for name in ("finished", "going"))
    place = hub_copy.place("finished").path
    (place / "sum.bin").write_bytes(b"a sum")
    with helpers.new_client(hub_copy.app()) as client:
        helpers.log_in(client, hub_copy, "researcher")
        for name in ("progress.bin", "sum.bin", "session.json", "attempt.json", "status.json", "sessions", "receipts",
                     "..%2F..%2Fcoordinator.json", "..%2fplan.json", "%2e%2e%2fkeys%2fcoordinator.pem", "plan.json%00",
                     "receipts%2F00001-1.json", "%2e", "%2e%2e", "PLAN.JSON", "00099-1.json"):  # fmt: skip
            answer = client.get(f"/releases/{finished}/{name}")
            assert answer.status_code in (400, 404), name
            assert b"coordinator" not in answer.content.split(b"<main")[-1]
        for digest in (going, "0" * 64, "..", hub_copy.plans["stuck"].digest):
            assert client.get(f"/releases/{digest}/plan.json").status_code == 404
        (place / "plan.json").unlink()
        (place / "plan.json").symlink_to(hub_copy.path / "keys" / "coordinator.pem")
        assert client.get(f"/releases/{finished}/plan.json").status_code == 404
        assert not set(FILES) & {"progress.bin", "sum.bin", "session.json", "attempt.json", "status.json"}


def test_a_model_that_was_exchanged_is_noticed(hub_copy: Any, ask: Any) -> None:
    place = hub_copy.place("finished")
    plan = hub_copy.plans["finished"]
    place.keep_model(plan, place.model(plan) + 1)
    (release,) = CoordinatorQueries(hub_copy.folder).releases()
    assert release.same_model is False
    assert "do not use it" in text_of(ask(hub_copy, "/releases"))


def test_a_new_coordinator_says_what_to_do_first(new_hub: Any, ask: Any) -> None:
    text = text_of(ask(new_hub, "/"))
    for command in ("coordinator start FOLDER", "coordinator invite FOLDER SITE", "study propose --coordinator FOLDER"):
        assert f"wardround {command}" in text
    for path, words in (("/studies", "No study was proposed yet."), ("/sites", "No hospital has joined"),
                        ("/releases", "No study has released anything yet.")):  # fmt: skip
        assert words in text_of(ask(new_hub, path))


def test_a_study_that_does_not_exist_is_no_page(hub: Any, ask: Any) -> None:
    for path in ("/studies/" + "0" * 64, "/studies/..%2f..", "/studies/x?page=0", "/studies/x/live"):
        assert ask(hub, path).status_code in (400, 404)


def test_hostile_titles_are_spelt_out_everywhere(hub: Any, ask: Any) -> None:
    for path in ("/", "/studies", "/sites", f"/studies/{hub.plans['proposed'].digest}"):
        answer = ask(hub, path)
        assert "<script>alert" not in answer.text and "<img" not in answer.text
        for char in "\u202e\u202c\x1b\u200b":
            assert char not in answer.text
    assert "&lt;script&gt;alert(1)" in ask(hub, "/studies").text


def test_many_rounds_are_shown_page_by_page(hub_copy: Any, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wardround.console.web.pages.coordinator_study.AT_ONCE", 3)
    digest = hub_copy.plans["finished"].digest
    newest = main_of(ask(hub_copy, f"/studies/{digest}"))
    assert newest.count('<th scope="row">4') == 1 and "Page 2 of 2" in newest and "Earlier rounds" in newest
    first = main_of(ask(hub_copy, f"/studies/{digest}?page=1"))
    assert '<th scope="row">1' in first and '<th scope="row">4' not in first and "Later rounds" in first


def test_every_answer_has_a_shape_of_its_own_and_the_grid_stays_small(hub: Any) -> None:
    assert len({SHAPES[part] for part in Part} | {"filled"}) == len(Part), "in and unopened differ by their filling"
    assert SHAPES[Part.IN_SUM] == SHAPES[Part.UNOPENED]
    study = study_of(hub, "finished")
    drawn = grid(study.lines, (), 4, 25)
    assert {kind for kind, _ in drawn.marks} == {"in", "lost", "silent"}
    assert sum(path.count("M") for _, path in drawn.marks) == 16
    assert [text.text for text in drawn.sums] == ["4", "3", "4", "4"]
    wide = grid(study.lines[:1] * 25, (), 4, 25)
    assert wide.width == drawn.width, "a round that is added moves nothing"


def test_the_pages_say_that_they_change_nothing(hub: Any, ask: Any) -> None:
    for path in (f"/studies/{hub.plans['going'].digest}", "/sites"):
        text = text_of(ask(hub, path, "researcher"))
        assert "This page only reads." in text and "FOLDER" in text
    main = main_of(ask(hub, f"/studies/{hub.plans['going'].digest}"))
    assert "<form" not in main and "<button" not in main


def test_the_stream_says_when_a_round_is_recorded_and_a_decision_is_taken(hub_copy: Any) -> None:
    place, plan = hub_copy.place("going"), hub_copy.plans["going"]
    queries = CoordinatorQueries(hub_copy.folder)
    last = place.path / "receipts" / "00001-1.json"
    content = last.read_bytes()
    last.unlink()

    async def listen() -> list[dict[str, str]]:
        live, found = HubLive(queries.store, heartbeat=5, every=0.1), []

        def words(count: int) -> dict[str, str]:
            return study_words(queries.study(plan.digest)) | {"fresh": str(count)}

        async for event in live.events("one", words, lambda: True):
            if not event.startswith(b"event: status"):
                continue
            found.append(json.loads(event.split(b"data: ")[1]))
            if len(found) == 1:
                last.write_bytes(content)
            elif found[-1]["rounds"] == "1 of 6" and found[-1]["state"] == "Running":
                hub_copy.registry.want(plan.digest, "stopped")
            elif found[-1]["state"] == "Stopping":
                break
        live.close()
        return found

    found = apart(asyncio.wait_for(listen(), 30))
    assert found[0]["rounds"] == "0 of 6" and found[-1]["rounds"] == "1 of 6"
    assert [int(one["fresh"]) for one in found] == sorted({int(one["fresh"]) for one in found})
    assert found[-1]["state"] == "Stopping" and found[-1]["tone"] == "alert"


def test_nobody_is_told_of_nothing(hub_copy: Any) -> None:
    queries = CoordinatorQueries(hub_copy.folder)

    async def listen() -> list[bytes]:
        live, found = HubLive(queries.store, heartbeat=0.3, every=0.05), []
        async for event in live.events("one", lambda count: hub_words(queries.view()) | {"fresh": str(count)},
                                       lambda: len(found) < 6):  # fmt: skip
            found.append(event)
        return found

    found = apart(asyncio.wait_for(listen(), 30))
    assert sum(event.startswith(b"event: status") for event in found) == 1
    assert found[-1].startswith(b"event: over")


def test_a_request_that_a_page_makes_by_itself_keeps_no_session_awake(hub: Any, helpers: Any) -> None:
    with helpers.new_client(hub.app()) as client:
        helpers.log_in(client, hub, "researcher")
        for _ in range(3):
            hub.clock.later(8 * 60)
            client.get("/", headers={"X-Wardround-Itself": "1"})
        answer = client.get("/", follow_redirects=False)
        assert answer.status_code == 303 and client.cookies.get(COOKIE) is not None


@pytest.mark.server("chromium")
def test_a_page_follows_the_study_and_says_so_in_place(hub_copy: Any, visits: Any) -> None:
    from playwright.sync_api import expect

    plan, receipts = hub_copy.plans["finished"], hub_copy.place("finished").path / "receipts"
    last = receipts / "00004-1.json"
    content = last.read_bytes()
    last.unlink()
    hub_copy.registry._write("UPDATE studies SET state = '' WHERE digest = ?", (plan.digest,))
    with visits.page(hub_copy, "researcher") as window:
        window.goto(f"/studies/{plan.digest}")
        assert window.text_content("[data-live=rounds]") == "3 of 4"
        assert window.locator("#table tbody tr").count() == 3
        last.write_bytes(content)
        expect(window.locator("[data-live=rounds]")).to_have_text("4 of 4")
        expect(window.locator("#table tbody tr")).to_have_count(4)
        hub_copy.registry.ended(plan.digest, "finished", "")
        expect(window.locator("[data-live=state]")).to_have_text("Finished")
        expect(window.locator("#to-release")).to_be_visible(timeout=10_000)
        assert window.faults == []


@pytest.mark.server("chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_every_state_of_a_study_is_accessible_and_fits(
    hub: Any, new_hub: Any, visits: Any, axe: Any, screenshot: Any, scheme: str, width: int
) -> None:
    paths = {name: (hub, f"/studies/{plan.digest}") for name, plan in hub.plans.items() if name != "finished"}
    paths["new"] = (new_hub, "/")
    for name, (world, path) in paths.items():
        with visits.page(world, "coordinator", scheme=scheme, width=width) as window:
            window.goto(path)
            screenshot(window, f"coordinator-study-{name}-{scheme}-{width}")
            assert axe(window) == [], name
            wide = window.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide == 0 and window.faults == [], name


def test_an_invitation_is_shown_until_it_was_used(hub_copy: Any) -> None:
    assert [one.site for one in CoordinatorQueries(hub_copy.folder).view().sites if one.invited_until] == ["lyon"]
    Enrolment(hub_copy.folder).revoke("lyon")
    assert "lyon" not in [one.site for one in CoordinatorQueries(hub_copy.folder).view().sites]


def test_a_folder_of_another_schema_is_an_error_in_two_lines(hub_copy: Any, ask: Any) -> None:
    hub_copy.registry._write("PRAGMA user_version = 9", ())
    with pytest.raises(UsageError, match="version 9"):
        CoordinatorQueries(hub_copy.folder).view()


def test_a_signature_of_a_stranger_signs_nothing(hub_copy: Any) -> None:
    place: StudyFolder = hub_copy.place("going")
    (receipt,) = place.receipts()
    place.keep_receipt(receipt.signed_by(Identity.generate("mallory")).signed_by(Identity.generate("va")))
    study = study_of(hub_copy, "going")
    assert study.fault == "signature" and study.lines[0].signed == () and not study.lines[0].by_coordinator


def test_a_plan_that_costs_more_than_it_says_is_not_proposed(hub_copy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """15 rounds of 5 steps at noise 2.84 cost 2.99, 20 of them 3.52: README and docs/epsilon.md."""
    before = len(hub_copy.registry.plans())
    wanted = ["study=heart_disease", "privacy.noise_multiplier=2.84", "local.steps=5", "rounds=20"]
    with pytest.raises(UsageError, match=r"epsilon 3\.52, and its limit is 3 \(at delta 0\.0001; unit: ") as refused:
        propose_command(hub_copy.path, wanted)
    assert "rounds=15 with noise_multiplier=2.84" in refused.value.hint
    assert len(hub_copy.registry.plans()) == before
    propose_command(hub_copy.path, [*wanted[:3], "rounds=15"])
    assert "proposed as" in capsys.readouterr().out and len(hub_copy.registry.plans()) == before + 1


def test_the_plan_stands_in_the_same_words_as_at_a_hospital(hub: Any, ask: Any) -> None:
    plan = hub.plans["finished"]
    text = text_of(ask(hub, f"/studies/{plan.digest}"))
    for part in sections(plan):
        assert part.heading in text
        for term in part.terms:
            assert f"{term.name} {' '.join(term.text.split())}" in text
        for column in part.columns:
            assert column.name in text and column.meaning in text
    page = ask(hub, f"/studies/{plan.digest}")
    assert "Download the plan (canonical JSON)" not in page.text, "only a hospital was sent these bytes"


def test_the_plan_is_read_in_french_too(hub_copy: Any, helpers: Any) -> None:
    path = f"/studies/{hub_copy.plans['finished'].digest}"
    with helpers.new_client(hub_copy.app()) as client:
        helpers.log_in(client, hub_copy, "researcher")
        shown = client.post("/language", data={"language": "fr", "back": path, "csrf": helpers.csrf(client)})
        assert "Finalité" in text_of(shown) and "4 tours de" in text_of(shown) and "Purpose" not in text_of(shown)
