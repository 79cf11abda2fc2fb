"""A site leaves its federation: the ledger is exported and checked, and then the keys are destroyed.

After that nobody can speak for this site, and nobody can tell which patient a hash in it stands for. Its rounds stay
what they were: others hold its signatures. Who is interrupted goes on with the same command: what was destroyed stays
destroyed, and the export is made once.

A key is overwritten before it is removed. On a flash disk, a copy-on-write file system, a snapshot or in a backup the
old bytes may stay where no program reaches them: destroying a key is as good as the disk is.
"""

import os
import shutil
import socket
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from wardround.client.cache import CACHE
from wardround.client.settings import read_settings
from wardround.client.store.database import explained
from wardround.client.store.folder import SiteFolder
from wardround.client.store.keys import write_secret
from wardround.client.store.verify import verify_file
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.witness import checkpoint_of

LEFT: Final = "left.json"
OURS: Final = (
    *(CACHE, "control.sock", "daemon.pid", "keys", "ledger.sqlite-shm", "ledger.sqlite-wal", "link.json", "logs"),
    *("mapping.yaml", "policy.yaml", "site.yaml", "sockets", "studies", "ledger.sqlite", LEFT, "site.json"),
)
"""What this program makes in a site's folder; ``site.json`` last, because a folder with it is a site's."""

_SECRETS: Final = ("node_key", "superexec.secret", "proxy.password")


class _Left(BaseModel):
    """``left.json``: the ledger lies in ``out``, whole and checked; what follows is destruction only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["wardround/left/1"] = "wardround/left/1"
    out: str


def leave(folder: SiteFolder, out: Path, link: Path | None) -> None:
    """Export the ledger with its last signed head to the new folder ``out``, then destroy keys, caches and models.

    Raises:
        UsageError: ``out`` exists, a process of the site still runs, or the ledger is broken; nothing was destroyed.
        Unavailable: the export cannot be written, and nothing was destroyed; or a file could not be destroyed: the
            message names it, and the same command goes on.
    """
    if (running := next(still_running(folder, link), None)) is not None:
        raise UsageError(f"{running} still runs", "stop it first: wardround site stop FOLDER, or systemctl stop")
    if not (folder.path / LEFT).exists():
        _export(folder, out)
        write_secret(folder.path / LEFT, _Left(out=str(out.absolute())).model_dump_json().encode() + b"\n")
    elif (there := exported_to(folder)) != out.absolute():
        raise UsageError(f"the ledger was exported to '{there}' before", f"go on with: --out {there}")
    kept = [path for path in _secret_files(folder, link) if not destroy(path)]
    for name in (CACHE, "studies", "sockets"):
        kept += _removed_tree(folder.path / name)
    kept += [] if link is None else _removed_tree(link)
    with explained(folder.database):
        _forget_answers(folder.database)
    if kept:
        more = f" and {len(kept) - 1} more" if len(kept) > 1 else ""
        raise Unavailable(f"'{kept[0]}'{more} could not be destroyed", "run the same command again as root")


def has_left(folder: SiteFolder) -> bool:
    """Whether the ledger was exported and no key is left."""
    keys = folder.path / "keys"
    return (folder.path / LEFT).exists() and not (keys.is_dir() and any(keys.iterdir()))


def exported_to(folder: SiteFolder) -> Path:
    """Where ``leave`` put the ledger. Raises UsageError when the note of it is damaged."""
    try:
        return Path(_Left.model_validate_json((folder.path / LEFT).read_bytes()).out)
    except (OSError, ValidationError):
        raise UsageError(
            f"'{folder.path / LEFT}' cannot be read", "check that the export is there; then remove this file"
        ) from None


def purge(folder: SiteFolder) -> list[Path]:
    """Remove what this program made in a folder whose site has left; returns what it did not make, which stays.

    Raises:
        UsageError: the site still has its keys.
        Unavailable: a file cannot be removed.
    """
    if not has_left(folder):
        raise UsageError("this site has not left yet", "leave the federation first: wardround site leave FOLDER")
    copies = sorted(path.name for path in folder.path.glob("ledger.sqlite.before-*"))
    kept = []
    for name in (*copies, *OURS):
        path = folder.path / name
        if path.is_dir() and not path.is_symlink():
            kept += _removed_tree(path)
        else:
            path.unlink(missing_ok=True)
    if kept:
        raise Unavailable(f"'{kept[0]}' cannot be removed", "run the same command again as root")
    others = sorted(folder.path.iterdir())
    if not others:
        folder.path.rmdir()
    return others


def still_running(folder: SiteFolder, link: Path | None) -> Iterator[str]:
    """The processes of the site that run now, by name. A socket or a number that was left behind is none."""
    settings = read_settings(folder.path)
    sockets = [folder.path / "control.sock", *([Path(settings.socket)] if settings.socket else [])]
    if _alive(folder.path / "daemon.pid") or any(_answers(path) for path in sockets):
        yield "the daemon"
    if link is not None and _alive(link / "supernode.pid"):
        yield "the SuperNode"


def destroy(path: Path) -> bool:
    """Overwrite a file once with random bytes, flush it, and remove it. False: it is still there."""
    try:
        path.chmod(0o600)
        with path.open("r+b") as file:
            file.write(os.urandom(path.stat().st_size))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _export(folder: SiteFolder, out: Path) -> None:
    """The ledger and its head in ``out``, whole or not at all, and checked as anybody would check it."""
    ledger = folder.ledger()
    note = ledger.checkpoint()
    ledger.close()
    beside = out.with_name(out.name + ".making")
    if out.exists():
        raise UsageError(f"'{out}' exists already", "choose a folder that does not exist yet")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(mode=0o700)
        (beside / "checkpoint.txt").write_bytes(note)
        copy = beside / "ledger.sqlite"
        os.close(os.open(copy, os.O_CREAT | os.O_RDWR, 0o600))
        with closing(sqlite3.connect(folder.database)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        _forget_answers(copy)
        seen = checkpoint_of(note, folder.site)
        if verify_file(copy, key=folder.identity().public.key, seen=[seen]).head != seen.head:
            raise UsageError("the ledger went on while it was exported", "stop the daemon, then leave")
        os.rename(beside, out)
    except (OSError, sqlite3.Error) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise Unavailable(f"the ledger cannot be exported: {why}", "nothing was destroyed; check the disk") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _forget_answers(database: Path) -> None:
    """Overwrite the stored answers and memories in a database, and put the whole of it into one file."""
    with closing(sqlite3.connect(database, isolation_level=None)) as store:
        store.execute("PRAGMA secure_delete = ON")
        store.execute("DELETE FROM replies")
        store.execute("DELETE FROM memories")
        store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        store.execute("VACUUM")
        store.execute("PRAGMA journal_mode = DELETE")


def _secret_files(folder: SiteFolder, link: Path | None) -> Iterable[Path]:
    """The site's own key first: without it nobody speaks for the site."""
    keys = folder.path / "keys"
    others = sorted(keys.iterdir()) if keys.is_dir() else []
    yield keys / "site.pem"
    yield from (path for path in others if path.name != "site.pem")
    if link is not None:
        yield from (link / name for name in _SECRETS)


def _removed_tree(place: Path) -> list[Path]:
    """Remove a folder; returns what is still there of it."""
    if place.is_dir():
        shutil.rmtree(place, ignore_errors=True)
    return [place] if place.exists() else []


def _alive(path: Path) -> bool:
    """Whether the process whose number is in ``path`` is one of ours."""
    try:
        return b"wardround" in Path(f"/proc/{int(path.read_text())}/cmdline").read_bytes()
    except (OSError, ValueError):
        return False


def _answers(path: Path) -> bool:
    """Whether anybody listens at a socket."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
