"""PNG and JPEG files in a folder, with a table that says whose they are.

Only pixels are used: text chunks, EXIF (its orientation too), colour profiles and file times are not looked at. Values
are those that the file stores, brighter is larger; PNG and JPEG know no millimetres and no Hounsfield units.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from wardround.client.connectors.parts import files_below, shape_of
from wardround.client.connectors.picture_table import NO_FILE, NO_ROW, OUTSIDE, inside, patients_by_file
from wardround.client.imaging.burned_in import shows_text
from wardround.client.imaging.picture import LeftOut, Listed, Picture, Pictures, Pixels
from wardround.client.imaging.pixels import NO_PATIENT, NOT_DECODED, OTHER_MODALITY, TEXT, UNREADABLE, refused
from wardround.protocol.contract import ImageInput
from wardround.protocol.errors import UsageError

ENDINGS: Final = (".png", ".jpg", ".jpeg")
TOO_LARGE: Final = "too many pixels"

MOST_PIXELS: Final = 1 << 26
"""8,192 x 8,192; a few bytes of PNG can claim a thousand times as many."""


def read_png(
    path: Path,
    image: ImageInput,
    *,
    table: str,
    file: str = "file",
    patient: str = "patient",
    modality: str | None = None,
    keep_text: bool = False,
) -> Iterator[Listed]:
    """The pictures in the order of their paths; what cannot be used is left out under a fixed reason.

    Args:
        table: a CSV file, relative to ``path``.
        file: its column with a picture's path below ``path``.
        patient: its column with the patient's id.
        modality: DICOM's word for what these are, compared with the contract's; None: not compared.
        keep_text: True takes pictures into which text may be burned; for a site that has cleaned them.

    Raises:
        UsageError: there is no such folder, table or column.
    """
    if not path.is_dir():
        raise UsageError(f"no folder '{path.name}' in '{path.parent}'", "check 'path' of this source")
    return _listed(path, image.modality, patients_by_file(path / table, file, patient), modality, keep_text)


def patients_in_png(path: Path, *, table: str, file: str = "file", patient: str = "patient", **_: Any) -> Iterator[str]:
    """The patients of the table, whether or not their pictures can be used."""
    yield from patients_by_file(path / table, file, patient).values()


def _listed(
    path: Path, wanted: str, patients: dict[str, str], modality: str | None, keep_text: bool
) -> Iterator[Listed]:
    files = {each.relative_to(path).as_posix(): each for each in files_below(path) if each.suffix.lower() in ENDINGS}
    for place in sorted(files.keys() | patients.keys()):
        if place not in files:
            yield Listed.left_out(NO_FILE if inside(path, place) else OUTSIDE, place)
        elif place not in patients:
            yield Listed.left_out(NO_ROW, place)
        elif not patients[place]:
            yield Listed.left_out(NO_PATIENT, place)
        elif modality is not None and wanted not in ("OT", modality):
            yield Listed.left_out(OTHER_MODALITY, place)
        else:
            found = partial(_picture, files[place], patients[place], place, keep_text)
            yield Listed.of(place, f"{shape_of(files[place])}\n{patients[place]}", found)


def _picture(file: Path, patient: str, place: str, keep_text: bool) -> Pictures:
    pixels = _pixels(file)
    if isinstance(pixels, str):
        yield LeftOut(pixels, place, passing=pixels == UNREADABLE)
    elif not keep_text and shows_text(pixels[0]):
        yield LeftOut(TEXT, place)
    else:
        yield Picture(patient, place, pixels)


def _pixels(file: Path) -> Pixels | str:
    """(1 or 3, rows, columns) as stored, or why not."""
    from PIL import Image

    try:
        with Image.open(file, formats=("PNG", "JPEG")) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                return TOO_LARGE
            grey = picture.mode in ("1", "LA")
            as_stored = picture.mode in ("L", "I", "F", "RGB") or picture.mode.startswith("I;16")
            stored: Any = np.asarray(picture if as_stored else picture.convert("L" if grey else "RGB"), np.float32)
    # Pillow raises what a broken file leads its decoders to, and a warning of a bomb as an error.
    except Exception as error:
        return UNREADABLE if refused(error) else NOT_DECODED
    return np.ascontiguousarray(stored[None] if stored.ndim == 2 else np.moveaxis(stored, -1, 0))
