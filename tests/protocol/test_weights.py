"""Weights from a seed or a file: what is not the plan's file is not opened, and what does not fit is refused."""

from hashlib import sha256

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import save

from wardround.protocol.errors import UsageError
from wardround.protocol.parameters import Layout, Tensor, initial_weights
from wardround.protocol.weights import PublicSeed, WeightsFile, nothing_installed, weights_of

WANTED = (Tensor("one.weight", (2, 3), 3), Tensor("one.bias", (2,), 3))
TENSORS = {
    "one.bias": np.array([7.0, 8.0], np.float32),
    "one.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "another.head": np.ones((5, 5), np.float32),
}


def file_of(data: bytes) -> WeightsFile:
    return WeightsFile(
        sha256=sha256(data).hexdigest(), licence="CC-BY-4.0", provenance="trained on phantoms by this test"
    )


def test_the_tensors_of_a_file_come_in_the_networks_order_and_others_are_not_looked_at() -> None:
    data = save(TENSORS)
    found = weights_of(file_of(data), WANTED, lambda file: data)
    assert found.dtype == np.float32 and found.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 8.0]


def test_weights_of_a_seed_are_the_public_ones() -> None:
    found = weights_of(PublicSeed(seed=9), WANTED, nothing_installed)
    assert np.array_equal(found, initial_weights(Layout(WANTED), "uniform", 9))


def test_a_file_that_was_changed_by_one_bit_is_not_opened() -> None:
    data = bytearray(save(TENSORS))
    file = file_of(bytes(data))
    data[-1] ^= 1
    with pytest.raises(UsageError, match="has been changed"):
        weights_of(file, WANTED, lambda file: bytes(data))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"one.bias": None}, "no tensor 'one.bias'"),
        ({"one.bias": np.zeros(3, np.float32)}, "shape"),
        ({"one.bias": np.zeros(2, np.int32)}, "int32"),
        ({"one.bias": np.array([np.nan, 0.0], np.float32)}, "not finite"),
    ],
)
def test_a_file_of_another_network_is_refused_by_the_tensor_that_does_not_fit(
    change: dict[str, np.ndarray | None], said: str
) -> None:
    data = save({name: value for name, value in {**TENSORS, **change}.items() if value is not None})
    with pytest.raises(UsageError, match=said):
        weights_of(file_of(data), WANTED, lambda file: data)


def test_what_is_no_safetensors_file_is_refused_in_two_lines() -> None:
    for data in (b"", b"\x80\x04\x95pickle", b"\xff" * 64, save(TENSORS)[:40]):
        with pytest.raises(UsageError, match="no safetensors file"):
            weights_of(file_of(data), WANTED, lambda file, data=data: data)


def test_a_file_has_a_hash_a_licence_and_a_provenance() -> None:
    good = {"sha256": "a" * 64, "licence": "MIT", "provenance": "somebody, on public data"}
    WeightsFile.model_validate(good)
    for name, value in (("sha256", "a" * 63), ("sha256", "../../etc/passwd"), ("licence", ""), ("provenance", "me")):
        with pytest.raises(ValidationError):
            WeightsFile.model_validate(good | {name: value})


def test_a_file_that_is_not_installed_is_named_with_what_to_do() -> None:
    with pytest.raises(UsageError) as caught:
        weights_of(file_of(b"x"), WANTED, nothing_installed)
    assert "not installed" in caught.value.message and "docs/weights.md" in caught.value.hint
