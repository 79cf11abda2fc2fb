"""One answer out of Flower's store of objects, array by array: a large part goes to disk and never whole into memory.

Flower's own way pulls every object of a message and puts them together afterwards, at three times the answer's size.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from flwr.app import Array, Message
from flwr.app.message.arraychunk import ArrayChunk
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_object_body,
    get_object_head_values_from_object_content,
)
from flwr.supercore.inflatable.inflatable_utils import inflatable_class_registry, pull_objects

from wardround.protocol.outgoing import Stored
from wardround.server.flower.packets import unpacked
from wardround.server.spool import Spool

PULL_SECONDS: Final = 120.0
FIRST_WAIT: Final = 0.05
"""Seconds until an object that is still on its way is asked for again; each time twice as long."""

DEEPEST: Final = 4
"""Message, records, arrays, one array: nothing of this protocol lies deeper."""

SPOOLED: Final = 8 << 20
"""Bytes from which a part stays on disk."""

AT_ONCE: Final = 2
"""Chunks that are pulled at the same time."""


class Puller:
    """Pulls one answer.

    Args:
        pull: the bytes of an object.
        folder: where large parts lie while they are needed.
        most: bytes that the parts of an answer have at most.
    """

    def __init__(self, pull: Callable[[str], bytes], folder: Path, most: int) -> None:
        self._pull = pull
        self._folder = folder
        self._left = most
        self._arrays: dict[str, tuple[bytes, Sequence[str]]] = {}

    def answer(self, message_id: str) -> tuple[str, tuple[bytes | Stored, ...]]:
        """(plan, parts).

        Raises:
            ValueError: it is no packet of this protocol, or larger than any answer may be.
        """
        try:
            message = self._inflated(message_id, 1)
            if not isinstance(message, Message) or not message.has_content():
                raise ValueError("an answer without content")
            packet = unpacked(message.content)
            parts = (part if isinstance(part, bytes) else self._large(part) for part in packet.parts)
            return packet.plan, tuple(parts)
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError("an answer whose objects do not fit together") from error

    def _inflated(self, object_id: str, depth: int) -> InflatableObject:
        """An object with all that it holds, but of an array only that it is there."""
        content = self._pulled([object_id])[object_id]
        kind, children, _ = get_object_head_values_from_object_content(content)
        if kind == Array.__qualname__:
            self._arrays[object_id] = (content, children)
            # Records copy their arrays, so what stands for one names it where a copy keeps it.
            return Array("uint8", (0,), object_id, b"")
        if depth >= DEEPEST or kind not in inflatable_class_registry:
            raise ValueError("an object that no packet has")
        inside = {child: self._inflated(child, depth + 1) for child in children}
        return inflatable_class_registry[kind].inflate(content, children=inside)

    def _large(self, placeholder: Array) -> bytes | Stored:
        """The bytes of an array, a few chunks at a time."""
        content, children = self._arrays[placeholder.stype]
        order = [children[number] for number in json.loads(get_object_body(content, Array))["arraychunk_ids"]]
        spool = Spool(self._folder)
        for first in range(0, len(order), AT_ONCE):
            batch = order[first : first + AT_ONCE]
            found = self._pulled(sorted(set(batch)))
            for object_id in batch:
                spool.write(ArrayChunk.inflate(found[object_id]).data)
            self._left -= sum(len(content) for content in found.values())
            if self._left < 0:
                raise ValueError("an answer that is larger than any may be")
        return spool if len(spool) >= SPOOLED else spool.read(0, len(spool))

    def _pulled(self, object_ids: Sequence[str]) -> dict[str, bytes]:
        return pull_objects(
            list(object_ids),
            self._pull,
            max_concurrent_pulls=AT_ONCE,
            max_time=PULL_SECONDS,
            initial_backoff=FIRST_WAIT,
        )
