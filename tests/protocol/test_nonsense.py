"""No bytes from a coordinator or from a disk break the readers of plans and requests."""

import json
import os
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.protocol.errors import UsageError, WardroundError
from wardround.protocol.incoming import EXCHANGES, parse_ask
from wardround.protocol.plan import StudyPlan

EXECUTIONS = 20_000 if os.environ.get("WARDROUND_SOAK") else 150
MARKER = "Quillfeather"

JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from([MARKER, "0" * 64, 10**400, -(10**400), 2**53, "NaN"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


def lawful(read: Any) -> Any:
    try:
        return read()
    except WardroundError as error:
        first, hint = error.lines().split("\n")
        assert first.startswith("wardround: error: ") and hint.startswith("wardround: hint: ")
        assert MARKER not in error.lines() and len(error.lines()) < 500
    return None


@pytest.fixture(scope="module")
def plan() -> StudyPlan:
    from datetime import date

    configuration = parse_configuration(compose_configuration(["study=heart_disease"]))
    sites = ("cleveland", "hungarian", "switzerland", "va")
    return make_plan(configuration, dict.fromkeys(sites, 200), date(2026, 1, 1))


@settings(max_examples=EXECUTIONS, deadline=None)
@given(st.data())
def test_no_change_of_a_plans_bytes_is_taken_for_it(plan: StudyPlan, data: st.DataObject) -> None:
    content = bytearray(plan.canonical)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["set", "cut", "insert", "end"])):
            case "set":
                content[at] = data.draw(st.integers(0, 255))
            case "cut":
                del content[at : at + data.draw(st.integers(1, 30))]
            case "insert":
                content[at:at] = data.draw(st.binary(max_size=5) | st.just(MARKER.encode()))
            case "end":
                del content[max(at, 1) :]
        content = content or bytearray(b"x")
    found = lawful(lambda: StudyPlan.parse(bytes(content)))
    assert found is None or found.canonical == bytes(content)


@settings(max_examples=EXECUTIONS, deadline=None)
@given(st.data(), JSON)
def test_no_value_in_a_plan_breaks_its_reader(plan: StudyPlan, data: st.DataObject, odd: Any) -> None:
    whole = json.loads(plan.canonical)
    at: Any = whole
    while True:
        keys = sorted(at) if isinstance(at, dict) else list(range(len(at)))
        key = data.draw(st.sampled_from(keys))
        if isinstance(at[key], dict | list) and at[key] and data.draw(st.booleans()):
            at = at[key]
            continue
        at[key] = odd
        break
    lawful(lambda: StudyPlan.parse(json.dumps(whole).encode()))


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"null", b"[" * 100_000, b"\xff", b'{"study": "Quillfeather"}', b"9" * 9999]
)
def test_what_is_no_plan_is_said_in_two_lines(content: bytes) -> None:
    with pytest.raises(UsageError, match="no plan") as error:
        StudyPlan.parse(content)
    assert MARKER not in error.value.lines()


KINDS = sorted({kind.__name__ for kinds in EXCHANGES.values() for kind in kinds})
BODY = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("plan", "roster", "answers", "keys", "deals", "parcels", "agreements", "proposal", "survivors", "consents",
         "receipt", "origin", "checkpoint", "proof", "witness", "note", "nonce", "model_hash"), JSON,
    ),
) | st.fixed_dictionaries(
    {name: JSON | st.sampled_from([1, 0.5, False, True, None, "x", 10**400]) for name in
     ("plan", "round_number", "attempt", "model_hash", "learning_rate", "proximal_mu", "linear_term", "proposal")}
) | JSON  # fmt: skip


@settings(max_examples=EXECUTIONS, deadline=None)
@given(
    kind=st.sampled_from(KINDS) | JSON,
    body=BODY,
    rest=st.binary(max_size=16),
    wrong=st.none() | st.integers(0, 2**32 - 1),
)
def test_no_request_breaks_the_reader_of_requests(kind: Any, body: Any, rest: bytes, wrong: int | None) -> None:
    text = json.dumps({"kind": kind, "body": body}).encode()
    lawful(lambda: parse_ask(struct.pack(">I", len(text) if wrong is None else wrong) + text + rest))


@settings(max_examples=EXECUTIONS, deadline=None)
@given(st.binary(max_size=80))
def test_no_bytes_break_the_reader_of_requests(content: bytes) -> None:
    lawful(lambda: parse_ask(content))
    lawful(lambda: parse_ask(struct.pack(">I", len(content)) + content))
