"""Several findings at once, and weights of a class: against torch and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn.functional import binary_cross_entropy_with_logits

from wardround.client.tasks.base import Scores
from wardround.client.tasks.binary import LogLoss, auroc, binary_metrics, binary_scores, over_findings, torch_log_loss
from wardround.privacy.gradients import Examples
from wardround.protocol.labels import UNKNOWN
from wardround.protocol.tasks import TabularClassification

RANDOM = np.random.Generator(np.random.PCG64(11))
WEIGHTS = (3.0, 0.5, 1.0)


def drawn(records: int = 40) -> tuple[np.ndarray, np.ndarray]:
    return RANDOM.normal(size=(records, 3)) * 5, RANDOM.integers(-1, 2, (records, 3)).astype(float)


def by_hand(logits: torch.Tensor, targets: np.ndarray) -> torch.Tensor:
    """Torch's own loss of each stated finding, written out one by one; the mean over all three."""
    rows = []
    for row, stated in zip(logits, targets, strict=True):
        total = torch.zeros((), dtype=torch.float64)
        for number, target in enumerate(stated):
            if target != UNKNOWN:
                weight = torch.tensor(WEIGHTS[number], dtype=torch.float64)
                wanted = torch.tensor(target, dtype=torch.float64)
                total = total + binary_cross_entropy_with_logits(row[number], wanted, pos_weight=weight)
        rows.append(total / 3)
    return torch.stack(rows)


def test_the_loss_of_several_findings_is_the_mean_of_those_that_are_stated() -> None:
    outputs, targets = drawn()
    loss, slope = LogLoss(WEIGHTS).loss_and_slope(outputs, targets)
    logits = torch.tensor(outputs, requires_grad=True)
    expected = by_hand(logits, targets)
    expected.sum().backward()
    assert np.allclose(loss, expected.detach().numpy(), atol=1e-12)
    assert logits.grad is not None and np.allclose(slope, logits.grad.numpy(), atol=1e-12)
    assert (slope[targets == UNKNOWN] == 0).all()


def test_torchs_form_of_the_loss_is_the_same() -> None:
    outputs, targets = drawn()
    spec = TabularClassification(outputs=3, positive_weights=WEIGHTS)
    found = torch_log_loss(spec)(torch.tensor(outputs), torch.tensor(targets))
    assert np.allclose(found.numpy(), by_hand(torch.tensor(outputs), targets).numpy(), atol=1e-12)


def test_a_weight_of_two_counts_a_positive_patient_twice() -> None:
    outputs, targets = RANDOM.normal(size=(30, 1)), RANDOM.integers(0, 2, (30, 1)).astype(float)
    once, slope_once = LogLoss().loss_and_slope(outputs, targets)
    twice, slope_twice = LogLoss((2.0,)).loss_and_slope(outputs, targets)
    times = np.where(targets[:, 0] == 1, 2.0, 1.0)
    assert np.allclose(twice, times * once) and np.allclose(slope_twice, times[:, None] * slope_once)


def test_a_metric_of_several_findings_is_the_mean_of_scikit_learns_on_who_is_known() -> None:
    score, target = RANDOM.random((200, 3)), RANDOM.integers(-1, 2, (200, 3)).astype(float)
    expected = np.mean(
        [
            roc_auc_score(target[known, number], score[known, number])
            for number in range(3)
            if (known := target[:, number] != UNKNOWN).any()
        ]
    )
    assert over_findings(auroc)(Scores(score, target), np.ones((1, 200)))[0] == pytest.approx(expected)


def test_a_finding_of_one_class_is_left_out_of_the_mean_and_none_at_all_is_not_estimable() -> None:
    score, target = RANDOM.random((50, 2)), RANDOM.integers(0, 2, (50, 2)).astype(float)
    target[:, 1] = 1.0
    found = over_findings(auroc)(Scores(score, target), np.ones((1, 50)))[0]
    assert found == pytest.approx(roc_auc_score(target[:, 0], score[:, 0]))
    target[:] = UNKNOWN
    assert np.isnan(over_findings(auroc)(Scores(score, target), np.ones((1, 50)))[0])


def test_a_patient_of_several_records_has_the_finding_by_those_that_state_it() -> None:
    targets = np.array([[1.0, UNKNOWN], [UNKNOWN, UNKNOWN], [0.0, UNKNOWN], [1.0, 1.0]])
    patients = Examples(np.zeros((4, 2)), targets, np.array([0, 0, 0, 1]), 2)
    found = binary_scores(np.zeros((4, 2)), patients)
    assert found.target.tolist() == [[0.5, UNKNOWN], [1.0, 1.0]]
    assert (found.score == 0.5).all()
    assert set(binary_metrics(2)) == set(binary_metrics(1))
