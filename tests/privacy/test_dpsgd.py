"""One step of DP-SGD: sample, clip, add noise, divide by the declared size."""

import os
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardround.privacy.clipping import clip_factors
from wardround.privacy.dpsgd import clipped_sum, private_gradient
from wardround.privacy.gradients import Array, Examples
from wardround.privacy.mechanisms import noisy_sum
from wardround.privacy.sampling import poisson_sample
from wardround.protocol.errors import UsageError


class Rows:
    """A patient's gradient is its row of features, clipped; remembers the batches it was given."""

    def __init__(self, size: int = 3) -> None:
        self.size = size
        self.batches: list[int] = []

    def gradient_sum(self, parameters: Array, examples: Examples, clip_norm: float | None) -> Array:
        self.batches.append(examples.patients)
        assert clip_norm is not None
        rows = np.asarray(examples.features, np.float64)
        return clip_factors((rows * rows).sum(1), clip_norm) @ rows

    def outputs(self, parameters: Array, features: npt.NDArray[np.float64]) -> Array:
        raise NotImplementedError

    def mean_loss(self, parameters: Array, examples: Examples) -> float:
        raise NotImplementedError


def cohort(patients: int, size: int = 3) -> Examples:
    features = np.random.default_rng(0).normal(size=(patients, size))
    return Examples(features, np.zeros((patients, 1)), np.arange(patients), patients)


def stream(seed: int):
    return np.random.default_rng(seed).bytes


def step(engine: Rows, examples: Examples, random_bytes=os.urandom, **changed) -> Array:
    settings = {
        "clip_norm": 1.0,
        "noise_multiplier": 1.0,
        "sampling_probability": 0.5,
        "declared_patients": 50,
        "random_bytes": random_bytes,
    }
    return private_gradient(engine, np.zeros(engine.size), examples, **(settings | changed))


@given(seed=st.integers(0, 1000), at_once=st.integers(1, 40))
def test_is_sample_then_clip_then_noise_then_the_declared_mean(seed: int, at_once: int) -> None:
    examples, bytes_again = cohort(30), stream(seed)
    mine = step(Rows(), examples, stream(seed), patients_at_once=at_once)
    chosen = poisson_sample(30, 0.5, bytes_again)
    rows = examples.features[chosen]
    rows = rows * np.minimum(1.0, 1.0 / np.linalg.norm(rows, axis=1, keepdims=True))
    expected = noisy_sum(rows.sum(0), 1.0, 1.0, bytes_again) / (0.5 * 50)
    # two sums in another order may fall on neighbouring points of the lattice
    np.testing.assert_allclose(mine, expected, atol=2.0**-10 / 25)


def test_an_empty_batch_is_a_step_of_noise_alone() -> None:
    engine, nobody = Rows(100_000), cohort(1, 100_000).take(np.empty(0, np.int64))
    noise = step(engine, nobody, noise_multiplier=2.0)
    assert noise.std() == pytest.approx(2.0 / 25, rel=0.02)
    examples = cohort(5, 100_000)
    tiny = step(engine, examples, noise_multiplier=2.0, sampling_probability=1e-12, declared_patients=10**12)
    assert tiny.std() == pytest.approx(2.0, rel=0.02)
    assert not any(engine.batches)


def test_the_sum_is_divided_by_what_was_declared_and_not_by_who_came() -> None:
    examples = cohort(40)
    whole = clipped_sum(Rows(), np.zeros(3), examples, np.arange(40), 1.0)
    for declared in (40, 50, 100):
        mine = step(Rows(), examples, noise_multiplier=1e-9, sampling_probability=1.0, declared_patients=declared)
        np.testing.assert_allclose(mine, whole / declared, rtol=1e-6)


def test_large_batches_are_taken_in_chunks_and_never_cut() -> None:
    examples, engine = cohort(103), Rows()
    chunked = clipped_sum(engine, np.zeros(3), examples, np.arange(103), 1.0, patients_at_once=10)
    assert engine.batches == [10] * 10 + [3]
    np.testing.assert_allclose(chunked, clipped_sum(Rows(), np.zeros(3), examples, np.arange(103), 1.0), rtol=1e-12)


def test_noise_comes_from_the_bytes_and_is_fresh_at_every_step() -> None:
    examples, source = cohort(20), stream(1)
    everybody = {"sampling_probability": 1.0}  # so that only noise can differ
    assert step(Rows(), examples, stream(1)).tolist() == step(Rows(), examples, stream(1)).tolist()
    one, other = (step(Rows(), examples, source, **everybody).tolist() for _ in range(2))
    assert one != other
    one, other = (step(Rows(), examples, **everybody).tolist() for _ in range(2))
    assert one != other


def test_noise_of_the_mean_has_deviation_sigma_c_over_qn() -> None:
    examples = Examples(np.zeros((8, 50_000)), np.zeros((8, 1)), np.arange(8), 8)
    mine = step(Rows(50_000), examples, clip_norm=0.5, noise_multiplier=3.0)
    assert mine.std() == pytest.approx(3.0 * 0.5 / 25, rel=0.02)


@pytest.mark.parametrize(
    "changed",
    [
        *({"declared_patients": 0}, {"sampling_probability": 0.0}, {"sampling_probability": 1.5}),
        *({"noise_multiplier": 0.0}, {"clip_norm": 0.0}, {"patients_at_once": 0}),
    ],
)
def test_settings_that_protect_nobody_are_refused(changed: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        step(Rows(), cohort(5), **changed)


def test_neither_the_step_nor_the_closed_form_imports_torch() -> None:
    program = "import sys, wardround.privacy.dpsgd, wardround.privacy.closed_form; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
