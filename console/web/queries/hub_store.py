"""A coordinator's database and folder as the console reads them: for reading only, and only what people may see.

Of what a study's process says of itself (``status.json``), closed lists of words are taken and nothing else: a text or
a number that is not known here is left out before any page can show it.
"""

import threading
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from wardround.protocol.messages import Standing
from wardround.protocol.plan import StudyPlan
from wardround.protocol.roster import Roster
from wardround.server.folder import CoordinatorFolder
from wardround.server.rounds import Outcome
from wardround.server.store.database import explained, read_database
from wardround.server.store.registry import StudyRow
from wardround.server.store.sites import JoinedSite, Sites, StoredInvitation
from wardround.server.store.studies import StudyFolder

STATUS: Final = "status.json"
_MOST_STATUS_BYTES: Final = 1 << 20


class Told(BaseModel):
    """What a study's process says of itself. ``standing``: of the sites that answered; ``sites``: in this round."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    state: Literal["proposed", "waiting for approvals", "running", "finished", "stopped"] = "proposed"
    round_number: int = 0
    attempt: int = 0
    phase: Literal["", "setting up secure aggregation", "training", "opening the sum", "handing out the model"] = ""
    seconds_left: float | None = None
    standing: dict[str, Standing] = {}
    sites: dict[str, Outcome] = {}
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Hub:
    """The coordinator's database at one moment. ``rosters``: every epoch, by digest."""

    studies: tuple[StudyRow, ...]
    sites: tuple[JoinedSite, ...]
    invitations: tuple[StoredInvitation, ...]
    roster: Roster | None
    rosters: dict[str, Roster]


class HubStore:
    """Reads one coordinator's folder. May be used from any thread."""

    def __init__(self, folder: CoordinatorFolder) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._plans: dict[str, StudyPlan] = {}
        self._rosters: dict[str, Roster] = {}

    def read(self) -> Hub:
        """What the database says now. Raises WardroundError when it cannot be read."""
        path = self._folder.database
        with self._lock, closing(read_database(path)) as store, explained(path):
            rows = store.execute(
                "SELECT digest, plan, state, wanted, created_at, note FROM studies ORDER BY created_at DESC, digest"
            ).fetchall()
            carried = store.execute("SELECT digest, content, in_force FROM rosters").fetchall()
            sites = Sites(store)
            joined, invited = tuple(sites.sites()), tuple(one for one in sites.invitations() if not one.used)
            # A plan and a roster never change, so each is parsed once.
            for digest, plan, *_ in rows:
                if digest not in self._plans:
                    self._plans[digest] = StudyPlan.parse(bytes(plan))
            for digest, content, _ in carried:
                if digest not in self._rosters:
                    self._rosters[digest] = Roster.parse(bytes(content))
            force = next((self._rosters[digest] for digest, _, in_force in carried if in_force), None)
            studies = tuple(StudyRow(self._plans[digest], *rest) for digest, _, *rest in rows)
            return Hub(studies, joined, invited, force, dict(self._rosters))

    def place(self, plan: StudyPlan) -> StudyFolder:
        """The study's folder, which may not be there yet."""
        return StudyFolder.of(self._folder.studies, plan)

    def told(self, plan: StudyPlan) -> Told | None:
        """What the study's process said last; None: it said nothing yet, or nothing that is known here."""
        content = _start_of(self.place(plan).path / STATUS)
        try:
            return None if content is None else Told.model_validate_json(content)
        except ValidationError:
            return None

    def watched(self) -> Connection:
        """The database for reading only, for a thread that watches it: close it."""
        return read_database(self._folder.database)

    def mark(self) -> tuple[object, ...]:
        """What changes whenever a study's folder or the file of alarms does; cheap enough for once a second."""
        witness = self._folder.witness
        found: list[object] = [_stamp(witness), _stamp(witness.with_name(f"{witness.name}-wal"))]
        try:
            places = sorted(self._folder.studies.iterdir())
        except OSError:
            places = []
        for place in places:
            found += [_stamp(place / name) for name in (STATUS, "receipts", "progress.bin", "model.safetensors")]
        return (*found, _stamp(self._folder.path / "coordinator.pid"))


def _start_of(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_STATUS_BYTES)
    except OSError:
        return None


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
