"""From a table to a feature matrix, by the plan's data contract and nothing else.

Every cell is checked against its column's rule before anything is computed. A broken rule is an error that names row,
column and rule, never the value: an error text may be read by people who may not see the patient.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wardround.protocol.contract import CodeColumn, DataContract, FixedValue, NumberColumn
from wardround.protocol.errors import UsageError
from wardround.protocol.labels import UNKNOWN, ClassLabel, Finding, FindingsLabel, MaskLabel, NumberLabel

Mask = npt.NDArray[np.bool_]
_Column = TypeVar("_Column", pa.Array, pa.ChunkedArray)

BATCH_ROWS: Final = 10_000
"""Rows that a source hands over at once, where it can choose."""


@dataclass(frozen=True, slots=True)
class Records:
    """Rows that the contract kept: features (records, F), targets (records, T), patients and rows (records,)."""

    features: npt.NDArray[Any]
    targets: npt.NDArray[np.float64]
    patients: npt.NDArray[np.object_] | npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    excluded: dict[str, int]


def joined(parts: Iterable[Records]) -> Records:
    """Records of several batches, one below the other; at least one batch."""
    found = list(parts)
    excluded = Counter[str]()
    for part in found:
        excluded.update(part.excluded)
    return Records(
        np.concatenate([part.features for part in found]),
        np.concatenate([part.targets for part in found]),
        np.concatenate([part.patients for part in found]),
        np.concatenate([part.rows for part in found]),
        dict(excluded),
    )


def apply_contract(
    table: pa.Table | pa.RecordBatch, contract: DataContract, source: str, first_row: int = 0
) -> Records:
    """Check ``table`` against ``contract`` and encode its columns; an image of the contract is not in a table.

    ``source`` names the table in errors. Rows are counted from 1 at the first row of data, which is row ``first_row``
    + 1 of the source. Columns beyond the contract are not looked at.

    Raises:
        UsageError: a column is missing, or a cell breaks its column's rule.
    """
    _check_columns(table, contract, source)
    if isinstance(table, pa.RecordBatch):
        table = pa.Table.from_batches([table])
    cells = _Cells(table, contract.missing_tokens, source, first_row)
    keep = np.ones(table.num_rows, bool)
    excluded: dict[str, int] = {}
    features: list[npt.NDArray[np.float64]] = []

    def exclude(name: str, missing: Mask) -> None:
        fresh = int((missing & keep).sum())
        if fresh:
            excluded[f"{name} missing"] = fresh
        keep[missing] = False

    for column in contract.columns:
        encoded, missing = _number(cells, column) if isinstance(column, NumberColumn) else _code(cells, column)
        if isinstance(column.missing, FixedValue):
            features.extend(encoded)
            if column.missing.indicator:
                features.append(missing.astype(np.float64))
        else:
            exclude(column.name, missing)
            features.extend(encoded)
    targets, missing = _targets(cells, contract)
    exclude("label", missing)
    if contract.patient_id is None:
        patients: npt.NDArray[np.object_] | npt.NDArray[np.int64] = np.arange(table.num_rows) + first_row
    else:
        patients, missing = cells.text(contract.patient_id)
        exclude(contract.patient_id, missing)
    matrix = np.column_stack(features)[keep] if features else np.zeros((int(keep.sum()), 0))
    return Records(matrix, targets[keep], patients[keep], np.flatnonzero(keep) + first_row, excluded)


def _check_columns(table: pa.Table | pa.RecordBatch, contract: DataContract, source: str) -> None:
    absent = [name for name in contract.column_names if name not in table.schema.names]
    if not absent:
        return
    hint = f"the contract reads these columns: {', '.join(contract.column_names)}"
    if len(table.schema.names) == 1 and any(mark in table.schema.names[0] for mark in ";\t|"):
        mark = next(mark for mark in ";\t|" if mark in table.schema.names[0])
        hint = f"the header looks as if its columns were separated by {mark!r}: set 'delimiter' for this site"
    raise UsageError(f"{source}: no column named {', '.join(repr(name) for name in absent)}", hint)


def as_text(column: _Column, name: str) -> _Column:
    """``column`` as text. Raises UsageError where its cells are lists, bytes or the like."""
    if pa.types.is_string(column.type):
        return column
    try:
        return column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        # Arrow's own message quotes a cell.
        raise UsageError(
            f"column '{name}' holds what is neither text, number nor time", "leave it out, or write it as text"
        ) from None


class _Cells:
    """Columns of one table as numpy arrays, with missing cells marked and errors that name a cell, not its value."""

    def __init__(self, table: pa.Table, missing_tokens: tuple[str, ...], source: str, first_row: int) -> None:
        self.table = table
        self.tokens = pa.array(missing_tokens, pa.string())
        self.source = source
        self.first_row = first_row

    def text(self, name: str) -> tuple[npt.NDArray[np.object_], Mask]:
        """The column as stripped strings ('' where missing), and where it is missing."""
        column = pc.utf8_trim_whitespace(as_text(self.table.column(name), name))
        missing = pc.or_kleene(pc.is_null(column), pc.fill_null(pc.is_in(column, self.tokens), False))
        mask = np.asarray(missing.to_numpy(zero_copy_only=False), bool)
        values = column.fill_null("").to_numpy(zero_copy_only=False).astype(object)
        values[mask] = ""
        return values, mask

    def number(self, name: str) -> tuple[npt.NDArray[np.float64], Mask]:
        """The column as float64 (NaN where missing), and where it is missing."""
        column = self.table.column(name)
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            mask = np.asarray(column.is_null().to_numpy(zero_copy_only=False), bool)
            values = column.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy(zero_copy_only=False).copy()
        else:
            text, mask = self.text(name)
            values = np.full(len(text), np.nan)
            filled = np.flatnonzero(~mask)
            try:
                values[filled] = text[filled].astype(np.float64)
            except ValueError:
                self.refuse(name, filled[[not _is_number(cell) for cell in text[filled]]], "must be a number")
        self.check(name, mask | np.isfinite(values), "must be a finite number")
        return values, mask

    def codes(self, name: str) -> tuple[npt.NDArray[np.object_], Mask]:
        """The column as codes ('' where missing), and where it is missing."""
        text, missing = self.text(name)
        return _normalised(text), missing

    def check(self, name: str, good: Mask, rule: str) -> None:
        if not good.all():
            self.refuse(name, np.flatnonzero(~good), rule)

    def refuse(self, name: str, rows: npt.NDArray[np.int64], rule: str) -> None:
        more = f" (and {len(rows) - 1} more rows)" if len(rows) > 1 else ""
        raise UsageError(
            f"{self.source}: row {self.first_row + rows[0] + 1}, column '{name}': {rule}{more}",
            "correct the export, or the contract if the rule is wrong; values are not shown on purpose",
        )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _number(cells: _Cells, column: NumberColumn) -> tuple[list[npt.NDArray[np.float64]], Mask]:
    values, missing = cells.number(column.name)
    missing = missing | np.isin(values, column.missing_codes)
    inside = (values >= column.minimum) & (values <= column.maximum) | np.isin(values, column.also_allowed)
    rule = f"must lie in {column.minimum:g} to {column.maximum:g} {column.unit}"
    cells.check(column.name, missing | inside, rule)
    if isinstance(column.missing, FixedValue):
        values = np.where(missing, column.missing.value, values)
    return [(values - column.center) / column.scale], missing


def _code(cells: _Cells, column: CodeColumn) -> tuple[list[npt.NDArray[np.float64]], Mask]:
    codes, missing = cells.codes(column.name)
    if isinstance(column.missing, FixedValue):
        codes = np.where(missing, _normalised(np.array([str(column.missing.value)], object)), codes)
        known = np.isin(codes, list(column.codes))
    else:
        known = missing | np.isin(codes, list(column.codes))
    cells.check(column.name, known, f"must be one of the codes {', '.join(column.codes)}")
    return [(codes == code).astype(np.float64) for code in column.codes if code != column.reference], missing


def _normalised(text: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
    """'1.0' and '1' are the same code: systems export coded columns as floats when one cell is missing."""
    distinct = {cell: _whole(cell) for cell in set(text.tolist())}
    return np.array([distinct[cell] for cell in text.tolist()], object)


def _whole(cell: str) -> str:
    return str(int(float(cell))) if _is_number(cell) and float(cell).is_integer() else cell


def _targets(cells: _Cells, contract: DataContract) -> tuple[npt.NDArray[np.float64], Mask]:
    label = contract.label
    if isinstance(label, ClassLabel):
        codes, missing = cells.codes(label.column)
        positive, negative = np.isin(codes, label.positive), np.isin(codes, label.negative)
        rule = f"must be one of the codes {', '.join((*label.negative, *label.positive))}"
        cells.check(label.column, missing | positive | negative, rule)
        return positive.astype(np.float64)[:, None], missing
    if isinstance(label, NumberLabel):
        values, missing = cells.number(label.column)
        missing = missing | np.isin(values, label.missing_codes)
        inside = (values >= label.minimum) & (values <= label.maximum)
        rule = f"must lie in {label.minimum:g} to {label.maximum:g} {label.unit}"
        cells.check(label.column, missing | inside, rule)
        return np.where(missing, 0.0, values)[:, None], missing
    if isinstance(label, FindingsLabel):
        stated = np.column_stack([_finding(cells, finding) for finding in label.findings])
        return stated, np.asarray((stated == UNKNOWN).all(axis=1), bool)
    if isinstance(label, MaskLabel):
        # The mask lies beside the picture; here is only whether the table names one.
        _, missing = cells.text(label.column)
        return np.zeros((len(missing), 1)), missing
    time, no_time = cells.number(label.time)
    event, no_event = cells.number(label.event)
    rule = f"must lie in 0 to {label.maximum_time:g} {label.unit}"
    cells.check(label.time, no_time | ((time >= 0) & (time <= label.maximum_time)), rule)
    cells.check(label.event, no_event | np.isin(event, (0.0, 1.0)), "must be 0 (censored) or 1 (event)")
    return np.column_stack([time, event]), no_time | no_event


def _finding(cells: _Cells, finding: Finding) -> npt.NDArray[np.float64]:
    """1 present, 0 absent, ``UNKNOWN`` where the cell states neither."""
    codes, missing = cells.codes(finding.column)
    unknown = missing | np.isin(codes, finding.unknown)
    positive, negative = np.isin(codes, finding.positive), np.isin(codes, finding.negative)
    rule = f"must be one of the codes {', '.join((*finding.negative, *finding.positive, *finding.unknown))}"
    cells.check(finding.column, unknown | positive | negative, rule)
    return np.where(unknown, UNKNOWN, positive.astype(np.float64))
