"""Ring, masks, sharing and quantisation: exact where they promise it, and random where they must be."""

import math
import os
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.privacy.secagg.masks import CHUNK, add_masks, key_stream, pairwise
from wardround.privacy.secagg.quantize import Quantizer
from wardround.privacy.secagg.ring import SMALL, WIDE, Ring
from wardround.privacy.secagg.shamir import reconstruct, share
from wardround.protocol.errors import UsageError

KEY = bytes(range(32))


@pytest.mark.parametrize("ring", [SMALL, WIDE])
@given(data=st.data(), parties=st.integers(1, 100))
def test_a_sum_of_values_within_the_limit_is_the_integer_sum(ring: Ring, data: st.DataObject, parties: int) -> None:
    limit = ring.limit(parties)
    assert parties * limit < 2 ** (ring.bits - 1) <= parties * (limit + 1)
    values = data.draw(st.lists(st.integers(-limit, limit), min_size=parties, max_size=parties))
    for row in (values, [limit] * parties, [-limit] * parties):
        total = np.zeros(1, ring.dtype)
        for value in row:
            total += ring.encode(np.array([value]))
        assert ring.decode(total)[0] == sum(row)


def test_one_step_beyond_the_limit_may_wrap_around() -> None:
    beyond = SMALL.limit(3) + 1
    total = sum(SMALL.encode(np.array([beyond])) for _ in range(3))
    assert SMALL.decode(np.asarray(total, SMALL.dtype))[0] != 3 * beyond
    with pytest.raises(ValueError, match="none of 16"):
        Ring(16)


def test_the_mask_is_aes_in_counter_mode_from_zero() -> None:
    # Counter mode written out with the block cipher alone.
    blocks = b"".join(number.to_bytes(16, "big") for number in range(4))
    expected = Cipher(AES(KEY), ECB()).encryptor().update(blocks)
    assert key_stream(KEY, 64) == expected
    vector = np.zeros(16, "<u4")
    add_masks(vector, [(KEY, 1)])
    assert vector.tobytes() == expected


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("length", [0, 1, 5, CHUNK // 4 - 1, CHUNK // 4, CHUNK // 4 + 1, 3 * CHUNK // 4 + 7])
def test_masks_of_pairs_cancel_at_every_length(bits: int, length: int) -> None:
    ring, numbers = Ring(bits), (1, 2, 5)
    keys = {pair: os.urandom(32) for pair in combinations(numbers, 2)}
    total = np.zeros(length, ring.dtype)
    for own in numbers:
        others = [other for other in numbers if other != own]
        masks = [keys[min(own, other), max(own, other)] for other in others]
        vector = np.zeros(length, ring.dtype)
        add_masks(vector, zip(masks, pairwise(own, others), strict=True))
        assert length < 5 or vector.any()
        total += vector
    assert not total.any()


@pytest.mark.parametrize(
    ("vector", "masks"),
    [
        (np.zeros(8, "<u4")[::2], [(KEY, 1)]),
        (np.zeros(8, "<i4"), [(KEY, 1)]),
        (np.zeros(8, "<u4"), [(KEY[:16], 1)]),
        (np.zeros(8, "<u4"), [(KEY, 0)]),
    ],
)
def test_what_cannot_be_masked_is_refused(vector: "np.ndarray", masks: list[tuple[bytes, int]]) -> None:
    with pytest.raises(ValueError, match="mask"):
        add_masks(vector, masks)


def times(one: int, other: int) -> int:
    """Multiplication in GF(2^8), bit by bit (FIPS 197, section 4.2)."""
    product = 0
    for bit in range(8):
        if other >> bit & 1:
            product ^= one << bit
    for bit in range(15, 7, -1):
        if product >> bit & 1:
            product ^= 0x11B << (bit - 8)
    return product


def test_a_share_is_the_polynomial_at_the_partys_number() -> None:
    secret, first, second = 0x53, 0xCA, 0x1F
    shares = share(np.array([[secret]], np.uint8), 3, 255, bytes([first, second]))
    assert times(0x57, 0x83) == 0xC1  # the example of FIPS 197
    for number in range(1, 256):
        expected = secret ^ times(first, number) ^ times(second, times(number, number))
        assert shares[number - 1, 0, 0] == expected


@settings(max_examples=60, deadline=None)
@given(data=st.data(), parties=st.integers(1, 30))
def test_any_t_shares_give_the_secrets(data: st.DataObject, parties: int) -> None:
    threshold = data.draw(st.integers(1, parties))
    secrets = np.frombuffer(os.urandom(3 * 32), np.uint8).reshape(3, 32)
    shares = share(secrets, threshold, parties, os.urandom((threshold - 1) * secrets.size))
    chosen = data.draw(st.permutations(range(parties)))[:threshold]
    assert (reconstruct({number + 1: shares[number] for number in chosen}) == secrets).all()


def test_t_minus_one_shares_fit_every_secret_equally_well() -> None:
    """For fixed first shares each of the 256 secrets belongs to exactly one choice of the coefficient: exhaustive."""
    seen = set()
    for secret in range(256):
        matching = [c for c in range(256) if share(np.array([[secret]], np.uint8), 2, 2, bytes([c]))[0, 0, 0] == 0x42]
        assert len(matching) == 1
        seen.add(matching[0])
    assert len(seen) == 256


def test_a_sharing_that_cannot_be_is_refused() -> None:
    secret = np.zeros((1, 32), np.uint8)
    for threshold, parties, randomness in ((0, 3, b""), (4, 3, bytes(96)), (2, 256, bytes(32)), (2, 3, bytes(31))):
        with pytest.raises(ValueError, match="sharing"):
            share(secret, threshold, parties, randomness)
    with pytest.raises(ValueError, match="numbered"):
        reconstruct({0: secret})


QUANTIZER = Quantizer(SMALL, 4, ((3, 1.0), (2, 100.0)))


def test_the_step_is_the_smallest_power_of_two_that_leaves_room_for_every_summand() -> None:
    limit = SMALL.limit(4)
    for step, bound in zip(QUANTIZER.steps()[[0, 3]], (1.0, 100.0), strict=True):
        assert math.log2(step).is_integer() and bound / step <= limit < 2 * bound / step


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3), st.lists(st.floats(-100, 100), min_size=2, max_size=2))
def test_a_value_is_off_by_less_than_a_step_and_decoding_is_exact(small: list[float], large: list[float]) -> None:
    values = np.array(small + large)
    whole = QUANTIZER.quantize(values, os.urandom(32))
    back = QUANTIZER.dequantize(whole)
    assert (np.abs(back - values) < QUANTIZER.steps()).all()
    steps = QUANTIZER.steps()
    exact = [Fraction(int(unit)) * Fraction(float(step)) for unit, step in zip(whole, steps, strict=True)]
    assert [Fraction(float(value)) for value in back] == exact


def test_rounding_is_unbiased() -> None:
    """10^6 values a third of a step above an integer: the mean is off by more than 5 standard errors once in 10^6."""
    many = Quantizer(SMALL, 4, ((10**6, 1.0),))
    step = many.steps()[0]
    whole = many.quantize(np.full(10**6, (7 + 1 / 3) * step), os.urandom(32))
    assert set(np.unique(whole)) == {7, 8}
    error = abs(whole.mean() - (7 + 1 / 3)) / math.sqrt((1 / 3) * (2 / 3) / 10**6)
    assert error < 5
    # The control: rounding to the nearest would be off by a third of a step each time.
    nearest = np.rint(np.full(10**6, 7 + 1 / 3)).mean()
    assert abs(nearest - (7 + 1 / 3)) / math.sqrt((1 / 3) * (2 / 3) / 10**6) > 100


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(4),
        np.zeros(5, np.float32),
        np.array([0, 0, np.nan, 0, 0]),
        np.array([0, 0, np.inf, 0, 0]),
        np.array([0, 0, 2.5, 0, 0]),
        np.array([0, 0, 0, 0, -300.0]),
    ],
)
def test_a_vector_that_the_plan_does_not_allow_is_refused_and_never_clipped(values: "np.ndarray") -> None:
    with pytest.raises(UsageError):
        QUANTIZER.quantize(values, KEY)
