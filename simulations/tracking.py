"""Trackers: who is told of a simulation as it goes, and keeps it beside a researcher's other experiments.

A tracker is told what ``result.json`` holds and nothing else: no patient, no prediction, no model. It is for
simulations only. A hospital's runs have no tracker: what may be known of them is in receipts and ledgers.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from wardround.protocol.errors import UsageError, did_you_mean
from wardround.protocol.plan import StudyPlan
from wardround.simulations.result import RoundResult, SimulationResult

TRACKERS: Final = ("mlflow",)

_BATCH: Final = 1000
"""MLflow takes no more metrics at once."""

_SECONDS: Final = 5.0
"""Metrics wait no longer than that: one transaction for each would take longer than a round."""


class Tracker(Protocol):
    """Told of one run after another: ``started``, each round, and then ``ended`` or ``stopped``."""

    def started(self, plan: StudyPlan, settings: Mapping[str, str]) -> None:
        """A run begins; ``settings`` are the words that tell it from others."""

    def round(self, plan: StudyPlan, result: RoundResult) -> None:
        """A round is over."""

    def ended(self, result: SimulationResult) -> None:
        """The run is over, with its result."""

    def stopped(self) -> None:
        """The run ended without a result."""


def tracker_for(words: str) -> Tracker:
    """``mlflow`` or ``mlflow:FILE``: a store in a file of this machine, by default ``mlflow.sqlite``.

    Raises:
        UsageError: an unknown tracker, a store that is not a file, or a library that is not installed.
    """
    name, _, place = words.partition(":")
    if name not in TRACKERS:
        raise UsageError(f"there is no tracker '{name}'", did_you_mean(name, TRACKERS))
    if "://" in place:
        raise UsageError(
            f"'{place}' is no file", "results go to a file on this machine alone: mlflow or mlflow:FILE.sqlite"
        )
    return MLflow(Path(place or "mlflow.sqlite"))


def replay(tracker: Tracker, plan: StudyPlan, result: SimulationResult, settings: Mapping[str, str]) -> None:
    """Tell ``tracker`` of a run that is over. Raises UsageError for one that hospitals took part in."""
    if result.deployed:
        raise UsageError("a tracker is for simulations", "what may be known of hospitals is in receipts and ledgers")
    tracker.started(plan, settings)
    for record in result.rounds:
        tracker.round(plan, record)
    tracker.ended(result)


class MLflow:
    """MLflow's tracking in one SQLite file, without its telemetry (optional extra ``mlflow``).

    An experiment is a study; a run's tags are its settings. Metrics of hospitals are ``site/metric``.
    """

    def __init__(self, store: Path) -> None:
        # Read when mlflow is imported; nothing of a study may go to its makers.
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        os.environ["DO_NOT_TRACK"] = "true"
        try:
            from mlflow import MlflowClient, entities
        except ModuleNotFoundError:
            raise UsageError("MLflow is not installed", "install it: pip install 'wardround[mlflow]'") from None
        store.absolute().parent.mkdir(parents=True, exist_ok=True)
        self._client: Any = MlflowClient(tracking_uri=f"sqlite:///{store.absolute()}")
        self._entities: Any = entities
        self._run = ""
        self._metrics: list[Any] = []
        self._logged = 0.0

    def started(self, plan: StudyPlan, settings: Mapping[str, str]) -> None:
        found = self._client.get_experiment_by_name(plan.study)
        experiment = self._client.create_experiment(plan.study) if found is None else found.experiment_id
        name = " ".join(f"{key}={value}" for key, value in settings.items()) or plan.digest[:12]
        run = self._client.create_run(experiment, run_name=name, tags={"plan": plan.digest, "mode": "simulation"})
        self._run = run.info.run_id
        terms = plan.privacy
        parameters: dict[str, object] = {
            "strategy": plan.strategy.name,
            "rounds": plan.rounds,
            "seed": plan.model.seed,
            "privacy.mode": terms.mode.value,
            "privacy.epsilon": terms.epsilon,
            "privacy.delta": terms.delta,
            "privacy.noise_multiplier": terms.noise_multiplier,
            **settings,
        }
        known = {key: str(value) for key, value in parameters.items() if value is not None}
        self._log(params=[self._entities.Param(key, value) for key, value in known.items()])
        self._metrics = []

    def round(self, plan: StudyPlan, result: RoundResult) -> None:
        self._add(_round_metrics(result), result.round_number)
        if time.monotonic() - self._logged >= _SECONDS:
            self._flush()

    def ended(self, result: SimulationResult) -> None:
        last = len(result.rounds)
        for site in result.sites:
            for kind, model in (("own", site.own), ("shared", site.shared), ("personalised", site.personalised)):
                estimates = {} if model is None else model.metrics
                known = {name: found.value for name, found in estimates.items() if found.value is not None}
                self._add({f"{site.site}/{kind}/{name}": value for name, value in known.items()}, last)
        self._add({"seconds": result.seconds}, last)
        self._flush()
        self._client.set_terminated(self._run, status="FINISHED")

    def stopped(self) -> None:
        if self._run:
            self._flush()
            self._client.set_terminated(self._run, status="FAILED")

    def _add(self, metrics: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        self._metrics += [self._entities.Metric(name, value, now, step) for name, value in metrics.items()]

    def _flush(self) -> None:
        for first in range(0, len(self._metrics), _BATCH):
            self._log(metrics=self._metrics[first : first + _BATCH])
        self._metrics = []

    def _log(self, **batch: Any) -> None:
        self._client.log_batch(self._run, **batch)
        self._logged = time.monotonic()


def _round_metrics(result: RoundResult) -> dict[str, float]:
    """The means over hospitals, each hospital's metrics, and its epsilon so far."""
    metrics = {name: value for name, value in result.metrics.items() if value is not None}
    for name, site in result.sites.items():
        metrics |= {f"{name}/{metric}": value for metric, value in site.metrics.items() if value is not None}
        if site.epsilon_site is not None:
            metrics[f"{name}/epsilon_site"] = site.epsilon_site
    return metrics
