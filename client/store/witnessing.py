"""Who has witnessed which ledger, up to which entry and when; and the alarms, with their evidence. Reads only, no
torch.

For screens: nothing is verified again here, because everything was before it was written.
"""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection

from wardround.client.store.database import explained, open_copy
from wardround.protocol.alarm import Alarm, AlarmKind, in_words, parse_alarm
from wardround.protocol.entry import parse_content
from wardround.protocol.ledger import Countersign
from wardround.protocol.witness import checkpoint_of


@dataclass(frozen=True, slots=True)
class Cosigned:
    """``witness`` has signed the first ``size`` entries of ``origin``'s ledger. ``at``: UTC; "": not known."""

    origin: str
    witness: str
    size: int
    at: str


@dataclass(frozen=True, slots=True)
class AlarmView:
    """An alarm as this site holds it. ``answered``: since when nothing more is asked of people; None: it is open.

    ``missing``: what has not come, of a silence; "" otherwise. ``content`` is the alarm with its evidence, canonical
    JSON: for export, and for anybody to verify.
    """

    kind: AlarmKind
    origin: str
    by: str
    at: str
    since: str
    answered: str | None
    about: str
    digest: str
    content: bytes
    missing: str


@dataclass(frozen=True, slots=True)
class Witnessing:
    """``own``: who has signed this site's ledger. ``others``: what this site has signed. ``alarms``: the oldest
    first.
    """

    entries: int
    own: tuple[Cosigned, ...]
    others: tuple[Cosigned, ...]
    alarms: tuple[AlarmView, ...]


def all_alarms(database: Path, site: str) -> tuple[AlarmView, ...]:
    """Alarms on ledgers, the oldest first. Raises as ``witnessing``."""
    with explained(database), closing(open_copy(database)) as store:
        return tuple(alarms_in(store, site))


def open_alarms(database: Path, site: str) -> tuple[AlarmView, ...]:
    """Those that nothing has answered."""
    return tuple(alarm for alarm in all_alarms(database, site) if alarm.answered is None)


def witnessing(database: Path, site: str) -> Witnessing:
    """What the database of ``site`` holds.

    Raises:
        UsageError: there is no such file, or it is no database of a site.
    """
    with explained(database), closing(open_copy(database)) as store:
        entries = int(store.execute("SELECT count(*) FROM entries WHERE site = ?", (site,)).fetchone()[0])
        # The fact's kind is in the content's one spelling; this reads the countersigned entries only.
        rows = store.execute(
            'SELECT content FROM entries WHERE site = ? AND instr(content, CAST(\'"kind":"countersign"\' AS BLOB)) > 0 '
            "ORDER BY number DESC LIMIT 2000",
            (site,),
        )
        own: dict[str, Cosigned] = {}
        for (content,) in rows:
            dated = parse_content(bytes(content))
            if isinstance(dated.fact, Countersign):
                one = Cosigned(site, dated.fact.signer, dated.fact.size, dated.at)
                own.setdefault(one.witness, one)
        times = signed_when(store)
        alarms = alarms_in(store, site)
        signed = store.execute("SELECT origin, note FROM witnessed ORDER BY origin").fetchall()
    others = tuple(
        Cosigned(origin, site, checkpoint_of(bytes(note), origin).head.size, times.get(origin, ""))
        for origin, note in signed
    )
    return Witnessing(entries, tuple(own[name] for name in sorted(own)), others, tuple(alarms))


def _watches(store: Connection) -> bool:
    """Whether this database has tables of alarms; one that was never opened by this version has none."""
    return bool(store.execute("SELECT count(*) FROM sqlite_master WHERE name = 'watched'").fetchone()[0])


def signed_when(store: Connection) -> dict[str, str]:
    """When this site has signed each other ledger last (UTC), by its site's name."""
    return dict(store.execute("SELECT origin, at FROM witnessed_at")) if _watches(store) else {}


def alarms_in(store: Connection, site: str) -> list[AlarmView]:
    """The alarms in an open database of ``site``, the oldest first; no entry of the ledger is read."""
    if not _watches(store):
        return []
    answers = dict(store.execute("SELECT key, since FROM watched WHERE kind = 'answer'"))
    rows = store.execute("SELECT content, since FROM watched WHERE kind = 'alarm'").fetchall()
    views = [_view(parse_alarm(bytes(content), site), since, answers) for content, since in rows]
    return sorted(views, key=lambda view: (view.since, view.digest))


def _view(alarm: Alarm, since: str, answers: dict[str, str]) -> AlarmView:
    answered = answers.get(alarm.digest)
    return AlarmView(
        kind=alarm.kind,
        origin=alarm.origin,
        by=alarm.by,
        at=alarm.at,
        since=since,
        answered=answered,
        about=in_words(alarm),
        digest=alarm.digest,
        content=alarm.canonical,
        missing=alarm.first if alarm.kind is AlarmKind.SILENCE else "",
    )
