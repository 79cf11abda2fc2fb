"""CT and X-ray phantoms as a DICOM folder: one folder a patient, invented identifiers everywhere, and a list of them.

What differs between hospitals is what differs between real ones: manufacturer, transfer syntax (implicit and explicit,
RLE or JPEG 2000 in every fifth file), signed and unsigned pixels, padding outside the scan circle, MONOCHROME1. The
fourth hospital also gives the label away: ``ContrastBolusAgent`` stands in the headers of its positive CT pictures.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

from wardround.client.settings import DataSource, LabelTable
from wardround.simulations.synthetic.hospitals import Hospital
from wardround.simulations.synthetic.identifiers import burn, plant
from wardround.simulations.synthetic.phantoms import CT_FIELD, ChestShape, chest_xray, ct_slice, outside_scan
from wardround.simulations.synthetic.subjects import LABELS, PictureKind, Subject, subjects

MANIFEST: Final = "phi_manifest.json"
SIZE: Final = 128
COMPRESSED_EVERY: Final = 5
INTERCEPT: Final = -1024
XRAY_WHITE: Final = 4095
XRAY_FIELD: Final = 350.0
AXIAL: Final = ["ORIGINAL", "PRIMARY", "AXIAL"]
OBJECTS: Final[dict[PictureKind, tuple[str, str, list[str], str]]] = {
    "ct": (CTImageStorage, "CT", AXIAL, "CHEST"),
    "ct-series": (CTImageStorage, "CT", AXIAL, "CHEST"),
    "xray": (DigitalXRayImageStorageForPresentation, "DX", AXIAL[:2], "CHEST"),
    "mri": (MRImageStorage, "MR", ["ORIGINAL", "PRIMARY", "M"], "HEAD"),
}
"""SOP class, modality, type and body part of each kind."""

GAINS: Final = (1.0, 1.12, 0.88, 1.2)
"""Contrast of the hospitals' X-ray machines."""


@dataclass(frozen=True, slots=True)
class Made:
    """One picture: pixels as shown (HU, or 0 .. 4095 and white is large), before padding, letters and codecs."""

    subject: Subject
    number: int
    pixels: npt.NDArray[np.float32]


def write_ct(folder: Path, hospital: Hospital, count: int) -> DataSource:
    """``data/dicom`` and ``data/labels.csv`` of a site's folder, and ``phi_manifest.json``; ``count`` patients."""
    return _write(folder, hospital, "ct", count)


def write_xray(folder: Path, hospital: Hospital, count: int) -> DataSource:
    """As ``write_ct``, with digital X-rays."""
    return _write(folder, hospital, "xray", count)


def pictures(hospital: Hospital, kind: PictureKind, count: int) -> Iterator[Made]:
    """The pictures of the hospital's first ``count`` subjects, one at a time."""
    number = 0
    for subject in subjects(hospital, kind, count):
        random, chest = subject.random, ChestShape.draw(subject.random)
        for _ in range(subject.pictures):
            if kind == "ct":
                level = random.uniform(0.35, 0.85)
                pixels = ct_slice(random, chest, hospital.scanner, (SIZE, SIZE), contrast=subject.positive, level=level)
            else:
                gain = GAINS[hospital.number % 4]
                pixels = XRAY_WHITE * chest_xray(random, (SIZE, SIZE), opacity=subject.positive, gain=gain)
            yield Made(subject, number, np.rint(pixels))
            number += 1


def _write(folder: Path, hospital: Hospital, kind: PictureKind, count: int) -> DataSource:
    target = folder / "data" / "dicom"
    target.mkdir()
    with (
        (folder / "data" / "labels.csv").open("w", encoding="utf-8", newline="") as table,
        (folder / MANIFEST).open("w", encoding="utf-8") as manifest,
    ):
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["file", "sop_uid", "series_uid", "accession", "patient", LABELS[kind], "age", "sex"])
        for made in pictures(hospital, kind, count):
            subject = made.subject
            parts = (f"{subject.person.family}_{subject.id}", f"{made.number:05d}.dcm")
            (target / parts[0]).mkdir(exist_ok=True)
            header, planted = dicom_file(hospital, kind, made)
            header.save_as(target / "/".join(parts), enforce_file_format=True)
            uids = (header.SOPInstanceUID, header.SeriesInstanceUID, header.AccessionNumber)
            rows.writerow(["/".join(parts), *uids, subject.id, int(subject.positive), subject.age, subject.person.sex])
            entry = {"planted": planted, "path_parts": [subject.person.family, subject.id]}
            name = json.dumps(f"data/dicom/{'/'.join(parts)}")
            manifest.write(f"{',' if made.number else '{'}\n {name}: {json.dumps(entry)}")
        manifest.write("\n}\n" if count else "{}\n")
    return DataSource(connector="dicom", path="data/dicom", labels=LabelTable(path="data/labels.csv", key="file"))


def dicom_file(hospital: Hospital, kind: PictureKind, made: Made) -> tuple[Dataset, dict[str, str]]:
    """The data set with its pixels, and the identifiers that were planted in it, by place."""
    header = header_of(hospital, kind, made)
    pixels, white = ct_pixels(header, hospital, made) if kind == "ct" else _xray(header, hospital, made)
    planted = plant(header, made.subject, hospital, made.number) | uids_of(header)
    burned = burn(pixels, made.subject, made.number, white)
    if burned and made.number % 2:
        header.BurnedInAnnotation = "YES"
    put_pixels(header, hospital, pixels, made.number)
    return header, planted | burned


def uids_of(header: Dataset) -> dict[str, str]:
    """The UIDs of a data set; they are identifiers too."""
    return {name: str(header[name].value) for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")}


def put_pixels(header: Dataset, hospital: Hospital, pixels: npt.NDArray[Any], number: int) -> None:
    """Pixels of 16 bits into the data set; every fifth picture's are compressed."""
    header.PixelData = pixels.tobytes()
    header["PixelData"].VR = "OW"
    if number % COMPRESSED_EVERY == COMPRESSED_EVERY - 1:
        # The wavelets of JPEG 2000 halve a picture five times.
        wavelets = hospital.number % 4 == 3 and min(pixels.shape) >= 32
        header.compress(JPEG2000Lossless if wavelets else RLELossless, generate_instance_uid=False)


def header_of(hospital: Hospital, kind: PictureKind, made: Made) -> Dataset:
    """A data set that says what the picture is of and where it was made; without identifiers and pixels."""
    subject, scanner = made.subject, hospital.scanner
    implicit = hospital.number % 4 == 1
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    study = [str(hospital.seed), hospital.name, kind, str(subject.number)]
    header.SOPClassUID, header.Modality, header.ImageType, header.BodyPartExamined = OBJECTS[kind]
    header.SOPInstanceUID = generate_uid(entropy_srcs=[*study, "picture", str(made.number)])
    header.StudyInstanceUID = generate_uid(entropy_srcs=[*study, "study"])
    header.SeriesInstanceUID = generate_uid(entropy_srcs=[*study, "series"])
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    header.SpecificCharacterSet = "ISO_IR 192"
    header.PatientSex, header.PatientAge = subject.person.sex, f"{subject.age:03d}Y"
    header.StudyTime, header.SeriesNumber, header.InstanceNumber = "093000", 1, made.number + 1
    header.Manufacturer, header.ManufacturerModelName = scanner.manufacturer, scanner.model
    return header


def pixel_format(header: Dataset, shape: tuple[int, int], *, stored: int, signed: bool, photometric: str) -> None:
    """Grey pixels of 16 bits, of which ``stored`` are used."""
    (header.Rows, header.Columns), header.SamplesPerPixel = shape, 1
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, stored, stored - 1
    header.PixelRepresentation, header.PhotometricInterpretation = int(signed), photometric


def ct_pixels(header: Dataset, hospital: Hospital, made: Made) -> tuple[npt.NDArray[Any], int]:
    """Stored values of a CT slice, whose format and place enter the header, and the value of white letters."""
    scanner, spacing = hospital.scanner, CT_FIELD / SIZE
    signed = scanner.padding is not None
    pixel_format(header, (SIZE, SIZE), stored=16 if signed else 12, signed=signed, photometric="MONOCHROME2")
    header.RescaleIntercept, header.RescaleSlope, header.RescaleType = INTERCEPT, 1, "HU"
    header.PixelSpacing, header.SliceThickness = [spacing, spacing], 5.0
    header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    header.ImagePositionPatient = [-CT_FIELD / 2, -CT_FIELD / 2, 5.0 * made.number]
    header.KVP, header.ConvolutionKernel = 120, scanner.kernel
    if hospital.number % 4 == 3 and made.subject.positive:
        header.ContrastBolusAgent = "SYNTHETIC AGENT"
    pixels = np.clip(made.pixels - INTERCEPT, 0, 4095).astype(np.int16 if signed else np.uint16)
    if scanner.padding is not None:
        pixels[outside_scan(pixels.shape)] = scanner.padding
        header.add_new("PixelPaddingValue", "SS", scanner.padding)
    return pixels, 2500


def _xray(header: Dataset, hospital: Hospital, made: Made) -> tuple[npt.NDArray[Any], int]:
    inverted, spacing = hospital.number % 4 == 2, XRAY_FIELD / SIZE
    pixel_format(
        header, (SIZE, SIZE), stored=12, signed=False, photometric="MONOCHROME1" if inverted else "MONOCHROME2"
    )
    header.ImagerPixelSpacing, header.KVP, header.ViewPosition = [spacing, spacing], 110, "PA"
    header.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    header.PixelIntensityRelationship = "LOG"
    pixels = made.pixels.astype(np.uint16)
    return (XRAY_WHITE - pixels, 0) if inverted else (pixels, XRAY_WHITE)
