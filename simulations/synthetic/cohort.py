"""``make_cohort``: the folders of synthetic hospitals, each with its data and the ``site.yaml`` that reads them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Final, TypeAlias

import yaml

from wardround.client.mapping.rules import MAPPING
from wardround.client.settings import SETTINGS, DataSource
from wardround.protocol.contract import DataContract
from wardround.protocol.errors import UsageError, did_you_mean
from wardround.simulations.synthetic.clinical import CONTRACT
from wardround.simulations.synthetic.hospitals import Hospital, hospitals

Writer: TypeAlias = Callable[[Path, Hospital, int], DataSource]

CONTRACT_FILE: Final = "contract.json"
NOTICE: Final = """Synthetic data, made by `wardround data make-cohort`. No person is behind any row or picture.
Names, numbers, addresses and dates are invented. docs/synthetic.md says what is in here, and the true effects.
"""


def _writer(module: str, name: str) -> Callable[[], Writer]:
    """The writer, imported when it is used: each needs a library of its own."""

    def load() -> Writer:
        from importlib import import_module

        writer: Writer = getattr(import_module(f"wardround.simulations.synthetic.{module}"), name)
        return writer

    return load


WRITERS: Final[dict[str, dict[str, Callable[[], Writer]]]] = {
    "csv": {"emr": _writer("as_csv", "write_csv")},
    "parquet": {"emr": _writer("as_parquet", "write_parquet")},
    "excel": {"emr": _writer("as_excel", "write_excel")},
    "sqlite": {"emr": _writer("as_sqlite", "write_sqlite")},
    "omop": {"emr": _writer("as_omop", "write_omop")},
    "fhir": {"emr": _writer("as_fhir", "write_fhir")},
    "fhir-bundles": {"emr": _writer("as_fhir", "write_bundles")},
    "hl7v2": {"emr": _writer("as_hl7v2", "write_hl7v2")},
    "dicom": {
        "ct": _writer("as_dicom", "write_ct"),
        "ct-series": _writer("as_dicom_series", "write_ct_series"),
        "mri": _writer("as_dicom_series", "write_mri_series"),
        "xray": _writer("as_dicom", "write_xray"),
    },
    "nifti": {"mri": _writer("as_nifti", "write_nifti")},
    "png": {"xray": _writer("as_png", "write_png")},
}
"""Format -> kind of data -> writer; the first kind is what a format holds if nothing is said."""


EVENTS: Final = ("omop", "fhir", "fhir-bundles", "hl7v2")
WORDS: Final = """# Clinical systems say the sex in words, and the contract wants codes.
columns:
  sex: {from: sex, codes: {female: "0", male: "1"}}
"""
"""The rules that the readers of events need."""


@dataclass(frozen=True, slots=True)
class MadeCohort:
    """What was written."""

    folder: Path
    format: str
    kind: str
    sites: tuple[str, ...]
    patients: int
    files: int
    bytes: int
    seconds: float


def make_cohort(
    out: Path, *, format: str, kind: str | None = None, sites: int = 4, patients: int = 100, seed: int = 0
) -> MadeCohort:
    """Write ``sites`` hospitals of ``patients`` patients each into the new folder ``out``.

    Raises:
        UsageError: an unknown format or kind, a number out of range, or a folder that holds something.
    """
    began = perf_counter()
    if format not in WRITERS:
        raise UsageError(f"there is no format '{format}'", did_you_mean(format, WRITERS))
    kinds = WRITERS[format]
    chosen = kind or next(iter(kinds))
    if chosen not in kinds:
        fits = [name for name, of in WRITERS.items() if chosen in of]
        hint = f"'{chosen}' is written as {', '.join(fits)}" if fits else f"'{format}' holds {', '.join(kinds)}"
        raise UsageError(f"'{format}' does not hold '{chosen}'", hint)
    if patients < 1:
        raise UsageError("a hospital needs a patient", "write --patients 1 or more")
    made = hospitals(sites, seed)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"'{out}' holds something already", "name a new folder")
    writer = kinds[chosen]()
    out.mkdir(parents=True, exist_ok=True)
    (out / "README.txt").write_text(NOTICE, encoding="utf-8")
    (out / CONTRACT_FILE).write_text(_as_json(contract_of(chosen, format)), encoding="utf-8")
    for hospital in made:
        folder = out / hospital.name
        (folder / "data").mkdir(parents=True)
        source = writer(folder, hospital, patients)
        settings = {"data": [source.model_dump(mode="json", exclude_defaults=True) | {"connector": source.connector}]}
        (folder / SETTINGS).write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        if format in EVENTS:
            (folder / MAPPING).write_text(WORDS, encoding="utf-8")
    files = [path for path in out.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    names = tuple(hospital.name for hospital in made)
    return MadeCohort(out, format, chosen, names, patients, len(files), size, perf_counter() - began)


def contract_of(kind: str, format: str) -> DataContract:
    """What a study may read of the cohort. ADT and ORU messages have no drugs, so their contract has none."""
    if kind != "emr":
        from wardround.simulations.synthetic.subjects import picture_contract

        contract = picture_contract(kind)
        if format == "png" and contract.image is not None:
            # Eight bits of a file instead of a detector's twelve.
            return contract.model_copy(update={"image": contract.image.model_copy(update={"window": (0.0, 255.0)})})
        return contract
    if format == "hl7v2":
        return CONTRACT.model_copy(
            update={"columns": tuple(column for column in CONTRACT.columns if column.name != "furosemide")}
        )
    return CONTRACT


def _as_json(contract: DataContract) -> str:
    document: dict[str, Any] = contract.model_dump(mode="json")
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"
