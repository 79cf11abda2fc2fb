"""The folder of a sweep: what it is a sweep of, and which of its runs are done.

``sweep.json`` says which grid; ``runs/0001`` and so on are folders of runs like any other. A run is done when its
``result.json`` is there, which is written last and whole: so a sweep that was killed goes on where it stopped. A folder
belongs to one grid, one study and one version of the code, and one process at a time writes into it.
"""

import fcntl
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from wardround.conf.grid import Grid
from wardround.protocol.behaviour import behaviour
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.plan import StudyPlan
from wardround.server.store.checkpoint import write_checkpoint
from wardround.simulations.files import RunFolder
from wardround.simulations.result import SimulationResult


class Manifest(BaseModel):
    """What a folder is a sweep of: ``sweep.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["wardround/sweep/1"] = "wardround/sweep/1"
    words: tuple[str, ...]
    axes: dict[str, tuple[str, ...]]
    implied: tuple[str, ...]
    study_file: str | None
    plugins: tuple[str, ...]
    wardround: str
    behaviour: str


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that is done: its number from 1, its value on every axis, its plan and its result."""

    number: int
    settings: dict[str, str]
    plan: StudyPlan
    result: SimulationResult


@dataclass(frozen=True, slots=True)
class Failed:
    """A run that ended with an error, in two sentences."""

    number: int
    settings: dict[str, str]
    message: str
    hint: str


def manifest_of(words: Sequence[str], grid: Grid, plugins: Iterable[str]) -> Manifest:
    """What the folder of this sweep says; ``plugins``: digests of those that its runs use.

    Raises UsageError for a study file that cannot be read.
    """
    own = next((Path(word.partition("=")[2]) for word in grid.fixed if _own_study(word)), None)
    try:
        digest = None if own is None else sha256(own.read_bytes()).hexdigest()
    except OSError:
        raise UsageError(f"no study file '{own}' that can be read", "give the path of a YAML file") from None
    return Manifest(
        words=tuple(words),
        axes={axis.key: axis.values for axis in grid.axes},
        implied=grid.implied,
        study_file=digest,
        plugins=tuple(sorted(set(plugins))),
        wardround=version("wardround"),
        behaviour=behaviour(),
    )


def _own_study(word: str) -> bool:
    return word.startswith("study=") and word.endswith((".yaml", ".yml"))


@dataclass(frozen=True, slots=True)
class SweepFolder:
    """Where a sweep lies."""

    path: Path

    def words(self) -> tuple[str, ...]:
        """The words of the sweep that lies here. Raises UsageError where none does."""
        return self._manifest().words

    def claim(self, manifest: Manifest) -> None:
        """Begin a sweep here, or go on with it.

        Raises:
            UsageError: the folder holds another sweep, or something else.
            Unavailable: it cannot be written.
        """
        if (self.path / "sweep.json").exists():
            self._same(manifest)
            return
        if self.path.exists() and any(self.path.iterdir()):
            raise UsageError(f"'{self.path}' holds something else than a sweep", "give a new folder")
        try:
            (self.path / "runs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(
                f"the folder '{self.path}' cannot be made: {error.strerror}", "give another: --folder FOLDER"
            ) from None
        write_checkpoint(self.path / "sweep.json", manifest.model_dump_json(indent=2).encode() + b"\n")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder against a second sweep; a killed one lets it go. Raises UsageError if another holds it."""
        with (self.path / "sweep.lock").open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UsageError(
                    f"another process works on the sweep in '{self.path}'", "wait for it, or stop it"
                ) from None
            yield

    def run(self, number: int) -> RunFolder:
        return RunFolder(self.path / "runs" / f"{number:04d}")

    def is_done(self, number: int) -> bool:
        folder = self.run(number).path
        return (folder / "result.json").exists() and (folder / "report.html").exists()

    def fail(self, number: int, message: str, hint: str) -> None:
        """Note why a run failed; it is tried again when the sweep goes on."""
        folder = self.run(number).path
        folder.mkdir(parents=True, exist_ok=True)
        write_checkpoint(folder / "failed.json", json.dumps({"message": message, "hint": hint}).encode() + b"\n")

    def outcomes(self, grid: Grid) -> tuple[list[Finished], list[Failed]]:
        """What the runs of the grid came to, in its order; runs that have not ended are in neither list."""
        finished, failed = [], []
        for number, point in enumerate(grid.points, 1):
            folder = self.run(number).path
            settings = dict(point.settings)
            if self.is_done(number):
                finished.append(Finished(number, settings, *self.run(number).finished()))
            elif (folder / "failed.json").exists():
                said: dict[str, Any] = json.loads((folder / "failed.json").read_bytes())
                failed.append(Failed(number, settings, str(said["message"]), str(said["hint"])))
        return finished, failed

    def _manifest(self) -> Manifest:
        try:
            return Manifest.model_validate_json((self.path / "sweep.json").read_bytes())
        except (OSError, ValueError):
            raise UsageError(f"'{self.path}' is not the folder of a sweep", "give the folder of one") from None

    def _same(self, manifest: Manifest) -> None:
        there = self._manifest()
        if there == manifest:
            return
        if there.words != manifest.words:
            words = " ".join(there.words)
            raise UsageError(f"'{self.path}' is the folder of another sweep", f"that one is: {words}")
        changed = {
            "study file": there.study_file != manifest.study_file,
            "plugin": there.plugins != manifest.plugins,
            "version of Wardround": True,
        }
        what = next(name for name, is_another in changed.items() if is_another)
        raise UsageError(
            f"the sweep in '{self.path}' was begun with another {what}",
            "runs of two kinds cannot be compared: begin again in a new folder",
        )
