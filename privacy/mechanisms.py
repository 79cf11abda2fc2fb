"""The Gaussian mechanism on a lattice, with noise from the operating system's random bytes.

A seeded generator would let whoever knows the seed subtract the noise, so it is Box and Muller's transform
(1958) of bytes. The floating-point numbers near a sum betray it through their low bits (Mironov 2012), so
the noised sum is rounded to a grid that is public and much finer than the noise: what is released is a
point of that grid and nothing below it.
"""

import math
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from typing import Final

import numpy as np

from wardround.privacy.gradients import Array, RandomBytes
from wardround.protocol.errors import UsageError

STEPS_PER_DEVIATION: Final = 1024
"""The noise spans at least this many steps of the grid per standard deviation."""

_NUMBERS_AT_ONCE: Final = 1 << 14
_NUMBERS_DRAWN: Final = 1 << 19
_DRAWS_WAITING: Final = 4
_UNIT: Final = 2.0**-53


def gaussian(size: int, standard_deviation: float, random_bytes: RandomBytes) -> Array:
    """Independent normal numbers of mean 0, shape (size,), within 8.6 standard deviations.

    The result depends on the bytes alone, 16 for every two numbers.
    """
    normal = np.empty(size)
    _in_blocks(normal, random_bytes, lambda block, part, first: _box_muller(block, standard_deviation, part))
    return normal


def _in_blocks(target: Array, random_bytes: RandomBytes, work: Callable[[memoryview, Array, int], None]) -> None:
    """Call ``work(bytes, part of target, where it begins)`` for blocks that fit a processor cache.

    Of a large target, this thread draws the bytes, in order, while a second one works on what was drawn
    before. Draws are long, because the two would otherwise wait for the interpreter's lock at each other's
    every call.
    """
    size = len(target)

    def draw(first: int) -> bytes:
        return random_bytes(16 * ((min(_NUMBERS_DRAWN, size - first) + 1) // 2))

    def consume(drawn: bytes, begin: int) -> None:
        view = memoryview(drawn)
        for first in range(begin, min(begin + _NUMBERS_DRAWN, size), _NUMBERS_AT_ONCE):
            offset = 8 * (first - begin)
            part = target[first : first + _NUMBERS_AT_ONCE]
            work(view[offset : offset + 8 * _NUMBERS_AT_ONCE], part, first)

    if size <= _NUMBERS_DRAWN // 8:
        consume(draw(0), 0)
        return
    pending: deque[Future[None]] = deque()
    with ThreadPoolExecutor(max_workers=1) as pool:
        for begin in range(0, size, _NUMBERS_DRAWN):
            drawn = draw(begin)
            if len(pending) == _DRAWS_WAITING:
                pending.popleft().result()
            pending.append(pool.submit(consume, drawn, begin))
        for future in pending:
            future.result()


def _box_muller(block: memoryview, standard_deviation: float, target: Array) -> None:
    """Fill ``target``, shape (..., n), from 16 bytes for every two numbers of a row, rounded up."""
    uniform = (np.frombuffer(block, "<u8") >> np.uint64(11)).astype(np.float64)  # 53 bits: exact in a double
    uniform = uniform.reshape(*target.shape[:-1], -1)
    pairs = uniform.shape[-1] // 2
    radius, angle = uniform[..., :pairs], uniform[..., pairs:]
    radius += 1.0  # (0, 1] after scaling: the logarithm of 0 is never asked for
    radius *= _UNIT
    np.log(radius, out=radius)
    radius *= -2.0
    np.sqrt(radius, out=radius)
    radius *= standard_deviation
    angle *= 2.0 * math.pi * _UNIT
    first, second = target[..., :pairs], target[..., pairs:]
    np.cos(angle, out=first)
    first *= radius
    odd = second.shape[-1]  # one less than ``pairs`` when the last number is not asked for
    np.sin(angle[..., :odd], out=second)
    second *= radius[..., :odd]


def lattice_step(standard_deviation: float) -> float:
    """The largest power of two <= ``standard_deviation / 1024``. Raises UsageError unless positive."""
    if not (standard_deviation > 0 and math.isfinite(standard_deviation)):
        raise UsageError(
            f"noise of standard deviation {standard_deviation} protects nobody",
            "give a positive noise multiplier and clip norm, or a plan without differential privacy",
        )
    return math.ldexp(1.0, math.frexp(standard_deviation / STEPS_PER_DEVIATION)[1] - 1)


def to_lattice(values: Array, standard_deviation: float) -> Array:
    """``values`` rounded to multiples of ``lattice_step``; dividing by a power of two loses nothing."""
    step = lattice_step(standard_deviation)
    rounded: Array = values / step
    np.rint(rounded, out=rounded)
    rounded *= step
    return rounded


def noisy_sum(clipped_sum: Array, clip_norm: float, noise_multiplier: float, random_bytes: RandomBytes) -> Array:
    """A sum (d,) of vectors of 2-norm at most ``clip_norm``, plus noise of ``noise_multiplier * clip_norm``.

    Computed in double precision and rounded to the lattice. Raises ArithmeticError when a value is not
    finite, which means that clipping failed upstream.
    """
    standard_deviation = noise_multiplier * clip_norm
    step = lattice_step(standard_deviation)

    def noise_and_round(block: memoryview, part: Array, first: int) -> None:
        _box_muller(block, standard_deviation, part)
        part += clipped_sum[first : first + len(part)]
        part *= 1.0 / step  # as ``to_lattice``, without leaving the cache
        np.rint(part, out=part)
        part *= step
        if not math.isfinite(float(part.sum())) and not np.isfinite(part).all():
            raise ArithmeticError("a clipped sum is not finite")

    noised = np.empty(len(clipped_sum))
    _in_blocks(noised, random_bytes, noise_and_round)
    return noised


def noisy_sums(clipped_sums: Array, clip_norm: float, noise_multiplier: float, random_bytes: bytes) -> Array:
    """``noisy_sum`` of many sums (S, d) at once, for simulations of many sites.

    ``random_bytes`` holds for each row the bytes that ``noisy_sum`` would have asked for, the first row's first.
    """
    standard_deviation, (rows, size) = noise_multiplier * clip_norm, clipped_sums.shape
    taken, view = 16 * ((size + 1) // 2), memoryview(random_bytes)
    noised = np.empty_like(clipped_sums)
    at_once = max(1, _NUMBERS_AT_ONCE // size)
    for first in range(0, rows, at_once):
        part = noised[first : first + at_once]
        if size > _NUMBERS_AT_ONCE:  # one row fills several blocks
            stream = BytesIO(view[first * taken : (first + 1) * taken])
            part[0] = noisy_sum(clipped_sums[first], clip_norm, noise_multiplier, stream.read)
            continue
        _box_muller(view[first * taken : (first + len(part)) * taken], standard_deviation, part)
        part += clipped_sums[first : first + at_once]
        part[:] = to_lattice(part, standard_deviation)
        if not np.isfinite(part).all():
            raise ArithmeticError("a clipped sum is not finite")
    return noised
