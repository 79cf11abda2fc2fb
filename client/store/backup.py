"""A site's backup: one file, sealed with a passphrase, with what cannot be made again.

Ledger (through SQLite's online backup, so that the daemon may run), keys and settings, as a tar. Patients' data are not
in it, nor models, nor logs, nor the link folder, which a new invitation makes again.

The key is PBKDF2-HMAC-SHA256 (RFC 8018) of the passphrase. The tar is sealed in pieces of 1 MiB by AES-256-GCM as in
STREAM (Hoang, Reyhanitabar, Rogaway and Vizar 2015): the nonce of a piece is 7 random bytes, its number (4 bytes), and
1 for the last piece, else 0. So pieces that are missing, doubled, moved or cut off do not open, and no database is too
large for the memory.

A ledger that is put back from a backup is an older copy of itself: others have seen later heads, and it refuses to
train until two officers have signed a recovery (docs/restore.md).
"""

import os
import shutil
import sqlite3
import tarfile
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import BinaryIO, Final, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from wardround.client.store.folder import SiteFolder
from wardround.protocol.errors import Unavailable, UsageError

MAGIC: Final = b"wardround/backup/1\n"
ITERATIONS: Final = 600_000
MIN_PASSPHRASE: Final = 12
PIECE: Final = 1 << 20
_SALT, _PREFIX, _TAG = 16, 7, 16
MARK: Final = "last-backup"
"""A file in the site's folder; when it was changed last is when a backup was last written whole."""

_KEPT: Final = ("site.json", "site.yaml", "mapping.yaml", "policy.yaml", "link.json")


def backup(folder: SiteFolder, out: Path, passphrase: str) -> None:
    """Write the backup of ``folder`` to the new file ``out``.

    Raises:
        UsageError: the file exists, the passphrase is too short, or the folder has no ledger.
        Unavailable: it cannot be written; nothing is left of it.
    """
    if len(passphrase) < MIN_PASSPHRASE:
        raise UsageError(f"the passphrase has fewer than {MIN_PASSPHRASE} characters", "take a longer one")
    if not folder.database.is_file() or not (folder.path / "keys" / "site.pem").is_file():
        raise UsageError(f"'{folder.path}' has no ledger or no key", "there is nothing here that a backup could save")
    made = False
    try:
        with open(os.open(out, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            made = True
            salt, prefix = os.urandom(_SALT), os.urandom(_PREFIX)
            file.write(MAGIC + salt + prefix)
            sealer = _Sealer(file, AESGCM(_key(passphrase, salt)), prefix)
            with tarfile.open(fileobj=cast(BinaryIO, sealer), mode="w|") as archive:
                _fill(archive, folder)
            sealer.finish()
            file.flush()
            os.fsync(file.fileno())
        made = False
        # Not worth a fault: the backup itself is on the disk.
        with suppress(OSError):
            (folder.path / MARK).touch(mode=0o600)
    except FileExistsError:
        raise UsageError(f"'{out}' exists already", "choose a new name; a backup is never overwritten") from None
    except (OSError, sqlite3.Error) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise Unavailable(f"'{out}' cannot be written: {why}", "check path and disk") from error
    finally:
        if made:
            out.unlink(missing_ok=True)


def restore(file: Path, path: Path, passphrase: str) -> SiteFolder:
    """Make the site's folder anew at ``path`` from a backup.

    Raises:
        UsageError: the folder exists, the file is no backup, or the passphrase is wrong; nothing was made.
        Unavailable: a file cannot be read or written; nothing was made.
    """
    if path.exists():
        raise UsageError(f"'{path}' exists already", "choose a folder that does not exist yet")
    place: Path | None = None
    try:
        with file.open("rb") as source:
            if source.read(len(MAGIC)) != MAGIC:
                raise UsageError(f"'{file}' is no backup of a site", "name the file that 'site backup' wrote")
            salt, prefix = source.read(_SALT), source.read(_PREFIX)
            opener = _Opener(source, AESGCM(_key(passphrase, salt)), prefix)
            opener.begin()
            place = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
            with tarfile.open(fileobj=cast(BinaryIO, opener), mode="r|") as archive:
                archive.extractall(place, filter="data")
            opener.drain()
        for secret in (place / "keys", *(place / "keys").iterdir(), place / "ledger.sqlite"):
            secret.chmod(0o700 if secret.is_dir() else 0o600)
        SiteFolder.open(place)
        # Not before the last piece has opened: a folder with this name is whole.
        os.rename(place, path)
    except (InvalidTag, tarfile.TarError):
        raise UsageError(f"'{file}' cannot be opened", "check the passphrase; a changed file opens with none") from None
    except OSError as error:
        raise Unavailable(f"the backup cannot be put back: {error.strerror}", "check paths and disk") from error
    finally:
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)
    return SiteFolder.open(path)


def _fill(archive: tarfile.TarFile, folder: SiteFolder) -> None:
    """Write every kept file into ``archive``, with modes and times but without the owner's names."""
    for name in _KEPT:
        if (folder.path / name).exists():
            archive.add(folder.path / name, name, filter=_nameless)
    for key in sorted((folder.path / "keys").iterdir()):
        archive.add(key, f"keys/{key.name}", filter=_nameless)
    with tempfile.TemporaryDirectory(prefix=".backup-", dir=folder.path) as place:
        copy = Path(place) / "ledger.sqlite"
        with closing(sqlite3.connect(folder.database)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        archive.add(copy, "ledger.sqlite", filter=_nameless)


def _nameless(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


class _Sealer:
    """A file to write to, whose bytes come out sealed in pieces."""

    def __init__(self, out: BinaryIO, cipher: AESGCM, prefix: bytes) -> None:
        self._out, self._cipher, self._prefix = out, cipher, prefix
        self._held = bytearray()
        self._number = 0

    def write(self, data: bytes) -> int:
        self._held += data
        while len(self._held) > PIECE:
            self._seal(bytes(self._held[:PIECE]), last=False)
            del self._held[:PIECE]
        return len(data)

    def finish(self) -> None:
        """Seal what is left as the last piece."""
        self._seal(bytes(self._held), last=True)

    def _seal(self, piece: bytes, last: bool) -> None:
        self._out.write(self._cipher.encrypt(_nonce(self._prefix, self._number, last), piece, MAGIC))
        self._number += 1


class _Opener:
    """A file to read from, whose bytes are opened piece by piece. Raises InvalidTag at the first that does not."""

    def __init__(self, source: BinaryIO, cipher: AESGCM, prefix: bytes) -> None:
        self._source, self._cipher, self._prefix = source, cipher, prefix
        self._held = b""
        self._next = source.read(PIECE + _TAG)
        self._number = 0

    def begin(self) -> None:
        """Open the first piece: a wrong passphrase is known before anything is made."""
        self._held = self._piece()

    def read(self, size: int) -> bytes:
        while len(self._held) < size and self._next:
            self._held += self._piece()
        given, self._held = self._held[:size], self._held[size:]
        return given

    def drain(self) -> None:
        """Open the rest, so that nothing of the file is unread."""
        while self._next:
            self._piece()

    def _piece(self) -> bytes:
        sealed, self._next = self._next, self._source.read(PIECE + _TAG)
        number, self._number = self._number, self._number + 1
        # A head that was cut off leaves a nonce that is too short, which is no InvalidTag.
        if len(sealed) < _TAG or len(self._prefix) < _PREFIX:
            raise InvalidTag
        return self._cipher.decrypt(_nonce(self._prefix, number, not self._next), sealed, MAGIC)


def _nonce(prefix: bytes, number: int, last: bool) -> bytes:
    return prefix + number.to_bytes(4, "big") + (b"\x01" if last else b"\x00")


def _key(passphrase: str, salt: bytes) -> bytes:
    return PBKDF2HMAC(SHA256(), 32, salt, ITERATIONS).derive(passphrase.encode())
