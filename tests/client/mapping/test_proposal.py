"""A proposal is right where it is made, and what cannot be told is left open with the reason."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from wardround.client.connectors.table import apply_contract
from wardround.client.mapping import Mapping, mapped, read_mapping
from wardround.client.mapping.profile import profiles
from wardround.client.mapping.proposal import Proposed, propose
from wardround.client.mapping.writing import as_yaml
from wardround.conf.compose import compose_configuration
from wardround.conf.schema import parse_configuration
from wardround.protocol.contract import DataContract, NumberColumn
from wardround.protocol.errors import UsageError
from wardround.protocol.labels import ClassLabel
from wardround.simulations.datasets import load_dataset

Columns = dict[str, list[str]]


@pytest.fixture(scope="module")
def contract() -> DataContract:
    return parse_configuration(compose_configuration(["study=heart_disease"])).contract


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return next(site for site in load_dataset("heart_disease", "complete").tables if site.site == "cleveland").table


@pytest.fixture
def cells(table: pa.Table) -> Columns:
    return {name: ["" if c is None else str(c) for c in table.column(name).to_pylist()] for name in table.column_names}


def proposed(contract: DataContract, columns: Columns) -> dict[str, Proposed]:
    batch = pa.RecordBatch.from_pydict({name: pa.array(cells, pa.string()) for name, cells in columns.items()})
    return {each.name: each for each in propose(contract, profiles([batch]))}


def comma(cells: list[str], by: float) -> list[str]:
    return [repr(float(cell) * by).replace(".", ",") for cell in cells]


def german(cells: Columns) -> Columns:
    return {name: cells[name] for name in ("cp", "fbs", "restecg", "thalach", "exang")} | {
        "Alter": cells["age"],
        "Geschlecht": ["M" if float(cell) == 1 else "W" for cell in cells["sex"]],
        "Blutdruck kPa": comma(cells["trestbps"], 0.133322387415),
        "Cholesterin": comma(cells["chol"], 1 / 38.665),
        "ST-Senkung": comma(cells["oldpeak"], 0.1),
        "Befund": ["gesund" if float(cell) == 0 else "krank" for cell in cells["num"]],
        "PatNr": cells["patient"],
    }


def french(cells: Columns) -> Columns:
    moved = {name: cells[name] for name in ("cp", "restecg", "thalach", "oldpeak", "patient", "num")}
    return moved | {
        "Âge": cells["age"],
        "sexe": ["homme" if float(cell) == 1 else "femme" for cell in cells["sex"]],
        "fbs": ["oui" if float(cell) == 1 else "non" for cell in cells["fbs"]],
        "exang": ["O" if float(cell) == 1 else "N" for cell in cells["exang"]],
        "trestbps_mmHg": cells["trestbps"],
        "CHOLESTEROL [g/L]": [repr(float(cell) / 100) for cell in cells["chol"]],
    }


def shuffled(cells: Columns) -> Columns:
    """The contract's own names, in another order, with a missing number and words for it."""
    names = [*reversed(cells)]
    changed = {name: list(cells[name]) for name in names}
    for row in range(0, 60, 5):
        changed["thalach"][row] = "999"
    for row in range(1, 40, 4):
        changed["chol"][row] = "unknown"
    return changed


@pytest.mark.parametrize(
    ("export", "left_open", "units"),
    [
        (german, {"oldpeak"}, {"trestbps": "kPa", "chol": "mmol/L"}),
        (french, set(), {"chol": "g/L"}),
        (shuffled, set(), {}),
    ],
)
def test_what_is_proposed_gives_the_original_features(
    export: Callable[[Columns], Columns],
    left_open: set[str],
    units: dict[str, str],
    contract: DataContract,
    table: pa.Table,
    cells: Columns,
    tmp_path: Path,
) -> None:
    foreign = export(cells)
    found = proposed(contract, foreign)
    assert {name for name, each in found.items() if each.is_open} == left_open
    assert {name: each.rule["unit"] for name, each in found.items() if each.rule and "unit" in each.rule} == units
    # A person decides what was left open; the file is otherwise used as it was written.
    (tmp_path / "mapping.yaml").write_text(as_yaml(list(found.values()), "a test"), encoding="utf-8")
    written = read_mapping(tmp_path / "mapping.yaml")
    if "oldpeak" in left_open:
        decided = Mapping.model_validate({"columns": {"oldpeak": {"from": "ST-Senkung", "unit": "cm", "decimal": ","}}})
        written = Mapping(columns={**written.columns, **decided.columns})
    batch = pa.RecordBatch.from_pydict({name: pa.array(values, pa.string()) for name, values in foreign.items()})
    ours = apply_contract(mapped(batch, written, contract, "x"), contract, "x")
    original = apply_contract(table, contract, "x")
    kept = np.isin(original.rows, ours.rows)
    without = {*range(0, 60, 5), *range(1, 40, 4)} if export is shuffled else set()
    assert set(ours.rows.tolist()) == set(range(303)) - without
    assert np.abs(ours.features - original.features[kept]).max() < 1e-9
    assert np.array_equal(ours.targets, original.targets[kept])


def test_a_unit_in_a_name_that_the_values_contradict_is_not_proposed(contract: DataContract, cells: Columns) -> None:
    columns = {name: values for name, values in cells.items() if name != "trestbps"}
    found = proposed(contract, columns | {"trestbps kPa": cells["trestbps"]})["trestbps"]
    assert found.is_open and "names kPa, and in kPa its values do not fit" in found.why


def test_values_that_fit_no_unit_are_left_open(contract: DataContract, cells: Columns) -> None:
    far = [str(float(cell) * 1e6) for cell in cells["age"]]
    found = proposed(contract, cells | {"age": far})["age"]
    assert found.is_open and "neither in a nor in another unit" in found.why


def test_two_columns_that_fit_alike_are_left_open(contract: DataContract, cells: Columns) -> None:
    columns = {name: values for name, values in cells.items() if name != "age"}
    found = proposed(contract, columns | {"Alter": cells["age"], "Alter Aufnahme": cells["age"]})["age"]
    assert found.is_open and "'Alter'" in found.why and "'Alter Aufnahme'" in found.why


def test_a_column_that_is_not_there_is_never_found_by_its_values(contract: DataContract, cells: Columns) -> None:
    columns = {name: values for name, values in cells.items() if name != "thalach"}
    found = proposed(contract, columns | {"laufnummer": cells["thalach"]})["thalach"]
    assert found.is_open and found.why.startswith("no column's name is like 'thalach'")


def test_rare_categories_are_counted_and_not_printed(contract: DataContract, cells: Columns) -> None:
    odd = ["Quillfeather" if row == 7 else "often" if row < 40 else cell for row, cell in enumerate(cells["sex"])]
    found = proposed(contract, cells | {"sex": odd})["sex"]
    assert found.is_open and "2 values" in found.why and "'often'" in found.why and "Quillfeather" not in found.why


@pytest.mark.parametrize(
    ("values", "says"), [(["1,5", "1.5", "2"], "both decimal signs"), (["", "?", "NA"], "is empty")]
)
def test_numbers_that_cannot_be_read_are_left_open(
    values: list[str], says: str, contract: DataContract, cells: Columns
) -> None:
    found = proposed(contract, cells | {"age": [values[row % 3] for row in range(303)]})["age"]
    assert found.is_open and says in found.why


@pytest.mark.parametrize(
    ("local", "says"),
    [
        ("LDL-Cholesterin", "'ldl'"),
        ("HDL Cholesterol", "'hdl'"),
        ("chol_ldl", "'ldl'"),
        ("Harncholesterin", "'harn'"),
        ("Cholesterin Quotient", "'quotient'"),
        ("NonHDLCholesterol", "'nonhdl'"),
    ],
)
def test_another_quantity_of_like_name_is_left_open(
    local: str, says: str, contract: DataContract, cells: Columns
) -> None:
    columns = {name: values for name, values in cells.items() if name != "chol"}
    found = proposed(contract, columns | {local: cells["chol"]})["chol"]
    assert found.is_open and says in found.why and "another quantity" in found.why


@pytest.mark.parametrize(
    ("name", "meaning", "local"),
    [
        ("hemoglobin", "Hemoglobin in blood", "HbA1c_hemoglobin"),
        ("hemoglobin", "Hemoglobin in blood", "Glykiertes Hämoglobin"),
        ("ldl", "LDL cholesterol", "Cholesterin"),
        ("diastolic", "Diastolic blood pressure", "Blutdruck systolisch"),
        ("systolic", "Systolic blood pressure", "Blutdruck diastolisch"),
        ("creatinine", "Creatinine in serum", "Kreatinin-Clearance"),
        ("glucose", "Glucose in plasma", "Glukose Urin"),
    ],
)
def test_a_quantity_that_only_one_of_two_names_means_is_left_open(name: str, meaning: str, local: str) -> None:
    column = NumberColumn(name=name, meaning=meaning, unit="1", minimum=0, maximum=100, center=50, scale=20)
    label = ClassLabel(column="sick", meaning="Sick", positive=("1",), negative=("0",))
    found = proposed(DataContract(columns=(column,), label=label), {local: [str(n) for n in range(40, 60)]})[name]
    assert found.is_open and "another quantity" in found.why


def test_the_same_qualifier_on_both_sides_is_no_doubt() -> None:
    column = NumberColumn(name="ldl", meaning="LDL cholesterol", unit="1", minimum=0, maximum=100, center=50, scale=20)
    label = ClassLabel(column="sick", meaning="Sick", positive=("1",), negative=("0",))
    found = proposed(DataContract(columns=(column,), label=label), {"LDL-Cholesterin": ["50", "60"] * 9})["ldl"]
    assert not found.is_open and not found.doubts


def test_a_name_that_says_more_or_is_only_alike_is_marked_uncertain(contract: DataContract, cells: Columns) -> None:
    columns = {name: values for name, values in cells.items() if name not in ("age", "restecg")}
    found = proposed(contract, columns | {"Alter Ehefrau": cells["age"], "restecgg": cells["restecg"]})
    assert not found["age"].is_open and "'ehefrau'" in found["age"].doubts[0]
    assert not found["restecg"].is_open and "only alike" in found["restecg"].doubts[0]
    text = as_yaml(list(found.values()), "a test")
    assert "  # age: UNCERTAIN: " in text and "  # restecg: UNCERTAIN: " in text and "# sex: UNCERTAIN" not in text
    # Units, signs and words such as 'serum' say nothing else.
    plainly = proposed(contract, columns | {"Alter [Jahre]": cells["age"]})
    assert not plainly["age"].doubts


def test_categories_of_few_records_are_not_in_the_proposal(
    contract: DataContract, cells: Columns, tmp_path: Path
) -> None:
    sexes = ["Frau" if row < 4 else "unbekannt" if row < 8 else "inconnu" if row < 20 else "Mann" for row in range(303)]
    ages = ["k. A." if row == 17 else age for row, age in enumerate(cells["age"])]
    found = proposed(contract, cells | {"sex": sexes, "age": ages})
    text = as_yaml(list(found.values()), "a test")
    assert "Frau" not in text and "unbekannt" not in text and "k. A." not in text
    assert found["sex"].rule == {"from": "sex", "codes": {"Mann": "1"}, "missing": ["inconnu"]}
    assert "fewer than 5 records" in found["sex"].doubts[0] and "fewer than 5 records" in found["age"].doubts[0]
    # What is not in the rule stops the study and is never guessed.
    (tmp_path / "mapping.yaml").write_text(text, encoding="utf-8")
    batch = pa.RecordBatch.from_pydict({n: pa.array(v, pa.string()) for n, v in (cells | {"sex": sexes}).items()})
    with pytest.raises(UsageError, match="none of the rule's codes"):
        mapped(batch, read_mapping(tmp_path / "mapping.yaml"), contract, "x")


def test_a_value_that_looks_like_a_code_and_is_rare_is_not_told_by_its_absence(
    contract: DataContract, cells: Columns
) -> None:
    told = [proposed(contract, cells | {"sex": ["W"] * few + ["M"] * (303 - few)})["sex"] for few in range(1, 5)]
    assert len({as_yaml([each], "a test") for each in told}) == 1


NASTY = (
    "Alter\n  sex: {from: secret}",
    "Alter\r\n  sex: {from: secret}",
    "Alter\u2028  sex: {from: secret}",
    "Alter\x85  sex: {from: secret}",
    "Alter: {from: secret} # &a *b !!str",
    "Alter } , sex: { from: secret",
    "Alter 'one' \"two\" \\n",
    "Alter\x1b[31m\x07",
    "Alter " + "sehr " * 4000,
)


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("fits", [True, False])
def test_a_column_whose_name_is_yaml_writes_no_rule_of_its_own(
    name: str, fits: bool, contract: DataContract, cells: Columns, tmp_path: Path
) -> None:
    columns = {key: values for key, values in cells.items() if key not in ("age", "sex")}
    found = proposed(contract, columns | {name: cells["age"] if fits else ["x"] * 303})
    text = as_yaml(list(found.values()), "a\ntitle")
    assert all(sign.isprintable() or sign == "\n" for sign in text)
    (tmp_path / "mapping.yaml").write_text(text, encoding="utf-8")
    written = read_mapping(tmp_path / "mapping.yaml").columns
    assert "sex" not in written and ("age" in written) == fits
    assert not fits or written["age"].source == name
    lines = text.splitlines()
    assert all(line.startswith(("#", "  #", "columns:")) or line.split(":")[0].strip() in written for line in lines)


def test_a_contracts_own_odd_name_is_quoted_too(tmp_path: Path) -> None:
    name = "a: b\n  sick: {from: secret}"
    column = NumberColumn(name=name, meaning="Odd", unit="1", minimum=0, maximum=100, center=50, scale=20)
    label = ClassLabel(column="sick", meaning="Sick", positive=("1",), negative=("0",))
    batch = {name: ["50,5", "40,5"] * 9}
    text = as_yaml(list(proposed(DataContract(columns=(column,), label=label), batch).values()), "a test")
    (tmp_path / "mapping.yaml").write_text(text, encoding="utf-8")
    assert set(read_mapping(tmp_path / "mapping.yaml").columns) == {name}


def test_nothing_that_fits_gives_a_file_that_can_still_be_read(contract: DataContract, tmp_path: Path) -> None:
    text = as_yaml(list(proposed(contract, {"a": ["1"], "b": ["x"]}).values()), "a test")
    (tmp_path / "mapping.yaml").write_text(text)
    assert not read_mapping(tmp_path / "mapping.yaml").columns and text.count("OPEN") == len(contract.column_names)


def test_a_rule_with_a_unit_for_a_column_that_has_none_is_refused(contract: DataContract, cells: Columns) -> None:
    rules: Any = Mapping.model_validate({"columns": {"sex": {"from": "sex", "unit": "kg"}}})
    batch = pa.RecordBatch.from_pydict({name: pa.array(values, pa.string()) for name, values in cells.items()})
    with pytest.raises(UsageError, match="the rule for 'sex' names a unit"):
        mapped(batch, rules, contract, "x")
