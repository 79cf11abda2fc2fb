"""Pictures, their labels and their header fields, as records under the plan's contract."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wardround.client.connectors.table import Records, apply_contract
from wardround.client.imaging.masks import Masks, mask_of
from wardround.client.imaging.picture import LeftOut, Picture
from wardround.client.imaging.prepare import Unfit, features_of
from wardround.client.store.members import HashedId
from wardround.protocol.contract import DataContract
from wardround.protocol.errors import UsageError
from wardround.protocol.labels import MaskLabel

AT_ONCE: Final = 32
"""Pictures whose features are held in memory together."""

NO_LABEL: Final = "picture without a label"
NO_PICTURE: Final = "label without a picture"

Labels = Mapping[str, Mapping[str, Any]]
"""For each picture's key, its row of the label table: cells by column."""


@dataclass(frozen=True, slots=True)
class Finished:
    """What a picture became. ``features`` is None where it became nothing: ``unfit`` says why, '' if nobody asked."""

    patient: str = field(repr=False)
    key: str = field(repr=False)
    numbers: Mapping[str, float] = field(repr=False)
    features: npt.NDArray[Any] | None = field(repr=False)
    unfit: str = ""


def finished(picture: Picture, contract: DataContract, mask: Picture | str | None = None) -> Finished:
    """The picture as the contract wants it, its mask behind its channels; nothing of its pixels is left.

    ``mask``: where the contract's label is one; a ``str`` says why there is none.
    """
    assert contract.image is not None
    about = (picture.patient, picture.key, picture.numbers)
    if isinstance(mask, str):
        return Finished(*about, None, mask)
    try:
        features = features_of(picture, contract.image)
        if mask is not None and isinstance(contract.label, MaskLabel):
            features = np.concatenate([features, mask_of(mask, picture, contract.image, contract.label)])
        return Finished(*about, features)
    except Unfit as error:
        return Finished(*about, None, error.message)


def picture_records(
    pictures: Iterable[Picture | Finished | LeftOut],
    labels: Labels,
    contract: DataContract,
    source: str,
    masks: Masks | None = None,
) -> Iterator[Records]:
    """Records of ``pictures`` in their order, some at a time. What is left out is counted by reason in ``excluded``.

    ``masks`` reads the masks that the labels name, where the contract's label is a mask.

    Raises:
        UsageError: a label or a header field breaks the contract; rows are pictures, counted from 1.
    """
    assert contract.image is not None
    held: list[Finished] = []
    marks = _mask_names(labels, contract)
    left_out, seen, first = Counter[str](), set[str](), 0
    for found in pictures:
        if (found.place if isinstance(found, LeftOut) else found.key) in marks:
            continue  # a mask among the pictures is none of them
        if isinstance(found, LeftOut):
            left_out[found.reason] += 1
            seen.add(found.place)
        elif found.key not in labels:
            left_out[NO_LABEL] += 1
        else:
            seen.add(found.key)
            made = (
                found
                if isinstance(found, Finished)
                else finished(found, contract, mask_for(found, labels, contract, masks))
            )
            if made.features is None:
                left_out[made.unfit] += 1
            else:
                held.append(made)
        if len(held) == AT_ONCE:
            yield _records(held, labels, contract, source, first, {})
            first, held = first + len(held), []
    if missing := len(labels.keys() - seen):
        left_out[NO_PICTURE] = missing
    yield _records(held, labels, contract, source, first, left_out)


def _records(
    held: list[Finished], labels: Labels, contract: DataContract, source: str, first: int, left_out: Mapping[str, int]
) -> Records:
    patient = contract.patient_id
    columns = {
        name: pa.array([_cell(name, picture, labels) for picture in held], pa.string())
        for name in contract.column_names
        if name != patient
    }
    if patient is not None:
        columns[patient] = pa.array([picture.patient for picture in held], pa.string())
    found = apply_contract(pa.table(columns), contract, source, first)
    kept = [held[row - first].features for row in found.rows]
    image = np.stack([each for each in kept if each is not None]) if kept else _none(contract)
    features = image if not contract.columns and image.ndim > 2 else np.concatenate([image, found.features], axis=1)
    patients = found.patients
    if any(isinstance(picture.patient, HashedId) for picture in held):
        # A table of text forgets that an id is hashed.
        patients = np.array([held[row - first].patient for row in found.rows], object)
    excluded = Counter(found.excluded) + Counter(left_out)
    return Records(features, found.targets, patients, found.rows, dict(excluded))


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


def mask_for(picture: Picture, labels: Labels, contract: DataContract, masks: Masks | None) -> Picture | str | None:
    """The picture's mask, or why there is none; None: the label is no mask. A table that names none lacks a label."""
    if not isinstance(contract.label, MaskLabel):
        return None
    name = labels[picture.key].get(contract.label.column)
    if name is None or not str(name).strip():
        return "label missing"
    if masks is None:
        raise UsageError("this source has no masks", "a mask is a file beside the pictures: NIfTI or PNG")
    return masks(str(name).strip())


def _cell(name: str, picture: Finished, labels: Labels) -> str | None:
    """A cell of the label table, or else the header field of that name."""
    value = labels[picture.key].get(name, picture.numbers.get(name))
    return None if value is None else str(value)
