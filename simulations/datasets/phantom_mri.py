"""Heads of nobody in MRI, at four synthetic hospitals: is there a lesion, and where?

Drawn by a program with a public seed (``simulations/synthetic/phantoms``), so every machine has them and a study of
volumes can be tried without a download. The hospitals' machines differ in brightness, their patients in the share of
lesions.
"""

from collections.abc import Iterator
from functools import partial
from typing import Final

import numpy as np

from wardround.client.imaging.picture import LeftOut, Picture
from wardround.protocol.contract import ImageInput
from wardround.protocol.errors import UsageError, did_you_mean
from wardround.simulations.datasets.source import Dataset, SitePictures
from wardround.simulations.synthetic.as_nifti import SPACING, heads
from wardround.simulations.synthetic.hospitals import Hospital, hospitals

SEED: Final = 20_261_129
SITES: Final = 4
SPLITS: Final = {"complete": 60, "small": 16}
"""Patients at each hospital."""

ATTRIBUTION: Final = "MRI phantoms drawn by Wardround; no person is behind any of them."


def phantom_mri(split: str) -> Dataset:
    """The four hospitals; patients test by the hash of their id. Raises UsageError for an unknown split."""
    if split not in SPLITS:
        raise UsageError(f"the MRI phantoms have no split '{split}'", did_you_mean(split, SPLITS))
    return Dataset(tuple(_site(hospital, SPLITS[split]) for hospital in hospitals(SITES, SEED)), ATTRIBUTION)


def _site(hospital: Hospital, count: int) -> SitePictures:
    # One bit for each voxel is kept, and the heads are drawn again when they are read.
    drawn = {
        subject.id: (subject.positive, np.packbits(mask), mask.shape) for subject, _, mask in heads(hospital, count)
    }
    labels = {id_: {"lesion": str(int(positive)), "mask": id_} for id_, (positive, *_) in drawn.items()}

    def mask(name: str) -> Picture:
        _, bits, shape = drawn[name]
        values = np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(np.float32)
        return Picture(name, name, values[None], SPACING, affine=_affine())

    return SitePictures(hospital.name, partial(_pictures, hospital, count), labels, masks=mask)


def _pictures(hospital: Hospital, count: int, image: ImageInput) -> Iterator[Picture | LeftOut]:
    for subject, picture, _ in heads(hospital, count):
        yield Picture(subject.id, subject.id, picture[None], SPACING, affine=_affine())


def _affine() -> np.ndarray:
    """From (column, row, slice) to mm in LPS: indices rise to left, posterior and superior."""
    return np.diag([*SPACING[::-1], 1.0])
