"""Alarms on ledgers as both consoles show them: what is wrong with whose ledger, who said so, and whether it is open.

No evidence stands in a line: heads and statements are in the download.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from wardround.protocol.alarm import Alarm, AlarmKind


class Missing(StrEnum):
    """What has not come, of a silence. ``OTHER``: a word that is not known here."""

    NOTHING = ""
    COSIGNATURE = "cosignature"
    BULLETIN = "bulletin"
    PROOF = "proof"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class AlarmLine:
    """``origin``: whose ledger, or who is silent. ``by`` raised it at ``at``; it is known here since ``since``.

    ``answered``: since when it has an answer, None: it is open. ``own``: it is on the ledger of whose console this is.
    """

    kind: AlarmKind
    missing: Missing
    origin: str
    by: str
    at: str
    since: str
    answered: str | None
    digest: str
    own: bool

    @property
    def open(self) -> bool:
        return self.answered is None


def alarm_line(alarm: Alarm, since: str, answered: str | None, site: str) -> AlarmLine:
    """An alarm for the console of ``site``."""
    missing = Missing.NOTHING
    if alarm.kind is AlarmKind.SILENCE:
        known = alarm.first in {Missing.COSIGNATURE, Missing.BULLETIN, Missing.PROOF}
        missing = Missing(alarm.first) if known else Missing.OTHER
    return AlarmLine(
        kind=alarm.kind,
        missing=missing,
        origin=alarm.origin,
        by=alarm.by,
        at=alarm.at,
        since=since,
        answered=answered,
        digest=alarm.digest,
        own=alarm.origin == site,
    )


def ordered(lines: Iterable[AlarmLine]) -> tuple[AlarmLine, ...]:
    """Open ones first, of which those that prove themselves first, then the oldest; then the answered, newest first."""
    found = sorted(lines, key=lambda one: (one.since, one.digest))
    waiting = sorted((one for one in found if one.open), key=lambda one: one.kind is AlarmKind.SILENCE)
    return (*waiting, *reversed([one for one in found if not one.open]))
