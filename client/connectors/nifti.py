"""NIfTI-1 and NIfTI-2 volumes (.nii, .nii.gz) in any tree, through nibabel.

Of a header only shape, type, scaling and the affine are used; its texts (description, auxiliary file, intent) and its
extensions are not looked at. A plan of two dimensions gets the axial slices of a volume, each a picture of its patient.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wardround.client.connectors.parts import files_below, shape_of
from wardround.client.connectors.picture_table import NO_FILE, NO_ROW, OUTSIDE, inside, patients_by_file
from wardround.client.imaging.burned_in import shows_text
from wardround.client.imaging.picture import LeftOut, Listed, Picture, Pictures, Pixels
from wardround.client.imaging.pixels import NO_PATIENT, NOT_DECODED, OTHER_MODALITY, TEXT, UNREADABLE, refused
from wardround.client.imaging.volumes import MOST_VOXELS, TOO_LARGE
from wardround.protocol.contract import ImageInput
from wardround.protocol.errors import UsageError

ENDINGS: Final = (".nii", ".nii.gz")
NOT_VOLUME: Final = "not a volume of three dimensions"

_RAS_TO_LPS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_nifti(
    path: Path,
    image: ImageInput,
    *,
    table: str | None = None,
    file: str = "file",
    patient: str = "patient",
    modality: str | None = None,
    keep_text: bool = False,
) -> Iterator[Listed]:
    """The volumes below ``path`` in the order of their paths; what cannot be used is left out under a fixed reason.

    Args:
        table: a CSV file, relative to ``path``. None: the patient is the part of the path that begins with ``sub-``
            (BIDS), or else the file's name without its ending.
        file: the table's column with a volume's path below ``path``.
        patient: its column with the patient's id.
        modality: DICOM's word for what these are, compared with the contract's; None: not compared.
        keep_text: True takes volumes into which text may be burned; for a site that has cleaned them.

    Raises:
        UsageError: there is no such folder, table or column.
    """
    if not path.is_dir():
        raise UsageError(f"no folder '{path.name}' in '{path.parent}'", "check 'path' of this source")
    patients = None if table is None else patients_by_file(path / table, file, patient)
    return _listed(path, image, patients, modality, keep_text)


def patients_in_nifti(
    path: Path, *, table: str | None = None, file: str = "file", patient: str = "patient", **_: Any
) -> Iterator[str]:
    """The patients of the table or of the files' names, whether or not their volumes can be used."""
    if table is not None:
        yield from patients_by_file(path / table, file, patient).values()
        return
    places = (each.relative_to(path).as_posix() for each in files_below(path))
    yield from (_named(place) for place in places if place.lower().endswith(ENDINGS))


def _listed(
    path: Path, image: ImageInput, patients: dict[str, str] | None, modality: str | None, keep_text: bool
) -> Iterator[Listed]:
    files = {each.relative_to(path).as_posix(): each for each in files_below(path)}
    files = {place: each for place, each in files.items() if place.lower().endswith(ENDINGS)}
    of = {place: _named(place) for place in files} if patients is None else patients
    for place in sorted(files.keys() | of.keys()):
        if place not in files:
            yield Listed.left_out(NO_FILE if inside(path, place) else OUTSIDE, place)
        elif place not in of:
            yield Listed.left_out(NO_ROW, place)
        elif not of[place]:
            yield Listed.left_out(NO_PATIENT, place)
        elif modality is not None and image.modality not in ("OT", modality):
            yield Listed.left_out(OTHER_MODALITY, place)
        else:
            found = partial(_read, files[place], of[place], place, len(image.size) == 2, keep_text)
            yield Listed.of(place, f"{shape_of(files[place])}\n{of[place]}", found)


def _read(file: Path, patient: str, place: str, axial: bool, keep_text: bool) -> Pictures:
    found = volume_in(file, axial)
    if isinstance(found, str):
        yield LeftOut(found, place, passing=found == UNREADABLE)
    elif not keep_text and any(shows_text(plane) for plane in found[0]):
        yield LeftOut(TEXT, place)
    else:
        yield from _pictures(*found, patient, place, axial)


def _named(place: str) -> str:
    pieces = place.split("/")
    subject = next((piece for piece in pieces[:-1] if piece.startswith("sub-")), None)
    if subject is not None:
        return subject.removeprefix("sub-")
    name = pieces[-1]
    ending = next(each for each in sorted(ENDINGS, key=len, reverse=True) if name.lower().endswith(each))
    stem = name[: -len(ending)]
    return stem.split("_", 1)[0].removeprefix("sub-") if stem.startswith("sub-") else stem


def volume_in(file: Path, axial: bool) -> tuple[Pixels, npt.NDArray[np.float64]] | str:
    """(slices, rows, columns) and the affine from (column, row, slice) to mm in LPS, or why not.

    ``axial``: the axes are turned so that indices rise to left, posterior and superior.
    """
    import nibabel
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

    try:
        stored: Any = nibabel.Nifti1Image.from_filename(file) if _one(file) else nibabel.Nifti2Image.from_filename(file)
        shape = tuple(int(count) for count in stored.shape)
        if len(shape) > 3 and shape[3:] == (1,) * len(shape[3:]):
            shape, stored = shape[:3], stored.slicer[(..., *(0,) * len(shape[3:]))]
        if len(shape) != 3 or min(shape) < 1:
            return NOT_VOLUME
        if shape[0] * shape[1] * shape[2] > MOST_VOXELS:
            return TOO_LARGE
        if axial:
            turn = ornt_transform(io_orientation(stored.affine), axcodes2ornt(("L", "P", "S")))
            stored = stored.as_reoriented(turn)
        values = np.asarray(stored.get_fdata(dtype=np.float32, caching="unchanged"))
        affine = _RAS_TO_LPS @ np.asarray(stored.affine, np.float64)
        if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
            return NOT_DECODED
    # nibabel raises what a broken header or a file that was cut short leads it to.
    except Exception as error:
        return UNREADABLE if refused(error) else NOT_DECODED
    return np.ascontiguousarray(np.where(np.isfinite(values), values, np.float32(np.nan)).transpose(2, 1, 0)), affine


def _one(file: Path) -> bool:
    """Whether the file is NIfTI-1: the first number of the header is its length, 348 there and 540 in NIfTI-2."""
    import gzip

    with gzip.open(file) if file.suffix.lower() == ".gz" else file.open("rb") as stream:
        head = stream.read(4)
    return 540 not in (int.from_bytes(head, "little"), int.from_bytes(head, "big"))


def _pictures(values: Pixels, affine: npt.NDArray[np.float64], patient: str, place: str, slices: bool) -> Pictures:
    column, row, slice_ = (float(step) for step in np.linalg.norm(affine[:3, :3], axis=0))
    if not slices:
        yield Picture(patient, place, values[None], (slice_, row, column), affine=affine)
        return
    for plane in values:
        yield Picture(patient, place, plane[None], (row, column))
