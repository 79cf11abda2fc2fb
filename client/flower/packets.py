"""Requests out of Flower's records, and answers into them.

A packet is one ``ConfigRecord`` with the plan's digest, its small parts, and which parts are large; these are arrays of
bytes, which Flower carries in chunks. The coordinator's half is ``server/flower/packets``: the two sides share no
module that knows Flower.
"""

from collections.abc import Sequence
from typing import Final

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.app.message import array

NAME: Final = "wardround"
LARGE: Final = 256 * 1024
"""Bytes from which a part travels as an array of its own."""

CHUNK: Final = 1 << 20
"""Bytes in which arrays travel: every process on the way holds a few chunks at once, and each several times over."""

vars(array)["FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE"] = CHUNK


def packed(plan: str, parts: Sequence[bytes]) -> RecordDict:
    """The records of one message."""
    small = [part for part in parts if len(part) < LARGE]
    large = [part for part in parts if len(part) >= LARGE]
    order = "".join("s" if len(part) < LARGE else "l" for part in parts)
    records = RecordDict({NAME: ConfigRecord({"plan": plan, "order": order, "small": small})})
    if large:
        arrays = {f"{number:04d}": Array("uint8", (len(part),), "raw", part) for number, part in enumerate(large)}
        records["large"] = ArrayRecord(arrays)
    return records


def unpacked(records: RecordDict) -> tuple[str, list[bytes]]:
    """(plan, parts) of one message. Raises ValueError for records that are no packet."""
    config = records.config_records.get(NAME)
    if config is None or set(config) != {"plan", "order", "small"}:
        raise ValueError("no packet of this protocol")
    plan, order, small = config["plan"], config["order"], config["small"]
    arrays = records.array_records.get("large")
    names = sorted(arrays) if arrays is not None else []
    if not isinstance(plan, str) or not isinstance(order, str) or not isinstance(small, list):
        raise ValueError("no packet of this protocol")
    if order.count("l") != len(names) or order.count("s") != len(small) or len(order) != len(names) + len(small):
        raise ValueError("a packet whose parts are not those that it names")
    few, many = iter(small), iter(names)
    parts = []
    for size in order:
        part = next(few) if size == "s" else (arrays.pop(next(many)).data if arrays is not None else b"")
        if not isinstance(part, bytes):
            raise ValueError("a part that is no bytes")
        parts.append(part)
    return plan, parts
