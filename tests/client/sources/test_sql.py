"""Tables and queries of real databases, read and never written, and errors that quote no row and no password."""

import datetime
import json
import sqlite3
import time
import tracemalloc
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from wardround.client.admission import admit, cohort_of
from wardround.client.connectors import broken_off, database, omop_tables, read_batches, read_table
from wardround.client.connectors.broken_off import READINGS, BrokeOff, read_whole
from wardround.client.connectors.database import explained, open_engine
from wardround.client.settings import read_settings
from wardround.client.store.database import open_store
from wardround.client.store.folder import SiteFolder
from wardround.client.store.members import Members
from wardround.protocol.contract import DataContract
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.identity import Identity
from wardround.protocol.tasks import TabularClassification

SECRET = "Fernsby-4711"


def lite(folder: Path, *statements: str) -> Path:
    store = sqlite3.connect(folder / "emr.sqlite")
    for statement in statements:
        store.execute(statement)
    store.commit()
    store.close()
    (folder / "emr.yaml").write_text("url: sqlite:///emr.sqlite\n")
    return folder / "emr.yaml"


@pytest.fixture
def emr(tmp_path: Path) -> Path:
    return lite(
        tmp_path,
        "CREATE TABLE visits (patient TEXT, age INTEGER, hb REAL, note TEXT, died INTEGER)",
        f"INSERT INTO visits VALUES ('p1', 64, 13.1, '{SECRET}', 0)",
        "INSERT INTO visits VALUES ('p2', NULL, 0.1, NULL, 1), ('p3', 71, 1e-7, '', 1)",
    )


def refused(path: Path, kind: type[Exception] = UsageError, **options: Any) -> str:
    with pytest.raises(kind) as error:
        read_table("sql", path, options)
    said = str(error.value.lines())  # type: ignore[attr-defined]
    assert SECRET not in said and "only:read" not in said
    return said


def test_a_table_is_read_as_text_that_loses_nothing(emr: Path) -> None:
    found = read_table("sql", emr, {"table": "visits"})
    assert found.schema.types == [pa.string()] * 5
    assert found.column("age").to_pylist() == ["64", None, "71"]
    assert [float(cell) for cell in found.column("hb").to_pylist()] == [13.1, 0.1, 1e-7]


def test_only_the_asked_columns_are_asked_for(emr: Path) -> None:
    found = read_table("sql", emr, {"table": "visits"}, ["age", "patient", "not there"])
    assert found.column_names == ["patient", "age"]
    queried = read_table("sql", emr, {"query": "SELECT age + 1 AS later, note FROM visits WHERE died = 1"}, ["later"])
    assert queried.to_pydict() == {"later": [None, "72"]}


def test_a_table_without_rows_still_has_its_columns(tmp_path: Path) -> None:
    path = lite(tmp_path, "CREATE TABLE empty (a TEXT, b REAL)")
    assert read_table("sql", path, {"table": "empty"}).schema.names == ["a", "b"]


def test_nothing_can_be_written(emr: Path) -> None:
    assert "read" in refused(emr, query="DELETE FROM visits RETURNING patient")
    assert read_table("sql", emr, {"table": "visits"}).num_rows == 3
    with open_engine(emr).connect() as connection, pytest.raises(Exception, match="readonly"):
        connection.execute(text("DROP TABLE visits"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "a table or a query"),
        ({"table": "visits", "query": "SELECT 1"}, "a table or a query"),
        ({"table": "patients"}, "no such table"),
        ({"query": "SELECT nowhere FROM visits"}, "no such column"),
        ({"query": "SELEKT"}, "does not understand the query"),
        ({"query": f"SELECT * FROM visits WHERE note = '{SECRET}' AND"}, "does not understand the query"),
    ],
)
def test_wrong_options_are_named_without_quoting_them(emr: Path, options: dict[str, str], said: str) -> None:
    assert said in refused(emr, **options)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("url: sqlite:///none.sqlite", "no file 'none.sqlite'"),
        ("url: [1", "does not describe a database"),
        ("uri: sqlite:///emr.sqlite", "does not describe a database"),
        ("url: nonsense", "does not describe a database"),
        ("url: postgresql+psycopg://me:only:read@host/db", "has a password in its url"),
        ("url: oracle+cx_oracle://me@host/db", "kind of database that is not installed"),
        ("url: martian://me@host/db", "kind of database that is not installed"),
        ("url: sqlite:///emr.sqlite\npassword_file: none", "password file 'none' cannot be read"),
    ],
)
def test_a_wrong_connection_file_is_named(emr: Path, content: str, said: str) -> None:
    emr.write_text(content)
    assert said in refused(emr, table="visits")


def test_a_password_that_others_may_read_is_refused(emr: Path) -> None:
    (emr.parent / "pw").write_text("only:read")
    (emr.parent / "pw").chmod(0o640)
    emr.write_text("url: sqlite:///emr.sqlite\npassword_file: pw\n")
    assert "chmod 600" in refused(emr, table="visits")


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "emr.sqlite").write_bytes(b"Octavia Fernsby" * 400)
    (tmp_path / "emr.yaml").write_text("url: sqlite:///emr.sqlite\n")
    assert "SQLite file cannot be read" in refused(tmp_path / "emr.yaml", table="visits")


def test_a_column_of_bytes_is_refused_by_name(tmp_path: Path) -> None:
    path = lite(tmp_path, "CREATE TABLE t (a BLOB)", "INSERT INTO t VALUES (x'00ff')")
    assert "column 'a'" in refused(path, table="t")


@pytest.mark.server("postgres")
def test_postgres_gives_the_same_cells(postgres: Any, tmp_path: Path) -> None:
    with postgres.admin().begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS kinds"))
        connection.execute(
            text(
                "CREATE TABLE kinds (i bigint, n numeric, f double precision, t text, b boolean, d date, z timestamptz)"
            )
        )
        row = {
            "i": 2**60, "n": Decimal("0.100"), "f": 0.1, "t": "ö;\"'", "b": True, "d": datetime.date(2026, 2, 28),
            "z": datetime.datetime(2026, 2, 28, 12, tzinfo=datetime.UTC),
        }  # fmt: skip
        connection.execute(
            text("INSERT INTO kinds VALUES (:i, :n, :f, :t, :b, :d, :z), (NULL,NULL,NULL,NULL,NULL,NULL,NULL)"), row
        )
    found = read_table("sql", postgres.source(tmp_path), {"table": "public.kinds"}).to_pylist()
    assert found[1] == dict.fromkeys("inftbdz")
    zoned = found[0].pop("z")
    assert datetime.datetime.fromisoformat(zoned) == row["z"]
    assert found[0] == {"i": str(2**60), "n": "0.100", "f": "0.1", "t": "ö;\"'", "b": "1", "d": "2026-02-28"}


@pytest.mark.server("postgres")
def test_the_server_itself_forbids_writing_whatever_the_role_may(postgres: Any, tmp_path: Path) -> None:
    with postgres.admin().begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS writable"))
        connection.execute(text("CREATE TABLE writable (a text)"))
        connection.execute(text("GRANT ALL ON writable TO reader"))
    source = postgres.source(tmp_path)
    refused(source, query=f"INSERT INTO writable VALUES ('{SECRET}') RETURNING a")
    with open_engine(source).connect() as connection, pytest.raises(DBAPIError) as error:
        connection.execute(text("INSERT INTO writable VALUES ('a')"))
    assert "sites only read" in explained(error.value).message
    with postgres.admin().connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM writable")).scalar() == 0


@pytest.mark.server("postgres")
def test_each_refusal_of_the_server_has_its_sentence(postgres: Any, tmp_path: Path) -> None:
    with postgres.admin().begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS hidden"))
        connection.execute(text("CREATE TABLE hidden (a text)"))
        connection.execute(text("REVOKE ALL ON hidden FROM reader"))
    assert "refuses the user or the password" in refused(postgres.source(tmp_path, password="wrong"), table="kinds")
    source = postgres.source(tmp_path)
    assert "may not read" in refused(source, table="hidden")
    assert "no such table" in refused(source, table="public.nowhere")
    assert "no such database" in refused(
        postgres.source(tmp_path, url=f"postgresql+psycopg://reader@127.0.0.1:{postgres.port}/none"), table="kinds"
    )
    quick = postgres.source(tmp_path, timeout_seconds=0.3)
    assert "longer than its time" in refused(quick, query="SELECT pg_sleep(20)::text AS a")


@pytest.mark.server("postgres")
def test_a_connection_that_drops_in_the_middle_is_an_error_and_before_it_another_try(
    postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'reader'"
    source = postgres.source(tmp_path)
    batches = read_batches("sql", source, {"query": "SELECT g::text AS a FROM generate_series(1, 400000) g"})
    rows = [next(batches).num_rows, next(batches).num_rows]
    assert rows == [0, 10_000]
    with postgres.admin().begin() as connection:
        connection.execute(text(kill))
    with pytest.raises(Unavailable, match=r"broke off after [\d,]+ rows; none of them is used"):
        for _ in batches:
            pass
    tries: list[int] = []
    once = database._once

    def first_fails(engine: Any, *rest: Any) -> Any:
        tries.append(1)
        if len(tries) < 3:
            with postgres.admin().begin() as admin, engine.connect() as mine:
                admin.execute(text(kill))
                mine.execute(text("SELECT 1"))
        yield from once(engine, *rest)

    monkeypatch.setattr(database, "_once", first_fails)
    assert read_table("sql", source, {"query": "SELECT 'x' AS a"}).to_pydict() == {"a": ["x"]} and len(tries) == 3


@pytest.mark.server("postgres")
def test_rows_stay_at_the_server_until_they_are_taken(postgres: Any, tmp_path: Path) -> None:
    query = "SELECT g::text AS patient, repeat('x', 200) AS note FROM generate_series(1, 200000) g"
    tracemalloc.start()
    rows = sum(batch.num_rows for batch in read_batches("sql", postgres.source(tmp_path), {"query": query}))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All rows at once would be 40 MB of text alone.
    assert rows == 200_000 and peak < 25e6, peak


def test_a_host_that_does_not_answer_is_the_worlds_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    (tmp_path / "d.yaml").write_text("url: postgresql+psycopg://reader@127.0.0.1:1/emr\n")
    assert "cannot be reached" in refused(tmp_path / "d.yaml", Unavailable, table="visits")


KILL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'reader'"


@pytest.mark.server("postgres")
@pytest.mark.parametrize(("breaks", "whole"), [(READINGS - 1, True), (READINGS, False)])
def test_a_query_whose_backend_is_ended_half_way_is_asked_again_and_nothing_is_doubled_or_lost(
    postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breaks: int, whole: bool
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    query, ended = "SELECT g::text AS a FROM generate_series(1, 400000) g", 0
    source = postgres.source(tmp_path)

    def reading() -> list[str]:
        nonlocal ended
        found: list[str] = []
        for batch in read_batches("sql", source, {"query": query}):
            found += batch.column("a").to_pylist()
            if len(found) == 20_000 and ended < breaks:
                ended += 1
                with postgres.admin().begin() as admin:
                    admin.execute(text(KILL))
        return found

    if whole:
        assert read_whole(reading) == [str(number) for number in range(1, 400_001)]
    else:
        with pytest.raises(BrokeOff, match=r"broke off after [\d,]+ rows; none of them is used"):
            read_whole(reading)
    assert ended == breaks and waited == [1.0, 2.0]


@pytest.mark.server("postgres")
def test_a_study_over_a_database_that_drops_its_connection_has_every_row_once(
    postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the daemon's own way: admission, the cohort's cache, and a backend that is ended in both."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with postgres.admin().begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS cohort"))
        connection.execute(text("CREATE TABLE cohort (patient text, age int, sick int)"))
        connection.execute(
            text("INSERT INTO cohort SELECT 'p' || g, 20 + g % 60, g % 2 FROM generate_series(1, 60000) g")
        )
        connection.execute(text("GRANT SELECT ON cohort TO reader"))
    folder = SiteFolder.create(tmp_path / "north", "north", [Identity.generate("anna").public])
    source = {"connector": "sql", "path": str(postgres.source(tmp_path)), "options": {"table": "public.cohort"}}
    (folder.path / "site.yaml").write_text(json.dumps({"data": [source]}))
    whole, kills = database._once, 0

    def ends(*given: Any) -> Any:
        nonlocal kills
        for number, batch in enumerate(whole(*given)):
            yield batch
            if number == 2 and kills % 2 == 0:
                with postgres.admin().begin() as admin:
                    admin.execute(text(KILL))
            kills += number == 2

    monkeypatch.setattr(database, "_once", ends)
    contract = DataContract.model_validate(
        {
            "columns": [{"type": "number", "name": "age", "meaning": "x", "unit": "a", "minimum": 0, "maximum": 120}],
            "label": {"kind": "class", "column": "sick", "meaning": "x", "positive": ["1"], "negative": ["0"]},
            "patient_id": "patient",
        }
    )
    settings, store = read_settings(folder.path), open_store(folder.database)
    members = Members(store, folder.patients_key())
    assert admit(folder, settings, members, "patient") == 60_000 and kills == 2
    plan: Any = SimpleNamespace(contract_or_fail=contract, task=TabularClassification(), follows=None)
    cohort = cohort_of(plan, folder, settings, members)
    store.close()
    assert kills == 4 and cohort.train.patients + cohort.test.patients == 60_000
    ages = np.concatenate([cohort.train.features[:, 0], cohort.test.features[:, 0]])
    assert len(ages) == 60_000 and ages.sum() == sum(20 + g % 60 for g in range(1, 60_001))


@pytest.mark.server("postgres")
def test_an_omop_table_that_breaks_off_is_known_as_such_also_before_its_first_row(
    postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with postgres.admin().begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS person"))
        connection.execute(text("CREATE TABLE person (person_id bigint)"))
        connection.execute(text("INSERT INTO person SELECT g FROM generate_series(1, 400000) g"))
        connection.execute(text("GRANT SELECT ON person TO reader"))
    try:
        with omop_tables.opened(postgres.source(tmp_path), "public") as tables:
            rows = tables.rows("person", ["person_id"])
            assert next(rows) == ("1",)
            with postgres.admin().begin() as admin:
                admin.execute(text(KILL))
            with pytest.raises(BrokeOff, match="broke off in 'person'; nothing of it is used"):
                list(rows)
            assert len(list(tables.rows("person", ["person_id"]))) == 400_000
    finally:
        with postgres.admin().begin() as connection:
            connection.execute(text("DROP TABLE person"))


def test_only_what_broke_off_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    for error, expected in ((BrokeOff("a", "b"), READINGS), (Unavailable("a", "b"), 1), (UsageError("a", "b"), 1)):
        tried: list[int] = []

        def reading(error: Exception = error, tried: list[int] = tried) -> None:
            tried.append(1)
            raise error

        with pytest.raises(type(error)):
            broken_off.read_whole(reading)
        assert len(tried) == expected
