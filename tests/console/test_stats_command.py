"""``wardround stats``: what a study would cost and show, its figures in three forms, and two lines for a mistake."""

import csv
import io
import json
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console
from safetensors.numpy import save_file

from wardround.conf.planning import make_plan
from wardround.conf.statistics import read_statistics
from wardround.console.cli_stats import Form
from wardround.console.commands.stats import simulate_command, table_command
from wardround.console.statistics_table import figures
from wardround.protocol.parameters import Total
from wardround.simulations.cohorts import declared_patients
from wardround.strategies.adding import Adding
from wardround.strategies.statistics import expected, read

TERMS = ("delta 0.0001", "one patient of one site", "add or remove one patient", "whoever colludes")
TODAY = date(2026, 11, 29)
ASKED = {
    "like": "heart_disease",
    "privacy": {"mode": "local", "epsilon": 1.0},
    "statistics": {
        "queries": [
            {"name": "patients", "kind": "count", "by": ["sex", "num"]},
            {"name": "age", "kind": "mean", "of": {"column": "age", "lower": 20, "upper": 90}},
        ]
    },
}


def stats(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wardround.console.cli", "stats", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "asked.yaml"
    path.write_text(yaml.safe_dump(ASKED), encoding="utf-8")
    return path


def test_a_proposal_says_what_it_costs_and_how_exact_it_is_before_anything_is_sent(file: Path) -> None:
    done = stats("propose", file)
    text = " ".join(done.stdout.split())
    assert done.returncode == 0, done.stderr
    assert "1.00" in text and all(term in text for term in TERMS)
    assert all(site in text for site in ("cleveland", "hungarian", "switzerland", "va"))
    assert "lifetime budget" in text and "± (95%)" in text
    assert "female · 0" in text, "a group is named by what its code means"


def test_a_simulation_prints_every_figure_as_a_table_as_json_and_as_csv(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed: dict[str, str] = {}
    forms: tuple[Form, ...] = ("table", "json", "csv")
    for form in forms:
        simulate_command(file, form)
        printed[form] = capsys.readouterr().out
    assert "these patients" in printed["table"] and "population" in printed["table"]
    assert all(term in " ".join(printed["table"].split()) for term in TERMS)
    found = json.loads(printed["json"])
    assert found["confidence"] == 0.95 and all(term in found["privacy"][0] for term in TERMS)
    rows = list(csv.DictReader(io.StringIO(printed["csv"])))
    assert len(rows) == len(found["figures"]) == 9 + 1
    total = next(row for row in rows if row["group"] == "all | all")
    assert float(total["low"]) < float(total["value"]) < float(total["high"])
    # Every one of the 740 patients is counted; six deviations of the noise of four hospitals and four cells.
    assert abs(float(total["value"]) - 740) < 6 * (float(total["high"]) - float(total["value"])) / 1.96


def test_who_has_plan_and_sums_makes_the_same_table(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configuration = read_statistics(file)
    plan = make_plan(configuration, declared_patients(configuration), TODAY)
    strategy, sums = Adding(), [4.0, 9.0, 16.0, 25.0, 60.0, 0.0, 6.0]
    state = strategy.step(strategy.init(plan.starting_model()), Total(strategy.added(np.array(sums)), 4))
    (tmp_path / "plan.json").write_bytes(plan.canonical)
    save_file(dict(plan.layout.split(state.model)), tmp_path / "model.safetensors")
    table_command(tmp_path, "json")
    found = json.loads(capsys.readouterr().out)
    cells = read(plan, state.model)
    assert [row["value"] for row in found["figures"]] == [cell.value for cell in cells]
    hidden = [row for row in found["figures"] if row["value"] is None]
    assert hidden and all(row["note"] and row["low"] is None and row["patients"] is None for row in hidden)


def test_a_narrow_screen_shows_every_figure(file: Path) -> None:
    configuration = read_statistics(file)
    plan = make_plan(configuration, declared_patients(configuration), TODAY)
    screen = Console(width=80, record=True, file=io.StringIO())
    screen.print(figures(plan, expected(plan)))
    text = screen.export_text()
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "patients" in text and "age" in text and "mean" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("simulate", "nowhere.yaml"), "no file 'nowhere.yaml'"),
        (("table", "nowhere"), "lacks plan.json or model.safetensors"),
        (("simulate", "nowhere.yaml", "--json", "--csv"), "one output has one form"),
    ],
)
def test_a_mistake_is_answered_in_two_lines(words: tuple[str, ...], message: str) -> None:
    done = stats(*words)
    assert done.returncode == 2 and message in done.stderr
    assert len(done.stderr.splitlines()) == 2
