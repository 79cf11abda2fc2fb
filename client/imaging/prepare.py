"""From a picture to features, as the plan's ``ImageInput`` says; nothing here is fitted to patients.

Resampling is MONAI's: the mean of the covered area where an axis shrinks, linear interpolation where none does.
"""

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wardround.client.imaging.picture import Picture, Pixels
from wardround.protocol.contract import ImageInput
from wardround.protocol.errors import UsageError

MOST_VOXELS: Final = 1 << 28
"""Of one channel while it is resampled, 1 GiB as float32; a header can claim any spacing."""

_LINEAR: Final = {2: "bilinear", 3: "trilinear"}


class Unfit(UsageError):
    """A picture that cannot meet the contract; the message is one of a few and holds nothing of the picture."""


def features_of(picture: Picture, image: ImageInput) -> npt.NDArray[Any]:
    """The picture's part of the features: pixels (channels, *size) as float32 in -1 .. 1, or a histogram (bins,).

    Raises:
        Unfit: dimensions, channels, spacing or orientation are not what the contract needs.
    """
    values = _checked(picture, image)
    if image.features == "histogram":
        return _histogram(values, image)
    if image.orientation == "LPS":
        values, spacing = oriented(picture, values)
    else:
        spacing = picture.spacing
    low, high = _window(values, image)
    scaled = (np.clip(np.nan_to_num(values, nan=low), low, high) - low) / (high - low) * 2.0 - 1.0
    return resampled(scaled.astype(np.float32), spacing, image)


def _checked(picture: Picture, image: ImageInput) -> Pixels:
    values, axes = picture.pixels, len(image.size)
    if values.ndim == axes + 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == axes and image.channels == 1:
        values = values[None]
    if values.ndim != axes + 1:
        raise Unfit(f"a picture has not {axes} dimensions", "check the series that are read")
    if values.shape[0] != image.channels:
        if values.shape[0] == 3 and image.channels == 1:
            # ITU-R BT.601, as Pillow's mode L.
            return np.tensordot(np.array([0.299, 0.587, 0.114], np.float32), values, 1)[None].astype(np.float32)
        raise Unfit(f"a picture has not {image.channels} channel(s)", "check 'channels' of the contract")
    if image.features == "pixels" and image.spacing is not None and len(picture.spacing) < axes:
        raise Unfit("a picture does not say its spacing", "leave 'spacing' out of the contract, or these pictures")
    return values


def _histogram(values: Pixels, image: ImageInput) -> npt.NDArray[np.float64]:
    """The square root of the share of voxels in view that lies in each part of the window, times ``bins``.

    1 where all parts are equal. The root makes the noise of rare and common parts alike (Freeman, Tukey 1950).
    """
    seen = values[np.isfinite(values)]
    counts, _ = np.histogram(seen, image.bins, _window(values, image))
    return np.sqrt(counts * (image.bins / max(seen.size, 1)))


def _window(values: Pixels, image: ImageInput) -> tuple[float, float]:
    """The window in the picture's own units; by percentiles of its own voxels, which touches no other patient's.

    Raises:
        Unfit: the picture is of one value between the percentiles.
    """
    if image.intensity == "units":
        return image.window
    seen = values[np.isfinite(values)]
    low, high = (float(end) for end in np.percentile(seen, image.window)) if seen.size else (0.0, 0.0)
    if not low < high:
        raise Unfit("a picture is of one value", "leave out pictures that show nothing")
    return low, high


def oriented(picture: Picture, values: Pixels) -> tuple[Pixels, tuple[float, ...]]:
    """Axes (slice, row, column) so that indices rise to superior, posterior and left."""
    from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

    if picture.affine is None or values.ndim != 4:
        raise Unfit("a picture does not say its orientation", "leave 'orientation' out of the contract")
    # The affine's axes are (column, row, slice) in LPS; nibabel speaks of RAS.
    to_ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ picture.affine
    try:
        turn = ornt_transform(io_orientation(to_ras), axcodes2ornt(("L", "P", "S")))
    # Where two axes of an affine are nearly one, there is no way to turn it.
    except (ValueError, np.linalg.LinAlgError):
        raise Unfit("a picture does not say its orientation", "leave 'orientation' out of the contract") from None
    turned = [apply_orientation(channel.transpose(2, 1, 0), turn).transpose(2, 1, 0) for channel in values]
    spacing = np.array(picture.spacing[::-1])[np.argsort(turn[:, 0])][::-1]
    return np.stack(turned), tuple(float(step) for step in spacing)


def resampled(
    values: Pixels, spacing: tuple[float, ...], image: ImageInput, *, mode: str | None = None, outside: float = -1.0
) -> Pixels:
    """``values`` (channels, *axes) on the contract's grid: (channels, *size).

    Args:
        mode: MONAI's word for the interpolation; None: the mean of the covered area, or linear where no axis shrinks.
        outside: what lies outside the picture.
    """
    from monai.transforms import Resize, ResizeWithPadOrCrop

    size = image.size
    if image.spacing is not None:
        steps = zip(values.shape[1:], spacing, image.spacing, strict=True)
        wide = [count * have / want for count, have, want in steps]
        if not math.prod(max(1.0, each) for each in wide) <= MOST_VOXELS:
            raise Unfit("a picture is too large at the contract's spacing", "check the spacing of these pictures")
        size = tuple(max(1, round(each)) for each in wide)
    if values.shape[1:] != size:
        shrinks = any(new < old for new, old in zip(size, values.shape[1:], strict=True))
        usual = "area" if shrinks else _LINEAR[len(size)]
        values = Resize(size, mode=mode or usual)(values).numpy()
    if values.shape[1:] != image.size:
        values = ResizeWithPadOrCrop(image.size, mode="constant", constant_values=outside)(values).numpy()
    return np.ascontiguousarray(values, np.float32)
