"""Invented names, numbers and addresses, for fields that identify a person in real records.

Family names are made of syllables, so that each is a word that stands nowhere else: a search for one in the bytes of
a file finds a leak and nothing by chance. Telephone numbers are of the range 555-01xx, which is assigned to nobody.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np

_FIRST: Final = ("Brankov", "Ostrel", "Quendal", "Tavish", "Zorbin", "Ylvar", "Kestrow", "Mirand", "Fenwor", "Halvok")
_LAST: Final = ("inski", "eberg", "ossen", "atura", "oyemi", "aldine", "ickers", "ouvel", "areddy", "imoto")
_GIVEN: Final = {
    "F": ("Adaeze", "Birgit", "Chiyoko", "Dagmar", "Esperanza", "Farideh", "Guadalupe", "Henrike"),
    "M": ("Aurelio", "Bohumil", "Casimir", "Dragomir", "Emeka", "Florent", "Gwydion", "Hiroshi"),
}
_STREETS: Final = ("Millrace Lane", "Quarry Steps", "Tollgate Road", "Saltpan Street", "Orchard Rise")


@dataclass(frozen=True, slots=True)
class Person:
    """Everything here is invented. ``national_id`` begins with 9, which no social security number does."""

    family: str
    given: str
    sex: str
    birth: date
    address: str
    telephone: str
    national_id: str


_DRAWS: Final = (len(_FIRST), len(_LAST), 8, len(_STREETS), 900, 100, 9000, 100, 99, 10000)


def people(random: np.random.Generator, sexes: Sequence[str], births: Sequence[date], town: str) -> list[Person]:
    """One person for each sex (F or M) and date of birth."""
    draws = random.integers(0, _DRAWS, size=(len(sexes), len(_DRAWS))).tolist()
    return [
        Person(
            family=_FIRST[first] + _LAST[last],
            given=_GIVEN[sex][given],
            sex=sex,
            birth=birth,
            address=f"{house + 1} {_STREETS[street]}, {town.title()}",
            telephone=f"+1-555-01{line:02d}-{extension + 1000}",
            national_id=f"9{one:02d}-{two + 1:02d}-{three:04d}",
        )
        for sex, birth, (first, last, given, street, house, line, extension, one, two, three) in zip(
            sexes, births, draws, strict=True
        )
    ]
