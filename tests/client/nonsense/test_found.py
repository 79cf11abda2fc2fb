"""What nonsense found once, one by one, so that it is looked for in every run."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from wardround.client.connectors import read_batches, read_table
from wardround.client.connectors.table import apply_contract
from wardround.client.connectors.units import check_unit, conversion
from wardround.client.consent import FlagColumn
from wardround.client.imaging.picture import LeftOut, Picture
from wardround.client.imaging.pixels import NOT_DECODED, Wanted, pictures_of
from wardround.client.imaging.prepare import Unfit, features_of
from wardround.client.mapping import read_mapping
from wardround.client.settings import read_settings
from wardround.protocol.contract import DataContract, ImageInput
from wardround.protocol.errors import Unavailable, UsageError

YAML = ["2026-99-99", "0x_", "!!float Quillfeather", "!!timestamp Quillfeather", "[" * 3000, "!!int Quillfeather"]
CONTRACT = DataContract.model_validate(
    {
        "columns": [{"type": "number", "name": "age", "meaning": "x", "unit": "a", "minimum": 0, "maximum": 120}],
        "label": {"kind": "class", "column": "sick", "meaning": "x", "positive": ["1"], "negative": ["0"]},
    }
)


@pytest.mark.parametrize("text", YAML)
def test_yaml_of_which_python_can_make_nothing_is_refused(text: str, tmp_path: Path) -> None:
    for name, read in (("mapping.yaml", lambda: read_mapping(tmp_path / "mapping.yaml")),
                       ("site.yaml", lambda: read_settings(tmp_path))):  # fmt: skip
        (tmp_path / name).write_text(f"columns: {text}\n")
        with pytest.raises(UsageError, match="cannot be read as YAML") as error:
            read()
        assert "Quillfeather" not in error.value.lines()


def test_a_value_of_the_sites_data_among_the_codes_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "mapping.yaml").write_text("columns: {sex: {from: a, codes: {Quillfeather: [1]}}}")
    with pytest.raises(UsageError, match=r"columns\.sex\.codes'") as error:
        read_mapping(tmp_path / "mapping.yaml")
    assert "Quillfeather" not in error.value.lines()


@pytest.mark.parametrize("encoding", ["base64", "hex", "rot13", "punycode", "idna", "undefined", "raw_unicode_escape"])
def test_a_codec_that_is_for_no_text_is_no_encoding(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a\n1\n")
    for more in ({}, {"names": ["a"]}):
        with pytest.raises(UsageError, match="no encoding"):
            read_table("csv", tmp_path / "t.csv", {"encoding": encoding, **more})


@pytest.mark.parametrize("delimiter", ["é", '"', "\n", "\r", "\0"])
def test_a_sign_that_can_part_no_cells_is_no_delimiter(delimiter: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a\n1\n")
    with pytest.raises(UsageError, match="one character of ASCII"):
        read_table("csv", tmp_path / "t.csv", {"delimiter": delimiter})


@pytest.mark.parametrize("year", ["inf", "1e400", "2147483648", "99999999999999999999", "nan"])
def test_a_birth_in_a_year_that_no_calendar_has_is_not_known(year: str, tmp_path: Path) -> None:
    (tmp_path / "person.csv").write_text(f"person_id,year_of_birth\n1,{year}\n")
    (tmp_path / "drug_exposure.csv").write_text("person_id,drug_exposure_start_date\n1,2024-01-01\n")
    spec = {"columns": {"age": {"from": "age"}, "drugs": {"from": "drug", "take": "count"}}}
    found = pa.Table.from_batches(read_batches("omop", tmp_path, {"cohort": spec})).to_pylist()
    assert [row["age"] for row in found] == [None]


@pytest.mark.parametrize("cells", [[["Quillfeather"]], [{"a": "Quillfeather"}], [b"\xffQuillfeather"]])
def test_a_column_of_lists_or_bytes_is_refused_by_name(cells: list[object]) -> None:
    for columns in ({"age": cells, "sick": ["1"]}, {"age": ["1"], "sick": cells}):
        with pytest.raises(UsageError, match="neither text, number nor time") as error:
            apply_contract(pa.table(columns), CONTRACT, "site 'north'")
        assert "Quillfeather" not in error.value.lines()


def test_a_number_that_no_double_holds_breaks_the_rule_and_not_the_reader() -> None:
    with pytest.raises(UsageError, match="must lie in 0 to 120"):
        apply_contract(pa.table({"age": pa.array([2**53 + 1], pa.int64()), "sick": ["1"]}), CONTRACT, "site 'north'")


def test_a_delimiter_of_two_signs_is_said_where_opt_outs_are_read(tmp_path: Path) -> None:
    (tmp_path / "who").write_text("id,flag\n")
    with pytest.raises(Unavailable, match="delimiter"):
        list(FlagColumn(tmp_path / "who", "id", "flag", delimiter=",,").opted_out(datetime(2026, 1, 1, tzinfo=UTC)))


def test_a_unit_of_two_lines_makes_no_third_line_of_an_error() -> None:
    for wrong in (lambda: check_unit("0\n0"), lambda: conversion("m\n", "g")):
        with pytest.raises(UsageError) as error:
            wrong()
        assert error.value.lines().count("\n") == 1


def test_a_volume_whose_axes_are_nearly_one_says_no_orientation() -> None:
    image = ImageInput(modality="OT", size=(8, 8, 8), window=(0, 1), orientation="LPS")
    affine = np.diag([1e-30, 1.0, 1.0, 1.0])
    affine[:3, 0] = (0, 0, 0)
    picture = Picture("p", "k", np.zeros((1, 4, 4, 4), np.float32), (1.0, 1.0, 1.0), affine=affine)
    with pytest.raises(Unfit, match="orientation"):
        features_of(picture, image)


def test_memory_that_ran_out_is_no_word_about_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(*given: object, **named: object) -> None:
        raise MemoryError

    monkeypatch.setattr("pydicom.pixels.get_decoder", raises)
    dataset = Dataset()
    dataset.PatientID, dataset.Modality, dataset.PixelData = "p", "CT", b"00"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found = list(pictures_of(dataset, Wanted(ImageInput(modality="CT", size=(8, 8), window=(0, 1)), "k"), "k"))
    assert found == [LeftOut(NOT_DECODED, "k", passing=True)], "it is tried again at the next reading"
