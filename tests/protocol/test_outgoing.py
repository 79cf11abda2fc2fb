"""What may leave a site: made from a reply or a refusal only; anything else is refused by mypy and at run time."""

import copy
import dataclasses
import json
import pickle
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardround.protocol.errors import ProtocolViolation
from wardround.protocol.messages import Refusal, RefusalCode, Reply
from wardround.protocol.outgoing import Outgoing, bytes_to_send, outgoing, parse_answer

ROOT = Path(__file__).parents[2]
REPLY = Reply("north", "ab" * 32, 3, 1, "cd" * 32, np.array([1.5, -2.0, 0.0]))
REFUSAL = Refusal("north", "ab" * 32, 3, 1, RefusalCode.POLICY)


def test_an_answer_is_its_length_its_header_and_its_vector() -> None:
    data = bytes_to_send(outgoing(REPLY))
    (length,) = struct.unpack_from(">I", data)
    header = json.loads(data[4 : 4 + length])
    assert header == {"site": "north", "plan": "ab" * 32, "round_number": 3, "attempt": 1, "model_hash": "cd" * 32,
                      "refused": None}  # fmt: skip
    assert struct.unpack("<3d", data[4 + length :]) == (1.5, -2.0, 0.0)
    refused = bytes_to_send(outgoing(REFUSAL))
    assert json.loads(refused[4:])["refused"] == "policy" and len(refused) == 4 + struct.unpack_from(">I", refused)[0]


@given(st.lists(st.floats(allow_nan=False, width=64), max_size=20), st.integers(1, 2**52), st.integers(1, 2**52))
def test_what_is_sent_is_what_is_read(values: list[float], number: int, attempt: int) -> None:
    reply = Reply("north", "ab" * 32, number, attempt, "cd" * 32, np.array(values, np.float64))
    read = parse_answer(bytes_to_send(outgoing(reply)), "north")
    assert isinstance(read, Reply) and read.vector.tobytes() == reply.vector.tobytes()
    assert (read.site, read.plan, read.round_number, read.attempt) == ("north", "ab" * 32, number, attempt)
    refusal = Refusal("north", "ab" * 32, number, attempt, RefusalCode.UNAVAILABLE)
    assert parse_answer(bytes_to_send(outgoing(refusal)), "north") == refusal


@dataclass(frozen=True)
class Chatty(Refusal):
    note: str = "a patient's name"


@pytest.mark.parametrize(
    "thing",
    [
        b"bytes",
        "text",
        np.zeros(3),
        {"loss": 0.3},
        None,
        ("north", 1),
        Chatty("north", "ab" * 32, 3, 1, RefusalCode.POLICY),
    ],
)
def test_nothing_else_becomes_something_that_may_leave(thing: Any) -> None:
    unchecked: Any = Outgoing
    for attempt in (
        lambda: outgoing(thing),
        lambda: bytes_to_send(thing),
        lambda: unchecked(thing),
        lambda: unchecked(thing, object()),
    ):
        with pytest.raises(TypeError):
            attempt()


def test_what_may_leave_cannot_be_altered_or_copied_with_other_bytes() -> None:
    sealed: Any = outgoing(REPLY)
    with pytest.raises(AttributeError):
        sealed.content = b"something else"
    with pytest.raises(AttributeError):
        sealed._content = b"something else"
    with pytest.raises(AttributeError):
        sealed.note = b"something else"
    for copied in (copy.copy, copy.deepcopy, pickle.dumps, lambda one: dataclasses.replace(one, _content=b"else")):
        with pytest.raises(TypeError):
            copied(sealed)
    assert "1.5" not in repr(sealed)


SNIPPET = """
from wardround.protocol.messages import Refusal, Reply
from wardround.protocol.outgoing import Outgoing, bytes_to_send, outgoing

def good(reply: Reply, refusal: Refusal) -> bytes:
    return bytes_to_send(outgoing(reply)) + bytes_to_send(outgoing(refusal))

def bad(reply: Reply, loss: float, rows: bytes) -> None:
    bytes_to_send(reply)
    bytes_to_send(rows)
    outgoing(loss)
    outgoing({"loss": loss})

class Wider(Outgoing):
    pass
"""


def test_mypy_refuses_to_send_anything_else(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "scripts" / "link.py"], cwd=ROOT, check=True, capture_output=True)
    (tmp_path / "mypy.ini").write_text(
        f"[mypy]\nmypy_path = {ROOT / '.links'}\nnamespace_packages = True\nstrict = True\n"
    )
    words = ["--config-file", tmp_path / "mypy.ini", "--cache-dir", tmp_path / "cache", "-c", SNIPPET]
    done = subprocess.run([sys.executable, "-m", "mypy", *words], capture_output=True, text=True, timeout=300)
    told = [line.split(" error: ")[0] for line in done.stdout.splitlines() if " error: " in line]
    # Lines are numbered from 1, and the first is empty.
    assert told == [f"<string>:{line}:" for line in (9, 10, 11, 12, 14)], done.stdout


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00\x00",
        struct.pack(">I", 2**31) + b"{}",
        struct.pack(">I", 2) + b"{}",
        struct.pack(">I", 2) + b"{}" + bytes(7),
        bytes_to_send(outgoing(REPLY))[:-1],
        bytes_to_send(outgoing(REPLY)).replace(b'"attempt":1', b'"attempt":x'),
        bytes_to_send(outgoing(REPLY)).replace(b'"attempt":1', b'"secrets":1'),
        bytes_to_send(outgoing(REPLY)).replace(b'"refused":null', b'"refused":"why"'),
        bytes_to_send(outgoing(REPLY)).replace(b'"north"', b'"south"'),
        bytes_to_send(outgoing(REFUSAL)) + bytes(8),
        bytes_to_send(outgoing(REFUSAL)).replace(b'"policy"', b'"reason"'),
    ],
)
def test_bytes_that_are_no_answer_are_a_violation_of_the_protocol(data: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        parse_answer(data, "north")
