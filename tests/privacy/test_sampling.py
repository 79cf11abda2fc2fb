"""Poisson sampling: each patient joins each step on its own with probability q."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardround.privacy import sampling
from wardround.privacy.sampling import poisson_sample
from wardround.protocol.errors import UsageError


def stream(seed: int):
    return np.random.default_rng(seed).bytes


def batches(patients: int, q: float, steps: int, seed: int = 1) -> np.ndarray:
    """Membership (steps, patients) of independent steps."""
    source, member = stream(seed), np.zeros((steps, patients), bool)
    for step in range(steps):
        member[step, poisson_sample(patients, q, source)] = True
    return member


def test_batch_size_has_the_mean_and_variance_of_a_binomial() -> None:
    patients, q, steps = 400, 0.1, 20_000
    sizes = batches(patients, q, steps).sum(1)
    expected = patients * q * (1 - q)
    assert sizes.mean() == pytest.approx(patients * q, abs=5 * np.sqrt(expected / steps))
    assert sizes.var() == pytest.approx(expected, rel=5 * np.sqrt(2 / steps))  # a shuffled batch would have 0


def test_steps_and_patients_are_independent() -> None:
    member = batches(2, 0.3, 40_000)
    noise = 5 / np.sqrt(len(member))
    assert abs(np.corrcoef(member[:, 0], member[:, 1])[0, 1]) < noise
    assert abs(np.corrcoef(member[1:, 0], member[:-1, 0])[0, 1]) < noise


def test_a_patient_is_taken_iff_its_eight_bytes_are_below_q_times_two_to_the_64() -> None:
    coins = np.array([0, 2**62 - 1, 2**62, 2**63, 2**64 - 1], "<u8").tobytes()
    assert poisson_sample(5, 0.25, lambda size: coins[:size]).tolist() == [0, 1]


def test_probability_one_takes_all_and_zero_none() -> None:
    assert poisson_sample(4, 1.0, lambda size: b"\xff" * size).tolist() == [0, 1, 2, 3]
    assert poisson_sample(4, 0.0, bytes).tolist() == []
    assert poisson_sample(0, 0.5, os.urandom).tolist() == []


@given(patients=st.integers(0, 60), q=st.floats(0, 1), seed=st.integers(0, 99), at_once=st.integers(1, 20))
def test_large_cohorts_are_drawn_in_chunks_with_the_same_result(
    patients: int, q: float, seed: int, at_once: int
) -> None:
    whole = poisson_sample(patients, q, stream(seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "_PATIENTS_AT_ONCE", at_once)
        # whole eight-byte draws of a numpy stream do not depend on how they are split
        assert poisson_sample(patients, q, stream(seed)).tolist() == whole.tolist()
    assert (np.diff(whole) > 0).all()
    assert whole.dtype == np.int64


def test_two_draws_from_the_operating_system_differ() -> None:
    assert poisson_sample(1000, 0.5, os.urandom).tolist() != poisson_sample(1000, 0.5, os.urandom).tolist()


@pytest.mark.parametrize("q", [-0.1, 1.1, float("nan")])
def test_a_probability_outside_0_to_1_is_refused(q: float) -> None:
    with pytest.raises(UsageError):
        poisson_sample(3, q, os.urandom)
