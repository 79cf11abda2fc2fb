"""This machine: user, ledger, port, disk, memory, torch. Everything is only looked at, and no schema is upgraded."""

import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from wardround.client.doctor.examined import Examined
from wardround.client.doctor.words import Finding, failed, ok, warning
from wardround.client.store.folder import SiteFolder
from wardround.client.store.migrations import HEAD
from wardround.client.store.witnessing import open_alarms
from wardround.conf.said import said
from wardround.protocol.alarm import AlarmKind
from wardround.protocol.errors import WardroundError

DISK_FAILED: Final = 500 * 2**20
DISK_WARNING: Final = 5 * 2**30
MEMORY_WARNING: Final = 2 * 2**30
"""Bytes."""

LEDGER_SECONDS: Final = 3.0
"""A daemon that writes an entry holds the ledger for less."""

_TORCH_SECONDS: Final = 120.0


def check_user(examined: Examined) -> Iterator[Finding]:
    """Rights are those of whoever asks: root may read everything, which says nothing about the daemon."""
    folder = examined.site_folder or examined.link_folder
    if folder is None:
        return
    if folder.stat().st_uid == os.geteuid():
        yield ok("user", "This is the user who owns the folder.")
    else:
        yield warning(
            "user",
            "The folder belongs to another user, so what can be read here says little about the daemon.",
            "Run this as the folder's owner, for example: sudo -u OWNER wardround site doctor FOLDER.",
        )


def check_umask(examined: Examined) -> Iterator[Finding]:
    """Files that the daemon makes must not be writable for others."""
    mask = os.umask(0o077)
    os.umask(mask)
    if mask & 0o022 == 0o022:
        yield ok("umask", "Others cannot write to new files.")
    else:
        yield warning(
            "umask",
            said("New files of this user can be written by others (umask %(mask)s).", mask=f"{mask:03o}"),
            "Set 'umask 077' for this user, or UMask=0077 in the service.",
        )


def check_ledger(examined: Examined, write: bool = True) -> Iterator[Finding]:
    """The ledger opens, is whole, has a schema that is known, and can be written now.

    ``write`` False: it is opened for reading only, so nobody waits for whoever asks.
    """
    if examined.site_folder is None:
        return
    path = examined.site_folder / "ledger.sqlite"
    if not path.exists():
        yield failed("ledger", "The site's folder has no ledger.", "Restore the folder from its backup.")
        return
    try:
        address = f"{path.absolute().as_uri()}?mode={'rw' if write else 'ro'}"
        with closing(sqlite3.connect(address, LEDGER_SECONDS, isolation_level=None, uri=True)) as store:
            whole = store.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
            version = _schema(store)
            if write:
                store.execute("BEGIN IMMEDIATE")
                store.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            yield failed(
                "ledger",
                said("Another program has kept the ledger locked for %(seconds)s s.", seconds=f"{LEDGER_SECONDS:.0f}"),
                "End the program that holds it, a backup or an SQLite browser.",
            )
        else:
            yield failed(
                "ledger",
                "The ledger cannot be opened for writing." if write else "The ledger cannot be opened.",
                "Check that the daemon's user owns ledger.sqlite and its folder, and that the disk is writable.",
            )
        return
    except sqlite3.DatabaseError:
        whole, version = False, None
    if not whole:
        yield failed(
            "ledger", "The ledger's file is damaged.", "Keep the file, and run 'wardround site restore' with a backup."
        )
    elif version is None or version > HEAD:
        yield failed(
            "ledger",
            "The ledger was written by another version of this program.",
            "Install the version that the daemon ran with last.",
        )
    elif write:
        yield ok("ledger", "The ledger opens, is whole, and can be written.")
    else:
        yield ok("ledger", "The ledger opens, and its file is whole.")


def check_witnesses(examined: Examined) -> Iterator[Finding]:
    """No alarm on a ledger, this site's or another's, is without an answer."""
    if examined.site_folder is None or not (examined.site_folder / "ledger.sqlite").exists():
        return
    try:
        site = SiteFolder.open(examined.site_folder).site
        found = open_alarms(examined.site_folder / "ledger.sqlite", site)
    except (WardroundError, ValueError, sqlite3.Error):
        return  # said by the check of the ledger
    cure = said("Run 'wardround site witnessed FOLDER'; docs/operations.md has the cure of each alarm.")
    own = [alarm for alarm in found if alarm.origin == site and alarm.kind is not AlarmKind.SILENCE]
    if own:
        yield failed("witnesses", said("%(about)s This site answers no round.", about=own[0].about), cure)
    elif found:
        about = said("%(about)s Alarms that are open: %(count)s.", about=found[0].about, count=len(found))
        yield warning("witnesses", about, cure)
    else:
        yield ok("witnesses", "Everything that was heard of ledgers agrees.")


def _schema(store: sqlite3.Connection) -> str | None:
    try:
        row = store.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
        return None
    return None if row is None else str(row[0])


def check_port(examined: Examined) -> Iterator[Finding]:
    """Flower's service between SuperNode and daemon listens on 127.0.0.1 only."""
    if examined.runtime_port is None:
        return
    with socket.socket() as probe:
        # As servers do: a connection that has just ended does not keep a port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", examined.runtime_port))
        except PermissionError:
            taken = said("may not be used by this user")
        except OSError:
            taken = said("is taken")
        else:
            yield ok("runtime-port", said("Port %(port)s on 127.0.0.1 is free.", port=examined.runtime_port))
            return
    if taken == "is taken" and _own_supernode(examined.link_folder):
        yield ok(
            "runtime-port",
            said("Port %(port)s on 127.0.0.1 is held by this site's own SuperNode.", port=examined.runtime_port),
        )
    else:
        yield failed(
            "runtime-port",
            said("Port %(port)s on 127.0.0.1 %(taken)s.", port=examined.runtime_port, taken=taken),
            "End the program that holds it, or write another runtime_port into link.json.",
        )


def _own_supernode(link_folder: Path | None) -> bool:
    """Whether the SuperNode that the supervisor started last is alive."""
    try:
        pid = int((link_folder / "supernode.pid").read_text()) if link_folder is not None else 0
        if pid < 1:
            return False
        line = Path("/proc") / str(pid) / "cmdline"
        if line.exists():
            return b"supernode" in line.read_bytes()
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return not Path("/proc/self").exists()


def check_disk(examined: Examined) -> Iterator[Finding]:
    """Room for the ledger, models and logs."""
    folders = [folder for folder in (examined.site_folder, examined.link_folder) if folder is not None]
    if not folders:
        return
    free = min(shutil.disk_usage(folder).free for folder in folders)
    size = f"{free / 2**30:.1f} GB"
    if free < DISK_FAILED:
        yield failed(
            "disk", said("Only %(size)s are free: the ledger could not be written.", size=size), "Free some disk."
        )
    elif free < DISK_WARNING:
        yield warning(
            "disk",
            said("Only %(size)s are free.", size=size),
            said("Free some disk: %(size)s GB or more.", size=f"{DISK_WARNING / 2**30:.0f}"),
        )
    else:
        yield ok("disk", said("%(size)s are free.", size=size))


def check_memory(examined: Examined) -> Iterator[Finding]:
    """Training needs about 1 GB beside the data."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size < MEMORY_WARNING:
        yield warning(
            "memory",
            said("This machine has %(size)s GB of memory.", size=f"{size / 2**30:.1f}"),
            "Give it 2 GB or more, beside the data.",
        )
    else:
        yield ok("memory", said("This machine has %(size)s GB of memory.", size=f"{size / 2**30:.1f}"))


def check_torch(examined: Examined, module: str = "torch") -> Iterator[Finding]:
    """Imported in a process of its own: a build for another processor would end this one."""
    if examined.site_folder is None:
        return
    # -P: nothing that lies in the folder of whoever asks is imported.
    command = [sys.executable, "-P", "-c", f"import {module} as m; print(getattr(m, '__version__', ''))"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TORCH_SECONDS, stdin=subprocess.DEVNULL)
    except (subprocess.TimeoutExpired, OSError):
        done = None
    version = re.fullmatch(r"[0-9][0-9A-Za-z.+-]{0,40}", done.stdout.strip()) if done is not None else None
    if done is not None and done.returncode == 0 and version is not None:
        yield ok("torch", said("torch %(version)s can be used.", version=version[0]))
    elif done is not None and done.returncode < 0:
        yield failed(
            "torch",
            said(
                "torch ends with signal %(signal)s when it is imported: it was built for another processor.",
                signal=-done.returncode,
            ),
            "Install a build of torch for this machine.",
        )
    else:
        yield failed("torch", "torch cannot be imported.", "Install it: pip install 'wardround[site]'.")
