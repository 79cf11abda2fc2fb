"""A folder of DICOM files (PS3.10), in any tree: read one at a time, in the order of their paths.

Nothing of a file's name or folder is used but to find its label, where the site says so. A file that is no DICOM, has
no pixels or no patient, or repeats another is left out under a fixed reason and counted.
"""

import logging
import warnings
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Literal, get_args

from wardround.client.connectors.parts import files_below, shape_of
from wardround.client.imaging.header import tags, text
from wardround.client.imaging.picture import LeftOut, Listed, Opened, Picture
from wardround.client.imaging.pixels import UNREADABLE, Wanted, pictures_of, refused
from wardround.protocol.contract import ImageInput
from wardround.protocol.errors import UsageError

LabelsBy = Literal["file", "patient", "accession", "study", "series", "sop"]

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
    header: bool = False,
) -> Iterator[Listed]:
    """The pictures of every file below ``path``; each frame of a multi-frame file is a picture of its patient.

    Args:
        labels_by: what the label table calls a picture: its path below ``path``, or a field of the header.
        keep_text: True takes pictures into which text may be burned; for a site that has cleaned them.
        under: only files whose path below ``path`` begins so.
        header: bring what ``described`` makes of each header, for the check of a site's data.

    Raises:
        UsageError: there is no such folder, or ``labels_by`` is none of the choices.
    """
    if labels_by not in get_args(LabelsBy):
        raise UsageError("'labels_by' is not a way to name a picture", f"one of {', '.join(get_args(LabelsBy))}")
    if not path.is_dir():
        raise UsageError(f"no folder '{path.name}' in '{path.parent}'", "check 'path' of this source")
    return _listed(path, image, labels_by, keep_text, under, header)


def _listed(
    path: Path, image: ImageInput, labels_by: LabelsBy, keep_text: bool, under: str, header: bool
) -> Iterator[Listed]:
    silence()
    for file in files_below(path):
        place = file.relative_to(path).as_posix()
        if place.startswith(under) and file.name not in _BESIDE:
            yield Listed(place, shape_of(file), partial(_opened, file, place, image, labels_by, keep_text, header))


def _opened(
    file: Path, place: str, image: ImageInput, labels_by: LabelsBy, keep_text: bool, header: bool
) -> Opened[Picture]:
    dataset = dataset_in(file, whole=True) if header else dataset_in(file)
    if isinstance(dataset, str):
        return Opened(place, iter((LeftOut(dataset, place, passing=dataset == UNREADABLE),)))
    key = place if labels_by == "file" else text(dataset, KEYWORDS[labels_by])
    pictures = pictures_of(dataset, Wanted(image, key, keep_text, header), place)
    return Opened(place, pictures, text(dataset, "SOPInstanceUID"))


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


def dataset_in(file: Path, whole: bool = False) -> Any:
    """The data set in ``file``, or the reason why there is none; of its elements those of a fixed list, or all.

    Files without a preamble are tried: old archives wrote such. What then has no SOP class is no DICOM file.
    """
    from pydicom import dcmread

    try:
        size = file.stat().st_size
        if size == 0:
            return EMPTY
        # In one piece where that is cheap: pydicom asks for every element by itself.
        source = file if size > AT_ONCE else BytesIO(file.read_bytes())
        dataset = dcmread(source, force=True, specific_tags=None if whole else list(tags()))
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
