"""From a mask on a picture's grid to the part of the features that says what each voxel is.

A mask goes the way of its picture: the same turning, the same size, the same crop; the nearest voxel counts where the
grid changes, because there is nothing between two structures.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from wardround.client.imaging.picture import Picture, Pixels
from wardround.client.imaging.prepare import Unfit, oriented, resampled
from wardround.protocol.contract import ImageInput
from wardround.protocol.labels import MaskLabel

Masks: TypeAlias = Callable[[str], "Picture | str"]
"""A mask by its name in the label table, or one of a fixed list of reasons why there is none."""

_NEAR: Final = 0.05
"""Of a voxel's length: how far a mask's corners may lie from its picture's."""


def mask_of(mask: Picture, picture: Picture, image: ImageInput, label: MaskLabel) -> npt.NDArray[np.float32]:
    """What each voxel of the picture's features is, (1, *size): 0 the background, 1 .. K in the order of the label.

    Raises:
        Unfit: the mask does not lie on its picture's grid, or holds a number that the label does not name.
    """
    stored = _on_its_grid(mask, picture)
    found = np.zeros(stored.shape, np.float32)
    codes = np.rint(stored)
    known = codes == 0
    for number, code in enumerate(label.structures, 1):
        here = codes == int(code)
        found[here] = number
        known |= here
    if not (known & (codes == stored)).all():
        raise Unfit("a mask holds a number that the contract does not name", "check 'structures' of the label")
    spacing = picture.spacing
    if image.orientation == "LPS":
        found, spacing = oriented(mask, found)
    return resampled(found, spacing, image, mode="nearest-exact", outside=0.0)


def _on_its_grid(mask: Picture, picture: Picture) -> Pixels:
    values = mask.pixels[:1]
    wanted = picture.pixels[:1]
    if mask.affine is not None and picture.affine is not None:
        # The same box, whatever the order and direction of the two files' axes.
        ours, theirs = _corners(mask.affine, values.shape[1:]), _corners(picture.affine, wanted.shape[1:])
        step = min(np.linalg.norm(picture.affine[:3, :3], axis=0))
        if sorted(values.shape) == sorted(wanted.shape) and np.abs(ours - theirs).max() <= _NEAR * step:
            return values
    elif values.shape == wanted.shape:
        return values
    raise Unfit("a mask does not lie on its picture's grid", "resample it to the picture, with nearest neighbours")


def _corners(affine: npt.NDArray[np.float64], shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """The least and the largest x, y and z of the centres of a volume's corner voxels, in mm, shape (2, 3)."""
    last = np.array(shape[::-1], np.float64) - 1.0
    ends = np.array([[(number >> axis & 1) * last[axis] for axis in range(3)] + [1.0] for number in range(8)])
    points = (ends @ affine.T)[:, :3]
    return np.stack([points.min(axis=0), points.max(axis=0)])
