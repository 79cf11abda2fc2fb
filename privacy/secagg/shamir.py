"""Shamir's secret sharing (1979): any t of n shares give the secret, t - 1 give nothing.

Byte by byte in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1, the field of AES: at most 255 parties, and a share is as long as
the secret. Many secrets of one dealer are shared in one call, because a session shares a stock of them.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

MAX_PARTIES: Final = 255
_POLYNOMIAL: Final = 0x11B
_GENERATOR: Final = 3


def _tables() -> tuple[Bytes, npt.NDArray[np.int64]]:
    """(powers of the generator, written twice so that no exponent needs reducing; logarithms)."""
    powers, logarithms, value = np.zeros(510, np.uint8), np.zeros(256, np.int64), 1
    for exponent in range(255):
        powers[exponent] = powers[exponent + 255] = value
        logarithms[value] = exponent
        doubled = value << 1
        value ^= doubled ^ (_POLYNOMIAL if doubled & 0x100 else 0)
    return powers, logarithms


_POWERS, _LOGARITHMS = _tables()


def share(secrets: Bytes, threshold: int, parties: int, randomness: bytes) -> Bytes:
    """Shares of every secret: ``shares[i]`` belongs to party i + 1.

    Args:
        secrets: shape (s, length).
        threshold: t; any t shares give the secret. 1 <= t <= parties <= 255.
        randomness: (t - 1) * s * length bytes from the operating system's CSPRNG: the other coefficients.

    Returns:
        Shape (parties, s, length).
    """
    if not 1 <= threshold <= parties <= MAX_PARTIES:
        raise ValueError(f"no {threshold} of {parties} sharing")
    if len(randomness) != (threshold - 1) * secrets.size:
        raise ValueError(f"{threshold} of {parties} sharing needs {(threshold - 1) * secrets.size} random bytes")
    coefficients = np.frombuffer(randomness, np.uint8).reshape(threshold - 1, *secrets.shape)
    shares = np.zeros((parties, *secrets.shape), np.uint8)
    for party in range(1, parties + 1):
        value = shares[party - 1]
        for coefficient in coefficients[::-1]:  # Horner's rule, the highest power first
            value[...] = _times(value ^ coefficient, party)
        value ^= secrets
    return shares


def reconstruct(shares: Mapping[int, Bytes]) -> Bytes:
    """The secret from the shares of exactly t parties, by party number from 1: Lagrange interpolation at 0.

    Too few or wrong shares give another value and no error: who opens must know t and check the shares.
    """
    numbers = list(shares)
    if not numbers or not all(1 <= number <= MAX_PARTIES for number in numbers):
        raise ValueError("shares are numbered from 1 to 255")
    secret = np.zeros_like(next(iter(shares.values())))
    for number, value in shares.items():
        # In a field of characteristic 2, x_j - x_i is x_j ^ x_i, and the product of x_j / (x_j - x_i) is:
        exponent = sum(int(_LOGARITHMS[other] - _LOGARITHMS[other ^ number]) for other in numbers if other != number)
        secret ^= _times(value, int(_POWERS[exponent % 255]))
    return secret


def _times(values: Bytes, factor: int) -> Bytes:
    """Every byte times ``factor``, which is not 0."""
    product: Bytes = _POWERS[_LOGARITHMS[values] + _LOGARITHMS[factor]]
    product[values == 0] = 0
    return product
