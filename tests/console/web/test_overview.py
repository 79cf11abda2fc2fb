"""The overview of a hospital: its numbers are those of the accountant and of the filter, and it is live."""

import asyncio
import json
import re
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
from cryptography.x509 import load_pem_x509_certificate

from wardround.client.control.server import ControlServer
from wardround.client.governance import CONSORTIUM_DOMAIN, charge_for, grant_for
from wardround.client.settings import Roles
from wardround.console.notices.watching import notices
from wardround.console.web.left_words import left_words
from wardround.console.web.listeners import MOST_LISTENERS, MOST_OF_ONE, TooMany
from wardround.console.web.live import NO_ANSWER, Live, status_of
from wardround.console.web.pages.overview import live_words, waiting
from wardround.console.web.queries.ledger import Books
from wardround.console.web.queries.noticing import Noticing
from wardround.console.web.queries.site import SiteQueries
from wardround.console.web.roles import Role
from wardround.console.web.sessions import COOKIE
from wardround.privacy.accounting import epsilon, rounded_up
from wardround.privacy.budget import allowance, cost
from wardround.protocol.errors import UsageError
from wardround.protocol.messages import Standing
from wardround.server.certificates import own_ca

SHIFTS = """window.moved = 0; new PerformanceObserver(list => {
    for (const one of list.getEntries()) window.moved += one.value;
}).observe({type: 'layout-shift', buffered: true})"""


def unlocked(world: Any) -> sqlite3.Connection:
    """The ledger's file as somebody opens it who does not care for its rules."""
    store = sqlite3.connect(world.folder.database)
    for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        store.execute(f"DROP TRIGGER {name}")
    return store


def apart(work: Any) -> Any:
    """What a coroutine returns, run on a thread of its own: the browser's driver keeps a loop on this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def text_of(answer: Any) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def test_used_and_left_are_what_accountant_and_filter_say(world: Any, client_as: Any, helpers: Any) -> None:
    plan = helpers.plan_of()
    event = charge_for(plan, "north", "training")
    order = world.folder.ledger().state.domains["training"].fact.order
    units, price = allowance(8.0, 1e-4, order), cost(event, order)
    rounds = (units - 7 * price) // price
    (budget,) = [one for one in SiteQueries(world.folder).view().budgets if one.name == "training"]
    assert budget.epsilon == epsilon([event] * 7, 1e-4)
    assert (budget.rounds_left, budget.studies_left) == (rounds, rounds // plan.rounds)
    assert 0 <= budget.share - 7 * price / units < 0.001
    text = text_of(client_as("officer").get("/"))
    assert f"ε {rounded_up(epsilon([event] * 7, 1e-4))} of at most 8 used" in text
    assert f"{rounds // plan.rounds} more studies like the last one would fit, or {rounds} more rounds of it." in text


def test_no_epsilon_stands_without_its_conditions(client_as: Any) -> None:
    text = text_of(client_as("officer").get("/"))
    shown = re.findall(r"ε [\d.]+ of at most [\d.]+ used (.{0,400}?)The filter has spent", text)
    assert len(shown) == 2
    for words in shown:
        for condition in (
            "at δ = 0.0001",
            "one patient of this hospital",
            "adding or removing",
            "against",
            "rounded up",
        ):
            assert condition in words
    assert "against the coordinator and as many hospitals as a plan counts as colluding" in shown[0]
    assert "against everyone, whoever colludes" in shown[1]


def test_each_role_sees_what_is_its_own(client_as: Any) -> None:
    texts = {role: text_of(client_as(role).get("/")) for role in ("officer", "it", "auditor")}
    assert re.search(r"The study 'A second look at chest pain' \(\w+\) waits for a decision", texts["officer"])
    assert "waits for a decision" not in texts["it"] and "Nothing waits for you." in texts["it"]
    assert "What waits for you" not in texts["auditor"] and "Entries of the ledger" in texts["auditor"]
    assert "Entries of the ledger" not in texts["officer"]


def test_a_new_site_says_what_comes_first(new_world: Any, helpers: Any) -> None:
    with helpers.new_client(new_world.app()) as client:
        helpers.log_in(client, new_world, "officer")
        text = text_of(client.get("/"))
    assert "This is a new site" in text and "wardround site domain open" in text
    assert "No study was proposed to this site yet." in text
    assert "ε" not in text


def test_a_daemon_that_does_not_answer_hides_no_budget(world: Any, client_as: Any) -> None:
    client = client_as("it")
    assert "The site's daemon does not answer." not in text_of(client.get("/"))
    world.control.stop()
    text = text_of(client.get("/"))
    assert "The site's daemon does not answer." in text and "wardround site start FOLDER" in text
    assert "of at most 8 used" in text


def test_a_pause_and_a_link_that_is_down_wait_for_it_and_officer(world: Any, client_as: Any) -> None:
    world.daemon.change(state="paused", reason="the disk is <b>full</b>", link="down")
    for role in ("it", "officer"):
        text = text_of(client_as(role).get("/"))
        assert "The site is paused: the disk is <b>full</b>. It answers no round until" in text
        assert "The link to the coordinator is down since" in text


def test_a_certificate_that_ends_soon_is_named(world: Any) -> None:
    queries, at = SiteQueries(world.folder), datetime(2026, 12, 24, tzinfo=UTC)
    noticing = Noticing(queries, lambda: status_of(world.daemon.status()))
    for days, words in ((3, "ends on 2026-12-24"), (-1, "ended on 2026-12-24")):
        seen = noticing.seen(at - timedelta(days=days), status_of(world.daemon.status()), queries.view())
        found = waiting(Role.IT, notices(replace(seen, certificate_ends=at)), ())
        assert [words in one.words for one in found] == [True]


def test_certificates_of_the_link_are_read_with_their_days(world: Any) -> None:
    queries, now = SiteQueries(world.folder), datetime.now(UTC)
    assert queries.certificates() == []
    pem, _ = own_ca("Hub of the north", now)
    link = world.path / "link"
    link.mkdir()
    (link / "ca.pem").write_bytes(pem)
    (world.path / "link.json").write_text(json.dumps({"link": str(link)}))
    end = load_pem_x509_certificate(pem).not_valid_after_utc
    (found,) = queries.certificates(end - timedelta(days=10, hours=1))
    assert found.days == 10 and "Hub of the north" in found.name
    assert queries.certificates(end + timedelta(days=1))[0].days < 0


def test_studies_stand_as_the_office_says(world: Any) -> None:
    shown = {study.digest: study.standing for study in SiteQueries(world.folder).view().studies}
    assert shown == {study.plan.digest: study.standing for study in world.office.studies()}
    assert set(shown.values()) == {Standing.PROPOSED, Standing.APPROVED, Standing.REFUSED}


def test_reading_follows_the_ledger_entry_by_entry_and_equals_a_new_reading(world: Any, helpers: Any) -> None:
    queries = SiteQueries(world.folder)
    before = queries.view()
    plan = world.proposed(helpers.plan_of("rounds=10", "privacy.noise_multiplier=3.5"))
    world.granted(plan)
    world.ran(plan, 2)
    after = queries.view()
    assert after.entries == before.entries + 7
    assert after == SiteQueries(world.folder).view()
    assert after.last_at >= before.last_at and after.released_at


def test_a_broken_ledger_is_named_and_read_again_when_it_is_whole(world: Any, client_as: Any, helpers: Any) -> None:
    client = client_as("officer")
    queries = SiteQueries(world.folder)
    with unlocked(world) as store:
        (content,) = store.execute("SELECT content FROM entries WHERE number = 5").fetchone()
        store.execute("UPDATE entries SET content = ? WHERE number = 5", (bytes(content) + b" ",))
    with pytest.raises(UsageError, match="broken at entry 5"):
        queries.view()
    with helpers.new_client(world.app()) as restarted:
        restarted.cookies.set(COOKIE, client.cookies[COOKIE])
        answer = restarted.get("/")
    assert answer.status_code == 409 and "broken at entry 5" in text_of(answer)
    with unlocked(world) as store:
        store.execute("UPDATE entries SET content = ? WHERE number = 5", (bytes(content),))
    assert queries.view().entries == world.folder.ledger().state.size


def test_a_ledger_that_was_put_back_is_read_from_its_beginning(world: Any, tmp_path: Any) -> None:
    queries = SiteQueries(world.folder)
    size = queries.view().entries
    with unlocked(world) as store:
        store.execute("DELETE FROM entries WHERE number > ?", (size - 6,))
    assert queries.view().entries == size - 6
    assert queries.view() == SiteQueries(world.folder).view()


def test_an_entry_is_folded_once_however_often_pages_are_asked(world: Any, monkeypatch: Any, helpers: Any) -> None:
    taken: list[int] = []
    take = Books.take
    monkeypatch.setattr(Books, "take", lambda books, entry: (taken.append(entry.number), take(books, entry)))
    queries = SiteQueries(world.folder)
    for _ in range(5):
        size = queries.view().entries
    assert taken == list(range(1, size + 1))
    world.ran(helpers.plan_of(), 1, first=8)
    queries.view()
    queries.study(world.examples["digest"])
    assert taken == list(range(1, size + 4))


def test_reading_changes_nothing_of_the_ledger(world: Any) -> None:
    before, queries = world.folder.ledger().facts(), SiteQueries(world.folder)
    for _ in range(3):
        queries.view()
    assert world.folder.ledger().facts() == before
    with queries.ledger.read() as (_, store), pytest.raises(sqlite3.OperationalError, match="readonly"):
        store.execute("INSERT INTO studies VALUES ('a', 'b', 'c', NULL)")


def test_left_words_never_promise_what_the_filter_would_refuse(world: Any, helpers: Any) -> None:
    (budget,) = [one for one in SiteQueries(world.folder).view().budgets if one.name == "training"]
    plan = helpers.plan_of("rounds=500", "privacy.noise_multiplier=2.84")
    world.proposed(plan)
    world.office.record([world.signed(grant_for(plan, "north"))])
    world.ran(plan, budget.rounds_left)
    (spent,) = [one for one in SiteQueries(world.folder).view().budgets if one.name == "training"]
    assert spent.rounds_left == 0
    assert left_words(spent) == "0 more studies like the last one would fit, or 0 more rounds of it."
    with pytest.raises(UsageError, match="too small"):
        world.ran(plan, 1, first=budget.rounds_left + 1)


def test_the_stream_says_what_changed_and_beats_in_between(world: Any) -> None:
    async def listen() -> list[bytes]:
        hub = Live(world.path, heartbeat=0.3)
        found, beaten = list[bytes](), False
        queries = SiteQueries(world.folder)
        stream = hub.events("one", lambda now: live_words(now, queries.study(now.last_plan)), lambda: True)
        async for event in stream:
            found.append(event)
            if event == b": still here\n\n" and not beaten and any(b"Running" in one for one in found):
                beaten = True
                world.daemon.change(state="paused")
            if b"Paused" in event:
                break
        await stream.aclose()
        hub.close()
        return found

    found = apart(asyncio.wait_for(listen(), 30))
    assert found[0].startswith(b"retry: ")
    words = [json.loads(event.split(b"data: ")[1]) for event in found if event.startswith(b"event: status")]
    assert [one["state"] for one in words] == ["Running", "Paused"]
    assert words[0]["study"].endswith("round 7 of 20")


def test_the_stream_survives_a_daemon_that_goes_and_comes(world: Any) -> None:
    async def listen() -> list[bool]:
        hub, found = Live(world.path, heartbeat=0.2, again=0.2), []
        stream = hub.events("one", lambda status: {"answers": str(status.answers)}, lambda: True)
        async for event in stream:
            if not event.startswith(b"event: status"):
                continue
            found.append(b"True" in event)
            if found == [True]:
                await asyncio.to_thread(world.control.stop)
            elif found == [True, False]:
                world.control = ControlServer(
                    world.path / "control.sock", world.office, Roles(), world.path / "sockets"
                )
                world.control.start()
            else:
                break
        await stream.aclose()
        hub.close()
        return found

    assert apart(asyncio.wait_for(listen(), 60)) == [True, False, True]


def test_the_stream_ends_with_the_session(world: Any) -> None:
    async def listen() -> list[bytes]:
        hub = Live(world.path, heartbeat=0.1)
        return [event async for event in hub.events("one", lambda status: {}, lambda: False)]

    assert apart(asyncio.wait_for(listen(), 30))[-1].startswith(b"event: over")


def test_the_stream_of_a_busy_daemon_ends_with_the_session_too(world: Any) -> None:
    async def listen() -> list[bytes]:
        hub, found = Live(world.path, heartbeat=3.0), []
        async for event in hub.events("one", lambda now: {"round": str(now.round_number)}, lambda: False):
            found.append(event)
            world.daemon.change(round_number=len(found))
        return found

    found = apart(asyncio.wait_for(listen(), 30))
    assert found[-1].startswith(b"event: over") and b": still here\n\n" not in found


def test_listeners_are_counted_for_each_session_and_in_all_and_let_go(world: Any) -> None:
    async def listen() -> None:
        hub = Live(world.path, heartbeat=5)

        async def begun(owner: str) -> Any:
            stream = hub.events(owner, lambda status: {}, lambda: True)
            await anext(stream)
            return stream

        held = [await begun("one") for _ in range(MOST_OF_ONE)]
        with pytest.raises(TooMany):
            await begun("one")
        held += [await begun(f"other {number}") for number in range(MOST_LISTENERS - MOST_OF_ONE)]
        with pytest.raises(TooMany):
            await begun("the last")
        await held.pop().aclose()
        held.append(await begun("the last"))
        for stream in held:
            await stream.aclose()
        until = time.monotonic() + 40
        while hub._watching is not None:
            assert time.monotonic() < until, "somebody still watches a daemon for nobody"
            await asyncio.sleep(0.05)

    apart(asyncio.wait_for(listen(), 60))


@pytest.mark.server("chromium")
def test_the_page_is_live_and_nothing_moves(world: Any, visits: Any) -> None:
    from playwright.sync_api import expect

    with visits.page(world, "officer") as window:
        window.goto("/")
        window.evaluate(SHIFTS)
        assert window.text_content("[data-live=state]") == "Running"
        world.daemon.change(state="paused", link="down", round_number=8)
        expect(window.locator("[data-live=state]")).to_have_text("Paused")
        assert window.text_content("[data-live=link]") == "down"
        assert "round 8 of 20" in window.text_content("[data-live=study]")
        assert "alert" in window.get_attribute("[data-live=state]", "class")
        assert window.evaluate("window.moved") == 0
        assert window.faults == []


def test_nothing_is_known_of_a_daemon_that_does_not_answer() -> None:
    words = live_words(NO_ANSWER, None)
    assert words["state"] == "Does not answer" and words["link"] == "not known" and words["tone"] == "alert"


def test_the_second_curve_is_named_for_whom_it_holds(world: Any) -> None:
    budgets = {budget.name: budget for budget in SiteQueries(world.folder).view().budgets}
    assert budgets[CONSORTIUM_DOMAIN].consortium and not budgets["training"].consortium
