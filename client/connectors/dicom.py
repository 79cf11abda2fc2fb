"""A folder of DICOM files (PS3.10), in any tree: read one at a time, in the order of their paths.

A plan of three axes gets one volume of every series: headers are read first, to know the files of each series, and then
series after series is decoded, so that never more than one is in memory.

Nothing of a file's name or folder is used but to find its label, where the site says so. A file that is no DICOM, has
no pixels or no patient, or repeats another is left out under a fixed reason and counted.
"""

import logging
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, get_args

from wardround.client.connectors.parts import files_below, shape_of
from wardround.client.imaging.header import tags, text
from wardround.client.imaging.picture import TWICE, LeftOut, Listed, Opened, Picture, Pictures
from wardround.client.imaging.pixels import UNREADABLE, Wanted, pictures_of, refused
from wardround.client.imaging.volumes import volumes_of
from wardround.protocol.contract import ImageInput
from wardround.protocol.errors import UsageError

LabelsBy = Literal["file", "patient", "accession", "study", "series", "sop"]

NO_SERIES: Final = "a file of no series"
NOT_DICOM: Final = "not a DICOM file"
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
    path: Path,
    image: ImageInput,
    *,
    labels_by: LabelsBy = "file",
    keep_text: bool = False,
    under: str = "",
    describe: bool = False,
) -> Iterator[Listed]:
    """The pictures of every file below ``path``; each frame of a multi-frame file is a picture of its patient.

    Args:
        labels_by: what the label table calls a picture: its path below ``path``, or a field of the header. The path of
            a volume is that of the folder in which all its slices lie ('.': ``path`` itself), or of its one file.
        keep_text: True takes pictures into which text may be burned; for a site that has cleaned them.
        under: only files whose path below ``path`` begins so.
        describe: bring what ``described`` makes of each header, for the check of a site's data.

    Raises:
        UsageError: there is no such folder, or ``labels_by`` is none of the choices.
    """
    if labels_by not in get_args(LabelsBy):
        raise UsageError("'labels_by' is not a way to name a picture", f"one of {', '.join(get_args(LabelsBy))}")
    check_name(labels_by, image)
    if not path.is_dir():
        raise UsageError(f"no folder '{path.name}' in '{path.parent}'", "check 'path' of this source")
    return _listed(path, image, labels_by, keep_text, under, describe)


def check_name(labels_by: str, image: ImageInput) -> None:
    """Raises UsageError where ``labels_by`` names slices and the plan asks for volumes."""
    if labels_by == "sop" and len(image.size) == 3:
        raise UsageError(
            "'labels_by: sop' names slices, and the plan asks for volumes", "write series, study or patient"
        )


def _listed(
    path: Path, image: ImageInput, labels_by: LabelsBy, keep_text: bool, under: str, describe: bool
) -> Iterator[Listed]:
    silence()
    wanted = Wanted(image, "", keep_text, describe)
    files = (
        (file, place)
        for file in files_below(path)
        if (place := file.relative_to(path).as_posix()).startswith(under) and file.name not in _BESIDE
    )
    if len(image.size) == 3:
        yield from _series(files, path, wanted, labels_by)
        return
    for file, place in files:
        yield Listed(place, shape_of(file), partial(_opened, file, place, wanted, labels_by))


def _opened(file: Path, place: str, wanted: Wanted, labels_by: LabelsBy) -> Opened[Picture]:
    dataset = _asked(file, wanted)
    if isinstance(dataset, str):
        return Opened(place, iter((_none(dataset, place),)))
    key = place if labels_by == "file" else text(dataset, KEYWORDS[labels_by])
    return Opened(place, pictures_of(dataset, replace(wanted, key=key), place), text(dataset, "SOPInstanceUID"))


def _asked(file: Path, wanted: Wanted) -> Any:
    return dataset_in(file, whole=True) if wanted.describe else dataset_in(file)


def _none(reason: str, place: str) -> LeftOut:
    return LeftOut(reason, place, passing=reason == UNREADABLE)


def _series(files: Iterable[tuple[Path, str]], path: Path, wanted: Wanted, labels_by: LabelsBy) -> Iterator[Listed]:
    """The series of a folder. Headers say which files are of one; no pixel is read before a series is opened."""
    places: dict[str, list[str]] = {}
    seen: set[str] = set()
    for file, place in files:
        dataset = dataset_in(file, pixels=False)
        if isinstance(dataset, str):
            yield Listed.left_out(dataset, place)
            continue
        uid = text(dataset, "SOPInstanceUID")
        if uid and uid in seen:
            yield Listed.left_out(TWICE, place)
        elif series := text(dataset, "SeriesInstanceUID"):
            places.setdefault(series, []).append(place)
        else:
            yield Listed.left_out(NO_SERIES, place)
        seen.add(uid)
    for series, its in places.items():
        version = "\n".join(f"{place}\n{shape_of(path / place)}" for place in its)
        yield Listed.of(series, version, partial(_volumes, path, its, wanted, labels_by))


def _volumes(path: Path, places: list[str], wanted: Wanted, labels_by: LabelsBy) -> Pictures:
    folders = {PurePosixPath(place).parent.as_posix() for place in places}
    folder = folders.pop() if len(folders) == 1 else None

    def named(dataset: Any, place: str | None) -> str | None:
        return (place or folder) if labels_by == "file" else text(dataset, KEYWORDS[labels_by])

    def slices() -> Iterator[tuple[Any, str]]:
        for place in places:
            dataset = _asked(path / place, wanted)
            yield (_none(dataset, place) if isinstance(dataset, str) else dataset), place

    yield from volumes_of(slices(), wanted, named, folder or places[0])


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
    logger = logging.getLogger("pydicom")
    # Its children (the decoders') take their level from it, and look at nothing else of it.
    logger.disabled = True
    logger.setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module="pydicom")


def dataset_in(file: Path, whole: bool = False, pixels: bool = True) -> Any:
    """The data set in ``file``, or the reason why there is none.

    Of its elements those of a fixed list, or the ``whole``; without ``pixels`` only what stands before them.

    Files without a preamble are tried: old archives wrote such. What then has no SOP class is no DICOM file.
    """
    from pydicom import dcmread

    try:
        size = file.stat().st_size
        if size == 0:
            return EMPTY
        # In one piece where that is cheap: pydicom asks for every element by itself.
        source = file if size > AT_ONCE or not pixels else BytesIO(file.read_bytes())
        asked = None if whole else list(tags())
        dataset = dcmread(source, force=True, specific_tags=asked, stop_before_pixels=not pixels)
        if "SOPClassUID" not in dataset:
            return NOT_DICOM
        if "TransferSyntaxUID" not in dataset.file_meta:
            from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

            implicit = dataset.original_encoding[0]
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    # pydicom raises whatever a broken file leads it to, and its messages quote the file.
    except Exception as error:
        return UNREADABLE if refused(error) else NOT_DICOM
    return dataset
