"""Pictures, their labels and their header fields, as records under the plan's contract."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wardround.client.connectors.table import Records, apply_contract
from wardround.client.imaging.picture import LeftOut, Picture
from wardround.client.imaging.prepare import Unfit, features_of
from wardround.client.store.members import HashedId
from wardround.protocol.contract import DataContract, ImageInput

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


def finished(picture: Picture, image: ImageInput) -> Finished:
    """The picture as the contract wants it; nothing of its pixels is left."""
    try:
        return Finished(picture.patient, picture.key, picture.numbers, features_of(picture, image))
    except Unfit as error:
        return Finished(picture.patient, picture.key, picture.numbers, None, error.message)


def picture_records(
    pictures: Iterable[Picture | Finished | LeftOut], labels: Labels, contract: DataContract, source: str
) -> Iterator[Records]:
    """Records of ``pictures`` in their order, some at a time. What is left out is counted by reason in ``excluded``.

    Raises:
        UsageError: a label or a header field breaks the contract; rows are pictures, counted from 1.
    """
    assert contract.image is not None
    held: list[Finished] = []
    left_out, seen, first = Counter[str](), set[str](), 0
    for found in pictures:
        if isinstance(found, LeftOut):
            left_out[found.reason] += 1
            seen.add(found.place)
        elif found.key not in labels:
            left_out[NO_LABEL] += 1
        else:
            seen.add(found.key)
            made = found if isinstance(found, Finished) else finished(found, contract.image)
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
    image = np.stack([each for each in kept if each is not None]) if kept else _none(contract.image)
    features = image if not contract.columns and image.ndim > 2 else np.concatenate([image, found.features], axis=1)
    patients = found.patients
    if any(isinstance(picture.patient, HashedId) for picture in held):
        # A table of text forgets that an id is hashed.
        patients = np.array([held[row - first].patient for row in found.rows], object)
    excluded = Counter(found.excluded) + Counter(left_out)
    return Records(features, found.targets, patients, found.rows, dict(excluded))


def _none(image: ImageInput | None) -> Any:
    assert image is not None
    return np.zeros((0, image.bins)) if image.features == "histogram" else np.zeros((0, *image.shape), np.float32)


def _cell(name: str, picture: Finished, labels: Labels) -> str | None:
    """A cell of the label table, or else the header field of that name."""
    value = labels[picture.key].get(name, picture.numbers.get(name))
    return None if value is None else str(value)
