"""The synthetic hospitals: who comes to each, which units its laboratory writes, which scanner it has.

Hospitals differ in their patients and machines (covariate shift) and never in the effect of a finding on the outcome,
so the coefficients in ``clinical`` hold at each of them and in all together.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import numpy as np

from wardround.protocol.errors import UsageError

NAMES: Final = ("north", "south", "east", "west", "hill", "lake", "river", "coast")
MOST_SITES: Final = 99


@dataclass(frozen=True, slots=True)
class Scanner:
    """What a scanner writes into headers and does to pixels.

    Args:
        noise: standard deviation of the noise before the kernel, in Hounsfield units.
        blur: standard deviation of the kernel, in mm.
        padding: stored value outside the scan circle; None: the scanner has no padding.
    """

    manufacturer: str
    model: str
    kernel: str
    noise: float
    blur: float
    padding: int | None = None


SCANNERS: Final = (
    Scanner("SIEMENS", "SOMATOM Definition", "B40f", noise=22.0, blur=1.6),
    Scanner("GE MEDICAL SYSTEMS", "LightSpeed VCT", "STANDARD", noise=26.0, blur=1.8, padding=-2000),
    Scanner("Philips", "Brilliance 64", "YB", noise=40.0, blur=1.1),
    Scanner("TOSHIBA", "Aquilion ONE", "FC13", noise=18.0, blur=2.4),
)


@dataclass(frozen=True, slots=True)
class Hospital:
    """One synthetic hospital.

    Args:
        name: also the name of its folder.
        number: from 0; every difference between hospitals follows from it.
        seed: public seed of the whole cohort.
    """

    name: str
    number: int
    seed: int

    @property
    def age_mean(self) -> float:
        """Mean age in years before clipping to 18 .. 100."""
        return (70.0, 64.0, 74.0, 58.0)[self.number % 4]

    @property
    def male_share(self) -> float:
        return (0.50, 0.62, 0.44, 0.55)[self.number % 4]

    @property
    def creatinine_median(self) -> float:
        """mg/dL."""
        return (1.05, 1.25, 0.95, 1.15)[self.number % 4]

    @property
    def diabetes_share(self) -> float:
        return (0.30, 0.45, 0.22, 0.35)[self.number % 4]

    @property
    def missing_share(self) -> float:
        """Share of patients without a laboratory value; each value is missing completely at random."""
        return (0.02, 0.10, 0.05, 0.0)[self.number % 4]

    @property
    def creatinine_unit(self) -> str:
        """UCUM code in event formats; tables hold the contract's mg/dL everywhere."""
        return ("mg/dL", "umol/L", "mg/dL", "umol/L")[self.number % 4]

    @property
    def hemoglobin_unit(self) -> str:
        """UCUM code in event formats; tables hold the contract's g/dL everywhere."""
        return ("g/dL", "g/dL", "g/L", "g/L")[self.number % 4]

    @property
    def scanner(self) -> Scanner:
        return SCANNERS[self.number % len(SCANNERS)]

    @property
    def code(self) -> str:
        """Two letters before every record number of this hospital, then two digits."""
        return f"{self.name[:2].upper()}{self.number:02d}"

    def random(self, part: str, block: int = 0) -> np.random.Generator:
        """A generator of its own for each part and block, so that no part depends on how much another one drew."""
        text = f"wardround synthetic/{self.seed}/{self.name}/{part}/{block}"
        return np.random.default_rng(int.from_bytes(sha256(text.encode()).digest()[:16], "big"))


def hospitals(sites: int, seed: int) -> tuple[Hospital, ...]:
    """The first ``sites`` hospitals; the same for the same seed. Raises UsageError outside 1 .. 99."""
    if not 1 <= sites <= MOST_SITES:
        raise UsageError(f"{sites} sites cannot be made", f"write a number from 1 to {MOST_SITES}")
    names = [*NAMES, *(f"site{number + 1:02d}" for number in range(len(NAMES), MOST_SITES))]
    return tuple(Hospital(names[number], number, seed) for number in range(sites))
