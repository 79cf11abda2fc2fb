"""Whether text may be burned into a picture's pixels; in doubt it is left out and counted.

Nobody can clean what nobody sees, so nothing is painted over. A header that says yes is believed; so are kinds of
pictures that carry text as a rule (screens, scanned paper, ultrasound), unless the header says no. Everything else is
searched for a line of glyphs: marks of nearly one extreme brightness and one height, side by side, as letters are and
anatomy is not. The search finds plain overlays of a scanner's text; it is no reader of handwriting.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

NEAR: Final = 0.02
"""A mark's brightness lies within this share of the picture's range from its end."""

GLYPHS: Final = 4
"""So many marks in a line are text."""

HEIGHT: Final = (5, 64)
"""Pixels that a glyph is tall, at least and at most."""

OFTEN_WITH_TEXT: Final = frozenset({"US", "OT", "SC", "ES", "XC", "GM", "DOC", "SR", "XA", "RF"})
"""Modalities whose pictures carry text as a rule (DICOM PS3.3 C.7.3.1.1.1)."""


def text_is_likely(modality: str, image_type: tuple[str, ...], declared: str) -> bool:
    """Whether the header alone says that text may be burned in.

    Args:
        image_type: values of (0008,0008), for example ('DERIVED', 'SECONDARY').
        declared: BurnedInAnnotation (0028,0301): 'YES', 'NO', or empty.
    """
    if declared.upper() == "YES":
        return True
    second_hand = "SECONDARY" in image_type and "SCREEN SAVE" in image_type
    return declared.upper() != "NO" and (modality in OFTEN_WITH_TEXT or second_hand)


def shows_text(pixels: npt.NDArray[Any]) -> bool:
    """Whether a picture (rows, columns) shows a line of glyphs, white or black."""
    values = np.asarray(pixels)
    if values.size == 0:
        return False
    low, high = _range(values)
    if not (np.isfinite(low) and np.isfinite(high)):
        values = np.where(np.isfinite(values), values, np.nan)
        low, high = _range(values)
    reach = high - low
    if not reach > 0.0:
        return False
    if _line_of_glyphs(values >= high - NEAR * reach):
        return True
    # Black marks count only on a ground that is not black itself; padding is black.
    other = values > low + NEAR * reach
    return values.size - int(np.count_nonzero(other)) < 0.05 * values.size and _line_of_glyphs(~other)


def _range(values: npt.NDArray[Any]) -> tuple[float, float]:
    """Smallest and largest; these two of numpy pass over NaN, which stands for padding."""
    return float(np.fmin.reduce(values, axis=None)), float(np.fmax.reduce(values, axis=None))


def _line_of_glyphs(marks: npt.NDArray[np.bool_]) -> bool:
    crossed = _rows_with_many(marks)
    if not len(crossed):
        return False
    from scipy import ndimage

    # A glyph that crosses such a row lies wholly in these rows, and what they cut off is too tall for one.
    marks = marks[max(crossed[0] - HEIGHT[1], 0) : crossed[-1] + HEIGHT[1] + 1]
    columns = np.flatnonzero(marks.any(axis=0))
    marks = marks[:, columns[0] : columns[-1] + 1]
    labelled, _ = ndimage.label(marks, np.ones((3, 3)))
    boxes = []
    for number, (tall, wide) in enumerate(ndimage.find_objects(labelled), 1):
        height, width = tall.stop - tall.start, wide.stop - wide.start
        if HEIGHT[0] <= height <= HEIGHT[1] and width <= 1.5 * height:
            area = int((labelled[tall, wide] == number).sum())
            # Letters are strokes: they fill neither all of their box nor next to nothing.
            if 0.15 <= area / (height * width) <= 0.95:
                boxes.append((tall.start, height, wide.start, wide.stop))
    return any(_line(box, boxes) >= GLYPHS for box in boxes)


def _rows_with_many(marks: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """The rows in which at least ``GLYPHS`` runs of marks stand apart; without one there is no line.

    Glyphs of one line, by the limits of ``_line``, share a row: the first one's ``0.3 * height`` below its top.
    Most pictures have no such row, and finding that out costs a small part of looking at every group of marks.
    """
    if np.count_nonzero(marks) < GLYPHS * HEIGHT[0]:
        return np.empty(0, np.intp)
    places = np.flatnonzero(marks)
    rows = places // marks.shape[1]
    begins = np.ones(len(places), bool)
    begins[1:] = (np.diff(places) > 1) | (np.diff(rows) > 0)
    return np.flatnonzero(np.bincount(rows[begins]) >= GLYPHS)


def _line(first: tuple[int, int, int, int], boxes: list[tuple[int, int, int, int]]) -> int:
    """How many glyphs of about the same height stand on the same line as ``first``, near one another."""
    top, height, _, right = first
    count = 1
    along = sorted((b for b in boxes if b[2] >= right and abs(b[0] - top) <= 0.3 * height), key=lambda box: box[2])
    for _, tall, left, end in along:
        if 0.7 * height <= tall <= 1.4 * height and left - right <= 2 * height:
            count, right = count + 1, end
    return count
