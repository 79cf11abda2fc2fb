"""The Gaussian mechanism: calibrated noise, from random bytes alone, on a lattice."""

import math
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardround.privacy import mechanisms
from wardround.privacy.clipping import clip_factors
from wardround.privacy.mechanisms import gaussian, lattice_step, noisy_sum, to_lattice
from wardround.protocol.errors import UsageError

DEVIATIONS = st.floats(1e-6, 1e6)


def stream(seed: int):
    return np.random.default_rng(seed).bytes


def test_noise_is_normal_with_the_standard_deviation_asked_for() -> None:
    normal = np.sort(gaussian(400_001, 3.0, stream(1))) / 3.0
    assert normal.std() == pytest.approx(1.0, rel=5 / math.sqrt(2 * 400_001))
    assert abs(normal.mean()) < 5 / math.sqrt(400_001)
    cdf = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in normal[::100]])
    place = np.arange(0, 400_001, 100) / 400_001
    assert np.abs(cdf - place).max() < 2.0 / math.sqrt(400_001)  # Kolmogorov and Smirnov, far beyond 1 in 1000


def test_neighbours_in_the_vector_and_across_blocks_are_uncorrelated() -> None:
    normal = gaussian(200_000, 1.0, stream(2))
    for lag in (1, mechanisms._NUMBERS_AT_ONCE // 2, mechanisms._NUMBERS_AT_ONCE):
        assert abs(np.corrcoef(normal[lag:], normal[:-lag])[0, 1]) < 5 / math.sqrt(200_000 - lag)


@pytest.mark.parametrize("byte", [b"\x00", b"\xff"])
def test_no_bytes_give_an_infinite_number(byte: bytes) -> None:
    normal = gaussian(10, 1.0, lambda size: byte * size)
    assert np.isfinite(normal).all()
    assert np.abs(normal).max() < 8.6


def test_equal_bytes_give_equal_noise_and_the_operating_system_never_does() -> None:
    zeros = np.zeros(9)
    assert noisy_sum(zeros, 1.0, 2.0, stream(3)).tolist() == noisy_sum(zeros, 1.0, 2.0, stream(3)).tolist()
    assert noisy_sum(zeros, 1.0, 2.0, os.urandom).tolist() != noisy_sum(zeros, 1.0, 2.0, os.urandom).tolist()


@pytest.mark.parametrize("size", [1, 2, 999, 1000, 1001, 5555])
def test_two_threads_give_what_one_gives(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.linspace(-5, 5, size)
    monkeypatch.setattr(mechanisms, "_NUMBERS_AT_ONCE", 100)
    monkeypatch.setattr(mechanisms, "_NUMBERS_DRAWN", 10**6)
    alone = noisy_sum(values, 1.0, 1.0, stream(4))
    monkeypatch.setattr(mechanisms, "_NUMBERS_DRAWN", 400)  # a numpy stream is drawn in multiples of eight bytes
    assert noisy_sum(values, 1.0, 1.0, stream(4)).tolist() == alone.tolist()
    assert to_lattice(values + gaussian(size, 1.0, stream(4)), 1.0).tolist() == alone.tolist()


@given(deviation=DEVIATIONS)
def test_the_grid_is_a_power_of_two_just_under_a_1024th_of_the_noise(deviation: float) -> None:
    step = lattice_step(deviation)
    assert math.frexp(step)[0] == 0.5
    assert step <= deviation / 1024 < 2 * step


@given(deviation=DEVIATIONS, value=st.floats(-1e9, 1e9), seed=st.integers(0, 99))
def test_what_is_released_lies_on_the_grid_and_within_half_a_step(deviation: float, value: float, seed: int) -> None:
    step = lattice_step(deviation)
    rounded = to_lattice(np.array([value]), deviation)[0]
    assert abs(rounded - value) <= step / 2
    noised = noisy_sum(np.full(5, value), deviation, 1.0, stream(seed))
    for number in [rounded, *noised]:
        assert math.fmod(number, step) == 0.0


def test_noise_of_the_sum_has_deviation_multiplier_times_clip_norm() -> None:
    noised = noisy_sum(np.full(100_000, 7.0), 0.5, 3.0, stream(5))
    assert (noised - 7.0).std() == pytest.approx(1.5, rel=5 / math.sqrt(2 * 100_000))
    assert abs(noised.mean() - 7.0) < 5 * 1.5 / math.sqrt(100_000)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("size", [3, 200_000])
def test_a_sum_that_is_not_finite_never_leaves(bad: float, size: int) -> None:
    values = np.zeros(size)
    values[-1] = bad
    with pytest.raises(ArithmeticError):
        noisy_sum(values, 1.0, 1.0, os.urandom)


@pytest.mark.parametrize("multiplier", [0.0, -1.0, math.nan, math.inf])
def test_noise_that_is_none_is_refused(multiplier: float) -> None:
    with pytest.raises(UsageError):
        noisy_sum(np.zeros(2), 1.0, multiplier, os.urandom)


@given(norm=st.floats(0, 1e150), clip_norm=st.floats(1e-6, 1e6))
def test_a_clipped_norm_is_at_most_the_clip_norm_and_short_ones_stay(norm: float, clip_norm: float) -> None:
    factor = clip_factors(np.array([norm * norm]), clip_norm)[0]
    assert norm * factor <= clip_norm
    assert factor == (1.0 if norm < 0.999 * clip_norm else pytest.approx(min(1.0, clip_norm / norm), rel=1e-9))


def test_who_is_not_finite_has_factor_zero() -> None:
    assert clip_factors(np.array([np.nan, np.inf, 4.0]), 1.0).tolist() == [0.0, 0.0, pytest.approx(0.5)]


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, math.inf, math.nan])
def test_a_clip_norm_that_bounds_nothing_is_refused(clip_norm: float) -> None:
    with pytest.raises(UsageError):
        clip_factors(np.ones(1), clip_norm)
