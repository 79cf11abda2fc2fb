"""One byte encoding: RFC 8785, and labels that keep purposes apart."""

import hashlib
import math

import numpy as np
import pytest

from wardround.protocol.canonical import LABEL_MODEL, LABEL_PLAN, digest, encode


def test_the_example_of_rfc_8785_section_3_2_4() -> None:
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"\u002f",
        "literals": [None, True, False],
    }
    assert encode(value) == (
        b'{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        b'"string":"\xe2\x82\xac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )


def test_the_order_of_keys_does_not_change_the_bytes() -> None:
    assert encode({"b": 1, "a": {"d": 2, "c": 3}}) == encode({"a": {"c": 3, "d": 2}, "b": 1})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2**53, {1: "key is no string"}])
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        encode(value)


def test_a_digest_is_sha256_over_label_zero_and_length_prefixed_parts() -> None:
    by_hand = hashlib.sha256(b"wardround/plan/1\x00" + (3).to_bytes(8, "big") + b"abc").hexdigest()
    assert digest(LABEL_PLAN, b"abc") == by_hand


def test_an_empty_part_is_a_part() -> None:
    assert digest(LABEL_PLAN, b"") == digest(LABEL_PLAN, np.zeros((0, 3))) != digest(LABEL_PLAN)


def test_purposes_and_part_borders_never_collide() -> None:
    assert digest(LABEL_PLAN, b"abc") != digest(LABEL_MODEL, b"abc")
    assert digest(LABEL_PLAN, b"ab", b"c") != digest(LABEL_PLAN, b"a", b"bc")
