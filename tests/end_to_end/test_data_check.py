"""``wardround data check`` at a hospital's real folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from wardround.client.store.database import open_store
from wardround.client.store.studies import Studies
from wardround.console.commands.data_check import check_command
from wardround.console.commands.data_map import map_command
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.plan import StudyPlan


@pytest.fixture
def proposed(consortium: Any, make_plan_of: Callable[..., StudyPlan]) -> tuple[Path, StudyPlan]:
    plan, folder = make_plan_of("rounds=3", "privacy.noise_multiplier=2.84"), consortium.folders["cleveland"]
    store = open_store(folder.database)
    Studies(store).add(plan.canonical)
    store.close()
    return folder.path, plan


def test_cleveland_is_ready_and_the_consortium_sees_thresholded_counts(
    proposed: tuple[Path, StudyPlan], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, plan = proposed
    check_command(folder, "heart_disease", tmp_path / "outward.json", 10, False)
    said = " ".join(capsys.readouterr().out.split())
    assert "139 of 303 records have the outcome (46%)" in said and "303 patients" in said and "Ready" in said
    outward = json.loads((tmp_path / "outward.json").read_text())
    assert outward["patients"] == 300 and outward["label_positive"] == 135 and outward["ready"] is True
    assert outward["plan"] == plan.digest and outward["site"] == "cleveland"


def test_json_has_every_finding(proposed: tuple[Path, StudyPlan], capsys: pytest.CaptureFixture[str]) -> None:
    folder, plan = proposed
    check_command(folder, plan.digest[:12], None, 10, True)
    said = json.loads(capsys.readouterr().out)
    assert said["plan"] == plan.digest and {"patients", "split"} <= {one["code"] for one in said["findings"]}


def test_what_stops_the_study_ends_with_1(proposed: tuple[Path, StudyPlan], capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = proposed
    settings = (folder / "site.yaml").read_text()
    (folder / "site.yaml").write_text(settings.replace("path: ", "path: gone-", 1))
    try:
        with pytest.raises(typer.Exit) as ended:
            check_command(folder, "heart_disease", None, 10, False)
    finally:
        (folder / "site.yaml").write_text(settings)
    assert ended.value.exit_code == 1 and "Not ready" in capsys.readouterr().out


def test_wrong_words_are_refused(proposed: tuple[Path, StudyPlan], tmp_path: Path) -> None:
    folder, _ = proposed
    with pytest.raises(UsageError, match="no study 'lungs'"):
        check_command(folder, "lungs", None, 10, False)
    with pytest.raises(UsageError, match="hides too little"):
        check_command(folder, "heart_disease", None, 5, False)
    with pytest.raises(Unavailable, match="cannot be written"):
        check_command(folder, "heart_disease", tmp_path / "none" / "x.json", 10, False)


def test_a_proposal_is_printed_or_written_once(
    proposed: tuple[Path, StudyPlan], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, plan = proposed
    map_command(folder, "heart_disease", 1, None)
    printed = capsys.readouterr().out
    assert f"'heart_disease' ({plan.digest[:12]})" in printed and "# age: the name is the contract's" in printed
    map_command(folder, "heart_disease", 1, tmp_path / "mapping.yaml")
    assert (tmp_path / "mapping.yaml").read_text() == printed
    assert "12 of 12 columns are proposed" in capsys.readouterr().out
    with pytest.raises(UsageError, match="exists already"):
        map_command(folder, "heart_disease", 1, tmp_path / "mapping.yaml")
    with pytest.raises(UsageError, match="no data source 2"):
        map_command(folder, "heart_disease", 2, None)


def test_two_columns_of_one_name_are_an_error_of_two_lines(proposed: tuple[Path, StudyPlan], tmp_path: Path) -> None:
    folder, _ = proposed
    (tmp_path / "twice.csv").write_text("age,sex,age\n50,1,51\n")
    settings = (folder / "site.yaml").read_text()
    (folder / "site.yaml").write_text(json.dumps({"data": [{"connector": "csv", "path": str(tmp_path / "twice.csv")}]}))
    try:
        with pytest.raises(UsageError, match="two columns 'age'") as refused:
            map_command(folder, "heart_disease", 1, None)
        with pytest.raises(typer.Exit):
            check_command(folder, "heart_disease", None, 10, False)
    finally:
        (folder / "site.yaml").write_text(settings)
    assert refused.value.hint.startswith("rename one")


def test_the_page_is_written_for_its_owner_alone(
    proposed: tuple[Path, StudyPlan], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, plan = proposed
    check_command(folder, "heart_disease", None, 10, False, tmp_path / "check.html")
    page = (tmp_path / "check.html").read_text()
    assert "303" in page and plan.digest in page and "139 of 303 records have the outcome" in page
    assert (tmp_path / "check.html").stat().st_mode & 0o777 == 0o600
    assert "check.html" in capsys.readouterr().out.replace("\n", "")  # a long path is broken anywhere
    with pytest.raises(Unavailable, match="cannot be written"):
        check_command(folder, "heart_disease", None, 10, False, tmp_path / "none" / "x.html")
