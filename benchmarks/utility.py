"""What noise costs a model: LOCAL beside DIST beside pooled training, heart disease, at epsilon 1, 3, 8 and none.

Logistic regression with fixed clinical scaling, 80 steps at q = 0.25, delta 1e-4, FLamby's split. LOCAL: 16 rounds of 5
steps, every hospital adds all of the noise; DIST: 80 secure sums of one step, every hospital adds a share. Pooled is
central DP-SGD on all patients in one place, for comparison only: nobody may have such a table. Each row has all its
epsilons. Figures: accuracy (mean over the four hospitals' test patients) and AUROC (their test patients together), mean
over repeats and a 95 % interval of that mean; noise and sampling are drawn anew each time.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np

from wardround.client.connectors import Cohort
from wardround.client.evaluation import point, score
from wardround.client.tasks.base import Scores
from wardround.client.tasks.classification import Classification, accuracy, auroc
from wardround.conf.compose import compose_configuration
from wardround.conf.schema import parse_configuration
from wardround.privacy.accounting import calibrate_noise_multiplier, epsilon, rounded_up
from wardround.privacy.gradients import Examples
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.plan import LocalTraining, PrivacyMode, PrivacyTerms
from wardround.protocol.tasks import TabularClassification
from wardround.simulations import run
from wardround.simulations.cohorts import gather
from wardround.strategies import STRATEGIES

STUDENT = {2: 12.706, 10: 2.262}
"""97.5 % quantile of Student's t for so many repeats."""

STEPS, Q, DELTA, RATE, SHARES = 80, 0.25, 1e-4, 0.5, 2


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


def terms(mode: str, target: float | None) -> tuple[PrivacyTerms | None, float, float]:
    """(terms, epsilon against everyone, epsilon against coordinator and one hospital) of one row."""
    if target is None:
        return None, math.inf, math.inf
    sigma = calibrate_noise_multiplier(target, DELTA, Q, STEPS)
    share = math.ceil(1000 * sigma / math.sqrt(SHARES)) / 1000 if mode == "dist" else sigma
    costs = [
        epsilon(
            [PoissonGaussian(noise_multiplier=noise, sampling_probability=Q, steps=STEPS, declared_patients=1)], DELTA
        )
        for noise in (share, share * math.sqrt(SHARES) if mode == "dist" else share)
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


def once(
    task: Classification, cohorts: Sequence[Cohort], mode: str, privacy: PrivacyTerms | None
) -> tuple[float, float]:
    """(mean accuracy of the hospitals, AUROC of their test patients together) of one training."""
    sites = [pooled(cohorts)] if mode == "pooled" else cohorts
    steps = 1 if mode == "dist" else 5
    batch = None if privacy else round(Q * mean(site.train.patients for site in sites))
    done = run(
        task=task,
        strategy=STRATEGIES["fedavg"](),
        cohorts=sites,
        rounds=STEPS // steps,
        local=LocalTraining(steps=steps, batch_size=batch, learning_rate=RATE),
        privacy=privacy,
        scheme="zeros",
        min_sites=min(3, len(sites)),
        epsilon_cap=60.0,
        consortium_cap=60.0,
        compare=False,
    )
    scores = [score(task, done.model, cohort.test) for cohort in cohorts]
    together = Scores(np.concatenate([s.score for s in scores]), np.concatenate([s.target for s in scores]))
    right = mean(point(accuracy, one) or 0.0 for one in scores)
    return right, point(auroc, together) or 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 repeats instead of 10, epsilon 3 and none only")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    configuration = parse_configuration(compose_configuration(["study=heart_disease"]))
    cohorts = gather(configuration).taking_part
    task = Classification(TabularClassification(hidden=()), cohorts[0].train.features.shape[1])
    repeats, targets = (2, (3.0, None)) if arguments.quick else (10, (1.0, 3.0, 8.0, None))
    rows: list[dict[str, object]] = []
    print(
        f"{'target':>7} {'mode':<7} {'ε site':>7} {'ε consort.':>10} {'accuracy':>16} {'AUROC':>16}   (δ = {DELTA:g})"
    )
    for target in targets:
        base = 0.0
        for mode in ("pooled", "dist", "local"):
            privacy, site, consortium = terms(mode, target)
            found = [once(task, cohorts, mode, privacy) for _ in range(repeats)]
            shown = []
            for metric, values in zip(("accuracy", "auroc"), zip(*found, strict=True), strict=True):
                middle, half = mean(values), STUDENT[repeats] * stdev(values) / math.sqrt(repeats)
                base = middle if (mode, metric) == ("pooled", "accuracy") else base
                shown.append(f"{middle:.3f} ± {half:.3f}")
                case = f"epsilon {target or 'none'}, {mode}"
                rows.append({"case": case, "metric": metric, "value": middle, "unit": "share", "against": "pooled",
                             "ratio": middle / base if metric == "accuracy" else None})  # fmt: skip
            told = ["-", "-"] if target is None else [rounded_up(site), rounded_up(consortium)]
            name = "none" if target is None else f"{target:g}"
            print(f"{name:>7} {mode:<7} {told[0]:>7} {told[1]:>10} {shown[0]:>16} {shown[1]:>16}")
    print("ε: one patient of one site, add or remove one; site: against everyone; consort.: coordinator + 1 hospital.")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
