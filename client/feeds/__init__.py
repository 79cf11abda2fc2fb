"""Sources that are tailed for live indicators: a view, a folder of HL7 v2 messages, a FHIR server."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from wardround.client.feeds.events import Feed
from wardround.client.feeds.settings import FeedSource, FhirFeedSource, SqlFeedSource
from wardround.client.feeds.watermark import feed_key


def open_feed(
    source: FeedSource, folder: Path, key: bytes, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Feed:
    """The feed that ``source`` describes; nothing is read or asked before the first poll.

    Args:
        folder: the site's, from which paths are taken.
        key: the site's 32 bytes, under which watermarks name what was read and are known as a feed's own.
        now: the time by which a source stamps what arrives; nothing later moves a watermark.
    """
    key = feed_key(key, source.kind, source.name)
    # SQLAlchemy and requests take a moment to import, and most sites have one feed.
    if isinstance(source, SqlFeedSource):
        from wardround.client.feeds.sql import SqlFeed

        return SqlFeed(source, folder / source.path, key, now)
    if isinstance(source, FhirFeedSource):
        from wardround.client.feeds.fhir import FhirFeed

        return FhirFeed(source, folder / source.path, key, now)
    from wardround.client.feeds.hl7 import Hl7Feed

    return Hl7Feed(source, folder / source.path, key)
