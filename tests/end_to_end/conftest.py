"""A consortium of four hospitals' folders with the heart disease data, and a coordinator, all on this disk."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.csv
import pytest
import yaml
from _ports import free_port

from wardround.client.asking import domains_for
from wardround.client.desk import Desk, Switches
from wardround.client.governance import TEST_DOMAIN, TRAINING_DOMAIN, grant_for, open_domain
from wardround.client.link import LinkFolder, Proxy
from wardround.client.store.database import open_store
from wardround.client.store.folder import SiteFolder
from wardround.client.store.members import Members, Part
from wardround.client.store.roster import PinnedRoster
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.privacy.budget import delta_for
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import Waive, approve
from wardround.protocol.owners import COORDINATOR
from wardround.protocol.plan import PrivacyMode, StudyPlan
from wardround.protocol.roster import Roster
from wardround.server.carrier import Answered, Carrier, Silent
from wardround.server.conductor import Conductor, Wanted
from wardround.server.folder import CoordinatorFolder
from wardround.server.store.database import open_database
from wardround.server.store.registry import Registry
from wardround.server.store.sites import Sites
from wardround.server.store.studies import StudyFolder
from wardround.simulations.cohorts import declared_patients
from wardround.simulations.consortium import simulated_roster
from wardround.simulations.datasets import load_dataset
from wardround.simulations.desks import DeskCarrier
from wardround.simulations.made_up_events import Told
from wardround.simulations.synthetic.as_feeds import LiveSources
from wardround.simulations.synthetic.cohort import make_cohort

SITES = ("cleveland", "hungarian", "switzerland", "va")


class Crash(Exception):
    """The coordinator's process ends here."""


class Crashing(DeskCarrier):
    """Ends the coordinator in exchange number ``at``, after two sites have been heard."""

    at = 0

    def exchange(self, *arguments: Any, **options: Any) -> Iterator[Answered | Silent]:
        for heard, outcome in enumerate(super().exchange(*arguments, **options)):
            if self.exchanges == self.at and heard >= 2:
                raise Crash
            yield outcome


@dataclass(slots=True)
class Consortium:
    """Four folders, their officers, one coordinator's key, and the roster that all have pinned."""

    path: Path
    coordinator: Identity
    officers: list[Identity] = field(default_factory=list)
    folders: dict[str, SiteFolder] = field(default_factory=dict)
    roster: Roster | None = None

    def desk(self, site: str, switches: Switches | None = None, **options: Any) -> Desk:
        return Desk(self.folders[site], switches or Switches(), **options)

    def desks(self) -> dict[str, Desk]:
        return {site: self.desk(site) for site in self.folders}

    def conductor(self, plan: StudyPlan, carrier: Carrier | None = None) -> Conductor:
        """What runs the study of ``plan`` from its folder at the coordinator; by default over desks of this process."""
        return Conductor(
            StudyFolder.create(self.path / "hub", plan),
            self.coordinator,
            lambda: self.roster,
            carrier or DeskCarrier(plan.digest, self.desks()),
            lambda: Wanted.RUNNING,
            sleep=lambda seconds: None,
        )

    def run_dying(self, plan: StudyPlan) -> tuple[Conductor, int]:
        """Run ``plan`` to its end; the coordinator dies in one exchange after another. How often it did, too."""
        carrier = Crashing(plan.digest, self.desks())
        for died in range(100):
            carrier.at = carrier.exchanges + died + 1
            conductor = self.conductor(plan, carrier)
            try:
                conductor.run()
            except Crash:
                continue
            return conductor, died
        raise AssertionError("the study never ends")

    def charged(self, plan: StudyPlan) -> dict[str, set[int]]:
        """Rounds that the sites' ledgers were charged for, by domain."""
        found: dict[str, set[int]] = {}
        for folder in self.folders.values():
            ledger = folder.ledger()
            for domain in ledger.state.domains:
                found.setdefault(domain, set()).add(ledger.charged(plan.digest, domain))
            ledger.close()
        return found

    def approve_everywhere(self, plan: StudyPlan) -> None:
        for site in self.folders:
            self.approve(plan, site)

    def approve(self, plan: StudyPlan, site: str) -> None:
        """What the site's officers sign for a plan: budget, waiver where there is no privacy, grant."""
        ledger = self.folders[site].ledger()
        domains = domains_for(plan, TRAINING_DOMAIN)
        key = self.folders[site].identity().public.key.hex()

        def signed(fact: Any) -> Any:
            for officer in self.officers:
                fact = approve(fact, key, officer)
            return fact

        for domain in domains:
            if domain not in ledger.state.domains:
                ledger.record(signed(open_domain(domain, 12.0, delta_for(plan.declared_patients(site)))))
            if plan.privacy.mode is PrivacyMode.NONE:
                waiver = Waive(domain=domain, plan=plan.digest, reason="public data of 1988, no patient at risk")
                ledger.record(signed(waiver))
            attempts = 1 if plan.repeats_answers else plan.attempts
            ledger.record(signed(grant_for(plan, site, domain, attempts)))
        ledger.close()


def plan_of(*overrides: str) -> StudyPlan:
    """A plan for the heart disease data at the four hospitals."""
    configuration = parse_configuration(compose_configuration(["study=heart_disease", *overrides]))
    return make_plan(configuration, declared_patients(configuration), datetime.now(UTC).date())


def make_consortium(path: Path, coordinator: Identity | None = None, sites: tuple[str, ...] = SITES) -> Consortium:
    """Folders with data, patients divided as the published split has them, rosters pinned; no plan yet."""
    path.mkdir(parents=True, exist_ok=True)
    officers = [Identity.generate("anna"), Identity.generate("ben")]
    made = Consortium(path, coordinator or Identity.generate(COORDINATOR), officers)
    for part in load_dataset("heart_disease", "complete").tables:
        if part.site not in sites:
            continue
        folder = SiteFolder.create(path / part.site, part.site, [o.public for o in made.officers])
        made.folders[part.site] = folder
        (folder.path / "data").mkdir()
        pyarrow.csv.write_csv(part.table, folder.path / "data" / "patients.csv")
        (folder.path / "site.yaml").write_text("data:\n  - {connector: csv, path: data/patients.csv}\n")
        (folder.path / "policy.yaml").write_text("allow_unprotected: true\nallow_mask_only: true\n")
        ids, store = part.table.column("patient").to_pylist(), open_store(folder.database)
        members, test = Members(store, folder.patients_key()), set(part.test_rows.tolist())
        members.enrol([id_ for row, id_ in enumerate(ids) if row not in test], TRAINING_DOMAIN, Part.TRAIN)
        members.enrol([id_ for row, id_ in enumerate(ids) if row in test], TEST_DOMAIN, Part.TEST)
        store.close()
    _pin(made, [folder.identity() for folder in made.folders.values()])
    return made


def make_consortium_of_pictures(path: Path, patients: int, test: int) -> Consortium:
    """Folders with archives of volumes and masks; the last ``test`` of ``patients`` at each hospital test."""
    make_cohort(path / "made", format="nifti", kind="mri", sites=4, patients=patients, seed=4)
    officers = [Identity.generate("anna"), Identity.generate("ben")]
    made = Consortium(path, Identity.generate(COORDINATOR), officers)
    for source in sorted(each.parent for each in (path / "made").glob("*/site.yaml")):
        folder = SiteFolder.create(path / source.name, source.name, [o.public for o in officers])
        made.folders[source.name] = folder
        (source / "data").rename(folder.path / "data")
        (source / "site.yaml").rename(folder.path / "site.yaml")
        (folder.path / "policy.yaml").write_text("allow_unprotected: true\nallow_mask_only: true\n")
        ids = pyarrow.csv.read_csv(folder.path / "data" / "labels.csv").column("patient").to_pylist()
        store = open_store(folder.database)
        members = Members(store, folder.patients_key())
        members.enrol(ids[:-test], TRAINING_DOMAIN, Part.TRAIN)
        members.enrol(ids[-test:], TEST_DOMAIN, Part.TEST)
        store.close()
    _pin(made, [folder.identity() for folder in made.folders.values()])
    return made


def _pin(made: Consortium, identities: list[Identity]) -> None:
    made.roster = simulated_roster(identities, made.coordinator, (), datetime.now(UTC).date())
    for folder in made.folders.values():
        store = open_store(folder.database)
        PinnedRoster(store, folder.identity().public).pin(made.roster.canonical, made.roster.digest)
        store.close()


@dataclass(slots=True)
class LiveConsortium(Consortium):
    """Hospitals whose feeds are told of made-up events, for campaigns of indicators."""

    sources: dict[str, LiveSources] = field(default_factory=dict)

    def tell(self, until: datetime) -> None:
        """Everything that has arrived by ``until``, in the campaign's time."""
        for source in self.sources.values():
            source.tell(until)


def make_live_consortium(
    path: Path, coordinator: Identity, told: dict[str, list[Told]], engines: Collection[str], policy: str = ""
) -> LiveConsortium:
    """Folders with feeds and without a table; ``engines``: who has an HL7 v2 engine beside the view."""
    path.mkdir(parents=True, exist_ok=True)
    made = LiveConsortium(path, coordinator, [Identity.generate("anna"), Identity.generate("ben")])
    for site, events in told.items():
        folder = SiteFolder.create(path / site, site, [o.public for o in made.officers])
        source = LiveSources(folder.path, events, site in engines)
        kinds = sorted({each.event.kind for each in events})
        (folder.path / "opt-outs.txt").write_text("# nobody\n")
        settings = {"feeds": source.settings(kinds), "opt_outs": [{"kind": "list", "path": "opt-outs.txt"}]}
        (folder.path / "site.yaml").write_text(yaml.safe_dump(settings))
        (folder.path / "policy.yaml").write_text(policy)
        made.folders[site], made.sources[site] = folder, source
    identities = [folder.identity() for folder in made.folders.values()]
    if len(identities) >= 3:
        _pin(made, identities)
    return made


class Deployed:
    """The same consortium as processes: a supervisor, its SuperLink and studies, a daemon and SuperNode for each site.

    Everything that is started is ended by its number in ``close``.
    """

    def __init__(
        self,
        path: Path,
        sites: tuple[str, ...] = SITES,
        proxy: Callable[[int], Proxy] | None = None,
        make: Callable[[Path, Identity], Consortium] | None = None,
    ) -> None:
        path.mkdir(mode=0o700)
        # All on one machine, so no two may draw the same port.
        self.hub = CoordinatorFolder.create(
            path / "hub", "test", "localhost", free_port(), listen_host="127.0.0.1", runtime_port=free_port()
        )
        identity = self.hub.identity()
        self.consortium = make_consortium(path, identity, sites) if make is None else make(path, identity)
        store = open_database(self.hub.database)
        registered = Sites(store)
        if self.consortium.roster is not None:
            registered.put_in_force(self.consortium.roster)
        self.links = {}
        for site, folder in self.consortium.folders.items():
            link = LinkFolder.create(
                path / f"{site}-link",
                site,
                f"localhost:{self.hub.about.public_port}",
                self.hub.ca.read_bytes(),
                None if proxy is None else proxy(self.hub.about.public_port),
                runtime_port=free_port(),
            )
            (folder.path / "link.json").write_text(json.dumps({"link": str(link.path)}))
            key = folder.identity().public.key
            registered.join(site, key, link.node_key_line(), datetime.now(UTC))
            self.links[site] = link
        store.close()
        self.registry = Registry(self.hub.database)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """Start the coordinator ("hub") or a site's daemon."""
        words = ["coordinator", "start", str(self.hub.path)]
        if name != "hub":
            words = ["site", "start", str(self.consortium.folders[name].path)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with (self.hub.path.parent / f"{name}.log").open("ab") as output:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "wardround.console.cli", *words],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                env=environment,
            )

    def start_all(self) -> None:
        self.start("hub")
        for site in self.consortium.folders:
            self.start(site)

    def study(self, plan: StudyPlan) -> StudyFolder:
        """Approved everywhere, proposed and started; its folder at the coordinator."""
        for site in self.consortium.folders:
            self.consortium.approve(plan, site)
        self.registry.propose(plan)
        self.registry.want(plan.digest, "running")
        return StudyFolder.create(self.hub.studies, plan)

    def state(self, plan: StudyPlan) -> str:
        return next(row.state for row in self.registry.studies() if row.plan.digest == plan.digest)

    def until(self, seconds: float, true: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, f"{what}\n{self.logs()}"
            time.sleep(0.2)

    def finished(self, plan: StudyPlan, seconds: float) -> None:
        self.until(seconds, lambda: self.state(plan) != "", "the study did not end")
        assert self.state(plan) == "finished", self.logs()

    def pid(self, name: str) -> int | None:
        """The process of: a site's "daemon:SITE", "supernode:SITE", the "superlink" or the "serverapp"."""
        kind, _, site = name.partition(":")
        try:
            if kind == "daemon":
                return self.processes[site].pid
            if kind == "supernode":
                return int((self.links[site].path / "supernode.pid").read_text())
            if kind == "serverapp":
                folder = next(self.hub.studies.iterdir())
                return int(json.loads((folder / "status.json").read_bytes())["pid"])
            children = Path(f"/proc/{self.processes['hub'].pid}/task/{self.processes['hub'].pid}/children")
            for child in children.read_text().split():
                if "superlink_process" in Path(f"/proc/{child}/cmdline").read_text():
                    return int(child)
        except (OSError, ValueError, KeyError, StopIteration):
            return None
        return None

    def kill(self, name: str) -> None:
        """kill -9 one of our own processes."""
        self.until(60.0, lambda: self.pid(name) is not None, f"no process {name}")
        pid = self.pid(name)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        if name.startswith("daemon:"):
            self.processes[name.partition(":")[2]].wait()

    def logs(self) -> str:
        """The last lines of every log, for a test that fails."""
        base = self.hub.path.parent
        found = [*base.glob("*.log"), *base.glob("hub/logs/*.log"), *base.glob("*-link/logs/*.log")]
        return "\n".join(f"== {file.name}\n" + "\n".join(file.read_text().splitlines()[-12:]) for file in found)

    def close(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(40.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def deploy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Deployed]]:
    """Makes a ``Deployed`` in a folder of this test; ended with the test."""
    made: list[Deployed] = []

    def make(sites: tuple[str, ...] = SITES, **options: Any) -> Deployed:
        # A short name: the path of a socket below it may have 107 bytes.
        made.append(Deployed(tmp_path_factory.mktemp("d") / "d", sites, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return make_consortium(tmp_path)


@pytest.fixture
def make_pictures_of() -> Callable[..., Consortium]:
    return make_consortium_of_pictures


@pytest.fixture
def make_plan_of() -> Callable[..., StudyPlan]:
    return plan_of


@pytest.fixture(scope="session")
def make_live_of() -> Callable[..., LiveConsortium]:
    return make_live_consortium


@pytest.fixture
def make_consortium_of() -> Callable[..., Consortium]:
    return make_consortium
