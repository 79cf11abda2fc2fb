"""The unit is the patient: whoever has k records moves the clipped sum by at most C, in every task and model family.

``test_closed_form`` and ``test_per_sample`` hold the engines against autograd, patient by patient. Here the tasks that
a study can name are taken as they are, and a whole patient is added and removed. Each bound stands beside the same
measurement without its protection, which must break it: else the test would prove nothing.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from wardround.client.tasks import TASKS, Task
from wardround.client.tasks.module import ModuleTask
from wardround.privacy.dpsgd import private_gradient
from wardround.privacy.gradients import Array, Examples
from wardround.privacy.sampling import poisson_sample
from wardround.protocol.errors import UsageError
from wardround.protocol.image_tasks import ImageClassification, ImageDenseNet, ImageSegmentation, LinearProbe
from wardround.protocol.networks import SmallNetwork
from wardround.protocol.tasks import SurvivalCox, SurvivalPiecewise, TabularClassification, TabularRegression

torch.set_num_threads(1)

COLUMNS = 5
CLIP_NORM = 0.7
ROUNDING = {"dense": 1e-12, "module": 1e-5}
"""Relative: the closed form works in double precision, torch modules in single."""


def classification(hidden: tuple[int, ...], activation: str = "tanh") -> Callable[[], Task]:
    spec = TabularClassification.model_validate({"hidden": hidden, "activation": activation})
    return lambda: TASKS[spec.name](spec, COLUMNS)


def piecewise(hidden: tuple[int, ...], activation: str = "tanh") -> Callable[[], Task]:
    spec = SurvivalPiecewise.model_validate(
        {"hidden": hidden, "activation": activation, "cuts": (1.0, 2.5), "baseline_rate": 0.3}
    )
    return lambda: TASKS[spec.name](spec, COLUMNS)


def regression(hidden: tuple[int, ...]) -> Callable[[], Task]:
    return lambda: TASKS["tabular_regression"](TabularRegression(hidden=hidden, activation="tanh"), COLUMNS)


def module(*layers: Callable[[], nn.Module]) -> Callable[[], Task]:
    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(1)

    return lambda: ModuleTask(nn.Sequential(*(layer() for layer in layers)), loss, {})


FAMILIES: dict[str, tuple[Callable[[], Task], tuple[int, ...]]] = {
    # name: (a fresh task, the shape of one record); the first word is the task
    "tabular_classification linear": (classification(()), (COLUMNS,)),
    "tabular_classification tanh": (classification((6,)), (COLUMNS,)),
    "tabular_classification deep relu": (classification((6, 4), "relu"), (COLUMNS,)),
    "survival_piecewise linear": (piecewise(()), (COLUMNS,)),
    "survival_piecewise tanh": (piecewise((6,)), (COLUMNS,)),
    "survival_piecewise deep relu": (piecewise((6, 4), "relu"), (COLUMNS,)),
    "tabular_regression linear": (regression(()), (COLUMNS,)),
    "tabular_regression tanh": (regression((6,)), (COLUMNS,)),
    "linear_probe": (
        lambda: TASKS["linear_probe"](
            LinearProbe(size=(8, 8), network=SmallNetwork(widths=(4, 8), groups=2)), COLUMNS
        ), (8,),
    ),
    # The last channel is the mask.
    "image_segmentation": (
        lambda: TASKS["image_segmentation"](ImageSegmentation(size=(8, 8), widths=(4, 8), groups=2), 1), (2, 8, 8),
    ),
    "image_classification": (
        lambda: TASKS["image_classification"](ImageClassification(size=(8, 8), widths=(4, 32), groups=2), 1), (1, 8, 8),
    ),
    "module mlp": (module(lambda: nn.Linear(5, 6), nn.Tanh, lambda: nn.Linear(6, 1)), (5,)),
    "module sequence": (
        module(lambda: nn.Linear(5, 6), lambda: nn.LayerNorm(6), nn.ReLU, nn.Flatten, lambda: nn.Linear(18, 1)),
        (3, 5),
    ),
    "module images": (
        module(
            lambda: nn.Conv2d(2, 4, 3, padding=1), lambda: nn.GroupNorm(2, 4), nn.ReLU,
            lambda: nn.AdaptiveAvgPool2d(2), nn.Flatten, lambda: nn.Linear(16, 1),
        ),
        (2, 6, 6),
    ),
    "module volumes": (
        module(lambda: nn.Conv3d(1, 2, 3), nn.Tanh, nn.Flatten, lambda: nn.Linear(16, 1)),
        (1, 4, 4, 4),
    ),
}  # fmt: skip
each_family = pytest.mark.parametrize("name", FAMILIES)
each_count = pytest.mark.parametrize("records", [1, 2, 7])


def made(name: str, records: list[int], seed: int = 5) -> tuple[Task, Array, Examples]:
    """A task, parameters, and patients who have that many ``records`` each."""
    make, shape = FAMILIES[name]
    task, random = make(), np.random.default_rng(seed)
    count = sum(records)
    features = random.normal(size=(count, *shape))
    targets = random.integers(0, 2, (count, 1)).astype(float)
    if name.startswith("survival"):
        targets = np.column_stack([random.uniform(0.1, 6.0, count), targets])
    patient = np.repeat(np.arange(len(records)), records)
    parameters = random.normal(size=task.layout.size) * 0.5
    return task, parameters, Examples(features, targets, patient, len(records))


def rounding(name: str) -> float:
    return ROUNDING["module" if name.startswith(("module", "image")) else "dense"]


def without(examples: Examples, patient: int) -> Examples:
    return examples.take(np.delete(np.arange(examples.patients), patient))


def moved(task: Task, parameters: Array, examples: Examples, patient: int, clip_norm: float | None) -> float:
    """How far the sum is from the sum without that patient."""
    whole = task.engine.gradient_sum(parameters, examples, clip_norm)
    return float(np.linalg.norm(whole - task.engine.gradient_sum(parameters, without(examples, patient), clip_norm)))


def as_patients(examples: Examples) -> Examples:
    """The mistake that this file is about: every record taken for a patient of its own."""
    return Examples(examples.features, examples.targets, np.arange(len(examples.patient)), len(examples.patient))


def test_every_task_is_here_or_refuses_to_be_private() -> None:
    tested = {name.split()[0] for name in FAMILIES} - {"module"}
    coupled = {"survival_cox": SurvivalCox(hidden=(4,))}
    assert tested | coupled.keys() | {"image_densenet121"} == TASKS.keys()
    for name, spec in coupled.items():
        task = TASKS[name](spec, COLUMNS)
        _, _, examples = made("survival_piecewise linear", [1, 2])
        assert task.couples_patients
        with pytest.raises(UsageError, match="couples patients"):
            task.engine.gradient_sum(np.zeros(task.layout.size), examples, CLIP_NORM)


def test_a_patient_moves_the_sum_of_the_largest_network_by_at_most_the_clip_norm() -> None:
    """DenseNet-121 has seven million parameters, so it is looked at once, and its control beside it."""
    task, random = TASKS["image_densenet121"](ImageDenseNet(size=(32, 32)), 1), np.random.default_rng(5)
    features = random.normal(size=(4, 1, 32, 32)) * np.array([1, 1e3, 1e3, 1])[:, None, None, None]
    examples = Examples(features, np.array([[0.0], [1.0], [1.0], [1.0]]), np.array([0, 1, 1, 2]), 3)
    parameters = random.normal(size=task.layout.size) * 0.1
    assert moved(task, parameters, examples, 1, CLIP_NORM) <= CLIP_NORM * (1 + ROUNDING["module"])
    assert moved(task, parameters, examples, 1, None) > 1.5 * CLIP_NORM


@each_family
@each_count
@pytest.mark.parametrize("place", [0, 2, 4], ids=["first", "middle", "last"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6], ids=["small", "usual", "huge"])
def test_a_whole_patient_moves_the_clipped_sum_by_at_most_the_clip_norm(
    name: str, records: int, place: int, scale: float
) -> None:
    counts = [2, 1, 3, 1, 2]
    counts[place] = records
    task, parameters, examples = made(name, counts)
    examples.features[examples.patient == place] *= scale
    assert moved(task, parameters, examples, place, CLIP_NORM) <= CLIP_NORM * (1 + rounding(name))


@each_family
@each_count
def test_without_clipping_the_same_patient_moves_the_sum_much_further(name: str, records: int) -> None:
    """The control: the bound above comes from clipping, and this measurement sees it when it is gone."""
    # The loss of a mask is bounded, and its gradient small.
    clip, longest = CLIP_NORM * (0.2 if name == "image_segmentation" else 1), 0.0
    for seed in range(4):  # a deep network may answer nothing at all to one of them
        task, parameters, examples = made(name, [2, 1, records], seed)
        examples.features[examples.patient == 2] *= 1e3
        for wrong in (0.0, 1.0):
            examples.targets[examples.patient == 2, -1] = wrong
            assert moved(task, parameters, examples, 2, clip) <= clip * (1 + rounding(name))
            longest = max(longest, moved(task, parameters, examples, 2, None))
    assert longest > 1.5 * clip


@each_family
def test_records_clipped_one_by_one_would_break_the_bound_of_the_patient(name: str) -> None:
    """The control for the unit: seven equal records, each clipped by itself, count seven times."""
    task, parameters, examples = made(name, [1, 1])
    again = np.r_[0, np.ones(7, np.int64)]
    repeated = Examples(examples.features[again], examples.targets[again], again, 2)
    tiny = 1e-3 * moved(task, parameters, examples, 1, None)  # so small that everybody is clipped
    assert moved(task, parameters, repeated, 1, tiny) <= tiny * (1 + rounding(name))
    wrong = as_patients(repeated)
    apart = task.engine.gradient_sum(parameters, wrong, tiny) - task.engine.gradient_sum(
        parameters, wrong.take(np.array([0])), tiny
    )
    assert np.linalg.norm(apart) == pytest.approx(7 * tiny, rel=1e-3)


@each_family
@pytest.mark.parametrize("clip_norm", [None, 0.05, CLIP_NORM])
@pytest.mark.parametrize("times", [2, 7])
def test_repeating_every_record_of_a_patient_changes_nothing(name: str, clip_norm: float | None, times: int) -> None:
    task, parameters, examples = made(name, [2, 1, 3])
    rows = np.concatenate([np.repeat(np.flatnonzero(examples.patient == p), times if p else 1) for p in range(3)])
    longer = Examples(examples.features[rows], examples.targets[rows], examples.patient[rows], 3)
    once = task.engine.gradient_sum(parameters, examples, clip_norm)
    many = task.engine.gradient_sum(parameters, longer, clip_norm)
    np.testing.assert_allclose(many, once, rtol=0, atol=100 * rounding(name) * np.abs(once).max())
    assert task.engine.mean_loss(parameters, longer) == pytest.approx(
        task.engine.mean_loss(parameters, examples), rel=1e-5
    )


class Witness:
    """An engine that notes which records came together as which patients."""

    size = 3

    def __init__(self) -> None:
        self.batches: list[Examples] = []

    def gradient_sum(self, parameters: Array, examples: Examples, clip_norm: float | None) -> Array:
        self.batches.append(examples)
        return np.zeros(self.size)

    def outputs(self, parameters: Array, features: Array) -> Array:
        raise NotImplementedError

    def mean_loss(self, parameters: Array, examples: Examples) -> float:
        raise NotImplementedError


RECORDS = [1, 7, 2, 1, 7, 3]


def batches(steps: int, q: float, seed: int) -> list[set[int]]:
    """The patients of each step's batch; every one of them came whole."""
    patient = np.repeat(np.arange(len(RECORDS)), RECORDS)
    # A record says who it is of.
    examples = Examples(patient[:, None].astype(float), np.zeros((len(patient), 1)), patient, len(RECORDS))
    random_bytes, found = np.random.default_rng(seed).bytes, []
    for _ in range(steps):
        witness = Witness()
        private_gradient(
            witness, np.zeros(3), examples, clip_norm=1.0, noise_multiplier=1.0, sampling_probability=q,
            declared_patients=50, random_bytes=random_bytes,
        )  # fmt: skip
        who: list[int] = []
        for batch in witness.batches:
            assert batch.patients == len(set(batch.features[:, 0]))
            for number in range(batch.patients):
                (owner,) = set(batch.features[batch.patient == number, 0])
                assert (batch.patient == number).sum() == RECORDS[int(owner)], "all records of a patient come, or none"
                who.append(int(owner))
        assert len(who) == len(set(who))
        found.append(set(who))
    return found


def test_a_batch_is_drawn_of_patients_with_one_coin_each() -> None:
    (drawn,) = batches(1, 0.5, seed=3)
    assert drawn == set(poisson_sample(len(RECORDS), 0.5, np.random.default_rng(3).bytes).tolist())


def test_who_has_many_records_is_drawn_no_more_often() -> None:
    steps, q = 4000, 0.2
    drawn = batches(steps, q, seed=11)
    spread = (q * (1 - q) / steps) ** 0.5
    for number in range(len(RECORDS)):
        share = sum(number in batch for batch in drawn) / steps
        assert abs(share - q) < 4 * spread, f"a patient with {RECORDS[number]} records was drawn in {share:.3f}"
    # Were records drawn, a patient of seven would come with probability 1 - (1 - q)^7 = 0.79.
    assert 1 - (1 - q) ** 7 > q + 100 * spread * 0.9
