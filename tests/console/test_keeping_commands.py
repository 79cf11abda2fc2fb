"""A site over the years, as IT types it: services, a backup and the way back, an upgrade, and the end."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from wardround.client.governance import open_domain
from wardround.client.link import LinkFolder
from wardround.client.store.database import open_store
from wardround.client.store.folder import SiteFolder
from wardround.client.store.keys import write_officer_key
from wardround.client.store.studies import Studies
from wardround.client.store.witness import Witness
from wardround.console.commands import coordinator_service
from wardround.console.commands.ledger import PASSPHRASE, recover_command, verify_command
from wardround.console.commands.site_keeping import (
    backup_command,
    install_service_command,
    leave_command,
    restore_command,
    uninstall_service_command,
    upgrade_command,
    witnessed_command,
)
from wardround.privacy.budget import Refused
from wardround.protocol.behaviour import behaviour
from wardround.protocol.errors import UsageError
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import ApprovedFact, Grant, Reserve, Start, approve
from wardround.protocol.plan import StudyPlan
from wardround.server.folder import CoordinatorFolder

EVENT = PoissonGaussian(noise_multiplier=2.0, sampling_probability=0.25, steps=5, declared_patients=200)
WORDS = "a long enough passphrase"
ANNA, BEN = Identity.generate("anna"), Identity.generate("ben")


@pytest.fixture
def north(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SiteFolder:
    """A site that has joined, with an open domain; its officers' keys beside it."""
    monkeypatch.setenv(PASSPHRASE, WORDS)
    monkeypatch.chdir(tmp_path)
    folder = SiteFolder.create(tmp_path / "north", "north", [ANNA.public, BEN.public])
    LinkFolder.create(tmp_path / "north-link", "north", "hub.example.org:443", b"a CA")
    (folder.path / "link.json").write_text('{"link": "%s"}' % (tmp_path / "north-link"))
    for officer in (ANNA, BEN):
        write_officer_key(tmp_path / f"{officer.site}.key", officer, WORDS)
    sign(folder, open_domain("training", 8.0, 1e-4))
    return folder


def sign(folder: SiteFolder, fact: ApprovedFact) -> None:
    ledger = folder.ledger()
    ledger.record(approve(fact, folder.identity().public.key.hex(), ANNA))
    ledger.close()


def round_of(folder: SiteFolder, number: int) -> Refused | None:
    """Charge and start one round of the plan 'ab..'; the refusal, if it is refused."""
    with closing(folder.ledger()) as ledger:
        fact = Reserve(domain="training", block=f"b{number}", plan="ab" * 32, round_number=number, event=EVENT)
        refused = ledger.reserve(fact)
        if refused is None:
            ledger.record(Start(block=f"b{number}"))
        return refused


def witness(place: Path, name: str, of: SiteFolder, since: int = 0) -> SiteFolder:
    """Another hospital that has just signed the head of ``of``'s ledger."""
    folder = SiteFolder.create(place / name, name, [Identity.generate("eve").public])
    with closing(of.ledger()) as ledger, closing(open_store(folder.database)) as store:
        note, proof = ledger.offer(since)
        Witness(store, folder.identity()).cosign(note, proof, of.identity().public)
    return folder


def test_a_lost_disk_is_overcome_by_backup_witness_and_two_officers(
    north: SiteFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The steps of docs/restore.md, in its order."""
    sign(north, Grant(domain="training", plan="ab" * 32, event=EVENT, blocks=5))
    assert round_of(north, 1) is None
    backup_command(north.path, tmp_path / "north.backup")
    assert round_of(north, 2) is None
    with closing(north.ledger()) as ledger:
        size, charged = ledger.tree().size, ledger.charged("ab" * 32)
    south = witness(tmp_path, "south", north)
    shutil.rmtree(north.path)

    restore_command(tmp_path / "north.backup", north.path)
    said = " ".join(capsys.readouterr().out.split())
    assert "older copy of itself" in said and "wardround ledger recover" in said
    witnessed_command(south.path, "north")
    head = tmp_path / "head.txt"
    head.write_text(capsys.readouterr().out)
    with pytest.raises(UsageError, match="others have seen"):
        verify_command(north.path / "ledger.sqlite", None, [head], False)

    keys = [tmp_path / "anna.key", tmp_path / "ben.key"]
    with pytest.raises(UsageError, match="2 officers"):
        recover_command(north.path, head, "south", "the disk was replaced", keys[:1])
    refused = round_of(north, 3)
    assert refused is not None and f"others have seen {size} entries" in refused.reason
    recover_command(north.path, head, "south", "the disk was replaced", keys)
    with closing(north.ledger()) as ledger:
        assert ledger.missing_head() is None
        assert ledger.charged("ab" * 32) >= charged, "what ran after the backup is charged"
    assert round_of(north, 3) is None


def test_each_head_that_is_missing_is_recovered(
    north: SiteFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sign(north, Grant(domain="training", plan="ab" * 32, event=EVENT, blocks=50))
    backup_command(north.path, tmp_path / "north.backup")
    heads = []
    for number, name in ((1, "south"), (2, "west")):
        assert round_of(north, number) is None
        other = witness(tmp_path, name, north)
        capsys.readouterr()
        witnessed_command(other.path, "north")
        heads.append(tmp_path / f"{name}.txt")
        heads[-1].write_text(capsys.readouterr().out)
    shutil.rmtree(north.path)
    restore_command(tmp_path / "north.backup", north.path)
    keys = [tmp_path / "anna.key", tmp_path / "ben.key"]
    for head in reversed(heads):
        recover_command(north.path, head, head.stem, "the disk was replaced", keys)
    assert round_of(north, 3) is None


def test_a_site_that_never_signed_says_so(north: SiteFolder) -> None:
    with pytest.raises(UsageError, match="signed no head"):
        witnessed_command(north.path, "south")


def test_the_units_are_shown_written_and_removed(
    north: SiteFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exports = tmp_path / "exports"
    exports.mkdir()
    (north.path / "site.yaml").write_text(f"data: [{{path: {exports}/patients.csv}}, {{path: data/more.csv}}]\n")
    root = tmp_path / "root"
    install_service_command(Path("north"), None, root, True)
    assert not root.exists()
    shown = capsys.readouterr()
    assert f"InaccessiblePaths={north.path} {exports}\n" in shown.out
    assert "would not start" in shown.err, "the tests' folder is one that a service does not see"
    install_service_command(Path("north"), None, root, False)
    assert len(list((root / "etc/systemd/system").iterdir())) == 2
    uninstall_service_command(Path("north"), root, False)
    assert not list((root / "etc/systemd/system").iterdir())
    assert north.identity().site == "north"


def test_the_rights_that_are_printed_let_the_daemon_read_what_it_shares_with_the_link_and_nothing_else(
    north: SiteFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The chmod of the printed lines is run; the group is the daemon's way in."""
    install_service_command(north.path, None, tmp_path / "root", False)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if "chown -R wardround-link" in line]
    (line,) = lines
    subprocess.run(line.partition(" && ")[2], shell=True, check=True)
    link = tmp_path / "north-link"
    assert link.stat().st_mode & 0o777 == 0o750
    readable = sorted(path.name for path in link.iterdir() if path.is_file() and path.stat().st_mode & 0o040)
    assert readable == ["ca.pem", "link.json", "superexec.secret"]
    assert LinkFolder.open(link).secret()


def test_a_coordinators_unit_comes_and_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub = CoordinatorFolder.create(tmp_path / "hub", "Heart consortium", "hub.example.org", 443)
    root = tmp_path / "root"
    coordinator_service.install_service_command(hub.path, root, True)
    assert "ExecStart=" in capsys.readouterr().out and not root.exists()
    coordinator_service.install_service_command(hub.path, root, False)
    assert [path.name for path in (root / "etc/systemd/system").iterdir()] == ["wardround-coordinator.service"]
    coordinator_service.uninstall_service_command(hub.path, root)
    assert not list((root / "etc/systemd/system").iterdir())


@pytest.fixture
def running() -> Iterator[int]:
    """The number of a process that could be a daemon, by its command line."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "wardround"])
    # Between its start and the kernel's note of its arguments a process has none.
    while b"wardround" not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
        time.sleep(0.01)
    yield process.pid
    process.kill()
    process.wait()


def test_services_are_not_removed_while_they_run(north: SiteFolder, tmp_path: Path, running: int) -> None:
    install_service_command(north.path, None, tmp_path / "root", False)
    (north.path / "daemon.pid").write_text(str(running))
    with pytest.raises(UsageError) as refused:
        uninstall_service_command(north.path, tmp_path / "root", False)
    assert refused.value.hint.startswith("run: systemctl disable --now wardround-site-north.service")
    assert len(list((tmp_path / "root/etc/systemd/system").iterdir())) == 2


def test_the_end_of_a_site_leaves_the_hospitals_data_and_a_ledger_that_anybody_can_check(
    north: SiteFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (north.path / "data").mkdir()
    (north.path / "data" / "patients.csv").write_text("id\np-4711\n")
    root, out = tmp_path / "root", tmp_path / "out"
    install_service_command(north.path, None, root, False)
    with pytest.raises(UsageError, match="has not left yet"):
        uninstall_service_command(north.path, root, True)
    with pytest.raises(UsageError, match="not the site's name"):
        leave_command(north.path, out, "south")
    assert north.identity().site == "north" and not out.exists()
    leave_command(north.path, out, "north")
    said = capsys.readouterr().out
    assert "roster revoke HUB north" in said and "Flash disks" in said and "destroy the backups" in said
    line = next(line.strip() for line in said.splitlines() if "wardround ledger verify" in line)
    _, _, _, file, _, against = line.split()
    verify_command(Path(file), None, [Path(against)], False)
    uninstall_service_command(north.path, root, True)
    assert [path.name for path in north.path.iterdir()] == ["data"]
    assert (north.path / "data" / "patients.csv").exists()
    assert str(north.path / "data") in capsys.readouterr().out


def approved(folder: SiteFolder, plan: StudyPlan, blocks: int = 5, version: int = 1) -> None:
    with closing(open_store(folder.database)) as store:
        Studies(store).add(plan.canonical)
    sign(folder, Grant(domain="training", plan=plan.digest, event=EVENT, blocks=blocks, version=version))


def test_an_upgrade_says_which_approved_plans_go_on(
    north: SiteFolder, planned: Callable[..., StudyPlan], capsys: pytest.CaptureFixture[str]
) -> None:
    approved(north, planned(study="same"))
    approved(north, planned(study="other", behaviour="0" * 64))
    approved(north, planned(study="revoked"))
    sign(north, Grant(domain="training", plan=planned(study="revoked").digest, event=EVENT, blocks=0, version=2))
    with closing(open_store(north.database)) as store:
        Studies(store).add(planned(study="merely-proposed").canonical)
    before = north.database.read_bytes()
    upgrade_command(north.path)
    said = capsys.readouterr().out
    assert behaviour() in said and "nothing is pending" in said
    assert re.search(r"^same \(\w{12}\): goes on$", said, re.M)
    assert re.search(r"^other \(\w{12}\): needs behaviour 0{12}: keep the version", said, re.M)
    assert "revoked" not in said and "merely-proposed" not in said
    assert north.database.read_bytes() == before, "a check changes nothing"


def test_a_plan_that_this_version_cannot_read_is_named_by_its_digest(
    north: SiteFolder, planned: Callable[..., StudyPlan], capsys: pytest.CaptureFixture[str]
) -> None:
    plan = planned()
    approved(north, plan)
    with closing(open_store(north.database)) as store:
        store.execute("UPDATE studies SET content = ?", (plan.canonical.replace(b'"title"', b'"tutle"'),))
    upgrade_command(north.path)
    assert f"{plan.digest[:12]}: this version cannot read the plan" in capsys.readouterr().out


def test_a_database_of_another_schema_is_announced_and_left_as_it_is(
    north: SiteFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    for version, said in (("0001", "brings it to"), ("9999", "would not start")):
        with closing(sqlite3.connect(north.database, isolation_level=None)) as store:
            store.execute("UPDATE alembic_version SET version_num = ?", (version,))
        upgrade_command(north.path)
        assert said in capsys.readouterr().out
        with closing(sqlite3.connect(north.database)) as store:
            assert store.execute("SELECT version_num FROM alembic_version").fetchone() == (version,)


def test_a_key_in_the_environment_is_mentioned_where_it_matters(
    north: SiteFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WARDROUND_REPLIES_KEY", "00" * 32)
    backup_command(north.path, tmp_path / "b")
    assert "WARDROUND_REPLIES_KEY is not in it" in capsys.readouterr().out
    leave_command(north.path, tmp_path / "out", "north")
    assert "WARDROUND_REPLIES_KEY is not Wardround's to destroy" in capsys.readouterr().out
    assert os.environ["WARDROUND_REPLIES_KEY"] == "00" * 32
