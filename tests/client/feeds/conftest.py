"""A caller of feeds that counts as live indicators do: durably, by identifier, and with a crash now and then."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from wardround.client.feeds.events import Event, Feed

KEY = bytes(range(32))


@dataclass
class Counted:
    """What a site keeps: the last event of each identifier and the watermark. ``given``: every event that came."""

    watermark: bytes | None = None
    last: dict[str, tuple[str, object, str, float]] = field(default_factory=dict)
    given: list[Event] = field(default_factory=list)

    def poll(self, feed: Feed, crash: bool = False) -> int:
        """Poll once and count; after a crash the watermark is the old one. How many events there were."""
        events, watermark = feed.poll(self.watermark)
        for event in events:
            assert event.at.utcoffset() is not None and not event.at.utcoffset()
            self.last[event.identifier] = (event.patient, event.at, event.kind, event.amount)
        self.given += events
        if not crash:
            self.watermark = watermark
        return len(events)

    def drain(self, feed: Feed) -> "Counted":
        for _ in range(1000):
            if not self.poll(feed):
                return self
        raise AssertionError("the feed has no end")


@pytest.fixture
def counted() -> Iterator[Callable[[], Counted]]:
    yield Counted
