"""A dry run at a hospital's real folder: it does what a round does, and leaves nothing behind."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wardround.client.dry_run import dry_run
from wardround.client.store.database import open_copy, open_store
from wardround.client.store.studies import Studies
from wardround.client.tasks import task_from
from wardround.console.commands.site_dry_run import dry_run_command
from wardround.protocol.errors import UsageError
from wardround.protocol.plan import StudyPlan
from wardround.simulations.cohorts import gather

Planned = Callable[..., StudyPlan]


@pytest.fixture
def proposed(consortium: Any, make_plan_of: Planned) -> tuple[Path, StudyPlan]:
    """Cleveland's folder, with a private plan proposed and not approved."""
    plan, folder = make_plan_of("rounds=3", "privacy.noise_multiplier=2.84"), consortium.folders["cleveland"]
    store = open_store(folder.database)
    Studies(store).add(plan.canonical)
    store.close()
    return folder.path, plan


def contents(folder: Path) -> dict[str, str]:
    """Every file but the cache and SQLite's own working files, by hash."""
    files = (path for path in folder.rglob("*") if path.is_file() and "cache" not in path.parts)
    kept = (path for path in files if not path.name.endswith(("-shm", "-wal")))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


def entries(folder: Path) -> int:
    return int(open_copy(folder / "ledger.sqlite").execute("SELECT count(*) FROM entries").fetchone()[0])


def test_it_shows_what_a_round_would_do_and_leaves_ledger_and_folder_as_they_were(
    proposed: tuple[Path, StudyPlan], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, plan = proposed
    dry_run_command(folder, "heart_disease", 1, False)  # the cache is made
    before = contents(folder), entries(folder)
    capsys.readouterr()
    dry_run_command(folder, plan.digest[:12], 2, False)
    said = " ".join(capsys.readouterr().out.split())
    assert (contents(folder), entries(folder)) == before
    assert "199 train, 104 test" in said and "show it to nobody outside" in said and "auroc" in said


def test_its_numbers_are_those_of_the_patients(proposed: tuple[Path, StudyPlan], make_plan_of: Planned) -> None:
    """Logistic regression from zeros: a patient's gradient is (1/2 - y) (x, 1), and the loss is ln 2."""
    from wardround.conf.compose import compose_configuration
    from wardround.conf.schema import parse_configuration

    configuration = parse_configuration(compose_configuration(["study=heart_disease"]))
    cohort = next(c for c in gather(configuration).cohorts if c.site == "cleveland")
    plan = make_plan_of("rounds=3", "privacy.noise_multiplier=2.84", "initial.scheme=zeros")
    found = dry_run(plan, task_from(plan), cohort, 1)
    lengths = np.sqrt((cohort.train.features**2).sum(axis=1) + 1) / 2
    assert found.loss_at_start == pytest.approx(np.log(2))
    assert lengths.min() <= found.norms[0] <= found.norms[1] <= found.norms[2] <= lengths.max()
    assert found.clip_norm == plan.privacy.clip_norm and found.clipped is not None
    assert found.clipped == pytest.approx((lengths > plan.privacy.clip_norm).mean(), abs=0.15)
    assert found.declared_patients == 200 and not found.warnings and found.peak_mib > 50


def test_json_has_every_number(proposed: tuple[Path, StudyPlan], capsys: pytest.CaptureFixture[str]) -> None:
    folder, plan = proposed
    dry_run_command(folder, "heart_disease", 2, True)
    said = json.loads(capsys.readouterr().out)
    assert said["plan"] == plan.digest and len(said["rounds"]) == 2 and said["site"] == "cleveland"
    assert set(said["rounds"][0]["metrics"]) == {"accuracy", "auroc", "log_loss"}


def test_an_unknown_study_and_no_rounds_are_named(proposed: tuple[Path, StudyPlan]) -> None:
    with pytest.raises(UsageError, match="no study 'lungs'") as error:
        dry_run_command(proposed[0], "lungs", 1, False)
    assert "heart_disease" in error.value.hint
    with pytest.raises(UsageError, match="at least one round"):
        dry_run_command(proposed[0], "heart_disease", 0, False)


def test_a_site_with_one_class_is_told(consortium: Any, make_plan_of: Planned) -> None:
    from wardround.conf.compose import compose_configuration
    from wardround.conf.schema import parse_configuration

    configuration = parse_configuration(compose_configuration(["study=heart_disease"]))
    cohort = next(c for c in gather(configuration).cohorts if c.site == "switzerland")
    plan = make_plan_of("rounds=3", "privacy.noise_multiplier=2.84")
    found = dry_run(plan, task_from(plan), cohort, 1)
    assert any("one class only" in warning for warning in found.warnings)
