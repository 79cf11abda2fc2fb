"""A view of a database that hospital IT makes for this: one row an event, stamped when it came into the database.

Its columns are ``patient``, ``at``, ``kind``, ``amount``, ``identifier`` and ``arrived``; of two rows with one
identifier the one that arrived later counts, so a changed row needs a new stamp. One statement reads in the order of
(arrived, identifier), within one snapshot of the database, so that rows with one stamp are told apart and none is
passed over.
"""

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection as Session
from sqlalchemy import DateTime, case, column, func, inspect, literal, or_, select, table, text
from sqlalchemy.exc import DBAPIError, NoSuchTableError, SQLAlchemyError

from wardround.client.connectors.database import STREAMED, explained, open_engine
from wardround.client.feeds.events import Event
from wardround.client.feeds.settings import SqlFeedSource
from wardround.client.feeds.stamped import StampedFeed
from wardround.client.feeds.window import Window
from wardround.protocol.errors import UsageError

COLUMNS: Final = ("patient", "at", "kind", "amount", "identifier", "arrived")
_COARSE: Final = timedelta(hours=26)
"""Stamps without a zone are asked for from so much earlier: they may repeat an hour, or be compared as if in UTC. The
window itself is exact."""


class SqlFeed(StampedFeed[SqlFeedSource]):
    """A view as a feed."""

    def poll(self, watermark: bytes | None) -> tuple[Sequence[Event], bytes]:
        window, events = self._window(watermark), list[Event]()
        engine = open_engine(self._path)
        try:
            with engine.connect() as session:
                for row in self._rows(session, window.start):
                    self._take(row, window, events)
                    if len(events) >= self._at_once:
                        break
        except DBAPIError as error:
            raise explained(error) from None
        except NoSuchTableError:
            raise UsageError("the database has no such view", "check 'view' of this feed in site.yaml") from None
        except SQLAlchemyError as error:
            raise UsageError(f"the feed's view cannot be read ({type(error).__name__})", "check its columns") from None
        finally:
            engine.dispose()
        return events, window.packed()

    def _rows(self, session: Session, start: datetime | None) -> Iterator[Any]:
        lite = session.dialect.name == "sqlite"
        if lite:
            session.execute(text("PRAGMA query_only = ON"))
        schema, _, name = self._source.view.rpartition(".")
        types = {str(each["name"]): each["type"] for each in inspect(session).get_columns(name, schema or None)}
        if missing := [each for each in COLUMNS if each not in types]:
            raise UsageError(f"the feed's view has no column {missing[0]!r}", f"it has {', '.join(COLUMNS)}")
        stamp: Any = column("arrived")
        if lite:
            # SQLite has no type of times: texts with and without a zone are compared by what they say.
            stamp = func.strftime("%Y-%m-%d %H:%M:%f", stamp)
        elif not isinstance(types["arrived"], DateTime):
            raise UsageError("the column 'arrived' of the feed's view is no time", "make it a timestamp with time zone")
        asked: Any = select(*(column(name) if lite else _readable(name, types[name]) for name in COLUMNS)).select_from(
            table(name, schema=schema or None)
        )
        if start is not None:
            asked = asked.where(or_(column("arrived").is_(None), stamp >= self._bound(start, types["arrived"], lite)))
        result = session.execute(asked.order_by(stamp, column("identifier")), execution_options=STREAMED)
        for part in result.partitions():
            yield from part

    def _bound(self, start: datetime, kind: Any, lite: bool) -> Any:
        if not lite and kind.timezone:
            return literal(start, kind)
        early = (start - _COARSE).astimezone(self._clock.zone).replace(tzinfo=None)
        return early.isoformat(" ", "milliseconds") if lite else literal(early, kind)

    def _take(self, row: Any, window: Window, events: list[Event]) -> None:
        patient, at, kind, amount, identifier, arrived = row
        stamp = self._moment(arrived)
        if stamp is None:
            self.set_aside["a row whose 'arrived' is no time"] += 1
            return
        when, number = self._moment(at), _number(amount)
        # Times as moments: the driver writes them in the zone of its connection.
        fresh = window.take(stamp, repr((str(patient), str(when), str(kind), str(amount), str(identifier), str(stamp))))
        window.reach(stamp)
        if not fresh:
            return
        if patient is None or identifier is None or not str(patient).strip() or not str(identifier).strip():
            self.set_aside["a row without patient or identifier"] += 1
        elif when is None:
            self.set_aside["a row whose 'at' is no time"] += 1
        elif number is None:
            self.set_aside["a row whose 'amount' is no finite number"] += 1
        elif kind not in self._source.kinds:
            self.set_aside["a row of a kind that 'kinds' does not list"] += 1
        else:
            events.append(Event(str(patient).strip(), when, str(kind), number, str(identifier).strip()))

    def _moment(self, value: Any) -> datetime | None:
        """A cell as a moment; without a zone it is local time of the site, a day its midnight."""
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                return None
        return self._clock.moment(value) if isinstance(value, date) else None


def _readable(name: str, kind: Any) -> Any:
    """A column, and nothing where it holds infinity or a year that Python does not have, which stop the driver."""
    if not isinstance(kind, DateTime):
        return column(name)
    first, last = (literal(datetime(year, 1, 1, tzinfo=UTC if kind.timezone else None), kind) for year in (2, 9999))
    return case((column(name, kind).between(first, last), column(name, kind))).label(name)


def _number(value: Any) -> float | None:
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None
