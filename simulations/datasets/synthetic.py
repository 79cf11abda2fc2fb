"""A study that nobody is in: four hospitals' tables of a made-up illness, always the same ones.

For trying things out where no table is at hand: notebooks, tests, a first sweep. The outcome follows a logistic model
of the columns; each hospital has its own intercept and its own mix of ages, so hospitals differ a little.
"""

from typing import Final

import numpy as np
import pyarrow as pa

from wardround.protocol.errors import UsageError
from wardround.simulations.datasets.source import Dataset, SiteTable

SYNTHETIC_ATTRIBUTION: Final = "Synthetic patients: no person is behind any row."

_HOSPITALS: Final = {
    "north": (320, 0.3, 4.0),
    "south": (240, -0.2, -3.0),
    "east": (180, 0.1, 0.0),
    "west": (140, -0.4, 6.0),
}
"""Patients, intercept, and years that ages are moved by."""

_SEED: Final = 20260
_TEST_SHARE: Final = 0.3


def synthetic(split: str) -> Dataset:
    """The four hospitals. Raises UsageError for a split that is not 'complete'."""
    if split != "complete":
        raise UsageError(f"the synthetic data has no split '{split}'", "there is one: data.split=complete")
    generator = np.random.Generator(np.random.PCG64(_SEED))
    sites = [_table(name, *figures, generator) for name, figures in _HOSPITALS.items()]
    return Dataset(tuple(sites), SYNTHETIC_ATTRIBUTION)


def _table(name: str, patients: int, intercept: float, years: float, generator: np.random.Generator) -> SiteTable:
    age = np.clip(generator.normal(62 + years, 13, patients), 18, 100).round()
    female = generator.random(patients) < 0.45
    pressure = np.clip(generator.normal(128, 20, patients), 70, 230).round()
    rate = np.clip(generator.normal(84, 16, patients), 40, 180).round()
    lactate = np.clip(generator.lognormal(0.5, 0.5, patients), 0.3, 15).round(1)
    creatinine = np.clip(generator.lognormal(0.0, 0.4, patients), 0.3, 10).round(2)
    logit = (
        intercept
        + 0.9 * (age - 62) / 13
        - 0.5 * (pressure - 128) / 20
        + 0.6 * (rate - 84) / 16
        + 0.9 * (lactate - 1.8)
        + 0.7 * (creatinine - 1.1)
        - 0.3 * female
    )
    ill = generator.random(patients) < 1 / (1 + np.exp(-logit))
    columns = {
        "patient": [f"{name}-{number + 1:03d}" for number in range(patients)],
        "age": [f"{value:g}" for value in age],
        "sex": ["f" if value else "m" for value in female],
        "pressure": [f"{value:g}" for value in pressure],
        "rate": [f"{value:g}" for value in rate],
        "lactate": [f"{value:g}" for value in lactate],
        "creatinine": [f"{value:g}" for value in creatinine],
        "worse": ["1" if value else "0" for value in ill],
    }
    tests = generator.permutation(patients)[: round(_TEST_SHARE * patients)]
    return SiteTable(name, pa.table({key: pa.array(cells, pa.string()) for key, cells in columns.items()}), tests)
