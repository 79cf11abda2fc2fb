"""Pictures, their labels and their header fields, as records under the plan's contract."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa

from wardround.client.connectors.table import Records, apply_contract
from wardround.client.imaging.picture import LeftOut, Picture, Pictures
from wardround.client.imaging.prepare import Unfit, features_of
from wardround.protocol.contract import DataContract, ImageInput

AT_ONCE: Final = 32
"""Pictures whose features are held in memory together."""

NO_LABEL: Final = "picture without a label"
NO_PICTURE: Final = "label without a picture"

Labels = Mapping[str, Mapping[str, Any]]
"""For each picture's key, its row of the label table: cells by column."""


def picture_records(pictures: Pictures, labels: Labels, contract: DataContract, source: str) -> Iterator[Records]:
    """Records of ``pictures`` in their order, some at a time. What is left out is counted by reason in ``excluded``.

    Raises:
        UsageError: a label or a header field breaks the contract; rows are pictures, counted from 1.
    """
    assert contract.image is not None
    held: list[tuple[Picture, Any]] = []
    left_out, seen, first = dict[str, int](), set[str](), 0

    def count(reason: str) -> None:
        left_out[reason] = left_out.get(reason, 0) + 1

    for found in pictures:
        if isinstance(found, LeftOut):
            count(found.reason)
            seen.add(found.place)
        elif found.key not in labels:
            count(NO_LABEL)
        else:
            seen.add(found.key)
            try:
                held.append((found, features_of(found, contract.image)))
            except Unfit as error:
                count(error.message)
        if len(held) == AT_ONCE:
            yield _records(held, labels, contract, source, first, {})
            first, held = first + len(held), []
    if missing := len(labels.keys() - seen):
        left_out[NO_PICTURE] = missing
    yield _records(held, labels, contract, source, first, left_out)


def _records(
    held: list[tuple[Picture, Any]],
    labels: Labels,
    contract: DataContract,
    source: str,
    first: int,
    left_out: dict[str, int],
) -> Records:
    patient = contract.patient_id
    columns = {
        name: pa.array([_cell(name, picture, labels) for picture, _ in held], pa.string())
        for name in contract.column_names
        if name != patient
    }
    if patient is not None:
        columns[patient] = pa.array([picture.patient for picture, _ in held], pa.string())
    found = apply_contract(pa.table(columns), contract, source, first)
    kept = [held[row - first][1] for row in found.rows]
    image = np.stack(kept) if kept else _none(contract.image)
    features = image if not contract.columns and image.ndim > 2 else np.concatenate([image, found.features], axis=1)
    excluded = Counter(found.excluded) + Counter(left_out)
    return Records(features, found.targets, found.patients, found.rows, dict(excluded))


def _none(image: ImageInput | None) -> Any:
    assert image is not None
    return np.zeros((0, image.bins)) if image.features == "histogram" else np.zeros((0, *image.shape), np.float32)


def _cell(name: str, picture: Picture, labels: Labels) -> str | None:
    """A cell of the label table, or else the header field of that name."""
    value = labels[picture.key].get(name, picture.numbers.get(name))
    return None if value is None else str(value)
