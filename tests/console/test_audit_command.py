"""``wardround audit``: lower bounds beside the accounted one, and a contradiction that nobody can overlook."""

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import typer

from wardround.console.cli import app, main
from wardround.console.commands import audit as module
from wardround.privacy import dpsgd
from wardround.simulations.attacks import audit as attacks
from wardround.simulations.attacks.audit import Audit, Row
from wardround.simulations.attacks.consortium import audit_of
from wardround.simulations.attacks.membership import Attack

ROWS = (
    Row("one run, canaries", "right guesses", 1.0, 0.8, True, 3.6, 1.1),
    Row("membership, LiRA", "members found at 10 % false alarms", 0.6, 0.1, True, 0.7, 0.0,
        (Attack("LiRA", 0.912, 0.22, 0.6, 0.7), Attack("LiRA", 0.534, 0.01, 0.1, 0.0))),
    Row("inversion, dense layer", "similarity of the record", 1.0, 0.99, True),
    Row("inversion, image", "similarity of the image", 0.4, 0.1, False),
)  # fmt: skip


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
    without, study = data["rows"][2]["members"]
    assert without["auc"] > study["auc"] and 0 <= study["found_at_1"] <= study["found_at_10"] <= 1


@pytest.mark.parametrize("words", [("privacy=none",), ("rounds=no",), ("study=nothing",)])
def test_what_cannot_be_audited_is_two_lines(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["wardround", "audit", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    lines = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and len(lines) == 2 and lines[0].startswith("wardround: error: "), lines


def told(monkeypatch: pytest.MonkeyPatch, upper: float) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(module, "audit", lambda *_, **__: Audit("north", 200, 1e-4, upper, ROWS))
    module.audit_command([], quick=True, as_json=False)


def test_a_contradiction_is_an_error_in_capital_letters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended:
        told(monkeypatch, upper=1.0)
    assert ended.value.exit_code == 1, "a refuted epsilon is told apart from a wrong command, which is 2"
    out, err = capsys.readouterr()
    assert "ε at least 1.10" in out
    error, hint = err.strip().splitlines()
    assert error.startswith("wardround: error: THE AUDIT CONTRADICTS") and "delta 0.0001" in error
    assert hint.startswith("wardround: hint: do not release")


def test_a_mechanism_that_lost_its_noise_is_contradicted_by_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same command on the same study, before and after the noise is taken out of the hospitals' own code. An honest
    run needs 197 right guesses of 200 to be contradicted and has 167 or so: less than once in 10^6 runs."""
    monkeypatch.setattr(attacks, "_membership", lambda *_: ())
    monkeypatch.setattr(attacks, "_image", lambda *_: ROWS[-1])
    assert not app(["audit", "study=heart_disease"], standalone_mode=False)
    honest = capsys.readouterr()
    assert "CONTRADICTS" not in honest.err and "succeeds under the study's own terms" not in honest.out

    noisy_sum = dpsgd.noisy_sum
    monkeypatch.setattr(dpsgd, "noisy_sum", lambda total, c, sigma, source: noisy_sum(total, c, sigma * 1e-6, source))
    assert app(["audit", "study=heart_disease"], standalone_mode=False) == 1
    broken = capsys.readouterr()
    assert "THE AUDIT CONTRADICTS THE ACCOUNTING: epsilon is above 3.57" in broken.err
    assert "'inversion, dense layer' succeeds under the study's own terms" in " ".join(broken.out.split())


def test_a_control_that_failed_and_an_epsilon_that_is_too_large_are_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told(monkeypatch, upper=5.0)
    text: Any = " ".join(capsys.readouterr().out.split())
    assert "'inversion, image' has no power here" in text and "never confirms" in text
    assert "no result of this audit could have refuted it" in text
    assert "22 / 60 %; 0.91" in text and "1 / 10 %; 0.53" in text
    assert "'inversion, dense layer' succeeds under the study's own terms" in text


def test_dist_is_audited_on_both_curves_and_a_share_that_is_left_out_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "audit", lambda *_, **__: Audit("north", 200, 1e-4, 4.72, ROWS))
    module.audit_command(["privacy=dist"], quick=True, as_json=True)
    told = json.loads(capsys.readouterr().out)["consortium"]
    assert told["upper"] == pytest.approx(2.99, abs=0.01) and told["honest"] == 2 and not told["contradicted"]
    assert "at most 1 other hospital" in told["against"] and told["delta"] == 1e-4 and told["unit"]
    # The control: an attacker who found more than was accounted.
    monkeypatch.setattr(module, "audit_of", lambda plan, canaries: replace(audit_of(plan, 4000), epsilon=3.5))
    with pytest.raises(typer.Exit) as ended:
        module.audit_command(["privacy=dist"], quick=True, as_json=False)
    assert ended.value.exit_code == 1
    out, err = capsys.readouterr()
    assert "consortium at least 3.50" in out and "above 3.50" in err and "at most 1 other hospital" in err
