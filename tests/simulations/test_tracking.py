"""Trackers: told what the result holds and nothing else, in a file of this machine, about simulations only."""

import os
import socket
import time
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from wardround.conf.compose import compose_configuration
from wardround.conf.schema import parse_configuration
from wardround.protocol.errors import UsageError
from wardround.protocol.plan import StudyPlan
from wardround.simulations.configured import Simulated, simulate
from wardround.simulations.result import RoundResult, SimulationResult
from wardround.simulations.tracking import replay, tracker_for

SETTINGS = {"strategy": "fedavg", "privacy.epsilon": "3"}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    words = ["study=synthetic", "rounds=3", f"simulation.output={tmp_path_factory.mktemp('runs')}"]
    configuration = parse_configuration(compose_configuration(words))
    return simulate(configuration, today=date(2026, 11, 23), started=time.perf_counter())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's file, in a folder that is not there yet: made once, for it takes seconds."""
    return tmp_path_factory.mktemp("mlflow") / "kept" / "runs.sqlite"


class Listening:
    """A tracker that keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def started(self, plan: StudyPlan, settings: Mapping[str, str]) -> None:
        self.told.append(f"started {plan.study}")

    def round(self, plan: StudyPlan, result: RoundResult) -> None:
        self.told.append(f"round {result.round_number}")

    def ended(self, result: SimulationResult) -> None:
        self.told.append(f"ended {result.final_model[:8]}")

    def stopped(self) -> None:
        self.told.append("stopped")


def test_a_tracker_is_told_of_the_start_each_round_and_the_end(simulated: Simulated) -> None:
    tracker = Listening()
    replay(tracker, simulated.plan, simulated.result, SETTINGS)
    assert tracker.told == [
        "started synthetic", "round 1", "round 2", "round 3", f"ended {simulated.result.final_model[:8]}"
    ]  # fmt: skip


def test_no_tracker_is_told_of_a_study_of_hospitals(simulated: Simulated) -> None:
    tracker = Listening()
    with pytest.raises(UsageError, match="for simulations"):
        replay(tracker, simulated.plan, simulated.result.model_copy(update={"deployed": True}), SETTINGS)
    assert tracker.told == []


@pytest.mark.parametrize("words", ["wandb", "mlflow:http://127.0.0.1/x", "mlflow:databricks://profile"])
def test_what_is_not_a_file_of_this_machine_is_refused(words: str) -> None:
    with pytest.raises(UsageError):
        tracker_for(words)


def numbers(data: Any) -> set[float]:
    """Every number in a result."""
    if isinstance(data, dict):
        return {number for value in data.values() for number in numbers(value)}
    if isinstance(data, list):
        return {number for value in data for number in numbers(value)}
    return {float(data)} if isinstance(data, int | float) and not isinstance(data, bool) else set()


def test_mlflow_holds_what_the_result_holds_and_calls_nobody(
    simulated: Simulated, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: called.append(address))
    tracker = tracker_for(f"mlflow:{store}")
    replay(tracker, simulated.plan, simulated.result, SETTINGS)

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{store}")
    experiment = client.get_experiment_by_name("synthetic")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], "attributes.status = 'FINISHED'")
    assert run.data.params["privacy.epsilon"] == "3"
    assert run.data.tags["plan"] == simulated.plan.digest
    history = client.get_metric_history(run.info.run_id, "north/auroc")
    told = [record.sites["north"].metrics["auroc"] for record in simulated.result.rounds]
    assert [(point.step, point.value) for point in history] == list(enumerate(told, 1))
    allowed = numbers(simulated.result.model_dump(mode="json"))
    assert len(run.data.metrics) > 20 and set(run.data.metrics.values()) <= allowed
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true" and called == []


def test_a_run_that_ends_without_a_result_is_marked_failed(simulated: Simulated, store: Path) -> None:
    tracker = tracker_for(f"mlflow:{store}")
    tracker.started(simulated.plan, {})
    tracker.round(simulated.plan, simulated.result.rounds[0])
    tracker.stopped()

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{store}")
    found = client.get_experiment_by_name("synthetic")
    assert found is not None
    (run,) = client.search_runs([found.experiment_id], "attributes.status = 'FAILED'")
    assert "north/auroc" in run.data.metrics
