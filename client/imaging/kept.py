"""What a source's pictures were made into, kept at the site, so that a reading goes on where the last one stopped.

A file or instance is found by the keyed hash of its place and version (``picture.Listed``): one that was written again
is another one, and one that is no longer listed is dropped when a reading is complete. Kept are the features under the
contract, the allowed numbers of the header, and the reason of what was left out; patients, keys of labels, places and
UIDs by keyed hash only. What makes a difference to the features (contract, source, its options, versions of the
decoders) names the file, so that nothing made otherwise is ever found.

Each picture is on its way to the disk before the next one is opened. A process that is killed leaves whole rows
(SQLite's write-ahead log), and an object counts as known only when its last row is there.
"""

import hmac
import json
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np

from wardround.client.imaging.picture import LeftOut, Listed, Opened, Picture
from wardround.client.imaging.records import Finished, finished
from wardround.client.store.members import HashedId
from wardround.protocol.canonical import LABEL_PICTURE
from wardround.protocol.contract import DataContract
from wardround.protocol.errors import Unavailable

FORMAT: Final = "1"
"""Another text whenever decoding or preparing gives other features."""

DECODERS: Final = (
    "wardround", "pydicom", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle", "python-gdcm",
    "nibabel", "pillow", "monai", "torch",
)  # fmt: skip
"""Packages of which another version may decode or resample otherwise, or decode what could not be decoded."""

WAIT_SECONDS: Final = 30.0
LARGEST: Final = 1 << 28
"""Bytes of a picture's features; larger ones are made anew each time."""

_DISK: Final = frozenset(
    {
        sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN,
    }
)  # fmt: skip
"""Errors of which the file is not the cause; with any other it is taken as damaged."""

_TAG: Final = 16
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS objects (
    name BLOB PRIMARY KEY, made REAL NOT NULL, once TEXT NOT NULL, pictures INTEGER NOT NULL, unlabelled TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pictures (
    name BLOB NOT NULL, number INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (name, number)
);
CREATE TEMP TABLE listed (name BLOB PRIMARY KEY) WITHOUT ROWID;
"""


@dataclass(slots=True)
class KeptPictures:
    """The files of one contract in a site's cache.

    Args:
        folder: the cache.
        contract: name of the contract there.
        key: ``SiteFolder.pictures_key()``.
        hashed: ``Members.hashed``.
        clock: seconds since 1970.
    """

    folder: Path
    contract: str
    key: bytes = field(repr=False)
    hashed: Callable[[Iterable[str]], list[bytes]]
    clock: Callable[[], float] = time.time
    _used: set[str] = field(default_factory=set)

    @contextmanager
    def of(self, source: str, contract: DataContract, lasts: float | None) -> Iterator["KeptSource"]:
        """What is kept of one source. ``lasts``: seconds after which a picture is read anew; None: never for that.

        Raises:
            Unavailable: it cannot be read or written.
        """
        about = "\x00".join((source, contract.model_dump_json(), FORMAT, *map(_version, DECODERS)))
        file = self.folder / f"{self.contract[:32]}.{sha256(about.encode()).hexdigest()[:16]}.pictures"
        self._used.add(file.name)
        with _explained(file):
            store = _opened(file)
            try:
                yield KeptSource(self, store, contract, lasts)
            finally:
                store.close()

    def drop_former_sources(self) -> None:
        """Remove what was kept of sources or settings that a complete reading did not use."""
        for file in self.folder.glob(f"{self.contract[:32]}.*.pictures"):
            if file.name not in self._used:
                _remove(file)


@dataclass(slots=True)
class KeptSource:
    """What is kept of one source, while it is read."""

    kept: KeptPictures
    store: sqlite3.Connection
    contract: DataContract
    lasts: float | None

    def hidden(self, text: str) -> str:
        """The keyed hash of a label's key, a place or a UID."""
        return _keyed(self.kept.key, "text", text).hex()

    def opened(self, listed: Listed, labels: Collection[str]) -> Opened[Finished]:
        """What ``listed`` was made into, without opening it where that is known.

        Args:
            labels: hidden keys; a picture without a label is not prepared, and is opened again when there is one.
        """
        place = self.hidden(listed.place)
        if listed.version is None:
            found = listed.load()
            return Opened(place, (self._made(each, labels) for each in found.pictures), self._once(found.once))
        name = _keyed(self.kept.key, "object", listed.place, listed.version)
        self.store.execute("INSERT OR IGNORE INTO temp.listed VALUES (?)", (name,))
        row = self.store.execute("SELECT made, once, pictures, unlabelled FROM objects WHERE name = ?", (name,))
        if (known := row.fetchone()) is not None:
            made, once, pictures, unlabelled = known
            fresh = self.lasts is None or 0 <= self.kept.clock() - made < self.lasts
            if fresh and not any(key in labels for key in unlabelled.split()):
                return Opened(place, self._read(name, pictures), once)
        found = listed.load()
        once = self._once(found.once)
        return Opened(place, self._written(name, once, found.pictures, labels), once)

    def drop_unlisted(self) -> None:
        """The source was read to its end: forget what it did not list. The file shrinks."""
        self.store.execute("DELETE FROM objects WHERE name NOT IN (SELECT name FROM temp.listed)")
        self.store.execute("DELETE FROM pictures WHERE name NOT IN (SELECT name FROM objects)")

    def _written(
        self, name: bytes, once: str, pictures: Iterator[Picture | LeftOut], labels: Collection[str]
    ) -> Iterator[Finished | LeftOut]:
        self.store.execute("DELETE FROM objects WHERE name = ?", (name,))
        self.store.execute("DELETE FROM pictures WHERE name = ?", (name,))
        count, lasting, unlabelled = 0, True, dict[str, None]()
        for each in pictures:
            made = self._made(each, labels)
            lasting = lasting and not (isinstance(made, LeftOut) and made.passing)
            if isinstance(made, Finished) and made.features is None and not made.unfit:
                unlabelled[made.key] = None
            body = _body(made)
            if lasting and len(body) < LARGEST:
                row = (name, count, self._tag(name, count, body) + body)
                self.store.execute("INSERT OR REPLACE INTO pictures VALUES (?, ?, ?)", row)
            else:
                lasting = False
            count += 1
            yield made
        if lasting:
            whole = (name, self.kept.clock(), once, count, " ".join(unlabelled))
            self.store.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)", whole)

    def _read(self, name: bytes, pictures: int) -> Iterator[Finished | LeftOut]:
        for number in range(pictures):
            row = self.store.execute("SELECT body FROM pictures WHERE name = ? AND number = ?", (name, number))
            body: bytes = (row.fetchone() or (b"",))[0]
            if not hmac.compare_digest(body[:_TAG], self._tag(name, number, body[_TAG:])):
                raise sqlite3.DatabaseError
            yield _of(body[_TAG:])

    def _tag(self, name: bytes, number: int, body: bytes) -> bytes:
        """What shows that a row is as it was written, and lies where it was put."""
        return _keyed(self.kept.key, "body", str(number), name.hex(), sha256(body).hexdigest())[:_TAG]

    def _once(self, name: str) -> str:
        return self.hidden(name) if name else ""

    def _made(self, found: Picture | LeftOut, labels: Collection[str]) -> Finished | LeftOut:
        if isinstance(found, LeftOut):
            return LeftOut(found.reason, self.hidden(found.place), found.passing)
        key, said = self.hidden(found.key), found.patient.strip()
        # What the contract takes for no id at all stays that.
        patient = said if said in self.contract.missing_tokens else HashedId(self.kept.hashed((said,))[0].hex())
        if key not in labels:
            return Finished(patient, key, {}, None)
        made = finished(found, self.contract)
        return Finished(patient, key, made.numbers, made.features, made.unfit)


def _keyed(key: bytes, *parts: str) -> bytes:
    """HMAC-SHA256 (RFC 2104) over the label and ``parts``, each with its length before it."""
    framed = "".join(f"{len(part)}:{part}" for part in parts)
    return hmac.digest(key, f"{LABEL_PICTURE}\x00{framed}".encode("utf-8", "surrogatepass"), "sha256")


def _body(made: Finished | LeftOut) -> bytes:
    """One line of JSON, and the features as they lie in memory."""
    if isinstance(made, LeftOut):
        return json.dumps({"left_out": made.reason, "place": made.place}).encode() + b"\n"
    about: dict[str, Any] = {"patient": made.patient, "key": made.key, "numbers": dict(made.numbers)}
    if made.features is None:
        return json.dumps(about | {"unfit": made.unfit}).encode() + b"\n"
    about |= {"dtype": made.features.dtype.str, "shape": made.features.shape}
    return json.dumps(about).encode() + b"\n" + np.ascontiguousarray(made.features).tobytes()


def _of(body: bytes) -> Finished | LeftOut:
    line, _, raw = body.partition(b"\n")
    about = json.loads(line)
    if "left_out" in about:
        return LeftOut(about["left_out"], about["place"])
    said = about["patient"]
    patient = HashedId(said) if len(said) == 64 else said
    if "unfit" in about:
        return Finished(patient, about["key"], about["numbers"], None, about["unfit"])
    features = np.frombuffer(raw, np.dtype(about["dtype"])).reshape(about["shape"])
    return Finished(patient, about["key"], about["numbers"], features)


def _opened(file: Path) -> sqlite3.Connection:
    try:
        file.parent.mkdir(mode=0o700, exist_ok=True)
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise _not_written(str(error.strerror)) from error
    store = sqlite3.connect(file, isolation_level=None, timeout=WAIT_SECONDS)
    store.execute("PRAGMA auto_vacuum = FULL")
    store.execute("PRAGMA journal_mode = WAL")
    store.execute("PRAGMA synchronous = NORMAL")
    store.execute("PRAGMA secure_delete = ON")
    store.executescript(_TABLES)
    return store


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    try:
        yield
    # SQLite's own text is not shown: it quotes what it cannot decode.
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DISK:
            raise _not_written(error.sqlite_errorname) from None
        _remove(file)
        raise Unavailable(
            "what was kept of pictures is damaged, and was thrown away", "run it again: the pictures are read anew"
        ) from None


def _not_written(reason: str) -> Unavailable:
    return Unavailable(f"what is kept of pictures cannot be written: {reason}", "check the disk and its permissions")


def _remove(file: Path) -> None:
    for each in (file, file.with_name(file.name + "-wal"), file.with_name(file.name + "-shm")):
        each.unlink(missing_ok=True)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
