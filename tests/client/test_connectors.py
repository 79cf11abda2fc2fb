"""From a site's table to its cohort: every broken rule is named by row and column, and no value is shown."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from wardround.client.connectors import (
    IMAGE_CONNECTORS,
    IMAGE_PATIENTS,
    cohort_from_table,
    make_cohort,
    read_table,
)
from wardround.client.connectors.table import apply_contract
from wardround.protocol.contract import CodeColumn, CompleteCases, DataContract, FixedValue, NumberColumn
from wardround.protocol.errors import UsageError
from wardround.protocol.labels import ClassLabel, SurvivalLabel

SECRET = "271828"
"""A value that must never be seen in an error."""

CONTRACT = DataContract(
    columns=(
        NumberColumn(name="age", meaning="Age", unit="a", minimum=18, maximum=110, center=50, scale=10),
        CodeColumn(name="sex", meaning="Sex", codes={"0": "female", "1": "male"}, reference="0"),
        NumberColumn(
            name="sugar", meaning="Sugar", unit="mg/dL", minimum=20, maximum=900, center=100, scale=50,
            missing=FixedValue(value=100, indicator=True), missing_codes=(0,),
        ),
    ),
    label=ClassLabel(column="sick", meaning="Sick", positive=("1", "2"), negative=("0",)),
    patient_id="who",
)  # fmt: skip

GOOD = "who,age,sex,sugar,sick\np1,60,1,150,2\np2,40,0,?,0\np1,62,1.0,0,1\np3,?,1,90,0\n"


def table(text: str, tmp_path: Path, **options: object) -> pa.Table:
    path = tmp_path / "site.csv"
    path.write_text(text)
    return read_table("csv", path, options)


def refusal(text: str, tmp_path: Path) -> UsageError:
    with pytest.raises(UsageError) as error:
        apply_contract(table(text, tmp_path), CONTRACT, "site 'x'")
    assert SECRET not in error.value.lines()
    return error.value


def test_a_good_table_becomes_the_matrix_that_the_contract_describes(tmp_path: Path) -> None:
    records = apply_contract(table(GOOD, tmp_path), CONTRACT, "site 'x'")
    assert CONTRACT.feature_names == ("age", "sex=1", "sugar", "sugar missing")
    assert records.features.tolist() == [[1.0, 1.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 1.0], [1.2, 1.0, 0.0, 1.0]]
    assert records.targets[:, 0].tolist() == [1.0, 0.0, 1.0]
    assert records.patients.tolist() == ["p1", "p2", "p1"] and records.rows.tolist() == [0, 1, 2]
    assert records.excluded == {"age missing": 1}


def test_parquet_and_csv_give_the_same_records(tmp_path: Path) -> None:
    typed = pa.table(
        {"who": ["p1", "p2", "p1", "p3"], "age": [60, 40, 62, None], "sex": [1.0, 0.0, 1.0, 1.0],
         "sugar": [150.0, None, 0.0, 90.0], "sick": [2, 0, 1, 0], "unread": ["a", "b", "c", "d"]}
    )  # fmt: skip
    parquet.write_table(typed, tmp_path / "site.parquet")
    one = apply_contract(read_table("parquet", tmp_path / "site.parquet", {}), CONTRACT, "x")
    two = apply_contract(table(GOOD, tmp_path), CONTRACT, "x")
    assert np.array_equal(one.features, two.features) and np.array_equal(one.targets, two.targets)
    assert one.excluded == two.excluded


@pytest.mark.parametrize(
    ("cell", "column", "rule"),
    [
        (f"p1,{SECRET},1,150,2", "age", "must lie in 18 to 110 a"),
        (f"p1,60,{SECRET},150,2", "sex", "must be one of the codes 0, 1"),
        (f"p1,60,1,{SECRET},2", "sugar", "must lie in 20 to 900 mg/dL"),
        (f"p1,60,1,150,{SECRET}", "sick", "must be one of the codes 0, 1, 2"),
        (f"p1,Mr {SECRET},1,150,2", "age", "must be a number"),
        ("p1,nan,1,150,2", "age", "must be a finite number"),
        ("p1,60,1,inf,2", "sugar", "must be a finite number"),
    ],
)
def test_a_broken_rule_names_row_column_and_rule_but_not_the_value(
    cell: str, column: str, rule: str, tmp_path: Path
) -> None:
    error = refusal(f"who,age,sex,sugar,sick\np0,50,0,100,0\n{cell}\n", tmp_path)
    assert error.message == f"site 'x': row 2, column '{column}': {rule}"


def test_several_broken_rows_are_counted(tmp_path: Path) -> None:
    error = refusal("who,age,sex,sugar,sick\np0,5,0,100,0\np1,6,0,100,0\np2,7,0,100,0\n", tmp_path)
    assert "row 1, column 'age'" in error.message and "and 2 more rows" in error.message


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    assert "'sugar', 'sick'" in refusal("who,age,sex\np1,60,1\n", tmp_path).message


def test_a_wrong_delimiter_is_guessed_in_the_hint(tmp_path: Path) -> None:
    assert "';'" in refusal(GOOD.replace(",", ";"), tmp_path).hint
    assert apply_contract(table(GOOD.replace(",", ";"), tmp_path, delimiter=";"), CONTRACT, "x").rows.tolist() == [
        0,
        1,
        2,
    ]


@pytest.mark.parametrize(
    ("text", "says"), [("", "empty"), ("a,b\n1,2,3\n", "not a CSV table")], ids=["empty", "ragged"]
)
def test_what_is_no_table_is_refused_without_quoting_it(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says):
        table(text, tmp_path)


@pytest.mark.parametrize(
    ("encoding", "written"),
    [("utf-8", "utf-8-sig"), ("cp1252", "cp1252"), ("latin-1", "latin-1"), ("utf-16", "utf-16")],
)
def test_a_file_is_read_in_the_encoding_that_the_site_names(encoding: str, written: str, tmp_path: Path) -> None:
    (tmp_path / "site.csv").write_bytes("größe,note\n170,naïve\n".encode(written))
    found = read_table("csv", tmp_path / "site.csv", {"encoding": encoding})
    assert found.to_pydict() == {"größe": ["170"], "note": ["naïve"]}


def test_bytes_of_another_encoding_are_refused_wherever_they_stand(tmp_path: Path) -> None:
    rows = [b"p%d,Mueller" % number for number in range(50_000)]
    rows[40_000] = "p,Müller".encode("cp1252")
    (tmp_path / "mixed.csv").write_bytes(b"patient,name\n" + b"\n".join(rows) + b"\n")
    with pytest.raises(UsageError, match="not a CSV table") as error:
        read_table("csv", tmp_path / "mixed.csv", {})
    assert "it is read as utf-8" in error.value.hint and "ller" not in error.value.lines()
    with pytest.raises(UsageError, match="no encoding 'utf8mb4'"):
        read_table("csv", tmp_path / "mixed.csv", {"encoding": "utf8mb4"})


READ_TO_THE_END = """
import sys
from pathlib import Path
from wardround.client.connectors import read_batches
from wardround.protocol.errors import UsageError

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10

before = peak()
try:
    for batch in {reader}:
        pass
except UsageError as error:
    print(error.message, file=sys.stderr)
print(peak() - before)
"""
LONG_LINE = 512 << 20
AHEAD = 256 << 20
"""Arrow's thread reads up to 32 blocks of 4 MB ahead, however slow the parser is: the rest is for its copies."""


def peak_of(reader: str, path: Path) -> tuple[int, str]:
    """How far reading ``path`` to its end raises a new process's memory at its highest, in bytes; and what it says.

    Its highest, and of the whole process: what stands in Arrow's pool when the error comes is what the thread that
    reads ahead has read by then, which a loaded machine decides.
    """
    code = READ_TO_THE_END.format(reader=reader.format(path=str(path)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout), done.stderr


@pytest.mark.parametrize("header", [b"", b"patient,age\n"], ids=["in the header", "below it"])
def test_a_line_of_512_mb_is_refused_and_does_not_come_into_memory(header: bytes, tmp_path: Path) -> None:
    with (tmp_path / "one.csv").open("wb") as file:
        file.write(header)
        file.truncate(LONG_LINE)
    peak, said = peak_of("read_batches('csv', Path({path!r}), {{}})", tmp_path / "one.csv")
    assert "longer than" in said or "not a CSV table" in said
    assert peak < AHEAD
    whole, _ = peak_of("[Path({path!r}).read_bytes()]", tmp_path / "one.csv")
    assert whole > LONG_LINE, "a reader that takes the whole line would be seen"


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.999])
def test_parquet_that_was_cut_short_is_refused(share: float, tmp_path: Path) -> None:
    path = tmp_path / "cut.parquet"
    parquet.write_table(pa.table({"patient": [f"p{number}" for number in range(5_000)]}), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UsageError, match="not a Parquet file, or not a whole one"):
        read_table("parquet", path, {})


def test_a_missing_file_an_unknown_connector_and_an_unknown_option_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no file 'none\.csv'"):
        read_table("csv", tmp_path / "none.csv", {})
    with pytest.raises(UsageError, match="no connector 'cvs'") as error:
        read_table("cvs", tmp_path / "none.csv", {})
    assert "did you mean 'csv'" in error.value.hint
    with pytest.raises(UsageError, match="has no option 'separator'"):
        read_table("csv", tmp_path / "none.csv", {"separator": ";"})
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(UsageError, match="not a Parquet file"):
        read_table("parquet", tmp_path / "text.parquet", {})


def test_records_of_a_patient_stay_together_in_one_part(tmp_path: Path) -> None:
    rows = [f"p{n % 40},{20 + n % 60},1,150,{n % 2}" for n in range(200)]
    cohort = cohort_from_table(
        "x", table("who,age,sex,sugar,sick\n" + "\n".join(rows), tmp_path), CONTRACT, test_rows=None, test_share=0.5
    )
    assert cohort.train.patients + cohort.test.patients == 40
    assert len(cohort.train.patient) == 5 * cohort.train.patients and 5 < cohort.test.patients < 35


def test_the_part_of_a_patient_is_the_same_in_every_study(tmp_path: Path) -> None:
    def parts(rows: list[str]) -> set[float]:
        text = "who,age,sex,sugar,sick\n" + "\n".join(rows)
        cohort = cohort_from_table("x", table(text, tmp_path), CONTRACT, test_rows=None, test_share=0.4)
        return set(cohort.test.features[:, 0].tolist())

    rows = [f"p{n},{20 + n},1,150,{n % 2}" for n in range(60)]
    assert parts(rows) == parts(rows[::-1])
    assert parts(rows[:30]) == parts(rows) & {(20 + n - 50) / 10 for n in range(30)}


def test_a_patient_in_both_parts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="1 patient"):
        cohort_from_table("x", table(GOOD, tmp_path), CONTRACT, test_rows=np.array([0]), test_share=0.5)


def test_an_empty_table_gives_an_empty_cohort(tmp_path: Path) -> None:
    cohort = cohort_from_table(
        "x", table("who,age,sex,sugar,sick\n", tmp_path), CONTRACT, test_rows=None, test_share=0.5
    )
    assert cohort.train.patients == 0 and cohort.test.patients == 0


def test_a_feature_that_is_not_finite_never_becomes_a_cohort() -> None:
    with pytest.raises(UsageError, match="finite"):
        make_cohort("x", np.array([[1.0], [np.nan]]), np.zeros(2), test=np.zeros(2, bool))


@pytest.mark.parametrize(("patients", "declared"), [(1, 50), (50, 50), (51, 100), (199, 200)])
def test_the_declared_count_is_the_next_fifty(patients: int, declared: int) -> None:
    cohort = make_cohort("x", np.zeros((patients, 1)), np.zeros(patients), test=np.zeros(patients, bool))
    assert cohort.declared_patients == declared


def test_the_declared_count_is_of_patients_and_not_of_their_records() -> None:
    records, patients = 120, np.arange(120) // 3
    cohort = make_cohort(
        "x", np.zeros((records, 1)), np.zeros(records), test=np.zeros(records, bool), patients=patients
    )
    assert cohort.train.patients == 40 and cohort.declared_patients == 50


def test_who_tests_does_not_train_and_everybody_does_one_of_them() -> None:
    testing = np.isin(np.arange(9), (1, 4, 8))
    cohort = make_cohort("x", np.arange(9.0)[:, None], np.zeros(9), test=testing)
    assert cohort.test.features[:, 0].tolist() == [1, 4, 8]
    assert cohort.train.features[:, 0].tolist() == [0, 2, 3, 5, 6, 7]


def test_the_hash_of_a_split_changes_with_one_patient_and_with_nothing_else() -> None:
    def cohort(value: float, *testing: int) -> str:
        return make_cohort("x", np.full((4, 1), value), np.zeros(4), test=np.isin(np.arange(4), testing)).split_hash

    assert cohort(1.0, 1, 2) == cohort(2.0, 1, 2) != cohort(1.0, 1, 3)


def test_a_cohort_cannot_be_serialised_and_shows_no_value() -> None:
    import pickle

    cohort = make_cohort("x", np.full((3, 1), float(SECRET)), np.zeros(3), test=np.zeros(3, bool), excluded={"a": 1})
    assert SECRET not in repr(cohort)
    with pytest.raises(TypeError):
        pickle.dumps(cohort)


def test_survival_targets_are_checked(tmp_path: Path) -> None:
    contract = DataContract(
        columns=(NumberColumn(name="age", meaning="Age", unit="a", minimum=0, maximum=110),),
        label=SurvivalLabel(time="days", event="died", meaning="Death", unit="d", maximum_time=9000),
    )
    good = apply_contract(table("age,days,died\n60,100,1\n50,200,0\n", tmp_path), contract, "x")
    assert good.targets.tolist() == [[100.0, 1.0], [200.0, 0.0]]
    for row, rule in (("60,-1,1", "must lie in 0"), ("60,9001,1", "must lie in 0"), ("60,5,2", "must be 0")):
        with pytest.raises(UsageError, match=rule):
            apply_contract(table(f"age,days,died\n{row}\n", tmp_path), contract, "x")


def test_a_contract_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="below maximum"):
        NumberColumn(name="age", meaning="Age", unit="a", minimum=5, maximum=5)
    with pytest.raises(ValueError, match="reference"):
        CodeColumn(name="sex", meaning="Sex", codes={"0": "f", "1": "m"}, reference="2")
    with pytest.raises(ValueError, match="fixed value"):
        CodeColumn(name="sex", meaning="Sex", codes={"0": "f", "1": "m"}, missing=FixedValue(value=7))
    with pytest.raises(ValueError, match="twice"):
        DataContract(
            columns=(NumberColumn(name="sick", meaning="", unit="1", minimum=0, maximum=1, missing=CompleteCases()),),
            label=CONTRACT.label,
        )


def test_every_source_of_pictures_can_say_whose_they_are() -> None:
    assert set(IMAGE_PATIENTS) == set(IMAGE_CONNECTORS)
