"""Why Flower's SecAgg+ is not used: what is shown here of the installed flwr would have to change first.

Its masks come from numpy's Mersenne Twister, seeded by the exclusive or of a key's 32-bit words. A pair's key is text
in base64, so the top bit of every byte is 0, and a pair's mask is one of 2^28: few enough to try them all.
Should a test fail after an update of flwr, the design's reasons are to be read again; nothing of ours is broken.
"""

import base64
import os
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.client.mod.secure_aggregation.secaggplus_mod import SecAggPlusState, _unmask
from flwr.common import ndarray_to_bytes
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.secaggplus_constants import Key
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

from wardround.privacy.secagg.keys import pair_mask_key
from wardround.privacy.secagg.masks import key_stream

MOD_RANGE = 1 << 32
KEYS = 100_000

Words = np.ndarray[Any, np.dtype[np.uint32]]


def pair_key() -> bytes:
    """A key as two clients of Flower agree on it."""
    one, other = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    return generate_shared_key(one, other.public_key())


def folded(keys: list[bytes]) -> Words:
    """The exclusive or of the little-endian words of each key."""
    found: Words = np.bitwise_xor.reduce(np.frombuffer(b"".join(keys), "<u4").reshape(len(keys), -1), axis=1)
    return found


def repeats(seeds: Words) -> int:
    """Keys whose seed another key has had already."""
    return len(seeds) - len(np.unique(seeds))


@pytest.fixture(scope="module")
def random_keys() -> list[bytes]:
    """100,000 keys of 32 uniform bytes, with a fixed seed, so that the counts below never change."""
    block = np.random.Generator(np.random.PCG64(20)).bytes(32 * KEYS)
    return [block[start : start + 32] for start in range(0, len(block), 32)]


def test_a_mask_is_seeded_by_the_folded_words_of_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the seed that flwr hands to numpy, for real keys of a pair and for the 32 bytes of a private mask."""
    keys: list[bytes] = [*(pair_key() for _ in range(20)), os.urandom(32)]
    seeds: list[int] = []
    real = np.random.RandomState

    def seeded(seed: int) -> np.random.RandomState:
        seeds.append(seed)
        return real(seed)

    monkeypatch.setattr(np.random, "RandomState", seeded)
    for key in keys:
        pseudo_rand_gen(key, MOD_RANGE, [(3,)])
    assert seeds == [int(folded([key])[0]) for key in keys]


def test_the_key_of_a_pair_is_text_so_28_bits_of_its_seed_can_vary(random_keys: list[bytes]) -> None:
    for key in (pair_key() for _ in range(20)):
        assert len(key) == 44 and len(base64.urlsafe_b64decode(key)) == 32
    seeds = folded([base64.urlsafe_b64encode(key) for key in random_keys])
    varying = int(np.bitwise_or.reduce(seeds) ^ np.bitwise_and.reduce(seeds))
    assert varying == 0x7F7F7F7F and varying.bit_count() == 28


def test_pairs_meet_the_same_seed_as_often_as_among_2_to_the_28(random_keys: list[bytes]) -> None:
    """Expected: k^2 / 2^29 = 18.6 (sd 4.3). Control: raw keys fold to 32 bits, 1.2 expected; our keys do not meet."""
    assert 6 <= repeats(folded([base64.urlsafe_b64encode(key) for key in random_keys])) <= 36
    assert repeats(folded(random_keys)) <= 6
    ours = [pair_mask_key(key, "ab" * 32) for key in random_keys[:2000]]
    assert len(set(ours)) == len(ours)
    bits = np.unpackbits(np.frombuffer(b"".join(ours), np.uint8).reshape(len(ours), 32), axis=1).mean(axis=0)
    assert bits.shape == (256,) and 0.43 < bits.min() <= bits.max() < 0.57  # 6 sd of 2,000 tosses


def test_two_keys_with_the_same_words_in_another_order_give_the_same_mask() -> None:
    key = pair_key()
    other = key[4:8] + key[:4] + key[8:]
    assert other != key
    (mask,), (again,) = (pseudo_rand_gen(each, MOD_RANGE, [(1000,)]) for each in (key, other))
    assert np.array_equal(mask, again)
    assert key_stream(key[:32], 4000) != key_stream(other[:32], 4000), "ours must not"


def test_a_mask_is_found_by_trying_seeds() -> None:
    """Here with all but twelve bits given, so that it is quick; 2^16 times as much work finds any mask of a pair."""
    key = pair_key()
    secret = np.arange(5, dtype=np.int64)  # what a client of two hides
    seen = (secret + pseudo_rand_gen(key, MOD_RANGE, [(5,)])[0]) % MOD_RANGE
    seed = int(folded([key])[0])
    found = []
    for guess in range(1 << 12):
        low = (guess & 0x7F) | (guess >> 7) << 8
        candidate = (seed & ~0x1F7F) | low
        opened = (seen - np.random.RandomState(candidate).randint(0, MOD_RANGE - 1, 5, np.int64)) % MOD_RANGE
        if opened.max() < 1 << 22:  # in Flower's range of quantisation: five coordinates leave no doubt
            found.append((candidate, opened.tolist()))
    assert found == [(seed, secret.tolist())]


def test_a_mask_never_takes_the_largest_residue() -> None:
    """``randint`` excludes its upper end, and flwr takes one off before: in a ring of four, a mask is 0, 1 or 2."""
    (mask,) = pseudo_rand_gen(pair_key(), 4, [(10_000,)])
    assert set(mask.tolist()) == {0, 1, 2}
    ours = np.frombuffer(key_stream(os.urandom(32), 10_000), np.uint8) & 3
    assert set(ours.tolist()) == {0, 1, 2, 3}


def test_a_client_hands_out_both_secrets_of_one_node() -> None:
    """A coordinator that calls node 7 active and dead gets the shares of its own mask and of its pairwise key."""
    state = SecAggPlusState(nid=1, threshold=2)
    state.rd_seed_share_dict = {7: b"share of the mask", 8: b"x"}
    state.sk1_share_dict = {7: b"share of the key"}
    asked: Any = {Key.ACTIVE_NODE_ID_LIST: [7, 8], Key.DEAD_NODE_ID_LIST: [7]}
    sent: Any = _unmask(state, asked)
    assert {b"share of the mask", b"share of the key"} <= set(sent[Key.SHARE_LIST])


def test_a_masked_parameter_is_eight_bytes_on_the_wire() -> None:
    (mask,) = pseudo_rand_gen(pair_key(), MOD_RANGE, [(1000,)])
    assert mask.dtype == np.int64 and len(ndarray_to_bytes(mask)) > 8000
