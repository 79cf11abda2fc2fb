"""What pictures teach: AUROC of the imaging studies, federated, without differential privacy and at epsilon 3 and 8.

Lung CT (54 patients at four hospitals): five folds by patient, each fold's patients tested by a model of the others;
three divisions by public seeds; the figure is the AUROC over all patients together, scored by the mean over a patient's
slices, and its mean over the divisions. With 54 patients an AUROC has a standard error of about 0.04, so this is an
exercise and no benchmark of methods. Chest X-rays: the published test pictures. Learning rates and schedules are
public and the same in every fold; they stand in ``CASES``.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any

import numpy as np
import torch

from wardround.client.connectors import Cohort, make_cohort
from wardround.client.evaluation import estimate, score
from wardround.client.tasks import task_from
from wardround.client.tasks.base import Scores
from wardround.client.tasks.binary import auroc
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.simulations.cohorts import gather
from wardround.simulations.experiment import Experiment
from wardround.strategies import strategy_from

FOLDS = 5


@dataclass(frozen=True)
class Case:
    """One row: a study, its schedule without privacy, and the figure that was asked for."""

    study: str
    schedule: tuple[str, ...]
    goal: float


CASES = (
    Case("lung_ct", ("rounds=80", "local.epochs=2", "local.batch_size=8", "local.learning_rate=0.1"), 0.87),
    Case("lung_ct_histogram", ("rounds=60", "local.epochs=5", "local.batch_size=8", "local.learning_rate=0.5"), 0.93),
    Case("chest_xray", ("rounds=15",), 0.93),
)
PLAIN = ("privacy=none", "secagg=off")


def trained(words: list[str], cohorts: list[Cohort]) -> Scores:
    """Scores of all test patients together, by the model that the hospitals trained."""
    configuration = parse_configuration(compose_configuration(words))
    today = datetime.now(UTC).date()
    plan = make_plan(configuration, {c.site: c.declared_patients for c in cohorts}, today)
    task = task_from(plan)
    cap = max(8.0, (configuration.privacy.epsilon or 0) + 1)
    experiment = Experiment(plan, task, strategy_from(plan.strategy), cohorts, today, epsilon_cap=cap, evaluate_every=0)
    model = experiment.run()
    found = [score(task, model, cohort.test) for cohort in cohorts if cohort.test.patients]
    return Scores(np.concatenate([s.score for s in found]), np.concatenate([s.target for s in found]))


def folds(cohort: Cohort, seed: int) -> Iterator[Cohort]:
    """The cohort divided anew, five times: by patient, in an order by a public seed."""
    parts = (cohort.train, cohort.test)
    features = np.concatenate([part.features for part in parts])
    targets = np.concatenate([part.targets for part in parts])
    patient = np.concatenate([cohort.train.patient, cohort.test.patient + cohort.train.patients])
    people = cohort.train.patients + cohort.test.patients
    order = np.random.Generator(np.random.PCG64([seed, *cohort.site.encode()])).permutation(people)
    fold = np.empty(people, np.int64)
    fold[order] = np.arange(people) % FOLDS
    for number in range(FOLDS):
        yield make_cohort(cohort.site, features, targets, test=fold[patient] == number, patients=patient)


def lung(case: Case, words: list[str], seeds: int) -> tuple[list[float], Scores]:
    configuration = parse_configuration(compose_configuration([f"study={case.study}", *PLAIN]))
    cohorts = [cohort for cohort in gather(configuration).cohorts if cohort.train.patients]
    values, last = [], Scores(np.zeros(0), np.zeros((0, 1)))
    for seed in range(seeds):
        found = [trained(words, list(divided)) for divided in zip(*(folds(c, seed) for c in cohorts), strict=True)]
        last = Scores(np.concatenate([s.score for s in found]), np.concatenate([s.target for s in found]))
        # A patient has slices with and without agent in rare cases; the label is then the larger share.
        last = Scores(last.score, np.round(last.target))
        values.append(float(auroc(last, np.ones((1, len(last.score))))[0]))
    return values, last


def measured(case: Case, protection: str, seeds: int) -> dict[str, Any]:
    words = [f"study={case.study}"]
    if protection == "none":
        words += [*PLAIN, *case.schedule]
    else:
        words += ["secagg=off", f"privacy.epsilon={protection}", "privacy.noise_multiplier=auto", "epsilon_cap=9"]
    began = perf_counter()
    if case.study.startswith("lung"):
        values, scores = lung(case, words, seeds)
    else:
        configuration = parse_configuration(compose_configuration([f"study={case.study}", *PLAIN]))
        scores = trained(words, list(gather(configuration).cohorts))
        values = [float(auroc(scores, np.ones((1, len(scores.score))))[0])]
    interval = estimate(auroc, scores)
    return {
        "case": f"{case.study}, epsilon {protection}",
        "metric": "AUROC",
        "value": round(mean(values), 4),
        "unit": "1",
        "against": f"goal {case.goal} without privacy",
        "ratio": round(mean(values) / case.goal, 4),
        "each": [round(value, 4) for value in values],
        "interval": [interval.low, interval.high],
        "patients": len(scores.score),
        "seconds": round(perf_counter() - began, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one division, no privacy, the linear model: under 60 s")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", help="one study")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cases = [CASES[1]] if arguments.quick else [case for case in CASES if arguments.only in (None, case.study)]
    rows = []
    for case in cases:
        for protection in ("none",) if arguments.quick else ("none", "8", "3"):
            row = measured(case, protection, 1 if arguments.quick else 3)
            rows.append(row)
            low, high = row["interval"]
            print(
                f"{row['case']:32} AUROC {row['value']:.3f} {row['each']}, last with 95 % interval "
                f"[{low:.2f}, {high:.2f}] over {row['patients']} patients; {row['against']}; {row['seconds']:.0f} s",
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
