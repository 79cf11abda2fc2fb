"""Where a site's data comes from: one file per source, one line here."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from wardround.client.connectors.cohort import Cohort, make_cohort
from wardround.client.connectors.csv import read_csv
from wardround.client.connectors.parquet import read_parquet
from wardround.client.connectors.table import apply_contract
from wardround.protocol.canonical import LABEL_PATIENT
from wardround.protocol.contract import DataContract
from wardround.protocol.errors import UsageError, did_you_mean

__all__ = ["CONNECTORS", "Cohort", "cohort_from_table", "make_cohort", "read_table"]

CONNECTORS: Final[dict[str, Callable[..., pa.Table]]] = {
    "csv": read_csv,
    "parquet": read_parquet,
}


def read_table(connector: str, path: Path, options: Mapping[str, Any]) -> pa.Table:
    """The table behind ``path``. Raises UsageError for an unknown connector or option, and for unreadable files."""
    if connector not in CONNECTORS:
        raise UsageError(f"there is no connector '{connector}'", did_you_mean(connector, CONNECTORS))
    try:
        return CONNECTORS[connector](path, **options)
    except TypeError:
        raise UsageError(
            f"connector '{connector}' does not take the options {', '.join(options)}",
            "csv takes delimiter and names; parquet takes none",
        ) from None


def cohort_from_table(
    site: str, table: pa.Table, contract: DataContract, *, test_rows: np.ndarray | None, test_share: float
) -> Cohort:
    """The cohort in ``table``: checked by the contract, grouped by patient, divided once.

    ``test_rows`` gives the test records by row number (from 0, in the table before any exclusion). None: a patient is
    a test patient when the hash of its id (or row number) falls below ``test_share``: the same for every study.
    """
    records = apply_contract(table, contract, f"site '{site}'")
    if test_rows is None:
        test = np.array([_hashed(str(patient)) < test_share for patient in records.patients], bool)
    else:
        test = np.isin(records.rows, test_rows)
    return make_cohort(
        site,
        records.features,
        records.targets,
        test=test,
        patients=None if contract.patient_id is None else records.patients,
        excluded=records.excluded,
    )


def _hashed(patient: str) -> float:
    from hashlib import sha256

    return int.from_bytes(sha256(f"{LABEL_PATIENT}\x00{patient}".encode()).digest()[:8], "big") / 2.0**64
