"""Labels made from a plan's contract alone: each kind of label, with its edges, for ``contract_data``.

Cells are text, as a CSV file gives them.
"""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from wardround.protocol.contract import DataContract
from wardround.protocol.labels import ClassLabel, FindingsLabel, MaskLabel, NumberLabel

Random: TypeAlias = np.random.Generator
Cells: TypeAlias = list[str | None]


def picture_key(row: int) -> str:
    """What a row's picture is called, and its mask."""
    return f"picture-{row + 1:06d}"


def label_edges(contract: DataContract, one_class: bool) -> dict[str, Cells]:
    """The first cells of each of the label's columns: every code, or the ends of a range."""
    label = contract.label
    match label:
        case ClassLabel():
            return {label.column: [*label.negative, *(() if one_class else label.positive)]}
        case FindingsLabel():
            return {
                finding.column: [*finding.negative, *finding.unknown, *(() if one_class else finding.positive)]
                for finding in label.findings
            }
        case NumberLabel():
            return {label.column: [written_number(label.minimum), written_number(label.maximum)]}
        case MaskLabel():
            return {label.column: []}
    events: Cells = ["0", "0"] if one_class else ["0", "1"]
    return {label.time: ["0", written_number(label.maximum_time)], label.event: events}


def label_cells(
    contract: DataContract,
    random: Random,
    positive: npt.NDArray[np.bool_],
    score: npt.NDArray[np.float64],
    edges: dict[str, Cells],
    one_class: bool,
) -> tuple[dict[str, Cells], npt.NDArray[np.bool_]]:
    """Every cell of the label's columns, and who is positive: has the class, the first finding, the event.

    ``positive`` is drawn from ``score``, each row's sum of feature effects.
    """
    label = contract.label
    positive = positive & (not one_class)
    if isinstance(label, ClassLabel):
        known = len(edges[label.column])
        positive[:known] = [cell in label.positive for cell in edges[label.column]]
        codes = (label.negative, label.positive)
        cells: Cells = [codes[int(yes)][row % len(codes[int(yes)])] for row, yes in enumerate(positive)]
        cells[:known] = edges[label.column]
        return {label.column: cells}, positive
    if isinstance(label, FindingsLabel):
        return _findings(label, random, positive, edges)
    if isinstance(label, NumberLabel):
        return _quantity(label, random, score, edges)
    if isinstance(label, MaskLabel):
        return {label.column: [picture_key(row) for row in range(len(score))]}, positive
    rate = np.exp(0.5 * score) * np.log(2) / (0.6 * label.maximum_time)
    death = random.exponential(1.0, len(score)) / rate
    censored = random.uniform(0.2, 1.0, len(score)) * label.maximum_time
    event = (death <= censored) & (not one_class)
    times: Cells = [written_number(float(f"{value:.6g}")) for value in np.where(event, death, censored)]
    events: Cells = [str(int(yes)) for yes in event]
    for name, written in ((label.time, times), (label.event, events)):
        written[: len(edges[name])] = edges[name]
    return {label.time: times, label.event: events}, np.array([cell == "1" for cell in events])


def _findings(
    label: FindingsLabel, random: Random, positive: npt.NDArray[np.bool_], edges: dict[str, Cells]
) -> tuple[dict[str, Cells], npt.NDArray[np.bool_]]:
    """The first finding follows the picture or the features; each other one agrees with it in three records of four."""
    cells: dict[str, Cells] = {}
    for place, finding in enumerate(label.findings):
        agrees = random.random(len(positive)) < (1.0 if place == 0 else 0.75)
        here = np.where(agrees, positive, ~positive) if positive.any() else positive
        codes = (finding.negative, finding.positive)
        written: Cells = [codes[int(yes)][row % len(codes[int(yes)])] for row, yes in enumerate(here)]
        written[: len(edges[finding.column])] = edges[finding.column]
        if place == 0:
            positive = np.array([cell in finding.positive for cell in written])
        cells[finding.column] = written
    return cells, positive


def _quantity(
    label: NumberLabel, random: Random, score: npt.NDArray[np.float64], edges: dict[str, Cells]
) -> tuple[dict[str, Cells], npt.NDArray[np.bool_]]:
    """A quantity that rises with the features, inside the label's range; its codes for missing are the last cells."""
    middle, spread = (label.minimum + label.maximum) / 2, (label.maximum - label.minimum) / 8
    values = np.clip(random.normal(middle + spread * score, spread), label.minimum, label.maximum)
    written: Cells = [written_number(float(f"{value:.6g}")) for value in values]
    written[: len(edges[label.column])] = edges[label.column]
    for place, code in enumerate(label.missing_codes):
        written[-1 - place] = written_number(code)
    return {label.column: written}, values > middle


def written_number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
