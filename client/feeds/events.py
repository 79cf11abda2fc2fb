"""What a feed gives: something that happened to a patient, once it has arrived, and where to read on from.

Delivery is at least once. The caller stores the watermark after the events are durably counted; after a crash it asks
again from the watermark that it still has, gets the same events, and knows them by their identifiers.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

KINDS: Final = ("visit", "admission", "discharge", "emergency", "waiting")
"""Kinds that feeds give by themselves; ``waiting`` has minutes as its amount, the others 1. Beds in use are admissions
less discharges."""

EVENTS_AT_ONCE: Final = 10_000
"""Events of one poll, so that a backlog of years never has to fit into memory; a file or page begun is taken whole."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event, or a correction of one: of all events with one identifier the one that arrived last counts.

    The ``repr`` shows nothing but the kind. What is stored of ``patient`` and ``identifier`` belongs under a keyed
    hash.

    Args:
        patient: the id as the source writes it, and as lists of opt-outs do.
        at: when it happened, with the zone UTC.
        amount: a finite number. 0 takes an event back; where nothing was counted under the identifier it is nothing.
        identifier: the same for all versions of one event, and no other event's of this feed.
    """

    patient: str = field(repr=False)
    at: datetime = field(repr=False)
    kind: str
    amount: float = field(repr=False)
    identifier: str = field(repr=False)


class Feed(Protocol):
    """A source that is asked again and again."""

    @property
    def set_aside(self) -> Counter[str]:
        """What the last poll could not use, counted by reason; a reason holds nothing of its content."""

    def poll(self, watermark: bytes | None) -> tuple[Sequence[Event], bytes]:
        """What has arrived since ``watermark`` was returned, late events included, in order of arrival.

        At most about ``EVENTS_AT_ONCE``: the caller asks until a poll is empty, which says that nothing more is there.
        Nothing is remembered between two polls but what the watermark holds, so an old watermark gives again what it
        gave, and perhaps more.

        Args:
            watermark: as the last poll returned it; None: everything that the source has.

        Raises:
            UsageError: settings, rights, or a watermark that is another feed's.
            Unavailable: the source cannot be reached, or broke off; nothing of this poll may be counted.
        """
