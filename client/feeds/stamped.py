"""What feeds have in common whose source stamps what arrives: a connection file, a zone, and a window to read again."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Generic, TypeVar

from wardround.client.connectors.events import Clock
from wardround.client.feeds.events import EVENTS_AT_ONCE
from wardround.client.feeds.settings import FhirFeedSource, SqlFeedSource
from wardround.client.feeds.window import Window

Source = TypeVar("Source", SqlFeedSource, FhirFeedSource)


class StampedFeed(Generic[Source]):
    """See ``Feed``. ``path``: the connection file; ``now``: this machine's clock; ``at_once``: events of a poll."""

    def __init__(
        self,
        source: Source,
        path: Path,
        key: bytes,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        at_once: int = EVENTS_AT_ONCE,
    ) -> None:
        self._source: Source = source
        self._path, self._key, self._now, self._at_once = path, key, now, at_once
        self._clock = Clock(source.time_zone)
        self._overlap = timedelta(minutes=source.overlap_minutes)
        self.set_aside: Counter[str] = Counter()

    def _window(self, watermark: bytes | None) -> Window:
        """The window that a poll begins with; what the last one set aside is forgotten."""
        self.set_aside = Counter()
        return Window(watermark, self._key, self._overlap, self._now, self._source.since)
