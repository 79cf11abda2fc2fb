"""The audit log finds what is in the ledger and nothing else, and an entry is looked at anew when it is shown."""

import hashlib
import json
import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from html import unescape
from typing import Any

import pytest

from wardround.client.store.database import open_copy
from wardround.client.store.ledger import stored_entries
from wardround.console.i18n import translations, use
from wardround.console.paper.entry_words import entry_words
from wardround.console.paper.terms import Words
from wardround.console.web.pages.audit import words
from wardround.console.web.queries.ledger import LedgerReader
from wardround.console.web.queries.record import MOST_SECONDS, MOST_TERMS, PAGE, Wanted
from wardround.console.web.queries.witnesses import witness_view
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import Abandon, Refuse, Reserve, SetClock, Start, approve
from wardround.protocol.witness import cosign

KIND_WORDS = {"refuse": "refusal", "grant": "approval"}


def text_of(answer: Any) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def numbers(answer: Any) -> list[int]:
    """The entries that a page of the log lists."""
    return [int(found) for found in re.findall(r'<a href="/audit/(\d+)"><span', answer.text)]


def raw(world: Any) -> list[dict[str, Any]]:
    """Every entry's own JSON, read with nothing of ours between, with its number."""
    with closing(sqlite3.connect(world.folder.database)) as store:
        rows = store.execute("SELECT number, content FROM entries ORDER BY number").fetchall()
    return [{"number": number, **json.loads(content)} for number, content in rows]


def search(world: Any, wanted: Wanted, page: int = 1) -> Any:
    with LedgerReader(world.path, "north").read() as (books, store):
        books.record.learn(store)
        return books.record.search(wanted, page, lambda kind: KIND_WORDS.get(kind, kind))


def test_the_log_has_every_entry_once_the_newest_first(world: Any, client_as: Any, helpers: Any) -> None:
    world.ran(helpers.plan_of(), 12, first=8)
    client, listed = client_as("auditor"), []
    for page in range(1, 4):
        listed += numbers(client.get(f"/audit?page={page}"))
    everything = [one["number"] for one in raw(world)]
    assert len(everything) > PAGE
    assert listed == everything[::-1]


def test_each_filter_leaves_what_the_entries_themselves_say(world: Any, client_as: Any, helpers: Any) -> None:
    client, plan = client_as("auditor"), helpers.plan_of()
    grants = [one["number"] for one in raw(world) if one["fact"]["kind"] == "grant"]
    assert numbers(client.get("/audit?kind=grant")) == grants[::-1] != []
    block_of = {one["fact"]["block"]: one["fact"] for one in raw(world) if one["fact"]["kind"] == "reserve"}
    on_training = [
        one["number"]
        for one in raw(world)
        if (block_of.get(one["fact"].get("block", "")) or one["fact"]).get("domain") == "training"
    ]
    assert numbers(client.get("/audit?domain=training")) == on_training[::-1] != []
    of_plan = [
        one["number"]
        for one in raw(world)
        if (block_of.get(one["fact"].get("block", "")) or one["fact"]).get("plan") == plan.digest
    ]
    assert numbers(client.get(f"/audit?study={plan.digest}")) == of_plan[::-1][:PAGE] != []
    both = [number for number in on_training if number in grants]
    assert numbers(client.get("/audit?kind=grant&domain=training")) == both[::-1] != []
    assert numbers(client.get("/audit?kind=release&domain=nowhere")) == []


def test_dates_are_whole_days_and_both_within(new_world: Any) -> None:
    when = [datetime(2027, 3, day, hour, tzinfo=UTC) for day, hour in ((1, 23), (2, 0), (2, 23), (3, 0))]
    before = new_world.folder.ledger().entries
    for at in when:
        ledger = new_world.folder.ledger(lambda at=at: at)  # type: ignore[misc]
        ledger.record(Refuse(plan="ab" * 32, round_number=1, reason="the site is paused"))
        ledger.close()
    for since, until, places in (
        ("2027-03-02", "2027-03-02", [3, 2]), ("2027-03-02", "", [4, 3, 2]), ("", "2027-03-01", [1]),
        ("2027-03-03", "2027-03-02", []),
    ):  # fmt: skip
        found = search(new_world, Wanted(since=since, until=until, kind="refuse"))
        assert [line.number - before for line in found.lines] == places


def test_a_day_that_is_none_is_an_error_in_words(client_as: Any) -> None:
    client = client_as("officer")
    for text in ("2026-02-30", "yesterday", "20260230"):
        answer = client.get("/audit", params={"since": text})
        assert answer.status_code == 409 and "This is no day." in answer.text


def test_a_search_finds_study_digest_officer_kind_and_words(world: Any, client_as: Any, helpers: Any) -> None:
    plan, ledger = helpers.plan_of(), world.folder.ledger()
    ledger.record(Refuse(plan=plan.digest, round_number=3, reason="the disk is nearly full"))
    last = ledger.entries
    ledger.close()
    client = client_as("auditor")
    assert numbers(client.get("/audit?q=NEARLY+full")) == [last]
    assert numbers(client.get("/audit?q=nearly+empty")) == []
    grants = [one["number"] for one in raw(world) if one["fact"]["kind"] == "grant"]
    assert numbers(client.get(f"/audit?q={plan.digest[:9]}+approval")) == grants[::-1]
    assert last in numbers(client.get("/audit", params={"q": f"{plan.study} refusal"}))
    signed = [one["number"] for one in raw(world) if "anna" in str(one["fact"].get("approvals", ""))]
    assert set(signed) <= set(numbers(client.get("/audit?q=anna")))
    assert f"entry {last:,}".title() not in text_of(client.get("/audit?q=anna"))


def test_kinds_are_searched_in_the_readers_own_words(world: Any, client_as: Any) -> None:
    client = client_as("auditor")
    grants = [one["number"] for one in raw(world) if one["fact"]["kind"] == "grant"]
    assert set(grants) <= set(numbers(client.get("/audit?q=approbation", headers={"accept-language": "fr"})))
    assert numbers(client.get("/audit?q=approbation", headers={"accept-language": "en"})) == []


@pytest.mark.parametrize(
    "hostile",
    [
        "%",
        "' OR 1=1 --",
        '"; DROP TABLE entries; --',
        "*",
        "<script>alert(1)</script>",
        "\u202e",
        "\x00",
        "[a-z]",
        "\\",
    ],
)
def test_signs_of_sql_and_hostile_text_are_nothing_but_text(world: Any, client_as: Any, hostile: str) -> None:
    client, before = client_as("auditor"), len(raw(world))
    for name in ("q", "kind", "domain", "study"):
        answer = client.get("/audit", params={name: hostile})
        assert answer.status_code == 200 and numbers(answer) == []
        assert "<script>alert" not in answer.text and "No entry fits." in answer.text
    assert len(raw(world)) == before


def test_a_wildcard_finds_an_entry_that_has_it(world: Any) -> None:
    ledger = world.folder.ledger()
    ledger.record(Refuse(plan="ab" * 32, round_number=1, reason="the disk is 95% full"))
    last = ledger.entries
    ledger.close()
    assert [line.number for line in search(world, Wanted("5%")).lines] == [last]
    assert search(world, Wanted("5_")).lines == search(world, Wanted("9%5")).lines == ()


def test_words_that_are_too_many_or_too_long_cost_no_more(client_as: Any) -> None:
    client = client_as("auditor")
    assert client.get("/audit", params={"q": "a" * 201}).status_code == 400
    assert client.get("/audit", params={"page": 0}).status_code == 400
    assert client.get("/audit", params={"page": 10**9}).status_code == 200
    assert len(Wanted("a " * 100).terms) == MOST_TERMS


def test_a_search_that_takes_too_long_is_cut_and_says_so(world: Any, client_as: Any, monkeypatch: Any) -> None:
    with LedgerReader(world.path, "north").read() as (books, _):
        times = iter((0.0, MOST_SECONDS / 2, MOST_SECONDS * 2))
        record = books.record
        record.lines *= 100
        found = record.search(Wanted("no such word"), 1, str, lambda: next(times))
    assert found.cut and found.searched == 2_000 < len(record.lines)
    monkeypatch.setattr("wardround.console.web.queries.record.MOST_SECONDS", -1.0)
    text = text_of(client_as("auditor").get("/audit?q=anna"))
    assert "The search was ended so that pages stay quick: it looked at the newest 0 entries" in text


def test_what_follows_a_wrong_clock_is_found_by_its_own_day(new_world: Any) -> None:
    def at(year: int) -> Any:
        return new_world.folder.ledger(lambda: datetime(year, 5, 1, tzinfo=UTC))

    ahead = at(2031)
    ahead.record(Refuse(plan="ab" * 32, round_number=1, reason="paused"))
    new_world.folder.ledger().close()
    fact = SetClock(wrong="2031-05-01T00:00:00Z", reason="the clock was ahead by years")
    at(2027).record(approve(fact, new_world.folder.identity().public.key.hex(), new_world.anna))
    assert [one.kind for one in search(new_world, Wanted(since="2027-01-01", until="2027-12-31")).lines] == [
        "set_clock"
    ]
    assert [one.kind for one in search(new_world, Wanted(since="2031-01-01")).lines] == ["refuse"]


def test_a_round_is_found_by_its_block_with_plan_and_number(world: Any, helpers: Any) -> None:
    ledger, plan = world.folder.ledger(), helpers.plan_of()
    event = next(
        grant.fact.event
        for (of, domain), grant in ledger.state.grants.items()
        if of == plan.digest and domain == "training"
    )
    ledger.record(Reserve(domain="training", block="b-9", plan=plan.digest, round_number=9, event=event))
    ledger.record(Start(block="b-9", opted_out_at_most=10))
    ledger.record(Abandon(block="b-9"))
    ledger.close()
    found = search(world, Wanted("b-9"))
    assert [(one.kind, one.plan, one.round_number) for one in found.lines] == [
        (kind, plan.digest, 9) for kind in ("abandon", "start", "reserve")
    ]


def test_an_entry_shows_its_bytes_its_hash_and_a_proof_that_others_can_check(world: Any, client_as: Any) -> None:
    client = client_as("auditor")
    with closing(open_copy(world.folder.database)) as store:
        entries = list(stored_entries(store, "north"))
    entry = entries[4]
    text = text_of(client.get("/audit/5"))
    assert "This entry holds" in text and entry.content.decode() in text and text.count(entry.hash.hex()) == 2
    taken = client.get("/audit/5/content")
    assert taken.content == entry.content
    assert taken.headers["content-disposition"] == 'attachment; filename="north-entry-5.json"'
    steps = [
        bytes.fromhex(one) for one in re.findall(r"<li><code>([0-9a-f]{64})</code></li>", client.get("/audit/5").text)
    ]
    # RFC 9162 2.1.3.2, written out here for index 4.
    node, last, root = 4, len(entries) - 1, hashlib.sha256(b"\x00" + entry.content).digest()
    for step in steps:
        if node % 2 or node == last:
            root = hashlib.sha256(b"\x01" + step + root).digest()
            while node and node % 2 == 0:
                node, last = node // 2, last // 2
        else:
            root = hashlib.sha256(b"\x01" + root + step).digest()
        node, last = node // 2, last // 2
    assert root.hex() in text


def test_an_entry_that_is_not_there_is_said_in_words(client_as: Any) -> None:
    client = client_as("it")
    assert client.get("/audit/99999").status_code == 409 and "has no entry 99,999" in client.get("/audit/99999").text
    for number in ("0", "-1", "1e3", "9" * 30, "..%2f..%2fetc%2fpasswd"):
        assert client.get(f"/audit/{number}").status_code in (400, 404)


def test_an_entry_that_was_changed_behind_the_consoles_back_does_not_hold(world: Any, client_as: Any) -> None:
    client = client_as("auditor")
    assert "This entry holds" in client.get("/audit/5").text
    with closing(sqlite3.connect(world.folder.database)) as store, store:
        for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            store.execute(f"DROP TRIGGER {name}")
        store.execute(
            "UPDATE entries SET content = CAST(replace(CAST(content AS TEXT), '2026', '2025') AS BLOB) WHERE number = 5"
        )
    text = text_of(client.get("/audit/5"))
    assert "This entry does not hold" in text and "another" in text and "not proved" in text


def test_witnesses_and_what_they_cover_are_shown(world: Any, client_as: Any) -> None:
    client, witness = client_as("officer"), Identity.generate("south")
    assert "Nobody else has signed this ledger yet." in text_of(client.get("/audit/witnesses"))
    ledger, key = world.folder.ledger(), world.folder.identity().public
    sizes: list[int] = []
    held = None
    for _ in range(2):
        offered, proof = ledger.offer(sizes[-1] if sizes else 0)
        sizes.append(ledger.entries)
        held = cosign(offered, held, proof, key, witness)
        ledger.countersign(held, witness.public)
    ledger.close()
    with LedgerReader(world.path, "north").read() as (books, store):
        view = witness_view(books, store, "north")
    assert [(one.signer, one.size, one.times) for one in view.witnesses] == [("south", sizes[1], 2)]
    assert [one.size for one in view.cosigned] == sizes[::-1]
    assert f"{sizes[1]} of {sizes[1] + 1}" in text_of(client.get("/audit/witnesses"))
    assert f"in its signature on the first {sizes[0]} entries" in text_of(client.get("/audit/3"))
    assert f"in its signature on the first {sizes[1]} entries" in text_of(client.get(f"/audit/{sizes[1]}"))
    assert "Nobody else has signed a head yet" in text_of(client.get(f"/audit/{sizes[1] + 1}"))


def test_a_head_that_others_hold_and_the_file_does_not_is_an_alarm(world: Any, client_as: Any) -> None:
    with closing(sqlite3.connect(world.folder.database)) as store, store:
        store.execute("INSERT INTO rollbacks VALUES ('north', 900, ?, 'south')", ("ab" * 32,))
    assert "south holds a head of 900 entries that this ledger does not continue." in text_of(
        client_as("it").get("/audit/witnesses")
    )


def test_a_page_in_french_writes_numbers_as_french_does_and_a_paper_as_it_was() -> None:
    countersign = {"kind": "countersign", "signer": "east", "size": 12345}
    recover = {"kind": "recover", "seen_size": 12345, "charges": [{"blocks": 1200}], "reason": "the disk was lost"}
    start = {"kind": "start", "opted_out_at_most": 1200}
    use("fr")
    try:
        said = [entry_words(fact, "plan", words(), 3) for fact in (countersign, recover, start)]
        paper = [entry_words(fact, "plan", Words(translations("fr")), 3) for fact in (countersign, recover, start)]
    finally:
        use("en")
    for text, large in zip(said, ("12\u202f345", "12\u202f345", "1\u202f200"), strict=True):
        assert large in text and "," not in text.replace(", ", " ")
    assert "1\u202f200" in said[1], "a count with its plural, too"
    assert [("12,345" in text, "1,200" in text) for text in paper] == [(True, False), (True, True), (False, True)]
