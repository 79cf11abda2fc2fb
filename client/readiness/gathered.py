"""What the checks need of a site's data, read once: numbers and codes by column, labels, patients, and counts.

Eight bytes for each cell are kept and the patients' ids, in this process only; pictures are decoded one at a time and
only what lies beside them is kept.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wardround.client.connectors import IMAGE_CONNECTORS, read_batches, read_pictures
from wardround.client.connectors.events import Tally
from wardround.client.connectors.mask_files import masks_below
from wardround.client.imaging.described import Described
from wardround.client.imaging.picture import LeftOut
from wardround.client.imaging.records import NO_LABEL, NO_PICTURE, finished, mask_for
from wardround.client.mapping import Mapping, local_columns, mapped_column
from wardround.client.reading import labels_of, mapping_of
from wardround.client.settings import DataSource, SiteSettings
from wardround.client.store.members import Part
from wardround.protocol.contract import CodeColumn, DataContract, NumberColumn
from wardround.protocol.errors import UsageError, WardroundError
from wardround.protocol.labels import ClassLabel, Finding, MaskLabel, SurvivalLabel, outcome_in

AT_ONCE: Final = 512
"""Pictures whose rows are looked at together."""

MOST_RULES: Final = 20
"""Breaks of mapping rules that are named; each batch can bring one for each column."""

Numbers = npt.NDArray[np.float64]


class Division(Protocol):
    """How the site divides its patients; ``store.members.Members`` is one."""

    def parts(self, ids: Sequence[str]) -> Sequence[Part | None]:
        """The part of each patient; None: not admitted."""


@dataclass(slots=True)
class Column:
    """One column of the contract: ``values`` is NaN where there is no usable one; a code is its place in the list.

    Numbers out of range are among ``values``, so that a wrong unit can be seen; ``faults`` counts what a round refuses.
    """

    values: Numbers
    faults: Counter[str] = field(default_factory=Counter)
    missing: int = 0


@dataclass(slots=True)
class Gathered:
    """A site's data under a contract, as far as they could be read."""

    contract: DataContract
    declared: int | None
    division: Division
    rows: int = 0
    columns: dict[str, Column] = field(default_factory=dict)
    label: Numbers = field(default_factory=lambda: np.zeros(0))
    patients: list[str] = field(default_factory=list)
    content: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    header: dict[str, Numbers] = field(default_factory=dict)
    described: list[Described | None] = field(default_factory=list)
    absent: dict[str, int] = field(default_factory=dict)
    unread: list[WardroundError] = field(default_factory=list)
    broken_rules: list[UsageError] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def gather(
    contract: DataContract, settings: SiteSettings, folder: Path, division: Division, declared: int | None = None
) -> Gathered:
    """Read every source of ``settings``. What cannot be read is in ``unread`` and ``absent``; nothing is raised for it.

    Raises:
        UsageError: the site names no data.
    """
    if not settings.data:
        raise UsageError("the site names no data", "write 'data:' into site.yaml; docs/site.md shows how")
    found = Gathered(contract, declared, division)
    parts: list[_Rows] = []
    for number, source in enumerate(settings.data, 1):
        try:
            for batch in _batches(source, folder, found, f"data source {number}"):
                parts.append(_Rows.of(batch, contract))
        except WardroundError as error:
            found.unread.append(error)
    _joined(parts, found)
    return found


@dataclass(slots=True)
class _Batch:
    """Records as they come from a source: the contract's columns as text, and of pictures what lies beside them."""

    columns: dict[str, pa.Array]
    header: list[dict[str, float]] = field(default_factory=list)
    pixels: list[int] = field(default_factory=list)
    described: list[Described | None] = field(default_factory=list)


def _batches(source: DataSource, folder: Path, found: Gathered, name: str) -> Iterator[_Batch]:
    contract, path = found.contract, folder / source.path
    if contract.image is not None:
        if source.connector not in IMAGE_CONNECTORS or source.labels is None:
            raise UsageError(f"{name} holds no pictures with labels, and the plan asks for them", "see docs/imaging.md")
        yield from _pictures(source, path, folder, found)
        return
    rules, first, tally = mapping_of(source, folder), 0, Tally()
    local = local_columns(rules, contract.column_names)
    for batch in read_batches(source.connector, path, source.options, local, tally):
        yield _Batch({each: _column(each, batch, rules, found, name, first) for each in contract.column_names})
        first += batch.num_rows
    found.left_out.update(tally.counts)


def _column(name: str, batch: pa.RecordBatch, rules: Mapping, found: Gathered, source: str, first: int) -> pa.Array:
    """The contract's column as text; empty where it is not there or its rule does not cover it."""
    nothing = pa.nulls(batch.num_rows, pa.string())
    if any(each not in batch.schema.names for each in local_columns(rules, [name])):
        found.absent[name] = found.absent.get(name, 0) + batch.num_rows
        return nothing
    try:
        column = mapped_column(name, batch, rules, found.contract, source, first)
    except UsageError as error:
        if len(found.broken_rules) < MOST_RULES:
            found.broken_rules.append(error)
        return nothing
    return column if pa.types.is_string(column.type) else column.cast(pa.string())


def _pictures(source: DataSource, path: Path, folder: Path, found: Gathered) -> Iterator[_Batch]:
    contract = found.contract
    assert contract.image is not None and source.labels is not None
    labels = labels_of(source, folder, contract)
    masks = masks_below(folder / (source.labels.masks or source.path))
    # A histogram's pictures bring the numbers of their headers, which may tell the label.
    asked = contract.image.model_copy(update={"features": "histogram"})
    held: list[_Held] = []
    same: dict[Described | None, Described | None] = {}
    seen: set[str] = set()
    for each in read_pictures(source.connector, path, asked, source.options, describe=True):
        if isinstance(each, LeftOut):
            found.left_out[each.reason] += 1
            seen.add(each.place)
            continue
        seen.add(each.key)
        if each.key not in labels:
            found.left_out[NO_LABEL] += 1
            continue
        made = finished(each, contract, mask_for(each, labels, contract, masks))
        if made.features is None:
            found.left_out[made.unfit] += 1
            continue
        row = {**labels[each.key], **each.numbers}
        if contract.patient_id is not None:
            row[contract.patient_id] = each.patient
        said = same.setdefault(each.described, each.described)  # kept once for all pictures of a series
        held.append((row, dict(each.numbers), hash(each.pixels.tobytes()), said))
        if len(held) == AT_ONCE:
            yield _of_pictures(held, contract)
            held = []
    found.left_out[NO_PICTURE] += len(labels.keys() - seen)
    if held:
        yield _of_pictures(held, contract)


_Held = tuple[dict[str, Any], dict[str, float], int, Described | None]
"""Cells by name, numbers of the header, the pixels' hash, and what else the header says."""


def _of_pictures(held: list[_Held], contract: DataContract) -> _Batch:
    def cell(value: Any) -> str | None:
        return None if value is None else str(value)

    columns = {name: pa.array([cell(row.get(name)) for row, *_ in held], pa.string()) for name in contract.column_names}
    _, numbers, pixels, described = zip(*held, strict=True)
    return _Batch(columns, list(numbers), list(pixels), list(described))


@dataclass(slots=True)
class _Rows:
    """A batch, taken apart."""

    count: int
    columns: dict[str, Column]
    label: Numbers
    patients: list[str]
    content: npt.NDArray[np.int64]
    header: list[dict[str, float]]
    described: list[Described | None]

    @classmethod
    def of(cls, batch: _Batch, contract: DataContract) -> "_Rows":
        texts = {name: _stripped(column, contract) for name, column in batch.columns.items()}
        columns = {}
        for column in contract.columns:
            cells = texts[column.name]
            columns[column.name] = (
                _numbers(cells, column) if isinstance(column, NumberColumn) else _codes(cells, column)
            )
        label, label_columns = _label(texts, contract)
        columns |= label_columns
        patient = contract.patient_id
        ids = [id_ or "" for id_ in texts[patient]] if patient is not None else []
        others = [texts[name] for name in contract.column_names if name != patient]
        content = np.array(batch.pixels or [hash(row) for row in zip(*others, strict=True)], np.int64)
        return cls(len(label), columns, label, ids, content, batch.header, batch.described)


def _stripped(column: pa.Array, contract: DataContract) -> list[str | None]:
    """Cells without spaces around them; None where missing."""
    tokens = set(contract.missing_tokens)
    cells = (None if cell is None else cell.strip() for cell in column.to_pylist())
    return [None if cell is None or cell in tokens else cell for cell in cells]


def _number(cell: str | None) -> float:
    try:
        return np.nan if cell is None else float(cell)
    except ValueError:
        return np.inf


def _numbers(cells: list[str | None], column: NumberColumn) -> Column:
    values = np.array([_number(cell) for cell in cells], float)
    empty = np.array([cell is None for cell in cells], bool)
    codes = np.isin(values, column.missing_codes)
    broken = ~empty & ~np.isfinite(values)
    values[broken | codes] = np.nan
    outside = ~np.isnan(values) & ~((values >= column.minimum) & (values <= column.maximum))
    outside &= ~np.isin(values, column.also_allowed)
    faults = Counter({"no number": int(broken.sum()), "outside": int(outside.sum())})
    return Column(values, faults, int(empty.sum() + codes.sum()))


def _codes(cells: list[str | None], column: CodeColumn) -> Column:
    places = {code: place for place, code in enumerate(column.codes)}
    values = np.array([np.nan if cell is None else places.get(_whole(cell), -1) for cell in cells], float)
    unknown = values == -1
    values[unknown] = np.nan
    return Column(values, Counter({"unknown code": int(unknown.sum())}), sum(cell is None for cell in cells))


def _whole(cell: str) -> str:
    number = _number(cell)
    return str(int(number)) if np.isfinite(number) and number.is_integer() else cell


def _label(texts: dict[str, list[str | None]], contract: DataContract) -> tuple[Numbers, dict[str, Column]]:
    """1 and 0 of each record, NaN where unknown; and the label's columns with their faults.

    Of several findings: whether one is there. Of a quantity 0, until all are known (``_joined``); of a mask 0, if the
    table names one.
    """
    label = contract.label
    stated = {
        name: _stated(texts[name], outcome)
        for name in label.columns
        if (outcome := outcome_in(label, name)) is not None
    }
    if isinstance(label, SurvivalLabel):
        times = np.array([_number(cell) for cell in texts[label.time]], float)
        bad = ~np.isnan(times) & ~((times >= 0) & (times <= label.maximum_time))
        missing = sum(cell is None for cell in texts[label.time])
        time = Column(times, Counter({"outside": int(bad.sum())}), missing)
        return stated[label.event].values, {label.time: time} | stated
    if contract.quantity is not None:
        column = _numbers(texts[contract.quantity.name], contract.quantity)
        return np.where(np.isfinite(column.values), 0.0, np.nan), {contract.quantity.name: column}
    if isinstance(label, MaskLabel):
        named = np.array([np.nan if cell is None else 0.0 for cell in texts[label.column]])
        return named, {label.column: Column(named, missing=int(np.isnan(named).sum()))}
    each = np.stack([column.values for column in stated.values()])
    some = np.isfinite(each).any(axis=0)
    return np.where(some, (each == 1).any(axis=0), np.nan), stated


def _stated(cells: list[str | None], outcome: ClassLabel | Finding) -> Column:
    """1 yes, 0 no, NaN not stated."""
    values = np.full(len(cells), np.nan)
    silent, unknown = outcome.unknown if isinstance(outcome, Finding) else (), 0
    for row, cell in enumerate(cells):
        if cell is None:
            continue
        if (code := _whole(cell)) in outcome.positive or code in outcome.negative:
            values[row] = float(code in outcome.positive)
        else:
            unknown += code not in silent
    return Column(values, Counter({"unknown code": unknown}), sum(cell is None for cell in cells))


def _joined(parts: list[_Rows], found: Gathered) -> None:
    found.rows = sum(part.count for part in parts)
    if not parts:
        return
    for name in parts[0].columns:
        columns = [part.columns[name] for part in parts]
        faults: Counter[str] = Counter()
        for column in columns:
            faults.update(column.faults)
        values = np.concatenate([column.values for column in columns])
        found.columns[name] = Column(values, faults, sum(column.missing for column in columns))
    found.label = np.concatenate([part.label for part in parts])
    if found.contract.quantity is not None:
        # What tells nearly alone on which side of the middle a quantity lies is a leak as well.
        values = found.columns[found.contract.quantity.name].values
        known = np.isfinite(values)
        found.label[known] = values[known] > (np.median(values[known]) if known.any() else 0.0)
    found.content = np.concatenate([part.content for part in parts])
    found.patients = [id_ for part in parts for id_ in part.patients]
    found.described = [each for part in parts for each in (part.described or [None] * part.count)]
    rows = [row for part in parts for row in (part.header or [{}] * part.count)]
    for name in sorted({name for row in rows for name in row}):
        value = (row.get(name) for row in rows)
        found.header[name] = np.array([np.nan if each is None else each for each in value], float)
