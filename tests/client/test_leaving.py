"""Who leaves keeps a ledger that anybody can check, and no key; who is interrupted goes on where it was."""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from wardround.client import leaving
from wardround.client.leaving import LEFT, destroy, has_left, leave, purge
from wardround.client.store.database import open_store
from wardround.client.store.folder import SiteFolder
from wardround.client.store.verify import verify_file
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import Refuse
from wardround.protocol.witness import checkpoint_of

ANSWER = b"an answer that was sent once " * 50


@pytest.fixture
def site() -> Iterator[SiteFolder]:
    """In a folder of a short name: a socket's path has 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="wr-") as place:
        folder = SiteFolder.create(Path(place) / "north", "north", [Identity.generate("anna").public])
        with closing(open_store(folder.database)) as store:
            store.execute("INSERT INTO replies VALUES ('north', 'p', 1, '00', 1, x'00', ?)", (ANSWER,))
            store.execute("INSERT INTO memories VALUES ('north', 'p', 1, 1, '00', x'00', ?)", (ANSWER,))
        ledger = folder.ledger()
        ledger.record(Refuse(plan="p", round_number=1, reason="for the test"))
        ledger.close()
        (folder.path / "studies" / "s").mkdir(parents=True)
        (folder.path / "studies" / "s" / "model.safetensors").write_bytes(b"model")
        (folder.path / "data").mkdir()
        (folder.path / "data" / "patients.csv").write_text("id\np-4711\n")
        yield folder


@pytest.fixture
def link(site: SiteFolder) -> Path:
    place = site.path.with_name("north-link")
    place.mkdir()
    for name in ("node_key", "superexec.secret", "proxy.password", "link.json"):
        (place / name).write_text("secret")
    return place


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that could be ours, by its command line."""
    running = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "wardround site start"])
    # Between its start and the kernel's note of its arguments a process has none.
    while b"wardround" not in Path(f"/proc/{running.pid}/cmdline").read_bytes():
        time.sleep(0.01)
    yield running
    running.kill()
    running.wait()


def keys(folder: SiteFolder) -> list[str]:
    return sorted(path.name for path in (folder.path / "keys").iterdir())


def test_who_leaves_keeps_a_ledger_that_verifies_and_no_key(site: SiteFolder, link: Path) -> None:
    out, key = site.path.with_name("out"), site.identity().public.key
    leave(site, out, link)
    note = checkpoint_of((out / "checkpoint.txt").read_bytes(), "north")
    found = verify_file(out / "ledger.sqlite", key=key, seen=[note])
    assert (found.entries, found.head) == (3, note.head), "opened, officers, refused"
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint.txt", "ledger.sqlite"]
    assert (out / "ledger.sqlite").stat().st_mode & 0o777 == 0o600
    assert keys(site) == [] and has_left(site)
    assert not link.exists() and not (site.path / "studies").exists()
    assert (site.path / "data" / "patients.csv").exists()
    for file in (out / "ledger.sqlite", *site.path.glob("ledger.sqlite*")):
        assert ANSWER[:29] not in file.read_bytes(), f"{file.name} still holds a stored answer"


def test_the_answer_was_there_before(site: SiteFolder) -> None:
    """The check above would see it."""
    assert any(ANSWER[:29] in file.read_bytes() for file in site.path.glob("ledger.sqlite*"))


def test_nobody_leaves_while_the_daemon_or_the_supernode_runs(
    site: SiteFolder, link: Path, process: subprocess.Popen[bytes]
) -> None:
    before = keys(site)
    for place, name in ((site.path / "daemon.pid", "the daemon"), (link / "supernode.pid", "the SuperNode")):
        place.write_text(str(process.pid))
        with pytest.raises(UsageError, match=f"{name} still runs"):
            leave(site, site.path.with_name("out"), link)
        place.unlink()
    (site.path / "site.yaml").write_text(f"socket: {site.path.with_name('s')}\n")
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(str(site.path.with_name("s")))
        listening.listen()
        with pytest.raises(UsageError, match="the daemon still runs"):
            leave(site, site.path.with_name("out"), link)
    assert keys(site) == before and not site.path.with_name("out").exists()


def test_what_a_killed_daemon_left_behind_keeps_nobody(site: SiteFolder) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as gone:
        gone.bind(str(site.path / "control.sock"))
    (site.path / "daemon.pid").write_text(str(os.getpid()))
    leave(site, site.path.with_name("out"), None)
    assert has_left(site)


def test_an_export_that_does_not_verify_destroys_nothing(site: SiteFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy loses its last entry on the way."""
    forget = leaving._forget_answers

    def lossy(database: Path) -> None:
        forget(database)
        with closing(sqlite3.connect(database, isolation_level=None)) as store:
            store.execute("DROP TRIGGER entries_are_never_removed")
            store.execute("DELETE FROM entries WHERE number = 3")

    monkeypatch.setattr(leaving, "_forget_answers", lossy)
    before = keys(site)
    with pytest.raises(UsageError):
        leave(site, site.path.with_name("out"), None)
    assert keys(site) == before
    assert not list(site.path.parent.glob("out*"))


def test_a_full_disk_destroys_nothing(site: SiteFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    before = keys(site)
    with pytest.raises(Unavailable, match="No space left"):
        leave(site, site.path.with_name("out"), None)
    assert keys(site) == before
    assert not list(site.path.parent.glob("out*"))


@pytest.mark.parametrize("survivors", [0, 1, 2, 3])
def test_who_is_killed_while_keys_are_destroyed_goes_on_with_the_same_command(
    site: SiteFolder, link: Path, monkeypatch: pytest.MonkeyPatch, survivors: int
) -> None:
    class Killed(BaseException):
        pass

    done: list[Path] = []

    def dying(path: Path) -> bool:
        if len(done) == survivors:
            raise Killed
        done.append(path)
        return destroy(path)

    out = site.path.with_name("out")
    with monkeypatch.context() as patched:
        patched.setattr(leaving, "destroy", dying)
        with pytest.raises(Killed):
            leave(site, out, link)
    assert len(keys(site)) == 3 - survivors, "three keys, the site's own first"
    assert ("site.pem" in keys(site)) == (survivors == 0)
    exported = (out / "ledger.sqlite").read_bytes()
    with pytest.raises(UsageError, match="was exported to"):
        leave(site, site.path.with_name("elsewhere"), link)
    leave(site, out, link)
    assert has_left(site) and not link.exists()
    assert (out / "ledger.sqlite").read_bytes() == exported, "the export is made once"


def test_a_key_that_cannot_be_destroyed_is_named_and_the_others_are_gone(
    site: SiteFolder, link: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stubborn(path: Path) -> bool:
        return path.name != "patients.key" and destroy(path)

    with monkeypatch.context() as patched:
        patched.setattr(leaving, "destroy", stubborn)
        with pytest.raises(Unavailable, match=r"patients\.key' could not be destroyed"):
            leave(site, site.path.with_name("out"), link)
    assert keys(site) == ["patients.key"] and not has_left(site)
    leave(site, site.path.with_name("out"), link)
    assert has_left(site)


def test_a_key_is_overwritten_before_it_is_removed(tmp_path: Path) -> None:
    """A second name of the same file shows what the first one held at the end."""
    key, other = tmp_path / "key", tmp_path / "other"
    key.write_bytes(b"k" * 64)
    key.chmod(0o400)
    os.link(key, other)
    assert destroy(key)
    assert not key.exists()
    assert len(other.read_bytes()) == 64 and b"k" * 4 not in other.read_bytes()
    assert destroy(key), "what is gone is no fault"
    assert not destroy(tmp_path), "a folder is no key"


def test_nobody_leaves_into_a_folder_that_exists(site: SiteFolder) -> None:
    before = keys(site)
    site.path.with_name("out").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        leave(site, site.path.with_name("out"), None)
    assert keys(site) == before


def test_a_purge_takes_what_is_ours_and_leaves_the_hospitals_data(site: SiteFolder) -> None:
    with pytest.raises(UsageError, match="has not left yet"):
        purge(site)
    leave(site, site.path.with_name("out"), None)
    (site.path / "ledger.sqlite.before-0002").touch()
    (site.path / "logs").mkdir()
    (site.path / "logs" / "daemon.log").touch()
    assert purge(site) == [site.path / "data"]
    assert [path.name for path in site.path.iterdir()] == ["data"]
    assert (site.path / "data" / "patients.csv").read_text() == "id\np-4711\n"


def test_a_purge_of_a_folder_with_nothing_else_removes_it(site: SiteFolder) -> None:
    shutil.rmtree(site.path / "data")
    leave(site, site.path.with_name("out"), None)
    assert purge(site) == []
    assert not site.path.exists()


def test_keys_that_are_gone_without_an_export_are_not_a_site_that_left(site: SiteFolder) -> None:
    shutil.rmtree(site.path / "keys")
    with pytest.raises(UsageError, match="has not left yet"):
        purge(site)
    (site.path / LEFT).write_text("{}")
    with pytest.raises(UsageError, match="cannot be read"):
        leave(site, site.path.with_name("out"), None)
