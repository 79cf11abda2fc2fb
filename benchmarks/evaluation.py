"""Federated evaluation of the heart disease model: AUROC and Brier score at epsilon 1 and 3 on the test domain.

One model is trained and released; then the study that evaluates it is run again and again, each time with the noise of
every hospital drawn anew. Beside each figure the exact one of all test patients pooled, which nobody in a federation
sees: how far the noised figures lie from it (root mean square), how wide half an interval is, and how often it covers.

The interval is of the population that these patients are a sample of. The exact figure of the patients themselves
differs from the noised one by noise alone, so it should be covered at least as often as 95 %.

The same on a schedule: the model after rounds 10 and 20 of a training, both looks out of one epsilon.
"""

import argparse
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np

from wardround.client.connectors import Cohort
from wardround.client.evaluation import point, score
from wardround.client.tasks import Scores, task_from
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.conf.statistics import parse_statistics
from wardround.protocol.parameters import Vector
from wardround.protocol.plan import StudyPlan
from wardround.protocol.weights import WeightsFile, pick, tensors_in
from wardround.simulations.cohorts import Gathered, declared_in, gather
from wardround.simulations.configured import simulate
from wardround.simulations.experiment import Experiment
from wardround.simulations.phase import Phase
from wardround.simulations.result import RoundResult
from wardround.simulations.statistics import count
from wardround.strategies import strategy_for

TODAY = date(2026, 11, 29)
MODES: dict[str, Callable[[float], dict[str, Any]]] = {
    "local": lambda epsilon: {"mode": "local", "epsilon": epsilon},
    # The same epsilon against the coordinator and who colludes; against everyone it is what one share of noise gives.
    "dist": lambda epsilon: {"mode": "dist", "epsilon": 20.0, "epsilon_consortium": epsilon},
}


def released(folder: Path) -> Path:
    """A model of the heart disease study as it comes out of a run: without protection, so that it is a good one."""
    given = ["study=heart_disease", "privacy=none", f"simulation.output={folder}"]
    configuration = parse_configuration(compose_configuration(given))
    return simulate(configuration, today=TODAY, started=perf_counter()).folder.path


def evaluation_of(model: Path, privacy: dict[str, Any]) -> tuple[StudyPlan, Gathered]:
    """The plan of the study that evaluates ``model``, and the hospitals."""
    query = {"name": "model", "kind": "evaluation", "model": str(model)}
    asked = {"like": "heart_disease", "privacy": privacy, "statistics": {"patients": "test", "queries": [query]}}
    configuration = parse_statistics(asked)
    gathered = gather(configuration)
    return make_plan(configuration, declared_in(gathered, configuration.task), TODAY), gathered


def pooled(folder: Path, cohorts: tuple[Cohort, ...]) -> dict[str, float]:
    """The exact figures of all hospitals' test patients together."""
    plan = StudyPlan.parse((folder / "plan.json").read_bytes())
    task = task_from(plan)
    model: Vector = pick(tensors_in((folder / "model.safetensors").read_bytes()), plan.layout.tensors)
    scores = [score(task, model, cohort.test) for cohort in cohorts]
    together = Scores(np.concatenate([each.score for each in scores]), np.concatenate([each.target for each in scores]))
    area = point(task.metrics["auroc"], together)
    assert area is not None
    return {"AUROC": area, "Brier score": float(np.square(together.score - together.target[:, 0]).mean())}


def measure(repetitions: int, epsilons: tuple[float, ...], modes: tuple[str, ...]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with TemporaryDirectory() as folder:
        model = released(Path(folder))
        data = (model / "model.safetensors").read_bytes()

        def installed(file: WeightsFile) -> bytes:
            return data

        for mode in modes:
            for epsilon in epsilons:
                plan, gathered = evaluation_of(model, MODES[mode](epsilon))
                exact = pooled(model, gathered.taking_part)
                found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in exact}
                for _ in range(repetitions):
                    for cell in count(plan, gathered.taking_part, TODAY, epsilon_cap=40, installed=installed).cells:
                        if cell.quantity in exact and cell.value is not None:
                            assert cell.low is not None and cell.high is not None
                            found[cell.quantity].append((cell.value, cell.low, cell.high))
                case = f"heart disease, {mode}, epsilon {epsilon:g}, {repetitions} repetitions"
                rows += [
                    row for name, each in found.items() for row in _rows(case, name, each, exact[name], repetitions)
                ]
    return rows


def on_schedule(repetitions: int, epsilons: tuple[float, ...], schedule: tuple[int, ...]) -> list[dict[str, Any]]:
    """The rows of an evaluation phase; the models are those of a training without protection, so good ones."""
    words = ["study=heart_disease", f"rounds={schedule[-1]}", "secagg=off"]
    training = parse_configuration(compose_configuration([*words, "privacy=none"]))
    gathered = gather(training)
    cohorts, declared = gathered.taking_part, declared_in(gathered, training.task)
    plain = make_plan(training, declared, TODAY)
    experiment, models = Experiment(plain, task_from(plain), strategy_for(plain), cohorts, TODAY, evaluate_every=0), {}

    def keep(result: RoundResult) -> None:
        models[result.round_number] = experiment.model

    experiment.run(keep)
    rows: list[dict[str, Any]] = []
    for epsilon in epsilons:
        given = [*words, f"evaluation.rounds={list(schedule)}", f"evaluation.epsilon={epsilon}"]
        plan = make_plan(parse_configuration(compose_configuration(given)), declared, TODAY).evaluation_plan
        assert plan is not None
        found: dict[int, list[tuple[float, float, float]]] = {number: [] for number in schedule}
        for _ in range(repetitions):
            phase = Phase(plan, cohorts, TODAY, 40.0, 40.0, None)
            for number in schedule:
                phase.after(number, models[number])
            for look in phase.result().rounds:
                area = next(figure for figure in look.figures if figure.quantity == "AUROC")
                if area.value is not None and area.low is not None and area.high is not None:
                    found[look.after_round].append((area.value, area.low, area.high))
        for number, each in found.items():
            case = f"heart disease, local, epsilon {epsilon:g} of {len(schedule)} looks, after round {number}"
            rows += _rows(case, "AUROC", each, _area(plain, models[number], cohorts), repetitions)
    return rows


def _area(plan: StudyPlan, model: Vector, cohorts: tuple[Cohort, ...]) -> float:
    """The exact AUROC of all hospitals' test patients together."""
    task = task_from(plan)
    scores = [score(task, model, cohort.test) for cohort in cohorts]
    area = point(
        task.metrics["auroc"],
        Scores(np.concatenate([each.score for each in scores]), np.concatenate([each.target for each in scores])),
    )
    assert area is not None
    return area


def _rows(
    case: str, name: str, found: list[tuple[float, float, float]], exact: float, repetitions: int
) -> list[dict[str, Any]]:
    value, low, high = np.array(found).reshape(-1, 3).T
    figures = {
        "shown": len(value) / repetitions,
        "mean": float(value.mean()),
        "error": float(np.sqrt(np.square(value - exact).mean())),
        "half interval": float((high - low).mean() / 2),
        "covers the pooled figure": float(((low <= exact) & (exact <= high)).mean()),
    }
    return [
        {"case": case, "metric": f"{name}: {metric}", "value": number, "unit": "1", "against": exact, "ratio": None}
        for metric, number in figures.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10 repetitions in mode local")
    parser.add_argument("--json", type=Path, help="also write the rows as JSON")
    given = parser.parse_args()
    rows = measure(*((10, (1.0, 3.0), ("local",)) if given.quick else (100, (1.0, 3.0), ("local", "dist"))))
    rows += on_schedule(10 if given.quick else 100, (1.0, 3.0), (10, 20))
    for row in rows:
        print(f"{row['case']:<66} {row['metric']:<38} {row['value']:7.3f}   pooled {row['against']:.3f}")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
