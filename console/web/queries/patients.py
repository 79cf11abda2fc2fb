"""Patients' opt-outs as counts, and where they come from. No identifier is read from a source, and none is shown.

Every count is rounded up to the next 10, as in the ledger's ``start`` entries: beside the day of the last change an
exact one would say that the patient who asked yesterday is on the list. 0 is exact.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from sqlite3 import Connection
from typing import Final

from wardround.client.settings import Flag as FlagSource
from wardround.client.settings import ListOfIds, read_settings
from wardround.client.store.members import Part
from wardround.console.web.queries.ledger import Books
from wardround.protocol.errors import WardroundError

STEP: Final = 10
"""Counts are shown up to the next multiple of it."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where opt-outs are read before every round. ``kind``: list, column, fhir; ``changed``: the file's day, or ""."""

    kind: str
    path: str
    changed: str


@dataclass(frozen=True, slots=True)
class OptOutView:
    """``at_most``: patients who are opted out now; ``last_started_at_most``: whom the last round left out, None: none.

    ``changed``: the day of the last change, or ""; ``fault``: why the sources are not known, or "".
    """

    at_most: int
    changed: str
    ended_at_most: int
    test_at_most: int
    last_started_at_most: int | None
    sources: tuple[Source, ...]
    fault: str


def opt_out_view(books: Books, store: Connection, folder: Path) -> OptOutView:
    """What may be said; call it under ``LedgerReader.read``."""
    sources, fault = _sources(folder)
    (changed,) = store.execute("SELECT max(max(since, coalesce(until, ''))) FROM opt_outs").fetchone()
    return OptOutView(
        at_most=_up(_people(store, "SELECT id FROM opt_outs WHERE until IS NULL")),
        changed=(changed or "")[:10],
        ended_at_most=_up(
            _people(
                store,
                "SELECT id FROM opt_outs WHERE until IS NOT NULL "
                "AND id NOT IN (SELECT id FROM opt_outs WHERE until IS NULL)",
            )
        ),
        test_at_most=_up(_people(store, f"SELECT patient AS id FROM members WHERE part = '{Part.TEST.value}'")),
        last_started_at_most=next(reversed(books.state.started_without.values()), None),
        sources=sources,
        fault=fault,
    )


def _people(store: Connection, ids: str) -> int:
    """How many people the ids of a query are: merged ones are one."""
    (count,) = store.execute(
        f"SELECT count(DISTINCT coalesce(merged_ids.patient, chosen.id)) FROM ({ids}) AS chosen "
        "LEFT JOIN merged_ids ON merged_ids.id = chosen.id"
    ).fetchone()
    return int(count)


def _up(count: int) -> int:
    return -(-count // STEP) * STEP


def _sources(folder: Path) -> tuple[tuple[Source, ...], str]:
    try:
        settings = read_settings(folder)
    except WardroundError as error:
        return (), error.message
    kinds = {ListOfIds: "list", FlagSource: "column"}
    made = (Source(kinds.get(type(one), "fhir"), one.path, _day(folder / one.path)) for one in settings.opt_outs)
    return tuple(made), ""


def _day(path: Path) -> str:
    """The day (UTC) on which a file was last written; "" where there is none."""
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()
    except OSError:
        return ""
