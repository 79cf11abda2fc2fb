"""Pictures, their labels and their header fields, as records under the plan's contract."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa

from wardround.client.connectors.table import Records, apply_contract
from wardround.client.imaging.masks import Masks, mask_of
from wardround.client.imaging.picture import LeftOut, Picture, Pictures
from wardround.client.imaging.prepare import Unfit, features_of
from wardround.protocol.contract import DataContract
from wardround.protocol.errors import UsageError
from wardround.protocol.labels import MaskLabel

AT_ONCE: Final = 32
"""Pictures whose features are held in memory together."""

NO_LABEL: Final = "picture without a label"
NO_PICTURE: Final = "label without a picture"

Labels = Mapping[str, Mapping[str, Any]]
"""For each picture's key, its row of the label table: cells by column."""


def picture_records(
    pictures: Pictures, labels: Labels, contract: DataContract, source: str, masks: Masks | None = None
) -> Iterator[Records]:
    """Records of ``pictures`` in their order, some at a time. What is left out is counted by reason in ``excluded``.

    ``masks`` reads the masks that the labels name, where the contract's label is a mask.

    Raises:
        UsageError: a label or a header field breaks the contract; rows are pictures, counted from 1.
    """
    assert contract.image is not None
    held: list[tuple[Picture, Any]] = []
    marks = _mask_names(labels, contract)
    left_out, seen, first = dict[str, int](), set[str](), 0

    def count(reason: str) -> None:
        left_out[reason] = left_out.get(reason, 0) + 1

    for found in pictures:
        if (found.place if isinstance(found, LeftOut) else found.key) in marks:
            continue  # a mask among the pictures is none of them
        if isinstance(found, LeftOut):
            count(found.reason)
            seen.add(found.place)
        elif found.key not in labels:
            count(NO_LABEL)
        else:
            seen.add(found.key)
            try:
                features = features_of(found, contract.image)
                if isinstance(contract.label, MaskLabel):
                    mask = _mask(found, labels, contract.label, masks)
                    if isinstance(mask, str):
                        count(mask)
                        continue
                    marked = mask_of(mask, found, contract.image, contract.label)
                    features = np.concatenate([features, marked])
                held.append((found, features))
            except Unfit as error:
                count(error.message)
        if len(held) == AT_ONCE:
            yield _records(held, labels, contract, source, first, {})
            first, held = first + len(held), []
    if missing := len(labels) - len(seen):
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
    image = np.stack(kept) if kept else _none(contract)
    features = image if not contract.columns and image.ndim > 2 else np.concatenate([image, found.features], axis=1)
    excluded = Counter(found.excluded) + Counter(left_out)
    return Records(features, found.targets, found.patients, found.rows, dict(excluded))


def _none(contract: DataContract) -> Any:
    assert contract.image is not None
    shape = contract.picture_shape
    return np.zeros((0, contract.image.bins)) if shape is None else np.zeros((0, *shape), np.float32)


def _mask_names(labels: Labels, contract: DataContract) -> set[str]:
    """The files that are masks, by the table of labels."""
    if not isinstance(contract.label, MaskLabel):
        return set()
    column = contract.label.column
    return {str(row[column]).strip().removeprefix("./") for row in labels.values() if row.get(column)} - labels.keys()


def _mask(picture: Picture, labels: Labels, label: MaskLabel, masks: Masks | None) -> Picture | str:
    """The picture's mask, or why there is none. A table that names none is a label that is missing."""
    name = labels[picture.key].get(label.column)
    if name is None or not str(name).strip():
        return "label missing"
    if masks is None:
        raise UsageError("this source has no masks", "a mask is a file beside the pictures: NIfTI or PNG")
    return masks(str(name).strip())


def _cell(name: str, picture: Picture, labels: Labels) -> str | None:
    """A cell of the label table, or else the header field of that name."""
    value = labels[picture.key].get(name, picture.numbers.get(name))
    return None if value is None else str(value)
