"""A full disk, a file that may not be written, a key that others may read: a refusal with a hint, nothing lost."""

import os
import resource
import signal
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from wardround.client.store.folder import SiteFolder
from wardround.client.store.verify import verify_file
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.ledger import Refuse, Reserve, Start


def in_a_child(work: Callable[[], None]) -> str:
    """Run ``work`` in a process of its own; what it raised as text, or nothing."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work()
            told = ""
        except Unavailable as error:
            told = f"Unavailable\n{error.message}\n{error.hint}"
        except BaseException:
            told = traceback.format_exc()
        os.write(write, told.encode()[:4000])
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        told = pipe.read()
    os.waitpid(pid, 0)
    return told


def as_nobody() -> None:
    """Root may write anything, so the child stops being root."""
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)


@pytest.mark.parametrize("room", [0, 1, 3000, 9000])
def test_a_full_disk_refuses_and_loses_nothing(hospital: Any, room: int) -> None:
    hospital.reserve("b1")
    hospital.ledger._store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = hospital.ledger.facts()
    hospital.ledger.close()

    def fill() -> None:
        # The limit holds for the log and the database: writes beyond it fail like those to a full disk.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        ledger = hospital.restart()
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
        for number in range(2, 90):
            hospital.reserve(f"b{number}", number=number)
            ledger.record(Start(block=f"b{number}"))

    told = in_a_child(fill).split("\n")
    assert told[0] == "Unavailable" and "cannot be used" in told[1], told
    assert "stays charged" in told[2] and "disk" in told[2]
    after = hospital.restart().facts()
    assert after[: len(before)] == before
    assert hospital.reserve("b90") is None
    verify_file(hospital.folder.database)


def test_a_file_that_may_not_be_written_is_refused(hospital: Any) -> None:
    hospital.ledger._store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = hospital.ledger.facts()
    hospital.ledger.close()
    hospital.folder.database.chmod(0o400)
    if os.geteuid() == 0:
        for path in [hospital.folder.path, *hospital.folder.path.rglob("*")]:
            os.chown(path, 65534, 65534)
        for path in hospital.folder.path.parents:
            if not path.stat().st_mode & 0o001:
                path.chmod(path.stat().st_mode | 0o011)

    def write() -> None:
        as_nobody()
        hospital.restart().record(Refuse(plan="plan", round_number=1, reason="x"))

    told = in_a_child(write).split("\n")
    assert told[0] == "Unavailable" and "Permission denied" in told[1] and "permissions" in told[2], told
    hospital.folder.database.chmod(0o600)
    assert hospital.restart().facts() == before


def test_a_log_that_cannot_be_made_is_refused(hospital: Any, tmp_path: Any) -> None:
    hospital.ledger._store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    hospital.ledger.close()
    for path in hospital.folder.path.glob("ledger.sqlite-*"):
        path.unlink()
    hospital.folder.database.with_name("ledger.sqlite-wal").mkdir()
    with pytest.raises((Unavailable, UsageError)):
        hospital.restart()
    hospital.folder.database.with_name("ledger.sqlite-wal").rmdir()
    fact = Reserve(domain="training", block="b1", plan="plan", round_number=1, event=hospital.event)
    assert hospital.restart().reserve(fact) is None


@pytest.mark.parametrize("where", [".", "keys/site.pem", "keys/replies.key", "keys/patients.key"])
def test_a_folder_or_key_that_others_may_read_is_not_used(hospital: Any, where: str) -> None:
    path = hospital.folder.path / where
    path.chmod(path.stat().st_mode | 0o040)
    with pytest.raises(UsageError, match="others may") as error:
        folder = SiteFolder.open(hospital.folder.path)
        folder.replies_key()
        folder.patients_key()
        folder.ledger()
    assert "chmod" in error.value.hint
