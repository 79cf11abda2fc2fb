"""Masks go the way of their pictures: turned, scaled and cropped alike, and refused where they do not lie on them."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from wardround.client.connectors import read_pictures
from wardround.client.connectors.mask_files import MASK_BROKEN, MASK_OUTSIDE, NO_MASK, masks_below
from wardround.client.imaging.masks import mask_of
from wardround.client.imaging.picture import Picture
from wardround.client.imaging.prepare import Unfit, features_of
from wardround.client.imaging.records import picture_records
from wardround.protocol.contract import DataContract, ImageInput
from wardround.protocol.labels import MaskLabel

RANDOM = np.random.Generator(np.random.PCG64(15))
LABEL = MaskLabel(column="mask", meaning="Organs", structures={"2": "liver", "5": "kidney"})
FLAT = ImageInput(modality="OT", size=(8, 8), window=(0, 10))
DEEP = ImageInput(modality="MR", size=(8, 12, 16), window=(0, 10), orientation="LPS")


def flat(values: Any) -> Picture:
    return Picture("p", "k", np.asarray(values, np.float32)[None])


def test_numbers_become_the_places_of_the_structures() -> None:
    stored = np.zeros((8, 8))
    stored[1, 2], stored[3, 4] = 2, 5
    found = mask_of(flat(stored), flat(np.zeros((8, 8))), FLAT, LABEL)
    assert found.shape == (1, 8, 8) and found[0, 1, 2] == 1 and found[0, 3, 4] == 2 and found.sum() == 3


def test_structures_have_their_places_by_number_however_they_are_written() -> None:
    """A plan's bytes sort their keys as text, 10 before 7, and sites have the plan from its bytes."""
    written = MaskLabel(column="mask", meaning="Organs", structures={"10": "spleen", "7": "kidney", "1": "liver"})
    sorted_as_text = MaskLabel(column="mask", meaning="Organs", structures=dict(sorted(written.structures.items())))
    assert list(written.structures) == list(sorted_as_text.structures) == ["1", "7", "10"]
    stored = np.zeros((8, 8))
    stored[0, 0] = 10
    assert mask_of(flat(stored), flat(np.zeros((8, 8))), FLAT, written)[0, 0, 0] == 3


@pytest.mark.parametrize("strange", [1.0, 2.5, -2.0, float("nan"), 256.0])
def test_a_number_that_the_contract_does_not_name_is_refused(strange: float) -> None:
    stored = np.zeros((8, 8))
    stored[0, 0] = strange
    with pytest.raises(Unfit, match="does not name"):
        mask_of(flat(stored), flat(np.zeros((8, 8))), FLAT, LABEL)


def test_a_mask_of_another_grid_is_refused() -> None:
    with pytest.raises(Unfit, match="grid"):
        mask_of(flat(np.zeros((8, 9))), flat(np.zeros((8, 8))), FLAT, LABEL)


def test_shrinking_and_cropping_put_a_structure_where_the_picture_shows_it() -> None:
    """A square is bright in the picture and marked in the mask: after the same way both show the same square."""
    stored = np.zeros((48, 32))
    stored[8:24, 4:20] = 5
    image = ImageInput(modality="OT", size=(16, 16), spacing=(2.0, 2.0), window=(0, 5))
    picture = Picture("p", "k", stored[None].astype(np.float32), (1.0, 1.0))
    seen, marked = features_of(picture, image)[0] > 0, mask_of(flat(stored), picture, image, LABEL)[0] == 2
    assert marked.any() and np.array_equal(seen, marked)


def store(values: np.ndarray, affine: np.ndarray, path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.asarray(values, np.float32), affine), path)


def ball(shape: tuple[int, int, int]) -> np.ndarray:
    where = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    return np.where(((where - np.array([0.3, -0.2, 0.4]).reshape(3, 1, 1, 1)) ** 2).sum(0) < 0.25, 5.0, 0.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One volume, its mask as it lies, the mask stored with turned axes, and one that was moved by a centimetre."""
    affine, shape = np.diag([1.5, 1.5, 3.0, 1.0]), (32, 24, 12)
    marked = ball(shape)
    bright = np.where(marked > 0, 9.0, 1.0)
    store(bright, affine, tmp_path / "head.nii.gz")
    store(marked, affine, tmp_path / "mask.nii.gz")
    turned = nibabel.Nifti1Image(marked.astype(np.float32), affine).as_reoriented(np.array([[1, -1], [0, 1], [2, -1]]))
    nibabel.save(turned, tmp_path / "turned.nii.gz")
    moved = affine.copy()
    moved[0, 3] = 10.0
    store(marked, moved, tmp_path / "moved.nii.gz")
    return tmp_path


def one(folder: Path) -> Picture:
    found = (each for each in read_pictures("nifti", folder, DEEP, {}) if isinstance(each, Picture))
    return next(each for each in found if each.key == "head.nii.gz")


def test_a_mask_whose_file_has_other_axes_lies_on_its_picture_all_the_same(folder: Path) -> None:
    picture, masks = one(folder), masks_below(folder)
    stored, turned = masks("mask.nii.gz"), masks("turned.nii.gz")
    assert isinstance(stored, Picture) and isinstance(turned, Picture)
    assert not np.array_equal(stored.pixels, turned.pixels)
    marked = mask_of(stored, picture, DEEP, LABEL)
    assert np.array_equal(mask_of(turned, picture, DEEP, LABEL), marked)
    # The picture is averaged and the mask is not: they differ at most at the ball's surface.
    seen = features_of(picture, DEEP)[0] > 0
    both = (seen & (marked[0] == 2)).sum()
    assert both > 50 and 2 * both / (seen.sum() + (marked[0] == 2).sum()) > 0.8


def test_a_mask_that_lies_beside_its_picture_is_refused(folder: Path) -> None:
    mask = masks_below(folder)("moved.nii.gz")
    assert isinstance(mask, Picture)
    with pytest.raises(Unfit, match="grid"):
        mask_of(mask, one(folder), DEEP, LABEL)


def test_a_mask_file_that_is_not_there_or_broken_or_elsewhere_is_a_named_reason(folder: Path) -> None:
    masks = masks_below(folder)
    (folder / "broken.nii.gz").write_bytes(b"\x1f\x8b not gzip")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    assert masks("nothing.nii.gz") == NO_MASK
    assert masks("broken.nii.gz") == masks("broken.png") == MASK_BROKEN
    assert masks("../secret.nii.gz") == masks("/etc/passwd") == MASK_OUTSIDE


def test_records_carry_the_mask_behind_the_channels_and_name_each_that_is_left_out(folder: Path) -> None:
    contract = DataContract(image=DEEP, label=LABEL, patient_id="patient")
    head = one(folder)
    named = {"a": "mask.nii.gz", "b": "moved.nii.gz", "c": "nothing.nii.gz", "d": ""}
    given = [Picture(f"p{key}", key, head.pixels, head.spacing, affine=head.affine) for key in named]
    labels = {key: {"mask": name} for key, name in named.items()}
    (records,) = picture_records(iter(given), labels, contract, "site 'x'", masks_below(folder))
    assert records.features.shape == (1, 2, 8, 12, 16) and records.patients.tolist() == ["pa"]
    assert set(np.unique(records.features[0, 1])) == {0.0, 2.0}
    assert records.excluded == {
        "a mask does not lie on its picture's grid": 1, NO_MASK: 1, "label missing": 1,
    }  # fmt: skip


def test_a_flat_mask_is_a_grey_png(tmp_path: Path) -> None:
    stored = np.zeros((8, 8), np.uint8)
    stored[2:4, 2:4] = 5
    Image.fromarray(stored).save(tmp_path / "mask.png")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "colour.png")
    masks = masks_below(tmp_path)
    found = masks("mask.png")
    assert isinstance(found, Picture) and np.array_equal(found.pixels[0], stored)
    assert masks("colour.png") == MASK_BROKEN


def test_files_of_masks_among_the_pictures_are_not_counted_as_pictures_without_a_label(folder: Path) -> None:
    contract = DataContract(image=DEEP, label=LABEL, patient_id="patient")
    labels = {"head.nii.gz": {"mask": "mask.nii.gz"}}
    found = list(
        picture_records(read_pictures("nifti", folder, DEEP, {}), labels, contract, "site 'x'", masks_below(folder))
    )
    # turned and moved are nobody's mask: they are counted.
    assert sum(len(each.rows) for each in found) == 1
    assert found[-1].excluded == {"picture without a label": 2}


def test_percentiles_are_of_the_picture_itself() -> None:
    image = ImageInput(modality="MR", size=(8, 8), window=(10, 90), intensity="percentiles")
    values = RANDOM.normal(size=(8, 8)).astype(np.float32)
    low, high = np.percentile(values, [10, 90])
    expected = (np.clip(values, low, high) - low) / (high - low) * 2 - 1
    assert np.allclose(features_of(flat(values), image)[0], expected, atol=1e-6)
    # Another machine's unit changes nothing; a picture of one value shows nothing.
    assert np.allclose(features_of(flat(values * 37 + 5), image), features_of(flat(values), image), atol=1e-5)
    with pytest.raises(Unfit, match="one value"):
        features_of(flat(np.ones((8, 8))), image)
