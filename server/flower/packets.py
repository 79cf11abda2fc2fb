"""Requests into Flower's records, and the plan and the parts of an answer out of them.

A packet is one ``ConfigRecord`` with the plan's digest, its small parts, and which parts are large; these are arrays of
bytes, which Flower carries in chunks. The other direction is ``client/flower/packets``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.app.message import array

NAME: Final = "wardround"
LARGE: Final = 256 * 1024
"""Bytes from which a part travels as an array of its own."""

CHUNK: Final = 1 << 20
"""Bytes in which arrays travel: every process on the way holds a few chunks at once, and each several times over."""

vars(array)["FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE"] = CHUNK


def part_of(segments: Sequence[bytes | memoryview]) -> bytes | Array:
    """A request for ``packed``: its bytes, in an array when they are many."""
    joined = b"".join(segments)
    return joined if len(joined) < LARGE else Array("uint8", (len(joined),), "raw", joined)


def packed(plan: str, parts: Sequence[bytes | Array]) -> RecordDict:
    """The records of one message. Messages that share an array share its chunks, which then travel once."""
    small = [part for part in parts if isinstance(part, bytes)]
    large = [part for part in parts if isinstance(part, Array)]
    order = "".join("s" if isinstance(part, bytes) else "l" for part in parts)
    records = RecordDict({NAME: ConfigRecord({"plan": plan, "order": order, "small": small})})
    if large:
        records["large"] = ArrayRecord({f"{number:04d}": part for number, part in enumerate(large)})
    return records


@dataclass(frozen=True, slots=True)
class Packet:
    """An answer; a large part of it is still an array of Flower's."""

    plan: str
    parts: tuple[bytes | Array, ...]


def unpacked(records: RecordDict) -> Packet:
    """What the records of one message say. Raises ValueError for records that are no packet."""
    config = records.config_records.get(NAME)
    if config is None or set(config) != {"plan", "order", "small"}:
        raise ValueError("no packet of this protocol")
    plan, order, small = config["plan"], config["order"], config["small"]
    arrays = records.array_records.get("large", ArrayRecord())
    if not isinstance(plan, str) or not isinstance(order, str) or not isinstance(small, list):
        raise ValueError("no packet of this protocol")
    if order.count("l") != len(arrays) or order.count("s") != len(small) or len(order) != len(arrays) + len(small):
        raise ValueError("a packet whose parts are not those that it names")
    few, many = iter(small), (arrays[name] for name in sorted(arrays))
    parts = list[bytes | Array]()
    for size in order:
        part = next(few) if size == "s" else next(many)
        if not isinstance(part, bytes | Array):
            raise ValueError("a part that is no bytes")
        parts.append(part)
    return Packet(plan, tuple(parts))
