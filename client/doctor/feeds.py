"""The feeds that site.yaml names: can they be read, does their last event come from today, and are they read to an end?

Each is polled as a campaign does, from three days ago on where its source stamps what arrives, and nothing is kept. The
report says neither how many events there were nor what was in them.
"""

import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from wardround.client.doctor.examined import Examined
from wardround.client.doctor.words import Finding, failed, ok, warning
from wardround.client.feeds import open_feed
from wardround.client.feeds.events import Event
from wardround.client.feeds.hl7 import NOT_FOLLOWED, OTHER_KIND
from wardround.client.feeds.settings import FeedSource, Hl7FeedSource
from wardround.conf.said import Said, said
from wardround.protocol.errors import Unavailable, WardroundError

LOOK_BACK: Final = timedelta(days=3)
"""So much of a source that stamps what arrives is read; a feed without an event in it is a warning."""

MOST_POLLS: Final = 20
"""Of one feed, each of some 10,000 events: a folder that holds years is not read to its end."""

ALIKE: Final = 2
"""Polls that mostly gave what the poll before them gave: one may be a source that wrote its rows again."""

USUAL: Final = frozenset({OTHER_KIND, NOT_FOLLOWED})
"""What every hospital's engine writes besides: no warning."""

_AGES: Final = ((timedelta(hours=1), said("last hour")), (timedelta(days=1), said("last day")))


def check_feeds(examined: Examined, now: datetime | None = None) -> Iterator[Finding]:
    """Every feed of site.yaml; nothing where there is none."""
    if not examined.feeds or examined.site_folder is None:
        return
    at = datetime.now(UTC) if now is None else now
    for number, source in enumerate(examined.feeds, 1):
        try:
            yield from _examined(number, source, examined.site_folder, at)
        except Unavailable as error:
            yield failed(
                "feeds",
                said("Feed %(number)s of site.yaml does not answer: %(why)s.", number=number, why=error.message),
                "Check host, port and firewall, the drive, and that the system runs.",
            )
        except WardroundError as error:
            # Words of ours, which name settings, files of settings and columns, and quote no cell.
            yield failed(
                "feeds",
                said("Feed %(number)s of site.yaml cannot be read: %(why)s.", number=number, why=error.message),
                said("Mend it: %(hint)s.", hint=error.hint),
            )


def _examined(number: int, source: FeedSource, folder: Path, now: datetime) -> Iterator[Finding]:
    feed = open_feed(_recent(source, now), folder, os.urandom(32))
    aside, last, before, alike, whole, mark = Counter[str](), None, set[Event](), 0, False, None
    for _ in range(MOST_POLLS):
        events, mark = feed.poll(mark)
        aside.update(feed.set_aside)
        if not events:
            whole = True
            break
        alike += 2 * len(before.intersection(events)) > len(events)
        if alike >= ALIKE:
            yield failed(
                "feeds",
                said("Feed %(number)s of site.yaml gives the same events again and again.", number=number),
                "Its stamps or identifiers change whenever it is read: let the source store them.",
            )
            return
        before = set(events)
        newest = max((event.at for event in events if event.at <= now), default=None)
        last = max((at for at in (last, newest) if at is not None), default=None)
    odd = [reason for reason in sorted(aside) if reason not in USUAL]
    if odd:
        yield warning(
            "feeds",
            said(
                "Feed %(number)s of site.yaml sets aside some of what it reads: %(reasons)s.",
                number=number,
                reasons="; ".join(odd),
            ),
            "Mend the source or its settings, or figures are too small: wardround site feed check counts them.",
        )
    if whole and (last is None or now - last > LOOK_BACK):
        yield warning(
            "feeds",
            said("Feed %(number)s of site.yaml has no event of the last three days.", number=number),
            "Look whether the source still writes: a silent feed makes figures too small, and nobody is told.",
        )
    elif not odd:
        yield ok("feeds", _healthy(number, whole, None if last is None else now - last))


def _recent(source: FeedSource, now: datetime) -> FeedSource:
    """The same from ``LOOK_BACK`` ago on, where the source can be asked so."""
    if isinstance(source, Hl7FeedSource):
        return source
    begin = now - LOOK_BACK
    return source.model_copy(update={"since": begin if source.since is None else max(begin, source.since)})


def _healthy(number: int, whole: bool, age: timedelta | None) -> Said:
    if not whole or age is None:
        return said("Feed %(number)s of site.yaml can be read; it holds more than was looked at.", number=number)
    for least, words in _AGES:
        if age <= least:
            return said(
                "Feed %(number)s of site.yaml can be read; its last event is of the %(span)s.",
                number=number,
                span=words,
            )
    return said("Feed %(number)s of site.yaml can be read; its last event is of the last three days.", number=number)
