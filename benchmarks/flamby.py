"""The published Fed-Heart-Disease and Fed-TCGA-BRCA tables beside ours, for every strategy; and what epsilon costs.

The published figures are FLamby's (Ogier du Terrail et al., NeurIPS 2022, datasets and benchmarks): its protocol, 100
local updates a round, means over centres of five seeds (42-46). Ours runs that protocol on Wardround's simulator:
features normalised in each centre by its training patients, the same batch sizes, rounds and learning rates, no
privacy. "Our rows" are every strategy of ``conf/strategy`` with its parameters there at one learning rate, and our own
tuning at the same number of rounds, chosen on training patients only (see docs/benchmarks.md). Strategies that keep
layers at the centres need a hidden layer. Robust rules look at single updates: simulation only.

The last table is the curve of utility against epsilon. Its epsilons are what each centre's ledger was charged, and not
what was aimed at. Needs the folder WARDROUND_DATA for all but heart disease; what is absent is named and not measured.
"""

import argparse
import csv
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from wardround.client.connectors import Cohort, make_cohort
from wardround.client.connectors.table import apply_contract
from wardround.client.evaluation import point, score
from wardround.client.tasks import Task
from wardround.client.tasks.classification import Classification
from wardround.client.tasks.survival import Cox
from wardround.conf.compose import choices_of, compose_configuration
from wardround.conf.schema import parse_configuration
from wardround.privacy.gradients import Examples
from wardround.protocol.parameters import initial_weights
from wardround.protocol.plan import LocalTraining, StrategySpec
from wardround.protocol.tasks import SurvivalCox, TabularClassification
from wardround.simulations import run
from wardround.simulations.datasets import heart_disease
from wardround.strategies import simulated_from

ABSENT = ("Fed-Camelyon16", "Fed-LIDC-IDRI", "Fed-IXI", "Fed-KiTS2019", "Fed-ISIC2019")
"""FLamby's other data sets."""

SEEDS = (42, 43, 44, 45, 46)
UPDATES = 100
HIDDEN = 8
"""Units of the hidden layer, where a strategy needs one."""


@dataclass(frozen=True)
class Published:
    """Mean and standard deviation over five seeds (None: not known here): over centres, and of all test patients."""

    mean: float
    sd: float | None
    pooled_test: float | None = None


@dataclass(frozen=True)
class Row:
    """A strategy with its client learning rate and batch size, and what was published for it (None: our own).

    ``hidden``: on a model with a hidden layer instead of the table's own. ``tuned``: the rates were chosen, by us.
    """

    name: str
    spec: StrategySpec
    learning_rate: float
    batch: int
    published: Published | None
    hidden: bool = False
    tuned: bool = False


@dataclass(frozen=True)
class Table:
    """A data set with its protocol and rows.

    ``fixed`` are the cohorts with public scaling, for our own rows; ``everybody`` holds all patients as one cohort.
    """

    name: str
    metric: str
    task: Task
    with_hidden: Task
    cohorts: Sequence[Cohort]
    fixed: Sequence[Cohort]
    everybody: Cohort
    rounds: int
    pooled_epochs: int
    pooled_rate: float
    batch: int
    pooled: Published
    local: Published
    rows: Sequence[Row]


def spec(name: str, **parameters: float) -> StrategySpec:
    return StrategySpec(name=name, parameters=parameters)


def adaptive(name: str, rate: float) -> StrategySpec:
    """The server step as in the published runs: beta .9/.999, tau 1e-8, both moments starting at zero."""
    decay = {} if name == "fedadagrad" else {"beta2": 0.999}
    return spec(name, learning_rate=rate, beta1=0.9, tau=1e-8, initial_v=0.0, **decay)


def configured(centres: int) -> list[StrategySpec]:
    """Every strategy that can be chosen by name, with its parameters in ``conf/strategy``."""
    specs = [parse_configuration(compose_configuration([f"strategy={c}"])).strategy for c in choices_of("strategy")]
    # Krum needs more than 2 f + 2 centres.
    return [spec("krum", attackers=1 if centres > 4 else 0) if s.name == "krum" else s for s in specs]


def every(rate: float, batch: int, centres: int) -> list[Row]:
    """Every strategy with its parameters in ``conf/strategy``, at one learning rate: nothing here was tuned."""
    rows = []
    for chosen in configured(centres):
        hidden = chosen.name in ("fedper", "fedrep")
        name = f"{chosen.name}, hidden layer" if hidden else chosen.name
        rows.append(Row(name, chosen, rate, batch, None, hidden))
    return rows


def normalised(site: str, features: np.ndarray, targets: np.ndarray, test: np.ndarray) -> Cohort:
    """The published normalisation: mean and sample standard deviation of the centre's own training patients.

    A feature that never varies at a centre (Switzerland's cholesterol) becomes 0. No hospital could do this under
    differential privacy without paying for it: both are statistics of patients.
    """
    center, scale = features[~test].mean(axis=0), features[~test].std(axis=0, ddof=1)
    safe = np.where(scale < 1e-12, 1.0, scale)
    return make_cohort(site, np.where(scale < 1e-12, 0.0, (features - center) / safe), targets, test=test)


def in_one_place(cohorts: Sequence[Cohort], normalise: bool) -> Cohort:
    """All patients as one cohort, in the order of the centres."""
    parts = [part for c in cohorts for part in (c.train, c.test)]
    features, targets = np.concatenate([p.features for p in parts]), np.concatenate([p.targets for p in parts])
    test = np.concatenate([np.full(p.patients, index % 2 == 1) for index, p in enumerate(parts)])
    make = normalised if normalise else lambda site, x, y, t: make_cohort(site, x, y, test=t)
    return make("everybody", features, targets, test)


def heart() -> Table:
    """740 complete rows, 13 features (chest pain and electrocardiogram one-hot without their first level)."""
    contract = parse_configuration(compose_configuration([])).contract
    published, fixed = [], []
    for part in heart_disease("complete").tables:
        records = apply_contract(part.table, contract, part.site)
        test = np.isin(records.rows, part.test_rows)
        published.append(normalised(part.site, records.features, records.targets, test))
        fixed.append(make_cohort(part.site, records.features, records.targets, test=test))
    rows = [
        Row("fedavg", spec("fedavg"), 0.001, 4, Published(0.685, 0.028, 0.748)),
        Row("fedprox", spec("fedprox", mu=0.01), 0.001, 4, Published(0.685, 0.028, 0.748)),
        Row("fedadam", adaptive("fedadam", 0.01), 0.01, 4, Published(0.726, 0.014, 0.779)),
        Row("fedyogi", adaptive("fedyogi", 0.01), 0.003162, 4, Published(0.731, 0.013, 0.779)),
        Row("fedadagrad", adaptive("fedadagrad", 0.316228), 0.003162, 4, Published(0.731, 0.013, 0.779)),
        Row("scaffold", spec("scaffold"), 0.001, 4, Published(0.684, None, 0.748)),
        Row("fedavg", spec("fedavg"), 0.1, 16, None, tuned=True),
        Row("fedadam", adaptive("fedadam", 0.1), 0.03, 32, None, tuned=True),
        *every(0.1, 16, len(fixed)),
    ]
    return Table(
        "Fed-Heart-Disease", "accuracy", Classification(TabularClassification(), 13),
        Classification(TabularClassification(hidden=(HIDDEN,)), 13), published, fixed,
        in_one_place(fixed, normalise=True), 15, 50, 0.001, 4,
        Published(0.735, 0.003, 0.795), Published(0.730, 0.029), rows,
    )  # fmt: skip


def brca(data: Path) -> Table:
    """1,088 patients of six regions, 39 features as they are, Cox partial likelihood of each batch."""
    folder = data / "tcga_brca"
    with (folder / "train_test_split.csv").open() as lines:
        part = {row["pid"]: row["fold2"] for row in csv.DictReader(lines)}
    by_region: dict[str, list[tuple[list[float], list[float], bool]]] = {}
    with (folder / "brca.csv").open() as lines:
        for row in csv.reader(lines):
            if row[0] not in part:
                continue
            fold, region = part[row[0]].split("_")
            values = [float(cell) for cell in row[1:]]
            by_region.setdefault(region, []).append((values[:39], [values[40], values[39]], fold == "test"))
    published, fixed = [], []
    for region, patients in sorted(by_region.items()):
        features, targets = np.array([p[0] for p in patients]), np.array([p[1] for p in patients])
        test = np.array([p[2] for p in patients])
        name = f"region-{region}"
        published.append(make_cohort(name, features, targets, test=test))
        # The age is the only column that is no 0/1; a public constant brings it to the scale of the others.
        scaled = np.column_stack([(features[:, 0] - 60.0) / 10.0, features[:, 1:]])
        fixed.append(make_cohort(name, scaled, targets, test=test))
    rows = [
        Row("fedavg", spec("fedavg"), 0.1, 8, Published(0.732, 0.181, 0.735)),
        Row("fedprox", spec("fedprox", mu=0.1), 0.1, 8, Published(0.729, 0.168, 0.717)),
        Row("fedadam", adaptive("fedadam", 0.1), 0.01, 8, Published(0.815, 0.026, 0.842)),
        Row("fedyogi", adaptive("fedyogi", 0.1), 0.01, 8, Published(0.815, 0.026, 0.842)),
        Row("fedadagrad", adaptive("fedadagrad", 1.0), 0.01, 8, Published(0.813, 0.005, 0.834)),
        Row("scaffold", spec("scaffold"), 0.1, 8, Published(0.687, None, 0.699)),
        Row("fedavg", spec("fedavg"), 0.3, 8, None, tuned=True),
        Row("fedadam", adaptive("fedadam", 0.03), 0.01, 32, None, tuned=True),
        *every(0.3, 8, len(fixed)),
    ]
    return Table(
        "Fed-TCGA-BRCA", "c_index", Cox(SurvivalCox(bias=True), 39),
        Cox(SurvivalCox(bias=True, hidden=(HIDDEN,)), 39), published, fixed,
        in_one_place(published, normalise=False), 5, 30, 0.1, 8,
        Published(0.676, 0.095, 0.704), Published(0.689, 0.009), rows,
    )  # fmt: skip


def centres(table: Table, cohorts: Sequence[Cohort], model: np.ndarray) -> float:
    """The mean over centres of the table's metric, where it is estimable."""
    metric = table.task.metrics[table.metric]
    each = [point(metric, score(table.task, model, cohort.test)) for cohort in cohorts]
    return mean(value for value in each if value is not None)


def together(table: Table, tested: Examples, model: np.ndarray) -> float:
    """The metric on all test patients as one group."""
    value = point(table.task.metrics[table.metric], score(table.task, model, tested))
    assert value is not None
    return value


def federated(table: Table, row: Row, seed: int) -> tuple[float, float]:
    """(mean over centres, all test patients together); a centre's personalised model counts, where it has one."""
    cohorts, task = table.cohorts if row.published else table.fixed, table.with_hidden if row.hidden else table.task
    done = run(
        task=task,
        strategy=simulated_from(row.spec),
        cohorts=cohorts,
        rounds=table.rounds,
        local=LocalTraining(steps=UPDATES, batch_size=row.batch, learning_rate=row.learning_rate),
        seed=seed,
        compare=False,
    )
    own = [(site.personalised or site.shared).metrics[table.metric].value for site in done.result.sites]
    each = mean(value for value in own if value is not None)
    if any(site.personalised for site in done.result.sites):
        return each, float("nan")  # several models have no test together
    tested = table.everybody if row.published else in_one_place(table.fixed, normalise=False)
    return each, together(table, tested.test, done.model)


def adam(table: Table, patients: Examples, seed: int) -> np.ndarray:
    """The published reference without federation: Adam (Kingma, Ba 2015) for a fixed number of epochs."""
    engine = table.task.engine
    w = initial_weights(table.task.layout, "uniform", seed).astype(np.float64)
    m, v, step = np.zeros_like(w), np.zeros_like(w), 0
    generator = np.random.Generator(np.random.PCG64(seed))
    for _ in range(table.pooled_epochs):
        order = generator.permutation(patients.patients)
        for first in range(0, len(order), table.batch):
            batch = patients.take(np.sort(order[first : first + table.batch]))
            g = engine.gradient_sum(w, batch, None) / batch.patients
            step += 1
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            w -= table.pooled_rate * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
    return w.astype(np.float32)


def pooled(table: Table, seed: int) -> tuple[float, float]:
    """Trained on everybody's patients in one place, as published: normalised over all, tested as each centre is."""
    model = adam(table, table.everybody.train, seed)
    return centres(table, table.cohorts, model), together(table, table.everybody.test, model)


def local(table: Table, seed: int) -> tuple[float, float]:
    """Each centre's own model on its own test patients; there is no pooled test of several models."""
    metric = table.task.metrics[table.metric]
    values = [
        point(metric, score(table.task, adam(table, cohort.train, seed), cohort.test)) for cohort in table.cohorts
    ]
    return mean(value for value in values if value is not None), float("nan")


def show(table: Table, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Print one table and return its rows for ``--json``."""
    references: list[tuple[str, Published | None, Callable[[int], tuple[float, float]]]] = [
        ("pooled", table.pooled, lambda seed: pooled(table, seed)),
        ("own local", table.local, lambda seed: local(table, seed)),
    ]
    labels = [f"{row.name}, our tuning" if row.tuned else row.name for row in table.rows]
    runs = references + [
        (label, row.published, lambda seed, row=row: federated(table, row, seed))
        for label, row in zip(labels, table.rows, strict=True)
    ]
    print(f"\n{table.name}: {table.metric}, {table.rounds} rounds of {UPDATES} local updates, {len(seeds)} seeds")
    print(
        f"{'':<24}{'published':>10}{'ours':>8}{'sd':>7}{'apart':>8}{'pooled test: published':>24}{'ours':>8}{'sd':>7}"
    )
    found = []
    for label, published, measure in runs:
        values = [measure(seed) for seed in seeds]
        (ours, test), (spread, test_spread) = (
            np.mean(values, axis=0),
            np.std(values, axis=0, ddof=1),
        )
        # Five seeds on either side: the standard error of the difference of the two means.
        known = published is not None and published.sd is not None
        error = ((spread**2 + (published.sd or 0.0) ** 2) / len(seeds)) ** 0.5 if published and known else 0.0
        apart = f"{abs(ours - published.mean) / error:.1f} se" if published and error > 0 else ""
        columns = f"{published.mean:>10.3f}" if published else f"{'':>10}"
        there = f"{published.pooled_test:>24.3f}" if published and published.pooled_test else f"{'':>24}"
        here = f"{test:>8.3f}{test_spread:>7.3f}" if test == test else ""
        print(f"{label:<24}{columns}{ours:>8.3f}{spread:>7.3f}{apart:>8}{there}{here}")
        case = f"{table.name}, {label}{'' if published else ', ours'}"
        for metric, value, against in (
            (f"{table.metric}, mean over centres", ours, published and published.mean),
            (f"{table.metric}, pooled test", test, published and published.pooled_test),
        ):
            ratio = value / against if against else None
            found.append(
                {"case": case, "metric": metric, "value": value, "unit": "1", "against": against, "ratio": ratio}
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="published tables beside ours, and what epsilon costs")
    parser.add_argument("--quick", action="store_true", help="two seeds instead of five, and two epsilons")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--plot", type=Path, help="draw the curve of epsilon into this SVG file")
    parser.add_argument("--figures", type=Path, help="measure nothing: draw what --json wrote to this file")
    arguments = parser.parse_args()
    if arguments.figures:
        rows = json.loads(arguments.figures.read_text())
    else:
        rows = everything(SEEDS[:2] if arguments.quick else SEEDS, arguments.quick)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    if arguments.plot:
        from _flamby_curve import picture_of

        arguments.plot.write_text(picture_of(rows))


def everything(seeds: Sequence[int], quick: bool) -> list[dict[str, Any]]:
    from _flamby_curve import curve

    rows, data = show(heart(), seeds), os.environ.get("WARDROUND_DATA")
    if data and (Path(data) / "tcga_brca").is_dir():
        rows += show(brca(Path(data)), seeds)
    else:
        print(
            "\nFed-TCGA-BRCA: not measured, no WARDROUND_DATA/tcga_brca (docs/data.md says where the table comes from)"
        )
    print(f"\n{', '.join(ABSENT)}: published too, and not in WARDROUND_DATA: not measured")
    return rows + curve(quick)


if __name__ == "__main__":
    main()
