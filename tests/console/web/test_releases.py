"""What left the site, and receipts: verified means that every signature was checked here and now."""

import json
import re
import sqlite3
from contextlib import closing
from html import unescape
from typing import Any

import pytest

from wardround.client.governance import CONSORTIUM_DOMAIN
from wardround.client.store.database import open_store
from wardround.client.store.evidence import Evidence
from wardround.client.store.receipts import Receipts
from wardround.console.web.pages.releases import VERDICTS
from wardround.console.web.queries.receipts import Standing
from wardround.console.web.queries.site import SiteQueries
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import OpenSum, Release, SignSurvivors
from wardround.protocol.owners import COORDINATOR
from wardround.protocol.receipt import Receipt, parse_receipt


def text_of(answer: Any) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def standings(world: Any) -> dict[int, Standing]:
    """The verdict on each round of the running study."""
    view = SiteQueries(world.folder).releases.view("", 1)
    return {sent.round_number: sent.verdict.standing for sent in view.sent.items}


def stored(world: Any, number: int) -> bytes:
    with closing(sqlite3.connect(world.folder.database)) as store:
        (content,) = store.execute("SELECT content FROM receipts WHERE round_number = ?", (number,)).fetchone()
        return bytes(content)


def put(world: Any, number: int, content: bytes) -> None:
    with closing(sqlite3.connect(world.folder.database)) as store, store:
        store.execute("UPDATE receipts SET content = ? WHERE round_number = ?", (content, number))


def signed_by(receipt: Receipt, *parties: Identity) -> Receipt:
    for party in parties:
        receipt = receipt.signed_by(party)
    return receipt


def test_every_answer_that_left_is_listed_once_with_the_hash_of_the_ledger(
    world: Any, client_as: Any, helpers: Any
) -> None:
    facts = [fact for fact in world.folder.ledger().facts() if isinstance(fact, Release)]
    assert len(facts) == 14, "seven rounds, charged on two domains each"
    view = SiteQueries(world.folder).releases.view("", 1)
    contents = {fact.content for fact in facts}
    assert [sent.round_number for sent in view.sent.items] == [7, 6, 5, 4, 3, 2, 1]
    assert {sent.content for sent in view.sent.items} == contents and view.sent.count == 7
    assert all(sorted(sent.domains) == [CONSORTIUM_DOMAIN, "training"] for sent in view.sent.items)
    shown = client_as("auditor").get("/releases").text
    assert all(content in shown for content in contents)


def test_a_receipt_is_verified_only_where_one_is_held(world: Any, client_as: Any) -> None:
    assert standings(world) == {7: Standing.NONE} | dict.fromkeys(range(1, 7), Standing.VERIFIED)
    shown = text_of(client_as("officer").get("/releases"))
    assert shown.count("✓ Verified Signed by the coordinator, east, north.") == 6
    assert shown.count("No receipt yet") == 1 and "does not hold" not in shown


TAMPERED = {
    "a hash": lambda r: r.model_copy(update={"model_after": "f" * 64}),
    "the time": lambda r: r.model_copy(update={"at": "2026-11-30T08:00:00Z"}),
    "the epsilon": lambda r: r.model_copy(
        update={"sites": (r.sites[0], r.sites[1].model_copy(update={"epsilon_at_most": 0.01}))}
    ),
    "the roster": lambda r: r.model_copy(update={"roster": None, "roster_epoch": None}),
    "the coordinator's signature": lambda r: r.model_copy(
        update={"signatures": tuple(one for one in r.signatures if one.site != COORDINATOR)}
    ),
    "this site's signature": lambda r: r.model_copy(
        update={"signatures": tuple(one for one in r.signatures if one.site != "north")}
    ),
    "another round's": lambda r: r.model_copy(update={"round_number": 4}),
}


@pytest.mark.parametrize("what", sorted(TAMPERED))
def test_a_receipt_that_was_changed_in_the_store_is_not_verified(world: Any, client_as: Any, what: str) -> None:
    before = parse_receipt(stored(world, 3))
    put(world, 3, TAMPERED[what](before).canonical)
    assert standings(world)[3] is Standing.BAD
    assert list(standings(world).values()).count(Standing.VERIFIED) == 5
    client = client_as("officer")
    answer = client.get("/releases")
    shown = text_of(answer)
    assert "1 receipt on this page does not hold." in shown and shown.count("✗ Not verified") == 1
    (line,) = [row for row in re.findall(r"<tr>.*?</tr>", answer.text, re.S) if "Round 3</a>" in row]
    assert 'class="badge alert"' in line and "Verified Signed" not in text_of(type("A", (), {"text": line}))
    put(world, 3, before.canonical)
    assert standings(world)[3] is Standing.VERIFIED


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b'{"format":"wardround/receipt/1"}'])
def test_bytes_that_are_no_receipt_are_not_verified_and_can_still_be_taken_away(
    world: Any, client_as: Any, content: bytes
) -> None:
    put(world, 3, content)
    assert standings(world)[3] is Standing.BAD
    client = client_as("officer")
    number = re.search(r'href="/releases/(\d+)">Round 3<', client.get("/releases").text)[1]
    assert "The stored bytes are no receipt" in text_of(client.get(f"/releases/{number}"))
    assert client.get(f"/releases/{number}/receipt.json").content == content


def test_another_partys_keys_do_not_verify(world: Any) -> None:
    """Well-formed signatures by keys that nobody pinned."""
    receipt = parse_receipt(stored(world, 3)).model_copy(update={"signatures": ()})
    own, east, hub = world.folder.identity(), world.east, world.coordinator
    for parties in (
        (Identity.generate(COORDINATOR), own, east),
        (hub, Identity.generate("north"), east),
        (hub, own, Identity.generate("east")),
    ):
        put(world, 3, signed_by(receipt, *parties).canonical)
        assert standings(world)[3] is Standing.BAD
    put(world, 3, signed_by(receipt, hub, own, Identity.generate("elsewhere")).canonical)
    found = SiteQueries(world.folder).releases.view("", 1).sent.items[4].verdict
    assert (found.standing, found.signers, found.unknown) == (Standing.VERIFIED, (COORDINATOR, "north"), ("elsewhere",))


def test_a_receipt_under_a_roster_that_was_never_pinned_is_not_called_verified(world: Any, client_as: Any) -> None:
    receipt = parse_receipt(stored(world, 3)).model_copy(update={"signatures": (), "roster": "ab" * 32})
    put(world, 3, signed_by(receipt, world.coordinator, world.folder.identity()).canonical)
    assert standings(world)[3] is Standing.UNPINNED
    shown = text_of(client_as("officer").get("/releases"))
    assert "Not checked: no roster" in shown and shown.count("✓ Verified") == 5


def test_a_roster_that_was_changed_verifies_nothing(world: Any) -> None:
    with closing(sqlite3.connect(world.folder.database)) as store, store:
        for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            store.execute(f"DROP TRIGGER {name}")
        (content,) = store.execute("SELECT content FROM rosters").fetchone()
        mine = Identity.generate(COORDINATOR).public.key.hex().encode()
        changed = bytes(content).replace(world.coordinator.public.key.hex().encode(), mine)
        store.execute("UPDATE rosters SET content = ?", (changed,))
    assert set(standings(world).values()) == {Standing.BAD, Standing.NONE}


def test_a_receipt_that_says_what_the_ledger_does_not_is_not_verified(world: Any, helpers: Any) -> None:
    """The receipt of a round in which nothing left, put in the place of one in which something did."""
    from wardround.console.web.queries.receipts import Verifier

    receipt = parse_receipt(stored(world, 3))
    with closing(open_store(world.folder.database)) as store:
        verifier = Verifier(store, world.folder.identity().public)
        about = (receipt.canonical, receipt.plan, 3, 1)
        assert verifier.verdict(*about, released=True).standing is Standing.VERIFIED
        assert verifier.verdict(*about, released=False).standing is Standing.BAD


def test_the_detail_says_the_receipt_in_words_and_gives_its_very_bytes(world: Any, client_as: Any) -> None:
    client = client_as("auditor")
    receipt = parse_receipt(stored(world, 3))
    number = re.search(r'href="/releases/(\d+)">Round 3<', client.get("/releases").text)[1]
    shown = text_of(client.get(f"/releases/{number}"))
    for words in (
        receipt.digest, receipt.model_before, receipt.model_after, receipt.conditions, f"{3:064x}",
        "It follows the receipt of round 2.", "It was closed: its sum went into the model.", "east answered",
        "✓ Verified", "against everyone", "ε 0.31",
    ):  # fmt: skip
        assert words in shown, words
    answer = client.get(f"/releases/{number}/receipt.json")
    assert answer.content == stored(world, 3) and json.loads(answer.content)["round_number"] == 3
    assert answer.headers["content-disposition"] == f'attachment; filename="receipt-{number}.json"'
    none = re.search(r'href="/releases/(\d+)">Round 7<', client.get("/releases").text)[1]
    assert client.get(f"/releases/{none}/receipt.json").status_code == 404
    assert client.get("/releases/999999").status_code == 404 and client.get("/releases/x").status_code == 400


def test_the_receipts_file_is_for_the_pages_roles_only(world: Any, helpers: Any) -> None:
    number = world.numbers(Release)[0]
    with helpers.new_client(world.app()) as client:
        answer = client.get(f"/releases/{number}/receipt.json", follow_redirects=False)
        assert answer.status_code == 303 and answer.headers["location"] == "/login"


def test_the_list_is_filtered_by_study_and_paged(world: Any, client_as: Any, helpers: Any) -> None:
    plan = world.proposed(helpers.plan_of("rounds=40", "privacy.noise_multiplier=9.0", title="<b>Another</b>"))
    world.granted(plan)
    world.ran(plan, 30)
    client = client_as("officer")
    first = text_of(client.get("/releases"))
    assert "1 to 25 of 37" in first and "<b>Another</b>" in first
    other = text_of(client.get(f"/releases?study={plan.digest}&page=2"))
    assert "26 to 30 of 30" in other and "Round 5 " in other and "Chest" not in other
    assert "Nothing has left this site yet." in text_of(client.get("/releases?study=ab"))
    assert client.get(f"/releases?study={'a' * 65}").status_code == 400


def test_sums_that_were_signed_and_opened_stand_with_their_entries(world: Any, client_as: Any) -> None:
    plan = world.examples["plan"]
    ledger = world.folder.ledger()
    about = {"session": "cd" * 32, "plan": plan, "round_number": 4, "attempt": 1, "survivors": "ef" * 32}
    ledger.record(SignSurvivors(**about))
    ledger.record(OpenSum(**about, sites=("east", "north"), inputs="12" * 32))
    size = ledger.state.size
    ledger.close()
    view = SiteQueries(world.folder).releases.view("", 1)
    (sent,) = [one for one in view.sent.items if one.round_number == 4]
    assert (sent.listed, sent.opened, view.sums_opened) == ((size - 1,), (size,), 1)
    client = client_as("officer")
    assert "its sum was opened" in text_of(client.get("/releases"))
    assert f"Helped to open the sum entry {size}" in text_of(client.get(f"/releases/{sent.number}"))


def test_evidence_is_shown(world: Any, client_as: Any) -> None:
    with closing(open_store(world.folder.database)) as store:
        Evidence(store, "north").keep("request", b"two proposals")
    assert "A request of the coordinator that breaks a rule" in text_of(client_as("officer").get("/releases"))


def test_a_new_site_says_that_nothing_left(new_world: Any, helpers: Any) -> None:
    with helpers.new_client(new_world.app()) as client:
        helpers.log_in(client, new_world, "officer")
        shown = text_of(client.get("/releases"))
    assert "Nothing has left this site yet." in shown and "Receipts held 0" in shown


def test_a_verdict_is_told_by_its_words_too() -> None:
    assert len({words for _, words in VERDICTS.values()}) == len(VERDICTS) == len(Standing)


def test_reading_receipts_changes_none(world: Any) -> None:
    with closing(open_store(world.folder.database)) as store:
        before = [one.canonical for one in Receipts(store).of(world.examples["plan"])]
        standings(world)
        assert [one.canonical for one in Receipts(store).of(world.examples["plan"])] == before


@pytest.mark.server("chromium")
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_a_receipt_that_does_not_hold_is_accessible_and_fits(
    world: Any, visits: Any, axe: Any, screenshot: Any, scheme: str, width: int
) -> None:
    put(world, 3, TAMPERED["a hash"](parse_receipt(stored(world, 3))).canonical)
    number = next(
        sent.number for sent in SiteQueries(world.folder).releases.view("", 1).sent.items if sent.round_number == 3
    )
    with visits.page(world, "officer", scheme=scheme, width=width) as window:
        for name, path in (("list", "/releases"), ("one", f"/releases/{number}")):
            window.goto(path)
            screenshot(window, f"site-releases-alarm-{name}-{scheme}-{width}")
            assert axe(window) == []
            assert window.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
