"""From site.yaml to a cohort: several sources, rules between them and the contract, and what makes the cache anew."""

import json
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv
import pytest

from wardround.client import reading
from wardround.client.admission import admit, cohort_of
from wardround.client.connectors import Cohort
from wardround.client.settings import read_settings
from wardround.client.store.database import open_store
from wardround.client.store.folder import SiteFolder
from wardround.client.store.members import Members
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.protocol.errors import UsageError
from wardround.protocol.identity import Identity
from wardround.simulations.datasets import load_dataset

Opened = Callable[..., Cohort]


@pytest.fixture
def folder(tmp_path: Path) -> SiteFolder:
    made = SiteFolder.create(tmp_path / "cleveland", "cleveland", [Identity.generate("anna").public])
    table = next(site for site in load_dataset("heart_disease", "complete").tables if site.site == "cleveland").table
    (made.path / "data").mkdir()
    pyarrow.csv.write_csv(table.slice(0, 200), made.path / "data" / "first.csv")
    pyarrow.csv.write_csv(table.slice(200), made.path / "data" / "second.csv")
    return made


@pytest.fixture
def opened(folder: SiteFolder) -> Opened:
    """Admits the patients of the sources and gives the cohort of the heart disease study."""

    def give(*sources: dict[str, Any], id_column: str = "patient") -> Cohort:
        if sources:
            (folder.path / "site.yaml").write_text(json.dumps({"data": list(sources)}))
        store = open_store(folder.database)
        try:
            settings, members = read_settings(folder.path), Members(store, folder.patients_key())
            admit(folder, settings, members, id_column)
            configuration = parse_configuration(compose_configuration(["study=heart_disease"]))
            plan = make_plan(configuration, {"cleveland": 200, "va": 100, "x": 50}, datetime.now(UTC).date())
            return cohort_of(plan, folder, settings, members)
        finally:
            store.close()

    return give


FIRST, SECOND = {"path": "data/first.csv"}, {"path": "data/second.csv"}


def rows(cohort: Cohort) -> list[tuple[float, ...]]:
    """The records without their order: a patient's hash decides its part, and the key of the hash is the folder's."""
    found = np.concatenate([np.column_stack([part.features, part.targets]) for part in (cohort.train, cohort.test)])
    return sorted(map(tuple, found.tolist()))


def test_several_sources_are_one_cohort(opened: Opened, folder: SiteFolder) -> None:
    together = opened(FIRST, SECOND)
    assert together.train.patients + together.test.patients == 303
    assert 40 < together.test.patients < 140
    whole = (folder.path / "data" / "first.csv").read_text()
    rest = (folder.path / "data" / "second.csv").read_text().partition("\n")[2]
    (folder.path / "data" / "all.csv").write_text(whole + rest)
    assert rows(opened({"path": "data/all.csv"})) == rows(together)


def test_a_mapping_stands_between_a_source_and_the_contract(opened: Opened, folder: SiteFolder) -> None:
    expected = rows(opened(FIRST))
    path = folder.path / "data" / "first.csv"
    header, _, body = path.read_text().partition("\n")
    path.write_text(header.replace('"age"', '"Alter"').replace('"patient"', '"PatNr"') + "\n" + body)
    with pytest.raises(UsageError, match="no column named 'age', 'patient'"):
        opened(id_column="PatNr")
    (folder.path / "mapping.yaml").write_text("columns: {age: {from: Alter}, patient: {from: PatNr}}")
    assert rows(opened(id_column="PatNr")) == expected


def test_a_source_may_have_rules_of_its_own(opened: Opened, folder: SiteFolder) -> None:
    expected = rows(opened(FIRST, SECOND))
    path = folder.path / "data" / "second.csv"
    header, _, body = path.read_text().partition("\n")
    path.write_text(header.replace('"age"', '"Alter"') + "\n" + body)
    (folder.path / "second.yaml").write_text("columns: {age: {from: Alter}}")
    assert rows(opened(FIRST, SECOND | {"mapping": "second.yaml"})) == expected
    with pytest.raises(UsageError, match=r"no file 'third\.yaml'"):
        opened(FIRST, SECOND | {"mapping": "third.yaml"})


def test_features_are_read_again_when_a_source_or_a_rule_changed_and_not_else(
    opened: Opened, folder: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = reading.read_batches

    def counted(connector: str, path: Path, options: Any, columns: Any = None) -> Any:
        read.append(path.name)
        return real(connector, path, options, columns)

    opened(FIRST)  # admitted, and read
    monkeypatch.setattr(reading, "read_batches", counted)

    def reads() -> int:
        read.clear()
        opened()
        return len(read) - 1  # admitting looks at the ids every time

    assert reads() == 0
    (folder.path / "mapping.yaml").write_text("columns: {}")
    assert (reads(), reads()) == (1, 0)
    first = folder.path / "data" / "first.csv"
    first.write_text(first.read_text() + "\n".join(first.read_text().splitlines()[-1:]) + "\n")
    assert (reads(), reads()) == (1, 0)
    opened(FIRST, SECOND)
    assert reads() == -1 + 2, "two sources are asked for their ids, and neither for its features"


def test_an_error_names_source_row_and_rule(opened: Opened, folder: SiteFolder) -> None:
    path = folder.path / "data" / "second.csv"
    lines = path.read_text().splitlines()
    lines[5] = lines[5].replace(lines[5].split(",")[0], '"271828"', 1)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UsageError, match=r"site 'cleveland', data source 2: row 5, column 'age'") as error:
        opened(FIRST, SECOND)
    assert "271828" not in error.value.lines()


def test_a_database_beside_a_file(opened: Opened, folder: SiteFolder) -> None:
    expected = rows(opened(FIRST, SECOND))
    table = pyarrow.csv.read_csv(folder.path / "data" / "second.csv")
    store = sqlite3.connect(folder.path / "emr.sqlite")
    names = ", ".join(table.column_names)
    store.execute(f"CREATE TABLE heart ({names})")
    marks = ", ".join("?" * len(table.column_names))
    cells = zip(*(column.to_pylist() for column in table.columns), strict=True)
    store.executemany(f"INSERT INTO heart VALUES ({marks})", [tuple(map(str, row)) for row in cells])
    store.commit()
    store.close()
    (folder.path / "emr.yaml").write_text("url: sqlite:///emr.sqlite")
    database = {"connector": "sql", "path": "emr.yaml", "options": {"table": "heart"}}
    assert rows(opened(FIRST, database)) == expected
