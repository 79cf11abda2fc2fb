"""The health page: what the doctor finds, in words, with its cure, and never a line that is not ours."""

import os
import re
import threading
import time
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509 import load_pem_x509_certificate

from wardround.client.doctor import CHECKS, Finding, State, examined_from, run_cheap
from wardround.client.store.backup import MARK, backup
from wardround.console.web import i18n
from wardround.console.web.pages import health as page
from wardround.console.web.queries.health import EVENTS, Examination, Examiner, last_fault
from wardround.server.certificates import own_ca

LINE = "2026-11-29 08:00:00,123 {level} wardround.client.desk {text}"


def text_of(answer: Any) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def test_every_finding_of_the_doctor_stands_there_with_its_question_state_and_cure(world: Any, client_as: Any) -> None:
    (world.path / "keys" / "site.pem").chmod(0o644)
    found = run_cheap(examined_from(None, world.path))
    assert {one.state for one in found} >= {State.OK, State.FAILED}
    text = text_of(client_as("auditor").get("/health"))
    for one in found:
        if one.check != "disk":
            assert one.sentence in text and one.cure in text and CHECKS[one.check] in text
    shown = text.split("as the doctor sees it")[1]
    assert shown.index("Does not work") < shown.index("In order")
    assert "Others may read keys/site.pem. What to do: Run chmod 600" in text


def test_what_is_cheap_takes_no_lock_opens_no_data_and_starts_nothing(world: Any, monkeypatch: Any) -> None:
    for name in ("subprocess.run", "socket.create_connection", "socket.socket.bind"):
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("the doctor started or asked something"))
    monkeypatch.setattr("wardround.client.doctor.sources.check_data", lambda _: pytest.fail("it opened the data"))
    ledger = world.folder.ledger()
    ledger._store.execute("BEGIN IMMEDIATE")
    # Who asked for this lock would wait for it, and find the ledger busy.
    began = time.monotonic()
    found = run_cheap(examined_from(None, world.path))
    ledger._store.execute("ROLLBACK")
    ledger.close()
    assert [one.state for one in found if one.check == "ledger"] == [State.OK]
    assert time.monotonic() - began < 25, "the store waits 30 s for a lock"


def test_the_page_answers_when_the_doctor_hangs(world: Any, client_as: Any, monkeypatch: Any) -> None:
    client, ends = client_as("it"), threading.Event()
    machine = client.app.console.health.machine
    monkeypatch.setattr(machine, "_work", lambda: ends.wait(60) and [])
    monkeypatch.setattr("wardround.console.web.queries.health.PATIENCE", 0.1)
    monkeypatch.setattr(Examiner.examine, "__defaults__", (0.1,))
    began = time.monotonic()
    text = text_of(client.get("/health"))
    ends.set()
    assert "The doctor is still at work." in text and time.monotonic() - began < 50


def test_findings_are_kept_for_a_minute_and_made_anew_when_asked(world: Any, client_as: Any, helpers: Any) -> None:
    client = client_as("it")
    for _ in range(3):
        client.get("/health")
    first = client.app.console.health.machine.last
    (world.path / "keys" / "site.pem").chmod(0o644)
    assert "Others may read keys/site.pem" not in text_of(client.get("/health"))
    assert client.app.console.health.machine.last is first
    data = {"what": "machine", "csrf": helpers.csrf(client, "/health")}
    assert "Others may read keys/site.pem" in text_of(client.post("/health", data=data))


def test_an_examiner_runs_once_at_a_time_and_survives_a_defect() -> None:
    runs: list[int] = []
    ends = threading.Event()

    def work() -> list[Finding]:
        runs.append(1)
        ends.wait(60)
        return []

    examiner = Examiner(work)
    assert [examiner.examine(0.05) for _ in range(3)] == [None] * 3 and examiner.running
    ends.set()
    assert examiner.examine(60) is not None and len(runs) <= 2


def test_the_way_is_walked_only_when_somebody_asks_who_may(
    world: Any, client_as: Any, helpers: Any, monkeypatch: Any
) -> None:
    walks: list[int] = []
    client = client_as("it")
    way = client.app.console.health.way
    skew = Finding("clock", State.FAILED, "This machine's clock is wrong.", "Set it.")
    monkeypatch.setattr(way, "_work", lambda: walks.append(1) or [skew])
    assert "Nobody has asked for it" in text_of(client.get("/health")) and walks == []
    auditor = client_as("auditor")
    data = {"what": "way", "csrf": helpers.csrf(auditor, "/health")}
    assert auditor.post("/health", data=data).status_code == 403 and walks == []
    text = text_of(client.post("/health", data={"what": "way", "csrf": helpers.csrf(client, "/health")}))
    assert walks == [1] and text.count("This machine's clock is wrong.") == 2


def test_a_daemon_that_never_ran_and_one_that_stopped_are_told_apart(world: Any, new_world: Any, helpers: Any) -> None:
    with helpers.new_client(new_world.app()) as client:
        helpers.log_in(client, new_world, "it")
        assert "What runs" in text_of(client.get("/health"))
        new_world.control.stop()
        assert "The daemon has never run in this folder." in text_of(client.get("/health"))
        (new_world.path / "logs").mkdir()
        (new_world.path / "logs" / "daemon.log").write_text("")
        text = text_of(client.get("/health"))
        assert "never run" not in text and "The site's daemon does not answer." in text and "Does not answer" in text


def test_version_behaviour_start_and_refusals_are_the_daemons(world: Any, client_as: Any) -> None:
    world.daemon.change(version="9.8.7", behaviour="ab" * 32, started_at=1_796_000_000.0, refusals=12_345)
    text = text_of(client_as("officer").get("/health"))
    started = datetime.fromtimestamp(1_796_000_000.0, UTC)
    assert "9.8.7" in text and "ab" * 32 in text and "12,345" in text
    assert f"{started.day} {started:%b %Y}, {started:%H:%M} UTC" in text


def test_certificates_are_shown_with_their_days(world: Any, client_as: Any) -> None:
    pem, _ = own_ca("Hub of the north", datetime.now(UTC))
    link = world.path / "link"
    link.mkdir()
    (link / "ca.pem").write_bytes(pem)
    (world.path / "link.json").write_text(f'{{"link": "{link}"}}')
    end = load_pem_x509_certificate(pem).not_valid_after_utc
    days = (end - datetime.now(UTC)).days
    text = text_of(client_as("it").get("/health"))
    assert "Hub of the north" in text and f"{days:,}".replace(",", "") in text.replace(",", "")
    for left, tone in ((-1, "alert"), (29, "warning"), (30, "good")):
        assert page.ending(page.Expiry("CN=hub", left, end)).tone == tone


def test_the_consoles_own_certificate_is_shown_and_what_is_none_is_not(tmp_path: Path) -> None:
    pem, _ = own_ca("console of the north", datetime.now(UTC))
    (tmp_path / "console.pem").write_bytes(pem)
    (found,) = page.own_certificate(tmp_path / "console.pem")
    assert "console of the north" in found.name and found.days > 0
    (tmp_path / "none.pem").write_text("no")
    assert page.own_certificate(tmp_path / "none.pem") == page.own_certificate(None) == []


def test_a_backup_is_known_from_then_on_and_is_missed_after_a_week(world: Any, client_as: Any, tmp_path: Path) -> None:
    client = client_as("it")
    assert "none is known" in text_of(client.get("/health"))
    backup(world.folder, tmp_path / "a.backup", "four words and more")
    text = text_of(client.get("/health"))
    assert "none is known" not in text and "Make one and keep it elsewhere" not in text
    old = time.time() - 8 * 86_400
    os.utime(world.path / MARK, (old, old))
    assert "Make one and keep it elsewhere" in text_of(client.get("/health"))


def test_a_broken_ledger_hides_nothing_of_the_page(world: Any, client_as: Any, helpers: Any, monkeypatch: Any) -> None:
    from wardround.protocol.errors import UsageError

    client = client_as("it")

    def broken() -> str:
        raise UsageError("the ledger is broken at entry 5", "keep the file")

    monkeypatch.setattr(client.app.console.queries, "clock_set_at", broken)
    answer = client.get("/health")
    assert answer.status_code == 200 and "The ledger cannot be read: the ledger is broken at entry 5" in text_of(answer)
    assert "Free on the disk" in text_of(answer)


@pytest.mark.parametrize(
    ("text", "event", "values"),
    [
        ("message failed type=train error=ValueError", "message failed", (("type", "train"), ("error", "ValueError"))),
        ("refused plan=ab12 round=3 code=policy reason='Anna B. is 81 round=9 years'", "refused",
         (("plan", "ab12"), ("round", "3"), ("code", "policy"))),
        ("supernode ended code=1 after=3s next_start_in=8s", "supernode ended", (("code", "1"), ("after", "3s"))),
    ],
    ids=["error", "reason", "ended"],
)  # fmt: skip
def test_of_a_fault_only_the_event_and_values_of_ours_are_shown(
    tmp_path: Path, text: str, event: str, values: Any
) -> None:
    log = tmp_path / "daemon.log"
    log.write_text(LINE.format(level="INFO", text="answered") + "\n" + LINE.format(level="WARNING", text=text) + "\n")
    found = last_fault(log)
    assert found is not None and found.event == event
    assert found.values == values


@pytest.mark.parametrize(
    "line",
    [
        "Traceback (most recent call last):",
        "ValueError: patient Anna Beispiel, 81, is no number",
        "2026-11-29 08:00:00,123 ERROR flwr Anna Beispiel",
        LINE.format(level="ERROR", text="Anna Beispiel failed"),
        LINE.format(level="ERROR", text="refusedness of Anna"),
        LINE.format(level="INFO", text="message failed type=train"),
    ],
)
def test_a_line_that_is_not_ours_is_not_shown(tmp_path: Path, line: str) -> None:
    (tmp_path / "daemon.log").write_text(line + "\n")
    assert last_fault(tmp_path / "daemon.log") is None


def test_the_last_fault_stands_there_with_its_cure_and_without_its_reason(world: Any, client_as: Any) -> None:
    (world.path / "logs").mkdir(exist_ok=True)
    line = LINE.format(level="WARNING", text="refused plan=ab12 round=3 code=policy reason='<b>Anna</b> is 81'")
    (world.path / "logs" / "daemon.log").write_text(line + "\nsomething else\n")
    text = text_of(client_as("it").get("/health"))
    assert "A request of the coordinator was refused." in text and "The log has the reason." in text
    assert "ab12" in text and "Anna" not in text and str(world.path / "logs" / "daemon.log") in text


def test_every_event_that_the_daemon_logs_as_a_fault_has_words_and_a_cure() -> None:
    client = Path(page.__file__).resolve().parents[3] / "client"
    logged = {
        re.split(r" \w+=", said)[0]
        for file in client.rglob("*.py")
        for said in re.findall(r'log\.(?:warning|error)\(\s*"([^"]+)"', file.read_text(encoding="utf-8"))
    }
    assert logged == set(EVENTS) == set(page.FAULTS)


def test_every_sentence_of_a_finding_is_known_to_the_french_catalogue(world: Any) -> None:
    (world.path / "keys" / "site.pem").chmod(0o644)
    found = run_cheap(examined_from(None, world.path))
    i18n.use("fr")
    lines = page.lines(Examination(0.0, tuple(found)))
    i18n.use("en")
    assert len(lines) == len(found)
    english = {text for one in found for text in (one.sentence, one.cure, CHECKS[one.check]) if text}
    assert not {line.sentence for line in lines} & english and not {line.question for line in lines} & english


def test_a_set_clock_is_dated(world: Any, client_as: Any) -> None:
    console = client_as("it").app.console
    assert console.queries.clock_set_at() == ""
    with console.queries.ledger.read() as (books, _):
        books.clock_set_at = "2026-11-20T08:00:00Z"
    assert "Time set back by an officer 20 Nov 2026, 08:00 UTC" in text_of(client_as("it").get("/health"))
