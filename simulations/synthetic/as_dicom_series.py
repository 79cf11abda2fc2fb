"""Volumes as DICOM series, one slice a file: chests in CT and the heads of ``as_nifti`` in MRI.

Names of files and instance numbers say nothing of the order of the slices, as in a real archive; positions do. MRI is
axial, sagittal or coronal by hospital. Identifiers are those of ``as_dicom``, the same in all slices of a patient;
every ninth patient has letters burned into one slice.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from wardround.client.settings import DataSource, LabelTable
from wardround.simulations.synthetic.as_dicom import (
    MANIFEST,
    SIZE,
    Made,
    ct_pixels,
    header_of,
    pixel_format,
    put_pixels,
    uids_of,
)
from wardround.simulations.synthetic.as_nifti import SPACING, heads
from wardround.simulations.synthetic.hospitals import Hospital
from wardround.simulations.synthetic.identifiers import BURNED_EVERY, burn, plant
from wardround.simulations.synthetic.phantoms import CT_FIELD, ChestShape, ct_slice
from wardround.simulations.synthetic.subjects import LABELS, PictureKind, Subject, subjects

CT_SLICES: Final = 16
CT_STEP: Final = 5.0
"""mm from slice to slice."""

PLANES: Final = ("axial", "sagittal", "axial", "coronal")
"""Of the hospitals' MRI."""

BRIGHTEST: Final = 4095


@dataclass(frozen=True, slots=True)
class Series:
    """One patient's volume: slices (depth, rows, columns) and how they lie in the patient, in mm (LPS).

    ``turned`` holds the direction of rows and of columns, ``step`` the way from a slice to the next one.
    """

    subject: Subject
    slices: npt.NDArray[np.float32]
    spacing: tuple[float, float]
    turned: tuple[int, int, int, int, int, int]
    first: npt.NDArray[np.float64]
    step: npt.NDArray[np.float64]


def write_ct_series(folder: Path, hospital: Hospital, count: int) -> DataSource:
    """``data/dicom`` and ``data/labels.csv`` of a site's folder, and ``phi_manifest.json``; ``count`` patients."""
    return _write(folder, hospital, "ct-series", chests(hospital, count))


def write_mri_series(folder: Path, hospital: Hospital, count: int) -> DataSource:
    """As ``write_ct_series``, with heads in MRI."""
    return _write(folder, hospital, "mri", mri_series(hospital, count))


def chests(hospital: Hospital, count: int) -> Iterator[Series]:
    """Axial series from the liver's dome upward; each slice is drawn by itself in one patient's shape."""
    for subject in subjects(hospital, "ct-series", count):
        random, chest = subject.random, ChestShape.draw(subject.random)
        levels = np.linspace(0.85, 0.35, CT_SLICES)
        slices = [
            ct_slice(random, chest, hospital.scanner, (SIZE, SIZE), contrast=subject.positive, level=float(level))
            for level in levels
        ]
        spacing, corner = (CT_FIELD / SIZE, CT_FIELD / SIZE), np.array([-CT_FIELD / 2, -CT_FIELD / 2, -40.0])
        step = np.array([0.0, 0.0, CT_STEP])
        yield Series(subject, np.rint(np.stack(slices)), spacing, (1, 0, 0, 0, 1, 0), corner, step)


def mri_series(hospital: Hospital, count: int) -> Iterator[Series]:
    """The heads of ``as_nifti``, rounded, in the plane in which the hospital takes them."""
    between, down, across = SPACING
    for subject, picture, _ in heads(hospital, count):
        stored = np.clip(np.rint(picture), 0, BRIGHTEST).astype(np.float32)
        high, back, left = ((size - 1) * step for size, step in zip(stored.shape, SPACING, strict=True))
        low, top = np.array([-left / 2, -back / 2, -high / 2]), np.array([-left / 2, -back / 2, high / 2])
        match PLANES[hospital.number % len(PLANES)]:
            case "axial":
                step = np.array([0.0, 0.0, between])
                yield Series(subject, stored, (down, across), (1, 0, 0, 0, 1, 0), low, step)
            case "sagittal":
                # Columns run to the back and rows to the feet, so the first row is the highest.
                slices, step = stored[::-1].transpose(2, 0, 1), np.array([across, 0.0, 0.0])
                yield Series(subject, slices, (between, down), (0, 1, 0, 0, 0, -1), top, step)
            case _:
                slices, step = stored[::-1].transpose(1, 0, 2), np.array([0.0, down, 0.0])
                yield Series(subject, slices, (between, across), (1, 0, 0, 0, 0, -1), top, step)


def _write(folder: Path, hospital: Hospital, kind: PictureKind, made: Iterator[Series]) -> DataSource:
    target = folder / "data" / "dicom"
    target.mkdir()
    planted: dict[str, Any] = {}
    with (folder / "data" / "labels.csv").open("w", encoding="utf-8", newline="") as table:
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["file", "series_uid", "study_uid", "accession", "patient", LABELS[kind], "age", "sex"])
        for series in made:
            subject = series.subject
            name = f"{subject.person.family}_{subject.id}"
            (target / name).mkdir(exist_ok=True)
            mixed = np.random.default_rng(subject.number).permutation(len(series.slices))
            for place, number in enumerate(mixed):
                header, found = _slice(hospital, kind, series, int(number), place)
                header.save_as(target / name / f"{place:03d}.dcm", enforce_file_format=True)
                entry = {"planted": found, "path_parts": [subject.person.family, subject.id]}
                planted[f"data/dicom/{name}/{place:03d}.dcm"] = entry
            names = (header.SeriesInstanceUID, header.StudyInstanceUID, header.AccessionNumber)
            rows.writerow([name, *names, subject.id, int(subject.positive), subject.age, subject.person.sex])
    (folder / MANIFEST).write_text(json.dumps(planted, indent=1), encoding="utf-8")
    return DataSource(connector="dicom", path="data/dicom", labels=LabelTable(path="data/labels.csv", key="file"))


def _slice(
    hospital: Hospital, kind: PictureKind, series: Series, number: int, place: int
) -> tuple[Dataset, dict[str, str]]:
    """Slice ``number`` of a series, which is its ``place``-th file, and what was planted in it."""
    subject, shape = series.subject, (series.slices.shape[1], series.slices.shape[2])
    made = Made(subject, subject.number * len(series.slices) + place, series.slices[number])
    header = header_of(hospital, kind, made)
    if kind == "mri":
        pixel_format(header, shape, stored=12, signed=False, photometric="MONOCHROME2")
        pixels, white = made.pixels.astype(np.uint16), BRIGHTEST
    else:
        pixels, white = ct_pixels(header, hospital, made)
    header.PixelSpacing, header.ImageOrientationPatient = list(series.spacing), list(series.turned)
    header.ImagePositionPatient = [round(float(each), 4) for each in series.first + number * series.step]
    header.SliceThickness = float(np.linalg.norm(series.step))
    header.InstanceNumber = place + 1
    header.FrameOfReferenceUID = generate_uid(entropy_srcs=[header.StudyInstanceUID, "frame"])
    planted = plant(header, subject, hospital, subject.number) | uids_of(header)
    if number == len(series.slices) // 2 and subject.number % BURNED_EVERY == BURNED_EVERY - 1:
        planted |= burn(pixels, subject, subject.number, white)
    put_pixels(header, hospital, pixels, made.number)
    return header, planted
