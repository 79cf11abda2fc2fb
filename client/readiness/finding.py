"""One thing that a check found."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """What a finding means for the study."""

    STOPS = "stops"
    LOOK = "look"
    FINE = "fine"


@dataclass(frozen=True, slots=True)
class Finding:
    """A sentence for the people of the site; it holds counts and the contract's names, and no value of a patient.

    Args:
        code: what was found, one of a fixed list for each check.
        column: the contract's column that it is about; '' for the whole.
        count: how many records or patients; None where it is not about a number of them.
        cure: what to do; '' where there is nothing to do.
    """

    code: str
    severity: Severity
    sentence: str
    cure: str = ""
    column: str = ""
    count: int | None = None
