"""No bytes, no YAML and no table break the readers of tables, and no error shows a cell."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.client.connectors import read_batches
from wardround.client.connectors.cohort_spec import parse_spec
from wardround.client.connectors.picture_table import patients_by_file
from wardround.client.connectors.table import apply_contract
from wardround.client.connectors.units import check_unit, conversion
from wardround.client.consent import FhirConsents, FlagColumn, IdList
from wardround.client.mapping import mapped, read_mapping
from wardround.protocol.contract import DataContract

MARKER = "Quillfeather"
nonsense = settings(settings.get_profile("nonsense"))
Lawful = Callable[..., Any]

CONTRACT = DataContract.model_validate(
    {
        "columns": [
            {"type": "number", "name": "age", "meaning": "x", "unit": "a", "minimum": 0, "maximum": 120},
            {
                "type": "number", "name": "chol", "meaning": "x", "unit": "mg/dL", "minimum": 50, "maximum": 700,
                "missing": {"kind": "fixed_value", "value": 200}, "missing_codes": [-1, 999],
            },
            {"type": "code", "name": "sex", "meaning": "x", "codes": {"0": "f", "1": "m"}, "reference": "0"},
        ],
        "label": {"kind": "class", "column": "sick", "meaning": "x", "positive": ["1"], "negative": ["0"]},
        "patient_id": "patient",
    }
)  # fmt: skip
SURVIVAL = CONTRACT.model_copy(
    update={
        "label": DataContract.model_validate(
            CONTRACT.model_dump()
            | {
                "label": {
                    "kind": "survival", "time": "days", "event": "sick", "meaning": "x", "unit": "d",
                    "maximum_time": 4000,
                }
            }
        ).label
    }
)  # fmt: skip
NAMES = ("age", "chol", "sex", "sick", "days", "patient")

CELL = (
    st.sampled_from(
        [
            "", "0", "1", "1.0", "NA", "?", "64", "-1", "999", "1e400", "nan", "inf", "-inf", "1_0", "0x1", "1e308",
            "\x00", "NULL", "2026-02-30", "2026-02-28", MARKER, f"{MARKER},x", f'"{MARKER}', "\uff11\uff12", "9" * 5000,
        ]
    )
    | st.text(max_size=8)
    | st.floats().map(str)
    | st.text(max_size=6).map(lambda more: MARKER + more)
)  # fmt: skip


@nonsense
@given(
    content=st.binary(max_size=200)
    | st.lists(st.lists(CELL, max_size=5), max_size=8).map(
        lambda rows: "\n".join(",".join(row) for row in [list(NAMES[:4]), *rows]).encode("utf-8", "surrogatepass")
    ),
    options=st.fixed_dictionaries(
        {},
        optional={
            "delimiter": st.sampled_from([",", ";", "\t", "|", '"', "\n", "\r", " ", "a", "", ",,", "é", "\x00"]),
            "encoding": st.sampled_from(
                ["utf-8", "UTF8", "cp1252", "latin-1", "utf-16", "utf-32", "utf-7", "idna", "punycode", "base64", "hex",
                 "rot13", "undefined", "raw_unicode_escape", "mbcs", "utf-8-sig", "utf-16-le", "big5", "none", "\x00"]
            ) | st.text(max_size=5),
            "names": st.lists(st.sampled_from([*NAMES, "", "x"]), max_size=4).map(tuple),
        },
    ),
    columns=st.none() | st.lists(st.sampled_from([*NAMES, ""]), max_size=4),
)  # fmt: skip
def test_no_bytes_break_the_csv_reader(lawful: Lawful, content: bytes, options: dict[str, Any], columns: Any) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_bytes(content)
        found = lawful(lambda: list(read_batches("csv", path, options, columns)))
    for batch in found or ():
        assert all(pa.types.is_string(kind) for kind in batch.schema.types)


ARRAYS = st.one_of(
    st.lists(st.none() | CELL, min_size=3, max_size=3).map(lambda cells: pa.array(_clean(cells), pa.string())),
    st.lists(st.none() | CELL, min_size=3, max_size=3).map(lambda cells: pa.array(_clean(cells), pa.large_string())),
    st.lists(st.none() | CELL, min_size=3, max_size=3).map(
        lambda cells: pa.array(_clean(cells), pa.string()).dictionary_encode()
    ),
    st.lists(st.none() | st.floats(), min_size=3, max_size=3).map(lambda cells: pa.array(cells, pa.float64())),
    st.lists(st.none() | st.floats(width=16), min_size=3, max_size=3).map(
        lambda cells: pa.array([None if cell is None else np.float16(cell) for cell in cells], pa.float16())
    ),
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3).map(
        lambda cells: pa.array(cells, pa.int64())
    ),
    st.lists(st.none() | st.integers(0, 2**64 - 1), min_size=3, max_size=3).map(
        lambda cells: pa.array(cells, pa.uint64())
    ),
    st.lists(st.none() | st.booleans(), min_size=3, max_size=3).map(lambda cells: pa.array(cells, pa.bool_())),
    st.lists(st.none() | st.binary(max_size=4), min_size=3, max_size=3).map(
        lambda cells: pa.array([None if cell is None else MARKER.encode() + cell for cell in cells], pa.binary())
    ),
    st.lists(st.none() | st.dates(), min_size=3, max_size=3).map(lambda cells: pa.array(cells, pa.date32())),
    st.lists(st.none() | st.datetimes(), min_size=3, max_size=3).map(lambda cells: pa.array(cells, pa.timestamp("us"))),
    st.lists(st.none() | st.decimals(-(10**9), 10**9, places=3), min_size=3, max_size=3).map(
        lambda cells: pa.array(cells, pa.decimal128(20, 3))
    ),
    st.just(pa.nulls(3)),
    st.just(pa.array([[MARKER], [], None])),
    st.just(pa.array([{"a": MARKER}, None, {"a": "1"}])),
)
TABLES = st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, ARRAYS)) | st.fixed_dictionaries(
    dict.fromkeys(NAMES, ARRAYS)
)


def _clean(cells: list[str | None]) -> list[str | None]:
    return [None if cell is None else cell.encode("utf-8", "replace").decode() for cell in cells]


@nonsense
@given(columns=TABLES, survival=st.booleans())
def test_no_table_breaks_the_contract(lawful: Lawful, columns: dict[str, pa.Array], survival: bool) -> None:
    found = lawful(lambda: apply_contract(pa.table(columns), SURVIVAL if survival else CONTRACT, "site 'north'"))
    if found is not None:
        assert np.isfinite(found.features).all() and np.isfinite(found.targets).all()
        assert found.features.shape == (len(found.targets), 4)


LEAF: Any = st.none() | st.booleans() | st.integers() | st.floats() | CELL | st.dates() | st.datetimes()
RULE = st.fixed_dictionaries(
    {},
    optional={
        "from": st.sampled_from([*NAMES, "", "x"]) | LEAF,
        "unit": st.sampled_from(["mmol/L", "mg/dL", "a", "mo", "1", "%", "Cel"]) | LEAF,
        "molar_mass": st.floats() | LEAF,
        "decimal": st.sampled_from([".", ","]) | LEAF,
        "thousands": st.sampled_from(["", ".", ",", "'", " "]) | LEAF,
        "missing": st.lists(CELL, max_size=3) | LEAF,
        "codes": st.dictionaries(CELL, st.sampled_from(["0", "1", "2"]) | LEAF, max_size=3) | LEAF,
        "years_to": st.sampled_from(NAMES) | LEAF,
        "date_format": st.sampled_from(["%d.%m.%Y", "%Y", "%", "%Q", "%z", "%Y%Y", "(", "\\"]) | LEAF,
    },
)
GOOD_RULE = st.one_of(
    st.fixed_dictionaries({"from": st.sampled_from(NAMES)}, optional={"missing": st.lists(CELL, max_size=2)}),
    st.fixed_dictionaries(
        {"from": st.sampled_from(NAMES), "unit": st.sampled_from(["mmol/L", "mg/dL", "a", "mo", "g/L", "Cel", "1"])},
        optional={
            "molar_mass": st.floats(1e-300, 1e300), "decimal": st.sampled_from([".", ","]),
            "thousands": st.sampled_from(["", "'", " "]),
        },
    ),
    st.fixed_dictionaries(
        {"from": st.sampled_from(NAMES), "years_to": st.sampled_from(NAMES)},
        optional={"date_format": st.sampled_from(["%d.%m.%Y", "%Y-%m-%d", "%Y", "%Q", "%", "%Y%Y", "([", "\\"])},
    ),
    st.fixed_dictionaries({"from": st.sampled_from(NAMES), "codes": st.dictionaries(CELL, CELL, max_size=3)}),
)  # fmt: skip


@nonsense
@given(
    rules=st.dictionaries(st.sampled_from(NAMES), GOOD_RULE, max_size=4)
    | st.dictionaries(st.sampled_from(NAMES), RULE, max_size=3)
    | st.dictionaries(st.integers() | st.booleans() | st.dates(), LEAF, max_size=2)
    | LEAF,
    columns=TABLES,
)
def test_no_mapping_and_no_column_break_each_other(lawful: Lawful, rules: Any, columns: dict[str, pa.Array]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "mapping.yaml"
        path.write_text(yaml.safe_dump({"columns": rules}), "utf-8", "replace")
        found = lawful(lambda: read_mapping(path))
    if found is not None and columns:
        batch = pa.RecordBatch.from_pydict(columns)
        made = lawful(lambda: mapped(batch, found, CONTRACT, "site 'north'"))
        if made is not None:
            lawful(lambda: apply_contract(made, CONTRACT, "site 'north'"))


YAML_BITS = st.sampled_from(
    [
        "columns:", "  age: {from: x}", "&a [*a]", "*a", "!!python/object:os.system", "? [1]", "2026-99-99", "0x_",
        "1:99:99", "!!int Quillfeather", "!!float Quillfeather", "!!timestamp Quillfeather", "!!binary Quillfeather",
        "{" * 3000, "[" * 3000, "- " * 3000, "&b [1,1]", "<<: *a", "<<: 1", "\t", "\x00", "%YAML 9", "---", "...", ": ",
        "!!set {Quillfeather}", "!!omap [a: 1]", "!!pairs x", "=: =", ".inf", "{a: {b: [c", "2026-02-29 25:61:61",
        "!!timestamp 2026-13-45", "\ud800", "? {a: b}", "1e999", "9" * 5000,
        "columns: {age: {from: a, codes: {Quillfeather: [1]}}}",
        "columns: {age: {from: a, missing: {Quillfeather: 1}}}",
    ]
)  # fmt: skip


@nonsense
@given(st.lists(YAML_BITS | st.text(max_size=10), max_size=6).map("\n".join) | st.binary(max_size=60))
def test_no_text_breaks_the_reader_of_mappings(lawful: Lawful, text: str | bytes) -> None:
    content = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "mapping.yaml"
        path.write_bytes(content)
        lawful(lambda: read_mapping(path))


def test_aliases_that_double_themselves_fill_no_memory(lawful: Lawful, tmp_path: Path) -> None:
    levels = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30))
    (tmp_path / "mapping.yaml").write_text(f"a0: &a0 [x]\n{levels}\ncolumns: {{age: {{from: x, missing: *a29}}}}\n")
    assert lawful(lambda: read_mapping(tmp_path / "mapping.yaml")) is None


CODE = st.sampled_from(["concept:1", "loinc:1-8", "local:HB", "snomed:1"]) | LEAF
COLUMN = st.fixed_dictionaries(
    {"from": st.sampled_from(["age", "sex", "site_of_care", "measurement", "condition", "drug", "death"]) | LEAF},
    optional={
        "codes": st.lists(CODE, max_size=2) | LEAF,
        "take": st.sampled_from(["last", "first", "min", "max", "mean", "count", "exists"]) | LEAF,
        "unit": st.sampled_from(["g/dL", "10*9/L", "Cel"]) | LEAF,
        "molar_mass": st.floats() | LEAF,
        "days_before": st.integers(0, 10**20) | LEAF,
        "days_after": st.integers(0, 10**20) | LEAF,
    },
)
INDEX = st.fixed_dictionaries(
    {"kind": st.sampled_from(["encounter", "measurement", "death"]) | LEAF},
    optional={"codes": st.lists(CODE, max_size=2) | LEAF, "take": st.sampled_from(["first", "last"]) | LEAF},
)
SPEC = st.fixed_dictionaries(
    {"columns": st.dictionaries(st.sampled_from(["a", "b", "patient"]), COLUMN, max_size=3) | LEAF},
    optional={"index": INDEX | LEAF, "patient": LEAF, "more": LEAF},
) | st.dictionaries(LEAF, LEAF, max_size=3)

OMOP: dict[str, str] = {
    "person": "person_id,gender_concept_id,year_of_birth,month_of_birth,day_of_birth,care_site_id",
    "measurement": "person_id,measurement_concept_id,measurement_source_concept_id,measurement_source_value,"
    "measurement_date,measurement_datetime,value_as_number,value_as_concept_id,unit_concept_id,unit_source_value,"
    "operator_concept_id",
    "visit_occurrence": "person_id,visit_concept_id,visit_source_concept_id,visit_source_value,visit_start_date,"
    "visit_start_datetime",
    "concept": "concept_id,concept_code,vocabulary_id",
}
SAMPLE: dict[str, str] = {
    "person": "1,8507,1960,2,3,7", "measurement": "1,1,0,HB,2024-01-02,,13.5,0,0,g/dL,0",
    "visit_occurrence": "1,9201,0,,2024-01-03,", "concept": "1,1-8,LOINC",
}  # fmt: skip


@nonsense
@given(SPEC)
def test_no_specification_breaks_the_reader_of_events(lawful: Lawful, spec: Any) -> None:
    lawful(lambda: parse_spec(spec))
    with TemporaryDirectory() as folder:
        for table, header in OMOP.items():
            (Path(folder) / f"{table}.csv").write_text(f"{header}\n{SAMPLE[table]}\n")
        lawful(lambda: list(read_batches("omop", Path(folder), {"cohort": spec})))


TIME = st.sampled_from(["2024-01-02", "2024-01-02T03:04:05", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00",
                        "20240102", "2024-W01-1", "9999-12-31", "0001-01-01"])  # fmt: skip
NUMBER = st.sampled_from(["1", "1960", "8507", "inf", "nan", "1e400", "-5", "99999999999999999999", "1e10", "0"])


@nonsense
@given(
    rows=st.dictionaries(
        st.sampled_from(sorted(OMOP)), st.lists(st.lists(CELL | TIME | NUMBER, max_size=12), max_size=4), max_size=4
    ),
    garbage=st.none() | st.binary(max_size=80),
    index=st.booleans(),
    days=st.integers(0, 10**12),
)
def test_no_cells_break_an_omop_export(
    lawful: Lawful, rows: dict[str, list[list[str]]], garbage: bytes | None, index: bool, days: int
) -> None:
    with TemporaryDirectory() as folder:
        for table, header in OMOP.items():
            width = header.count(",") + 1
            full = [(row + [""] * width)[:width] for row in rows.get(table, [])]
            text = "\n".join([header, SAMPLE[table], *(",".join(row) for row in full)])
            (Path(folder) / f"{table}.csv").write_bytes(text.encode("utf-8", "surrogatepass"))
        if garbage is not None:
            (Path(folder) / "drug_exposure.csv").write_bytes(garbage)
        spec: dict[str, Any] = {
            "columns": {
                "age": {"from": "age"},
                "hb": {"from": "measurement", "codes": ["loinc:1-8"], "unit": "g/dL", "days_before": days},
                "mean": {"from": "measurement", "codes": ["concept:1"], "take": "mean", "days_after": days},
                "drugs": {"from": "drug", "take": "count"},
            }
        } | ({"index": {"kind": "encounter"}} if index else {})
        lawful(lambda: list(read_batches("omop", Path(folder), {"cohort": spec})))


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(MARKER)
    | st.sampled_from(["active", "deny", "permit", "Patient/" + MARKER, "2024", "0001-01-01", "9999-12-31", "research",
                       "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2024-02-30"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["status", "scope", "category", "coding", "code", "provision", "type", "period", "start", "end",
                         "patient", "reference", "identifier", "value", "resourceType", "entry", "resource"]),
        inner, max_size=4,
    ),
    max_leaves=15,
)  # fmt: skip


def consent(provision: Any) -> dict[str, Any]:
    return {
        "resourceType": "Consent", "status": "active", "scope": {"coding": [{"code": "research"}]},
        "patient": {"reference": "Patient/1"}, "provision": provision,
    }  # fmt: skip


@nonsense
@given(st.dictionaries(st.sampled_from([*consent(0), "entry", "policyRule", "category"]), JSON, max_size=3), JSON)
def test_no_json_breaks_the_reader_of_consents(lawful: Lawful, more: dict[str, Any], provision: Any) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "consents.json"
        for content in (consent(provision) | more, more, provision):
            path.write_text(json.dumps(content))
            lawful(lambda: FhirConsents(path).opted_out(datetime(2026, 1, 1, tzinfo=UTC)))


@nonsense
@given(
    st.binary(max_size=60)
    | st.sampled_from(
        [b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b'{"resourceType": "\\ud800"}', b"\xff\xfe", b"NaN",
         json.dumps(consent({})).replace("Patient/1", "Patient/\\ud800").encode()]
    )
)  # fmt: skip
def test_no_bytes_break_the_readers_of_opt_outs(lawful: Lawful, content: bytes) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "who"
        path.write_bytes(content)
        for source in (FhirConsents(path), IdList(path, ","), FlagColumn(path, "id", "flag")):
            found = lawful(lambda source=source: list(source.opted_out(now)))
            assert found is None or all(isinstance(each, str) for each in found)


@nonsense
@given(st.sampled_from(["", ",,", '"', "\n", "\x00", "é", " ", "\r"]))
def test_no_delimiter_breaks_the_readers_of_opt_outs(lawful: Lawful, delimiter: str) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "who"
        path.write_text(f"id,flag\n{MARKER},1\n")
        lawful(lambda: list(IdList(path, delimiter).opted_out(now)))
        lawful(lambda: list(FlagColumn(path, "id", "flag", delimiter=delimiter).opted_out(now)))


def test_provisions_that_are_nested_deep_are_refused_in_words(lawful: Lawful, tmp_path: Path) -> None:
    for depth in (100, 200, 300, 400, 480, 2_000):
        nested: Any = {}
        text = '{"provision":[' * depth + "{}" + "]}" * depth
        (tmp_path / "c.json").write_text(json.dumps(consent(nested)).replace('"provision": {}', f'"provision": {text}'))
        lawful(lambda: FhirConsents(tmp_path / "c.json").opted_out(datetime(2026, 1, 1, tzinfo=UTC)))


@nonsense
@given(
    st.binary(max_size=120)
    | st.lists(st.tuples(CELL, CELL), max_size=5).map(
        lambda rows: "\n".join(["file,patient", *(",".join(row) for row in rows)]).encode("utf-8", "surrogatepass")
    )
)
def test_no_table_beside_pictures_breaks_their_readers(lawful: Lawful, content: bytes) -> None:
    from wardround.client.connectors import read_pictures
    from wardround.protocol.contract import ImageInput

    image = ImageInput(modality="OT", size=(8, 8), window=(0, 255))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_bytes(content)
        lawful(lambda: patients_by_file(path, "file", "patient"))
        for kind in ("png", "nifti"):
            found = lawful(lambda kind=kind: list(read_pictures(kind, Path(folder), image, {"table": "t.csv"})))
            assert MARKER not in repr(found)


UCUM = st.lists(
    st.sampled_from(["m", "g", "L", "mol", "10*", "9", "/", ".", "2", "-", "+", "{x}", "[", "]", "mm[Hg]", "Cel", "%",
                     "[pH]", "(", ")", "1", "0", "10^", "B", "[iU]", "dB", "99", " ", "eV", "[degF]"]),
    max_size=12,
).map("".join)  # fmt: skip


@nonsense
@given(UCUM | st.text(max_size=45), UCUM | st.sampled_from(["g/L", "mmol/L", "K", "1"]), st.none() | st.floats())
def test_no_text_breaks_units(lawful: Lawful, source: str, target: str, mass: float | None) -> None:
    lawful(lambda: check_unit(source))
    found = lawful(lambda: conversion(source, target, mass))
    assert found is None or np.isfinite([found.factor, found.offset]).all()
