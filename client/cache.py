"""The site's cache of features: what a study's contract makes of the site's data, kept in the site's own folder.

Decoding pictures or asking a database costs minutes, and a round seconds; so the features are computed once for each
contract and read again until a source changes. They lie as plain arrays that are mapped into memory, training patients
first, under the same 0700 as the ledger and the keys, and name patients by the keyed hash of their ids only. ``site
leave`` destroys them and no backup carries them.
"""

import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import numpy as np
import numpy.typing as npt

from wardround.client.connectors.cohort import Cohort
from wardround.client.connectors.parts import shape_of
from wardround.client.connectors.table import Records
from wardround.client.store.members import HashedId, Part
from wardround.privacy.gradients import Examples
from wardround.protocol.canonical import LABEL_SPLIT, digest
from wardround.protocol.errors import Unavailable

CACHE: Final = "cache"
NOT_ADMITTED: Final = "not admitted to a data domain"

IN_MEMORY: Final = 64 << 20
"""Features of fewer bytes are held in memory; larger ones are mapped, and only the batch that was drawn is read."""

ROWS_AT_ONCE: Final = 1024

STALE: Final = 24 * 3600.0
"""Seconds after which a cache that was begun and not finished is nobody's any more."""


class Division(Protocol):
    """How the site divides its patients, and how it hides their ids; ``store.members.Members`` is one."""

    def parts(self, ids: Sequence[str]) -> Sequence[Part | None]:
        """The part of each patient; None: not admitted."""

    def hashed(self, ids: Iterable[str]) -> list[bytes]:
        """The keyed hash of each id."""


@dataclass(frozen=True, slots=True)
class FeatureCache:
    """The caches in one site's folder, one for each name (the digest of a contract)."""

    folder: Path
    site: str

    def cohort(self, name: str, state: str, records: Callable[[], Iterable[Records]], division: Division) -> Cohort:
        """The cohort under ``name``, from the disk if it was made of the same ``state``, else from ``records``.

        Args:
            state: fingerprint of sources, settings and admitted patients; another one makes the cache anew.
            records: read only when the cache is made.

        Raises:
            WardroundError: what reading raises; then the cache is as it was.
            Unavailable: the cache cannot be written.
        """
        place = self.folder / CACHE / name[:32]
        if (found := self._kept(place, state)) is not None:
            return found
        try:
            (self.folder / CACHE).mkdir(mode=0o700, exist_ok=True)
            self._sweep()
            fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=self.folder / CACHE))
            try:
                _write(fresh, state, records(), division)
                _put(fresh, place)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
        except OSError as error:
            raise Unavailable(f"the site's cache cannot be written: {error.strerror}", "check the disk") from error
        made = self._kept(place, state)
        if made is None:
            raise Unavailable("the site's cache was changed while it was made", "run it again")
        return made

    def _sweep(self) -> None:
        """Remove what a process that was killed left half made. Others are at work for hours at most."""
        for half in (self.folder / CACHE).glob(".new-*"):
            with suppress(FileNotFoundError):
                if time.time() - half.stat().st_mtime > STALE:
                    shutil.rmtree(half, ignore_errors=True)

    def _kept(self, place: Path, state: str) -> Cohort | None:
        try:
            about = json.loads((place / "about.json").read_text(encoding="utf-8"))
            if about["state"] != state:
                return None
            features = _opened(place / "features.npy")
            targets, patient = np.load(place / "targets.npy"), np.load(place / "patient.npy")
            ids = json.loads((place / "patients.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError):
            return None
        cut, train, test = about["train_records"], ids["train"], ids["test"]
        return Cohort(
            self.site,
            Examples(features[:cut], targets[:cut], patient[:cut], len(train)),
            Examples(features[cut:], targets[cut:], patient[cut:] - len(train), len(test)),
            about["split"],
            about["excluded"],
            tuple(HashedId(id_) for id_ in train),
            tuple(HashedId(id_) for id_ in test),
        )


def source_state(path: Path, live_since: str) -> str:
    """What shows whether a source has changed: names, sizes and times of its files.

    A source that a YAML file describes is a running system, whose changes cannot be seen: it counts as changed when
    ``live_since`` changes.
    """
    if path.is_dir():
        lines = [f"{each.relative_to(path)} {shape}" for each in sorted(path.rglob("*")) if (shape := shape_of(each))]
        return digest(CACHE, "\n".join(lines).encode())
    if not path.exists():
        return "not there"
    return f"{shape_of(path)} {live_since if path.suffix in ('.yaml', '.yml') else ''}"


def _opened(path: Path) -> npt.NDArray[Any]:
    mapped: npt.NDArray[Any] = np.load(path, mmap_mode="r")
    return np.array(mapped) if mapped.nbytes < IN_MEMORY else mapped


@dataclass(slots=True)
class _Spool:
    """Records in the order in which they came: features in a file, the rest in memory."""

    file: BinaryIO
    shape: tuple[int, ...] = ()
    dtype: npt.DTypeLike = float
    targets: list[npt.NDArray[np.float64]] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)
    excluded: Counter[str] = field(default_factory=Counter)

    def take(self, records: Records) -> None:
        if len(records.features) or not self.shape:
            self.shape, self.dtype = records.features.shape[1:], records.features.dtype
        self.file.write(np.ascontiguousarray(records.features).data)
        self.targets.append(records.targets)
        # A hashed id is text too, and must stay known as one.
        self.patients += [each if isinstance(each, str) else str(each) for each in records.patients]
        self.excluded.update(records.excluded)


def _write(place: Path, state: str, records: Iterable[Records], division: Division) -> None:
    raw = place / "features.raw"
    with raw.open("wb") as file:
        spool = _Spool(file)
        for each in records:
            spool.take(each)
    distinct = list(dict.fromkeys(spool.patients))
    known = dict(zip(distinct, division.parts(distinct), strict=True))
    of = [known[patient] for patient in spool.patients]
    admitted = np.array([row for row, part in enumerate(of) if part is not None], np.int64)
    if len(admitted) < len(of):
        spool.excluded[NOT_ADMITTED] = len(of) - len(admitted)
    train, test = (sorted(id_ for id_, part in known.items() if part is each) for each in (Part.TRAIN, Part.TEST))
    number = {id_: index for index, id_ in enumerate((*train, *test))}
    patient = np.array([number[spool.patients[row]] for row in admitted], np.int64)
    order = np.argsort(patient, kind="stable")
    rows, patient = admitted[order], patient[order]
    _arranged(raw, place / "features.npy", spool, rows)
    raw.unlink()
    targets = np.concatenate(spool.targets) if spool.targets else np.zeros((0, 1))
    np.save(place / "targets.npy", targets[rows])
    np.save(place / "patient.npy", patient)
    about = {
        "state": state,
        "split": digest(LABEL_SPLIT, np.array([of[row] is Part.TEST for row in admitted], np.uint8)),
        "train_records": int((patient < len(train)).sum()),
        "excluded": dict(spool.excluded),
    }
    hidden = {
        name: [hashed.hex() for hashed in division.hashed(ids)] for name, ids in (("train", train), ("test", test))
    }
    (place / "patients.json").write_text(json.dumps(hidden), encoding="utf-8")
    (place / "about.json").write_text(json.dumps(about), encoding="utf-8")


def _arranged(raw: Path, path: Path, spool: _Spool, rows: npt.NDArray[np.int64]) -> None:
    """The rows of ``raw`` in the order of ``rows``, as an array file, a part at a time."""
    out = np.lib.format.open_memmap(path, "w+", np.dtype(spool.dtype), (len(rows), *spool.shape))
    if not out.size:
        return
    source = np.memmap(raw, np.dtype(spool.dtype), "r").reshape(-1, *spool.shape)
    for first in range(0, len(rows), ROWS_AT_ONCE):
        out[first : first + ROWS_AT_ONCE] = source[rows[first : first + ROWS_AT_ONCE]]
    out.flush()


def _put(fresh: Path, place: Path) -> None:
    """``fresh`` becomes ``place``; who has the former one mapped keeps it."""
    for file in fresh.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    if place.exists():
        former = Path(tempfile.mkdtemp(prefix=".old-", dir=place.parent))
        os.rename(place, former / "gone")
        shutil.rmtree(former, ignore_errors=True)
    os.rename(fresh, place)
