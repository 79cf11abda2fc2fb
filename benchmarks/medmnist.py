"""PneumoniaMNIST: the published central figure beside a small network, central and with every strategy of ours.

One real hospital (Guangzhou Women and Children's Medical Center); **its division into four is simulated**, so what a
strategy gains here says nothing of hospitals that really differ. Training and test pictures are the published ones,
less those that occur twice at a simulated hospital. Rounds, batches and learning rate are those of
``conf/study/chest_xray.yaml`` without privacy, the same for every row; parameters are those of ``conf/strategy``.
The central row has as many passes over all pictures as the others have rounds. A round is one pass at each hospital,
and for strategies that need equal numbers of steps (marked) as many steps as such a pass has on average. Robust rules
look at single updates: simulation only. Needs WARDROUND_DATA/pneumonia_cxr28; without it nothing is measured.

Published: Yang et al., Scientific Data 2023;10:41, ResNet-18 on 28 x 28 pixels. The figures are quoted from memory.
"""

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any

import numpy as np
import torch
from flamby import configured, in_one_place, spec

from wardround.client.connectors import Cohort
from wardround.client.evaluation import point, score
from wardround.client.tasks import Task
from wardround.client.tasks.base import Scores
from wardround.client.tasks.images import ImageClassifier
from wardround.conf.compose import compose_configuration
from wardround.conf.schema import parse_configuration
from wardround.protocol.image_tasks import ImageClassification
from wardround.protocol.parameters import Vector
from wardround.protocol.plan import LocalTraining, StrategySpec
from wardround.simulations import Run, run
from wardround.simulations.cohorts import gather
from wardround.strategies import Strategy, simulated_from

PUBLISHED = {"auroc": 0.944, "accuracy": 0.854}
"""The central ResNet-18's, on the 624 test pictures; quoted from memory, not read again."""

SEEDS = (42, 43)
QUICK_ROUNDS = 4


@dataclass(frozen=True)
class Found:
    """One run: each metric of all test pictures together, and its mean over the simulated hospitals.

    ``together`` is NaN for several models: their common ranking would gain from knowing which hospital a picture was
    dealt to, because the simulated shares of pneumonia differ.
    """

    together: dict[str, float]
    hospitals: dict[str, float]


@dataclass(frozen=True)
class Setting:
    """What every row has in common."""

    task: Task
    cohorts: Sequence[Cohort]
    local: LocalTraining
    rounds: int

    @property
    def equal(self) -> LocalTraining:
        """The same number of steps everywhere: what the hospitals take in one pass, on average."""
        batch = self.local.batch_size or 1
        steps = round(mean(-(-cohort.train.patients // batch) for cohort in self.cohorts))
        return self.local.model_copy(update={"steps": steps, "epochs": None})

    def trained(self, chosen: StrategySpec, cohorts: Sequence[Cohort], seed: int, equal: bool = False) -> Run:
        return run(
            task=self.task,
            strategy=simulated_from(chosen),
            cohorts=cohorts,
            rounds=self.rounds,
            local=self.equal if equal else self.local,
            seed=seed,
            compare=False,
        )


def setting(rounds: int | None) -> Setting:
    """The study without protection; ``rounds`` None: as many as it has there."""
    configuration = parse_configuration(compose_configuration(["study=chest_xray", "privacy=none", "secagg=off"]))
    assert isinstance(configuration.task, ImageClassification)
    cohorts, task = gather(configuration).taking_part, ImageClassifier(configuration.task)
    return Setting(task, cohorts, configuration.local, rounds or configuration.rounds)


def tested(common: Setting, models: list[Vector]) -> Found:
    """The test of each hospital's model, on its own test pictures; one model: the same one everywhere."""
    metrics, one = common.task.metrics, len(models) == 1
    every = models * len(common.cohorts) if one else models
    each = [score(common.task, model, cohort.test) for model, cohort in zip(every, common.cohorts, strict=True)]
    everybody = Scores(np.concatenate([s.score for s in each]), np.concatenate([s.target for s in each]))
    together = {name: estimated(point(metrics[name], everybody)) if one else float("nan") for name in PUBLISHED}
    return Found(together, {name: mean(estimated(point(metrics[name], s)) for s in each) for name in PUBLISHED})


def estimated(value: float | None) -> float:
    assert value is not None  # every simulated hospital has test pictures of both classes
    return value


def needs_equal_steps(chosen: StrategySpec) -> bool:
    strategy = simulated_from(chosen)
    return isinstance(strategy, Strategy) and strategy.equal_steps


def central(common: Setting, seed: int) -> Found:
    """The same network on all training pictures in one place: one party, whose rounds are passes."""
    everybody = in_one_place(common.cohorts, normalise=False)
    return tested(common, [common.trained(spec("fedavg"), [everybody], seed).model])


def own(common: Setting, seed: int) -> Found:
    """Each simulated hospital by itself."""
    return tested(common, [common.trained(spec("fedavg"), [cohort], seed).model for cohort in common.cohorts])


def federated(common: Setting, chosen: StrategySpec, equal: bool, seed: int) -> Found:
    """A strategy; where hospitals end with models of their own, those count."""
    done = common.trained(chosen, common.cohorts, seed, equal)
    if not any(site.personalised for site in done.result.sites):
        return tested(common, [done.model])
    each = [(site.personalised or site.shared).metrics for site in done.result.sites]
    hospitals = {name: mean(estimated(metrics[name].value) for metrics in each) for name in PUBLISHED}
    return Found(dict.fromkeys(PUBLISHED, float("nan")), hospitals)


def table(quick: bool) -> list[dict[str, Any]]:
    """Print the table and return its rows for ``--json``."""
    common, seeds = setting(QUICK_ROUNDS if quick else None), SEEDS[:1] if quick else SEEDS
    chosen = [spec("fedavg"), spec("fedper", head_layers=1)] if quick else configured(len(common.cohorts))
    runs: list[tuple[str, Callable[[int], Found]]] = [("central", partial(central, common))]
    if not quick:
        runs.append(("own model", partial(own, common)))
    for strategy in chosen:
        steps = needs_equal_steps(strategy)
        if not steps:
            runs.append((strategy.name, partial(federated, common, strategy, False)))
        if steps or (strategy.name == "fedavg" and not quick):  # FedAvg stands beside those that need it
            runs.append((f"{strategy.name}, {common.equal.steps} steps", partial(federated, common, strategy, True)))

    pictures = sum(cohort.test.patients for cohort in common.cohorts)
    print(
        f"PneumoniaMNIST, ONE real hospital, divided into {len(common.cohorts)} by simulation: {common.rounds} rounds, "
        f"learning rate {common.local.learning_rate}, {pictures} of the 624 published test pictures, "
        f"{len(seeds)} seed(s){'; too few rounds to compare' if quick else ''}"
    )
    print(f"{'':<34}{'all test pictures':^22}{'mean over hospitals':^22}")
    print(f"{'':<34}{'AUROC':>10}{'accuracy':>10}  {'AUROC':>10}{'accuracy':>10}{'s a run':>10}")
    print(f"{'published, ResNet-18, central':<34}{PUBLISHED['auroc']:>10.3f}{PUBLISHED['accuracy']:>10.3f}")
    rows = []
    for label, measure in runs:
        began = perf_counter()
        found = [measure(seed) for seed in seeds]
        seconds, columns = (perf_counter() - began) / len(seeds), ""
        for name, values in (
            ("all test pictures", [f.together for f in found]),
            ("mean over hospitals", [f.hospitals for f in found]),
        ):
            for metric, published in PUBLISHED.items():
                each = [value[metric] for value in values]
                value = mean(each)
                columns += f"{value:>10.3f}" if value == value else f"{'':>10}"
                if value == value:
                    against = published if name == "all test pictures" else None
                    ratio = value / against if against else None
                    rows.append({
                        "case": f"PneumoniaMNIST, {label}", "metric": f"{metric}, {name}", "value": value, "unit": "1",
                        "against": against, "ratio": ratio, "each": each,
                    })  # fmt: skip
            columns += "  "
        print(f"{label:<34}{columns[:-2]}{seconds:>10.0f}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="PneumoniaMNIST: the published central figure beside ours")
    parser.add_argument("--quick", action="store_true", help="central, fedavg, fedper; one seed, few rounds")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data, rows = os.environ.get("WARDROUND_DATA"), []
    if data and (Path(data) / "pneumonia_cxr28").is_dir():
        rows = table(arguments.quick)
    else:
        print("PneumoniaMNIST: not measured, no WARDROUND_DATA/pneumonia_cxr28 (docs/data.md says what it is)")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
