"""What may leave a DICOM header: numeric fields of this list, and nothing else.

Free text, names, dates, identifiers, places and private fields are not looked at. The numbers describe the machine and
the exposure, not the person; a study names those that it reads in its contract. ``described`` says what the check of a
site's data looks at besides.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

NUMBERS: Final[Mapping[str, str]] = {
    "KVP": "kV",
    "SliceThickness": "mm",
    "ExposureTime": "ms",
    "XRayTubeCurrent": "mA",
    "Exposure": "mA.s",
    "DistanceSourceToDetector": "mm",
    "DistanceSourceToPatient": "mm",
    "ReconstructionDiameter": "mm",
    "SpiralPitchFactor": "1",
    "CTDIvol": "mGy",
    "RepetitionTime": "ms",
    "EchoTime": "ms",
    "InversionTime": "ms",
    "FlipAngle": "deg",
    "MagneticFieldStrength": "T",
    "NumberOfAverages": "1",
    "BitsStored": "1",
}
"""DICOM keyword and UCUM unit (PS3.6; units of PS3.3)."""


@cache
def _tag(keyword: str) -> Any:
    from pydicom.datadict import tag_for_keyword
    from pydicom.tag import Tag

    return Tag(tag_for_keyword(keyword))


def field(dataset: Any, keyword: str) -> Any:
    """The value of a header field; None where it is absent or cannot be decoded."""
    try:
        element = dataset.get(_tag(keyword))
        return None if element is None else element.value
    # pydicom decodes a value when it is asked for, and raises whatever a broken one leads it to.
    except Exception:
        return None


def text(dataset: Any, keyword: str) -> str:
    """The value of a header field as text without spaces around it, '' where there is none."""
    value = field(dataset, keyword)
    return "" if value is None else str(value).strip()


def numbers_of(dataset: Any) -> dict[str, float]:
    """The allowed fields that ``dataset`` has and that are finite numbers; one that is none is as if it were absent."""
    found = {}
    for keyword in NUMBERS:
        given = field(dataset, keyword)
        if given is None:
            continue
        try:
            value = float(given)
        except (TypeError, ValueError, ArithmeticError, AttributeError):
            continue
        if abs(value) < 1e12:  # false for NaN and infinities
            found[keyword] = value
    return found
