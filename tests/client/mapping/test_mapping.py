"""A hospital's own columns, codes and units become the contract's, exactly, or the study stops with row and rule."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pydantic import ValidationError

from wardround.client.connectors.table import apply_contract
from wardround.client.mapping import ColumnRule, Mapping, local_columns, mapped, read_mapping
from wardround.conf.compose import compose_configuration
from wardround.conf.schema import parse_configuration
from wardround.protocol.contract import CodeColumn, DataContract, NumberColumn
from wardround.protocol.errors import UsageError
from wardround.protocol.labels import ClassLabel
from wardround.simulations.datasets import load_dataset

SECRET = "271828"

CONTRACT = DataContract(
    columns=(
        NumberColumn(name="age", meaning="Age", unit="a", minimum=0, maximum=120),
        NumberColumn(name="chol", meaning="Cholesterol", unit="mg/dL", minimum=0, maximum=900),
        CodeColumn(name="sex", meaning="Sex", codes={"0": "female", "1": "male"}, reference="0"),
    ),
    label=ClassLabel(column="num", meaning="Ill", positive=("1",), negative=("0",)),
    patient_id="patient",
)


def rules(**columns: dict[str, Any]) -> Mapping:
    return Mapping.model_validate({"columns": columns})


def batch(**columns: list[Any]) -> pa.RecordBatch:
    base: dict[str, list[Any]] = {"age": ["50"], "chol": ["200"], "sex": ["0"], "num": ["1"], "patient": ["p"]}
    count = max(len(cells) for cells in columns.values())
    return pa.RecordBatch.from_pydict({name: cells * count for name, cells in base.items()} | columns)


def one(name: str, rule: dict[str, Any], cells: list[Any], **more: list[Any]) -> list[str | None]:
    found = mapped(batch(local=cells, **more), rules(**{name: {"from": "local", **rule}}), CONTRACT, "x")
    return found.column(name).to_pylist()  # type: ignore[no-any-return]


def refusal(name: str, rule: dict[str, Any], cells: list[Any], **more: list[Any]) -> str:
    with pytest.raises(UsageError) as error:
        one(name, rule, cells, **more)
    assert SECRET not in error.value.lines()
    return error.value.message


def test_without_rules_a_table_stays_as_it_is() -> None:
    given = batch(age=["1", None, "?"])
    found = mapped(given, Mapping(), CONTRACT, "x")
    assert found.to_pydict() == given.select(list(CONTRACT.column_names)).to_pydict()
    assert local_columns(Mapping(), CONTRACT.column_names) == list(CONTRACT.column_names)


def test_only_the_columns_of_the_rules_are_asked_for() -> None:
    both = rules(age={"from": "born", "years_to": "seen"}, sex={"from": "Geschlecht", "codes": {"w": "0", "m": "1"}})
    assert local_columns(both, CONTRACT.column_names) == ["born", "seen", "chol", "Geschlecht", "num", "patient"]


def test_millimoles_become_milligrams_by_the_molar_mass() -> None:
    found = one("chol", {"unit": "mmol/L", "molar_mass": 386.65, "decimal": ","}, ["5,17", None, "4"])
    assert found[1] is None
    assert [float(cell) for cell in found if cell] == pytest.approx([5.17 * 38.665, 4 * 38.665], rel=1e-12)


def test_numbers_are_read_as_the_site_writes_them() -> None:
    assert one("chol", {"decimal": ",", "thousands": "."}, ["1.234,5", "12"]) == ["1234.5", "12.0"]
    assert one("chol", {"thousands": "'"}, ["1'234.5"]) == ["1234.5"]
    assert "the rule says comma" in refusal("chol", {"decimal": ","}, ["1,0", "12.5"])


def test_numbers_that_are_numbers_already_are_converted_too() -> None:
    assert [float(c) for c in one("chol", {"unit": "g/L"}, [2.0, 1.5]) if c] == pytest.approx([200, 150])


def test_codes_are_replaced_and_the_sites_words_for_missing_are_missing() -> None:
    rule = {"codes": {"W": "0", "M": "1"}, "missing": ["unbekannt", "9"]}
    assert one("sex", rule, ["M", " W ", "unbekannt", "9", "", None, "?"]) == ["1", "0", None, None, None, None, None]


def test_a_value_that_no_rule_covers_is_named_by_row_and_never_shown() -> None:
    said = refusal("sex", {"codes": {"W": "0", "M": "1"}}, ["M", SECRET, "W", SECRET])
    assert said == "x: row 2, column 'local': a value is none of the rule's codes (and 1 more rows)"
    assert refusal("chol", {"unit": "g/L"}, ["1", SECRET + "x"]) == "x: row 2, column 'local': must be a number"


def test_an_age_is_whole_years_between_two_dates() -> None:
    rule = {"years_to": "seen", "date_format": "%d.%m.%Y"}
    born = ["01.03.1960", "28.02.1960", "29.02.1960", "", "01.01.2000"]
    seen = ["28.02.2026", "28.02.2026", "28.02.2026", "01.01.2026", "?"]
    assert one("age", rule, born, seen=seen) == ["65", "66", "65", None, None]
    assert one("age", {"years_to": "seen"}, ["1960-03-01"], seen=["2026-03-01T08:00:00"]) == ["66"]
    assert "after the day" in refusal("age", rule, ["01.01.2027"], seen=["01.01.2026"])
    assert "a date like %d.%m.%Y" in refusal("age", rule, ["1960-03-01"], seen=["01.01.2026"])


def test_units_that_do_not_fit_are_named() -> None:
    assert "cannot be converted" in refusal("chol", {"unit": "mmol/L"}, ["5"])
    assert "no UCUM unit" in refusal("chol", {"unit": "milligrams"}, ["5"])


def test_a_local_column_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match="no column named 'Cholesterin'"):
        mapped(batch(age=["1"]), rules(chol={"from": "Cholesterin"}), CONTRACT, "x")


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"from": ""},
        {"from": "a", "units": "g"},
        {"from": "a", "decimal": ";"},
        {"from": "a", "decimal": ",", "thousands": ","},
        {"from": "a", "codes": {"1": "1"}, "unit": "g"},
        {"from": "a", "molar_mass": 180.0},
        {"from": "a", "date_format": "%Y"},
    ],
)
def test_a_rule_that_contradicts_itself_is_refused(rule: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ColumnRule.model_validate(rule)


def test_a_wrong_file_is_named_by_its_key_and_never_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "mapping.yaml"
    for content, said in [
        (f"columns: {{age: {{from: a, unit: [{SECRET}]}}}}", "columns.age.unit"),
        (f"columns: {{age: {{from: a, {SECRET}: 1}}}}", "a key that is none"),
        (f"columns: [{SECRET}", "cannot be read as YAML"),
    ]:
        path.write_text(content)
        with pytest.raises(UsageError, match=said) as error:
            read_mapping(path)
        assert SECRET not in error.value.lines()
    path.write_text("")
    assert read_mapping(path) == Mapping()


FOREIGN = {
    "age": {"from": "Alter"},
    "sex": {"from": "Geschlecht", "codes": {"W": "0", "M": "1"}},
    "trestbps": {"from": "Blutdruck kPa", "unit": "kPa", "decimal": ","},
    "chol": {"from": "Cholesterin", "unit": "mmol/L", "molar_mass": 386.65, "decimal": ",", "missing": ["k. A."]},
    "oldpeak": {"from": "ST-Senkung", "unit": "cm", "decimal": ","},
    "num": {"from": "Befund", "codes": {"gesund": "0", "krank": "1"}},
    "patient": {"from": "PatNr"},
}


def test_a_foreign_export_of_cleveland_gives_the_features_of_the_original() -> None:
    """German names, other codes, kilopascal, millimoles, centimetres, decimal commas."""
    contract = parse_configuration(compose_configuration(["study=heart_disease"])).contract
    table = next(site for site in load_dataset("heart_disease", "complete").tables if site.site == "cleveland").table
    cells = {name: table.column(name).to_pylist() for name in table.column_names}

    def scaled(name: str, by: float) -> list[str]:
        return ["k. A." if cell in ("", "?") else repr(float(cell) * by).replace(".", ",") for cell in cells[name]]

    foreign = {name: cells[name] for name in ("cp", "fbs", "restecg", "thalach", "exang")} | {
        "Alter": cells["age"],
        "Geschlecht": ["M" if float(cell) == 1 else "W" for cell in cells["sex"]],
        "Blutdruck kPa": scaled("trestbps", 0.133322387415),
        "Cholesterin": scaled("chol", 1 / 38.665),
        "ST-Senkung": scaled("oldpeak", 0.1),
        "Befund": ["gesund" if float(cell) == 0 else "krank" for cell in cells["num"]],
        "PatNr": cells["patient"],
    }
    export = pa.RecordBatch.from_pydict(foreign)
    found = apply_contract(mapped(export, rules(**FOREIGN), contract, "x"), contract, "x")
    original = apply_contract(table, contract, "x")
    assert np.abs(found.features - original.features).max() < 1e-9 and len(found.features) == 303
    assert np.array_equal(found.targets, original.targets)
    assert found.patients.tolist() == original.patients.tolist()


def test_a_mapping_costs_a_look_at_each_distinct_value_only() -> None:
    cells = pc.cast(pa.array(np.arange(200_000) % 90), pa.string())
    seen: list[str] = []

    class Watched(dict[str, str]):
        def __contains__(self, key: object) -> bool:
            seen.append(str(key))
            return True

        def __getitem__(self, key: str) -> str:
            return "1"

    rule = ColumnRule.model_validate({"from": "local", "codes": {"0": "1"}})
    object.__setattr__(rule, "codes", Watched())
    many = {name: ["0"] * 200_000 for name in ("age", "chol", "num", "patient")}
    given = pa.RecordBatch.from_pydict({**many, "local": cells})
    assert mapped(given, Mapping(columns={"sex": rule}), CONTRACT, "x").num_rows == 200_000
    assert len(seen) == 90
