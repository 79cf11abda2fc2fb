"""Packets there and back, and answers that are pulled in chunks: what fits comes whole, and nothing else comes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, no_object_id_recompute
from flwr.supercore.task_identity import TaskIdentity
from safetensors.numpy import load

from wardround.client.flower import packets as site
from wardround.privacy.secagg.ring import content_hash
from wardround.protocol.errors import ProtocolViolation
from wardround.protocol.messages import Done, Masked
from wardround.protocol.outgoing import bytes_to_send, outgoing, parse_answer
from wardround.protocol.parameters import Vector
from wardround.protocol.secagg import Upload
from wardround.protocol.tensors import tensor_parts
from wardround.server.exchange import said
from wardround.server.flower import answers, packets
from wardround.server.flower.answers import Puller
from wardround.server.spool import Spool

PLAN, MOST = "ab" * 32, 1 << 30
PATTERN = bytes(range(251)) * 20_000


@pytest.fixture(autouse=True)
def in_a_task() -> None:
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 2, 3


def stored(records: RecordDict) -> tuple[str, dict[str, bytes]]:
    """(id, objects by id) as a SuperLink has them."""
    message = Message(records, 1, "train.round", ttl=60.0)
    with no_object_id_recompute():
        objects = {key: found.deflate() for key, found in get_all_nested_objects(message).items()}
        return message.object_id, objects


def pulled(records: RecordDict, folder: Path, most: int = MOST) -> tuple[str, tuple[Any, ...]]:
    message_id, objects = stored(records)
    return Puller(objects.__getitem__, folder, most).answer(message_id)


def whole(part: Any) -> bytes:
    return part if isinstance(part, bytes) else part.read(0, len(part))


@pytest.mark.parametrize(
    "parts",
    [
        [b"one", b""],
        [PATTERN[: site.LARGE], b"small", PATTERN],
        [bytes(3 * site.CHUNK + 5)],
        [PATTERN * 2, b"between", PATTERN * 3],
    ],
    ids=["small", "mixed", "equal chunks", "on disk"],
)
def test_an_answer_comes_as_it_was_packed(parts: list[bytes], tmp_path: Path) -> None:
    plan, found = pulled(site.packed(PLAN, parts), tmp_path)
    assert plan == PLAN and [whole(part) for part in found] == parts
    assert [isinstance(part, Spool) for part in found] == [len(part) >= answers.SPOOLED for part in parts]
    assert not list(tmp_path.iterdir()), "what lies on disk has no name"


def test_a_request_comes_as_it_was_packed_and_is_held_once_for_all_sites() -> None:
    shared, own = packets.part_of([b"head", memoryview(PATTERN)]), [packets.part_of([b"a"]), packets.part_of([b"b"])]
    sent = [packets.packed(PLAN, [one, shared]) for one in own]
    both = [set(stored(records)[1]) for records in sent]
    chunks = -(-(len(PATTERN) + 4) // packets.CHUNK)
    assert len(both[0] & both[1]) >= chunks + 2, "chunks, their array and the record of arrays travel once"
    assert [site.unpacked(records) for records in sent] == [(PLAN, [one, b"head" + PATTERN]) for one in (b"a", b"b")]


def test_an_answer_that_is_larger_than_any_may_be_is_given_up_on_the_way(tmp_path: Path) -> None:
    message_id, objects = stored(site.packed(PLAN, [PATTERN]))
    asked = list[str]()

    def pull(object_id: str) -> bytes:
        asked.append(object_id)
        return objects[object_id]

    with pytest.raises(ValueError, match="larger"):
        Puller(pull, tmp_path, site.CHUNK).answer(message_id)
    assert len(asked) < len(objects)


def test_objects_that_lie_deeper_than_any_packet_end_nothing_but_the_answer(tmp_path: Path) -> None:
    message_id, objects = stored(site.packed(PLAN, [b"x"]))
    head = objects[message_id].split(b"\x00", 1)[0].split()
    loop = b" ".join([head[0], message_id.encode(), head[2]]) + b"\x00" + objects[message_id].split(b"\x00", 1)[1]
    with pytest.raises(ValueError, match="no packet has"):
        Puller(lambda _: loop, tmp_path, MOST).answer(message_id)


@pytest.mark.parametrize(
    "records",
    [
        RecordDict(),
        RecordDict({"wardround": ConfigRecord({"plan": PLAN, "order": "s", "small": []})}),
        RecordDict({"wardround": ConfigRecord({"plan": PLAN, "order": "ss", "small": [b"x"]})}),
        RecordDict({"wardround": ConfigRecord({"plan": PLAN, "order": "l", "small": [b"x"]})}),
        RecordDict({"wardround": ConfigRecord({"plan": 1, "order": "s", "small": [b"x"]})}),
        RecordDict({"wardround": ConfigRecord({"plan": PLAN, "order": "s", "small": ["x"]})}),
        RecordDict({"wardround": ConfigRecord({"plan": PLAN, "order": "s", "small": [b"x"], "more": 1})}),
        RecordDict({"large": ArrayRecord({"0": Array("uint8", (1,), "raw", b"x")})}),
    ],
)
def test_what_is_no_packet_is_refused_at_both_ends(records: RecordDict, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"packet|part|content"):
        pulled(records, tmp_path)
    with pytest.raises(ValueError, match=r"packet|part"):
        site.unpacked(records)


def test_a_large_answer_where_a_word_was_asked_for_is_the_sites_fault(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.write(b"x" * 10)
    with pytest.raises(ProtocolViolation, match="more than anybody asked for"):
        said(spool, "north", Done)


def test_an_answer_on_disk_reads_as_the_one_in_memory(tmp_path: Path) -> None:
    upload = Upload("north", "ab" * 32, "cd" * 32, bytes(64))
    vector = np.arange(3_000_000, dtype="<u4")
    data = bytes_to_send(outgoing(Masked("north", PLAN, 1, 1, "ef" * 32, upload, vector)))
    spool = Spool(tmp_path)
    spool.write(data)
    here, there = parse_answer(data, "north"), parse_answer(spool, "north")
    assert isinstance(here, Masked) and isinstance(there, Masked) and here.upload == there.upload == upload
    assert isinstance(here.vector, np.ndarray) and not isinstance(there.vector, np.ndarray)
    assert there.vector.size == vector.size and there.vector.dtype == vector.dtype
    assert all(np.array_equal(found, vector) for found in (here.vector, np.concatenate(list(there.vector))))
    assert content_hash(there.vector) == content_hash(vector)


@pytest.mark.parametrize("about", [None, {"plan": PLAN}])
def test_the_library_reads_the_tensors_that_are_written_without_it(about: dict[str, str] | None) -> None:
    model: Vector = np.arange(7, dtype=np.float32)
    tensors = {"layer.weight": model[:6].reshape(2, 3), "bias": model[6:], "memory": np.arange(3) / 3.0}
    data = b"".join(tensor_parts(tensors, about))
    found = load(data)
    assert {name: (array.dtype, array.shape) for name, array in found.items()} == {
        name: (array.dtype, array.shape) for name, array in tensors.items()
    }
    assert all(np.array_equal(found[name], tensors[name]) for name in tensors)
    size = int.from_bytes(data[:8], "little")
    assert json.loads(data[8 : 8 + size]).get("__metadata__") == about and size % 8 == 0
    with pytest.raises(TypeError):
        tensor_parts({"ids": np.arange(3)})
