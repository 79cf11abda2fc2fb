"""What was written as a table is read back by other libraries, and equals the generator's table."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd
import pytest

from wardround.client.connectors import read_table
from wardround.client.connectors.table import apply_contract
from wardround.client.settings import read_settings
from wardround.protocol.errors import UsageError
from wardround.simulations.synthetic.as_excel import MOST_ROWS, write_excel
from wardround.simulations.synthetic.as_sqlite import copy_line
from wardround.simulations.synthetic.clinical import CONTRACT
from wardround.simulations.synthetic.hospitals import hospitals

Made = Callable[..., Path]
Truth = Callable[[int, int], pd.DataFrame]
SITES = ("north", "south", "east", "west")


def same(found: pd.DataFrame, true: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(found.set_index("patient"), true, check_dtype=False)
    assert true["potassium"].notna().any() and len(true) == 60


def test_csv(made: Made, truth: Truth) -> None:
    for number, site in enumerate(SITES):
        same(pd.read_csv(made("csv") / site / "data" / "patients.csv", sep=",;"[number % 2]), truth(number, 60))
    assert truth(1, 60).isna().to_numpy().any()


def test_parquet(made: Made, truth: Truth) -> None:
    for number, site in enumerate(SITES):
        same(pd.read_parquet(made("parquet") / site / "data" / "patients.parquet"), truth(number, 60))


def test_excel(made: Made, truth: Truth) -> None:
    path = made("excel") / "south" / "data" / "patients.xlsx"
    same(pd.read_excel(path), truth(1, 60))
    book = openpyxl.load_workbook(path, read_only=True)
    assert book.sheetnames == ["patients", "notes"]
    with pytest.raises(UsageError, match="1,048,575"):
        write_excel(path.parent, hospitals(1, 0)[0], MOST_ROWS + 1)


def test_sqlite(made: Made, truth: Truth) -> None:
    database = sqlite3.connect(made("sqlite") / "south" / "data" / "patients.sqlite")
    same(pd.read_sql("SELECT * FROM patients", database), truth(1, 60))
    database.close()


def test_the_script_for_postgresql_holds_the_same_table(made: Made, truth: Truth) -> None:
    lines = (made("sqlite") / "south" / "data" / "postgresql.sql").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("CREATE TABLE patients (patient text PRIMARY KEY, age integer") and lines[-1] == "\\."
    names = lines[1].removeprefix("COPY patients (").removesuffix(") FROM stdin;").split(", ")
    cells = pd.DataFrame([line.split("\t") for line in lines[2:-1]], columns=names).replace("\\N", np.nan)
    numbers = cells.drop(columns="patient").astype(float)
    same(pd.concat([cells[["patient"]], numbers], axis=1), truth(1, 60))


def test_copy_escapes_what_would_end_a_cell_or_a_row() -> None:
    assert copy_line(("a\tb", "c\\d", "e\nf", None, 3)) == "a\\tb\tc\\\\d\te\\nf\t\\N\t3\n"


@pytest.mark.parametrize("format", ["csv", "parquet", "excel", "sqlite"])
def test_the_site_reads_its_folder_as_its_site_yaml_says(made: Made, truth: Truth, format: str) -> None:
    for number, site in enumerate(SITES):
        folder = made(format) / site
        (source,) = read_settings(folder).data
        table = read_table(source.connector, folder / source.path, source.options)
        records = apply_contract(table, CONTRACT, site)
        true = truth(number, 60)
        assert records.targets[:, 0].tolist() == true["kidney_injury"].tolist()
        creatinine = CONTRACT.feature_names.index("creatinine")
        expected = ((true["creatinine"].fillna(1.1) - 1.1) / 0.4).to_numpy()
        assert np.allclose(records.features[:, creatinine], expected)
