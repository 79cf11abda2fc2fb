"""Slices of a DICOM series become one volume by where they lie, or none of them becomes anything."""

import json
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid

from wardround.client.connectors import read_pictures
from wardround.client.connectors.dicom import EMPTY, NO_SERIES, TWICE
from wardround.client.imaging import volumes
from wardround.client.imaging.picture import LeftOut, Picture
from wardround.client.imaging.pixels import MANY_FRAMES, NO_PIXELS, NOT_DECODED, OTHER_MODALITY, TEXT
from wardround.client.imaging.prepare import features_of
from wardround.client.imaging.records import NO_PICTURE, picture_records
from wardround.protocol.contract import DataContract, ImageInput
from wardround.protocol.errors import UsageError
from wardround.protocol.labels import ClassLabel

CT = ImageInput(modality="CT", size=(8, 16, 16), window=(-1024, 1024), orientation="LPS")
AXIAL, SAGITTAL = (1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1)
ALWAYS = ("PixelData", "PixelSpacing", "SeriesInstanceUID")
"""What the slices of ``write_dicom`` have of themselves, so that None takes it out."""
WriteDicom = Callable[..., Path]


def read(folder: Path, image: ImageInput = CT, **options: Any) -> list[Picture | LeftOut]:
    return list(read_pictures("dicom", folder, image, options))


def only(folder: Path, image: ImageInput = CT, **options: Any) -> Picture:
    (found,) = read(folder, image, **options)
    assert isinstance(found, Picture)
    return found


def reasons(folder: Path, image: ImageInput = CT, **options: Any) -> Counter[str]:
    found = read(folder, image, **options)
    return Counter(one.reason if isinstance(one, LeftOut) else "volume" for one in found)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
def write_series(write_dicom: WriteDicom) -> Callable[..., list[Path]]:
    """Writes one slice for each position, with the slice's number (from 0) in its first pixel, and in random files."""

    def write(folder: str = "s", positions: Any = None, each: Any = None, **fields: Any) -> list[Path]:
        places = [(0.0, 0.0, 2.5 * number) for number in range(8)] if positions is None else positions
        common = {
            "SeriesInstanceUID": generate_uid(),
            "StudyInstanceUID": generate_uid(),
            "FrameOfReferenceUID": generate_uid(),
            "ImageOrientationPatient": list(AXIAL),
            "SliceThickness": 7,
        } | fields
        names = np.random.Generator(np.random.PCG64(3)).permutation(len(places))
        files = []
        for number, place in enumerate(places):
            stored = np.full((16, 16), 1024, np.uint16)
            stored[0, 0] = 1024 + number
            name = f"{folder}/{names[number]:03}.dcm"
            own = common | {"ImagePositionPatient": list(place)} | (each(number) if each else {})
            own = {keyword: value for keyword, value in own.items() if value is not None or keyword in ALWAYS}
            files.append(write_dicom(name, stored, **own))
        return files

    return write


WriteSeries = Callable[..., list[Path]]


def test_slices_are_in_the_order_of_their_positions_whatever_their_numbers_and_files(
    write_series: WriteSeries, archive: Path
) -> None:
    write_series(each=lambda number: {"InstanceNumber": (number * 3) % 8})
    found = only(archive)
    assert found.pixels.shape == (1, 8, 16, 16) and found.pixels.dtype == np.float32
    assert found.pixels[0, :, 0, 0].tolist() == list(range(8)) and found.pixels[0, :, 1, 1].tolist() == [0] * 8
    assert found.spacing == (2.5, 0.5, 0.75), "from the positions, where SliceThickness says 7"
    assert found.patient == "P-4711" and found.key == "s"
    assert found.affine is not None
    assert np.allclose(found.affine, np.diag([0.75, 0.5, 2.5, 1.0]))


def test_a_series_that_was_taken_downwards_is_the_same_volume(write_series: WriteSeries, archive: Path) -> None:
    write_series("up")
    write_series("down", [(0, 0, -2.5 * number) for number in range(8)])
    found = {one.key: one for one in read(archive) if isinstance(one, Picture)}
    assert found["down"].pixels[0, :, 0, 0].tolist() == list(range(8))[::-1]
    assert found["down"].spacing == found["up"].spacing
    assert found["down"].affine is not None and found["down"].affine[:3, 3].tolist() == [0, 0, -17.5]


def test_an_oblique_series_is_a_volume_with_its_direction(write_series: WriteSeries, archive: Path) -> None:
    """Rows to the left and back, columns to the feet and back; the normal by hand: the vector product."""
    along_row, along_column = np.array([0.8, 0.6, 0.0]), np.array([-0.36, 0.48, -0.8])
    normal = np.cross(along_row, along_column)
    positions = [np.array([5.0, -3.0, 11.0]) + 1.25 * number * normal for number in range(8)]
    write_series(positions=[p.round(6) for p in positions], ImageOrientationPatient=[*along_row, *along_column])
    found = only(archive)
    assert found.spacing == pytest.approx((1.25, 0.5, 0.75))
    assert found.affine is not None
    # What the affine says of the last slice's first pixel is what its header said.
    assert np.allclose((found.affine @ [0, 0, 7, 1])[:3], positions[7], atol=1e-5)
    assert np.allclose((found.affine @ [1, 0, 0, 1])[:3], positions[0] + 0.75 * along_row, atol=1e-5)
    assert np.allclose((found.affine @ [0, 1, 0, 1])[:3], positions[0] + 0.5 * along_column, atol=1e-5)


def test_rounded_positions_are_even(write_series: WriteSeries, archive: Path) -> None:
    write_series(positions=[(0, 0, round(0.625 * number, 2)) for number in range(16)])
    assert only(archive).spacing[0] == pytest.approx(0.625, abs=0.001)


def straight(number: int) -> tuple[float, float, float]:
    return (0.0, 0.0, 2.5 * number)


@pytest.mark.parametrize(
    ("reason", "positions", "fields"),
    [
        (volumes.UNEVEN, [straight(n) for n in range(8) if n != 3], {}),
        (volumes.UNEVEN, [(0, 0, z) for z in (0, 2.5, 5, 7.7, 10)], {}),
        (volumes.REPEATED, [straight(n) for n in (0, 1, 2, 2, 3)], {}),
        (volumes.REPEATED, [straight(n) for n in (0, 1, 2, 3)] * 2, {}),
        (volumes.FEW, [straight(0), straight(1)], {}),
        (volumes.SHEARED, [(0, 0.6 * n, 2.5 * n) for n in range(8)], {}),
        (volumes.NO_PLACE, [straight(n) for n in range(8)], {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}),
        (volumes.NO_PLACE, [straight(n) for n in range(8)], {"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}),
        (volumes.NO_PLACE, [straight(n) for n in range(8)], {"PixelSpacing": None}),
        (OTHER_MODALITY, [straight(n) for n in range(8)], {"Modality": "MR"}),
        (TEXT, [straight(n) for n in range(8)], {"BurnedInAnnotation": "YES"}),
        (NO_SERIES, [straight(0)], {"SeriesInstanceUID": None}),
    ],
)
def test_a_series_that_is_no_regular_grid_is_left_out_by_name_and_once(
    write_series: WriteSeries, archive: Path, reason: str, positions: Any, fields: dict[str, Any]
) -> None:
    write_series("bad", positions, **fields)
    write_series("good")
    assert reasons(archive) == {reason: 1, "volume": 1}


@pytest.mark.parametrize(
    ("reason", "of_one"),
    [
        (volumes.MIXED, {"ImageOrientationPatient": list(SAGITTAL)}),
        (volumes.MIXED, {"PixelSpacing": [0.5, 0.8]}),
        (volumes.MIXED, {"FrameOfReferenceUID": "1.2.3"}),
        (volumes.MIXED, {"Rows": 8, "PixelData": b"\0" * 256}),
        (volumes.PATIENTS, {"PatientID": "P-4712"}),
        (volumes.NO_PLACE, {"ImagePositionPatient": None}),
        (volumes.NO_PLACE, {"NumberOfFrames": 2, "PixelData": b"\0" * 1024}),
        (NOT_DECODED, {"PixelData": b"\0" * 30}),
        (NO_PIXELS, {"PixelData": None}),
        (TEXT, {"BurnedInAnnotation": "YES"}),
    ],
)
def test_one_slice_that_does_not_fit_leaves_the_whole_series_out(
    write_series: WriteSeries, archive: Path, reason: str, of_one: dict[str, Any]
) -> None:
    write_series("bad", each=lambda number: of_one if number == 5 else {})
    write_series("good")
    assert reasons(archive) == {reason: 1, "volume": 1}
    # The negative control: without that slice's fault the series is a volume.
    write_series("bad")
    assert reasons(archive) == {"volume": 2}


def test_a_tilted_gantry_is_named_and_a_rounded_position_is_not_one(write_series: WriteSeries, archive: Path) -> None:
    """15 degrees: steps along z, planes turned about the x axis."""
    turned = np.radians(15.0)
    write_series("tilted", ImageOrientationPatient=[1, 0, 0, 0, round(np.cos(turned), 6), round(np.sin(turned), 6)])
    write_series("rounded", [(0.1 * (number % 2), 0, 2.5 * number) for number in range(8)])
    assert reasons(archive) == {volumes.SHEARED: 1, "volume": 1}


def test_letters_in_one_slice_leave_the_series_out_unless_the_site_says_it_is_clean(
    write_series: WriteSeries, archive: Path
) -> None:
    lettered = np.full((64, 64), 1024, np.uint16)
    lettered[::3] += np.arange(22, dtype=np.uint16)[:, None]
    plain = lettered.copy()
    for left in range(4, 60, 12):
        lettered[10:20, left : left + 2] = lettered[18:20, left : left + 6] = 3000
    fields = {"Rows": 64, "Columns": 64}
    write_series(each=lambda number: fields | {"PixelData": (lettered if number == 4 else plain).tobytes()})
    assert reasons(archive) == {TEXT: 1}
    assert reasons(archive, keep_text=True) == {"volume": 1}


def test_a_localizer_is_left_out_by_itself(write_series: WriteSeries, archive: Path) -> None:
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "ImageOrientationPatient": list(SAGITTAL)}
    write_series(each=lambda number: scout if number == 7 else {})
    write_series("scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    found = read(archive)
    volume = next(one for one in found if isinstance(one, Picture))
    assert volume.pixels.shape == (1, 7, 16, 16)
    assert reasons(archive) == {volumes.LOCALIZER: 9, "volume": 1}


def test_a_copy_of_a_slice_and_an_empty_file_are_counted_and_do_no_harm(
    write_series: WriteSeries, archive: Path
) -> None:
    files = write_series()
    (archive / "t").mkdir()
    (archive / "t" / "copy.dcm").write_bytes(files[3].read_bytes())
    (archive / "t" / "empty.dcm").write_bytes(b"")
    assert reasons(archive) == {"volume": 1, TWICE: 1, EMPTY: 1}


def test_more_voxels_than_are_allowed_are_not_decoded(
    write_series: WriteSeries, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_series()
    monkeypatch.setattr(volumes, "MOST_VOXELS", 8 * 16 * 16)
    assert reasons(archive) == {"volume": 1}
    monkeypatch.setattr(volumes, "MOST_VOXELS", 8 * 16 * 16 - 1)
    assert reasons(archive) == {volumes.TOO_LARGE: 1}
    monkeypatch.undo()
    write_series("huge", Rows=65535, Columns=65535)
    assert reasons(archive) == {"volume": 1, volumes.TOO_LARGE: 1}


@pytest.mark.parametrize("by", ["series", "study", "patient", "accession", "file"])
def test_a_label_names_a_volume_by_what_the_site_says(write_series: WriteSeries, archive: Path, by: str) -> None:
    file = write_series("a/b", AccessionNumber="ACC1")[0]
    header = dcmread(file)
    keys = {
        "series": header.SeriesInstanceUID, "study": header.StudyInstanceUID, "patient": "P-4711",
        "accession": "ACC1", "file": "a/b",
    }  # fmt: skip
    assert only(archive, labels_by=by).key == keys[by]


def test_a_series_in_two_folders_has_no_path_and_a_slice_names_no_volume(
    write_series: WriteSeries, archive: Path
) -> None:
    file = write_series("a")[0]
    (archive / "b").mkdir()
    file.rename(archive / "b" / "moved.dcm")
    assert reasons(archive) == {volumes.NO_KEY: 1}
    assert reasons(archive, labels_by="series") == {"volume": 1}
    with pytest.raises(UsageError, match="names slices"):
        read(archive, labels_by="sop")
    flat = CT.model_copy(update={"size": (16, 16), "orientation": "as_stored"})
    assert len(read(archive, flat, labels_by="sop")) == 8


def test_a_number_of_the_header_is_a_volumes_where_all_slices_agree(write_series: WriteSeries, archive: Path) -> None:
    write_series(each=lambda number: {"KVP": "120", "XRayTubeCurrent": str(200 + number)})
    found = only(archive, CT.model_copy(update={"features": "histogram"}))
    assert found.numbers == {"KVP": 120, "SliceThickness": 7, "BitsStored": 16}
    assert only(archive).numbers == {}


def test_labels_and_volumes_are_counted_against_each_other(write_series: WriteSeries, archive: Path) -> None:
    write_series("good")
    write_series("short", [straight(0), straight(1)])
    label = ClassLabel(column="y", meaning="m", positive=("1",), negative=("0",))
    contract = DataContract(image=CT, label=label, patient_id="patient")
    labels = {name: {"y": "1"} for name in ("good", "short", "away")}
    (records,) = picture_records(iter(read(archive)), labels, contract, "site")
    assert records.features.shape == (1, 1, 8, 16, 16)
    assert records.excluded == {volumes.FEW: 1, NO_PICTURE: 1}


def enhanced(file: Path, planes: np.ndarray, positions: list[Any], **fields: Any) -> None:
    """One file with every slice, its geometry and rescaling in functional groups (PS3.3 C.7.6.16)."""
    dataset = dcmread(file)
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = planes.shape
    dataset.PixelData = planes.tobytes()
    for keyword in ("RescaleSlope", "RescaleIntercept", "PixelSpacing", "ImagePositionPatient"):
        if keyword in dataset:
            delattr(dataset, keyword)
    if "ImageOrientationPatient" in dataset:
        del dataset.ImageOrientationPatient

    def group(keyword: str, **values: Any) -> Dataset:
        item, outer = Dataset(), Dataset()
        for name, value in values.items():
            setattr(item, name, value)
        setattr(outer, keyword, Sequence([item]))
        return outer

    shared = group("PixelMeasuresSequence", PixelSpacing=[0.5, 0.75])
    shared.update(group("PlaneOrientationSequence", ImageOrientationPatient=list(AXIAL)))
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for number, position in enumerate(positions):
        own = group("PlanePositionSequence", ImagePositionPatient=list(position))
        own.update(group("PixelValueTransformationSequence", RescaleSlope=number + 1, RescaleIntercept=-1024))
        frames.append(own)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    for keyword, value in fields.items():
        setattr(dataset, keyword, value)
    dataset.save_as(file)


def test_an_enhanced_file_is_a_volume_with_the_rescaling_of_each_frame(write_dicom: WriteDicom, archive: Path) -> None:
    file = write_dicom("e/one.dcm")
    order = [3, 0, 2, 1]
    planes = np.stack([np.full((16, 16), 100 + number, np.uint16) for number in order])
    enhanced(file, planes, [(0, 0, 2.5 * number) for number in order])
    found = only(archive)
    # Frame f shows slice order[f] and is rescaled by f + 1.
    expected = [(100 + number) * (order.index(number) + 1) - 1024 for number in range(4)]
    assert found.pixels[0, :, 5, 5].tolist() == expected
    assert found.spacing == (2.5, 0.5, 0.75) and found.key == "e/one.dcm"


@pytest.mark.parametrize(
    ("reason", "positions", "fields"),
    [
        (volumes.UNEVEN, [straight(n) for n in (0, 1, 3, 4)], {}),
        (volumes.REPEATED, [straight(n) for n in (0, 1, 0, 1)], {}),
        (volumes.NO_PLACE, [straight(n) for n in range(3)], {}),
        (volumes.PART, [straight(n) for n in range(4)], {"ConcatenationUID": "1.2.3"}),
        (volumes.LOCALIZER, [straight(n) for n in range(4)], {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
        (NOT_DECODED, [straight(n) for n in range(4)], {"PixelData": b"\0" * 700}),
        (MANY_FRAMES, [straight(n) for n in range(4)], {}),
    ],
)
def test_an_enhanced_file_that_is_no_volume_is_named(
    write_dicom: WriteDicom, archive: Path, monkeypatch: pytest.MonkeyPatch, reason: str, positions: Any, fields: Any
) -> None:
    if reason == MANY_FRAMES:
        monkeypatch.setattr(volumes, "MOST_FRAMES", 3)
    enhanced(write_dicom("e/one.dcm"), np.zeros((4, 16, 16), np.uint16), positions, **fields)
    assert reasons(archive) == {reason: 1}


def test_dicom_and_nifti_of_one_volume_give_the_same_features(
    write_series: WriteSeries, archive: Path, tmp_path: Path
) -> None:
    """A sagittal series; the NIfTI's affine is written by hand, in RAS+."""
    random = np.random.Generator(np.random.PCG64(5)).integers(0, 2048, (12, 16, 16)).astype(np.uint16)
    # Normal of rows to the back and columns to the feet: (0, 1, 0) x (0, 0, -1) = (-1, 0, 0), to the right.
    write_series(
        "s", [(50 - 3.0 * number, -20, 40) for number in range(12)], ImageOrientationPatient=list(SAGITTAL),
        each=lambda number: {"PixelData": random[number].tobytes()},
    )  # fmt: skip
    affine = np.array([[0, 0, 3.0, -50], [-0.75, 0, 0, 20], [0, -0.5, 0, 40], [0, 0, 0, 1]])
    stored = nibabel.Nifti1Image(random.transpose(2, 1, 0).astype(np.float32) - 1024, affine)
    (tmp_path / "nifti").mkdir()
    nibabel.save(stored, tmp_path / "nifti" / "p.nii.gz")
    for update in ({}, {"spacing": (1.0, 1.0, 1.0)}, {"features": "histogram"}):
        image = CT.model_copy(update=update)
        (theirs,) = read_pictures("nifti", tmp_path / "nifti", image, {})
        assert isinstance(theirs, Picture)
        one, two = features_of(only(archive, image), image), features_of(theirs, image)
        assert one.std() > 0.05 and np.allclose(one, two, atol=1e-6), update


def test_one_series_at_a_time_is_in_memory(write_series: WriteSeries, archive: Path) -> None:
    size = {"Rows": 256, "Columns": 256, "PixelData": b"\0" * (2 * 256 * 256)}
    for number in range(6):
        write_series(str(number), [straight(n) for n in range(20)], **size)
    tracemalloc.start()
    count = sum(isinstance(one, Picture) for one in read_pictures("dicom", archive, CT, {}))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # A series is 5.2 MB as single precision; six of them are 31.
    assert count == 6 and peak < 18e6, peak


def test_neither_a_volume_nor_a_reason_shows_itself(write_series: WriteSeries, archive: Path) -> None:
    write_series("Fernsby")
    write_series("Fernsby_short", [straight(0)])
    said = repr(read(archive)) + json.dumps(dict(reasons(archive)))
    assert "P-4711" not in said and "Fernsby" not in said
