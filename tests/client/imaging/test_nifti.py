"""NIfTI: the same brain however its axes lie in the file, and a reason for everything that is left out."""

import gzip
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from wardround.client.connectors import nifti as nifti_module
from wardround.client.connectors import read_pictures
from wardround.client.connectors.nifti import NOT_VOLUME
from wardround.client.connectors.picture_table import NO_FILE, NO_ROW
from wardround.client.imaging.picture import LeftOut, Picture
from wardround.client.imaging.pixels import NOT_DECODED
from wardround.client.imaging.prepare import features_of
from wardround.protocol.contract import ImageInput
from wardround.simulations.synthetic.as_nifti import SHAPE, heads, write_nifti
from wardround.simulations.synthetic.hospitals import hospitals

VOLUME = ImageInput(modality="MR", size=SHAPE, window=(0, 800), orientation="LPS")
FLAT = ImageInput(modality="MR", size=(64, 64), window=(0, 800))
SECRET = "Ostervald"


def read(folder: Path, image: ImageInput = VOLUME, **options: Any) -> list[Picture | LeftOut]:
    return list(read_pictures("nifti", folder, image, options))


@pytest.mark.parametrize("number", range(4), ids=["LPS", "RAS", "ASL, integers", "LAS"])
def test_every_order_of_axes_gives_the_phantom_that_was_written(number: int, tmp_path: Path) -> None:
    hospital = hospitals(4, 3)[number]
    (tmp_path / "data").mkdir()
    source = write_nifti(tmp_path, hospital, 3)
    truth = {subject.id: picture for subject, picture, _ in heads(hospital, 3)}
    found = read(tmp_path / source.path)
    assert {one.patient for one in found if isinstance(one, Picture)} == set(truth)
    for one in found:
        assert isinstance(one, Picture)
        expected = np.clip(truth[one.patient], 0, 800) / 800 * 2 - 1
        # The third hospital writes scaled integers of 16 bits.
        assert np.abs(features_of(one, VOLUME)[0] - expected).max() < 1e-4


@pytest.mark.parametrize("number", range(4))
def test_a_plan_of_two_dimensions_gets_axial_slices(number: int, tmp_path: Path) -> None:
    hospital = hospitals(4, 3)[number]
    (tmp_path / "data").mkdir()
    source = write_nifti(tmp_path, hospital, 1)
    ((_, truth, _),) = heads(hospital, 1)
    found = read(tmp_path / source.path, FLAT)
    assert len(found) == SHAPE[0] and len({one.key for one in found if isinstance(one, Picture)}) == 1
    for one, plane in zip(found, truth, strict=True):
        assert isinstance(one, Picture) and one.spacing == pytest.approx((3.2, 3.0))
        assert np.abs(one.pixels[0] - plane).max() < 0.05


def saved(path: Path, values: Any, **about: Any) -> Path:
    image = nib.Nifti1Image(values, np.diag([1.0, 1.0, 2.0, 1.0]))
    for name, value in about.items():
        image.header[name] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def test_the_patient_is_the_bids_subject_or_the_name_or_the_tables(tmp_path: Path) -> None:
    cube = np.ones((4, 4, 4), np.float32)
    saved(tmp_path / "images" / "sub-07" / "anat" / "sub-07_T1w.nii.gz", cube)
    saved(tmp_path / "images" / "sub-08_T1w.nii", cube)
    saved(tmp_path / "images" / "ward.3.nii.gz", cube)
    found = read(tmp_path / "images")
    assert [one.patient for one in found if isinstance(one, Picture)] == ["07", "08", "ward.3"]
    (tmp_path / "who.csv").write_text("scan,id\nward.3.nii.gz,p3\ngone.nii,p4\n")
    found = read(tmp_path / "images", table="../who.csv", file="scan", patient="id")
    assert [one.patient for one in found if isinstance(one, Picture)] == ["p3"]
    assert Counter(one.reason for one in found if isinstance(one, LeftOut)) == {NO_ROW: 2, NO_FILE: 1}


def test_what_is_no_volume_is_left_out_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = saved(tmp_path / "a.nii.gz", np.ones((6, 6, 6), np.float32), descrip=SECRET.encode())
    (tmp_path / "b-cut.nii.gz").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    (tmp_path / "c-short.nii").write_bytes(gzip.decompress(good.read_bytes())[:400])
    (tmp_path / "d-text.nii").write_text(SECRET)
    (tmp_path / "e-empty.nii").write_bytes(b"")
    saved(tmp_path / "f-time.nii.gz", np.ones((4, 4, 4, 3), np.float32))
    saved(tmp_path / "g-one.nii.gz", np.ones((4, 4, 4, 1), np.float32))
    saved(tmp_path / "h-large.nii.gz", np.ones((40, 40, 40), np.uint8))
    flat = bytearray(gzip.decompress(good.read_bytes()))
    flat[252:256], flat[280:328] = (0).to_bytes(2, "little") + (1).to_bytes(2, "little"), bytes(48)
    (tmp_path / "i-flat.nii").write_bytes(flat)  # an affine of zeros (sform)
    nib.save(nib.Nifti2Image(np.ones((4, 4, 4), np.float32), np.eye(4)), tmp_path / "j-two.nii.gz")
    monkeypatch.setattr(nifti_module, "MOST_VOXELS", 1000)
    found = read(tmp_path)
    assert [one.patient for one in found if isinstance(one, Picture)] == ["a", "g-one", "j-two"]
    reasons = [one.reason for one in found if isinstance(one, LeftOut)]
    assert Counter(reasons) == {NOT_DECODED: 5, NOT_VOLUME: 1, nifti_module.TOO_LARGE: 1}
    assert SECRET not in repr(found)


def test_what_is_no_number_is_outside_the_field_of_view(tmp_path: Path) -> None:
    values = np.ones((4, 4, 4), np.float32)
    values[0, 0, 0], values[1, 0, 0] = np.nan, np.inf
    saved(tmp_path / "a.nii", values)
    (found,) = read(tmp_path)
    assert isinstance(found, Picture) and int(np.isnan(found.pixels).sum()) == 2
    assert np.isfinite(features_of(found, VOLUME)).all()


def test_bytes_that_break_in_any_place_never_raise(tmp_path: Path) -> None:
    whole = gzip.decompress(saved(tmp_path / "a.nii.gz", np.ones((5, 5, 5), np.float32)).read_bytes())
    (tmp_path / "a.nii.gz").unlink()
    generator, seen = np.random.Generator(np.random.PCG64(2)), Counter[str]()
    for number in range(150):
        broken = bytearray(whole)
        if number % 3 == 0:
            del broken[int(generator.integers(len(whole))) :]
        for place in generator.integers(min(len(broken), 352) or 1, size=4) if broken else ():
            broken[place] = int(generator.integers(256))
        (tmp_path / "a.nii").write_bytes(bytes(broken))
        for one in read(tmp_path):
            seen[one.reason if isinstance(one, LeftOut) else "picture"] += 1
    assert len(seen) >= 2, seen
