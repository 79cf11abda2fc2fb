"""The short search for text finds what the straightforward one finds, which looks at every group of marks."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydicom import dcmread
from scipy import ndimage

from wardround.client.imaging.burned_in import GLYPHS, HEIGHT, NEAR, shows_text
from wardround.simulations.synthetic.as_dicom import pictures
from wardround.simulations.synthetic.hospitals import hospitals
from wardround.simulations.synthetic.identifiers import burn
from wardround.simulations.synthetic.subjects import PictureKind


def plainly_shows_text(pixels: np.ndarray) -> bool:
    """The straightforward search: every group of marks is looked at. Kept as it was before the short one."""
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


def _range(values: np.ndarray) -> tuple[float, float]:
    """Smallest and largest; these two of numpy pass over NaN, which stands for padding."""
    return float(np.fmin.reduce(values, axis=None)), float(np.fmax.reduce(values, axis=None))


def _line_of_glyphs(marks: np.ndarray) -> bool:
    rows, columns = np.flatnonzero(marks.any(axis=1)), np.flatnonzero(marks.any(axis=0))
    if not len(rows):
        return False
    marks = marks[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
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


def _line(first: tuple[int, int, int, int], boxes: list[tuple[int, int, int, int]]) -> int:
    """How many glyphs of about the same height stand on the same line as ``first``, near one another."""
    top, height, _, right = first
    count = 1
    along = sorted((b for b in boxes if b[2] >= right and abs(b[0] - top) <= 0.3 * height), key=lambda box: box[2])
    for _, tall, left, end in along:
        if 0.7 * height <= tall <= 1.4 * height and left - right <= 2 * height:
            count, right = count + 1, end
    return count


def test_glyphs_of_one_line_have_a_row_in_common() -> None:
    """What the short search stands on, for every height and the limits of a line: tops 0.3, heights 0.7 to 1.4."""
    for height in range(HEIGHT[0], HEIGHT[1] + 1):
        tops = [top for top in range(-HEIGHT[1], HEIGHT[1]) if abs(top) <= 0.3 * height]
        tall = min(t for t in range(HEIGHT[0], HEIGHT[1] + 1) if 0.7 * height <= t <= 1.4 * height)
        common = max(tops)
        assert common < min(tops) + tall and common < height


def noise_with_marks(generator: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A picture whose marks are anything: specks, bars, letters, blobs that touch, on any ground."""
    values = generator.normal(0, 100, size)
    for _ in range(int(generator.integers(0, 40))):
        tall, wide = (int(each) for each in generator.integers(1, 80 if generator.random() < 0.1 else 16, 2))
        top, left = (int(generator.integers(0, most)) for most in size)
        block = generator.random((tall, wide)) < generator.choice([0.3, 0.7, 1.0])
        part = values[top : top + tall, left : left + wide]
        part[block[: part.shape[0], : part.shape[1]]] = 1000.0
    if generator.random() < 0.6:
        at = tuple(int(generator.integers(0, most)) for most in size[::-1])
        mask = Image.new("1", values.shape[::-1])
        font = ImageFont.load_default(int(generator.integers(6, 70)))
        ImageDraw.Draw(mask).text(at, "Ab 47x"[: int(generator.integers(2, 7))], fill=1, font=font)
        values[np.array(mask)] = 1000.0
    if generator.random() < 0.3:
        values = -np.clip(values, -50, None)
    if generator.random() < 0.3:
        values[: int(generator.integers(1, size[0]))][:, : int(generator.integers(1, 30))] = np.nan
    return values if generator.random() < 0.5 else np.rint(np.nan_to_num(values, nan=-2000)).astype(np.int16)


def test_the_short_search_finds_what_looking_at_every_mark_finds() -> None:
    generator, seen = np.random.Generator(np.random.PCG64(7)), {True: 0, False: 0}
    for _ in range(1500):
        size = tuple(int(each) for each in generator.integers(8, 200, 2))
        picture = noise_with_marks(generator, (size[0], size[1]))
        found = shows_text(picture)
        assert found == plainly_shows_text(picture)
        seen[found] += 1
    assert min(seen.values()) > 100, seen


@pytest.mark.parametrize("kind", ["ct", "xray"])
def test_the_short_search_finds_the_same_on_phantoms(kind: PictureKind) -> None:
    found = []
    for made in pictures(hospitals(1, 3)[0], kind, 30):
        burn(made.pixels, made.subject, made.number, int(made.pixels.max()) + 500)
        found.append(shows_text(made.pixels))
        assert found[-1] == plainly_shows_text(made.pixels)
    assert True in found and False in found


def test_the_short_search_finds_the_same_on_real_pictures(wardround_data: Path) -> None:
    files = sorted((wardround_data / "lung_ct_dicom" / "dicom").rglob("*.dcm"))
    slices = [dcmread(file).pixel_array for file in files]
    seen = [shows_text(picture) for picture in slices]
    assert seen == [plainly_shows_text(picture) for picture in slices] and (len(seen), sum(seen)) == (100, 4)
    xrays = np.load(wardround_data / "pneumonia_cxr28" / "pneumonia28.npz")["test_images"]
    seen = [shows_text(picture) for picture in xrays]
    assert seen == [plainly_shows_text(picture) for picture in xrays] and (len(seen), sum(seen)) == (624, 0)
