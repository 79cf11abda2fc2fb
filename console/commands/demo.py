"""``wardround demo``: one coordinator and four hospitals as processes of this machine, on the heart disease data.

Everything is done with the commands that an operator, hospital IT, officers and a researcher would type, in their
order: TLS, node authentication, invitations, a signed roster, approvals, patient-level differential privacy, secure
sums. What was started is ended by its number, whatever happens.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Final

import pyarrow.csv
import yaml
from rich.console import Console

from wardround.client.site_result import SiteResult
from wardround.client.store.folder import SiteFolder
from wardround.console.reports.html import render_report
from wardround.console.table import result_table
from wardround.protocol.errors import Unavailable
from wardround.protocol.roster import Roster, standing
from wardround.server.folder import CoordinatorFolder
from wardround.server.store.registry import Registry
from wardround.server.store.studies import StudyFolder, find_study
from wardround.simulations.datasets import Dataset, load_dataset
from wardround.simulations.deployed import result_of

OFFICERS: Final = ("anna", "ben")
CAP: Final = 8.0
START_SECONDS: Final = 90.0
STUDY_SECONDS: Final = 600.0
COMMAND: Final = (sys.executable, "-m", "wardround.console.cli")


@dataclass(slots=True)
class Demo:
    """One run of the demo in a folder of its own."""

    path: Path
    dataset: Dataset
    overrides: tuple[str, ...]
    console: Console
    children: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    began: float = field(default_factory=perf_counter)

    @property
    def hub(self) -> Path:
        return self.path / "hub"

    @property
    def sites(self) -> list[str]:
        return [part.site for part in self.dataset.sites]

    def run(self) -> None:
        """From nothing to the table. Raises Unavailable, with the log to read, when a step fails."""
        try:
            self.prepare()
            self.begin()
            self._watch()
            self._finish()
        finally:
            self.end()

    def prepare(self) -> None:
        """A coordinator and hospitals that have joined it, with officers, roster, budgets, and running daemons."""
        self._say(f"making a coordinator, two officers and {len(self.sites)} hospitals")
        self._make()
        self._say("starting the coordinator; each hospital joins with its one-time code")
        self._start("coordinator", "coordinator", "start", str(self.hub))
        self._until(START_SECONDS, self._listening, "the coordinator does not listen", "hub/logs")
        self._each(self._join)
        self._say("the officers sign the roster; each hospital compares its fingerprint and pins it")
        self._pin(self._sign())
        self._say("starting the hospitals' daemons")
        for site in self.sites:
            self._start(site, "site", "start", str(self.path / site))
        self._each(self._open_domain)

    def begin(self) -> None:
        """A study, proposed, approved by every hospital's officer, and started."""
        self._say("a researcher proposes the study; it waits for every hospital's officers")
        self._run("study", "propose", "--coordinator", str(self.hub), *self.overrides)
        self._each(self._approve)
        self._run("study", "start", "heart_disease", "--coordinator", str(self.hub))

    def _make(self) -> None:
        self._run(
            "coordinator", "init", str(self.hub), "--name", "demo", "--host", "localhost",
            "--port", str(_free_port()), "--listen", "127.0.0.1",
        )  # fmt: skip
        for officer in OFFICERS:
            self._run("officer", "init", officer, "--folder", str(self.path))
        self._each(self._make_site)

    def _make_site(self, site: str) -> None:
        folder, part = self.path / site, next(part for part in self.dataset.tables if part.site == site)
        cards = [word for officer in OFFICERS for word in ("--officer", str(self.path / f"{officer}.pub"))]
        self._run("site", "init", str(folder), "--name", site, *cards)
        (folder / "data").mkdir(mode=0o700)
        pyarrow.csv.write_csv(part.table, folder / "data" / "patients.csv")
        (folder / "site.yaml").write_text("data:\n  - {connector: csv, path: data/patients.csv}\n")
        ids = part.table.column("patient").to_pylist()
        testing = folder / "data" / "test-patients.txt"
        assert part.test_rows is not None, "its test patients are published"
        testing.write_text("\n".join(ids[row] for row in part.test_rows) + "\n")
        self._run("site", "admit", str(folder), "--column", "patient", "--test-ids", str(testing))

    def _join(self, site: str) -> None:
        code = self._run("coordinator", "invite", str(self.hub), site).splitlines()[0]
        self._run("site", "join", str(self.path / site), code)

    def _sign(self) -> Path:
        """The roster of the four hospitals, signed by both officers and in force at the coordinator."""
        today = datetime.now(UTC).date()
        later = str(today + timedelta(days=365))
        keys = {officer: _card_key(self.path / f"{officer}.pub") for officer in OFFICERS}
        coordinator = CoordinatorFolder.open(self.hub).identity().public.key.hex()
        university = {"legal_entity": "Demo University", "controlling_authority": "Demo University"}
        parties = [
            {
                "site": site,
                "legal_entity": f"Hospital {site}",
                "controlling_authority": f"Hospital {site}",
                "key": SiteFolder.open(self.path / site).identity().public.key.hex(),
                "valid_from": str(today),
                "valid_until": later,
            }
            for site in self.sites
        ]
        roster = {
            "consortium": "Demo of four hospitals",
            "issued": str(today),
            "expires": later,
            "coordinator": university | {"key": coordinator},
            "parties": parties,
            "governance": {"m": 2, "keys": keys},
        }
        described, signed = self.path / "consortium.yaml", self.path / "epoch-1.json"
        described.write_text(yaml.safe_dump(roster, sort_keys=False))
        self._run("governance", "new", str(described), "--out", str(signed))
        for officer in OFFICERS:
            self._run("governance", "sign", str(signed), "--key", str(self.path / f"{officer}.key"), "--yes")
        self._run("coordinator", "roster", "propose", str(self.hub), str(signed))
        return signed

    def _pin(self, signed: Path) -> None:
        fingerprint = Roster.parse(signed.read_bytes()).fingerprint

        def pin(site: str) -> None:
            folder = str(self.path / site)
            self._run("site", "roster", "pin", folder, str(signed), "--fingerprint", fingerprint)

        self._each(pin)

    def _open_domain(self, site: str) -> None:
        folder = self.path / site
        self._until(START_SECONDS, lambda: (folder / "control.sock").exists(), "no daemon", f"{site}/logs/daemon.log")
        patients = str(len(next(part for part in self.dataset.tables if part.site == site).table))
        key = ("--officer-key", str(self.path / "anna.key"))
        self._run(
            "site", "domain", "open", str(folder), "training", "--patients", patients,
            "--epsilon-cap", str(CAP), *key, "--yes",
        )  # fmt: skip

    def _approve(self, site: str) -> None:
        folder = str(self.path / site)

        def proposed() -> bool:
            return "heart_disease" in self._run("site", "study", "list", folder)

        self._until(STUDY_SECONDS, proposed, f"the plan has not come to {site}", f"{site}-link/logs/link.log", 2.0)
        key = ("--officer-key", str(self.path / "anna.key"))
        self._run("site", "study", "approve", folder, "heart_disease", *key, "--yes")

    def _watch(self) -> None:
        watching = subprocess.Popen(
            [*COMMAND, "study", "watch", "heart_disease", "--coordinator", str(self.hub)], env=_environment()
        )
        self.children.append(watching)
        try:
            watching.wait(STUDY_SECONDS)
        except subprocess.TimeoutExpired:
            raise self._failed("the study has not ended", "hub/logs/studies.log") from None

    def _finish(self) -> None:
        registry = Registry(CoordinatorFolder.open(self.hub).database)
        plan = find_study(registry.plans(), "heart_disease")
        row = next(row for row in registry.studies() if row.plan.digest == plan.digest)
        if row.state != "finished":
            raise self._failed(f"the study is {row.state or 'not finished'}: {row.note}", "hub/logs/studies.log")
        self._say("each hospital writes its own report; this demo, which owns all four, lays them side by side")
        fetched = self._run(
            "study", "fetch", "heart_disease", "--coordinator", str(self.hub), "--out", str(self.path / "released")
        )
        with ThreadPoolExecutor(2) as pool:
            texts = list(pool.map(self._report, self.sites))
        roster = registry.roster()
        result = result_of(
            plan,
            [SiteResult.model_validate_json(text) for text in texts],
            StudyFolder.create(self.hub / "studies", plan).receipts(),
            data_hashes={},
            attribution=self.dataset.attribution,
            epsilon_cap=CAP,
            standing=None if roster is None else standing(roster),
            started=self.began,
        )
        page = self.path / "report.html"
        page.write_text(render_report(result, plan), encoding="utf-8")
        self.console.print(result_table(result))
        self.console.print(fetched.strip(), highlight=False, soft_wrap=True)
        self.console.print(f"report: {page}", highlight=False, soft_wrap=True)

    def _report(self, site: str) -> str:
        return self._run("site", "report", str(self.path / site), "heart_disease", "--json")

    def _each(self, work: Callable[[str], None]) -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(work, self.sites))

    def _listening(self) -> bool:
        about = CoordinatorFolder.open(self.hub).about
        with socket.socket() as probe:
            probe.settimeout(1.0)
            return probe.connect_ex(("127.0.0.1", about.public_port)) == 0

    def _until(self, seconds: float, true: Callable[[], bool], fault: str, where: str, every: float = 0.25) -> None:
        until = time.monotonic() + seconds
        while not true():
            if time.monotonic() > until:
                raise self._failed(fault, where)
            time.sleep(every)

    def _run(self, *words: str) -> str:
        """One command, to its end; what it printed."""
        done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, env=_environment())
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines()
            said = next(
                (line.partition("error: ")[2] for line in lines if "error: " in line), f"code {done.returncode}"
            )
            raise self._failed(f"'wardround {' '.join(words[:3])}' failed: {said}", "hub/logs, and the sites' logs")
        return done.stdout

    def _start(self, name: str, *words: str) -> None:
        (self.path / "logs").mkdir(exist_ok=True)
        with (self.path / "logs" / f"{name}.log").open("ab") as output:
            self.children.append(
                subprocess.Popen(
                    [*COMMAND, *words], stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=_environment()
                )
            )

    def end(self) -> None:
        """End what was started, the last one first, by number; then nothing of it is left."""
        for child in reversed(self.children):
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        for child in reversed(self.children):
            try:
                child.wait(30.0)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def _failed(self, fault: str, where: str) -> Unavailable:
        return Unavailable(fault, f"read {self.path / where}; everything that the demo started has been ended")

    def _say(self, text: str) -> None:
        self.console.print(f"[dim]{perf_counter() - self.began:5.0f} s[/dim]  {text}", highlight=False)


def demo_command(overrides: Sequence[str], out: Path) -> None:
    """Run the demo in a new folder below ``out`` and print the table."""
    path = out / f"{datetime.now():%Y%m%d-%H%M%S}-demo"
    path.mkdir(parents=True, mode=0o700)
    # As many steps as the study's 15 rounds of 5, in fewer rounds: the same epsilon, in less time on two cores.
    chosen = ("study=heart_disease", "rounds=5", "local.steps=15", "deadline_seconds=120", *overrides)
    Demo(path.absolute(), load_dataset("heart_disease", "complete"), chosen, Console()).run()


def _environment() -> dict[str, str]:
    """Officers' passphrases come from the environment here, as in any script; one core for each process."""
    return {**os.environ, "WARDROUND_PASSPHRASE": "a passphrase for the demo", "OMP_NUM_THREADS": "1"}


def _card_key(path: Path) -> str:
    from wardround.client.store.keys import read_officer_card

    return read_officer_card(path).key.hex()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
