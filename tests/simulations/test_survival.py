"""Survival in a federation: what is learned, with differential privacy and without, and what is refused."""

import csv
from pathlib import Path

import numpy as np
import pytest

from wardround.client.connectors import Cohort, make_cohort
from wardround.client.tasks.survival import Cox, Piecewise
from wardround.protocol.errors import UsageError
from wardround.protocol.plan import LocalTraining, PrivacyMode, PrivacyTerms
from wardround.protocol.tasks import SurvivalCox, SurvivalPiecewise
from wardround.simulations import Run, run
from wardround.strategies import STRATEGIES

TRUE_RISK = np.array([0.8, -0.5, 0.0])
RATE = 0.1
TERMS = PrivacyTerms(mode=PrivacyMode.LOCAL, noise_multiplier=3.0, sampling_probability=0.25, delta=1e-4, epsilon=4.0)


def cohorts(patients: int = 400) -> list[Cohort]:
    """Exponential times with hazard RATE exp(x TRUE_RISK), censored at random; the truth is known."""
    generator = np.random.Generator(np.random.PCG64(6))
    made = []
    for site in ("a", "b", "c"):
        x = generator.normal(size=(patients, 3))
        time = generator.exponential(1 / (RATE * np.exp(x @ TRUE_RISK)))
        censored = generator.uniform(0, 30, patients)
        targets = np.column_stack([np.minimum(time, censored), (time <= censored).astype(float)])
        made.append(make_cohort(site, x, targets, test=np.arange(patients) < patients // 4))
    return made


def learned(task: Cox | Piecewise, privacy: PrivacyTerms | None = None) -> Run:
    local = LocalTraining(steps=5, learning_rate=0.3) if privacy else LocalTraining(epochs=5, learning_rate=0.3)
    return run(
        task=task, strategy=STRATEGIES["fedavg"](), cohorts=cohorts(), rounds=15, local=local, privacy=privacy,
        scheme="zeros", compare=False,
    )  # fmt: skip


def test_cox_finds_the_true_risks() -> None:
    done = learned(Cox(SurvivalCox(), 3))
    # Three standard errors with about 600 events: 3 / sqrt(600) = 0.12.
    assert np.allclose(done.model, TRUE_RISK, atol=0.15)


def test_the_piecewise_model_finds_the_true_risks_and_the_true_rate() -> None:
    done = learned(Piecewise(SurvivalPiecewise(cuts=(3.0, 8.0), baseline_rate=0.2), 3))
    assert np.allclose(done.model[:3], TRUE_RISK, atol=0.15)
    assert np.allclose(0.2 * np.exp(done.model[3:5]), RATE, atol=0.025)


def test_the_piecewise_model_ranks_patients_under_differential_privacy() -> None:
    done = learned(Piecewise(SurvivalPiecewise(cuts=(3.0, 8.0), baseline_rate=0.1), 3), TERMS)
    values = [site.shared.metrics["c_index"].value for site in done.result.sites]
    assert all(value is not None and value > 0.6 for value in values)
    assert all(site.epsilon_site is not None and 0 < site.epsilon_site <= 4 for site in done.result.sites)


def test_cox_under_differential_privacy_is_refused_with_the_way_out() -> None:
    with pytest.raises(UsageError, match="couples patients"):
        learned(Cox(SurvivalCox(), 3), TERMS)


def strata(seed: int = 11) -> list[Cohort]:
    """Hospitals of very different size, each with a baseline hazard of its own; times without ties."""
    generator = np.random.Generator(np.random.PCG64(seed))
    made = []
    for site, patients, rate in (("a", 300, 0.05), ("b", 110, 0.4), ("c", 40, 0.15)):
        x = generator.normal(size=(patients, 3)) + (0.5 if site == "b" else 0.0)
        time = generator.exponential(1 / (rate * np.exp(x @ TRUE_RISK)))
        censored = generator.uniform(0, 20, patients)
        targets = np.column_stack([np.minimum(time, censored), (time <= censored).astype(float)])
        made.append(make_cohort(site, x, targets, test=np.zeros(patients, bool)))
    return made


def federated_cox(sites: list[Cohort], features: int, rounds: int, learning_rate: float) -> np.ndarray:
    """One step a round over each hospital's whole cohort: gradient descent on the stratified partial likelihood."""
    done = run(
        task=Cox(SurvivalCox(), features), strategy=STRATEGIES["fedavg"](), cohorts=sites, rounds=rounds,
        local=LocalTraining(steps=1, learning_rate=learning_rate), scheme="zeros", compare=False,
    )  # fmt: skip
    return np.asarray(done.model, np.float64)


def test_federated_coefficients_are_those_of_a_pooled_stratified_cox_model() -> None:
    """lifelines pools the patients and keeps the hospitals as strata; here no patient leaves its hospital."""
    pandas, lifelines = pytest.importorskip("pandas"), pytest.importorskip("lifelines")
    sites = strata()
    rows = np.concatenate(
        [
            np.column_stack([c.train.features, c.train.targets, np.full(c.train.patients, i)])
            for i, c in enumerate(sites)
        ]
    )
    pooled = pandas.DataFrame(rows, columns=["x0", "x1", "x2", "time", "event", "site"])
    expected = lifelines.CoxPHFitter().fit(pooled, "time", "event", strata=["site"]).params_.to_numpy()
    assert np.abs(federated_cox(sites, 3, rounds=150, learning_rate=1.0) - expected).max() < 1e-3
    ignored = lifelines.CoxPHFitter().fit(pooled.drop(columns="site"), "time", "event").params_.to_numpy()
    assert np.abs(ignored - expected).max() > 1e-2, "without strata the coefficients are others, so this test can fail"


def newton_breslow(sites: list[Cohort], steps: int = 30) -> np.ndarray:
    """The pooled stratified partial likelihood with Breslow's ties, solved by Newton's method, patient by patient."""
    beta = np.zeros(sites[0].train.features.shape[1])
    for _ in range(steps):
        gradient, hessian = np.zeros_like(beta), np.zeros((len(beta), len(beta)))
        for site in sites:
            x, (time, event) = site.train.features, site.train.targets.T
            weight = np.exp(x @ beta)
            for one in np.flatnonzero(event):
                risk = time >= time[one]
                w = weight[risk] / weight[risk].sum()
                mean = w @ x[risk]
                gradient += x[one] - mean
                hessian += (x[risk] * w[:, None]).T @ x[risk] - np.outer(mean, mean)
        beta = beta + np.linalg.solve(hessian, gradient)
    return beta


def test_the_same_on_six_regions_of_real_breast_cancer_patients(wardround_data: Path) -> None:
    """Ties in days, 59 to 3 events a region. Columns need forty deaths on both sides, or descent crawls."""
    folder = wardround_data / "tcga_brca"
    with (folder / "train_test_split.csv").open() as lines:
        regions = {row["pid"]: row["fold2"].split("_")[1] for row in csv.DictReader(lines)}
    with (folder / "brca.csv").open() as lines:
        rows = [row for row in csv.DictReader(lines) if row["pid"] in regions]
    age, *others = list(rows[0])[1:40]
    died = [row for row in rows if float(row["E"])]
    common = [name for name in others if 40 <= sum(float(row[name]) for row in died) <= len(died) - 40][:4]
    x = np.array([[(float(row[age]) - 60) / 10, *(float(row[name]) for name in common)] for row in rows])
    targets = np.array([[float(row["T"]), float(row["E"])] for row in rows])
    of = np.array([regions[row["pid"]] for row in rows])
    sites = [
        make_cohort(
            f"region-{number}", x[of == name], targets[of == name], test=np.zeros(int((of == name).sum()), bool)
        )
        for number, name in enumerate(sorted(set(of)))
    ]
    assert sum(site.train.patients for site in sites) == 1088
    expected = newton_breslow(sites)
    found = federated_cox(sites, x.shape[1], rounds=900, learning_rate=4.0)
    assert np.abs(found - expected).max() < 1e-3, (found, expected)
