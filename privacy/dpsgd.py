"""One step of differentially private SGD: algorithm 1 of Abadi et al. 2016, with patients for examples.

Letters of the paper: L / N is ``sampling_probability``, C is ``clip_norm``, sigma is ``noise_multiplier``.
The sum is divided by the declared q * N and never by the size of the batch that was drawn, which is itself
private; an empty batch is a step of noise alone, because skipping it would tell that it was empty.
"""

from typing import Final

import numpy as np

from wardround.privacy.gradients import Array, Examples, GradientEngine, Indices, RandomBytes
from wardround.privacy.mechanisms import noisy_sum
from wardround.privacy.sampling import poisson_sample
from wardround.protocol.errors import UsageError

PATIENTS_AT_ONCE: Final = 1024


def private_gradient(
    engine: GradientEngine,
    parameters: Array,
    examples: Examples,
    *,
    clip_norm: float,
    noise_multiplier: float,
    sampling_probability: float,
    declared_patients: int,
    random_bytes: RandomBytes,
    patients_at_once: int = PATIENTS_AT_ONCE,
) -> Array:
    """The noised mean gradient of a Poisson batch, shape (d,): one sampled Gaussian mechanism.

    Random bytes are drawn first for the batch, then for the noise. ``patients_at_once`` bounds memory and
    changes nothing but the order of a sum. Raises UsageError when q, sigma, C or the declared number are
    out of range, or the loss couples patients.
    """
    if declared_patients < 1 or not sampling_probability > 0.0:
        raise UsageError(
            f"{declared_patients} declared patients at probability {sampling_probability} have no mean",
            "declare at least one patient and a sampling probability above 0",
        )
    chosen = poisson_sample(examples.patients, sampling_probability, random_bytes)
    total = clipped_sum(engine, parameters, examples, chosen, clip_norm, patients_at_once)
    noised = noisy_sum(total, clip_norm, noise_multiplier, random_bytes)
    noised /= sampling_probability * declared_patients
    return noised


def clipped_sum(
    engine: GradientEngine,
    parameters: Array,
    examples: Examples,
    chosen: Indices,
    clip_norm: float,
    patients_at_once: int = PATIENTS_AT_ONCE,
) -> Array:
    """Shape (d,): the sum of the ``chosen`` patients' clipped gradients, however many; none: zeros.

    The engine is asked for a sum over nobody too, so that one that keeps time does so then as well.
    """
    if patients_at_once < 1:
        raise UsageError(f"{patients_at_once} patients at once is no batch", "allow at least 1")
    if len(chosen) <= patients_at_once:
        return engine.gradient_sum(parameters, examples.take(chosen), clip_norm)
    total = np.zeros(engine.size)
    for first in range(0, len(chosen), patients_at_once):
        part = examples.take(chosen[first : first + patients_at_once])
        total += engine.gradient_sum(parameters, part, clip_norm)
    return total
