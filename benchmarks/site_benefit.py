"""Which strategy helps which hospital: each hospital's own model beside the one that the study leaves it with.

Heart disease at four hospitals. In the published table plain FedAvg beats the own model at 0 of 4 hospitals. Here every
strategy runs with many seeds, without privacy and at epsilon 3 at each hospital. Nothing was tuned on these patients:
one schedule for all (that of ``privacy=local``; batches of 32 where there is no noise), each strategy with the
parameters of ``conf/strategy``. Differences are paired over patients and seeds (``client.benefit``), and all verdicts
of one table hold together at 95 %. Three tables for each privacy:

* published split: FLamby's training and test patients.
* cross-validation: five folds, so that every patient of a hospital tests once in each repeat. Smaller differences can
  be shown. Folds share training patients, so these intervals are a little short (Bengio, Grandvalet 2004).
* few patients: 30 training patients a hospital, drawn by the seed from one half; all of the other half tests.

"fall-back" is the plan's own: each hospital goes on with the model that is best on training patients whom no round has
drawn. Where it keeps its own model its difference is 0. "published" is FLamby's FedAvg with its normalisation and
rates.
"""

import argparse
import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date
from functools import cache, lru_cache
from pathlib import Path
from statistics import mean
from typing import Any

import flamby
import numpy as np
from _benefit_picture import picture_of

from wardround.client.benefit import benefit
from wardround.client.connectors import Cohort, make_cohort
from wardround.client.evaluation import point, score
from wardround.client.fall_back import kept
from wardround.client.own_model import own_model
from wardround.client.tasks import Scores, Task, task_from
from wardround.client.tasks.binary import accuracy
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import Configuration, parse_configuration
from wardround.privacy.accounting import rounded_up
from wardround.protocol.plan import LocalTraining, StudyPlan
from wardround.simulations import run
from wardround.simulations.cohorts import gather
from wardround.simulations.experiment import Experiment
from wardround.strategies import simulated_from, strategy_from

METRIC = "accuracy"
FOLDS = 5
FEW = 30
"""Training patients a hospital in the third table."""
FEW_EACH = f"{FEW} training patients each"
PUBLISHED = "published"
"""FLamby's FedAvg and own models, as its table has them."""

STRATEGIES = (
    "fedavg", "fedprox", "fedadam", "fedyogi", "fedadagrad", "fedavgm", "scaffold", "feddyn", "ditto", "tuned",
    "fedavg + fall-back", "ditto + fall-back", "tuned + fall-back",
)  # fmt: skip
PRIVACY = {
    "none": ("privacy=none", "local.epochs=null", "local.steps=5", "local.batch_size=32"),
    "local": ("privacy=local",),
}
RATE = 0.5
"""The learning rate of all models. It was set before the tables were made; ``--choose``, made after them, agrees."""
SHARE = 0.2


@dataclass(frozen=True)
class Job:
    """One training: of a strategy, under a privacy mode, in one table, with a seed; folds are of the second only."""

    strategy: str
    privacy: str
    protocol: str
    seed: int
    fold: int = 0


@dataclass(frozen=True)
class Found:
    """One hospital after one training; own None: not estimable. ``model`` is which one the hospital is left with."""

    own: Scores | None
    given: Scores
    model: str
    test: np.ndarray
    epsilon: float | None


@dataclass(frozen=True)
class Row:
    """A hospital under a strategy; differences are the given model minus the own one."""

    privacy: str
    protocol: str
    strategy: str
    site: str
    patients: int
    epsilon: float | None
    own: float | None
    given: float
    better_by: float | None
    low: float | None
    high: float | None
    verdict: str
    reason: str
    kept_own: float
    comparisons: int
    seeds: int


@lru_cache(maxsize=1)
def published_cohorts() -> tuple[Cohort, ...]:
    return gather(parse_configuration(compose_configuration(["study=heart_disease"]))).taking_part


@cache
def configured(strategy: str, privacy: str, rate: float = RATE) -> Configuration:
    name, _, fall_back = strategy.partition(" + ")
    share = f"fall_back_share={SHARE if fall_back else 0.0}"
    words = [f"strategy={name}", *PRIVACY[privacy], f"local.learning_rate={rate}", share]
    return parse_configuration(compose_configuration(words))


def everybody(cohort: Cohort) -> tuple[np.ndarray, np.ndarray]:
    """Features and targets of all patients of a hospital, training patients first."""
    parts = (cohort.train, cohort.test)
    return np.concatenate([p.features for p in parts]), np.concatenate([p.targets for p in parts])


def divided(cohort: Cohort, job: Job) -> tuple[Cohort, np.ndarray]:
    """The hospital as this training sees it, and which patients test, by their number in ``everybody``."""
    features, targets = everybody(cohort)
    count = len(targets)
    if job.protocol == "published split":
        test = np.arange(cohort.train.patients, count)
        train = np.arange(cohort.train.patients)
    elif job.protocol == "cross-validation":
        test = by_class(targets, job.seed)[job.fold :: FOLDS]
        train = np.setdiff1d(np.arange(count), test)
    else:
        order = by_class(targets, 0)
        test, half = order[::2], order[1::2]
        evenly = np.linspace(0, len(half) - 1, min(FEW, len(half))).astype(int)
        train = half[by_class(targets[half], job.seed)[evenly]]
    rows = np.concatenate([train, test])
    tests = np.arange(len(rows)) >= len(train)
    return make_cohort(cohort.site, features[rows], targets[rows], test=tests), test


def by_class(targets: np.ndarray, seed: int) -> np.ndarray:
    """The patients in an order drawn with ``seed``, those of one class behind those of the other."""
    order = np.random.Generator(np.random.PCG64((seed, len(targets)))).permutation(len(targets))
    return order[np.argsort(targets[order, 0], kind="stable")]


def train(job: Job) -> dict[str, Found]:
    """Every hospital after one training."""
    base = published_cohorts()
    if job.strategy == PUBLISHED:
        return as_published(job.seed)
    return trained(job, [divided(cohort, job) for cohort in base], configured(job.strategy, job.privacy))


def trained(job: Job, divisions: Sequence[tuple[Cohort, np.ndarray]], configuration: Configuration) -> dict[str, Found]:
    """Every hospital of ``divisions``, each with the numbers of its test patients, after one training."""
    cohorts = [cohort for cohort, _ in divisions]
    initial = configuration.initial.model_copy(update={"seed": job.seed})
    configuration = configuration.model_copy(update={"initial": initial})
    plan = make_plan(configuration, {cohort.site: cohort.declared_patients for cohort in cohorts}, date.today())
    task, strategy = task_from(plan), simulated_from(plan.strategy)
    experiment = Experiment(plan, task, strategy, cohorts, date.today(), evaluate_every=0, wanted="auto")
    experiment.run()
    found = {}
    for cohort, rows in divisions:
        epsilon = experiment.epsilon(experiment.charged[cohort.site])
        found[cohort.site] = left_with(plan, task, experiment, cohort, rows, epsilon)
    return found


def left_with(
    plan: StudyPlan, task: Task, experiment: Experiment, cohort: Cohort, rows: np.ndarray, epsilon: float | None
) -> Found:
    """The own model of a hospital, and the one that the study leaves it with."""
    personal = experiment.personalised(cohort)
    own = own_model(plan, task, cohort)
    own_scores = None if isinstance(own, str) else score(task, own, cohort.test)
    pick = kept(plan, task, cohort, experiment.model, personal)
    name = ("shared" if personal is None else "personalised") if pick is None else pick.model
    if name == "own" and own_scores is not None:
        return Found(own_scores, own_scores, name, rows, epsilon)
    model = experiment.model if name == "shared" or personal is None else personal
    return Found(own_scores, score(task, model, cohort.test), name, rows, epsilon)


def as_published(seed: int) -> dict[str, Found]:
    """FLamby's protocol: features normalised in each centre, FedAvg at rate 0.001, own models by Adam."""
    table = flamby.heart()
    row = next(row for row in table.rows if row.published and row.name == "fedavg")
    local = LocalTraining(steps=flamby.UPDATES, batch_size=row.batch, learning_rate=row.learning_rate)
    done = run(
        task=table.task, strategy=strategy_from(row.spec), cohorts=table.cohorts, rounds=table.rounds, local=local,
        seed=seed, compare=False,
    )  # fmt: skip
    found = {}
    for cohort in table.cohorts:
        own = None
        if len(np.unique(cohort.train.targets)) > 1:
            own = score(table.task, flamby.adam(table, cohort.train, seed), cohort.test)
        given = score(table.task, done.model, cohort.test)
        found[cohort.site] = Found(own, given, "shared", np.arange(cohort.test.patients), None)
    return found


def by_repeat(jobs: Sequence[Job], results: Sequence[dict[str, Found]], site: str) -> dict[int, list[Found]]:
    """The trainings of each seed at one hospital: one, or one for each fold."""
    repeats: dict[int, list[Found]] = {}
    for job, result in zip(jobs, results, strict=True):
        repeats.setdefault(job.seed, []).append(result[site])
    return repeats


def joined(parts: Sequence[Scores], rows: Sequence[np.ndarray]) -> Scores:
    """The scores of all folds in the order of the patients, so that every repeat has the same order."""
    order = np.argsort(np.concatenate(rows), kind="stable")
    return Scores(
        np.concatenate([one.score for one in parts])[order], np.concatenate([one.target for one in parts])[order]
    )


def rows_of(
    jobs: Sequence[Job], results: Sequence[dict[str, Found]], protocol: str, strategies: Sequence[str]
) -> list[Row]:
    """A row for each strategy and hospital of one table."""
    task = task_of_heart()
    sites = sorted(results[0])
    pairs: dict[tuple[str, str], tuple[list[Scores], list[Scores], float, float | None]] = {}
    for strategy in strategies:
        chosen = [(job, found) for job, found in zip(jobs, results, strict=True) if job.strategy == strategy]
        for site in sites:
            repeats = by_repeat([job for job, _ in chosen], [found for _, found in chosen], site)
            own, given = [], []
            for parts in repeats.values():
                rows = [part.test for part in parts]
                given.append(joined([part.given for part in parts], rows))
                owned = [part.own for part in parts if part.own is not None]
                if len(owned) == len(parts):
                    own.append(joined(owned, rows))
            own = own if len(own) == len(given) else []
            keeps = mean(part.model == "own" for parts in repeats.values() for part in parts)
            costs = [part.epsilon for parts in repeats.values() for part in parts if part.epsilon is not None]
            pairs[strategy, site] = own, given, keeps, max(costs, default=None)
    together = sum(bool(own) and len(own[0].score) >= 30 for own, *_ in pairs.values())
    made = []
    for (strategy, site), (own, given, keeps, epsilon) in pairs.items():
        metric = task.metrics[METRIC]
        found = benefit("shared", METRIC, metric, own, given, together, "one class in training")
        made.append(
            Row(
                jobs[0].privacy, protocol, strategy, site, len(given[0].score), epsilon,
                mean(point(metric, one) or 0.0 for one in own) if own else None,
                mean(point(metric, one) or 0.0 for one in given),
                found.better_by.value, found.better_by.low, found.better_by.high, found.verdict, found.reason,
                keeps, together, len(given),
            )
        )  # fmt: skip
    return made


def made_up(seed: int) -> list[Cohort]:
    """Four hospitals with the public sizes and about the public shares of disease, and made-up patients."""
    draws = np.random.Generator(np.random.PCG64(seed))
    risk, made = draws.normal(scale=0.7, size=13), []
    for number, (patients, shift) in enumerate(((303, -0.2), (261, -0.6), (46, 2.5), (130, 1.2))):
        x = draws.normal(size=(patients, 13)) + draws.normal(scale=0.3, size=13)
        y = draws.random(patients) < 1 / (1 + np.exp(-(x @ risk + shift)))
        made.append(make_cohort(f"made-up-{number}", x, y.astype(float), test=np.arange(patients) % 3 == 0))
    return made


def choose() -> None:
    """Accuracy on made-up patients, mean over hospitals and seeds: how the learning rate was fixed."""
    print(f"{'rate':>5}" + "".join(f"{f'{p}: own':>14}{f'{p}: fedavg':>16}" for p in PRIVACY))
    for rate in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0):
        shown = f"{rate:>5}"
        for privacy in PRIVACY:
            pairs = []
            for seed in range(20):
                cohorts = made_up(seed)
                job = Job("fedavg", privacy, "made up", seed)
                found = trained(job, [(one, np.arange(0)) for one in cohorts], configured("fedavg", privacy, rate))
                pairs += [(point(accuracy, f.own), point(accuracy, f.given)) for f in found.values() if f.own]
            own, given = np.mean(pairs, axis=0)
            shown += f"{own:>14.3f}{given:>16.3f}"
        print(shown, flush=True)


def task_of_heart() -> Task:
    return flamby.heart().task


def show(rows: Sequence[Row]) -> None:
    first = rows[0]
    privacy = "no privacy" if first.privacy == "none" else "epsilon 3 at each hospital"
    print(f"\n{first.protocol}, {privacy}, {first.seeds} seeds: accuracy, {first.comparisons} verdicts together")
    print(f"{'strategy':<20}{'hospital':<13}{'own':>7}{'given':>7}{'better by':>11}  {'interval':<18}{'ε':>5}  verdict")
    for row in rows:
        own = "-" if row.own is None else f"{row.own:.3f}"
        by = "-" if row.better_by is None else f"{row.better_by:+.3f}"
        ends = "" if row.low is None or row.high is None else f"{row.low:+.3f} to {row.high:+.3f}"
        spent = "-" if row.epsilon is None else rounded_up(row.epsilon)
        said = row.verdict if row.verdict != "none" else f"no verdict: {row.reason}"
        keeps = f" (keeps its own in {row.kept_own:.0%})" if "fall-back" in row.strategy else ""
        print(f"{row.strategy:<20}{row.site:<13}{own:>7}{row.given:>7.3f}{by:>11}  {ends:<18}{spent:>5}  {said}{keeps}")
    for strategy in dict.fromkeys(row.strategy for row in rows):
        own = [row for row in rows if row.strategy == strategy and row.own is not None]
        above = sum((row.better_by or 0.0) > 0 for row in own)
        below = sum((row.better_by or 0.0) < 0 for row in own)
        shown = {name: sum(row.verdict == name for row in own) for name in ("helps", "harms")}
        print(
            f"{strategy:<20} mean above the own model at {above} of {len(own)}, below at {below}; "
            f"shown: helps {shown['helps']}, harms {shown['harms']}"
        )


def measure(privacies: Sequence[str], strategies: Sequence[str], seeds: int, repeats: int) -> list[Row]:
    """Every table, printed as it comes."""
    rows: list[Row] = []
    with ProcessPoolExecutor(max_workers=min(2, os.cpu_count() or 1)) as pool:
        for privacy in privacies:
            for protocol, count in (("published split", seeds), ("cross-validation", repeats), (FEW_EACH, seeds)):
                published = protocol == "published split" and privacy == "none"
                names = [PUBLISHED, *strategies] if published else list(strategies)
                folds = range(FOLDS) if protocol == "cross-validation" else [0]
                numbers = [(seed, fold) for seed in range(42, 42 + count) for fold in folds]
                jobs = [Job(strategy, privacy, protocol, *number) for strategy in names for number in numbers]
                results = list(pool.map(train, jobs, chunksize=4))
                found = rows_of(jobs, results, protocol, names)
                show(found)
                rows += found
    return rows


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows for ``--json``: accuracy of the given model against the own one, with all that the picture needs."""
    return [
        {
            "case": f"{row.privacy}, {row.protocol}, {row.strategy}, {row.site}",
            "metric": METRIC,
            "value": row.given,
            "unit": "share",
            "against": row.own,
            "ratio": row.given / row.own if row.own else None,
            **row.__dict__,
        }
        for row in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="which strategy helps which hospital, with intervals")
    parser.add_argument("--quick", action="store_true", help="two strategies, 2 seeds, 1 repeat")
    parser.add_argument("--seeds", type=int, default=20, help="trainings on the published split")
    parser.add_argument("--repeats", type=int, default=10, help="repeats of the cross-validation")
    parser.add_argument("--strategies", default=",".join(STRATEGIES), help="which, with commas between")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--plot", type=Path, help="draw the figures into this SVG file")
    parser.add_argument("--figures", type=Path, help="measure nothing: draw what --json wrote to this file")
    parser.add_argument("--choose", action="store_true", help="only compare learning rates on made-up patients")
    arguments = parser.parse_args()
    if arguments.choose:
        choose()
        return
    if arguments.figures:
        records = json.loads(arguments.figures.read_text())
    elif arguments.quick:
        records = as_json(measure(("none", "local"), ("fedavg", "fedavg + fall-back"), 2, 1))
    else:
        records = as_json(
            measure(("none", "local"), arguments.strategies.split(","), arguments.seeds, arguments.repeats)
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=2) + "\n")
    if arguments.plot:
        arguments.plot.write_text(picture_of(records))


if __name__ == "__main__":
    main()
