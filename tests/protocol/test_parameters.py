"""Flat vectors, layouts and the public starting point."""

import pickle

import numpy as np
import pytest

from wardround.protocol.errors import UsageError
from wardround.protocol.parameters import Layout, Tensor, Total, Update, initial_weights, model_hash

LAYOUT = Layout((Tensor("dense0.weight", (3, 2), 2), Tensor("dense0.bias", (3,), 2)))


def test_splitting_and_joining_are_inverse() -> None:
    vector = np.arange(9, dtype=np.float32)
    views = LAYOUT.split(vector)
    assert views["dense0.weight"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert np.array_equal(LAYOUT.join(views), vector)


def test_a_vector_of_another_length_is_refused() -> None:
    with pytest.raises(UsageError, match="9 parameters"):
        LAYOUT.split(np.zeros(8, np.float32))


def test_layouts_that_differ_in_name_shape_or_order_have_other_digests() -> None:
    others = [
        Layout(LAYOUT.tensors[::-1]),
        Layout((Tensor("dense0.weight", (2, 3), 2), LAYOUT.tensors[1])),
        Layout((Tensor("dense1.weight", (3, 2), 2), LAYOUT.tensors[1])),
    ]
    assert len({LAYOUT.digest, *(layout.digest for layout in others)}) == 4


def test_initial_weights_are_bounded_by_fan_in_and_follow_from_the_seed_alone() -> None:
    first, again, other = (initial_weights(LAYOUT, "uniform", seed) for seed in (7, 7, 8))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert np.abs(first).max() <= 1 / np.sqrt(2) and len(set(first.tolist())) == 9
    # Pinned: these bytes are in approved plans, so they may never change.
    assert model_hash(first) == "08b1a4cab376c7566f5e01ace0297cbcad9c0c0267d5a428463c64a92e948a7d"


def test_initial_weights_fill_the_interval_evenly() -> None:
    wide = Layout((Tensor("w", (20_000,), 1),))
    weights = initial_weights(wide, "uniform", 1)
    # Uniform on (-1, 1): mean 0 and variance 1/3; the bounds are five standard errors.
    assert abs(weights.mean()) < 5 * np.sqrt(1 / 3 / 20_000)
    assert abs(weights.var() - 1 / 3) < 5 * np.sqrt((1 / 5 - 1 / 9) / 20_000)


def test_a_model_hash_is_of_the_little_endian_float32_bytes() -> None:
    assert model_hash(np.array([1.5], np.float32)) == model_hash(np.array([1.5], ">f4").astype(np.float32))
    assert model_hash(np.array([1.5], np.float32)) != model_hash(np.array([-1.5], np.float32))


def test_an_update_cannot_be_serialised() -> None:
    with pytest.raises(TypeError, match="one hospital"):
        pickle.dumps(Update(np.zeros(2, np.float32), 1.0))


def test_a_total_of_no_site_does_not_exist() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Total({"update": np.zeros(2)}, 0)
