"""What noise costs a model: LOCAL beside DIST beside pooled training, at epsilon 1, 3, 8 and none, on two studies.

Heart disease at four hospitals (logistic regression, FLamby's split) and breast cancer survival in six regions
(TCGA-BRCA, a piecewise exponential hazard, FLamby's split; needs WARDROUND_DATA). 80 steps at q = 0.25, delta 1e-4,
clip norm 1, public scaling. LOCAL: 16 rounds of 5 steps, every hospital adds all of the noise; DIST: 80 secure sums of
one step, every hospital adds a share. Pooled is central DP-SGD on all patients in one place, for comparison only:
nobody may have such a table. Each row has all its epsilons. Figures: a mean over the hospitals' test patients, and the
concordance of their test patients together; mean over repeats and a 95 % interval of that mean. Noise and sampling are
drawn anew each time. The learning rates are public: ``--choose`` shows how the one of the survival study was chosen, on
made-up patients.
"""

import argparse
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from _utility_picture import picture_of
from flamby import brca

from wardround.client.connectors import Cohort, make_cohort
from wardround.client.evaluation import point, score
from wardround.client.tasks import Task
from wardround.client.tasks.base import Scores
from wardround.client.tasks.binary import accuracy, auroc
from wardround.client.tasks.classification import Classification
from wardround.client.tasks.survival import Piecewise, concordance
from wardround.conf.compose import compose_configuration
from wardround.conf.schema import parse_configuration
from wardround.privacy.accounting import calibrate_noise_multiplier, epsilon, rounded_up
from wardround.privacy.gradients import Examples
from wardround.privacy.shares import share_of
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.plan import LocalTraining, PrivacyMode, PrivacyTerms
from wardround.protocol.secagg import colluding, threshold
from wardround.protocol.tasks import SurvivalPiecewise, TabularClassification
from wardround.simulations import run
from wardround.simulations.cohorts import gather
from wardround.strategies import STRATEGIES

STUDENT = {2: 12.706, 10: 2.262}
"""97.5 % quantile of Student's t for so many repeats."""

STEPS, Q, DELTA = 80, 0.25, 1e-4
MODES = ("pooled", "dist", "local")
PIECES = SurvivalPiecewise(cuts=(365.0, 1095.0, 1825.0), baseline_rate=0.0001)
"""Public guesses, in days: those of ``conf/task/piecewise.yaml``."""

Metric = Callable[[Scores, Any], Any]


@dataclass(frozen=True)
class Study:
    """A data set: its cohorts, its public learning rate, and two metrics (at each hospital; all together)."""

    name: str
    task: Task
    cohorts: Sequence[Cohort]
    rate: float
    each: tuple[str, Metric]
    together: tuple[str, Metric]

    @property
    def honest(self) -> int:
        """h = t - max(c, 1)."""
        return threshold(len(self.cohorts)) - max(colluding(len(self.cohorts)), 1)


@dataclass(frozen=True)
class Row:
    """One mode at one target; ``values`` and ``halves`` in the order of the study's two metrics."""

    study: str
    target: float | None
    mode: str
    epsilon_site: float
    epsilon_consortium: float
    metrics: tuple[str, str]
    values: tuple[float, float]
    halves: tuple[float, float]


def heart() -> Study:
    cohorts = gather(parse_configuration(compose_configuration(["study=heart_disease"]))).taking_part
    task = Classification(TabularClassification(hidden=()), cohorts[0].train.features.shape[1])
    return Study("heart disease", task, cohorts, 0.5, ("accuracy", accuracy), ("AUROC", auroc))


def survival(cohorts: Sequence[Cohort], name: str = "breast cancer survival", rate: float = 1.0) -> Study:
    task = Piecewise(PIECES, cohorts[0].train.features.shape[1])
    return Study(name, task, cohorts, rate, ("c-index", concordance), ("c-index", concordance))


def pooled(cohorts: Sequence[Cohort]) -> Cohort:
    """All training patients as one site."""
    parts = [cohort.train for cohort in cohorts]
    together = Examples(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.targets for part in parts]),
        np.arange(sum(part.patients for part in parts)),
        sum(part.patients for part in parts),
    )
    return replace(cohorts[0], site="pooled", train=together)


def terms(mode: str, target: float | None, honest: int) -> tuple[PrivacyTerms | None, float, float]:
    """(terms, epsilon against everyone, epsilon against the coordinator and c hospitals) of one row."""
    if target is None:
        return None, math.inf, math.inf
    sigma = calibrate_noise_multiplier(target, DELTA, Q, STEPS)
    share = share_of(sigma, honest) if mode == "dist" else sigma
    costs = [
        epsilon(
            [PoissonGaussian(noise_multiplier=noise, sampling_probability=Q, steps=STEPS, declared_patients=1)], DELTA
        )
        for noise in (share, share * math.sqrt(honest) if mode == "dist" else share)
    ]
    made = PrivacyTerms(
        mode=PrivacyMode.DIST if mode == "dist" else PrivacyMode.LOCAL,
        secure_aggregation=mode == "dist",
        noise_multiplier=share,
        sampling_probability=Q,
        delta=DELTA,
        epsilon=costs[0] + 1e-9,
        epsilon_consortium=costs[1] + 1e-9 if mode == "dist" else None,
    )
    return made, costs[0], costs[1]


def once(study: Study, mode: str, privacy: PrivacyTerms | None) -> tuple[float, float]:
    """(mean of the hospitals that have a figure, all test patients together) of one training."""
    sites = [pooled(study.cohorts)] if mode == "pooled" else study.cohorts
    steps = 1 if mode == "dist" else 5
    batch = None if privacy else round(Q * mean(site.train.patients for site in sites))
    done = run(
        task=study.task,
        strategy=STRATEGIES["fedavg"](),
        cohorts=sites,
        rounds=STEPS // steps,
        local=LocalTraining(steps=steps, batch_size=batch, learning_rate=study.rate),
        privacy=privacy,
        scheme="zeros",
        min_sites=min(3, len(sites)),
        epsilon_cap=1000.0,
        consortium_cap=1000.0,
        compare=False,
    )
    scores = [score(study.task, done.model, cohort.test) for cohort in study.cohorts]
    together = Scores(np.concatenate([s.score for s in scores]), np.concatenate([s.target for s in scores]))
    each = [point(study.each[1], one) for one in scores]
    return mean(value for value in each if value is not None), point(study.together[1], together) or 0.0


def measure(study: Study, targets: Sequence[float | None], repeats: int) -> list[Row]:
    """Every mode at every target, printed as it comes."""
    colluders = max(colluding(len(study.cohorts)), 1)
    names = (f"{study.each[0]}, mean", f"{study.together[0]}, all")
    print(f"\n{study.name}: {len(study.cohorts)} hospitals, h = {study.honest}, {repeats} repeats, δ = {DELTA:g}")
    print(f"{'target':>7} {'mode':<7} {'ε site':>7} {'ε consort.':>10} {names[0]:>16} {names[1]:>16}")
    rows = []
    for target in targets:
        for mode in MODES:
            privacy, site, consortium = terms(mode, target, study.honest)
            # Without privacy nothing is drawn: every repeat is the same.
            found = [once(study, mode, privacy) for _ in range(repeats if privacy else 1)]
            columns = list(zip(*found, strict=True))
            values = tuple(mean(column) for column in columns)
            halves = tuple(_half(column) for column in columns)
            rows.append(Row(study.name, target, mode, site, consortium, names, values, halves))  # type: ignore[arg-type]
            told = ["-", "-"] if target is None else [rounded_up(site), rounded_up(consortium)]
            shown = [f"{a:.3f} ± {b:.3f}" if target else f"{a:.3f}" for a, b in zip(values, halves, strict=True)]
            named = "none" if target is None else f"{target:g}"
            print(f"{named:>7} {mode:<7} {told[0]:>7} {told[1]:>10} {shown[0]:>16} {shown[1]:>16}", flush=True)
    print("ε: one patient of one site, add or remove one; site: against everyone, whoever colludes;")
    print(f"   consort.: against the coordinator and {colluders} hospital{'s' if colluders > 1 else ''}.")
    return rows


def _half(values: Sequence[float]) -> float:
    return STUDENT[len(values)] * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def as_json(rows: Sequence[Row]) -> list[dict[str, object]]:
    """A record for each metric of each row; the ratio is to pooled training at the same target."""
    base = {(row.study, row.target): row.values for row in rows if row.mode == "pooled"}
    return [
        {
            "case": f"{row.study}, epsilon {row.target or 'none'}, {row.mode}",
            "metric": metric,
            "value": value,
            "half": half,
            "unit": "share",
            "against": "pooled",
            "ratio": value / base[row.study, row.target][index],
            "study": row.study,
            "target": row.target,
            "mode": row.mode,
            "epsilon_site": row.epsilon_site if row.target else None,
            "epsilon_consortium": row.epsilon_consortium if row.target else None,
            "delta": DELTA,
        }
        for row in rows
        for index, (metric, value, half) in enumerate(zip(row.metrics, row.values, row.halves, strict=True))
    ]


def made_up(seed: int) -> list[Cohort]:
    """Six regions with the public sizes of the survival study, a known risk, and about one event in ten."""
    draws = np.random.Generator(np.random.PCG64(seed))
    risk = draws.normal(scale=0.5, size=39)
    common = draws.uniform(0.05, 0.5, size=38)
    found = []
    for region, patients in enumerate((311, 196, 206, 162, 162, 51)):
        x = np.column_stack([draws.normal(size=patients), draws.random((patients, 38)) < common])
        rate = PIECES.baseline_rate * np.exp((x - np.array([0.0, *common])) @ risk)
        time, censored = draws.exponential(1 / rate), draws.uniform(0, 2000, patients)
        targets = np.column_stack([np.minimum(time, censored), (time <= censored).astype(float)])
        found.append(make_cohort(f"region-{region}", x, targets, test=np.arange(patients) % 5 == 0))
    return found


def choose() -> None:
    """The c-index of made-up patients at epsilon 3, by learning rate: how the survival study's was fixed."""
    for rate in (0.1, 0.3, 1.0, 3.0, 10.0):
        values = []
        for seed in range(5):
            study = survival(made_up(seed), rate=rate)
            values.append([once(study, mode, terms(mode, 3.0, study.honest)[0])[1] for mode in MODES])
        print(f"{rate:>5} " + "  ".join(f"{m} {v:.3f}" for m, v in zip(MODES, np.mean(values, axis=0), strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description="what noise costs a model: pooled, DIST and LOCAL side by side")
    parser.add_argument("--quick", action="store_true", help="2 repeats instead of 10, epsilon 3 and none only")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--plot", type=Path, help="draw the figures into this SVG file")
    parser.add_argument("--figures", type=Path, help="measure nothing: draw what --json wrote to this file")
    parser.add_argument("--choose", action="store_true", help="only show how the survival study's rate was chosen")
    arguments = parser.parse_args()
    if arguments.choose:
        choose()
        return
    measured = arguments.figures
    records = json.loads(measured.read_text()) if measured else as_json(everything(arguments.quick))
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=2) + "\n")
    if arguments.plot:
        arguments.plot.write_text(picture_of(records))


def everything(quick: bool) -> list[Row]:
    repeats, targets = (2, (3.0, None)) if quick else (10, (1.0, 3.0, 8.0, None))
    rows = measure(heart(), targets, repeats)
    if data := os.environ.get("WARDROUND_DATA"):
        return rows + measure(survival(brca(Path(data)).fixed), targets, repeats)
    print("\nbreast cancer survival: not measured, WARDROUND_DATA is not set (docs/data.md says where the table is)")
    return rows


if __name__ == "__main__":
    main()
