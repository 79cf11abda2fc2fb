"""Makers, models and header fields that tell the label: named by public words alone, and never outside the site."""

import inspect
import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wardround.client.connectors import IMAGE_CONNECTORS, read_pictures
from wardround.client.imaging.described import MAKERS, NOT_NAMED, OTHER, maker_of
from wardround.client.readiness import Finding, Severity, check, for_consortium, gather
from wardround.client.readiness.machines import _by_class
from wardround.client.settings import DataSource, LabelTable, SiteSettings
from wardround.client.store.members import Part
from wardround.protocol.contract import DataContract, ImageInput
from wardround.protocol.errors import UsageError
from wardround.protocol.labels import ClassLabel

CT = ImageInput(modality="CT", size=(8, 8), window=(-1000.0, 1000.0))
CONTRACT = DataContract(
    image=CT,
    columns=(),
    label=ClassLabel(column="sick", meaning="Sick", positive=("1",), negative=("0",)),
    patient_id="patient",
)
PATIENTS = 160

Looked = Callable[..., tuple[list[Finding], str]]


class Everybody:
    def parts(self, ids: list[str]) -> list[Part | None]:
        return [Part.TEST if number % 3 == 0 else Part.TRAIN for number in range(len(ids))]


@pytest.fixture
def looked(write_dicom: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Looked:
    """Findings, and all that was said to anybody, for pictures whose fields a function of (number, sick) gives."""
    caplog.set_level(logging.DEBUG)

    def look(
        fields: Callable[[int, bool], dict[str, object]], patients: int = PATIENTS, each: int = 1
    ) -> tuple[list[Finding], str]:
        generator = np.random.Generator(np.random.PCG64(5))
        lines = ["file,sick"]
        for number in range(patients * each):
            sick = number // each % 2 == 1
            given = fields(number // each, sick)
            pixels = generator.integers(900, 1100, (16, 16)).astype(np.uint16)
            write_dicom(f"{number}.dcm", pixels, **({"PatientID": f"P{number // each:04}"} | given))
            lines.append(f"{number}.dcm,{int(sick)}")
        (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
        source = DataSource(
            connector="dicom", path="archive", labels=LabelTable(path=str(tmp_path / "labels.csv"), key="file")
        )
        found = gather(CONTRACT, SiteSettings(data=(source,)), tmp_path, Everybody())
        findings = check(found)
        outward = json.dumps(for_consortium(found, findings, "north", "digest"))
        said = json.dumps([[f.code, f.sentence, f.cure] for f in findings]) + caplog.text + repr(found.described)
        assert "Siemens" not in outward and "leak" not in outward and "Philips" not in outward
        return findings, said + outward

    return look


def leaks(findings: list[Finding]) -> list[str]:
    return [each.sentence for each in findings if each.code == "leak"]


@pytest.mark.parametrize(
    ("said", "maker"),
    [
        ("SIEMENS", "Siemens"), ("Siemens Healthineers", "Siemens"), ("GE MEDICAL SYSTEMS", "GE"), ("GE", "GE"),
        ("Philips Medical Systems", "Philips"), ("TOSHIBA", "Canon/Toshiba"),
        ("Canon Medical Systems", "Canon/Toshiba"),
        ("FUJI PHOTO FILM Co., ltd.", "Fujifilm"), ("KODAK", "Carestream"), ("Hologic, Inc.", "Hologic"),
        ("HITACHI_Medical", "Hitachi"), ("", NOT_NAMED), ("  ", NOT_NAMED), ("Fernsby^Octavia", OTHER),
        ("Genial Systems", OTHER), ("Fernsby's Philips", "Philips"),
    ],
)  # fmt: skip
def test_a_maker_is_one_of_a_public_list(said: str, maker: str) -> None:
    assert maker_of(said) == maker and maker in {*MAKERS, OTHER, NOT_NAMED}


def test_makers_and_models_are_counted_and_no_text_of_a_header_is_said(looked: Looked) -> None:
    makers = ("SIEMENS", "Siemens", "Fernsby^Octavia", "Philips")

    def fields(number: int, sick: bool) -> dict[str, object]:
        return {
            "Manufacturer": makers[number // 2 % 4], "ManufacturerModelName": f"MRN-{number // 2 % 3:07}",
            "StationName": "Quillfeather", "InstitutionName": "St Elsewhere",
            "SeriesDescription": f"Octavia born 1961 {number % 5}", "PatientSex": "F",
        }  # fmt: skip

    findings, said = looked(fields)
    (machines,) = (each for each in findings if each.code == "machines")
    assert "3 makers (Philips, Siemens, another maker) and 12 models" in machines.sentence
    assert machines.severity is Severity.FINE and leaks(findings) == []
    for planted in ("Fernsby", "Octavia", "MRN-", "Quillfeather", "Elsewhere", "1961", "SIEMENS"):
        assert planted not in said


def test_one_model_of_one_maker_names_the_hospital(looked: Looked) -> None:
    findings, _ = looked(lambda number, sick: {"Manufacturer": "GE", "ManufacturerModelName": "Revolution"}, 24)
    assert any("one model of one maker" in each.sentence for each in findings if each.code == "one machine")
    assert any("1 maker (GE) and 1 model." in each.sentence for each in findings)


def test_a_maker_that_tells_the_label_is_found(looked: Looked) -> None:
    findings, said = looked(lambda number, sick: {"Manufacturer": "Philips Fernsby" if sick else "SIEMENS"})
    assert [each.split(" tells")[0] for each in leaks(findings)] == ["The maker of the machine"]
    assert "Fernsby" not in said


def test_a_model_that_tells_the_label_is_found(looked: Looked) -> None:
    findings, said = looked(
        lambda number, sick: {"Manufacturer": "GE", "ManufacturerModelName": "Quillfeather" if sick else "Revolution"}
    )
    assert any(each.startswith("The model of the machine tells") for each in leaks(findings))
    assert "Quillfeather" not in said and "Revolution" not in said


def test_a_field_that_only_one_class_has_is_found_and_its_keyword_named(looked: Looked) -> None:
    findings, said = looked(
        lambda number, sick: {"ContrastBolusAgent": "Fernsby 300", "ContrastBolusRoute": "IV"} if sick else {}
    )
    (leak,) = leaks(findings)
    assert leak.startswith("Whether a field of the header is there tells the label nearly alone (AUROC at least 0.9")
    assert leak.endswith(": ContrastBolusAgent, ContrastBolusRoute.") and "Fernsby" not in said


def test_an_empty_field_is_not_there(looked: Looked) -> None:
    findings, _ = looked(lambda number, sick: {"ContrastBolusAgent": "X" if sick else ""})
    assert any(each.endswith(": ContrastBolusAgent.") for each in leaks(findings))


def test_classes_of_a_coded_text_that_tell_the_label_are_found(looked: Looked) -> None:
    def fields(number: int, sick: bool) -> dict[str, object]:
        kinds = ("Fernsby", "after") if sick else ("native", "before")
        return {"SeriesDescription": kinds[number // 2 % 2], "StationName": ("one", "two")[number // 2 % 2]}

    findings, said = looked(fields)
    (leak,) = leaks(findings)
    assert leak.startswith("The text of a field of the header tells") and leak.endswith(": SeriesDescription.")
    assert "Fernsby" not in said and "native" not in said


def test_a_text_of_one_patient_or_of_few_is_no_class(looked: Looked) -> None:
    """Accession numbers and a patient's id would tell every label, for they name the patient."""

    def fields(number: int, sick: bool) -> dict[str, object]:
        return {"AccessionNumber": f"A{number}", "StudyID": f"S{number}", "SeriesDescription": f"{number // 18}-{sick}"}

    findings, _ = looked(fields, 40, 12)
    assert leaks(findings) == []


def test_a_sex_that_tells_the_label_is_found(looked: Looked) -> None:
    findings, _ = looked(lambda number, sick: {"PatientSex": "F" if sick else "M"})
    assert [each.rsplit(": ", 1)[1] for each in leaks(findings)] == ["PatientSex."]


def test_the_share_of_a_class_is_that_of_its_records() -> None:
    patients = [str(number) for number in range(24)]
    classes = ["a"] * 12 + ["b"] * 9 + [None] * 3
    positive = np.array([True] * 9 + [False] * 3 + [True] * 6 + [False] * 6)
    assert _by_class(classes, patients, positive).tolist() == [0.75] * 12 + [0.5] * 12


def test_only_the_check_asks_for_it_and_no_site_can(write_dicom: Callable[..., Path], tmp_path: Path) -> None:
    write_dicom("a.dcm", Manufacturer="SIEMENS")
    (plain,) = read_pictures("dicom", tmp_path / "archive", CT, {})
    (asked,) = read_pictures("dicom", tmp_path / "archive", CT, {}, describe=True)
    assert plain.described is None and asked.described is not None and asked.described.maker == "Siemens"  # type: ignore[union-attr]
    assert "Siemens" not in repr(asked)
    with pytest.raises(UsageError, match="has no option 'describe'"):
        read_pictures("dicom", tmp_path / "archive", CT, {"describe": True})
    taking = {name for name, reader in IMAGE_CONNECTORS.items() if "describe" in inspect.signature(reader).parameters}
    assert taking == {"dicom", "dicomweb"}
