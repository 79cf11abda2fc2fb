"""One way for all tests to make a cohort and to have the generator's own table beside it."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from wardround.simulations.synthetic.cohort import make_cohort
from wardround.simulations.synthetic.hospitals import hospitals
from wardround.simulations.synthetic.patients import batches

SEED = 11


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a cohort, made once for each format and kind."""
    done: dict[tuple[object, ...], Path] = {}

    def make(format: str, kind: str | None = None, sites: int = 4, patients: int = 60) -> Path:
        key = (format, kind, sites, patients)
        if key not in done:
            done[key] = tmp_path_factory.mktemp("cohort") / "hospitals"
            make_cohort(done[key], format=format, kind=kind, sites=sites, patients=patients, seed=SEED)
        return done[key]

    return make


@pytest.fixture(scope="session")
def truth() -> Callable[[int, int], pd.DataFrame]:
    """The generator's table of hospital ``number``, a row a patient, with the patient as index."""

    def table(number: int, patients: int) -> pd.DataFrame:
        hospital = hospitals(number + 1, SEED)[number]
        return pa.Table.from_batches(batches(hospital, patients)).to_pandas().set_index("patient")

    return table
