"""Data made from a plan's contract alone, so that a plan can be rehearsed before any hospital opens its own.

The table holds what a real one will hold sooner or later: each column's minimum, maximum and ``also_allowed``, each of
its codes, each code and token for a missing value, several records of one patient, both classes of the label. The rest
is drawn at random, with a weak effect of the features on the label, so that a model has something to learn. Cells are
text, as a CSV file gives them.

The first rows hold the allowed edges and the last rows the missing ones, the same rows for all columns, so that a
column whose policy is ``complete_cases`` costs few rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from math import isfinite
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wardround.client.imaging.masks import Masks
from wardround.client.imaging.picture import Picture, Pixels
from wardround.protocol.contract import CodeColumn, Column, DataContract, ImageInput, NumberColumn
from wardround.protocol.errors import UsageError
from wardround.protocol.labels import MaskLabel
from wardround.simulations.synthetic.contract_labels import (
    Cells,
    Random,
    label_cells,
    label_edges,
    picture_key,
    written_number,
)

PICTURE: Final = "picture"
"""The column that names a row's picture, where the contract has an image; ``Picture.key`` of that picture."""

MISSING_SHARE: Final = 0.04
"""Of a column's other cells; columns whose missing values leave a record out share it among them."""
RECORDS: Final = (1, 2, 1, 3)
"""Records of the first patients, and so on round, where the contract names the patient."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """Each record's patient and label, and its cells by column."""

    patients: tuple[str, ...]
    positive: npt.NDArray[np.bool_]
    cells: dict[str, Cells]


def rehearsal_table(
    contract: DataContract, site: str, patients: int, seed: int, *, one_class: bool = False
) -> pa.Table:
    """A table of strings with every column that the contract reads, at least one row a patient, in a fixed order.

    With an image in the contract a row is a picture: there is a column ``picture``, and number columns are left to the
    pictures' header fields. ``one_class``: nobody is positive (a survival label: nobody has an event).

    Raises:
        UsageError: too few patients to hold every edge of a column.
    """
    made = _made(contract, site, patients, seed, one_class)
    columns = {name: made.cells[name] for name in contract.column_names if name in made.cells}
    if contract.image is not None:
        for column in contract.columns:
            if isinstance(column, NumberColumn):
                del columns[column.name]
        columns[PICTURE] = [picture_key(row) for row in range(len(made.patients))]
    return pa.table({name: pa.array(cells, pa.string()) for name, cells in columns.items()})


def rehearsal_pictures(
    contract: DataContract, site: str, patients: int, seed: int, *, one_class: bool = False
) -> Iterator[Picture]:
    """The pictures of ``rehearsal_table``'s rows, one at a time, in its order; their finding follows the label.

    Sizes, spacings, and (for a 3D picture with an orientation) the order and direction of axes change from picture to
    picture; values reach beyond the window, and some lie outside the field of view (NaN).

    Raises:
        UsageError: the contract has no image, or as ``rehearsal_table``.
    """
    if contract.image is None:
        raise UsageError("this contract has no image", "rehearsal_table gives its table")
    made = _made(contract, site, patients, seed, one_class)
    numbers = [column for column in contract.columns if isinstance(column, NumberColumn)]
    for row, patient in enumerate(made.patients):
        fields = {column.name: _as_number(made.cells[column.name][row]) for column in numbers}
        yield _picture(
            contract.image,
            _random(site, seed, f"picture {row}"),
            patient,
            row,
            bool(made.positive[row]),
            {name: value for name, value in fields.items() if value is not None},
        )


def rehearsal_masks(
    contract: DataContract, site: str, patients: int, seed: int, *, one_class: bool = False
) -> Masks | None:
    """The masks of ``rehearsal_pictures``, by the name in the table; None for a contract whose label is no mask.

    Structures of a picture are balls beside one another, each a little smaller than the last, on the picture's grid.
    """
    label = contract.label
    if not isinstance(label, MaskLabel):
        return None
    grids = {
        picture.key: (picture.pixels.shape[1:], picture.spacing, picture.affine)
        for picture in rehearsal_pictures(contract, site, patients, seed, one_class=one_class)
    }

    def mask(name: str) -> Picture:
        shape, spacing, affine = grids[name]
        random = _random(site, seed, f"mask {name}")
        where = np.stack(np.meshgrid(*(np.linspace(-1, 1, length) for length in shape), indexing="ij"))
        found = np.zeros(shape, np.float32)
        for code in () if one_class else label.structures:
            middle = random.uniform(-0.5, 0.5, len(shape)).reshape(-1, *[1] * len(shape))
            found[((where - middle) ** 2).sum(axis=0) < random.uniform(0.05, 0.15)] = int(code)
        return Picture("", name, found[None], spacing, affine=affine)

    return mask


def _made(contract: DataContract, site: str, patients: int, seed: int, one_class: bool) -> _Rows:
    counts = [RECORDS[number % len(RECORDS)] if contract.patient_id else 1 for number in range(patients)]
    names = tuple(f"{site}-{number + 1:05d}" for number, count in enumerate(counts) for _ in range(count))
    edges = {column.name: _edges(column) for column in contract.columns}
    absent = {column.name: _absent(column, contract.missing_tokens) for column in contract.columns}
    edges_of_label = label_edges(contract, one_class)
    front = max(map(len, (*edges.values(), *edges_of_label.values())))
    back = max((len(contract.missing_tokens), *map(len, absent.values())))
    if len(names) < front + back + 2:
        raise UsageError(
            f"{patients} patients at '{site}' are too few for every edge of the contract",
            f"write {front + back + 2} or more",
        )
    random, rows = _random(site, seed, "table"), len(names)
    score = np.zeros(rows)
    cells: dict[str, Cells] = {}
    complete = sum(column.missing.kind == "complete_cases" for column in contract.columns)
    for place, column in enumerate(contract.columns):
        written, effect = _column(column, random, rows)
        score += effect * (1, -1)[place % 2]
        # The label's own missing cell lies one row above, so that it is counted under its own name.
        share = MISSING_SHARE / (complete if column.missing.kind == "complete_cases" else 1)
        _missing_at_random(written, random, share, contract.missing_tokens, slice(front, rows - back - 1))
        written[: len(edges[column.name])] = edges[column.name]
        written[rows - len(absent[column.name]) :] = absent[column.name]
        cells[column.name] = written
    chance = 1 / (1 + np.exp(-1.5 * score / max(np.sqrt(len(contract.columns)), 1)))
    positive = random.random(rows) < (0.5 if contract.image is not None else chance)
    label, positive = label_cells(contract, random, positive, score, edges_of_label, one_class)
    for name, written in label.items():
        if contract.missing_tokens:
            written[rows - back - 1] = contract.missing_tokens[0]
        cells[name] = written
    if contract.patient_id is not None:
        cells[contract.patient_id] = list(names)
    return _Rows(names, positive, cells)


def _edges(column: Column) -> Cells:
    if isinstance(column, CodeColumn):
        whole = [code for code in column.codes if code.isdigit()]
        # Systems export a coded column as floats when one of its cells is missing.
        return [*column.codes, *(f"{int(code)}.0" for code in whole if str(int(code)) == code)]
    values = (column.minimum, column.maximum, *column.also_allowed)
    return [written_number(value) for value in values if isfinite(value)]


def _absent(column: Column, tokens: tuple[str, ...]) -> Cells:
    codes = column.missing_codes if isinstance(column, NumberColumn) else ()
    return [*tokens, None, *(written_number(value) for value in codes if isfinite(value))]


def _column(column: Column, random: Random, rows: int) -> tuple[Cells, npt.NDArray[np.float64]]:
    """Cells drawn inside the column's rule, and each row's standardised value."""
    if isinstance(column, CodeColumn):
        drawn = random.integers(0, len(column.codes), rows)
        names = list(column.codes)
        middle = (len(names) - 1) / 2
        return [names[number] for number in drawn], np.asarray((drawn - middle) / max(middle, 0.5), np.float64)
    low = column.minimum if isfinite(column.minimum) else column.center - 3 * column.scale
    high = column.maximum if isfinite(column.maximum) else column.center + 3 * column.scale
    inside = low <= column.center <= high
    middle = column.center if inside else (low + high) / 2
    spread = min(column.scale, (high - low) / 4)
    values = np.clip(random.normal(middle, spread, rows), low, high)
    codes = set(column.missing_codes)
    written: Cells = []
    for place, value in enumerate(values):
        short = float(f"{value:.6g}")
        if not low <= short <= high or short in codes:
            short = float(value)
        values[place] = short
        written.append(written_number(short))
    return written, (values - middle) / spread


def _missing_at_random(cells: Cells, random: Random, share: float, tokens: tuple[str, ...], where: slice) -> None:
    chosen = random.random(len(cells)) < share
    for place in range(*where.indices(len(cells))):
        if chosen[place]:
            cells[place] = tokens[place % len(tokens)] if tokens else None


def _as_number(cell: str | None) -> float | None:
    try:
        return None if cell is None else float(cell)
    except ValueError:
        return None


def _random(site: str, seed: int, part: str) -> Random:
    text = f"wardround rehearsal/{seed}/{site}/{part}"
    return np.random.default_rng(int.from_bytes(sha256(text.encode()).digest()[:16], "big"))


def _picture(
    image: ImageInput, random: Random, patient: str, row: int, positive: bool, numbers: dict[str, float]
) -> Picture:
    axes = len(image.size)
    wanted = np.array(image.spacing if image.spacing is not None else (1.0,) * axes)
    stretch, cover = random.uniform(0.75, 1.33, axes), random.uniform(0.85, 1.2, axes)
    # A picture that is finer or coarser than the contract asks, and covers more or less than its field of view.
    shape = tuple(
        max(8, round(size * reach / step)) for size, step, reach in zip(image.size, stretch, cover, strict=True)
    )
    spacing = tuple(float(step) for step in wanted * stretch)
    pixels = _drawn(image, random, shape, positive)
    if row % 3 == 0:
        pixels[..., :2, :2] = np.nan
    affine = None
    if axes == 3:
        pixels, spacing, affine = _stored(pixels, spacing, row if image.orientation == "LPS" else 0)
    colours = 3 if image.channels == 3 or (image.modality not in ("CT", "MR") and row % 5 == 4) else 1
    return Picture(
        patient=patient,
        key=picture_key(row),
        pixels=np.repeat(pixels[None], colours, axis=0),
        spacing=spacing if image.spacing is not None or row % 2 or axes == 3 else (),
        numbers=numbers,
        affine=affine,
    )


def _drawn(image: ImageInput, random: Random, shape: tuple[int, ...], positive: bool) -> Pixels:
    """A phantom of the modality, in its units: Hounsfield for CT, otherwise the window and some beyond it."""
    from wardround.simulations.synthetic.hospitals import SCANNERS
    from wardround.simulations.synthetic.phantoms import ChestShape, chest_xray, ct_slice, mri_head

    low, high = image.window
    if image.modality == "CT":
        chest, scanner = ChestShape.draw(random), SCANNERS[int(random.integers(len(SCANNERS)))]
        levels = (0.5,) if len(shape) == 2 else np.linspace(0.9, 0.1, shape[0])
        plane = (shape[-2], shape[-1])
        slices = [ct_slice(random, chest, scanner, plane, contrast=positive, level=level) for level in levels]
        return np.asarray(slices[0] if len(shape) == 2 else np.stack(slices), np.float32)
    if image.modality == "MR":
        deep = shape if len(shape) == 3 else (15, *shape)
        head, mask = mri_head(random, (deep[0], deep[1], deep[2]), lesion=positive, gain=0.6)
        most = int(mask.sum(axis=(1, 2)).argmax()) if positive else deep[0] // 2
        drawn = head if len(shape) == 3 else head[most]
    else:
        flat = chest_xray(random, (shape[-2], shape[-1]), opacity=positive)
        drawn = flat if len(shape) == 2 else np.repeat(flat[None], shape[0], axis=0)
    return np.asarray(low + (high - low) * 1.7 * (drawn - 0.2), np.float32)


def _stored(
    pixels: Pixels, spacing: tuple[float, ...], row: int
) -> tuple[Pixels, tuple[float, ...], npt.NDArray[np.float64]]:
    """A volume whose indices rise to superior, posterior and left, stored in another order, with its affine in LPS."""
    order: Any = ((0, 1, 2), (2, 0, 1), (1, 0, 2))[row % 3]
    flips = tuple((row >> bit) & 1 for bit in range(3))
    axes_of_world = np.eye(3)[:, ::-1] * np.array(spacing)
    columns, origin = [], np.zeros(3)
    for axis in order:
        column = axes_of_world[:, axis]
        if flips[axis]:
            origin = origin + column * (pixels.shape[axis] - 1)
            column = -column
        columns.append(column)
    pixels = np.flip(pixels, tuple(axis for axis in range(3) if flips[axis])).transpose(order)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = np.stack(columns[::-1], axis=1), origin
    return np.ascontiguousarray(pixels), tuple(spacing[axis] for axis in order), affine
