"""What the model of an imaging study is shown, as small pictures drawn by a program: never a patient's.

The phantoms are those of a rehearsal, made from the plan's contract alone and prepared as a hospital prepares its own
pictures. No picture of a cohort reaches this module: it is given a contract.
"""

import io
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from wardround.client.imaging.prepare import features_of
from wardround.protocol.contract import DataContract
from wardround.protocol.labels import ClassLabel, Finding, FindingsLabel
from wardround.simulations.rehearsal import SEED
from wardround.simulations.synthetic.contract_data import PICTURE, rehearsal_pictures, rehearsal_table

EACH: Final = 4
"""Pictures of each class."""

SIDE: Final = 128
"""Pixels; larger pictures are reduced, so that the page stays small."""

_SUBJECTS: Final = 60
"""Phantoms that are looked through; they are drawn one at a time."""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A PNG as a ``data:`` address, and what its made-up label says."""

    address: str
    caption: str


def thumbnails(contract: DataContract | None) -> list[Thumbnail]:
    """Four phantoms with the finding and four without, in this order; none for a contract without an image."""
    if contract is None or contract.image is None or not isinstance(contract.label, ClassLabel | FindingsLabel):
        return []
    label = contract.label if isinstance(contract.label, ClassLabel) else contract.label.findings[0]
    found: dict[bool, list[Thumbnail]] = {True: [], False: []}
    for pixels, positive in _phantoms(contract, label):
        if len(found[positive]) < EACH:
            found[positive].append(Thumbnail(_address(pixels), f"{label.meaning}: {'yes' if positive else 'no'}"))
        if min(map(len, found.values())) == EACH:
            break
    return [*found[True], *found[False]]


def _phantoms(contract: DataContract, label: ClassLabel | Finding) -> Iterator[tuple[Any, bool]]:
    assert contract.image is not None
    shown = contract.image.model_copy(update={"features": "pixels"})
    table = rehearsal_table(contract, "synthetic", _SUBJECTS, SEED)
    columns = (table.column(name).to_pylist() for name in (PICTURE, label.column))
    classes = dict(zip(*columns, strict=True))
    for picture in rehearsal_pictures(contract, "synthetic", _SUBJECTS, SEED):
        written = classes[picture.key]
        if written in label.positive or written in label.negative:
            yield features_of(picture, shown), written in label.positive


def _address(pixels: Any) -> str:
    from PIL import Image

    # Of a volume the slice in the middle.
    flat = pixels[:, pixels.shape[1] // 2] if pixels.ndim == 4 else pixels
    grey = np.round((np.clip(flat, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)
    picture = Image.fromarray(grey[0] if len(grey) == 1 else np.moveaxis(grey, 0, -1))
    picture.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return f"data:image/png;base64,{b64encode(out.getvalue()).decode()}"
