"""PNG and JPEG files in a folder, with a table that says whose they are.

Only pixels are used: text chunks, EXIF (its orientation too), colour profiles and file times are not looked at. Values
are those that the file stores, brighter is larger; PNG and JPEG know no millimetres and no Hounsfield units.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from wardround.client.connectors.parts import files_below
from wardround.client.connectors.picture_table import NO_FILE, NO_ROW, OUTSIDE, inside, patients_by_file
from wardround.client.imaging.burned_in import shows_text
from wardround.client.imaging.picture import LeftOut, Picture, Pictures, Pixels
from wardround.client.imaging.pixels import NO_PATIENT, NOT_DECODED, OTHER_MODALITY, TEXT
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
) -> Pictures:
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
    return _read(path, image.modality, patients_by_file(path / table, file, patient), modality, keep_text)


def patients_in_png(path: Path, *, table: str, file: str = "file", patient: str = "patient", **_: Any) -> Iterator[str]:
    """The patients of the table, whether or not their pictures can be used."""
    yield from patients_by_file(path / table, file, patient).values()


def _read(path: Path, wanted: str, patients: dict[str, str], modality: str | None, keep_text: bool) -> Pictures:
    files = {each.relative_to(path).as_posix(): each for each in files_below(path) if each.suffix.lower() in ENDINGS}
    for place in sorted(files.keys() | patients.keys()):
        if place not in files:
            yield LeftOut(NO_FILE if inside(path, place) else OUTSIDE, place)
        elif place not in patients:
            yield LeftOut(NO_ROW, place)
        elif not patients[place]:
            yield LeftOut(NO_PATIENT, place)
        elif modality is not None and wanted not in ("OT", modality):
            yield LeftOut(OTHER_MODALITY, place)
        else:
            pixels = _pixels(files[place])
            if isinstance(pixels, str):
                yield LeftOut(pixels, place)
            elif not keep_text and shows_text(pixels[0]):
                yield LeftOut(TEXT, place)
            else:
                yield Picture(patients[place], place, pixels)


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
    except Exception:
        return NOT_DECODED
    return np.ascontiguousarray(stored[None] if stored.ndim == 2 else np.moveaxis(stored, -1, 0))
