"""A rehearsal runs the real study on made-up hospitals, and finds what would stop it at real ones."""

from datetime import date
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from wardround.conf.compose import compose_configuration
from wardround.conf.schema import Configuration, parse_configuration
from wardround.console.cli import app
from wardround.protocol.errors import UsageError
from wardround.simulations.rehearsal import rehearse

TODAY = date(2026, 11, 24)
SITES = ("a", "b", "c", "d")


def configured(*words: str) -> Configuration:
    return parse_configuration(compose_configuration(list(words)))


def test_the_rounds_are_those_of_the_study_with_its_protection() -> None:
    found = rehearse(configured("study=heart_disease"), SITES, 120, 2, TODAY)
    assert [result.state for result in found.rounds] == ["closed", "closed"]
    assert found.plan.privacy.secure_aggregation and found.plan.privacy.noise_multiplier == 2.84
    assert all(one.outcome == "replied" for result in found.rounds for one in result.sites.values())


def test_one_hospital_has_one_class_and_every_hospital_has_gaps() -> None:
    found = rehearse(configured("study=heart_disease"), SITES, 120, 1, TODAY)
    classes = [len(np.unique(cohort.train.targets)) for cohort in found.cohorts]
    assert classes == [2, 2, 2, 1]
    assert all(sum(cohort.excluded.values()) > 3 for cohort in found.cohorts)
    assert any(not cohort.train.one_record_each for cohort in found.cohorts)


def test_pictures_are_rehearsed_too() -> None:
    words = ("study=chest_xray", "privacy=none", "task.widths=[4,8]")
    found = rehearse(configured(*words), SITES[:3], 60, 1, TODAY)
    assert found.rounds[0].state == "closed" and found.cohorts[0].train.features.shape[1:] == (1, 28, 28)


def test_a_task_that_does_not_fit_the_contract_is_found() -> None:
    with pytest.raises(UsageError, match="is for pictures of"):
        rehearse(configured("study=chest_xray", "task.size=[32,32]", "privacy=none"), SITES, 60, 1, TODAY)
    with pytest.raises(UsageError, match="at least one round"):
        rehearse(configured("study=heart_disease"), SITES, 60, 0, TODAY)


def test_a_model_that_is_not_fit_for_differential_privacy_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: an engine that forgets to clip does not pass, and without privacy it is said."""
    from wardround.privacy.closed_form import DenseEngine

    real = DenseEngine.gradient_sum

    def unclipped(self: Any, parameters: Any, examples: Any, clip_norm: float | None) -> Any:
        return real(self, parameters, examples, None)

    assert rehearse(configured("study=heart_disease"), SITES, 120, 1, TODAY).unfit == ()
    monkeypatch.setattr(DenseEngine, "gradient_sum", unclipped)
    with pytest.raises(UsageError, match="more to the sum than the clip norm"):
        rehearse(configured("study=heart_disease"), SITES, 120, 1, TODAY)
    words = ("study=heart_disease", "privacy=none", "local.steps=null", "local.epochs=1")
    assert "clip norm" in rehearse(configured(*words), SITES, 120, 1, TODAY).unfit[0]


def test_a_fault_in_training_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: what breaks on an edge value does not pass as a rehearsal."""
    from wardround.client.connectors import table

    real = table._number

    def breaks(cells: Any, column: Any) -> Any:
        values, missing = real(cells, column)
        if not missing.any():
            raise UsageError("this code cannot do without missing values", "")
        return [np.where(missing, np.nan, values[0])], np.zeros_like(missing)

    monkeypatch.setattr(table, "_number", breaks)
    with pytest.raises(UsageError, match="not a finite number"):
        rehearse(configured("study=heart_disease"), SITES, 120, 1, TODAY)


def test_the_command_says_what_happened_and_that_nobody_is_in_it() -> None:
    said = CliRunner().invoke(app, ["study", "rehearse", "--patients", "80", "--rounds", "1", "privacy=none"])
    assert said.exit_code == 0, said.output
    assert "nobody is behind any row" in said.output and "1 of 1 rounds closed" in said.output
    assert said.output.count("patients train") == 4 and "privacy=none" in said.output
