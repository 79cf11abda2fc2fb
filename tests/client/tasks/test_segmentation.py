"""Segmentation: loss and Dice against MONAI's."""

import numpy as np
import pytest
import torch
from monai.losses.dice import DiceCELoss
from monai.metrics.meandice import DiceMetric

from wardround.client.tasks.base import Scores
from wardround.client.tasks.segmentation import Segmentation, dice, dice_per_patient, segmentation_loss
from wardround.privacy.gradients import Examples
from wardround.protocol.image_tasks import ImageSegmentation

RANDOM = np.random.Generator(np.random.PCG64(13))
SPEC = ImageSegmentation(size=(8, 8, 8), widths=(4, 8), structures=2)


def drawn(records: int) -> tuple[np.ndarray, np.ndarray]:
    """The maps' logits (records, 3, 8, 8, 8) and masks (records, 1, 8, 8, 8); the last mask is empty."""
    logits, mask = RANDOM.normal(size=(records, 3, 8, 8, 8)) * 3, RANDOM.integers(0, 3, (records, 1, 8, 8, 8))
    mask[-1] = 0
    return logits, mask


def test_the_loss_of_a_record_is_monais_dice_and_cross_entropy() -> None:
    logits, mask = drawn(5)
    ours = segmentation_loss(torch.tensor(np.concatenate([logits, mask], 1)), torch.zeros(5, 1))
    monai = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
    for row in range(5):
        one = torch.tensor(logits[row : row + 1]), torch.tensor(mask[row : row + 1])
        assert float(ours[row]) == pytest.approx(float(monai(*one)), rel=1e-5)


def test_a_mask_with_a_strange_number_stops_nobody() -> None:
    logits, mask = drawn(2)
    strange = mask.astype(float)
    strange[0, 0, 0, 0, :3] = (1e9, -7.0, np.nan)
    found = segmentation_loss(torch.tensor(np.concatenate([logits, strange], 1)), torch.zeros(2, 1))
    assert torch.isfinite(found).all()


def test_dice_of_a_patient_is_monais() -> None:
    logits, mask = drawn(4)
    task = Segmentation(SPEC)
    outputs = np.concatenate([logits, mask], 1)
    patients = Examples(np.zeros((4, 2, 8, 8, 8)), np.zeros((4, 1)), np.arange(4), 4)
    scores = task.scores(outputs, patients)

    def one_hot(values: np.ndarray) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor(values), 3).movedim(-1, 1)

    reference = DiceMetric(include_background=False, ignore_empty=True)(one_hot(logits.argmax(1)), one_hot(mask[:, 0]))
    ours = scores.score / scores.target
    stated = ~torch.isnan(reference).numpy()
    assert stated[:-1].all() and not stated[-1].any()
    assert np.allclose(ours[stated], reference.numpy()[stated], atol=1e-6)


def test_dice_over_patients_is_a_ratio_of_sums_and_an_empty_patient_counts_by_what_is_found_there() -> None:
    scores = Scores(np.array([[6.0, 0.0], [2.0, 0.0], [0.0, 0.0]]), np.array([[10.0, 0.0], [4.0, 0.0], [2.0, 0.0]]))
    ones = np.ones((1, 3))
    # The second structure is nowhere: it is left out. 8 of 16; by patient (0.6 + 0.5 + 0) / 3.
    assert dice(scores, ones)[0] == pytest.approx(0.5)
    assert dice_per_patient(scores, ones)[0] == pytest.approx(1.1 / 3)
    # A patient drawn twice counts twice: (12 + 2) / (20 + 4), and (2 * 0.6 + 0.5) / 3.
    drawn_twice = np.array([[2.0, 1.0, 0.0]])
    assert dice(scores, drawn_twice)[0] == pytest.approx(14 / 24)
    assert dice_per_patient(scores, drawn_twice)[0] == pytest.approx(1.7 / 3)
    assert np.isnan(dice(Scores(np.zeros((2, 1)), np.zeros((2, 1))), np.ones((1, 2)))[0])
