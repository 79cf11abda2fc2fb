"""No byte of a picture's file breaks a reader, fills the memory or comes into an error."""

import gzip
import io
import struct
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless, generate_uid

from wardround.client.connectors import picture_patients, read_pictures
from wardround.client.imaging.picture import LeftOut, Picture
from wardround.client.imaging.pixels import TOO_LARGE
from wardround.client.imaging.prepare import Unfit, features_of
from wardround.protocol.contract import ImageInput

MARKER = "Quillfeather"
nonsense = settings(settings.get_profile("nonsense"))
Lawful = Callable[..., Any]

PLAIN = ImageInput(modality="OT", size=(8, 8), window=(-1000, 3000))
SPACED = ImageInput(modality="OT", size=(8, 8), window=(-1000, 3000), spacing=(1.0, 1.0))
VOLUME = ImageInput(modality="OT", size=(8, 8, 8), window=(0, 1), spacing=(1.0, 1.0, 1.0), orientation="LPS")
COUNTS = ImageInput(modality="OT", size=(8, 8), window=(-1000, 3000), features="histogram", bins=4)


def dicom(compress: bool = False, frames: int = 1) -> bytes:
    """A small CT slice with all fields that the reader looks at."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = generate_uid(), generate_uid()
    dataset.PatientID, dataset.PatientName = MARKER, MARKER
    dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Rows = dataset.Columns = 8
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.PixelSpacing, dataset.SliceThickness, dataset.KVP = [0.5, 0.75], 2, 120
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    dataset.PixelPaddingValue = 63536
    if frames > 1:
        dataset.NumberOfFrames = frames
    dataset.PixelData = np.arange(64 * frames, dtype=np.uint16).tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if compress:
        dataset.compress(RLELossless)
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


DICOMS = [dicom(), dicom(True), dicom(frames=3), dicom(True, 3)]


def changed(data: st.DataObject, content: bytes, most: int = 4, within: int = 0) -> bytes:
    """``content`` with a few bytes set, cut or put in; in its first ``within`` bytes, or anywhere."""
    made = bytearray(content)
    for _ in range(data.draw(st.integers(1, most))):
        at = data.draw(st.integers(0, min(len(made), within or len(made)) - 1))
        match data.draw(st.sampled_from(["set", "set", "set", "cut", "insert", "end"])):
            case "set":
                piece = data.draw(st.binary(min_size=1, max_size=4) | st.sampled_from([b"\xff" * 4, b"\0" * 4]))
                made[at : at + len(piece)] = piece
            case "cut":
                del made[at : at + data.draw(st.integers(1, 20))]
            case "insert":
                made[at:at] = data.draw(st.binary(max_size=6))
            case "end":
                del made[max(at, 1) :]
        made = made or bytearray(b"x")
    return bytes(made)


def read(kind: str, name: str, content: bytes, images: list[ImageInput], **options: Any) -> list[Picture | LeftOut]:
    """Everything that the reader gives, prepared as each of ``images`` wants it."""
    found: list[Picture | LeftOut] = []
    with TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(content)
        (Path(folder) / "t.csv").write_text(f"file,patient\n{name},{MARKER}\n")
        list(picture_patients(kind, Path(folder), options))
        for image in images:
            for each in read_pictures(kind, Path(folder), image, {"keep_text": True, **options}):
                found.append(each)
                if isinstance(each, LeftOut):
                    continue
                try:
                    made = features_of(each, image)
                except Unfit:
                    continue
                assert made.shape == ((4,) if image is COUNTS else image.shape) and np.isfinite(made).all()
    assert MARKER not in repr(found)
    return found


@nonsense
@given(st.data())
def test_no_byte_of_a_dicom_file_breaks_its_reader(lawful: Lawful, data: st.DataObject) -> None:
    content = changed(data, data.draw(st.sampled_from(DICOMS)))
    lawful(lambda: read("dicom", "a.dcm", content, [PLAIN, SPACED, COUNTS]))


ODD = st.sampled_from(
    ["", "0", "-1", "1e300", "1e-300", "inf", "nan", "65535", MARKER, "1\\2\\3", "1e300\\1e300", "inf\\inf", "1e9\\1e9",
     "0\\0\\0\\0\\0\\0", "1e200\\0\\0\\0\\1\\0"]
)  # fmt: skip
FIELDS = ["PixelSpacing", "ImagerPixelSpacing", "RescaleSlope", "RescaleIntercept", "NumberOfFrames", "SliceThickness",
          "KVP", "ImagePositionPatient", "ImageOrientationPatient", "PatientID", "ImageType", "Modality"]  # fmt: skip
ODD_SHORTS = st.sampled_from([0, 1, 2, 3, 8, 12, 16, 32, 64, 255, 4096, 65535])
SHORTS = ["Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"]


@nonsense
@given(
    st.sampled_from(DICOMS), st.dictionaries(st.sampled_from(FIELDS), ODD, max_size=3),
    st.dictionaries(st.sampled_from(SHORTS), ODD_SHORTS, max_size=3),
    st.sampled_from(["MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "PALETTE COLOR", ""]),
)  # fmt: skip
def test_no_header_of_dicom_breaks_its_reader(
    lawful: Lawful, good: bytes, texts: dict[str, str], shorts: dict[str, int], colour: str
) -> None:
    from pydicom import DataElement, dcmread
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    dataset = dcmread(io.BytesIO(good))
    for keyword, text in texts.items():
        tag = tag_for_keyword(keyword)
        assert tag is not None
        # As text under another name of its kind: pydicom would not write a number that is none.
        dataset[tag] = DataElement(tag, "LO" if dictionary_VR(tag) in ("DS", "IS") else dictionary_VR(tag), text)
    for keyword, number in shorts.items():
        setattr(dataset, keyword, number)
    dataset.PhotometricInterpretation = colour
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    content = out.getvalue()
    for keyword in texts:
        tag = tag_for_keyword(keyword)
        assert tag is not None
        if (kind := dictionary_VR(tag)) in ("DS", "IS"):
            at = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
            content = content.replace(at + b"LO", at + kind.encode())
    lawful(lambda: read("dicom", "a.dcm", content, [PLAIN, SPACED, COUNTS]))


@pytest.mark.parametrize("spacing", ["inf\\inf", "1e300\\1e300", "1e9\\1e9", "1e-300\\1e-300", "nan\\nan"])
def test_a_spacing_that_no_scanner_has_fills_no_memory(lawful: Lawful, spacing: str) -> None:
    given_as = b"\x28\x00\x30\x00DS" + struct.pack("<H", 8) + b"0.5\\0.75"
    assert given_as in DICOMS[0]
    text = spacing.encode() + b" " * (len(spacing) % 2)
    content = DICOMS[0].replace(given_as, given_as[:6] + struct.pack("<H", len(text)) + text)
    lawful(lambda: read("dicom", "a.dcm", content, [SPACED]))


@pytest.mark.parametrize("good", range(4))
def test_a_claim_of_four_thousand_million_pixels_fills_no_memory(lawful: Lawful, good: int) -> None:
    content = DICOMS[good]
    for tag in (b"\x28\x00\x10\x00", b"\x28\x00\x11\x00"):
        assert content.count(tag + b"US\x02\x00\x08\x00") == 1
        content = content.replace(tag + b"US\x02\x00\x08\x00", tag + b"US\x02\x00\xff\xff")
    found = lawful(lambda: read("dicom", "a.dcm", content, [PLAIN]))
    assert [each.reason for each in found if each.place == "a.dcm"] == [TOO_LARGE]


def volume(two: bool = False, kind: type = np.int16) -> bytes:
    values = np.arange(8 * 8 * 8).reshape(8, 8, 8).astype(kind)
    made = (nibabel.Nifti2Image if two else nibabel.Nifti1Image)(values, np.diag([2.0, 2, 3, 1]))
    return bytes(made.to_bytes())


VOLUMES = [volume(), volume(True), volume(kind=np.float32), volume(kind=np.complex64)]


@nonsense
@given(st.data(), st.booleans())
def test_no_byte_of_a_nifti_header_breaks_its_reader(lawful: Lawful, data: st.DataObject, zipped: bool) -> None:
    content = changed(data, data.draw(st.sampled_from(VOLUMES)), within=540)
    name = f"sub-{MARKER}.nii" + ".gz" * zipped
    packed = gzip.compress(content, 1) if zipped else content
    if zipped and data.draw(st.booleans()):
        packed = changed(data, packed)
    lawful(lambda: read("nifti", name, packed, [VOLUME, SPACED, COUNTS]))


NUMBERS = st.sampled_from([0, 1, -1, 7, 8, 255, 4096, 32767, -32768])
FLOATS = st.sampled_from([0.0, -1.0, 1e30, -1e30, 1e-30, float("inf"), float("nan"), 1e6])


@nonsense
@given(
    st.dictionaries(st.integers(0, 7), NUMBERS, max_size=3), st.dictionaries(st.integers(0, 7), FLOATS, max_size=3),
    st.dictionaries(st.integers(0, 11), FLOATS, max_size=4),
    st.sampled_from([2, 4, 8, 16, 32, 64, 128, 768, 1536, 0, 99]),
    FLOATS, FLOATS, NUMBERS, NUMBERS,
)  # fmt: skip
def test_no_number_of_a_nifti_header_breaks_its_reader(
    lawful: Lawful, shape: dict[int, int], steps: dict[int, float], affine: dict[int, float], kind: int,
    slope: float, offset: float, sform: int, qform: int,
) -> None:  # fmt: skip
    content = bytearray(VOLUMES[0])
    for at, number in shape.items():
        struct.pack_into("<h", content, 40 + 2 * at, number)
    struct.pack_into("<h", content, 70, kind)
    for at, step in steps.items():
        struct.pack_into("<f", content, 76 + 4 * at, step)
    struct.pack_into("<fff", content, 108, offset, slope, offset)
    struct.pack_into("<hh", content, 252, qform, sform)
    for at, step in affine.items():
        struct.pack_into("<f", content, 280 + 4 * at, step)
    lawful(lambda: read("nifti", "sub-1.nii", bytes(content), [VOLUME, SPACED, COUNTS]))


def picture(kind: str, mode: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).convert(mode).save(out, kind)
    return out.getvalue()


FILES = [picture("PNG", "L"), picture("PNG", "RGBA"), picture("PNG", "P"), picture("JPEG", "L"), picture("JPEG", "RGB")]


@nonsense
@given(st.data())
def test_no_byte_of_a_png_or_jpeg_file_breaks_its_reader(lawful: Lawful, data: st.DataObject) -> None:
    content = changed(data, data.draw(st.sampled_from(FILES)))
    lawful(lambda: read("png", "a.png", content, [PLAIN, COUNTS], table="t.csv"))
