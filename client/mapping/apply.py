"""A batch of the site's own table, under the names, codes and units of a contract.

Pure. A value that no rule covers stops the study with column, row and rule, and is not shown: rules are the site's word
about its data, and a value that they do not know is a mistake in one of the two.
"""

from collections.abc import Callable, Iterable
from datetime import date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wardround.client.connectors.table import as_text
from wardround.client.connectors.units import SAME, conversion
from wardround.client.mapping.rules import ColumnRule, Mapping
from wardround.protocol.contract import DataContract, NumberColumn
from wardround.protocol.errors import UsageError
from wardround.protocol.labels import NumberLabel, SurvivalLabel


class _NotCovered(ValueError):
    """A value that the rule does not know."""


def local_columns(mapping: Mapping, names: Iterable[str]) -> list[str]:
    """The site's own columns that the contract's ``names`` need, each once."""
    found: dict[str, None] = {}
    for name in names:
        rule = mapping.columns.get(name)
        found |= dict.fromkeys([name] if rule is None else [rule.source, *([rule.years_to] if rule.years_to else [])])
    return list(found)


def mapped(
    batch: pa.RecordBatch, mapping: Mapping, contract: DataContract, source: str, first_row: int = 0
) -> pa.RecordBatch:
    """``batch`` with the contract's columns, as text; columns without a rule as they are.

    ``source`` and ``first_row`` are for errors, as in ``apply_contract``.

    Raises:
        UsageError: a column is missing, a unit does not fit, or a value is covered by no rule.
    """
    missing = [name for name in local_columns(mapping, contract.column_names) if name not in batch.schema.names]
    if missing:
        raise UsageError(
            f"{source}: no column named {', '.join(repr(name) for name in missing)}",
            "check 'from' in mapping.yaml, and the export",
        )
    columns = [mapped_column(name, batch, mapping, contract, source, first_row) for name in contract.column_names]
    return pa.RecordBatch.from_arrays(columns, list(contract.column_names))


def mapped_column(
    name: str, batch: pa.RecordBatch, mapping: Mapping, contract: DataContract, source: str, first_row: int = 0
) -> pa.Array:
    """The contract's column ``name``, as ``mapped`` makes it; its local columns must be there.

    Raises:
        UsageError: a unit does not fit, or a value is covered by no rule.
    """
    rule = mapping.columns.get(name)
    if rule is None:
        return batch.column(name)
    unit = _unit(name, contract)
    if rule.unit is not None and unit is None:
        raise UsageError(
            f"{source}: the rule for '{name}' names a unit, and the contract has none for it", "check mapping.yaml"
        )
    where = f"{source}: row {{row}}, column '{rule.source}'"
    return _column(batch, rule, unit, contract.missing_tokens, where, first_row)


def _unit(name: str, contract: DataContract) -> str | None:
    label = contract.label
    if isinstance(label, SurvivalLabel) and name == label.time:
        return label.unit
    if isinstance(label, NumberLabel) and name == label.column:
        return label.unit
    numbers = (column for column in contract.columns if isinstance(column, NumberColumn))
    return next((column.unit for column in numbers if column.name == name), None)


def _column(
    batch: pa.RecordBatch, rule: ColumnRule, unit: str | None, tokens: tuple[str, ...], where: str, first_row: int
) -> pa.Array:
    absent = {*tokens, *rule.missing}
    texts = _texts(batch, rule.source)
    if rule.years_to is not None:
        other = _texts(batch, rule.years_to)
        pairs = pc.binary_join_element_wise(texts, other, "\x00")
        return _each(pairs, lambda pair: _years(pair, rule, absent), where, first_row)
    if rule.codes is not None:
        return _each(texts, lambda cell: _code(cell, rule, absent), where, first_row)
    if rule.unit is None and rule.decimal == "." and not rule.thousands:
        return _each(texts, lambda cell: None if cell in absent else cell, where, first_row)
    by = conversion(rule.unit, unit, rule.molar_mass) if rule.unit and unit else SAME

    def number(cell: str) -> str | None:
        if cell in absent:
            return None
        return repr(_number(cell, rule) * by.factor + by.offset)

    return _each(texts, number, where, first_row)


def _texts(batch: pa.RecordBatch, name: str) -> pa.Array:
    return pc.utf8_trim_whitespace(as_text(batch.column(name), name))


def _each(texts: pa.Array, rule: Callable[[str], str | None], where: str, first_row: int) -> pa.Array:
    """``rule`` on every cell; once for each distinct one."""
    encoded = texts.dictionary_encode()
    found: list[str | None] = []
    for place, cell in enumerate(encoded.dictionary.to_pylist()):
        try:
            found.append(rule(cell))
        except _NotCovered as error:
            rows = np.flatnonzero(encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False) == place)
            more = f" (and {len(rows) - 1} more rows)" if len(rows) > 1 else ""
            raise UsageError(
                f"{where.format(row=first_row + rows[0] + 1)}: {error}{more}",
                "correct mapping.yaml or the export; values are not shown on purpose",
            ) from None
    return pa.array(found, pa.string()).take(encoded.indices)


def _code(cell: str, rule: ColumnRule, absent: set[str]) -> str | None:
    assert rule.codes is not None
    if cell in rule.codes:
        return rule.codes[cell]
    if cell in absent:
        return None
    raise _NotCovered("a value is none of the rule's codes")


def _number(cell: str, rule: ColumnRule) -> float:
    plain = cell.replace(rule.thousands, "") if rule.thousands else cell
    if rule.decimal == ",":
        if "." in plain:
            raise _NotCovered("a number has a point, and the rule says comma")
        plain = plain.replace(",", ".")
    try:
        return float(plain)
    except ValueError:
        raise _NotCovered("must be a number") from None


def _years(pair: str, rule: ColumnRule, absent: set[str]) -> str | None:
    """Whole years between the two dates of ``pair``, which a zero byte parts."""
    born, _, when = pair.partition("\x00")
    if born in absent or when in absent:
        return None
    first, last = _day(born, rule), _day(when, rule)
    years = last.year - first.year - ((last.month, last.day) < (first.month, first.day))
    if years < 0:
        raise _NotCovered("the birth is after the day at which the age is wanted")
    return str(years)


def _day(cell: str, rule: ColumnRule) -> date:
    try:
        if rule.date_format is None:
            return datetime.fromisoformat(cell).date()
        return datetime.strptime(cell, rule.date_format).date()
    except ValueError:
        raise _NotCovered(f"must be a date like {_like(rule)}") from None


def _like(rule: ColumnRule) -> Any:
    return rule.date_format or "2026-02-28"
