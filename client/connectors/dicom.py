"""A folder of DICOM files (PS3.10), in any tree: read one at a time, in the order of their paths.

A plan of three axes gets one volume of every series: headers are read first, to know the files of each series, and then
series after series is decoded, so that never more than one is in memory.

Nothing of a file's name or folder is used but to find its label, where the site says so. A file that is no DICOM, has
no pixels or no patient, or repeats another is left out under a fixed reason and counted.
"""

import logging
import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, get_args

from wardround.client.connectors.parts import files_below
from wardround.client.imaging.header import tags, text
from wardround.client.imaging.picture import LeftOut, Pictures
from wardround.client.imaging.pixels import Wanted, pictures_of
from wardround.client.imaging.volumes import volumes_of
from wardround.protocol.contract import ImageInput
from wardround.protocol.errors import UsageError

LabelsBy = Literal["file", "patient", "accession", "study", "series", "sop"]

NO_SERIES: Final = "a file of no series"
NOT_DICOM: Final = "not a DICOM file"
TWICE: Final = "the same SOP instance twice"
EMPTY: Final = "empty file"

AT_ONCE: Final = 1 << 22
"""Bytes of a file that are read in one piece: a slice has some hundred thousand."""

KEYWORDS: Final = {
    "patient": "PatientID",
    "accession": "AccessionNumber",
    "study": "StudyInstanceUID",
    "series": "SeriesInstanceUID",
    "sop": "SOPInstanceUID",
}
"""How a label table can name a picture by its header."""

_BESIDE: Final = frozenset({"DICOMDIR", "Thumbs.db", ".DS_Store"})
"""Files that lie in such folders and hold no picture."""


def read_dicom(
    path: Path, image: ImageInput, *, labels_by: LabelsBy = "file", keep_text: bool = False, under: str = ""
) -> Pictures:
    """The pictures of every file below ``path``; each frame of a multi-frame file is a picture of its patient.

    Args:
        labels_by: what the label table calls a picture: its path below ``path``, or a field of the header. The path of
            a volume is that of the folder in which all its slices lie ('.': ``path`` itself), or of its one file.
        keep_text: True takes pictures into which text may be burned; for a site that has cleaned them.
        under: only files whose path below ``path`` begins so.

    Raises:
        UsageError: there is no such folder, or ``labels_by`` is none of the choices.
    """
    if labels_by not in get_args(LabelsBy):
        raise UsageError("'labels_by' is not a way to name a picture", f"one of {', '.join(get_args(LabelsBy))}")
    check_name(labels_by, image)
    if not path.is_dir():
        raise UsageError(f"no folder '{path.name}' in '{path.parent}'", "check 'path' of this source")
    return _read(path, image, labels_by, keep_text, under)


def check_name(labels_by: str, image: ImageInput) -> None:
    """Raises UsageError where ``labels_by`` names slices and the plan asks for volumes."""
    if labels_by == "sop" and len(image.size) == 3:
        raise UsageError(
            "'labels_by: sop' names slices, and the plan asks for volumes", "write series, study or patient"
        )


def _read(path: Path, image: ImageInput, labels_by: LabelsBy, keep_text: bool, under: str) -> Pictures:
    if len(image.size) == 3:
        yield from _volumes(path, Wanted(image, "", keep_text), labels_by, under)
        return
    for dataset, place in _datasets(path, under):
        if isinstance(dataset, str):
            yield LeftOut(dataset, place)
            continue
        key = place if labels_by == "file" else text(dataset, KEYWORDS[labels_by])
        yield from pictures_of(dataset, Wanted(image, key, keep_text), place)


def _datasets(path: Path, under: str, pixels: bool = True) -> Iterator[tuple[Any, str]]:
    """The data set of every file, or the reason why there is none, and the file's place."""
    silence()
    seen: set[str] = set()
    for file in files_below(path):
        place = file.relative_to(path).as_posix()
        if not place.startswith(under) or file.name in _BESIDE:
            continue
        dataset = dataset_in(file) if pixels else dataset_in(file, pixels=False)
        if not isinstance(dataset, str):
            uid = text(dataset, "SOPInstanceUID")
            if uid and uid in seen:
                dataset = TWICE
            seen.add(uid)
        yield dataset, place


def _volumes(path: Path, wanted: Wanted, labels_by: LabelsBy, under: str) -> Pictures:
    files: dict[str, list[str]] = {}
    for dataset, place in _datasets(path, under, pixels=False):
        if isinstance(dataset, str):
            yield LeftOut(dataset, place)
        elif uid := text(dataset, "SeriesInstanceUID"):
            files.setdefault(uid, []).append(place)
        else:
            yield LeftOut(NO_SERIES, place)
    for places in files.values():
        folders = {PurePosixPath(place).parent.as_posix() for place in places}
        folder = folders.pop() if len(folders) == 1 else None

        def named(dataset: Any, place: str | None, folder: str | None = folder) -> str | None:
            return (place or folder) if labels_by == "file" else text(dataset, KEYWORDS[labels_by])

        slices = ((dataset_in(path / place), place) for place in places)
        yield from volumes_of(slices, wanted, named, folder or places[0])


def patients_in_dicom(path: Path, *, under: str = "", **_: Any) -> Iterator[str]:
    """The patient of every file below ``path``, '' where a header has none; no pixel is read."""
    from pydicom import dcmread

    silence()
    for file in files_below(path):
        if file.relative_to(path).as_posix().startswith(under):
            try:
                yield text(dcmread(file, force=True, stop_before_pixels=True, specific_tags=["PatientID"]), "PatientID")
            # As in dataset_in: pydicom raises whatever a broken file leads it to.
            except Exception:
                continue


def silence() -> None:
    """pydicom warns of odd values by quoting them, in the log and on the error stream; a header is full of names."""
    from pydicom import config

    config.settings.reading_validation_mode = config.IGNORE
    logging.getLogger("pydicom").disabled = True
    warnings.filterwarnings("ignore", module="pydicom")


def dataset_in(file: Path, pixels: bool = True) -> Any:
    """The data set in ``file``, or the reason why there is none; without ``pixels`` only what stands before them.

    Files without a preamble are tried: old archives wrote such. What then has no SOP class is no DICOM file.
    """
    from pydicom import dcmread

    try:
        size = file.stat().st_size
        if size == 0:
            return EMPTY
        # In one piece where that is cheap: pydicom asks for every element by itself.
        source = file if size > AT_ONCE or not pixels else BytesIO(file.read_bytes())
        dataset = dcmread(source, force=True, specific_tags=list(tags()), stop_before_pixels=not pixels)
        if "SOPClassUID" not in dataset:
            return NOT_DICOM
        if "TransferSyntaxUID" not in dataset.file_meta:
            from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

            implicit = dataset.original_encoding[0]
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    # pydicom raises whatever a broken file leads it to, and its messages quote the file.
    except Exception:
        return NOT_DICOM
    return dataset
