"""Who is in the pictures: invented people with a label, each with one to three pictures.

Everything about a subject comes from a generator of its own, so subjects are made one at a time, in any number.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final, Literal, TypeAlias

import numpy as np

from wardround.protocol.contract import DataContract, ImageInput
from wardround.protocol.labels import ClassLabel
from wardround.simulations.synthetic.hospitals import Hospital
from wardround.simulations.synthetic.patients import patient_id
from wardround.simulations.synthetic.people import Person, people

PictureKind: TypeAlias = Literal["ct", "ct-series", "xray", "mri"]
LABELS: Final[dict[str, str]] = {"ct": "contrast", "ct-series": "contrast", "xray": "opacity", "mri": "lesion"}
"""The column with the label, 1 or 0."""

POSITIVE_SHARE: Final = (0.50, 0.35, 0.60, 0.50)
"""By hospital: label shift."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One subject. ``random`` has been used for the person; anatomy and noise are drawn from it next, in order."""

    id: str
    number: int
    person: Person
    age: int
    positive: bool
    pictures: int
    examined: date
    random: np.random.Generator


def subjects(hospital: Hospital, kind: PictureKind, count: int) -> Iterator[Subject]:
    """The hospital's first ``count`` subjects."""
    for number in range(count):
        random = hospital.random(kind, number)
        examined = date(2016, 1, 1) + timedelta(int(random.integers(0, 2000)))
        age = int(np.clip(random.normal(hospital.age_mean - 6, 11), 18, 89))
        born = examined - timedelta(int(age * 365.25) + int(random.integers(30, 330)))
        sex = "M" if random.random() < hospital.male_share else "F"
        yield Subject(
            id=patient_id(hospital, number),
            number=number,
            person=people(random, [sex], [born], hospital.name)[0],
            age=age,
            positive=bool(random.random() < POSITIVE_SHARE[hospital.number % 4]),
            pictures=1 if kind in ("mri", "ct-series") else int(random.integers(1, 4)),
            examined=examined,
            random=random,
        )


def picture_contract(kind: str) -> DataContract:
    """A contract for the pictures of a kind: CT slices as a histogram of soft tissue, the others as pixels."""
    images = {
        "ct": ImageInput(modality="CT", size=(64, 64), window=(-160, 240), features="histogram", bins=40),
        "ct-series": ImageInput(modality="CT", size=(16, 64, 64), window=(-160, 240), orientation="LPS"),
        "xray": ImageInput(modality="DX", size=(64, 64), window=(0, 4095)),
        "mri": ImageInput(modality="MR", size=(24, 64, 64), window=(0, 800), orientation="LPS"),
    }
    meanings = {"contrast": "Contrast agent given", "opacity": "Opacity of a lung", "lesion": "Lesion of the brain"}
    label = ClassLabel(column=LABELS[kind], meaning=meanings[LABELS[kind]], positive=("1",), negative=("0",))
    return DataContract(image=images[kind], label=label, patient_id="patient")
