"""All feeds of a site as one: events in turn, one watermark that holds those of all, and no identifier in common."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from wardround.client.feeds.events import Event, Feed


class SeveralFeeds:
    """See ``Feed``. ``feeds`` by name; a feed that is added later is read from its beginning.

    A feed that cannot be read is an error of all: what it has to tell would be missing without anybody knowing.
    """

    def __init__(self, feeds: Mapping[str, Feed]) -> None:
        self._feeds = dict(sorted(feeds.items()))
        self.set_aside: Counter[str] = Counter()

    def poll(self, watermark: bytes | None) -> tuple[Sequence[Event], bytes]:
        marks: dict[str, str] = json.loads(watermark) if watermark else {}
        self.set_aside = Counter()
        for name, feed in self._feeds.items():
            events, mark = feed.poll(bytes.fromhex(marks[name]) if name in marks else None)
            self.set_aside += feed.set_aside
            marks[name] = mark.hex()
            if events:
                return [replace(event, identifier=f"{name}|{event.identifier}") for event in events], _packed(marks)
        return [], _packed(marks)


def _packed(marks: Mapping[str, str]) -> bytes:
    return json.dumps(marks, sort_keys=True).encode()
