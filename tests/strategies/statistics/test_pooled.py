"""Without noise the figures of three hospitals are those of all their patients, computed by other libraries."""

from typing import Any

import lifelines
import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
from lifelines.statistics import multivariate_logrank_test
from lifelines.utils import concordance_index
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    f1_score,
    mean_absolute_error,
    mean_squared_error,
    roc_auc_score,
)

from wardround.client.answers import answers_from
from wardround.protocol.parameters import Total
from wardround.strategies import Adding, strategy_for
from wardround.strategies.statistics import STATISTICS, Cell, read
from wardround.strategies.statistics.chi_square import upper_tail

CLOSE = 1e-5


@pytest.fixture(scope="module")
def pooled() -> pd.DataFrame:
    """600 patients of one row each, of three hospitals."""
    random = np.random.default_rng(8)
    n = 600
    age = random.uniform(10, 110, n)
    bmi = np.clip(20 + 0.1 * age + random.normal(0, 3, n), 16, 44)
    sex = random.integers(0, 3, n)
    death, gone = random.exponential(500 + 300 * sex), random.uniform(50, 1000, n)
    return pd.DataFrame(
        {
            "site": random.integers(0, 3, n),
            "age": age,
            "bmi": bmi,
            "sex": np.array(["f", "m", "o"])[sex],
            "days": np.minimum(np.minimum(death, gone), 1000),
            "died": (death <= gone).astype(int),
            "clipped": np.clip(age, 20, 100),
        }
    )


def figures(kit: Any, pooled: pd.DataFrame, *queries: Any, **more: Any) -> dict[tuple[str, ...], Cell]:
    """By group and figure, of the sum over the hospitals that nobody has added noise to."""
    plan = kit.plan_for(*queries, **more)
    answers, strategy = answers_from(plan, kit.installed), strategy_for(plan)
    assert isinstance(strategy, Adding)
    state = strategy.init(plan.starting_model()).under(plan)
    for number in range(1, plan.rounds + 1):
        added = np.zeros(plan.task.numbers)
        for _, part in pooled.groupby("site"):
            sex = part.sex.map({"f": 0, "m": 1, "o": 2})
            kind = plan.task.queries[0].kind
            rows = kit.rows(kind, np.arange(len(part)), part.age, sex, part.bmi, part.days, part.died)
            added += answers.vector(rows, lambda size: b"", state.model)
        state = strategy.step(state.at(number), Total(strategy.added(added), 3))
    return {(*cell.group, cell.quantity): cell for cell in read(plan, state.model)}


def values(found: dict[tuple[str, ...], Cell]) -> dict[tuple[str, ...], Any]:
    return {key: cell.value for key, cell in found.items()}


def test_count(kit: Any, pooled: pd.DataFrame) -> None:
    found = values(figures(kit, pooled, kit.query("count")))
    bands = pd.cut(pooled.age, [-1, 40, 60, 200], right=False, labels=["below 40", "40 to below 60", "60 and more"])
    expected = pd.crosstab(pooled.sex, bands, margins=True, margins_name="all")
    for sex, row in expected.iterrows():
        for band, count in row.items():
            assert found[str(sex), str(band), "count"] == pytest.approx(count, rel=CLOSE)
    assert len(found) == expected.size


def test_sum(kit: Any, pooled: pd.DataFrame) -> None:
    found = values(figures(kit, pooled, kit.query("sum", by=[kit.sex.model_dump()])))
    for sex, value in pooled.groupby("sex").clipped.sum().items():
        assert found[str(sex), "sum"] == pytest.approx(value, rel=CLOSE)
    assert found["all", "sum"] == pytest.approx(pooled.clipped.sum(), rel=CLOSE)


def test_mean_with_a_filter(kit: Any, pooled: pd.DataFrame) -> None:
    found = figures(kit, pooled, kit.query("mean", where=[{"column": "bmi", "at_least": 25}]))
    wanted = pooled[pooled.bmi >= 25].clipped
    cell = found["mean",]
    assert cell.value == pytest.approx(wanted.mean(), rel=CLOSE)
    low, high = scipy.stats.norm.interval(0.95, wanted.mean(), wanted.std(ddof=0) / np.sqrt(len(wanted)))
    assert (cell.low, cell.high) == pytest.approx((low, high), rel=1e-4)


def test_variance(kit: Any, pooled: pd.DataFrame) -> None:
    found = figures(kit, pooled, kit.query("variance"))
    assert found["variance",].value == pytest.approx(pooled.clipped.var(ddof=1), rel=1e-4)
    assert found["standard deviation",].value == pytest.approx(pooled.clipped.std(ddof=1), rel=1e-4)
    assert (found["variance",].unit, found["standard deviation",].unit) == ("(a)2", "a")


def test_histogram(kit: Any, pooled: pd.DataFrame) -> None:
    found = values(figures(kit, pooled, kit.query("histogram")))
    counts, _ = np.histogram(pooled.age, [-np.inf, 30, 50, 70, np.inf])
    names = ("below 30", "30 to below 50", "50 to below 70", "70 and more", "all")
    assert [found[name, "count"] for name in names] == pytest.approx([*counts, len(pooled)], rel=CLOSE)


def test_quantiles(kit: Any, pooled: pd.DataFrame) -> None:
    found = values(figures(kit, pooled, kit.query("quantiles")))
    width = 80 / 2**6
    for p in (0.25, 0.5, 0.75):
        assert abs(found[f"quantile {p:g}",] - pooled.clipped.quantile(p)) < width, "within one of 64 intervals"


def test_correlation(kit: Any, pooled: pd.DataFrame) -> None:
    cell = figures(kit, pooled, kit.query("correlation"))["age and bmi",]
    expected = scipy.stats.pearsonr(pooled.clipped, pooled.bmi)
    low, high = expected.confidence_interval(0.95)
    assert (cell.value, cell.low, cell.high) == pytest.approx((expected.statistic, low, high), rel=1e-3)


def test_linear_regression(kit: Any, pooled: pd.DataFrame) -> None:
    found = figures(kit, pooled, kit.query("linear_regression"))
    fit = scipy.stats.linregress(pooled.clipped, pooled.bmi)
    assert found["age",].value == pytest.approx(fit.slope, rel=1e-3)
    assert found["intercept",].value == pytest.approx(fit.intercept, rel=1e-3)
    half = (found["age",].high - found["age",].low) / 2
    assert half == pytest.approx(scipy.stats.norm.ppf(0.975) * fit.stderr, rel=2e-3)
    assert found["age",].unit == "kg/m2 per a"


def likeliest(x: Any, y: Any, ridge: float = 0.0) -> tuple[Any, Any]:
    """Coefficients of greatest (penalised) likelihood by BFGS, and their covariance; the intercept is the first."""
    penalty = ridge * np.array([0.0, *np.ones(x.shape[1] - 1)])

    def loss(beta: Any) -> float:
        return float(np.logaddexp(0, (1 - 2 * y) * (x @ beta)).sum() + (penalty * beta**2).sum() / 2)

    def slope(beta: Any) -> Any:
        return x.T @ (scipy.special.expit(x @ beta) - y) + penalty * beta

    found = scipy.optimize.minimize(loss, np.zeros(x.shape[1]), jac=slope, method="BFGS", options={"gtol": 1e-8})
    p = scipy.special.expit(x @ found.x)
    information = x.T @ ((p * (1 - p))[:, None] * x)
    inverse = np.linalg.inv(information + np.diag(penalty))
    return found.x, inverse @ information @ inverse


@pytest.mark.parametrize("ridge", [0.0, 20.0])
def test_logistic_regression(kit: Any, pooled: pd.DataFrame, ridge: float) -> None:
    """In the columns' units, without and with a penalty on the scaled coefficients."""
    found = figures(kit, pooled, kit.query("logistic_regression", ridge=ridge))
    x = np.stack([np.ones(len(pooled)), (pooled.clipped - 60) / 40, (pooled.bmi - 30) / 15], axis=1)
    beta, covariance = likeliest(x, pooled.died.to_numpy(), ridge)
    back = np.array([[1, -60 / 40, -30 / 15], [0, 1 / 40, 0], [0, 0, 1 / 15]])
    reach = 1.959964 * np.sqrt(np.diag(back @ covariance @ back.T))
    for name, value, half in zip(("intercept", "age", "bmi"), back @ beta, reach, strict=True):
        cell = found[name,]
        assert cell.value == pytest.approx(value, rel=1e-4, abs=1e-6)
        assert (cell.high - cell.low) / 2 == pytest.approx(half, rel=1e-3)
    odds = found["odds ratio of age",]
    assert (odds.value, odds.low, odds.high) == pytest.approx(
        tuple(np.exp([found["age",].value, found["age",].low, found["age",].high]))
    )
    assert (found["age",].unit, odds.unit) == ("per a", "per a")
    assert abs(found["largest gradient, last round",].value) < 1e-6
    p = scipy.special.expit(x @ beta)
    deviance = -2 * np.where(pooled.died == 1, np.log(p), np.log(1 - p)).mean()
    assert found["deviance, last round",].value == pytest.approx(deviance, rel=1e-4)


def test_logistic_regression_by_group_of_a_strong_predictor_and_a_flag(kit: Any, pooled: pd.DataFrame) -> None:
    """Each group has coefficients of its own; the outcome is the label's, the predictor is made to tell it well."""
    random = np.random.default_rng(3)
    strong = pooled.assign(
        died=(random.uniform(size=len(pooled)) < scipy.special.expit((pooled.age - 60) / 10)).astype(int)
    )
    found = figures(
        kit, strong, kit.query("logistic_regression", of=[kit.age.model_dump()], by=[kit.sex.model_dump()]), rounds=9
    )
    for sex, part in strong.groupby("sex"):
        x = np.stack([np.ones(len(part)), (part.clipped - 60) / 40], axis=1)
        beta, _ = likeliest(x, part.died.to_numpy())
        assert found[str(sex), "age"].value == pytest.approx(beta[1] / 40, rel=1e-4)
    assert ("all", "age") not in found, "there is no fit of all groups together"


def test_survival_and_the_log_rank_test(kit: Any, pooled: pd.DataFrame) -> None:
    times = (200.0, 400.0, 600.0)
    found = figures(kit, pooled, kit.query("survival", by=[kit.sex.model_dump()]))
    on_grid = pooled.assign(days=np.ceil(pooled.days / 200) * 200)
    for sex, part in on_grid.groupby("sex"):
        curve = lifelines.KaplanMeierFitter().fit(part.days, part.died)
        for time in times:
            cell = found[str(sex), f"survival at {time:g} d"]
            assert cell.value == pytest.approx(float(curve.predict(time)), rel=1e-4)
    seen = on_grid.assign(died=on_grid.died * (on_grid.days <= 600), days=np.minimum(on_grid.days, 601))
    expected = multivariate_logrank_test(seen.days, seen.sex, seen.died)
    assert found["all", "log-rank chi-square (2 df)"].value == pytest.approx(expected.test_statistic, rel=1e-4)
    assert found["all", "log-rank p"].value == pytest.approx(expected.p_value, rel=1e-3)


def test_piecewise_exponential_rates(kit: Any, pooled: pd.DataFrame) -> None:
    found = figures(kit, pooled, kit.query("piecewise_exponential", by=[kit.sex.model_dump()]))
    for sex, part in pooled.groupby("sex"):
        seen = part.died * (part.days <= 600)
        # Its likelihood is maximised numerically, to three digits.
        fit = lifelines.PiecewiseExponentialFitter([200, 400]).fit(np.minimum(part.days, 600), seen)
        for low, mean in zip((0, 200, 400), fit.params_, strict=True):
            cell = found[str(sex), f"rate until {low + 200} d"]
            events = part.died[(part.days > low) & (part.days <= low + 200)].sum()
            assert cell.value == pytest.approx(events / (part.days.clip(low, low + 200) - low).sum(), rel=CLOSE)
            assert cell.value == pytest.approx(1 / mean, rel=5e-3) and cell.unit == "1/d"


def test_evaluation_by_sex(kit: Any, pooled: pd.DataFrame) -> None:
    """The federated figures are scikit-learn's of all patients: ranks of the rounded score, losses of the exact one."""
    found = figures(kit, pooled, kit.query("evaluation", by=[kit.sex.model_dump()]))
    risk = 1 / (1 + np.exp(-kit.slope * (pooled.age - 50) / 10))
    for sex in ("f", "m", "o", "all"):
        chosen = pooled.sex.isin([sex]) | (sex == "all")
        died, p = pooled.died[chosen].to_numpy(), risk[chosen].to_numpy()
        bins, parts = np.floor(p * 10), np.tile(np.arange(8), len(p))
        told = -np.log(np.where(died == 1, p, 1 - p))
        expected = {
            "AUROC": roc_auc_score(died, bins),
            # Patients of a bin are spread over eight parts of it, an eighth of each in every part.
            "AUPRC": average_precision_score(np.repeat(died, 8), np.repeat(bins, 8) + parts / 8),
            "Brier score": brier_score_loss(died, p),
            "log loss (clipped at 4)": np.minimum(told, 4).mean(),
            "observed minus predicted": died.mean() - p.mean(),
            "observed at 0.7 to 0.8": died[bins == 7].mean(),
            "predicted at 0.7 to 0.8": p[bins == 7].mean(),
        }
        for quantity, value in expected.items():
            assert found[sex, quantity].value == pytest.approx(value, abs=2e-6), quantity
    rows = kit.examples(np.arange(600), pooled.age, np.zeros(600), pooled.bmi, pooled.days, pooled.died)
    assert roc_auc_score(rows.targets[:, 1], risk) == pytest.approx(found["all", "AUROC"].value, abs=0.02)


def test_prediction_error_by_sex(kit: Any, pooled: pd.DataFrame) -> None:
    found = figures(kit, pooled, kit.query("prediction_error", by=[kit.sex.model_dump()], largest_error=30))
    predicted = 26 + 2 * (pooled.age - 50) / 10
    for sex in ("f", "m", "o", "all"):
        chosen = pooled.sex.isin([sex]) | (sex == "all")
        absolute = found[sex, "mean absolute error"]
        expected = mean_absolute_error(pooled.bmi[chosen], predicted[chosen])
        assert absolute.value == pytest.approx(expected, rel=1e-4) and absolute.unit == "kg/m2"
        squared = mean_squared_error(pooled.bmi[chosen], predicted[chosen])
        assert found[sex, "root mean squared error"].value == pytest.approx(squared**0.5, rel=1e-4)
        spread = (pooled.bmi - predicted)[chosen].abs().std(ddof=0) / np.sqrt(chosen.sum())
        assert absolute.low is not None and absolute.high is not None
        assert (absolute.high - absolute.low) / 2 == pytest.approx(1.96 * spread, rel=0.02)


def test_prediction_error_above_the_largest_counts_as_that(kit: Any, pooled: pd.DataFrame) -> None:
    found = figures(kit, pooled, kit.query("prediction_error", largest_error=2))
    errors = np.minimum((pooled.bmi - 26 - 2 * (pooled.age - 50) / 10).abs(), 2)
    assert found["mean absolute error",].value == pytest.approx(errors.mean(), rel=1e-4)
    assert found["root mean squared error",].value == pytest.approx((errors**2).mean() ** 0.5, rel=1e-4)


def brier_scores(part: pd.DataFrame, times: Any, log_risk: Any, baseline: Any) -> list[float]:
    """Graf's, patient by patient, of times rounded up; the censoring curve is lifelines', and events come first."""
    days = np.array([*times, 1e9])[np.searchsorted(times, part.days)]
    died = (part.died == 1) & (days <= times[-1])
    seen = lifelines.KaplanMeierFitter().fit(np.minimum(days, 2 * times[-1]) - died, ~died & (days <= times[-1]))
    found = []
    for time, survival in zip(times, baseline, strict=True):
        lives = survival ** np.exp(log_risk)
        by_event = np.where(died & (days <= time), lives**2 / seen.predict(days - 1).to_numpy(), 0)
        beyond = np.where(days > time, (1 - lives) ** 2 / float(seen.predict(time)), 0)
        found.append(float(np.mean(by_event + beyond)))
    return found


def test_survival_evaluation_by_sex(kit: Any, pooled: pd.DataFrame) -> None:
    """lifelines' c-index of events rounded up and censorings rounded down; Brier scores of the exact probabilities."""
    query = kit.query("survival_evaluation", by=[kit.sex.model_dump()])
    found, log_risk = figures(kit, pooled, query), kit.slope * (pooled.age - 50) / 10
    interval = np.searchsorted(query.times, pooled.days)
    died = (pooled.died == 1) & (interval < len(query.times))
    known = np.where(died, np.array([*query.times, 0])[interval], np.array([0.0, *query.times])[interval])
    bins = np.floor(8 / (1 + np.exp(-log_risk)))
    for sex in ("f", "m", "o", "all"):
        chosen = (pooled.sex.isin([sex]) | (sex == "all")).to_numpy()
        expected = concordance_index(known[chosen], -bins[chosen], died[chosen])
        assert found[sex, "c-index"].value == pytest.approx(expected, abs=1e-6)
        assert found[sex, "c-index"].patients == pytest.approx(died[chosen].sum())
        scores = brier_scores(pooled[chosen], query.times, log_risk[chosen], query.baseline)
        for time, score in zip(query.times, scores, strict=True):
            assert found[sex, f"Brier score at {time:g} d"].value == pytest.approx(score, abs=2e-6)
        integrated = (scores[0] + scores[1] + scores[2] / 2) / 3
        assert found[sex, "integrated Brier score until 600 d"].value == pytest.approx(integrated, abs=2e-6)
    exact = concordance_index(pooled.days, -log_risk, pooled.died)
    assert found["all", "c-index"].value == pytest.approx(exact, abs=0.03), "eight bins are enough"


def test_segmentation_evaluation(kit: Any, pooled: pd.DataFrame) -> None:
    """scikit-learn's F1 score, which is Dice, of each patient's voxels and of all; the largest volume clips nobody."""
    found = figures(kit, pooled, kit.query("segmentation_evaluation", largest_volume=64))
    marked = np.tile(np.arange(64) < 32, (len(pooled), 1))
    there = {"liver": np.arange(64) < kit.liver(pooled.age)[:, None], "tumour": np.tile(np.arange(64) >= 48, (600, 1))}
    there["tumour"] &= (pooled.sex == "f").to_numpy()[:, None]
    for name, truth in there.items():
        predicted = marked if name == "liver" else np.zeros_like(marked)
        stated = (predicted | truth).any(axis=1)
        each = [f1_score(*both, zero_division=0) for both in zip(truth[stated], predicted[stated], strict=True)]
        mean = found[f"mean Dice of {name}",]
        assert mean.value == pytest.approx(np.mean(each), abs=2e-6)
        assert mean.patients == pytest.approx(stated.sum())
        assert mean.high - mean.low == pytest.approx(2 * 1.96 * np.std(each) / np.sqrt(len(each)), rel=0.01, abs=1e-3)
        all_voxels = f1_score(truth.ravel(), predicted.ravel(), zero_division=0)
        assert found[f"pooled Dice of {name} (clipped at 64)",].value == pytest.approx(all_voxels, abs=2e-6)
        without = found[f"{name} marked where there is none",]
        assert without.patients == pytest.approx((~truth.any(axis=1)).sum())
        assert without.value == pytest.approx(float(name == "liver"), abs=2e-6)
    assert 0 < found["mean Dice of liver",].value < 1 and 0 < without.patients < 600


def test_every_statistic_has_its_own_test_here() -> None:
    here = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    for kind in STATISTICS:
        assert any(name.startswith(kind) for name in here), f"no pooled test of '{kind}'"


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 10])
def test_the_tail_of_chi_square_is_scipys(freedom: int) -> None:
    for statistic in (0.0, 0.3, 1.0, 4.2, 17.0, 60.0):
        assert upper_tail(statistic, freedom) == pytest.approx(scipy.stats.chi2.sf(statistic, freedom), rel=1e-9)
