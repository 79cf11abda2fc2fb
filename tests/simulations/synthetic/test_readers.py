"""Every format of the synthetic hospitals, through the readers of a site: the same features from every system."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wardround.client.connectors.table import Records, joined
from wardround.client.imaging.pixels import TEXT
from wardround.client.reading import patients_in, read_records
from wardround.client.settings import read_settings
from wardround.protocol.contract import DataContract
from wardround.protocol.errors import UsageError
from wardround.simulations.synthetic.cohort import CONTRACT_FILE, WRITERS
from wardround.simulations.synthetic.hospitals import hospitals
from wardround.simulations.synthetic.patients import patient_id

TABLES = [name for name, kinds in WRITERS.items() if "emr" in kinds and name != "csv"]
PATIENTS = 60


def records_of(folder: Path, site: str, contract: DataContract) -> Records:
    return joined(read_records(read_settings(folder / site), folder / site, contract, site))


def contract_in(folder: Path) -> DataContract:
    return DataContract.model_validate(json.loads((folder / CONTRACT_FILE).read_text()))


def by_patient(records: Records) -> dict[str, tuple[float, ...]]:
    rows = np.column_stack([records.features, records.targets]).tolist()
    return {str(patient): tuple(row) for patient, row in zip(records.patients, rows, strict=True)}


@pytest.mark.parametrize("format", TABLES)
def test_a_system_of_another_kind_gives_the_features_of_the_plain_table(made: Callable[..., Path], format: str) -> None:
    plain, other = made("csv"), made(format)
    contract = contract_in(other)
    for hospital in hospitals(4, 11):
        expected, found = (by_patient(records_of(folder, hospital.name, contract)) for folder in (plain, other))
        assert len(expected) > 30 and len(found) == len(expected)
        if format != "omop":  # whose persons have numbers of their own
            assert set(found) == set(expected)
            found = {id_: found[id_] for id_ in expected}
        ours, theirs = (np.array(list(rows.values())) for rows in (found, expected))
        if format == "omop":
            ours, theirs = (np.array(sorted(np.round(rows, 3).tolist())) for rows in (ours, theirs))
        # One hospital writes creatinine in umol/L, rounded.
        assert np.abs(ours - theirs).max() < 2e-3, (hospital.name, np.abs(ours - theirs).max(axis=0))


@pytest.mark.parametrize("format", ["csv", "omop", "fhir"])
def test_the_patients_of_a_source_are_those_of_the_hospital(made: Callable[..., Path], format: str) -> None:
    folder = made(format) / hospitals(1, 11)[0].name
    settings = read_settings(folder)
    assert len(patients_in(settings, folder, contract_in(made(format)).patient_id or "")) == PATIENTS


def test_pictures_in_dicom_files_become_records(made: Callable[..., Path]) -> None:
    folder = made("dicom", "ct", 2, 12)
    contract = contract_in(folder)
    found = records_of(folder, hospitals(1, 11)[0].name, contract)
    assert len(found.patients) >= 8 and np.isfinite(found.features).all() and len(np.unique(found.targets)) == 2
    assert set(found.excluded) <= {"text may be burned into the picture", "label without a picture", "no pixels"}


@pytest.mark.parametrize(("format", "kind", "shape"), [("png", "xray", (1, 64, 64)), ("nifti", "mri", (1, 24, 64, 64))])
def test_pictures_in_png_and_nifti_files_become_records(
    made: Callable[..., Path], format: str, kind: str, shape: tuple[int, ...]
) -> None:
    folder = made(format, kind, 2, 12)
    name, contract = hospitals(1, 11)[0].name, contract_in(folder)
    found = records_of(folder, name, contract)
    assert found.features.shape[1:] == shape and np.isfinite(found.features).all() and not found.excluded
    with (folder / name / "data" / "labels.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert sorted(map(str, found.patients)) == sorted(row["patient"] for row in rows)
    column = contract.label.columns[0]
    assert found.targets.sum() == sum(row[column] == "1" for row in rows)


def test_png_and_dicom_hold_the_same_x_rays(made: Callable[..., Path]) -> None:
    name = hospitals(1, 11)[0].name
    one, two = (
        records_of(made(format, "xray", 1, 8), name, contract_in(made(format, "xray", 1, 8)))
        for format in ("png", "dicom")
    )
    means = [{p: r.features[r.patients == p].mean() for p in set(r.patients)} for r in (one, two)]
    shared = means[0].keys() & means[1].keys()
    assert len(shared) >= 5
    # Eight bits instead of twelve, and every third file a JPEG.
    assert max(abs(means[0][patient] - means[1][patient]) for patient in shared) < 0.01


@pytest.mark.parametrize(("format", "kind"), [("dicom", "ct"), ("dicom", "mri"), ("png", "xray"), ("nifti", "mri")])
def test_the_patients_of_pictures_are_known_without_decoding_one(
    made: Callable[..., Path], format: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(format, kind, 2, 12) / hospitals(1, 11)[0].name
    monkeypatch.setattr("pydicom.pixels.get_decoder", None)
    monkeypatch.setattr("PIL.Image.open", None)
    monkeypatch.setattr("nibabel.Nifti1Image.from_filename", None)
    assert len(patients_in(read_settings(folder), folder, "patient")) == 12


def test_the_rules_of_a_site_hold_for_its_table_of_labels(made: Callable[..., Path], tmp_path: Path) -> None:
    name = hospitals(1, 11)[0].name
    folder, contract = made("png", "xray", 2, 12), contract_in(made("png", "xray", 2, 12))
    shutil.copytree(folder / name, tmp_path / name)
    labels = tmp_path / name / "data" / "labels.csv"
    with labels.open() as lines:
        rows = list(csv.DictReader(lines))
    with labels.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "patient", "Verschattung"])
        writer.writerows([r["file"], r["patient"], {"1": "ja", "0": "nein"}[r["opacity"]]] for r in rows)
    with pytest.raises(UsageError, match="no column 'opacity'"):
        records_of(tmp_path, name, contract)
    (tmp_path / name / "mapping.yaml").write_text(
        'columns:\n  opacity: {from: Verschattung, codes: {ja: "1", nein: "0"}}\n'
    )
    ours, theirs = records_of(tmp_path, name, contract), records_of(folder, name, contract)
    assert np.array_equal(ours.targets, theirs.targets) and np.array_equal(ours.features, theirs.features)


def test_series_and_nifti_files_of_the_same_heads_become_the_same_features(made: Callable[..., Path]) -> None:
    """Axial, sagittal and coronal series; DICOM holds whole numbers, and the window of 800 units becomes 2."""
    contract = contract_in(made("dicom", "mri", 4, 9))
    assert contract == contract_in(made("nifti", "mri", 4, 9))
    for hospital in hospitals(4, 11):
        series, files = (
            records_of(made(format, "mri", 4, 9), hospital.name, contract) for format in ("dicom", "nifti")
        )
        whole = dict(zip(files.patients, files.features, strict=True))
        # The ninth patient's series has letters in one slice.
        assert whole.keys() - set(series.patients) == {patient_id(hospital, 8)} and len(series.patients) == 8
        assert series.excluded[TEXT] == 1
        for patient, features in zip(series.patients, series.features, strict=True):
            assert np.abs(features - whole[patient]).max() < 2 * 1.01 / 800


def test_ct_series_become_volumes_with_the_agent_in_them(made: Callable[..., Path]) -> None:
    root = made("dicom", "ct-series", 2, 9)
    for hospital in hospitals(2, 11):
        records = records_of(root, hospital.name, contract_in(root))
        assert records.features.shape == (8, 1, 16, 64, 64) and records.excluded == {TEXT: 1}
        # Between 140 HU, where blood is with the agent, and 240, which bone exceeds.
        share = ((records.features > 0.5) & (records.features < 1.0)).mean((1, 2, 3, 4))
        given = records.targets.ravel() == 1
        assert 0 < given.sum() < 8 and share[given].min() > share[~given].max()
