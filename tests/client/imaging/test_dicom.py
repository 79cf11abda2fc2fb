"""A folder of DICOM files becomes pictures, one at a time, or reasons; nothing else of a file comes through."""

import logging
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.data
import pytest
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import FileDataset

from wardround.client.connectors import dicom as dicom_module
from wardround.client.connectors import read_pictures
from wardround.client.connectors.dicom import EMPTY, NOT_DICOM
from wardround.client.imaging.header import NUMBERS
from wardround.client.imaging.picture import TWICE, LeftOut, Picture
from wardround.client.imaging.pixels import NO_PATIENT, NO_PIXELS, NOT_DECODED, OTHER_MODALITY
from wardround.protocol.contract import ImageInput
from wardround.protocol.errors import UsageError

CT = ImageInput(modality="CT", size=(64, 64), window=(-160, 240))
ANY = CT.model_copy(update={"modality": "OT"})
WriteDicom = Callable[..., Path]


def read(folder: Path, image: ImageInput = CT, **options: Any) -> list[Picture | LeftOut]:
    return list(read_pictures("dicom", folder, image, options))


def only(folder: Path, image: ImageInput = CT, **options: Any) -> Picture:
    (found,) = read(folder, image, **options)
    assert isinstance(found, Picture)
    return found


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def test_stored_values_become_modality_units(write_dicom: WriteDicom, archive: Path) -> None:
    stored = np.arange(256, dtype=np.uint16).reshape(16, 16)
    write_dicom("a.dcm", stored, RescaleSlope=2, RescaleIntercept=-1000)
    found = only(archive)
    assert np.array_equal(found.pixels, stored[None] * 2.0 - 1000) and found.pixels.dtype == np.float32
    assert found.spacing == (0.5, 0.75) and found.patient == "P-4711" and found.key == "a.dcm"


def test_signed_values_stay_signed(write_dicom: WriteDicom, archive: Path) -> None:
    write_dicom("a.dcm", np.full((16, 16), -20, np.int16), RescaleIntercept=-1000)
    assert only(archive).pixels.max() == -1020


def test_a_picture_in_which_larger_is_darker_is_turned_around(write_dicom: WriteDicom, archive: Path) -> None:
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_dicom("a.dcm", stored, PhotometricInterpretation="MONOCHROME1", RescaleIntercept=0)
    assert np.array_equal(only(archive).pixels[0], 255.0 - stored)


def test_padding_is_outside_the_field_of_view(write_dicom: WriteDicom, archive: Path) -> None:
    stored = np.full((16, 16), 1000, np.uint16)
    stored[0], stored[1] = 63536, 63000
    write_dicom("a.dcm", stored, PixelPaddingValue=63536, PixelPaddingRangeLimit=62000)
    found = only(archive).pixels[0]
    assert np.isnan(found[:2]).all() and np.isfinite(found[2:]).all()


def test_every_frame_is_a_picture_of_its_patient(write_dicom: WriteDicom, archive: Path) -> None:
    stored = np.repeat(np.arange(3, dtype=np.uint16), 256).reshape(3, 16, 16)
    write_dicom("a.dcm", stored, NumberOfFrames=3)
    found = read(archive)
    assert [picture.pixels.max() for picture in found if isinstance(picture, Picture)] == [-1024, -1023, -1022]
    assert {picture.patient for picture in found if isinstance(picture, Picture)} == {"P-4711"}


def test_geometry_is_that_of_the_header(write_dicom: WriteDicom, archive: Path) -> None:
    turned = {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1], "ImagePositionPatient": [1, 2, 3], "SliceThickness": 4}
    write_dicom("a.dcm", **turned)
    affine = only(archive, CT.model_copy(update={"orientation": "LPS"})).affine
    assert affine is not None and only(archive).affine is None
    # A step along a row goes back by the column spacing, one down a column goes down by the row spacing.
    assert (affine @ [1, 0, 0, 1])[:3].tolist() == [1, 2.75, 3] and (affine @ [0, 1, 0, 1])[:3].tolist() == [1, 2, 2.5]
    assert (affine @ [0, 0, 1, 1])[:3].tolist() == [-3, 2, 3]


@pytest.mark.parametrize(
    ("by", "keyword"),
    [("patient", "PatientID"), ("accession", "AccessionNumber"), ("sop", "SOPInstanceUID"), ("file", None)],
)
def test_the_label_is_found_by_what_the_site_says(
    write_dicom: WriteDicom, archive: Path, by: str, keyword: str | None
) -> None:
    from pydicom import dcmread

    path = write_dicom("x/a.dcm", AccessionNumber="ACC1")
    expected = "x/a.dcm" if keyword is None else str(dcmread(path)[keyword].value)
    assert only(archive, labels_by=by).key == expected


def test_only_allowed_numbers_come_over_the_border(write_dicom: WriteDicom, archive: Path) -> None:
    write_dicom("a.dcm", KVP="120", SliceThickness="2.5", PatientAge="064Y", PatientWeight="81.5", EchoTime="")
    beside = CT.model_copy(update={"features": "histogram"})
    assert only(archive, beside).numbers == {"KVP": 120, "SliceThickness": 2.5, "BitsStored": 16}
    assert only(archive).numbers == {}, "beside pixels there are no columns, so no number is read"
    assert not {"PatientAge", "PatientWeight", "PatientSize", "StudyDate", "AccessionNumber"} & set(NUMBERS)


def test_what_is_left_out_is_named_by_a_fixed_reason(write_dicom: WriteDicom, archive: Path) -> None:
    write_dicom("01", PatientID=None)
    write_dicom("02", PatientID="  ")
    write_dicom("03", PixelData=None)
    write_dicom("04", Modality="MR")
    write_dicom("05", PixelData=b"\0" * 30)
    (archive / "06").write_bytes(b"")
    (archive / "07").write_text("Octavia Fernsby, 12 Elm Road")
    write_dicom("08", SOPInstanceUID="1.2.3")
    write_dicom("09", SOPInstanceUID="1.2.3")
    write_dicom("DICOMDIR")
    found = read(archive)
    reasons = [one.reason if isinstance(one, LeftOut) else "picture" for one in found]
    assert reasons == [
        NO_PATIENT,
        NO_PATIENT,
        NO_PIXELS,
        OTHER_MODALITY,
        NOT_DECODED,
        EMPTY,
        NOT_DICOM,
        "picture",
        TWICE,
    ]
    assert [one.place for one in found if isinstance(one, LeftOut)][:3] == ["01", "02", "03"]


def test_files_come_in_the_order_of_their_paths_and_links_are_not_followed(
    write_dicom: WriteDicom, archive: Path, tmp_path: Path
) -> None:
    for name in ("b/2", "a/9", "b/10", "a"):
        if name != "a":
            write_dicom(name)
    (tmp_path / "elsewhere").mkdir()
    write_dicom("../elsewhere/secret")
    (archive / "c").symlink_to(tmp_path / "elsewhere")
    assert [picture.key for picture in read(archive) if isinstance(picture, Picture)] == ["a/9", "b/10", "b/2"]


def test_a_folder_that_is_not_there_and_a_wrong_choice_are_named(archive: Path) -> None:
    with pytest.raises(UsageError, match="no folder 'archive'"):
        read(archive)
    archive.mkdir()
    with pytest.raises(UsageError, match="'labels_by' is not a way") as error:
        read(archive, labels_by="name")
    assert "accession" in error.value.hint
    with pytest.raises(UsageError, match="no option 'labels'"):
        read(archive, labels="x")


def test_neither_a_picture_nor_a_reason_shows_itself(write_dicom: WriteDicom, archive: Path) -> None:
    write_dicom("Fernsby/a.dcm")
    (archive / "Fernsby" / "b.dcm").write_text("no picture")
    said = repr(read(archive))
    assert "P-4711" not in said and "Fernsby" not in said and "1024" not in said
    with pytest.raises(TypeError, match="never leaves"):
        __import__("pickle").dumps(read(archive)[0])


def test_never_more_than_one_picture_is_in_memory(write_dicom: WriteDicom, archive: Path) -> None:
    for number in range(24):
        write_dicom(f"{number:02}.dcm", np.zeros((512, 512), np.uint16))
    tracemalloc.start()
    count = sum(1 for _ in read_pictures("dicom", archive, CT, {}))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # One slice is 0.5 MB stored and 1 MB as float32; 24 of them would be 24 MB.
    assert count == 24 and peak < 16e6, peak


EXPECTED = {
    "00_plain.dcm": 1, "01_rle.dcm": 1, "02_jpeg_baseline.dcm": 1, "03_jpeg2000_lossless.dcm": 1,
    "04_monochrome1.dcm": 1, "05_signed16.dcm": 1, "06_utf8_names.dcm": 1, "07_iso2022_kr.dcm": 1,
    "08_nested_phi.dcm": 1, "09_private_phi.dcm": 1, "10_overlay_phi.dcm": 1, "11_no_patient_id.dcm": NO_PATIENT,
    "12_multiframe.dcm": 3, "13_rgb.dcm": 1, "14_truncated_pixels.dcm": NOT_DECODED, "15_empty.dcm": EMPTY,
    "16_not_dicom.dcm": NOT_DICOM, "17_no_preamble": 1, "18_duplicate_of_00.dcm": TWICE,
    "19_structured_report.dcm": NO_PIXELS, "20_bad_values.dcm": 1,
}  # fmt: skip


def test_hard_files_do_what_their_list_says(wardround_data: Path) -> None:
    found = read(wardround_data / "dicom_edge")
    pictures = {name: [p for p in found if isinstance(p, Picture) and p.key == name] for name in EXPECTED}
    reasons = {one.place: one.reason for one in found if isinstance(one, LeftOut)}
    for name, expected in EXPECTED.items():
        assert (reasons.get(name) if isinstance(expected, str) else len(pictures[name])) == expected, name
    soft = {name: np.clip(np.nan_to_num(p[0].pixels, nan=-160), -160, 240) for name, p in pictures.items() if p}
    for same in ("01_rle.dcm", "05_signed16.dcm", "17_no_preamble", "20_bad_values.dcm", "06_utf8_names.dcm"):
        assert np.array_equal(soft[same], soft["00_plain.dcm"]), same
    assert pictures["13_rgb.dcm"][0].pixels.shape == (3, 64, 64)
    # The mirrored picture and the lossless JPEG 2000 hold the same eight bits.
    lossless, mirrored = pictures["03_jpeg2000_lossless.dcm"][0].pixels, pictures["04_monochrome1.dcm"][0].pixels
    assert np.abs(lossless - mirrored).max() <= 1
    assert np.corrcoef(soft["00_plain.dcm"].ravel(), mirrored.ravel())[0, 1] > 0.8, "bone must be bright in both"


OTHERS = sorted((Path(pydicom.data.__file__).parent / "test_files").glob("*.dcm"))


@pytest.mark.parametrize("file", OTHERS, ids=lambda file: file.name)
def test_files_of_other_makers_give_pictures_or_reasons(file: Path, tmp_path: Path) -> None:
    """The files that come with pydicom: every codec, both byte orders, plans, reports, doses, truncated ones."""
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "file").write_bytes(file.read_bytes())
    found = read(tmp_path / "one", ANY, keep_text=True)
    assert found
    for one in found:
        if isinstance(one, Picture):
            assert one.pixels.ndim == 3 and one.pixels.shape[0] in (1, 3) and one.pixels.dtype == np.float32


def test_there_are_many_files_of_other_makers() -> None:
    assert len(OTHERS) > 60


def test_bytes_that_break_in_any_place_never_raise(write_dicom: WriteDicom, archive: Path) -> None:
    whole = write_dicom("whole.dcm", RequestedProcedureDescription="x" * 40).read_bytes()
    generator, seen = np.random.Generator(np.random.PCG64(1)), Counter[str]()
    for number in range(150):
        broken = bytearray(whole)
        if number % 2:
            del broken[int(generator.integers(len(whole))) :]
        for place in generator.integers(len(broken) or 1, size=6) if broken else ():
            broken[place] = int(generator.integers(256))
        (archive / "whole.dcm").write_bytes(bytes(broken))
        for one in read(archive):
            seen[one.reason if isinstance(one, LeftOut) else "picture"] += 1
    assert len(seen) >= 3, seen


def test_what_the_reader_has_no_use_for_is_not_even_in_memory(write_dicom: WriteDicom) -> None:
    file = write_dicom("a.dcm", PatientBirthDate="19500101", ImageComments="Fernsby, 12 Elm Road", KVP="120")
    for pixels in (True, False):
        dataset = dicom_module.dataset_in(file, pixels=pixels)
        assert "PatientName" not in dataset and "PatientBirthDate" not in dataset and "ImageComments" not in dataset
        assert "PatientID" in dataset and "KVP" in dataset and ("PixelData" in dataset) == pixels


def test_no_part_of_pydicom_writes_into_the_log(write_dicom: WriteDicom, archive: Path) -> None:
    write_dicom("a.dcm")
    read(archive)
    for name in ("pydicom", "pydicom.pixels.decoders.base", "pydicom.pixels.utils"):
        assert not logging.getLogger(name).isEnabledFor(logging.CRITICAL), name


def test_a_reader_that_looks_at_more_fields_would_be_noticed(write_dicom: WriteDicom, archive: Path) -> None:
    """What the reader asks of a header: this list, and nothing else."""
    asked: set[str] = set()

    class Watched(FileDataset):
        def get(self, key: Any, default: Any = None) -> Any:
            asked.add(key if isinstance(key, str) else keyword_for_tag(key))
            return super().get(key, default)

    def watched(file: Path, pixels: bool = True) -> Any:
        dataset = opened(file, pixels=pixels)
        dataset.__class__ = Watched
        return dataset

    place = {"SeriesInstanceUID": "1.2.3", "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    for number in range(3):
        place["ImagePositionPatient"] = [0, 0, number]
        write_dicom(f"{number}.dcm", PatientBirthDate="19500101", ReferringPhysicianName="Abel^Ann", **place)
    opened = dicom_module.dataset_in
    beside = CT.model_copy(update={"features": "histogram", "orientation": "LPS"})
    try:
        dicom_module.dataset_in = watched
        assert len(read(archive, beside)) == 3
        (volume,) = read(archive, beside.model_copy(update={"size": (8, 8, 8)}))
        assert isinstance(volume, Picture)
    finally:
        dicom_module.dataset_in = opened
    assert "PatientID" in asked
    personal = {"PatientName", "PatientBirthDate", "PatientSex", "PatientAge", "ReferringPhysicianName", "StudyDate"}
    assert not asked & personal


class PanicException(BaseException):
    """As pyo3 calls it where a codec in Rust panics."""


def test_a_codec_that_panics_is_a_picture_that_cannot_be_decoded(
    tmp_path: Path, write_dicom: WriteDicom, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dicom("one.dcm")

    def raises(error: BaseException) -> Any:
        def decode(*given: Any, **more: Any) -> Any:
            raise error

        return decode

    monkeypatch.setattr("pydicom.pixels.get_decoder", raises(PanicException("index out of bounds")))
    (found,) = read(tmp_path / "archive")
    assert isinstance(found, LeftOut) and found.reason == NOT_DECODED
    # Whoever interrupts the reading does interrupt it.
    monkeypatch.setattr("pydicom.pixels.get_decoder", raises(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        read(tmp_path / "archive")
