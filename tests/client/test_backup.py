"""Backup and restore: nothing is lost, nothing opens without the passphrase, nothing half-made is left."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from wardround.client.store import backup as module
from wardround.client.store.backup import backup, restore
from wardround.client.store.database import open_store, schema_version
from wardround.client.store.folder import SiteFolder
from wardround.client.store.migrations import HEAD, statements
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import Refuse

PASSPHRASE = "correct horse battery staple"
HEADER = len(module.MAGIC) + 16 + 7
SEALED = module.PIECE + 16


@pytest.fixture
def site(tmp_path: Path) -> SiteFolder:
    folder = SiteFolder.create(tmp_path / "north", "north", [Identity.generate("anna").public])
    (folder.path / "site.yaml").write_text("test_share: 0.2\n")
    (folder.path / "data").mkdir()
    (folder.path / "data" / "patients.csv").write_text("id\np-4711\n")
    ledger = folder.ledger()
    ledger.record(Refuse(plan="p", round_number=1, reason="for the test"))
    ledger.close()
    return folder


@pytest.fixture
def large(site: SiteFolder) -> SiteFolder:
    """With a stored answer of 3.5 pieces."""
    with closing(open_store(site.database)) as store:
        row = ("north", "p", 1, "00", 1, b"n", os.urandom(7 * module.PIECE // 2))
        store.execute("INSERT INTO replies VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    return site


def answers(folder: SiteFolder) -> list[Any]:
    with closing(sqlite3.connect(folder.database)) as store:
        return store.execute("SELECT * FROM replies").fetchall()


def test_a_backup_made_beside_a_writer_comes_back_whole(site: SiteFolder, tmp_path: Path) -> None:
    with closing(sqlite3.connect(site.database, isolation_level=None)) as writing:
        writing.execute("BEGIN IMMEDIATE")
        writing.execute("INSERT INTO witnessed VALUES ('south', x'00')")
        backup(site, tmp_path / "b", PASSPHRASE)
        writing.execute("ROLLBACK")
    back = restore(tmp_path / "b", tmp_path / "again", PASSPHRASE)
    assert back.site == "north"
    assert back.identity().public == site.identity().public
    assert back.patients_key() == site.patients_key()
    assert back.ledger().tree().head(3) == site.ledger().tree().head(3)
    assert (back.path / "site.yaml").read_text() == "test_share: 0.2\n"
    names = sorted(path.name for path in back.path.iterdir() if "sqlite" not in path.name)
    assert names == ["keys", "site.json", "site.yaml"], "patients' data are not in a backup"
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o600
    assert back.path.stat().st_mode & 0o777 == 0o700


def test_a_database_of_many_pieces_comes_back_byte_for_byte(large: SiteFolder, tmp_path: Path) -> None:
    backup(large, tmp_path / "b", PASSPHRASE)
    assert (tmp_path / "b").stat().st_size > HEADER + 3 * SEALED
    assert answers(restore(tmp_path / "b", tmp_path / "again", PASSPHRASE)) == answers(large)


def pieces(data: bytes) -> list[bytes]:
    return [data[at : at + SEALED] for at in range(HEADER, len(data), SEALED)]


def turned(data: bytes) -> bytes:
    """With its last bit the other way."""
    return data[:-1] + bytes([data[-1] ^ 1])


DAMAGE: dict[str, Callable[[bytes, list[bytes]], bytes]] = {
    "the last piece is cut off": lambda head, parts: head + b"".join(parts[:-1]),
    "the last byte is cut off": lambda head, parts: head + b"".join(parts)[:-1],
    "two pieces changed places": lambda head, parts: head + b"".join([parts[1], parts[0], *parts[2:]]),
    "a piece is doubled": lambda head, parts: head + b"".join([parts[0], *parts]),
    "a piece is missing": lambda head, parts: head + b"".join([*parts[:2], *parts[3:]]),
    "a byte is added": lambda head, parts: head + b"".join(parts) + b"\x00",
    "the end comes twice": lambda head, parts: head + b"".join(parts) + parts[-1],
    "only the head is there": lambda head, parts: head,
    "half the head is there": lambda head, parts: head[:25],
    "another kind of file": lambda head, parts: b"x" + head[1:] + b"".join(parts),
    "another nonce": lambda head, parts: turned(head) + b"".join(parts),
    "the last bit is turned": lambda head, parts: head + turned(b"".join(parts)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_changed_backup_opens_with_no_passphrase_and_leaves_nothing(
    large: SiteFolder, tmp_path: Path, damage: str
) -> None:
    backup(large, tmp_path / "b", PASSPHRASE)
    data = (tmp_path / "b").read_bytes()
    assert data == data[:HEADER] + b"".join(pieces(data)), "the test splits the file as it was made"
    (tmp_path / "c").write_bytes(DAMAGE[damage](data[:HEADER], pieces(data)))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UsageError):
        restore(tmp_path / "c", tmp_path / "again", PASSPHRASE)
    assert sorted(tmp_path.iterdir()) == before


def test_a_backup_shows_nothing_and_opens_with_its_passphrase_only(site: SiteFolder, tmp_path: Path) -> None:
    backup(site, tmp_path / "b", PASSPHRASE)
    data = (tmp_path / "b").read_bytes()
    assert site.patients_key() not in data and b"SQLite format" not in data and b"north" not in data
    with pytest.raises(UsageError):
        restore(tmp_path / "b", tmp_path / "again", PASSPHRASE + "!")
    assert not (tmp_path / "again").exists()


def test_nothing_is_overwritten_and_a_short_passphrase_is_refused(site: SiteFolder, tmp_path: Path) -> None:
    backup(site, tmp_path / "b", PASSPHRASE)
    data = (tmp_path / "b").read_bytes()
    with pytest.raises(UsageError):
        backup(site, tmp_path / "b", PASSPHRASE)
    assert (tmp_path / "b").read_bytes() == data
    with pytest.raises(UsageError):
        backup(site, tmp_path / "c", "11 letters!")
    with pytest.raises(UsageError):
        restore(tmp_path / "b", site.path, PASSPHRASE)


@pytest.mark.parametrize("lost", ["ledger.sqlite", "keys/site.pem"])
def test_a_folder_without_ledger_or_key_is_no_backup(site: SiteFolder, tmp_path: Path, lost: str) -> None:
    (site.path / lost).unlink()
    with pytest.raises(UsageError):
        backup(site, tmp_path / "b", PASSPHRASE)
    assert not (tmp_path / "b").exists()
    assert not (site.path / lost).exists(), "looking for it did not make it"


def test_a_full_disk_leaves_no_half_backup_and_no_half_folder(
    site: SiteFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup(site, tmp_path / "good", PASSPHRASE)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    before = sorted(tmp_path.iterdir())
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(Unavailable, match="No space left"):
            backup(site, tmp_path / "b", PASSPHRASE)
    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", full)
        with pytest.raises(Unavailable, match="No space left"):
            restore(tmp_path / "good", tmp_path / "again", PASSPHRASE)
    assert sorted(tmp_path.iterdir()) == before
    assert not [path for path in site.path.iterdir() if path.name.startswith(".")]


def test_a_restored_ledger_is_an_older_copy_and_its_witnesses_notice(site: SiteFolder, tmp_path: Path) -> None:
    backup(site, tmp_path / "b", PASSPHRASE)
    ledger = site.ledger()
    ledger.record(Refuse(plan="p", round_number=2, reason="after the backup"))
    seen = ledger.tree().head(ledger.tree().size)
    back = restore(tmp_path / "b", tmp_path / "again", PASSPHRASE).ledger()
    assert back.rolled_back(seen, "south")
    assert back.missing_head() == seen.size


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A database of schema 0001 with a row in it."""
    path = tmp_path / "ledger.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as store:
        for statement in statements("0001_ledger.sql"):
            store.execute(statement)
        store.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        store.execute("INSERT INTO alembic_version VALUES ('0001')")
        store.execute("INSERT INTO witnessed VALUES ('south', x'4711')")
    return path


def test_an_upgrade_keeps_a_copy_of_what_it_began_from(older: Path) -> None:
    with closing(open_store(older)) as store:
        assert schema_version(store) == HEAD
    kept = older.with_name(f"ledger.sqlite.before-{HEAD}")
    with closing(sqlite3.connect(kept)) as copy:
        assert schema_version(copy) == "0001"
        assert copy.execute("SELECT * FROM witnessed").fetchall() == [("south", b"\x47\x11")]
    assert kept.stat().st_mode & 0o777 == 0o600
    assert not [path for path in older.parent.iterdir() if path.name.startswith(".")]


def test_an_upgrade_whose_copy_cannot_be_kept_changes_nothing(older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(Unavailable):
        open_store(older)
    assert not older.with_name(f"ledger.sqlite.before-{HEAD}").exists(), "a half copy would stand for a whole one"
    with closing(sqlite3.connect(older)) as store:
        assert schema_version(store) == "0001"


def test_the_first_copy_is_never_replaced_by_a_later_one(older: Path) -> None:
    kept = older.with_name(f"ledger.sqlite.before-{HEAD}")
    kept.write_bytes(b"the first")
    open_store(older).close()
    assert kept.read_bytes() == b"the first"


def test_a_new_database_has_nothing_to_keep(tmp_path: Path) -> None:
    open_store(tmp_path / "ledger.sqlite").close()
    assert not [path for path in tmp_path.iterdir() if "before" in path.name]
