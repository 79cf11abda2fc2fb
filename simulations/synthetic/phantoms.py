"""Pictures of nobody: a CT slice of a chest, a chest X-ray, a head in MRI, drawn from ellipses and noise.

The finding that a study looks for has a fixed strength, so what can be learnt is known: ``ENHANCEMENT`` Hounsfield
units where a contrast agent was given, ``OPACITY`` of the X-ray's range, ``LESION`` of the brightness of grey matter.
Anatomy varies by patient and noise by picture; scanners differ in noise, kernel and padding.

Grids are (rows, columns) or (slices, rows, columns); x rises to the right of the picture, y downward, both in units of
half the picture's width (a CT picture of ``CT_FIELD`` mm).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from wardround.simulations.synthetic.hospitals import Scanner

Grid = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

CT_FIELD: Final = 360.0
"""mm across a CT picture."""

ENHANCEMENT: Final = {"aorta": 170.0, "heart": 120.0, "vessels": 110.0}
"""HU that a contrast agent adds, exactly; blood has 40 HU without."""

OPACITY: Final = 0.22
"""Of the X-ray's range 0 .. 1, at the middle of an opacity."""

LESION: Final = 0.45
"""A lesion is brighter than grey matter by this part of its brightness."""

AIR: Final = -1000.0


@dataclass(frozen=True, slots=True)
class ChestShape:
    """One patient's chest, in half widths of the picture; the same in all pictures of the patient."""

    wide: float
    high: float
    fat: float
    heart: float
    turn: float

    @classmethod
    def draw(cls, random: np.random.Generator) -> "ChestShape":
        return cls(
            wide=random.uniform(0.80, 0.93),
            high=random.uniform(0.56, 0.66),
            fat=random.uniform(0.03, 0.09),
            heart=random.uniform(0.85, 1.15),
            turn=random.uniform(-0.05, 0.05),
        )


def ct_slice(
    random: np.random.Generator,
    chest: ChestShape,
    scanner: Scanner,
    shape: tuple[int, int] = (128, 128),
    *,
    contrast: bool,
    level: float = 0.5,
) -> Grid:
    """A slice in HU, shape ``shape``. ``level`` 0 .. 1 goes from the lungs' tips down to the liver's dome."""
    x, y = _plane(shape, chest.turn)
    blood = 40.0 + random.normal(0, 4)
    lung_size = 0.65 + 0.35 * np.sin(np.pi * min(max(0.15 + 0.7 * level, 0.0), 1.0))
    hu = np.full(shape, AIR, np.float32)
    hu[_ellipse(x, y, 0, 0, chest.wide, chest.high)] = -100.0
    muscle_wide, muscle_high = chest.wide - chest.fat, chest.high - chest.fat
    hu[_ellipse(x, y, 0, 0, muscle_wide, muscle_high)] = 50.0
    for place in range(18):
        angle = 2 * np.pi * (place + 0.5 * level) / 18
        rib_x, rib_y = 0.93 * muscle_wide * np.cos(angle), 0.92 * muscle_high * np.sin(angle)
        hu[_ellipse(x, y, rib_x, rib_y, 0.045, 0.025)] = 420.0
    lungs = np.zeros(shape, bool)
    for side in (-1, 1):
        wide, high = 0.36 * muscle_wide / 0.85 * lung_size, 0.80 * muscle_high * lung_size
        lungs |= _ellipse(x, y, side * 0.50 * muscle_wide, -0.02, wide, high)
    lungs &= ~_ellipse(x, y, 0, 0.02, 0.17, muscle_high)
    texture = _smooth(random.normal(0, 1, shape), shape[1] / 40)
    hu[lungs] = (-850.0 + 35.0 * texture)[lungs]
    _lung_vessels(random, hu, lungs, x, y, blood + contrast * ENHANCEMENT["vessels"])
    if level > 0.25:
        size = chest.heart * (0.5 + 0.5 * level)
        heart = _ellipse(x, y, 0.10, -0.08, 0.30 * size, 0.22 * size)
        hu[heart] = 55.0
        hu[_ellipse(x, y, 0.10, -0.08, 0.26 * size, 0.18 * size)] = blood + contrast * ENHANCEMENT["heart"]
    for center, radius in (((-0.06, -0.20), 0.075), ((0.10, 0.20), 0.065)):
        hu[_ellipse(x, y, *center, radius, radius)] = blood + contrast * ENHANCEMENT["aorta"]
    if random.random() < 0.4:
        hu[_ellipse(x, y, 0.15, 0.22, 0.012, 0.02)] = 600.0
    hu[_ellipse(x, y, 0, 0.36, 0.12, 0.10)] = 260.0
    hu[_ellipse(x, y, 0, 0.36, 0.08, 0.065)] = 170.0
    hu[_ellipse(x, y, 0, 0.46, 0.035, 0.03)] = 30.0
    hu[_ellipse(x, y, 0, 0.53, 0.02, 0.07)] = 350.0
    if level < 0.6:
        hu[_ellipse(x, y, 0.0, 0.06, 0.045, 0.05)] = AIR
    hu[(np.abs(y - chest.high - 0.07 - 0.05 * x**2) < 0.012) & (np.abs(x) < 0.8)] = -150.0
    per_pixel = shape[1] / CT_FIELD
    noise = gaussian_filter(random.normal(0, 1, shape), scanner.blur * per_pixel)
    noise *= scanner.noise * random.uniform(0.85, 1.15) / max(float(noise.std()), 1e-6)
    return np.asarray(gaussian_filter(hu, scanner.blur * per_pixel) + noise, np.float32)


def outside_scan(shape: tuple[int, int]) -> Mask:
    """The corners of a CT picture that no ray crossed; scanners write a padding value there."""
    x, y = _plane(shape, 0.0)
    return np.asarray(x**2 + y**2 > 1.0, bool)


def _lung_vessels(random: np.random.Generator, hu: Grid, lungs: Mask, x: Grid, y: Grid, value: float) -> None:
    for _ in range(26):
        near = random.uniform(0.0, 1.0) ** 1.5
        side = 1 if random.random() < 0.5 else -1
        place = side * (0.22 + 0.42 * near), random.uniform(-0.35, 0.35)
        radius = 0.034 * (1 - 0.75 * near) + 0.006
        vessel = _ellipse(x, y, *place, radius, radius * random.uniform(0.8, 1.8))
        hu[vessel & lungs] = value


def chest_xray(
    random: np.random.Generator, shape: tuple[int, int] = (128, 128), *, opacity: bool, gain: float = 1.0
) -> Grid:
    """A chest X-ray, 0 (black: all rays passed) to 1, shape ``shape``. ``gain`` is the machine's contrast."""
    x, y = _plane(shape, random.uniform(-0.04, 0.04), square=True)
    wide, top = random.uniform(0.9, 1.05), random.uniform(-0.05, 0.05)
    body = 0.62 - 0.25 * np.clip(np.abs(x) - 0.75 * wide, 0, 1) ** 0.8 + 0.05 * y
    picture = body.astype(np.float32)
    lungs = np.zeros(shape, np.float32)
    for side in (-1, 1):
        edge = ((x - side * 0.42 * wide) / (0.31 * wide)) ** 2 + np.abs((y + 0.05 - top) / 0.68) ** 2.6
        lungs = np.maximum(lungs, _step(1.0 - edge, 0.25))
    # Each half of the diaphragm is a dome; the right one is higher.
    for side, height in ((-1, 0.46), (1, 0.52)):
        dome = y > height + top + 0.45 * (x - side * 0.42 * wide) ** 2
        lungs[dome & (np.sign(x) == side)] *= 0.12
    picture -= 0.40 * lungs
    heart = _step(1.0 - ((x - 0.12) / 0.33) ** 2 - ((y - 0.22 - top) / 0.32) ** 2, 0.25)
    middle = _step(1.0 - (np.abs(x - 0.01) / 0.13) ** 2, 0.6)
    picture += 0.26 * np.maximum(heart, middle) * np.where(lungs > 0.05, 1.0, 0.35)
    for rib in range(8):
        arc = np.abs(y - (-0.72 + 0.19 * rib + top) + 0.25 * np.abs(x) ** 1.6 - 0.08)
        picture += (0.05 * _step(0.035 - arc, 0.02) * (np.abs(x) < 0.85 * wide)).astype(np.float32)
    for side in (-1, 1):
        bone = np.abs(y + 0.74 - top + 0.22 * (np.abs(x) - 0.1)) < 0.035
        picture[bone & (np.sign(x) == side) & (np.abs(x) > 0.08) & (np.abs(x) < 0.75)] += 0.07
    scatter, noise = _smooth(random.normal(0, 1, shape), shape[1] / 10), random.normal(0, 0.018, shape)
    # Drawn last, so that a picture with an opacity and one without are the same but for it.
    if opacity:
        side = 1 if random.random() < 0.5 else -1
        center = side * random.uniform(0.34, 0.52), random.uniform(-0.25, 0.35)
        size = random.uniform(0.14, 0.22)
        blob = np.exp(-(((x - center[0]) / size) ** 2 + ((y - center[1]) / (size * random.uniform(0.8, 1.3))) ** 2))
        patchy = 1.0 + 0.35 * _smooth(random.normal(0, 1, shape), shape[1] / 24)
        picture += (OPACITY * blob * patchy).astype(np.float32)
    shown = 0.5 + gain * (picture - 0.5) + 0.02 * scatter + noise
    return np.asarray(np.clip(shown, 0.0, 1.0), np.float32)


def mri_head(
    random: np.random.Generator, shape: tuple[int, int, int] = (24, 64, 64), *, lesion: bool, gain: float = 400.0
) -> tuple[Grid, Mask]:
    """A head in arbitrary units (grey matter at ``gain``) and the mask of its lesion, both of shape ``shape``.

    Indices rise to superior, posterior and left. The receive coil's bias and Rician noise are those of an MR magnitude
    picture.
    """
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, size, dtype=np.float32) for size in shape), indexing="ij")
    size = random.uniform(0.92, 1.04)

    def radius(center: tuple[float, float, float], axes: tuple[float, float, float]) -> Grid:
        parts = zip((z, y, x), center, axes, strict=True)
        return np.asarray(sum(((axis - at) / (size * half)) ** 2 for axis, at, half in parts), np.float32)

    skin, skull = radius((0, 0, 0), (0.98, 0.90, 0.74)), radius((0, 0, 0), (0.92, 0.84, 0.68))
    brain = radius((0, 0, 0), (0.85, 0.77, 0.61))
    folds = _smooth(random.normal(0, 1, shape), 2.2)
    picture = np.zeros(shape, np.float32)
    picture[skin < 1] = 0.9
    picture[skull < 1] = 0.12
    picture[brain < 1] = 1.0
    picture[brain + 0.16 * folds < 0.62] = 0.72
    for side in (-1, 1):
        picture[radius((0.1, -0.02, side * 0.13), (0.32, 0.36, 0.075)) < 1] = 0.2
    picture[(np.abs(x) < 0.018) & (brain < 0.97) & (z > 0.1)] = 0.35
    bias = 1.0 + 0.12 * (random.uniform(-1, 1) * x + random.uniform(-1, 1) * y + random.uniform(-1, 1) * z)
    first, second = random.normal(0, 0.035, (2, *shape))
    # Drawn last, so that a head with a lesion and one without are the same but for it.
    mask = np.zeros(shape, bool)
    if lesion:
        center = (
            random.uniform(-0.4, 0.4),
            random.uniform(-0.42, 0.42),
            random.choice((-1, 1)) * random.uniform(0.24, 0.38),
        )
        axes = tuple(random.uniform(0.13, 0.22) for _ in range(3))
        mask = (radius(center, (axes[0] * 1.3, axes[1], axes[2])) + 0.25 * folds < 1) & (brain < 0.95)
        picture[mask] = 1.0 + LESION
    picture = gaussian_filter(picture, 0.5) * bias
    return (gain * np.hypot(picture + first, second)).astype(np.float32), mask


def _plane(shape: tuple[int, int], turn: float, square: bool = False) -> tuple[Grid, Grid]:
    """x and y of each pixel; ``square``: both from -1 to 1, whatever the shape."""
    tall = 1.0 if square else shape[0] / shape[1]
    y, x = np.meshgrid(
        tall * (2 * np.arange(shape[0], dtype=np.float32) + 1 - shape[0]) / shape[0],
        (2 * np.arange(shape[1], dtype=np.float32) + 1 - shape[1]) / shape[1],
        indexing="ij",
    )
    return x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)


def _ellipse(x: Grid, y: Grid, left: float, top: float, wide: float, high: float) -> Mask:
    return np.asarray(((x - left) / wide) ** 2 + ((y - top) / high) ** 2 < 1.0, bool)


def _step(value: npt.NDArray[np.floating], softness: float) -> Grid:
    """0 below 0, 1 above ``softness``, a line between."""
    return np.asarray(np.clip(value / softness, 0.0, 1.0), np.float32)


def _smooth(noise: npt.NDArray[np.float64], width: float) -> Grid:
    """Noise of standard deviation 1 that varies over ``width`` pixels."""
    smooth = gaussian_filter(noise, width)
    return np.asarray(smooth / max(float(smooth.std()), 1e-6), np.float32)
