"""Text in the pixels: found where it was drawn, not seen where there is none."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydicom import dcmread

from wardround.client.connectors import read_pictures
from wardround.client.imaging.burned_in import shows_text, text_is_likely
from wardround.client.imaging.picture import LeftOut, Picture
from wardround.client.imaging.pixels import TEXT
from wardround.protocol.contract import ImageInput


def slice_of_a_body(seed: int, size: int = 256) -> np.ndarray:
    """An ellipse of soft tissue with two lungs, round bones and noise, in Hounsfield units."""
    generator = np.random.Generator(np.random.PCG64(seed))
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    values = np.where((x / 0.9) ** 2 + (y / 0.7) ** 2 < 1, 40.0, -1000.0)
    for side in (-0.4, 0.4):
        values[((x - side) / 0.3) ** 2 + (y / 0.45) ** 2 < 1] = -800
    for angle in np.linspace(0, 2 * np.pi, 14)[:-1]:
        reach = 0.02 + 0.03 * generator.random()
        values[(x - 0.8 * np.cos(angle)) ** 2 + (y - 0.6 * np.sin(angle)) ** 2 < reach**2] = (
            700 + 500 * generator.random()
        )
    return values + generator.normal(0, 15, values.shape)


def written(values: np.ndarray, text: str, at: tuple[int, int], height: int, value: float) -> np.ndarray:
    mask = Image.new("1", values.shape[::-1])
    ImageDraw.Draw(mask).text(at, text, fill=1, font=ImageFont.load_default(height))
    return np.where(np.array(mask), value, values)


@pytest.mark.parametrize("seed", range(12))
def test_a_body_without_text_is_no_text(seed: int) -> None:
    assert not shows_text(slice_of_a_body(seed))


@pytest.mark.parametrize("height", [10, 14, 20, 32])
@pytest.mark.parametrize("at", [(4, 4), (90, 4), (6, 220), (60, 120)])
def test_a_name_drawn_in_white_is_seen_wherever_it_stands(height: int, at: tuple[int, int]) -> None:
    body = slice_of_a_body(1)
    assert shows_text(written(body, "FERNSBY 4711", at, height, body.max() + 200))


def test_black_letters_on_a_bright_ground_are_seen() -> None:
    bright = np.full((256, 256), 200.0) + np.random.Generator(np.random.PCG64(2)).normal(0, 10, (256, 256))
    assert not shows_text(bright)
    assert shows_text(written(bright, "FERNSBY 4711", (20, 20), 16, -50))


def test_pictures_without_contrast_or_content_show_nothing() -> None:
    assert not shows_text(np.zeros((32, 32))) and not shows_text(np.full((32, 32), np.nan))


@pytest.mark.parametrize(
    ("modality", "kind", "declared", "likely"),
    [
        ("CT", ("ORIGINAL", "PRIMARY"), "", False),
        ("CT", ("ORIGINAL", "PRIMARY"), "YES", True),
        ("CT", ("DERIVED", "SECONDARY", "SCREEN SAVE"), "", True),
        ("CT", ("DERIVED", "SECONDARY", "SCREEN SAVE"), "NO", False),
        ("US", ("ORIGINAL", "PRIMARY"), "", True),
        ("US", ("ORIGINAL", "PRIMARY"), "NO", False),
        ("CT", (), "yes", True),
    ],
)
def test_the_header_is_believed_when_it_warns(
    modality: str, kind: tuple[str, ...], declared: str, likely: bool
) -> None:
    assert text_is_likely(modality, kind, declared) == likely


def test_a_picture_with_text_is_left_out_by_name_unless_the_site_says_it_is_clean(
    write_dicom: Callable[..., Path], tmp_path: Path
) -> None:
    body = np.clip(slice_of_a_body(3) + 1024, 0, None)
    write_dicom("clean.dcm", body.astype(np.uint16))
    write_dicom("text.dcm", written(body, "FERNSBY", (10, 10), 16, 4000.0).astype(np.uint16))
    write_dicom("warned.dcm", body.astype(np.uint16), BurnedInAnnotation="YES")
    image = ImageInput(modality="CT", size=(64, 64), window=(-160, 240))
    found = list(read_pictures("dicom", tmp_path / "archive", image, {}))
    assert [isinstance(one, Picture) for one in found] == [True, False, False]
    assert {one.reason for one in found if isinstance(one, LeftOut)} == {TEXT}
    assert len(list(read_pictures("dicom", tmp_path / "archive", image, {"keep_text": True}))) == 3


def test_on_real_slices_all_planted_text_is_found_and_no_clean_slice_is_lost(wardround_data: Path) -> None:
    """By the pixels alone: the header's own warning is not asked."""
    folder = wardround_data / "lung_ct_dicom"
    planted = {
        name for name, found in json.loads((folder / "phi_manifest.json").read_text()).items()
        if "PixelData(burned-in)" in found["planted"]
    }  # fmt: skip
    files = sorted((folder / "dicom").rglob("*.dcm"))
    seen = {file.relative_to(folder).as_posix() for file in files if shows_text(dcmread(file).pixel_array)}
    assert len(files) == 100 and len(planted) == 4 and seen == planted
