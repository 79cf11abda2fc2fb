"""Pseudo-random masks: AES-256 in counter mode (NIST SP 800-38A), one key for one vector, counter from zero.

A key is an HKDF output that names session, round, attempt, participants, model and vector, and is used once. The stream
is added to a vector chunk by chunk, small enough for the cache, with one buffer and no temporaries: the cost is that of
the key stream and one addition for each byte.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from wardround.privacy.secagg.ring import Residues

KEY_SIZE: Final = 32
CHUNK: Final = 1 << 18
"""Bytes of key stream at a time: vector, zeros and stream of a chunk stay in a second-level cache."""

_ZEROS: Final = memoryview(bytes(CHUNK))


def add_masks(vector: Residues, masks: Iterable[tuple[bytes, int]]) -> None:
    """Add the stream of every key to ``vector`` (shape (d,), changed in place), or subtract it.

    Args:
        masks: (key of 32 bytes, +1 or -1).

    Raises:
        ValueError: a key has another length, a sign is neither, or the vector is not contiguous.
    """
    if not vector.flags.c_contiguous or vector.dtype.str not in ("<u4", "<u8"):
        raise ValueError("a vector is masked in one piece, as little-endian residues")
    streams = [(_stream(key), _operation(sign)) for key, sign in masks]
    buffer = np.empty(CHUNK // vector.itemsize, vector.dtype)
    per_chunk = len(buffer)
    for start in range(0, len(vector), per_chunk):
        part = vector[start : start + per_chunk]
        mask = buffer[: len(part)]
        raw = mask.data.cast("B")
        for stream, operation in streams:
            stream.update_into(_ZEROS[: part.nbytes], raw)
            operation(part, mask, out=part)


def key_stream(key: bytes, size: int) -> bytes:
    """The first ``size`` bytes of a key's stream."""
    return bytes(_stream(key).update(bytes(size)))


def _stream(key: bytes) -> CipherContext:
    if len(key) != KEY_SIZE:
        raise ValueError(f"a mask has a key of {KEY_SIZE} bytes")
    return Cipher(AES(key), CTR(bytes(16))).encryptor()


def _operation(sign: int) -> np.ufunc:
    if sign not in (1, -1):
        raise ValueError("a mask is added or subtracted")
    return np.add if sign > 0 else np.subtract


def pairwise(own: int, others: Sequence[int]) -> list[int]:
    """The sign of the mask that party ``own`` shares with each of ``others``: the lower number adds."""
    return [1 if own < other else -1 for other in others]
