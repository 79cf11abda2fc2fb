"""The process that is killed, for the tests of this folder: see ``hospital.py`` and ``shim.c``."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from wardround.client.store import verify as verify_module
from wardround.client.store.verify import verify_file

HERE = Path(__file__).parent
SOAK = os.environ.get("WARDROUND_SOAK") == "1"
MODES = {"kill": 0, "torn": 1, "power": 2}


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

    def chosen(self, points: int, share: int) -> list[tuple[int, str]]:
        """Every point in every mode, or ``share`` of them drawn from the operating system's randomness."""
        every = [(at, mode) for at in range(1, points + 1) for mode in MODES]
        return every if SOAK else secrets.SystemRandom().sample(every, min(share, len(every)))

    def lines(self, *logs: Path) -> list[dict[str, Any]]:
        """What an observer noted, run after run."""
        return [json.loads(line) for log in logs for line in log.read_text().splitlines()]


@pytest.fixture(scope="session")
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
    assert process.wait(60) == 0


@pytest.fixture(autouse=True)
def no_accountant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Epsilon is not what these tests ask, and half a second each."""
    monkeypatch.setattr("wardround.privacy.accounting.epsilon", lambda events, delta: 0.0)
    assert verify_module.verify_file is verify_file
