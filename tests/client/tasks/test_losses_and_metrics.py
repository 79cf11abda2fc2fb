"""Losses against torch's autograd, metrics against scikit-learn and lifelines."""

import numpy as np
import pytest
import torch
from lifelines.utils import concordance_index
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from wardround.client.tasks import Scores
from wardround.client.tasks.binary import LogLoss, accuracy, auroc, log_loss
from wardround.client.tasks.survival import CoxLoss, PiecewiseLoss, concordance

GENERATOR = np.random.Generator(np.random.PCG64(3))


def survival_targets(count: int) -> np.ndarray:
    # Whole numbers, so that times tie.
    return np.column_stack([GENERATOR.integers(0, 12, count), GENERATOR.integers(0, 2, count)]).astype(float)


def ones(count: int) -> np.ndarray:
    return np.ones((1, count))


def test_the_log_loss_is_torchs_and_so_is_its_slope() -> None:
    outputs, targets = GENERATOR.normal(size=(40, 1)) * 30, GENERATOR.integers(0, 2, (40, 1)).astype(float)
    loss, slope = LogLoss().loss_and_slope(outputs, targets)
    logits = torch.tensor(outputs, requires_grad=True)
    reference = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor(targets), reduction="none")
    reference.sum().backward()
    assert np.allclose(loss, reference.detach().numpy()[:, 0], atol=1e-12)
    assert logits.grad is not None and np.allclose(slope, logits.grad.numpy(), atol=1e-12)


def test_the_cox_loss_is_the_partial_likelihood_written_out_and_its_slope_is_autograds() -> None:
    outputs, targets = GENERATOR.normal(size=(30, 1)), survival_targets(30)
    loss, slope = CoxLoss().loss_and_slope(outputs, targets)
    risk = torch.tensor(outputs[:, 0], requires_grad=True)
    terms = []
    for i in range(30):
        at_risk = torch.logsumexp(risk[torch.tensor(targets[:, 0] >= targets[i, 0])], 0)
        terms.append(targets[i, 1] * (at_risk - risk[i]))
    torch.stack(terms).sum().backward()
    assert np.allclose(loss, [float(term.detach()) for term in terms], atol=1e-12)
    assert risk.grad is not None and np.allclose(slope[:, 0], risk.grad.numpy(), atol=1e-12)


def test_the_piecewise_loss_is_the_integral_of_the_hazard_and_its_slope_is_autograds() -> None:
    cuts, rate = (2.0, 5.0, 9.0), 0.2
    outputs, targets = GENERATOR.normal(size=(25, 4)), survival_targets(25)
    loss, slope = PiecewiseLoss(cuts, rate).loss_and_slope(outputs, targets)
    logs = torch.tensor(outputs, requires_grad=True)
    # Numerically: the cumulative hazard by a fine Riemann sum, the hazard at the event by looking it up.
    edges = [0.0, *cuts, 1e9]
    total = torch.zeros(())
    for i, (time, event) in enumerate(targets):
        grid = (np.arange(20_000) + 0.5) * (time / 20_000)
        which = torch.tensor(np.searchsorted(cuts, grid, side="left"))
        cumulative = (rate * torch.exp(logs[i][which])).sum() * (time / 20_000)
        interval = max(k for k in range(4) if time > edges[k] or k == 0)
        term = cumulative - event * (logs[i, interval] + np.log(rate))
        assert loss[i] == pytest.approx(float(term.detach()), abs=2e-3)
        total = total + term
    total.backward()
    assert logs.grad is not None and np.allclose(slope, logs.grad.numpy(), atol=3e-3)


def test_accuracy_auroc_and_log_loss_are_those_of_scikit_learn() -> None:
    score, label = np.round(GENERATOR.random(300), 2), GENERATOR.integers(0, 2, 300).astype(float)
    scores = Scores(score, label[:, None])
    assert auroc(scores, ones(300))[0] == pytest.approx(roc_auc_score(label, score))
    assert accuracy(scores, ones(300))[0] == pytest.approx(((score > 0.5) == (label > 0.5)).mean())
    assert log_loss(scores, ones(300))[0] == pytest.approx(sklearn_log_loss(label, np.clip(score, 1e-12, 1 - 1e-12)))


def test_a_weighted_metric_is_the_metric_of_the_repeated_patients() -> None:
    score, label = GENERATOR.random(50), GENERATOR.integers(0, 2, 50).astype(float)
    weights = GENERATOR.integers(0, 4, 50)
    repeated = np.repeat(np.arange(50), weights)
    weighted = auroc(Scores(score, label[:, None]), weights[None, :].astype(float))[0]
    assert weighted == pytest.approx(roc_auc_score(label[repeated], score[repeated]))


def test_one_class_has_no_auroc() -> None:
    assert np.isnan(auroc(Scores(np.array([0.2, 0.7]), np.ones((2, 1))), ones(2))[0])


def test_the_c_index_is_that_of_lifelines() -> None:
    risk, targets = np.round(GENERATOR.normal(size=120), 1), survival_targets(120)
    mine = concordance(Scores(risk, targets), ones(120))[0]
    assert mine == pytest.approx(concordance_index(targets[:, 0], -risk, targets[:, 1]))


def test_a_c_index_without_comparable_pairs_is_not_estimable() -> None:
    assert np.isnan(concordance(Scores(np.arange(3.0), np.array([[1.0, 0.0]] * 3)), ones(3))[0])
