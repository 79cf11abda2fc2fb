"""The command writes hospitals, says what it wrote, and names what it cannot."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wardround.console.cli import app
from wardround.protocol.contract import DataContract
from wardround.protocol.errors import UsageError
from wardround.simulations.synthetic.cohort import WRITERS, contract_of, make_cohort

ROOT = Path(__file__).resolve().parents[3]


def test_the_command_makes_one_folder_a_hospital_and_says_so(tmp_path: Path) -> None:
    out = tmp_path / "hospitals"
    arguments = ["data", "make-cohort", str(out), "--format", "csv", "--sites", "2", "--patients", "30", "--seed", "4"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "60 synthetic patients (emr) of 2 hospitals as csv: 6 files" in done.output
    assert {path.name for path in out.iterdir()} == {"north", "south", "contract.json", "README.txt"}
    contract = json.loads((out / "contract.json").read_text(encoding="utf-8"))
    assert DataContract.model_validate(contract) == contract_of("emr", "csv")


def test_a_folder_that_holds_something_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds something already"):
        make_cohort(tmp_path, format="csv")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"format": "cvs"}, "no format 'cvs'", "did you mean 'csv'?"),
        ({"format": "csv", "kind": "ct"}, "'csv' does not hold 'ct'", "'ct' is written as dicom"),
        ({"format": "dicom", "kind": "pet"}, "'dicom' does not hold 'pet'", "'dicom' holds ct, ct-series, mri, xray"),
        ({"format": "csv", "patients": 0}, "needs a patient", "--patients 1"),
        ({"format": "csv", "sites": 100}, "100 sites", "from 1 to 99"),
    ],
)
def test_what_cannot_be_made_is_named(tmp_path: Path, options: dict[str, object], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as error:
        make_cohort(tmp_path / "new", **options)  # type: ignore[arg-type]
    assert message in error.value.message and hint in error.value.hint
    assert not (tmp_path / "new").exists()


def test_every_format_that_the_help_names_exists_and_the_page_lists_it() -> None:
    page = (ROOT / "docs" / "synthetic.md").read_text(encoding="utf-8")
    shown = CliRunner().invoke(app, ["data", "make-cohort", "--help"], env={"COLUMNS": "300"}).output
    for name, kinds in WRITERS.items():
        assert f"`{name}`" in page and name in shown
        assert all(callable(load()) for load in kinds.values())


def test_the_page_gives_the_true_effects() -> None:
    from wardround.simulations.synthetic import clinical

    page = (ROOT / "docs" / "synthetic.md").read_text(encoding="utf-8")
    columns = {column.name: column for column in clinical.COLUMNS}
    for name, effect in clinical.EFFECTS.items():
        (line,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert float(cells[4]) == effect and float(cells[5] or 0) == clinical.HAZARDS.get(name, 0)
        column = columns[name]
        if column.type == "number":
            assert (cells[1], float(cells[2]), float(cells[3])) == (column.unit, column.center, column.scale)
    assert f"intercept is {clinical.INTERCEPT}" in page and f"{clinical.BASE_RATE} per day" in page


def test_the_command_line_does_not_load_what_it_does_not_use() -> None:
    code = (
        "import sys; from wardround.console import cli; "
        "print([name for name in ('pydicom', 'pyarrow', 'scipy', 'openpyxl', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
