"""Utility against epsilon for ``benchmarks/flamby.py``, measured and drawn: an epsilon is what the ledgers say.

Mode LOCAL: every hospital adds all of the noise, so its epsilon holds against everyone, whoever colludes, for one
patient of one hospital, add or remove one. 16 rounds of 5 steps at q = 0.25, delta 1e-4, public scaling. The published
curve understates its epsilons: it counts other steps than it takes, on shuffled batches instead of Poisson samples.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import utility
from flamby import brca
from markupsafe import Markup
from scipy.stats import t as student

from wardround.client.evaluation import point, score
from wardround.console.reports.svg import Scale, around, dot, line, path, picture, tag, text
from wardround.privacy.accounting import rounded_up
from wardround.protocol.plan import LocalTraining
from wardround.simulations import run
from wardround.strategies import STRATEGIES

Record = dict[str, Any]

TARGETS = (0.5, 1.0, 2.0, 3.0, 5.0, 8.0)
SHOWN = ("fedavg", "fedadam")
LOCAL_STEPS = 5

WIDTH, HEIGHT, LEFT, GAP, PANEL, TOP, BOTTOM = 760.0, 372.0, 52.0, 62.0, 310.0, 94.0, 290.0
TERMS = (
    "Mean over hospitals; bars: 95 % interval of the mean over repeats. ε is what each hospital's ledger was charged,",
    "the same at all: δ 0.0001, one patient of one hospital, add or remove one, against everyone, whoever colludes.",
)
STYLE = """
svg { --page: #ffffff; --ink: #1a2026; --muted: #57616b; --grid: #e6eaee; --rule: #b9c2ca; --first: #0a5b86;
  --second: #96560a; font-family: system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }
@media (prefers-color-scheme: dark) { svg { --page: #11161a; --ink: #e7ebee; --muted: #a2adb7; --grid: #262e35;
  --rule: #4a555f; --first: #6dbdea; --second: #e5a95b; } }
.page { fill: var(--page); } .head { fill: var(--ink); font-size: 14px; font-weight: 600; }
.label { fill: var(--ink); font-size: 12px; } .tick { fill: var(--muted); font-size: 12px; }
.grid { stroke: var(--grid); } .axis { stroke: var(--rule); }
.fedavg { stroke: var(--first); fill: none; stroke-width: 1.8; }
.fedavg-mark { stroke: var(--first); fill: var(--first); }
.fedavg-curve { stroke: var(--first); fill: none; stroke-width: 1.4; }
.fedadam { stroke: var(--second); fill: none; stroke-width: 1.8; } .fedadam-mark { stroke: var(--second);
  fill: var(--page); stroke-width: 1.8; } .fedadam-curve { stroke: var(--second); fill: none; stroke-width: 1.4;
  stroke-dasharray: 5 3; }
"""


def curve(quick: bool) -> list[Record]:
    """Every epsilon on every study that is there, printed as it comes; a record for each."""
    studies, data = [utility.heart()], os.environ.get("WARDROUND_DATA")
    if data and (Path(data) / "tcga_brca").is_dir():
        studies.append(utility.survival(brca(Path(data)).fixed))
    targets: tuple[float | None, ...] = (1.0, 8.0) if quick else (*TARGETS, None)
    return [record for study in studies for record in _study(study, targets, 2 if quick else 10)]


def _study(study: utility.Study, targets: Sequence[float | None], repeats: int) -> list[Record]:
    name = study.each[0]
    print(f"\nWhat epsilon costs, {study.name}: {name}, mean over hospitals, {repeats} repeats")
    print(f"{'aimed at':>9} {'strategy':<9}{'mean':>7}{'95 %':>8}  ε of each hospital's ledger at δ {utility.DELTA:g}")
    records = []
    for target in targets:
        for strategy in SHOWN:
            found = [_once(study, strategy, target) for _ in range(repeats)]
            values, ledgers = [value for value, _ in found], found[-1][1]
            half = float(student.ppf(0.975, repeats - 1)) * stdev(values) / math.sqrt(repeats)
            costs = ", ".join(f"{site} {rounded_up(cost)}" for site, cost in ledgers.items()) or "no noise"
            aimed = "none" if target is None else f"{target:g}"
            print(f"{aimed:>9} {strategy:<9}{mean(values):>7.3f}{half:>8.3f}  {costs}", flush=True)
            records.append(
                {
                    "case": f"{study.name}, epsilon {aimed}, {strategy}",
                    "metric": name,
                    "value": mean(values),
                    "unit": "share",
                    "against": None,
                    "ratio": None,
                    "half": half,
                    "study": study.name,
                    "target": target,
                    "strategy": strategy,
                    "epsilon_site": ledgers,
                    "delta": utility.DELTA,
                }
            )
    print("for one patient of one hospital, add or remove one; against everyone, whoever colludes; rounded up")
    return records


def _once(study: utility.Study, strategy: str, target: float | None) -> tuple[float, dict[str, float]]:
    """(mean over the hospitals that have a figure, the epsilon that each ledger was charged)."""
    privacy, _, _ = utility.terms("local", target, study.honest)
    batch = None if privacy else round(utility.Q * mean(site.train.patients for site in study.cohorts))
    done = run(
        task=study.task,
        strategy=STRATEGIES[strategy](),
        cohorts=study.cohorts,
        rounds=utility.STEPS // LOCAL_STEPS,
        local=LocalTraining(steps=LOCAL_STEPS, batch_size=batch, learning_rate=study.rate),
        privacy=privacy,
        scheme="zeros",
        min_sites=3,
        epsilon_cap=1000.0,
        compare=False,
    )
    each = [point(study.each[1], score(study.task, done.model, cohort.test)) for cohort in study.cohorts]
    ledgers = {site.site: site.epsilon_site for site in done.result.sites if site.epsilon_site is not None}
    return mean(value for value in each if value is not None), ledgers


def picture_of(records: Sequence[Record]) -> str:
    """An SVG file's text: a panel a study, one vertical scale."""
    shown = [record for record in records if "epsilon_site" in record]
    ends = [record["value"] + sign * record["half"] for record in shown for sign in (-1, 1)]
    y = Scale(*around(ends, 0.05), BOTTOM, TOP)
    marks: list[Markup] = [tag("rect", width=WIDTH, height=HEIGHT, rx=8, class_="page"), *_legend()]
    for index, study in enumerate(dict.fromkeys(record["study"] for record in shown)):
        left = LEFT + index * (PANEL + GAP)
        marks += _panel([record for record in shown if record["study"] == study], left, y)
    marks += [text(LEFT, HEIGHT - 34 + 18 * row, words, "tick") for row, words in enumerate(TERMS)]
    said = "; ".join(f"{record['case']}: {record['value']:.3f} ± {record['half']:.3f}" for record in shown)
    style = tag("style", Markup(STYLE))
    return str(picture("curve", WIDTH, HEIGHT, "What epsilon costs a model", said, style, *marks)) + "\n"


def _panel(records: Sequence[Record], left: float, y: Scale) -> list[Markup]:
    study, metric = records[0]["study"], records[0]["metric"]
    marks = [text(left, TOP - 16, f"{study[0].upper()}{study[1:]}: {metric}", "head")]
    targets = list(dict.fromkeys(record["target"] for record in records))
    step = PANEL / len(targets)
    for tick in y.ticks(6):
        marks.append(line(left, y(tick), left + PANEL, y(tick), "grid"))
        marks.append(text(left - 7, y(tick) + 4, f"{tick:.2f}", "tick", "end"))
    marks.append(line(left, BOTTOM, left + PANEL, BOTTOM, "axis"))
    marks.append(text(left - 7, BOTTOM + 18, "ε", "tick", "end"))
    for number, target in enumerate(targets):
        x = left + step * (number + 0.5)
        spent = max(max(r["epsilon_site"].values(), default=0.0) for r in records if r["target"] == target)
        marks.append(text(x, BOTTOM + 18, "no noise" if target is None else rounded_up(spent), "tick", "middle"))
    for strategy, shift in zip(SHOWN, (-5.0, 5.0), strict=True):
        own = [record for record in records if record["strategy"] == strategy]
        points = [(left + step * (targets.index(r["target"]) + 0.5) + shift, y(r["value"])) for r in own]
        marks.append(path(points[: len([r for r in own if r["target"]])], f"{strategy}-curve"))
        for (x, _), record in zip(points, own, strict=True):
            low, high = y(record["value"] - record["half"]), y(record["value"] + record["half"])
            marks += [line(x, low, x, high, strategy), *(line(x - 3, e, x + 3, e, strategy) for e in (low, high))]
            marks.append(_mark(strategy, x, y(record["value"])))
    return marks


def _legend() -> list[Markup]:
    marks: list[Markup] = []
    for at, strategy in ((LEFT, "fedavg"), (LEFT + 130, "fedadam")):
        marks += [path([(at, 30), (at + 28, 30)], f"{strategy}-curve"), _mark(strategy, at + 14, 30.0)]
        marks.append(text(at + 36, 34, strategy, "label"))
    return marks


def _mark(strategy: str, x: float, y: float) -> Markup:
    if strategy == "fedavg":
        return dot(x, y, 4.4, "fedavg-mark")
    return tag("rect", x=x - 4, y=y - 4, width=8, height=8, class_="fedadam-mark")
