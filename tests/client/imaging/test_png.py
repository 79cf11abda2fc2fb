"""PNG and JPEG with a table: the stored values, and a reason for everything that is left out."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from wardround.client.connectors import png as png_module
from wardround.client.connectors import read_pictures
from wardround.client.connectors.picture_table import NO_FILE, NO_ROW, OUTSIDE
from wardround.client.imaging.picture import LeftOut, Picture
from wardround.client.imaging.pixels import NO_PATIENT, NOT_DECODED, OTHER_MODALITY, TEXT
from wardround.protocol.contract import ImageInput
from wardround.protocol.errors import UsageError

IMAGE = ImageInput(modality="DX", size=(8, 8), window=(0, 255))
GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
SECRET = "Quillfeather"


def read(folder: Path, rows: str, **options: Any) -> list[Picture | LeftOut]:
    (folder / "labels.csv").write_text(f"file,patient\n{rows}")
    return list(read_pictures("png", folder / "images", IMAGE, {"table": "../labels.csv", **options}))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


@pytest.mark.parametrize("mode", ["L", "1", "LA", "I;16", "RGB", "RGBA", "P"])
def test_every_kind_of_png_gives_its_stored_values(mode: str, images: Path, tmp_path: Path) -> None:
    made = {
        "I;16": lambda: Image.fromarray(GREY.astype(np.uint16) * 100),
        "P": lambda: Image.fromarray(GREY).convert("RGB").quantize(256),
    }.get(mode, lambda: Image.fromarray(GREY).convert(mode))()
    made.save(images / "a.png")
    (found,) = read(tmp_path, "a.png,p1\n", keep_text=True)
    assert isinstance(found, Picture) and found.patient == "p1" and found.key == "a.png" and found.spacing == ()
    expected = {"I;16": GREY * 100.0, "1": np.asarray(made, np.float32) * 255}.get(mode, GREY.astype(float))
    assert found.pixels.dtype == np.float32 and found.pixels.shape[0] == (3 if mode in ("RGB", "RGBA", "P") else 1)
    assert all(np.array_equal(channel, expected) for channel in found.pixels)


def test_jpeg_is_read_as_stored_whatever_its_exif_says(images: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, SECRET  # turned by a quarter; a description
    smooth = np.repeat(np.linspace(0, 255, 32).astype(np.uint8)[None], 16, axis=0)
    Image.fromarray(smooth).save(images / "a.JPG", quality=95, exif=exif)
    (found,) = read(tmp_path, "a.JPG,p1\n")
    assert isinstance(found, Picture) and found.pixels.shape == (1, 16, 32)
    assert np.abs(found.pixels[0] - smooth).max() < 6


def test_everything_that_is_left_out_has_a_reason(images: Path, tmp_path: Path) -> None:
    text = PngInfo()
    text.add_text("Comment", SECRET)
    for name in ("good", "no-row", "no-patient"):
        Image.fromarray(GREY).save(images / f"{name}.png", pnginfo=text)
    whole = (images / "good.png").read_bytes()
    (images / "cut.png").write_bytes(whole[: len(whole) // 2])
    (images / "empty.png").write_bytes(b"")
    (images / "gif.png").write_bytes(b"GIF89a" + bytes(40))
    (images / "notes.txt").write_text(SECRET)
    rows = "good.png,p1\nno-patient.png,\ncut.png,p2\nempty.png,p3\ngif.png,p4\ngone.png,p5\n../labels.csv,p6\n"
    found = read(tmp_path, rows)
    assert [one.key for one in found if isinstance(one, Picture)] == ["good.png"]
    reasons = Counter(one.reason for one in found if isinstance(one, LeftOut))
    assert reasons == {NOT_DECODED: 3, NO_ROW: 1, NO_PATIENT: 1, NO_FILE: 1, OUTSIDE: 1}
    assert SECRET not in repr(found)


def test_a_bomb_is_not_unpacked(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.zeros((300, 300), np.uint8)).save(images / "a.png")
    monkeypatch.setattr(png_module, "MOST_PIXELS", 300 * 299)
    assert [one.reason for one in read(tmp_path, "a.png,p1\n") if isinstance(one, LeftOut)] == [png_module.TOO_LARGE]


def test_text_in_the_pixels_is_found(images: Path, tmp_path: Path) -> None:
    from PIL import ImageDraw

    picture = Image.fromarray(np.random.Generator(np.random.PCG64(1)).integers(60, 140, (128, 128)).astype(np.uint8))
    picture.save(images / "clean.png")
    ImageDraw.Draw(picture).text((4, 8), "PATIENT 12345", fill=255, font_size=16)
    picture.save(images / "text.png")
    found = read(tmp_path, "clean.png,p1\ntext.png,p2\n")
    assert [type(one) for one in found] == [Picture, LeftOut] and found[1].reason == TEXT  # type: ignore[union-attr]
    assert all(isinstance(one, Picture) for one in read(tmp_path, "clean.png,p1\ntext.png,p2\n", keep_text=True))


def test_another_modality_than_the_contracts_is_left_out(images: Path, tmp_path: Path) -> None:
    Image.fromarray(GREY).save(images / "a.png")
    (found,) = read(tmp_path, "a.png,p1\n", modality="MG")
    assert isinstance(found, LeftOut) and found.reason == OTHER_MODALITY
    assert isinstance(read(tmp_path, "a.png,p1\n", modality="DX")[0], Picture)


def test_a_table_that_does_not_fit_is_refused_without_quoting_it(images: Path, tmp_path: Path) -> None:
    Image.fromarray(GREY).save(images / "a.png")
    with pytest.raises(UsageError, match="one picture to two patients") as error:
        read(tmp_path, f"a.png,p1\na.png,{SECRET}\n")
    assert SECRET not in error.value.lines()
    with pytest.raises(UsageError, match="has no column 'who'"):
        read(tmp_path, "a.png,p1\n", patient="who")
    with pytest.raises(UsageError, match=r"no file 'none\.csv'"):
        read(tmp_path, "", table="none.csv")
    with pytest.raises(UsageError, match="no folder 'none'"):
        list(read_pictures("png", tmp_path / "none", IMAGE, {"table": "../labels.csv"}))
