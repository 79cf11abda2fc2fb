"""Masks beside a source's pictures: NIfTI for volumes, PNG for flat pictures; named by the table of labels."""

from pathlib import Path
from typing import Final

import numpy as np

from wardround.client.connectors.nifti import ENDINGS, volume_in
from wardround.client.connectors.picture_table import inside
from wardround.client.imaging.masks import Masks
from wardround.client.imaging.picture import Picture

NO_MASK: Final = "mask without a file"
MASK_OUTSIDE: Final = "mask that names a place outside the source"
MASK_BROKEN: Final = "mask that cannot be read"
LARGEST_SIDE: Final = 8_192


def masks_below(folder: Path) -> Masks:
    """The masks below ``folder``, by their path there."""

    def read(name: str) -> Picture | str:
        if not inside(folder, name):
            return MASK_OUTSIDE
        file = folder / name
        if not file.is_file():
            return NO_MASK
        return _volume(file) if name.lower().endswith(ENDINGS) else _flat(file)

    return read


def _volume(file: Path) -> Picture | str:
    found = volume_in(file, axial=False)
    if isinstance(found, str):
        return MASK_BROKEN
    values, affine = found
    spacing = tuple(float(step) for step in np.linalg.norm(affine[:3, :3], axis=0)[::-1])
    return Picture("", "", values[None], spacing, affine=affine)


def _flat(file: Path) -> Picture | str:
    from PIL import Image

    try:
        with Image.open(file, formats=("PNG",)) as stored:
            if max(stored.size) > LARGEST_SIDE or len(stored.getbands()) != 1:
                return MASK_BROKEN
            return Picture("", "", np.asarray(stored, np.float32)[None])
    # Pillow raises what a broken file leads it to.
    except Exception:
        return MASK_BROKEN
