"""What a DICOM header says of the machine and its use, as far as the check of a site's data may know it.

For that check alone: nothing of it is a feature, is stored, is logged or leaves the site. No text of a header comes
out. The maker is one of a public list; of the model and of coded fields only a number is kept that is the same for the
same text in this process (Python's salted hash); of all other fields only that they hold something.
"""

from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from wardround.client.imaging.header import text

MAKERS: Final[dict[str, tuple[str, ...]]] = {
    "Siemens": ("siemens",),
    "GE": ("ge medical", "ge healthcare", "gems", "general electric"),
    "Philips": ("philips", "marconi", "picker", "adac"),
    "Canon/Toshiba": ("canon", "toshiba"),
    "Hitachi": ("hitachi",),
    "Fujifilm": ("fujifilm", "fuji photo", "fuji film"),
    "Agfa": ("agfa",),
    "Carestream": ("carestream", "kodak"),
    "Shimadzu": ("shimadzu",),
    "Samsung": ("samsung", "neurologica", "medison"),
    "Hologic": ("hologic", "lorad"),
    "Konica Minolta": ("konica", "minolta"),
    "United Imaging": ("united imaging", "uih"),
    "Neusoft": ("neusoft",),
    "Mindray": ("mindray",),
    "Esaote": ("esaote",),
    "Varian": ("varian",),
    "Elekta": ("elekta",),
    "Accuray": ("accuray", "tomotherapy"),
    "Planmeca": ("planmeca",),
    "Dentsply Sirona": ("sirona",),
    "EOS imaging": ("eos imaging",),
}
"""Makers of machines and the words by which they are known, in small letters."""

OTHER: Final = "another maker"
NOT_NAMED: Final = "no maker named"

CODED: Final = frozenset({"CS", "LO", "SH"})
"""Value representations whose values are short and often come from a list (PS3.5 6.2)."""

_PATIENT: Final = 0x0010
"""The group of the patient; of it only code strings, such as the sex, are looked at."""

_BESIDE: Final = frozenset({"PixelData", "FloatPixelData", "DoubleFloatPixelData", "Manufacturer"})
"""What has a check of its own, or is the picture."""


@dataclass(frozen=True, slots=True)
class Described:
    """One picture's header. The ``repr`` shows nothing of it.

    Args:
        maker: one of ``MAKERS``, ``OTHER`` or ``NOT_NAMED``.
        model: a number for maker and model; 0: no model is named.
        present: public DICOM keywords of fields that hold something.
        coded: (keyword, a number for its text) of coded fields.
    """

    maker: str = field(repr=False)
    model: int = field(repr=False)
    present: frozenset[str] = field(repr=False)
    coded: frozenset[tuple[str, int]] = field(repr=False)


def maker_of(said: str) -> str:
    """The public name of the maker that ``said`` means; never a word of ``said`` itself."""
    if not (words := " ".join(said.casefold().replace("_", " ").split())):
        return NOT_NAMED
    if words == "ge" or words.startswith("ge "):
        return "GE"
    known = ((maker, word) for maker, each in MAKERS.items() for word in each)
    return next((maker for maker, word in known if f" {word}" in f" {words}"), OTHER)


def described(dataset: Any) -> Described:
    """What ``dataset`` says; its private fields are not looked at."""
    present, coded = [], []
    for tag in list(dataset.keys()):
        keyword, kind = _known(tag)
        if not keyword or not _holds(dataset, tag):
            continue
        present.append(keyword)
        if kind in CODED and (kind == "CS" or tag.group != _PATIENT) and (said := text(dataset, keyword)):
            coded.append((keyword, hash(said)))
    maker, model = text(dataset, "Manufacturer"), text(dataset, "ManufacturerModelName")
    return Described(maker_of(maker), hash((maker, model)) if model else 0, frozenset(present), frozenset(coded))


@cache
def _known(tag: Any) -> tuple[str, str]:
    """(keyword, value representation) of a public tag; '' of any other, and of what is not to be looked at."""
    from pydicom.datadict import dictionary_VR, keyword_for_tag

    keyword = keyword_for_tag(tag)
    return ("", "") if not keyword or keyword in _BESIDE or tag.is_private else (keyword, dictionary_VR(tag))


def _holds(dataset: Any, tag: Any) -> bool:
    """Whether the field is not empty; its value is not decoded for it."""
    try:
        value = dataset.get_item(tag).value
        if isinstance(value, bytes):
            return bool(value.strip(b" \0"))
        return value is not None and (not hasattr(value, "__len__") or len(value) > 0)
    # pydicom raises whatever a broken field leads it to, and its messages quote the field.
    except Exception:
        return False
