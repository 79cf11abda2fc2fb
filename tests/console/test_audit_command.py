"""``wardround audit``: lower bounds beside the accounted one, and a contradiction that nobody can overlook."""

import json
import subprocess
import sys
from typing import Any

import pytest

from wardround.console.commands import audit as module
from wardround.protocol.errors import WardroundError
from wardround.simulations.attacks.audit import Audit, Row

ROWS = (
    Row("one run, canaries", "right guesses", 1.0, 0.8, True, 3.6, 1.1),
    Row("inversion, image", "similarity of the image", 0.4, 0.1, False),
)


def audit(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wardround.console.cli", "audit", *words], capture_output=True, text=True, timeout=300
    )


def test_a_study_is_attacked_and_the_terms_of_epsilon_are_told() -> None:
    done = audit("study=heart_disease", "--quick", "--json")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert data["site"] == "cleveland" and data["upper"] == pytest.approx(2.99, abs=0.01)
    assert 0 < data["lower"] < data["upper"] < data["visible"] and not data["contradicted"]
    assert data["delta"] == 1e-4 and data["unit"] and data["adjacency"] and data["against"]
    names = [row["attack"] for row in data["rows"]]
    assert names == ["one run, canaries", "membership, loss threshold", "membership, LiRA", "inversion, dense layer",
                     "inversion, image"]  # fmt: skip
    assert all(row["succeeds"] for row in data["rows"] if row["attack"].startswith(("one run", "inversion, dense")))


@pytest.mark.parametrize("words", [("privacy=none",), ("rounds=no",), ("study=nothing",)])
def test_what_cannot_be_audited_is_two_lines(words: tuple[str, ...]) -> None:
    done = audit(*words)
    lines = done.stderr.strip().splitlines()
    assert done.returncode != 0 and len(lines) == 2 and lines[0].startswith("wardround: error: "), done.stderr


def told(monkeypatch: pytest.MonkeyPatch, upper: float) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(module, "audit", lambda *_, **__: Audit("north", 200, 1e-4, upper, ROWS))
    module.audit_command([], quick=True, as_json=False)


def test_a_contradiction_is_an_error_in_capital_letters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(WardroundError, match="CONTRADICTS") as error:
        told(monkeypatch, upper=1.0)
    assert "do not release" in error.value.hint and "delta 0.0001" in error.value.message
    assert "ε at least 1.10" in capsys.readouterr().out


def test_a_control_that_failed_and_an_epsilon_that_is_too_large_are_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told(monkeypatch, upper=5.0)
    text: Any = " ".join(capsys.readouterr().out.split())
    assert "'inversion, image' has no power here" in text and "never confirms" in text
    assert "no result of this audit could have refuted it" in text
