"""The check of the ledger that a person starts: it sees what ``ledger verify`` sees, and pages answer meanwhile."""

import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from html import unescape
from typing import Any

import pytest

from wardround.client.store.database import open_copy
from wardround.client.store.ledger import stored_entries
from wardround.client.store.verify import verify_file
from wardround.console.web.apart import Apart
from wardround.console.web.pages.audit_verify import progress_words
from wardround.console.web.queries.recount import Recount, Run
from wardround.protocol.entry import Entry, chained
from wardround.protocol.errors import Unavailable
from wardround.protocol.identity import Identity
from wardround.protocol.witness import cosign


def text_of(answer: Any) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def ended(recount: Recount) -> Run:
    """The run when it has ended."""
    until = time.monotonic() + 120
    while recount.run.state == "running":
        assert time.monotonic() < until, "the check does not end"
        time.sleep(0.05)
    return recount.run


def checked(world: Any) -> Run:
    recount = Recount(world.path)
    assert recount.start()
    return ended(recount)


def rewritten(world: Any, number: int, change: Callable[[Entry], Entry], *, chain: bool = True) -> None:
    """Put another entry into the file, and all hashes behind it, as somebody does who has no key."""
    with closing(open_copy(world.folder.database)) as store:
        entries = list(stored_entries(store, "north"))
    entries[number - 1] = change(entries[number - 1])
    if chain:
        for index in range(number - 1, len(entries)):
            one, before = entries[index], entries[index - 1] if index else None
            entries[index] = Entry(one.number, one.content, one.signature, chained(before, one.number, one.content))
    with closing(sqlite3.connect(world.folder.database)) as store, store:
        for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            store.execute(f"DROP TRIGGER {name}")
        for one in entries:
            row = (one.content, one.signature, one.hash, one.number)
            store.execute("UPDATE entries SET content = ?, signature = ?, hash = ? WHERE number = ?", row)


def test_a_ledger_that_holds_is_said_to_hold_with_counts(world: Any, client_as: Any) -> None:
    ledger, witness = world.folder.ledger(), Identity.generate("south")
    note = cosign(ledger.checkpoint(), None, (), world.folder.identity().public, witness)
    ledger.countersign(note, witness.public)
    entries = ledger.entries
    ledger.close()
    client = client_as("auditor")
    assert "Nobody has let the ledger be checked" in text_of(client.get("/audit/verify"))
    token = re.search(r'name="csrf" value="(\w+)"', client.get("/audit/verify").text).group(1)  # type: ignore[union-attr]
    assert client.post("/audit/verify", data={"csrf": token}).url.path == "/audit/verify"
    run = ended(client.app.console.queries.recount)
    with closing(open_copy(world.folder.database)) as store:
        approvals = sum(one.content.count(b'"officer":') for one in stored_entries(store, "north"))
    assert run.holds is not None and run.state == "holds"
    counted = (run.holds.entries, run.holds.signatures, run.holds.approvals, run.holds.countersignatures)
    assert counted == (entries, entries, approvals, 1) and approvals > 0
    assert (run.holds.checkpoints, run.holds.countersigned_by) == (1, ("south",))
    assert run.holds.root == verify_file(world.folder.database).head.root.hex()
    text = text_of(client.get("/audit/verify"))
    assert "The ledger holds." in text and f"Signatures of officers {approvals} hold" in text
    assert "Signed by: south" in text


def test_a_content_that_was_changed_is_named_by_its_entry(world: Any) -> None:
    assert checked(world).state == "holds"

    def change(one: Entry) -> Entry:
        return Entry(one.number, one.content.replace(b"2026", b"2025", 1), one.signature, one.hash)

    rewritten(world, 6, change, chain=False)
    run = checked(world)
    assert (run.state, run.number) == ("broken", 6) and "hash" in run.reason


def test_a_chain_that_was_computed_anew_without_the_key_fails_at_the_first_signature(
    world: Any, client_as: Any
) -> None:
    """Without the check of signatures this ledger would hold: content, times and hashes are all in order."""
    with closing(open_copy(world.folder.database)) as store:
        last = list(stored_entries(store, "north"))[-1]

    def change(one: Entry) -> Entry:
        return Entry(one.number, one.content.replace(b'"content":"00', b'"content":"01', 1), one.signature, b"")

    client = client_as("officer")
    rewritten(world, last.number, change)
    run = checked(world)
    assert (run.state, run.number, run.reason) == ("broken", last.number, "its signature is not the site's")
    client.app.console.queries.recount._run = run
    text = text_of(client.get("/audit/verify"))
    assert f"The ledger does not hold: entry {last.number} is wrong." in text
    for what in (
        "Keep the file ledger.sqlite as it is",
        "wardround site stop FOLDER",
        "Call all data governance officers",
    ):
        assert what in text


def test_an_officers_signature_that_is_not_hers_is_named(world: Any) -> None:
    with closing(open_copy(world.folder.database)) as store:
        grant = next(one for one in stored_entries(store, "north") if b'"kind":"grant"' in one.content)

    def forged(one: Entry) -> Entry:
        head, _, rest = one.content.partition(b'"signature":"')
        other = b"0" if rest[:1] != b"0" else b"1"
        return Entry(one.number, head + b'"signature":"' + other + rest[1:], one.signature, one.hash)

    rewritten(world, grant.number, forged)
    run = checked(world)
    assert (run.state, run.number) == ("broken", grant.number)


def test_a_head_that_others_hold_behind_the_end_is_found(world: Any) -> None:
    with closing(sqlite3.connect(world.folder.database)) as store, store:
        (entries,) = store.execute("SELECT count(*) FROM entries").fetchone()
        store.execute("INSERT INTO rollbacks VALUES ('north', ?, ?, 'south')", (entries + 3, "ab" * 32))
    run = checked(world)
    assert (run.state, run.number) == ("broken", entries + 1) and "others have seen" in run.reason


def test_a_ledger_of_another_key_is_not_believed(world: Any, new_world: Any) -> None:
    key = world.path / "keys" / "site.pem"
    key.write_bytes((new_world.path / "keys" / "site.pem").read_bytes())
    run = checked(world)
    assert (run.state, run.number) == ("broken", 1)


def test_one_run_at_a_time_and_not_at_once_again(world: Any) -> None:
    now = [0.0]
    recount = Recount(world.path, pause=30, clock=lambda: now[0])
    assert recount.start() and not recount.start()
    ended(recount)
    assert recount.wait == 30 and not recount.start()
    now[0] = 29.5
    assert recount.wait == 1 and not recount.start()
    now[0] = 30.0
    assert recount.wait == 0 and recount.start()
    ended(recount)


def test_a_process_that_is_killed_or_too_slow_says_nothing_of_the_ledger(world: Any, client_as: Any) -> None:
    with pytest.raises(Unavailable, match="ended without an answer"):
        Apart(0.05).run("verify", {"folder": str(world.path)})
    recount = Recount(world.path)
    recount._apart = Apart(0.05)
    assert recount.start()
    assert ended(recount).state == "failed" and recount.run.holds is None
    client = client_as("it")
    client.app.console.queries.recount._run = recount.run
    assert "It says nothing about the ledger." in text_of(client.get("/audit/verify"))


def test_a_folder_that_is_gone_is_said_as_it_is(world: Any) -> None:
    world.folder.database.rename(world.path / "away")
    run = checked(world)
    assert run.state == "failed" and "there is no file" in run.reason
    (world.path / "away").rename(world.folder.database)


def test_a_ledger_that_cannot_be_folded_can_still_be_checked(world: Any, client_as: Any) -> None:
    client = client_as("officer")
    rewritten(world, 6, lambda one: Entry(one.number, one.content, one.signature, bytes(32)), chain=False)
    client.app.console.queries.ledger._books = type(client.app.console.queries.ledger._books)()
    assert client.get("/audit").status_code == 409
    assert client.get("/audit/verify").status_code == 200


def test_only_a_person_with_the_pages_token_starts_a_check(client_as: Any) -> None:
    client = client_as("it")
    assert client.post("/audit/verify", data={"csrf": "0" * 64}).status_code == 403
    client.get("/audit/verify")
    assert client.app.console.queries.recount.run.state == "none"


def test_progress_is_said_in_words_and_numbers(client_as: Any) -> None:
    client = client_as("auditor")
    client.app.console.queries.recount._run = Run("running", 40_500, 100_000, "2026-11-29T08:00:00Z")
    said = client.get("/audit/verify/progress").json()
    assert said == {
        "running": True, "value": 40_500, "most": 100_000, "words": "40,500 of 100,000 entries so far.",
    }  # fmt: skip
    text = client.get("/audit/verify").text
    assert "40,500 of 100,000 entries so far." in text and "<noscript>" in text and "Look again" in text
    assert "last signatures" in progress_words(Run("running", 100_000, 100_000))


@pytest.mark.server("chromium")
def test_a_person_presses_the_button_and_sees_the_verdict(world: Any, visits: Any, axe: Any, screenshot: Any) -> None:
    with visits.page(world, "auditor") as window:
        window.goto("/audit/verify")
        window.click("text=Check the whole ledger now")
        window.wait_for_selector("text=The ledger holds.")
        screenshot(window, "verify-holds")
        assert axe(window) == [] and window.faults == []


@pytest.mark.server("chromium")
def test_a_running_check_is_accessible_and_moves(world: Any, visits: Any, axe: Any, screenshot: Any) -> None:
    with visits.page(world, "officer", scheme="dark", width=360) as window:
        recount = visits.served(world)._server.config.app.console.queries.recount
        recount._run = Run("running", 100, 100_000, "2026-11-29T08:00:00Z")
        window.goto("/audit/verify")
        recount._run = Run("running", 60_000, 100_000, "2026-11-29T08:00:00Z")
        window.wait_for_selector("text=60,000 of 100,000 entries so far.")
        screenshot(window, "verify-running-dark-360")
        assert axe(window) == [] and window.faults == []
        recount._run = Run(
            "broken", 60_000, 100_000, "2026-11-29T08:00:00Z", "2026-11-29T08:00:20Z", number=7, reason="x"
        )
        window.wait_for_selector("text=entry 7 is wrong")
        screenshot(window, "verify-broken-dark-360")
        assert axe(window) == []


def test_the_navigation_marks_one_place(client_as: Any) -> None:
    client = client_as("officer")
    for path, marked in [("/audit/verify", "/audit/verify"), ("/audit", "/audit"), ("/audit/5", "/audit")]:
        links = re.findall(r'<a href="([^"]+)" aria-current="', client.get(path).text)
        assert links == [marked]
