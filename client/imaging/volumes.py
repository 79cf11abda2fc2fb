"""From the slices of one DICOM series to one volume: sorted by where they lie, and only if nothing of it is missing.

Order, spacing and direction come from the positions (ImagePositionPatient projected on the slices' normal, PS3.3
C.7.6.2.1.1), never from instance numbers, file names or SliceThickness. A series that is no regular grid is left out
as a whole under a fixed reason: half a volume, or a volume with a hole, would look like a finding.

A file with frames and functional groups (enhanced CT and MR, PS3.3 C.7.6.16) is a volume of its own.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wardround.client.imaging.burned_in import shows_text, text_is_likely
from wardround.client.imaging.described import Described, described
from wardround.client.imaging.header import field, image_type, numbers_of, text
from wardround.client.imaging.picture import LeftOut, Picture, Pictures, Pixels
from wardround.client.imaging.pixels import (
    MANY_FRAMES,
    MOST_FRAMES,
    MOST_PIXELS,
    NO_PATIENT,
    NO_PIXELS,
    NOT_DECODED,
    OTHER_MODALITY,
    TEXT,
    Wanted,
    across,
    claimed,
    count_of,
    frames_of,
    spacing_of,
)

TOO_LARGE: Final = "too many voxels"
LOCALIZER: Final = "localizer"
NO_PLACE: Final = "a slice does not say where it lies"
MIXED: Final = "slices of one series differ in size, spacing, orientation or frame of reference"
PATIENTS: Final = "one series of several patients"
FEW: Final = "too few slices for a volume"
REPEATED: Final = "several slices at one position"
UNEVEN: Final = "slices are missing or unevenly spaced"
SHEARED: Final = "slices do not lie above one another, as with a tilted gantry"
PART: Final = "a file that holds a part of a volume only"
NO_KEY: Final = "a series that the label table cannot name"

MOST_VOXELS: Final = 1 << 28
"""1 GiB as float32: 512 x 512 x 1,024. A header can claim any number, and compression makes it small."""

LEAST: Final = 3
"""Slices of a volume; two have one distance, which cannot be uneven."""

SAME_DIRECTION: Final = 1e-3
"""Direction cosines of one series differ by no more: 0.06 degrees."""

SAME_STEP: Final = 0.05
"""A step from slice to slice differs from the median step by no more than this share of it; headers round."""

SAME_POSITION: Final = 0.01
"""mm; slices that are nearer to one another lie at one position."""

SHIFT: Final = 0.5
"""Pixels by which a slice may lie beside the normal through the first one."""

Vector = npt.NDArray[np.float64]
Named = Callable[[Any, str | None], str | None]
"""What the label table calls a volume, from one of its data sets and its file's place if that holds all of it."""


class _Unusable(Exception):
    """Why a series makes no volume, one of the fixed reasons; ``passing``: the world was in the way."""

    def __init__(self, reason: str, passing: bool = False) -> None:
        super().__init__(reason)
        self.passing = passing


@dataclass(frozen=True, slots=True)
class _Grid:
    """What all slices of a volume share."""

    size: tuple[int, ...]
    spacing: tuple[float, float]
    along_row: Vector
    along_column: Vector
    frame: str

    def is_like(self, other: "_Grid") -> bool:
        turned = max(
            np.abs(self.along_row - other.along_row).max(), np.abs(self.along_column - other.along_column).max()
        )
        return bool(
            self.size == other.size
            and self.frame == other.frame
            and turned <= SAME_DIRECTION
            and np.allclose(self.spacing, other.spacing, rtol=1e-3, atol=0.0)
        )


@dataclass(slots=True)
class _Slice:
    """One slice: (channels, rows, columns) in modality units, and where its first pixel lies, in mm (LPS)."""

    pixels: Pixels | None
    position: Vector


def volumes_of(series: Iterable[tuple[Any, str]], wanted: Wanted, named: Named, place: str) -> Pictures:
    """The volumes of one series: one of all its slices, and one of each enhanced file; or why there is none.

    Pixels are (channels, depth, rows, columns) and the depth rises along the slices' normal; spacing is (depth, row,
    column) in mm. A localizer is left out by itself; any other fault leaves out the whole series, once.

    Args:
        series: data set and place of every file, each taken once and in turn; in place of a data set, why there is
            none.
        place: where the series is, for what is left out.
    """
    stack = _Stack(wanted, lambda dataset: named(dataset, None))
    try:
        for dataset, at in series:
            if isinstance(dataset, LeftOut):
                raise _Unusable(dataset.reason, dataset.passing)
            if "LOCALIZER" in image_type(dataset):
                yield LeftOut(LOCALIZER, at)
            elif "PerFrameFunctionalGroupsSequence" in dataset:
                yield _of_frames(dataset, wanted, named, at)
            else:
                patient = _allowed(dataset, wanted)
                if count_of(dataset) != 1:
                    raise _Unusable(NO_PLACE)
                position, turned = field(dataset, "ImagePositionPatient"), field(dataset, "ImageOrientationPatient")
                stack.add(dataset, patient, *_place(dataset, position, turned, dataset))
        if stack.slices:
            yield stack.volume()
    except _Unusable as fault:
        yield LeftOut(str(fault), place, fault.passing)


def _of_frames(dataset: Any, wanted: Wanted, named: Named, place: str) -> Picture | LeftOut:
    """The volume in one enhanced file."""
    try:
        patient = _allowed(dataset, wanted)
        if "ConcatenationUID" in dataset:
            raise _Unusable(PART)
        stack = _Stack(wanted, lambda found: named(found, place))
        shared = _first(dataset, "SharedFunctionalGroupsSequence")
        groups = field(dataset, "PerFrameFunctionalGroupsSequence") or ()
        if len(groups) > MOST_FRAMES:
            raise _Unusable(MANY_FRAMES)
        if len(groups) != count_of(dataset):
            raise _Unusable(NO_PLACE)
        for number, own in enumerate(groups):
            found = {name: _first(own, name) or _first(shared, name) for name in _GROUPS}
            position = field(found["PlanePositionSequence"], "ImagePositionPatient")
            turned = field(found["PlaneOrientationSequence"], "ImageOrientationPatient")
            where = _place(dataset, position, turned, found["PixelMeasuresSequence"])
            stack.add(dataset, patient, *where, frame=number, scale=found["PixelValueTransformationSequence"])
        return stack.volume()
    except _Unusable as fault:
        return LeftOut(str(fault), place, fault.passing)


_GROUPS: Final = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
)


class _Stack:
    """The slices of one volume on their way; it holds the pixels of one series, as single precision."""

    def __init__(self, wanted: Wanted, named: Callable[[Any], str | None]) -> None:
        self._wanted, self._named = wanted, named
        self._grid: _Grid | None = None
        self._patient, self._key, self._numbers = "", "", dict[str, float]()
        self._described: Described | None = None
        self.slices: list[_Slice] = []

    def add(
        self,
        dataset: Any,
        patient: str,
        grid: _Grid,
        position: Vector,
        frame: int | None = None,
        scale: Any = None,
    ) -> None:
        """Decode one slice. Raises _Unusable where it, or it beside the others, cannot be part of a volume."""
        numbers = numbers_of(dataset) if self._wanted.numbers else {}
        if self._grid is None:
            key = self._named(dataset)
            if key is None:
                raise _Unusable(NO_KEY)
            self._grid, self._patient, self._key, self._numbers = grid, patient, key, numbers
            self._described = described(dataset) if self._wanted.describe else None
        elif patient != self._patient:
            raise _Unusable(PATIENTS)
        elif not grid.is_like(self._grid):
            raise _Unusable(MIXED)
        # A number that is not the same in all slices is none of the volume.
        self._numbers = {name: value for name, value in self._numbers.items() if numbers.get(name) == value}
        if (len(self.slices) + 1) * int(np.prod(grid.size)) > MOST_VOXELS:
            raise _Unusable(TOO_LARGE)
        pixels = self._decoded(dataset, frame, scale)
        if not self._wanted.keep_text and shows_text(pixels[0]):
            raise _Unusable(TEXT)
        self.slices.append(_Slice(pixels, position))

    def _decoded(self, dataset: Any, frame: int | None, scale: Any) -> Pixels:
        try:
            found = frames_of(dataset, frame, scale)
        # As in ``pictures_of``: codecs raise whatever they raise.
        except Exception as error:
            raise _Unusable(NOT_DECODED, isinstance(error, MemoryError)) from None
        if len(found) != 1:
            raise _Unusable(NO_PLACE)
        return found[0]

    def volume(self) -> Picture:
        """All slices in the order in which they lie. Raises _Unusable where they are no regular grid."""
        if len(self.slices) < LEAST or self._grid is None:
            raise _Unusable(FEW)
        grid, normal = self._grid, across(self._grid.along_row, self._grid.along_column)
        positions = np.stack([each.position for each in self.slices])
        heights = positions @ normal
        order = np.argsort(heights, kind="stable")
        step = _even_step(heights[order])
        first = positions[order[0]]
        beside = positions - first - np.outer(heights - heights[order[0]], normal)
        if np.linalg.norm(beside, axis=1).max() > SHIFT * min(grid.spacing):
            raise _Unusable(SHEARED)
        affine = np.eye(4)
        affine[:3, 0], affine[:3, 1] = grid.along_row * grid.spacing[1], grid.along_column * grid.spacing[0]
        affine[:3, 2], affine[:3, 3] = normal * step, first
        return Picture(
            self._patient,
            self._key,
            self._joined(order),
            (step, *grid.spacing),
            self._numbers,
            affine if self._wanted.affine else None,
            self._described,
        )

    def _joined(self, order: npt.NDArray[np.intp]) -> Pixels:
        shapes = {each.pixels.shape for each in self.slices if each.pixels is not None}
        if len(shapes) != 1:
            raise _Unusable(MIXED)
        channels, rows, columns = shapes.pop()
        joined = np.empty((channels, len(order), rows, columns), np.float32)
        for depth, number in enumerate(order):
            # Each slice is let go when it is copied, so that the volume is not held twice.
            joined[:, depth], self.slices[number].pixels = self.slices[number].pixels, None
        return joined


def _even_step(heights: Vector) -> float:
    """mm from slice to slice, for rising heights."""
    steps = np.diff(heights)
    if steps.min() < SAME_POSITION:
        raise _Unusable(REPEATED)
    if np.abs(steps - np.median(steps)).max() > SAME_STEP * np.median(steps):
        raise _Unusable(UNEVEN)
    return float((heights[-1] - heights[0]) / len(steps))


def _allowed(dataset: Any, wanted: Wanted) -> str:
    """The data set's patient. What keeps a single picture out keeps the series out."""
    patient, modality = text(dataset, "PatientID"), text(dataset, "Modality")
    if not patient:
        raise _Unusable(NO_PATIENT)
    if "PixelData" not in dataset:
        raise _Unusable(NO_PIXELS)
    if wanted.image.modality not in ("OT", modality):
        raise _Unusable(OTHER_MODALITY)
    if claimed(dataset) > MOST_PIXELS:
        raise _Unusable(TOO_LARGE)
    likely = text_is_likely(modality, image_type(dataset), text(dataset, "BurnedInAnnotation"))
    if likely and not wanted.keep_text:
        raise _Unusable(TEXT)
    return patient


def _place(dataset: Any, position: Any, turned: Any, measures: Any) -> tuple[_Grid, Vector]:
    """Grid and position of a slice. Raises _Unusable where the header leaves one of them open."""
    try:
        at, cosines, spacing = np.array(position, float), np.array(turned, float), spacing_of(measures)
        size = (int(field(dataset, "Rows")), int(field(dataset, "Columns")))
    except (TypeError, ValueError, ArithmeticError):
        raise _Unusable(NO_PLACE) from None
    if (
        at.shape != (3,)
        or cosines.shape != (6,)
        or len(spacing) != 2
        or not np.isfinite([*at, *cosines, *spacing]).all()
    ):
        raise _Unusable(NO_PLACE)
    along_row, along_column = cosines[:3], cosines[3:]
    lengths = np.array([along_row @ along_row, along_column @ along_column])
    if np.abs(lengths - 1.0).max() > 1e-2 or abs(along_row @ along_column) > 1e-2:
        raise _Unusable(NO_PLACE)
    along_row, along_column = along_row / np.sqrt(lengths[0]), along_column / np.sqrt(lengths[1])
    grid = _Grid(size, (spacing[0], spacing[1]), along_row, along_column, text(dataset, "FrameOfReferenceUID"))
    return grid, at


def _first(dataset: Any, keyword: str) -> Any:
    """The first item of a sequence; None where there is none."""
    items = None if dataset is None else field(dataset, keyword)
    return items[0] if items else None
