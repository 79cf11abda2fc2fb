"""MRI phantoms as NIfTI with masks: ``images/<name>.nii.gz``, ``masks/<name>.nii.gz`` and a table of labels.

Hospitals store their axes differently; the affine says how, in RAS+ as NIfTI has it. The third writes scaled integers.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, ornt_transform

from wardround.client.settings import DataSource, LabelTable
from wardround.simulations.synthetic.hospitals import Hospital
from wardround.simulations.synthetic.phantoms import Grid, Mask, mri_head
from wardround.simulations.synthetic.subjects import LABELS, Subject, subjects

SHAPE: Final = (24, 64, 64)
SPACING: Final = (6.0, 3.2, 3.0)
"""mm from slice to slice, row to row, column to column."""

AXES: Final = (("L", "P", "S"), ("R", "A", "S"), ("A", "S", "L"), ("L", "A", "S"))
GAINS: Final = (400.0, 310.0, 480.0, 360.0)


def write_nifti(folder: Path, hospital: Hospital, count: int) -> DataSource:
    """``data/nifti`` and ``data/labels.csv`` of a site's folder; ``count`` patients, one picture each."""
    target = folder / "data" / "nifti"
    for part in ("images", "masks"):
        (target / part).mkdir(parents=True)
    with (folder / "data" / "labels.csv").open("w", encoding="utf-8", newline="") as table:
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["file", "mask", "patient", LABELS["mri"], "age", "sex"])
        for subject, picture, mask in heads(hospital, count):
            name = f"{subject.id}.nii.gz"
            nib.save(_stored(hospital, picture, integers=hospital.number % 4 == 2), target / "images" / name)
            nib.save(_stored(hospital, mask.astype(np.uint8)), target / "masks" / name)
            row = [subject.id, int(subject.positive), subject.age, subject.person.sex]
            rows.writerow([name, f"masks/{name}", *row])
    return DataSource(
        connector="nifti",
        path="data/nifti/images",
        labels=LabelTable(path="data/labels.csv", key="file", masks="data/nifti"),
    )


def heads(hospital: Hospital, count: int) -> Iterator[tuple[Subject, Grid, Mask]]:
    """Subject, picture and mask of a lesion, shape ``SHAPE``; indices rise to superior, posterior and left."""
    for subject in subjects(hospital, "mri", count):
        picture, mask = mri_head(subject.random, SHAPE, lesion=subject.positive, gain=GAINS[hospital.number % 4])
        yield subject, picture, mask


def _stored(hospital: Hospital, picture: Any, integers: bool = False) -> Any:
    """A NIfTI image with the hospital's order of axes."""
    steps = np.array(SPACING[::-1])
    # NIfTI's world is RAS+: indices that rise to left and posterior have negative steps.
    affine = np.diag([-steps[0], -steps[1], steps[2], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(picture.shape[::-1]) - 1) / 2)
    image = nib.Nifti1Image(picture.transpose(2, 1, 0), affine)
    turn = ornt_transform(axcodes2ornt(("L", "P", "S")), axcodes2ornt(AXES[hospital.number % 4]))
    image = image.as_reoriented(turn)
    image.header.set_xyzt_units("mm", "sec")
    if integers:
        image.set_data_dtype(np.int16)
    return image
