"""Random bytes for many hospitals at once.

A hospital asks the operating system for every byte. A simulation of a thousand hospitals would spend most of its time
there, so it expands 32 bytes of the operating system's into a key stream of AES-256 in counter mode (NIST SP 800-38A):
nobody who does not know the key tells it from random bytes. The key is drawn anew for each simulation, is kept in
memory only, and cannot be given.
"""

import os
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

Draw: TypeAlias = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], bytes]
"""Bytes for sites (S,) of these sizes (S,), the first site's first. Tests pass a stream of each site's own."""


def keystream() -> Draw:
    """Bytes of a stream under a key that is drawn here."""
    stream = Cipher(AES(os.urandom(32)), CTR(bytes(16))).encryptor()

    def draw(sites: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]) -> bytes:
        return stream.update(bytes(int(sizes.sum())))

    return draw
