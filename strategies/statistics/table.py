"""A site's rows as the contract names them: numbers in their units, codes as places in the contract's list.

The features of training are scaled numbers and 0/1 columns; this is the way back. It adds nothing and looks nothing up
in the data: which codes there are, and in which order, is the contract's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from wardround.privacy.gradients import Array, Examples, Indices
from wardround.protocol.contract import CodeColumn, DataContract
from wardround.protocol.labels import ClassLabel, FindingsLabel, NumberLabel, SurvivalLabel
from wardround.protocol.statistics import STATED, code_columns

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of patients. ``patient[i]`` is the patient of row i; the ``repr`` shows none of it.

    Shapes: every column (rows,). A code is its place in ``code_columns(contract)``. ``scores`` are what
    evaluated models predict, by the query's name, and ``overlaps`` what they mark, (rows, structures, 3): the voxels
    that are in prediction and reference alike, in the prediction, and in the reference.
    """

    numbers: Mapping[str, Array] = field(repr=False)
    codes: Mapping[str, Indices] = field(repr=False)
    patient: Indices = field(repr=False)
    code_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    scores: Mapping[str, Array] = field(default_factory=dict, repr=False)
    overlaps: Mapping[str, Array] = field(default_factory=dict, repr=False)

    @property
    def rows(self) -> int:
        return len(self.patient)

    def only(self, chosen: Mask) -> "Table":
        """The rows that are chosen, shape (rows,)."""
        if chosen.all():
            return self
        return Table(
            {name: values[chosen] for name, values in self.numbers.items()},
            {name: values[chosen] for name, values in self.codes.items()},
            self.patient[chosen],
            self.code_names,
            {name: values[chosen] for name, values in self.scores.items()},
            {name: values[chosen] for name, values in self.overlaps.items()},
        )


def table_of(contract: DataContract, patients: Examples) -> Table:
    """The rows of ``patients``, whose features were made by ``contract``; of pixels, which no column is made of."""
    features = np.asarray(patients.features, np.float64) if contract.columns else np.zeros((len(patients.patient), 0))
    numbers: dict[str, Array] = {}
    codes: dict[str, Indices] = {}
    first = 0
    for column in contract.columns:
        width = len(column.feature_names)
        made = features[:, first : first + width]
        first += width
        if isinstance(column, CodeColumn):
            codes[column.name] = _places(column, made)
        else:
            numbers[column.name] = made[:, 0] * column.scale + column.center
    label, targets = contract.label, patients.targets
    if isinstance(label, ClassLabel):
        codes[label.column] = targets[:, 0].astype(np.int64)
    elif isinstance(label, NumberLabel):
        numbers[label.column] = targets[:, 0]
    elif isinstance(label, SurvivalLabel):
        numbers[label.time], codes[label.event] = targets[:, 0], targets[:, 1].astype(np.int64)
    elif isinstance(label, FindingsLabel):
        unknown = len(STATED) - 1
        stated = np.where(targets < 0, unknown, targets).astype(np.int64)
        codes |= {finding.column: stated[:, place] for place, finding in enumerate(label.findings)}
    return Table(numbers, codes, patients.patient, code_columns(contract))


def _places(column: CodeColumn, features: Array) -> Indices:
    """Of each row the place of its code; a row of zeros has the reference."""
    shown = [place for place, code in enumerate(column.codes) if code != column.reference]
    found = np.full(len(features), next((p for p, code in enumerate(column.codes) if code == column.reference), 0))
    for number, place in enumerate(shown):
        found[features[:, number] > 0.5] = place
    return found.astype(np.int64)
