"""A site killed at any point: it never counts less than it drew, never sends a second answer, and never hangs.

``crash/shim.c`` counts every write, truncation, sync, unlink and rename in the site's folder, and every point where
the site's work can be suspended; one run without a crash tells how many there are. A point is tried by SIGKILL, by
SIGKILL in the middle of a write, and as a power failure that takes back what was not synced. `make test` draws 30
anew each time; `make soak` tries all of them.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from wardround.client.store import verify as verify_module
from wardround.client.store.folder import SiteFolder
from wardround.client.store.ledger import stored_entries
from wardround.client.store.verify import verify_file
from wardround.protocol.canonical import LABEL_RELEASE, digest
from wardround.protocol.entry import parse_content
from wardround.protocol.errors import UsageError
from wardround.protocol.ledger import Release
from wardround.protocol.messages import Reply
from wardround.protocol.outgoing import parse_answer

HERE = Path(__file__).parent / "crash"
SOAK = os.environ.get("WARDROUND_SOAK") == "1"
POINTS = 30
MODES = {"kill": 0, "torn": 1, "power": 2}

pytestmark = pytest.mark.server("cc")


@dataclass(slots=True)
class Hospital:
    """The process that forks a child for each job."""

    process: "subprocess.Popen[str]"
    place: Path
    numbers: Iterator[int]

    def job(self, what: str, folder: Path, at: int = 0, mode: str = "kill", fault: str = "") -> tuple[str, Path]:
        """(how the child ended, the log that it left)."""
        log = self.place / f"{next(self.numbers)}.log"
        log.touch()
        job = {"what": what, "folder": str(folder), "log": str(log), "at": at, "mode": MODES[mode], "fault": fault}
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())["how"], log

    def points(self, what: str, folder: Path) -> int:
        """How many points a run without a crash passes."""
        how, log = self.job(what, folder)
        assert how == "code 0", log.with_suffix(".error").read_text()
        return int(log.with_suffix(".points").read_text())


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    place = tmp_path_factory.mktemp("crash")
    shim = place / "shim.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", shim, HERE / "shim.c", "-ldl"], check=True)
    environment = os.environ | {"LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, HERE / "hospital.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None and process.stdin is not None
    assert json.loads(process.stdout.readline()) == {"torch": False}
    yield Hospital(process, place, count())
    process.stdin.close()
    assert process.wait(30) == 0


@pytest.fixture(scope="module")
def template(hospital: Hospital) -> Path:
    """A site's folder with a granted plan, in which nothing has run."""
    folder = hospital.place / "template"
    assert hospital.job("create", folder)[0] == "code 0"
    return folder


@pytest.fixture(autouse=True)
def no_accountant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Epsilon is not what these tests ask, and half a second each."""
    monkeypatch.setattr("wardround.privacy.accounting.epsilon", lambda events, delta: 0.0)
    assert verify_module.verify_file is verify_file


def chosen(points: int, share: int) -> list[tuple[int, str]]:
    """Every point in every mode, or ``share`` of them drawn from the operating system's randomness."""
    every = [(at, mode) for at in range(1, points + 1) for mode in MODES]
    return every if SOAK else secrets.SystemRandom().sample(every, min(share, len(every)))


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def check(folder: Path, logs: list[Path]) -> None:
    """What must be true after any crashes and a last run to the end; ``logs`` in the order of the runs."""
    noted = [line for log in logs for line in lines(log)]
    assert "finished" in noted[-1], "the last run did not come to its end"
    found = verify_file(folder / "ledger.sqlite")
    drawn = sum("drawn" in line for line in noted)
    blocks = found.domains[0].blocks
    assert blocks >= drawn, f"patients were drawn {drawn} times, and {blocks} blocks are charged"
    # Nothing is lost either: a crash costs at most the block that it interrupted.
    assert blocks <= drawn + len(logs) - 1

    answers: dict[tuple[int, int], set[str]] = {}
    vectors: dict[int, set[bytes]] = {}
    for line in noted:
        if "bytes" in line and not line["refused"]:
            answers.setdefault((line["round"], line["attempt"]), set()).add(line["bytes"])
            reply = parse_answer(bytes.fromhex(line["bytes"]), "north")
            assert isinstance(reply, Reply)
            vectors.setdefault(line["round"], set()).add(reply.vector.tobytes())
    assert set(vectors) == {1, 2, 3}, "a round was never answered"
    assert all(len(told) == 1 for told in answers.values()), "one attempt got two answers"
    assert all(len(told) == 1 for told in vectors.values()), "two vectors left for one round"

    store = SiteFolder.open(folder).ledger()
    facts = [parse_content(entry.content).fact for entry in stored_entries(store._store, "north")]
    released = {fact.content for fact in facts if isinstance(fact, Release)}
    left = {digest(LABEL_RELEASE, bytes.fromhex(told)) for (told,) in answers.values()}
    assert left <= released, "something left that the ledger does not hold"
    store.close()


def test_a_site_that_is_killed_while_it_serves(hospital: Hospital, template: Path) -> None:
    whole = hospital.place / "whole"
    shutil.copytree(template, whole)
    points, passed = hospital.points("serve", whole), Counter[str]()
    assert points > 100
    for at, mode in chosen(points, POINTS - 8):
        folder = hospital.place / f"serve-{mode}-{at}"
        shutil.copytree(template, folder)
        how, log = hospital.job("serve", folder, at, mode)
        assert how != "stuck", (at, mode)
        passed[how] += 1
        logs = [log]
        # The restart may be killed too, somewhere; then the machine has peace.
        again = secrets.randbelow(points) + 1 if secrets.randbelow(2) else 0
        how, log = hospital.job("serve", folder, again, mode)
        logs.append(log)
        if how == "killed":
            how, log = hospital.job("serve", folder)
            logs.append(log)
        error = log.with_suffix(".error")
        assert how == "code 0", (at, again, mode, how, error.read_text() if error.exists() else "")
        try:
            check(folder, logs)
        except Exception as failed:
            raise AssertionError(f"killed at point {at} and {again} of {points} ({mode})") from failed
        shutil.rmtree(folder)
    print(f"\nserve: {sum(passed.values())} of {3 * points} points tried, {passed['killed']} killed, 0 failures")
    assert passed["killed"] > 0


@pytest.mark.parametrize(
    ("fault", "mode"),
    [
        ("commits are not synced", "power"),
        ("a crash gives the charge back", "kill"),
        ("an answer leaves before it is kept", "kill"),
    ],
)
def test_these_checks_notice_a_site_that_is_wrong(hospital: Hospital, template: Path, fault: str, mode: str) -> None:
    whole = hospital.place / f"whole {fault}"
    shutil.copytree(template, whole)
    points = hospital.points("serve", whole)
    order = secrets.SystemRandom().sample(range(1, points + 1), points)
    for tried, at in enumerate(order, start=1):
        folder = hospital.place / f"{fault}-{at}"
        shutil.copytree(template, folder)
        logs = [hospital.job("serve", folder, at, mode, fault)[1], hospital.job("serve", folder, fault=fault)[1]]
        try:
            check(folder, logs)
        except Exception as noticed:
            print(f"\n{fault}: noticed at the {tried}. point, {noticed}")
            return
    pytest.fail("no point showed it")


def test_a_site_that_is_killed_while_it_is_made(hospital: Hospital) -> None:
    """A folder without its last file is none, and says so; a whole one works. No key is ever half written into use."""
    points = hospital.points("create", hospital.place / "made")
    killed = Counter[str]()
    for at, mode in chosen(points, 8):
        folder = hospital.place / f"create-{mode}-{at}"
        how, log = hospital.job("create", folder, at, mode)
        assert how in ("killed", "code 0"), (at, mode, how)
        killed[how] += 1
        try:
            SiteFolder.open(folder)
        except UsageError as error:
            assert "is no site's folder" in error.message
        else:
            found = verify_file(folder / "ledger.sqlite")
            created = any("created" in line for line in lines(log))
            assert found.entries == 4 if created else 2 <= found.entries <= 4
            assert SiteFolder.open(folder).ledger().state.size == found.entries
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\ncreate: {sum(killed.values())} of {3 * points} points tried, {killed['killed']} killed, 0 failures")
    assert killed["killed"] > 0
