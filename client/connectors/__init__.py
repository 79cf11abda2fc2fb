"""Where a site's data comes from: one file per source, one line here.

A table source yields Arrow batches, an image source what its pictures lie in; both one after the other, so that a
hospital's whole archive never has to fit into memory. Options come from ``site.yaml`` and are checked against the
reader's own.
"""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as pa

from wardround.client.connectors.cohort import Cohort, make_cohort
from wardround.client.connectors.csv import read_csv
from wardround.client.connectors.dicom import patients_in_dicom, read_dicom
from wardround.client.connectors.dicomweb import patients_in_archive, read_dicomweb
from wardround.client.connectors.events import Tally
from wardround.client.connectors.excel import read_excel
from wardround.client.connectors.fhir import read_fhir
from wardround.client.connectors.hl7v2 import read_hl7v2
from wardround.client.connectors.nifti import patients_in_nifti, read_nifti
from wardround.client.connectors.omop import read_omop
from wardround.client.connectors.parquet import read_parquet
from wardround.client.connectors.png import patients_in_png, read_png
from wardround.client.connectors.sql import read_sql
from wardround.client.connectors.table import apply_contract
from wardround.client.imaging.picture import Listed, Pictures, each_once
from wardround.protocol.canonical import LABEL_PATIENT
from wardround.protocol.contract import DataContract, ImageInput
from wardround.protocol.errors import UsageError, did_you_mean

__all__ = [
    "CONNECTORS",
    "IMAGE_CONNECTORS",
    "Cohort",
    "cohort_from_table",
    "list_pictures",
    "make_cohort",
    "patient_tests",
    "picture_patients",
    "read_batches",
    "read_pictures",
    "read_table",
]

CONNECTORS: Final[dict[str, Callable[..., Iterator[pa.RecordBatch]]]] = {
    "csv": read_csv,
    "excel": read_excel,
    "fhir": read_fhir,
    "hl7v2": read_hl7v2,
    "omop": read_omop,
    "parquet": read_parquet,
    "sql": read_sql,
}

IMAGE_CONNECTORS: Final[dict[str, Callable[..., Iterator[Listed]]]] = {
    "dicom": read_dicom,
    "dicomweb": read_dicomweb,
    "nifti": read_nifti,
    "png": read_png,
}

IMAGE_PATIENTS: Final[dict[str, Callable[..., Iterator[str]]]] = {
    "dicom": patients_in_dicom,
    "dicomweb": patients_in_archive,
    "nifti": patients_in_nifti,
    "png": patients_in_png,
}
"""Whose pictures a source holds, without decoding one; each takes the options of its reader."""

_Yields = TypeVar("_Yields")

ANY_IMAGE: Final = ImageInput(modality="OT", size=(8, 8), window=(0.0, 1.0))
"""What a source is asked for where only its patients count."""

_GIVEN: Final = ("path", "image", "columns", "tally", "describe")
"""What the caller gives a reader; the rest of its parameters are options of a site."""


def read_batches(
    connector: str,
    path: Path,
    options: Mapping[str, Any],
    columns: Collection[str] | None = None,
    tally: Tally | None = None,
) -> Iterator[pa.RecordBatch]:
    """The table behind ``path`` in batches, with at least ``columns`` of it (None: all).

    ``tally`` counts what a reader of events leaves out; it is whole when all batches are taken.

    Raises:
        UsageError: an unknown connector or option, or a file that cannot be read; some when the batches are taken.
    """
    reader = _reader(CONNECTORS, connector, options)
    counted = {"tally": tally} if tally is not None and "tally" in inspect.signature(reader).parameters else {}
    return _named_once(reader(path, columns=columns, **counted, **options), columns, path.name)


def _named_once(
    batches: Iterator[pa.RecordBatch], columns: Collection[str] | None, source: str
) -> Iterator[pa.RecordBatch]:
    """``batches``; which of two columns of one name is meant nobody can tell, so none of ``columns`` may be two."""
    for batch in batches:
        names = [name for name in batch.schema.names if columns is None or name in columns]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UsageError(f"'{source}' has two columns {twice!r}", "rename one of them in the export")
        yield batch


def read_table(
    connector: str, path: Path, options: Mapping[str, Any], columns: Collection[str] | None = None
) -> pa.Table:
    """``read_batches`` in one table. Raises UsageError as it does, and for a source without a batch."""
    batches = list(read_batches(connector, path, options, columns))
    if not batches:
        raise UsageError(f"'{path.name}' holds no table", "check 'connector' and 'path' of this site")
    return pa.Table.from_batches(batches)


def read_pictures(
    connector: str, path: Path, image: ImageInput, options: Mapping[str, Any], describe: bool = False
) -> Pictures:
    """The pictures behind ``path``, one at a time; ``describe``: with what they say of the machine, where there is any.

    Raises UsageError for an unknown connector or option.
    """
    return each_once(each.load() for each in list_pictures(connector, path, image, options, describe))


def list_pictures(
    connector: str, path: Path, image: ImageInput, options: Mapping[str, Any], describe: bool = False
) -> Iterator[Listed]:
    """What lies behind ``path``, in a stable order, before anything of it is opened; as ``read_pictures``."""
    reader = _reader(IMAGE_CONNECTORS, connector, options)
    asked = {"describe": True} if describe and "describe" in inspect.signature(reader).parameters else {}
    return reader(path, image, **asked, **options)


def picture_patients(connector: str, path: Path, options: Mapping[str, Any]) -> Iterator[str]:
    """The patients of an image source, some more than once; '' for a picture of nobody.

    Raises UsageError and Unavailable as ``read_pictures`` does.
    """
    read_pictures(connector, path, ANY_IMAGE, options)
    return IMAGE_PATIENTS[connector](path, **options)


def _reader(
    registry: Mapping[str, Callable[..., _Yields]], connector: str, options: Mapping[str, Any]
) -> Callable[..., _Yields]:
    if connector not in registry:
        raise UsageError(f"there is no connector '{connector}'", did_you_mean(connector, registry))
    known = [name for name in inspect.signature(registry[connector]).parameters if name not in _GIVEN]
    for name in options:
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise UsageError(f"connector '{connector}' has no option '{name}'", takes)
    return registry[connector]


def cohort_from_table(
    site: str, table: pa.Table, contract: DataContract, *, test_rows: np.ndarray | None, test_share: float
) -> Cohort:
    """The cohort in ``table``: checked by the contract, grouped by patient, divided once.

    ``test_rows`` gives the test records by row number (from 0, in the table before any exclusion). None: a patient is
    a test patient when the hash of its id (or row number) falls below ``test_share``: the same for every study.
    """
    records = apply_contract(table, contract, f"site '{site}'")
    if test_rows is None:
        test = np.array([patient_tests(str(patient), test_share) for patient in records.patients], bool)
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


def patient_tests(patient: str, test_share: float) -> bool:
    """Whether a patient of a simulated site tests: by a public hash of the id, the same for every study."""
    hashed = sha256(f"{LABEL_PATIENT}\x00{patient}".encode()).digest()[:8]
    return int.from_bytes(hashed, "big") / 2.0**64 < test_share
