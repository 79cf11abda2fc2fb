"""One picture on its way from a source to the site's cache. It exists only inside the site's own process.

A source (DICOM folder, DICOMweb, NIfTI, PNG with a table) lists what it holds before it opens anything, so that what
is known need not be opened; then it yields pictures one at a time and never holds two. What a source leaves out it
yields as ``LeftOut`` with a reason, so that nothing disappears without a count.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from wardround.client.imaging.described import Described

Pixels: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture and what else of it may become a feature. The ``repr`` shows nothing of it.

    Args:
        patient: the patient's id at this site; hashed before anything is stored.
        key: what the site's label table calls the picture (a file's name, a UID, an accession number).
        pixels: (channels, rows, columns) or (channels, depth, rows, columns) in modality units (Hounsfield for CT),
            brighter is larger; what lies outside the field of view is NaN.
        spacing: mm from centre to centre along each axis but the channels'; empty: unknown.
        numbers: numeric header fields of the allow-list, by DICOM keyword.
        described: of the machine and the use, where the check of a site's data asked for it; None otherwise.
        affine: from voxel indices (column, row, slice) to mm in LPS, shape (4, 4); None: unknown.
    """

    patient: str = field(repr=False)
    key: str = field(repr=False)
    pixels: Pixels = field(repr=False)
    spacing: tuple[float, ...] = field(default=(), repr=False)
    numbers: Mapping[str, float] = field(default_factory=dict, repr=False)
    affine: npt.NDArray[np.float64] | None = field(default=None, repr=False)
    described: Described | None = field(default=None, repr=False)

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a Picture never leaves its process")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A picture that a source left out. ``reason`` is one of a fixed list and holds nothing of the picture.

    ``place`` says where, for the site's own eyes: a file relative to the source; it may name a patient. ``passing``:
    the world was in the way, and the next reading may find a picture.
    """

    reason: str
    place: str = field(default="", repr=False)
    passing: bool = False


Pictures: TypeAlias = Iterator[Picture | LeftOut]
"""What an image source yields, in a stable order."""

TWICE: Final = "the same SOP instance twice"

_Found = TypeVar("_Found", covariant=True)


@dataclass(frozen=True, slots=True)
class Opened(Generic[_Found]):
    """What lies in one file or instance. ``once``: its name wherever it lies; a second one of it is left out."""

    place: str = field(repr=False)
    pictures: Iterator[_Found | LeftOut] = field(repr=False)
    once: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Listed:
    """A file or instance as its source lists it. Nothing of it is read or fetched before ``opened``.

    Args:
        place: what tells it from the others of its source.
        version: another text whenever what lies there, or whose it is, may have changed. None: not worth keeping.
        load: what lies there, opened when it is called or when its pictures are taken.
    """

    place: str = field(repr=False)
    version: str | None = field(repr=False)
    load: Callable[[], Opened[Picture]] = field(repr=False)

    @classmethod
    def of(cls, place: str, version: str, read: Callable[[], "Pictures"], once: str = "") -> "Listed":
        """What ``read`` gives, which opens nothing before its first picture is taken."""
        return cls(place, version, lambda: Opened(place, read(), once))

    @classmethod
    def left_out(cls, reason: str, place: str) -> "Listed":
        """What is left out before it is opened."""
        return cls(place, None, lambda: Opened(place, iter((LeftOut(reason, place),))))


def each_once(opened: Iterable[Opened[_Found]]) -> Iterator[_Found | LeftOut]:
    """The pictures of everything that is opened, in its order; of two with one name the first."""
    seen: set[str] = set()
    for each in opened:
        if each.once and each.once in seen:
            yield LeftOut(TWICE, each.place)
            continue
        seen.add(each.once)
        yield from each.pictures
