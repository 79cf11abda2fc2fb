"""What a reader of a clinical system yields: persons and events, and what it had to leave out.

Nothing here leaves the process that reads; no ``repr`` shows anything of a patient.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

from wardround.client.connectors.cohort_spec import Kind
from wardround.protocol.errors import UsageError

Version: TypeAlias = tuple[float, ...]
BOUND: Final = "a bound, not a number"
NOT_DAY: Final = "a time that is not to the day"
NOT_TIME: Final = "a time that is not understood"
PLACES: Final = 100
"""So many places are named; the rest is counted."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class LeftOut(Exception):
    """A piece of a source is left out; the text is a reason of a fixed list."""


@dataclass(frozen=True, slots=True)
class Person:
    """A patient. The ``repr`` shows nothing.

    Args:
        birth: day of birth; where only the year is known 1 July, where only the month is known its 15th.
        sex: male, female or other; None: not known.
        site_of_care: where the patient is treated, as the source names it.
        version: of two statements about a field the larger one counts; of equals the later read.
        listed: False: an event mentions something of the patient, but this does not make the patient known.
    """

    patient: str = field(repr=False)
    birth: date | None = field(default=None, repr=False)
    sex: str | None = field(default=None, repr=False)
    site_of_care: str | None = field(default=None, repr=False)
    version: Version = field(default=(), repr=False)
    listed: bool = True


class Event(NamedTuple):
    """Something that happened to a patient at a time. The ``repr`` shows nothing of it but its kind.

    A tuple, because a source has millions of them and a frozen dataclass takes four times as long to make.

    Args:
        codes: ``system:code``, each in every coding that the source gives.
        time: with a zone, or the site's local time without one; a date is its local midnight. None: not known.
        number: of a measurement, in ``unit`` (UCUM).
        text: the value where it is no number; a code is ``system:code``.
        key: what the source calls this event. Of all events with one key only that of the largest version counts;
            of equal versions the event that is read last. Empty: there is no other version.
        void: this version withdraws what came before under the key.
        problem: why the number cannot be used; a reason of a fixed list, without a value.
    """

    patient: str
    kind: Kind
    codes: tuple[str, ...] = ()
    time: datetime | date | None = None
    number: float | None = None
    text: str | None = None
    unit: str | None = None
    key: str = ""
    version: Version = ()
    void: bool = False
    problem: str = ""

    def __repr__(self) -> str:
        return f"Event(kind={self.kind!r})"


class Tally:
    """What was left out, counted by reason, and where: reasons hold no value of a patient.

    ``places`` names files and lines for the site's own eyes, the first 100.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.places: list[str] = []

    def add(self, reason: str, place: str = "", times: int = 1) -> None:
        self.counts[reason] += times
        if place and len(self.places) < PLACES:
            self.places.append(f"{place}: {reason}")

    def clear(self) -> None:
        """Forget everything: a source that is read again counts again."""
        self.counts.clear()
        self.places.clear()


class Clock:
    """Seconds since 1970 in UTC, from what sources write. Raises UsageError for an unknown zone."""

    def __init__(self, time_zone: str) -> None:
        try:
            self.zone = ZoneInfo(time_zone)
        except Exception:
            raise UsageError(
                f"there is no time zone '{time_zone}'", "write an IANA name, such as Europe/Berlin"
            ) from None

    def seconds(self, time: datetime | date | None) -> float | None:
        """None: there is no such time, or it lies outside the years 1 to 9999."""
        if time is None:
            return None
        try:
            if not isinstance(time, datetime):
                time = datetime(time.year, time.month, time.day, tzinfo=self.zone)
            elif time.tzinfo is None:
                time = time.replace(tzinfo=self.zone)
            return (time - _EPOCH).total_seconds()
        except (OverflowError, ValueError):
            return None

    def moment(self, time: datetime | date | None) -> datetime | None:
        """The same as a time in UTC."""
        seconds = self.seconds(time)
        try:
            return None if seconds is None else _EPOCH + timedelta(seconds=seconds)
        except OverflowError:
            return None

    def day(self, seconds: float) -> date:
        """The site's calendar day."""
        try:
            return (_EPOCH + timedelta(seconds=seconds)).astimezone(self.zone).date()
        except OverflowError:
            return date.max if seconds > 0 else date.min
