"""Alarms on ledgers in the consoles of real hospitals and of their coordinator, after real attacks and without any."""

import asyncio
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from ledger_rounds import TwoFaces, hostile, rewrite

from wardround.client.store.database import open_store
from wardround.client.store.watched import Watched
from wardround.console.notices.channels import in_text
from wardround.console.notices.watching import Level, Seen, notices
from wardround.console.web.hub_live import HubLive
from wardround.console.web.i18n import said_again, use
from wardround.console.web.pages.coordinator_overview import hub_words
from wardround.console.web.queries.alarms import Missing, alarm_line
from wardround.console.web.queries.coordinator import CoordinatorQueries
from wardround.console.web.roles import Face
from wardround.protocol.alarm import AlarmKind, parse_alarm, proven, raise_alarm
from wardround.protocol.bulletin import cycle
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import Countersign
from wardround.protocol.owners import COORDINATOR
from wardround.server.folder import CoordinatorFolder
from wardround.server.store.database import open_database
from wardround.server.store.registry import Registry
from wardround.server.store.sites import Sites
from wardround.server.store.witness import CoordinatorWitness

LIAR, HONEST = "south", ("east", "north")
MOST = 3 + 3 * cycle(3)
"""Rounds until everybody accuses, as docs/ledger.md says."""

FORKED = f"The ledger of {LIAR} has two histories: its key signed both."
AGREES = "No alarm is open: everything that was heard of ledgers agrees."
AT = "2026-11-29T08:00:00Z"


class Consortium(TwoFaces):
    """Hospitals and a coordinator whose folders are those that consoles are opened on."""

    def place(self) -> tuple[Identity, Path]:
        self.hub = CoordinatorFolder.create(self.path / "coordinator", "Hub", "hub.example.org", 8443)
        Registry(self.hub.database).propose(self.plan)
        return self.hub.identity(), self.hub.studies

    def accuse(self) -> bool:
        return all((AlarmKind.FORK, LIAR) in self.accused(name) for name in (*HONEST, COORDINATOR))


@pytest.fixture
def consortium(tmp_path: Path, helpers: Any) -> Consortium:
    """Three hospitals after five honest rounds."""
    made = Consortium(tmp_path / "c", helpers.plan_of("rounds=300", "privacy=none"))
    with closing(open_database(made.hub.database)) as store:
        Sites(store).put_in_force(made.roster)
    for _ in range(5):
        made.round()
    return made


@pytest.fixture
def console_of(consortium: Consortium, helpers: Any) -> Any:
    """A function: a client that is logged in to a hospital's console as its officer, or to the coordinator's."""
    clients: dict[str, Any] = {}

    def client(name: str) -> Any:
        if name not in clients:
            hub = name == COORDINATOR
            path = consortium.hub.path if hub else consortium.folders[name].path
            world = helpers.World(path, Face.COORDINATOR if hub else Face.SITE)
            world.make_accounts()
            clients[name] = helpers.new_client(world.app())
            helpers.log_in(clients[name], world, "coordinator" if hub else "officer")
        return clients[name]

    yield client
    for one in clients.values():
        one.close()


def said(answer: Any) -> str:
    assert answer.status_code == 200
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.text.split("<main", 1)[1])).split())


def page_of(name: str) -> str:
    return "/witnesses" if name == COORDINATOR else "/audit/witnesses"


def everybody_sees_it(consortium: Consortium, console_of: Callable[[str], Any]) -> None:
    """Two honest hospitals and the coordinator: page, overview, and evidence that proves itself."""
    accused = consortium.folders[LIAR].identity().public
    for name in (*HONEST, COORDINATOR):
        client = console_of(name)
        text = said(client.get(page_of(name)))
        assert FORKED in text and AGREES not in text, name
        assert "The ledger of east" not in text and "The ledger of north" not in text, "nobody honest is accused"
        digests = re.findall(rf'{page_of(name)}/alarms/([0-9a-f]{{64}})"', client.get(page_of(name)).text)
        assert digests
        for digest in digests:
            answer = client.get(f"{page_of(name)}/alarms/{digest}")
            assert answer.headers["content-disposition"] == f'attachment; filename="alarm-{digest[:12]}.json"'
            assert proven(parse_alarm(answer.content, "anybody"), accused)
        assert client.get(f"{page_of(name)}/alarms/{'0' * 64}").status_code == 404
    hub = console_of(COORDINATOR).get("/")
    waits = hub.text.split('id="waiting-part"', 1)[1]
    assert FORKED in unescape(waits.split("</div>", 1)[0]), "the first thing that waits"
    for name in HONEST:
        assert f"Two histories of the ledger of '{LIAR}' were shown" in said(console_of(name).get("/"))


def test_an_honest_run_shows_no_alarm_and_who_has_signed_what(consortium: Consortium, console_of: Any) -> None:
    for name in (*HONEST, LIAR, COORDINATOR):
        text = said(console_of(name).get(page_of(name)))
        assert AGREES in text and "Answered alarms" not in text
    for name in (*HONEST, LIAR):
        text, signed = said(console_of(name).get(page_of(name))), consortium.desks[name].ledger.state
        for witness, size in signed.countersigned.items():
            assert re.search(rf"{witness} {size} of {signed.size} .*? UTC \d+ Yes", text), (name, witness)
        for other in {*consortium.folders} - {name}:
            held = consortium.desks[name]._witness.held(other)
            assert re.search(rf"{other} {held.splitlines()[1].decode()} .*? UTC [0-9a-f]{{16}}", text)
    assert "ledger" not in said(console_of(COORDINATOR).get("/")).lower()


def test_the_coordinators_table_is_what_receipts_and_its_own_file_say(consortium: Consortium, console_of: Any) -> None:
    table, _ = CoordinatorQueries(consortium.hub).witnesses()
    receipts = consortium.recorder._receipts
    witness = CoordinatorWitness(consortium.hub.witness, consortium.coordinator)
    for origin in consortium.folders:
        for name in (*consortium.folders, COORDINATOR):
            named = [one for receipt in receipts for one in receipt.witnessed if one.site == origin]
            sizes = [one.size for one in named if name in one.witnesses]
            if name == COORDINATOR:
                sizes.append(int(witness.held(origin).splitlines()[1]))
            found = table.of(origin, name)
            assert (0 if found is None else found.size) == max(sizes, default=0), (origin, name)
    assert table.of("east", "north") is not None and not table.wide
    text = said(console_of(COORDINATOR).get("/witnesses"))
    assert "its own" in text and f"{table.of('east', 'north').size} entries" in text


def test_a_hospital_that_rewrites_its_past_is_shown_to_everybody(consortium: Consortium, console_of: Any) -> None:
    ledger = consortium.desks[LIAR].ledger
    number = [n for n, fact in enumerate(ledger.facts(), 1) if isinstance(fact, Countersign)][1]
    ledger.close()
    rewrite(consortium.folders[LIAR], number)
    consortium.desks[LIAR] = hostile(consortium.desk(LIAR))
    consortium.rounds_until(consortium.accuse, MOST)
    everybody_sees_it(consortium, console_of)


def test_a_coordinator_that_shows_two_histories_is_shown_to_everybody(consortium: Consortium, console_of: Any) -> None:
    consortium.split(LIAR, ["east"])
    consortium.rounds_until(consortium.accuse, MOST)
    everybody_sees_it(consortium, console_of)


def put(world: Any, kind: AlarmKind, first: str, second: str) -> Any:
    """An alarm on the ledger of south in the file of a hospital; its function answers it."""
    alarm = raise_alarm(kind, "south", first, second, AT, world.folder.identity())
    store = open_store(world.folder.database)
    Watched(store, "north").put("alarm", alarm.digest, alarm.canonical)
    store.close()
    return alarm


def answer(world: Any, alarm: Any) -> None:
    store = open_store(world.folder.database)
    Watched(store, "north").put("answer", alarm.digest, b"x")
    store.close()


@pytest.mark.parametrize(
    ("kind", "first", "level", "words"),
    [
        (AlarmKind.FORK, "a", "Now", "Two histories of the ledger of 'south' were shown"),
        (AlarmKind.ROLLBACK, "a", "Now", "The ledger of 'south' lost entries that others have seen"),
        (AlarmKind.SILENCE, "bulletin", "Soon", "'south' owes witnesses an answer on its ledger"),
    ],
)
def test_an_alarm_is_a_notice_with_its_page_until_it_is_answered(
    world: Any, client_as: Any, kind: AlarmKind, first: str, level: str, words: str
) -> None:
    client = client_as("officer")
    assert words not in said(client.get("/notices"))
    alarm = put(world, kind, first, "b")
    (item,) = [one for one in client.get("/notices").text.split("<li>") if words in unescape(one)]
    assert f"</svg>{level}" in item and 'href="/audit/witnesses"' in item and alarm.digest[:12] in item
    assert words in said(client.get("/"))
    assert AGREES not in said(client.get("/audit/witnesses"))
    answer(world, alarm)
    assert words not in said(client.get("/notices")) and words not in said(client.get("/"))
    text = said(client.get("/audit/witnesses"))
    assert AGREES in text and "Answered alarms" in text


def test_the_notices_are_told_by_mail_and_in_every_language() -> None:
    alarms = tuple((kind.value, "south", "ab" * 32) for kind in AlarmKind)
    seen = Seen("north", datetime(2026, 11, 29, tzinfo=UTC), answers=True, ledgers=alarms)
    found = notices(seen)
    assert [notice.level for notice in found] == [Level.NOW, Level.NOW, Level.SOON]
    mail = " ".join(in_text(seen, found).split())
    for notice in found:
        assert " ".join(notice.sentence.split()) in mail and "wardround site witnessed FOLDER" in mail
        for language in ("fr", "de", "vi"):
            use(language)
            assert said_again(notice.sentence) != notice.sentence and "south" in said_again(notice.sentence)
        use("en")


def test_of_a_silence_only_known_words_are_shown() -> None:
    one = Identity.generate("north")
    for first, wanted in (("proof", Missing.PROOF), ("loss 0.3", Missing.OTHER), ("", Missing.OTHER)):
        alarm = raise_alarm(AlarmKind.SILENCE, "south", first, AT, AT, one)
        assert alarm_line(alarm, AT, None, "north").missing is wanted


def test_an_alarm_appears_at_the_coordinator_while_somebody_looks(hub_copy: Any) -> None:
    queries = CoordinatorQueries(hub_copy.folder)
    alarm = raise_alarm(AlarmKind.FORK, "va", "a", "b", AT, Identity.generate("cleveland"))

    async def listen() -> list[int]:
        live, found = HubLive(queries.store, heartbeat=5, every=0.05), []
        async for event in live.events("one", lambda count: hub_words(queries.view()) | {"fresh": str(count)},
                                       lambda: True):  # fmt: skip
            if event.startswith(b"event: status"):
                found.append(int(json.loads(event.split(b"data: ")[1])["fresh"]))
                if len(found) > 1:
                    break
                witness = CoordinatorWitness(hub_copy.folder.witness, hub_copy.folder.identity())
                witness.put("alarm", alarm.digest, alarm.canonical)
        live.close()
        return found

    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(asyncio.run, asyncio.wait_for(listen(), 20)).result()
    assert found == [1, 2] and [one.origin for one in queries.view().alarms] == ["va"]


@pytest.mark.server("chromium")
@pytest.mark.parametrize(("scheme", "width"), [("light", 360), ("light", 1280), ("dark", 360), ("dark", 1280)])
def test_a_page_with_alarms_is_accessible_and_fits(
    world: Any, hub_copy: Any, visits: Any, axe: Any, screenshot: Any, scheme: str, width: int
) -> None:
    for kind, first in ((AlarmKind.FORK, "a"), (AlarmKind.ROLLBACK, "b"), (AlarmKind.SILENCE, "proof")):
        put(world, kind, first, "b")
        alarm = raise_alarm(kind, "va", first, "b", AT, hub_copy.folder.identity())
        witness = CoordinatorWitness(hub_copy.folder.witness, hub_copy.folder.identity())
        witness.put("alarm", alarm.digest, alarm.canonical)
    answer(world, put(world, AlarmKind.FORK, "c", "d"))
    for one, role, paths in ((world, "officer", ("/audit/witnesses",)), (hub_copy, "coordinator", ("/witnesses", "/"))):
        for path in paths:
            with visits.page(one, role, scheme=scheme, width=width) as window:
                window.goto(path)
                screenshot(window, f"alarm-{role}{path.replace('/', '-')}-{scheme}-{width}")
                assert axe(window) == [] and window.faults == []
                width_of = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
                assert window.evaluate(width_of) == 0
