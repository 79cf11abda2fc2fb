"""Local training against loops written out by hand, and the count of steps against the charge."""

import numpy as np
import pytest

from wardround.client.training import StepCounter, StepsMismatch, shuffle_seed, train_plain, train_private
from wardround.privacy.gradients import Array, Examples
from wardround.privacy.mechanisms import noisy_sum
from wardround.privacy.sampling import poisson_sample
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.messages import LocalRule
from wardround.protocol.plan import LocalTraining

START = np.array([1.0, -2.0], np.float32)
PATIENTS = Examples(np.arange(12.0).reshape(6, 2), np.zeros((6, 1)), np.arange(6), 6)


class Quadratic:
    """Per patient 1/2 |w - x|^2: the gradient is w - x, so every step can be followed by hand."""

    size = 2

    def gradient_sum(self, parameters: Array, examples: Examples, clip_norm: float | None) -> Array:
        rows = parameters - examples.features
        if clip_norm is not None:
            norms = np.linalg.norm(rows, axis=1, keepdims=True)
            rows = rows * np.minimum(1.0, clip_norm / np.maximum(norms, 1e-300))
        return np.asarray(rows.sum(axis=0))

    def outputs(self, parameters: Array, features: Array) -> Array:
        return features @ parameters[:, None]

    def mean_loss(self, parameters: Array, examples: Examples) -> float:
        return float(0.5 * ((parameters - examples.features) ** 2).sum(axis=1).mean())


def test_a_full_batch_step_is_gradient_descent() -> None:
    after = train_plain(Quadratic(), START, PATIENTS, LocalRule(0.5), LocalTraining(steps=1, learning_rate=0.5), b"s")
    mean = PATIENTS.features.mean(axis=0)
    assert after.tolist() == pytest.approx((START - 0.5 * (START - mean)).tolist())


def test_the_proximal_pull_and_the_linear_term_enter_every_step() -> None:
    rule = LocalRule(0.1, proximal_mu=2.0, linear_term=np.array([0.5, 0.0], np.float32))
    after = train_plain(Quadratic(), START, PATIENTS, rule, LocalTraining(steps=3, learning_rate=0.1), b"s")
    w, start, mean = START.astype(float), START.astype(float), PATIENTS.features.mean(axis=0)
    for _ in range(3):
        w = w - 0.1 * ((w - mean) + 2.0 * (w - start) + np.array([0.5, 0.0]))
    assert after.tolist() == pytest.approx(w.tolist(), abs=1e-6)


@pytest.mark.parametrize(("size", "batches"), [(1, 6), (4, 2), (5, 2), (6, 1), (100, 1)])
def test_an_epoch_sees_every_patient_once(size: int, batches: int) -> None:
    seen: list[np.ndarray] = []

    class Spy(Quadratic):
        def gradient_sum(self, parameters: Array, examples: Examples, clip_norm: float | None) -> Array:
            seen.append(examples.features[:, 0])
            return np.zeros(2)

    train_plain(
        Spy(), START, PATIENTS, LocalRule(0.1), LocalTraining(epochs=1, batch_size=size, learning_rate=0.1), b"s"
    )
    assert len(seen) == batches and sorted(np.concatenate(seen)) == PATIENTS.features[:, 0].tolist()


def test_steps_run_on_over_the_end_of_a_pass_and_stop_exactly() -> None:
    calls: list[int] = []

    class Spy(Quadratic):
        def gradient_sum(self, parameters: Array, examples: Examples, clip_norm: float | None) -> Array:
            calls.append(examples.patients)
            return np.zeros(2)

    train_plain(Spy(), START, PATIENTS, LocalRule(0.1), LocalTraining(steps=5, batch_size=4, learning_rate=0.1), b"s")
    assert calls == [4, 2, 4, 2, 4]


def test_patients_with_several_records_stay_together_in_a_batch() -> None:
    several = Examples(np.arange(12.0).reshape(6, 2), np.zeros((6, 1)), np.array([0, 0, 0, 1, 2, 2]), 3)
    sizes: list[tuple[int, int]] = []

    class Spy(Quadratic):
        def gradient_sum(self, parameters: Array, examples: Examples, clip_norm: float | None) -> Array:
            sizes.append((examples.patients, len(examples.patient)))
            return np.zeros(2)

    train_plain(Spy(), START, several, LocalRule(0.1), LocalTraining(epochs=1, batch_size=1, learning_rate=0.1), b"s")
    assert sorted(sizes) == [(1, 1), (1, 2), (1, 3)]


def test_the_order_follows_from_study_site_and_round() -> None:
    seeds = {shuffle_seed(s, n, r) for s in (1, 2) for n in ("a", "b") for r in (1, 2)}
    assert len(seeds) == 8 and shuffle_seed(1, "a", 1) == shuffle_seed(1, "a", 1)


def fixed_bytes(count: int) -> bytes:
    return bytes((37 * i + 11) % 256 for i in range(count))


def test_a_private_round_is_a_function_of_its_random_bytes() -> None:
    event = PoissonGaussian(noise_multiplier=0.5, sampling_probability=0.5, steps=4, declared_patients=50)
    one, two = (
        train_private(Quadratic(), START, PATIENTS, LocalRule(0.1), event, 1.0, fixed_bytes, StepCounter())
        for _ in range(2)
    )
    assert np.array_equal(one, two) and not np.array_equal(one, START)


def test_every_step_of_a_private_round_has_a_sample_and_noise_of_its_own() -> None:
    event = PoissonGaussian(noise_multiplier=0.5, sampling_probability=0.5, steps=4, declared_patients=50)
    source, again = np.random.default_rng(3).bytes, np.random.default_rng(3).bytes
    mine = train_private(Quadratic(), START, PATIENTS, LocalRule(0.1), event, 1.0, source, StepCounter())
    # By hand: coins, then noise, for each of the four steps from one stream that is never turned back.
    w = START.astype(float)
    for _ in range(4):
        chosen = PATIENTS.take(poisson_sample(6, 0.5, again))
        w = w - 0.1 * noisy_sum(Quadratic().gradient_sum(w, chosen, 1.0), 1.0, 0.5, again) / (0.5 * 50)
    assert mine.tolist() == pytest.approx(w.tolist(), rel=1e-6)


def test_a_count_of_steps_that_is_not_the_charge_stops_the_round() -> None:
    event = PoissonGaussian(noise_multiplier=0.5, sampling_probability=0.5, steps=4, declared_patients=50)
    with pytest.raises(StepsMismatch, match="5 steps were taken, but the ledger was charged for 4"):
        train_private(
            Quadratic(), START, PATIENTS, LocalRule(0.1), event, 1.0, fixed_bytes, StepCounter(taken=1)
        )  # fmt: skip
