"""Regression: the loss against torch, metrics against scikit-learn, a whole study against least squares."""

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from wardround.client.connectors import make_cohort
from wardround.client.evaluation import estimate, score
from wardround.client.tasks.base import Scores
from wardround.client.tasks.regression import Regression, SquaredError
from wardround.protocol.plan import LocalTraining
from wardround.protocol.tasks import TabularRegression
from wardround.simulations.research import run
from wardround.strategies import STRATEGIES

RANDOM = np.random.Generator(np.random.PCG64(12))
SPEC = TabularRegression(center=120.0, scale=15.0)


def test_the_squared_error_is_torchs_and_so_is_its_slope() -> None:
    outputs, targets = RANDOM.normal(size=(40, 1)), RANDOM.normal(118, 20, (40, 1))
    loss, slope = SquaredError(120.0, 15.0).loss_and_slope(outputs, targets)
    given = torch.tensor(outputs, requires_grad=True)
    expected = torch.nn.functional.mse_loss(given, torch.tensor((targets - 120) / 15), reduction="none") / 2
    expected.sum().backward()
    assert np.allclose(loss, expected.detach().numpy()[:, 0])
    assert given.grad is not None and np.allclose(slope, given.grad.numpy())


def test_metrics_are_those_of_scikit_learn_in_the_labels_unit() -> None:
    predicted, truth = RANDOM.normal(120, 10, 200), RANDOM.normal(120, 10, 200)
    weights = RANDOM.integers(0, 4, 200).astype(float)
    metrics, scores = Regression(SPEC, 3).metrics, Scores(predicted, truth[:, None])
    expected = {"mae": mean_absolute_error, "rmse": root_mean_squared_error, "r2": r2_score}
    assert set(metrics) == set(expected)
    for name, reference in expected.items():
        found = metrics[name](scores, np.stack([np.ones(200), weights]))
        assert found[0] == pytest.approx(reference(truth, predicted))
        assert found[1] == pytest.approx(reference(truth, predicted, sample_weight=weights))


def test_a_quantity_that_does_not_vary_has_no_r_squared_and_the_reason_is_said() -> None:
    constant = Scores(np.array([110.0, 130.0]), np.full((2, 1), 120.0))
    found = estimate(Regression(SPEC, 3).metrics["r2"], constant)
    assert found.value is None and found.reason == "the outcome does not vary"


def test_a_federated_regression_is_the_pooled_least_squares() -> None:
    features = RANDOM.normal(size=(900, 3))
    truth = 120 + 15 * (features @ np.array([0.8, -0.5, 0.0]) + 0.2) + RANDOM.normal(0, 4, 900)
    cohorts = [
        make_cohort(
            site,
            features[rows],
            truth[rows][:, None],
            test=np.arange(300) >= 240,
        )
        for site, rows in zip("abc", np.split(np.arange(900), 3), strict=True)
    ]
    task = Regression(SPEC, 3)
    local = LocalTraining(epochs=1, learning_rate=0.5)
    done = run(task=task, strategy=STRATEGIES["fedavg"](), cohorts=cohorts, rounds=60, local=local)
    trained = np.concatenate([cohort.train.features for cohort in cohorts])
    wanted = np.concatenate([cohort.train.targets for cohort in cohorts])[:, 0]
    exact, *_ = np.linalg.lstsq(np.column_stack([trained, np.ones(len(trained))]), (wanted - 120) / 15, rcond=None)
    assert np.allclose(done.model, exact, atol=1e-4)
    found = score(task, done.model, cohorts[0].test)
    assert found.score == pytest.approx(120 + 15 * (cohorts[0].test.features @ exact[:3] + exact[3]), abs=1e-2)
