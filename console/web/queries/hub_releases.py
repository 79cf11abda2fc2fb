"""What a finished study has released: the files in its folder that are for others, their hashes, and what holds.

Only names on this list are released. What a study's folder holds besides (the sum of the running round, the session,
the progress) is never looked at here.
"""

import hashlib
import os
import stat
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wardround.console.web.queries.hub_rounds import Rounds
from wardround.protocol.errors import Unavailable, UsageError, WardroundError
from wardround.protocol.parameters import model_hash
from wardround.protocol.plan import StudyPlan
from wardround.protocol.weights import tensors_in
from wardround.server.store.studies import StudyFolder

MODEL, PLAN, CARD, STATEMENT, RECEIPT = "model", "plan", "card", "statement", "receipt"
FILES: Final = {
    "model.safetensors": MODEL,
    "plan.json": PLAN,
    "model-card.html": CARD,
    "model-card.pdf": CARD,
    "model-card.json": CARD,
    "privacy-statement.html": STATEMENT,
    "privacy-statement.pdf": STATEMENT,
    "privacy-statement.json": STATEMENT,
}
"""Name -> what it is, in the order in which they are shown. The last six are there if somebody has put them there."""

MOST_BYTES: Final = 2 << 30
"""Of a file that a browser is given; a larger one is copied by 'wardround study fetch'."""


MOST_READ: Final = 512 << 20
"""Of a model that is read, to compare it with the last receipt."""


@dataclass(frozen=True, slots=True)
class ReleasedFile:
    """A file of a release. ``sha256``: "" where it is too long to be given here."""

    name: str
    kind: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Release:
    """What one study has released.

    ``receipts``: names of files; ``signed_by_all``: receipts that every site of the plan and the coordinator have
    signed. ``same_model``: whether the model is the one of the last receipt; None: it could not be read.
    """

    digest: str
    study: str
    title: str
    at: str
    model: str
    files: tuple[ReleasedFile, ...]
    receipts: tuple[str, ...]
    signed_by_all: int
    checked: bool
    same_model: bool | None
    fault: str


class ReleaseReader:
    """Hashes each file once for as long as it stays as it is."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hashes: dict[tuple[Path, int, int], str] = {}
        self._models: dict[tuple[Path, int, int], str | None] = {}

    def there(self, place: StudyFolder) -> bool:
        return (place.path / "model.safetensors").is_file()

    def release(self, place: StudyFolder, plan: StudyPlan, rounds: Rounds) -> Release | None:
        """The release in ``place``, or None when there is no model."""
        if not self.there(place):
            return None
        with self._lock:
            files = [self._file(place.path / name, kind) for name, kind in FILES.items()]
            found = self._model(place.path / "model.safetensors", plan)
        last = rounds.lines[-1] if rounds.lines else None
        return Release(
            digest=plan.digest,
            study=plan.study,
            title=plan.title,
            at="" if last is None else last.at,
            model="" if last is None else last.model,
            files=tuple(file for file in files if file is not None),
            receipts=tuple(line.file for line in rounds.lines),
            signed_by_all=sum(line.by_all for line in rounds.lines),
            checked=all(line.checked for line in rounds.lines),
            same_model=None if found is None or last is None else found == last.model,
            fault=rounds.fault,
        )

    def _file(self, path: Path, kind: str) -> ReleasedFile | None:
        try:
            about = path.lstat()
        except OSError:
            return None
        if not stat.S_ISREG(about.st_mode):
            return None
        key = path, about.st_mtime_ns, about.st_size
        if about.st_size <= MOST_BYTES and key not in self._hashes:
            with path.open("rb") as content:
                self._hashes[key] = hashlib.file_digest(content, "sha256").hexdigest()
        return ReleasedFile(path.name, kind, about.st_size, self._hashes.get(key, ""))

    def _model(self, path: Path, plan: StudyPlan) -> str | None:
        """The name of the model in the file, as receipts name models; None: it is none, or not of this plan."""
        about = path.lstat()
        key = path, about.st_mtime_ns, about.st_size
        if key not in self._models:
            try:
                whole = about.st_size <= MOST_READ
                self._models[key] = None if not whole else model_hash(plan.layout.join(tensors_in(path.read_bytes())))
            except (OSError, WardroundError, KeyError, ValueError):
                self._models[key] = None
        return self._models[key]


def open_released(place: StudyFolder, release: Release, name: str) -> tuple[int, int] | None:
    """(descriptor, bytes) of a released file, or None when the release has no file of that name.

    The name is looked up in the release, and never becomes part of a path by itself; a link is not followed.

    Raises:
        UsageError: it is too long for a browser.
        Unavailable: it cannot be read now.
    """
    if name in {file.name for file in release.files}:
        path = place.path / name
    elif name in release.receipts:
        path = place.path / "receipts" / name
    else:
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        raise Unavailable(f"'{name}' cannot be read now", "look at the coordinator's disk") from None
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode) or about.st_size > MOST_BYTES:
        os.close(descriptor)
        raise UsageError(
            f"'{name}' is too long to be given to a browser", "copy it with 'wardround study fetch' on its machine"
        )
    return descriptor, about.st_size
