"""Objects of a researcher's own in ``run``: any torch module, through the same sites, ledger and rounds."""

import numpy as np
import pytest
import torch

from wardround.client.connectors import make_cohort
from wardround.client.tasks import Classification
from wardround.client.tasks.binary import accuracy, auroc
from wardround.client.tasks.module import ModuleTask
from wardround.protocol.errors import UsageError
from wardround.protocol.plan import LocalTraining, PrivacyMode, PrivacyTerms, StudyPlan
from wardround.protocol.tasks import TabularClassification
from wardround.simulations import run
from wardround.simulations.cohorts import synthetic_cohorts
from wardround.strategies import STRATEGIES

TERMS = PrivacyTerms(mode=PrivacyMode.LOCAL, noise_multiplier=4.0, sampling_probability=0.2, delta=1e-4, epsilon=3.0)


def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(1)


def task(module: torch.nn.Module) -> ModuleTask:
    return ModuleTask(module, loss, {"accuracy": accuracy, "auroc": auroc}, lambda out: 1 / (1 + np.exp(-out[:, 0])))


def test_a_convolutional_net_on_pictures_trains_with_patient_level_privacy() -> None:
    generator = np.random.Generator(np.random.PCG64(2))
    cohorts = []
    for site in ("a", "b", "c"):
        label = generator.integers(0, 2, 60).astype(float)
        pictures = generator.normal(size=(60, 1, 8, 8)) + 2.0 * label[:, None, None, None]
        cohorts.append(make_cohort(site, pictures, label, test=np.arange(60) < 15))
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.GroupNorm(2, 4), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 1),
    )  # fmt: skip
    done = run(
        task=task(net), strategy=STRATEGIES["fedavg"](), cohorts=cohorts, rounds=2,
        local=LocalTraining(steps=2, learning_rate=0.2), privacy=TERMS, compare=False,
    )  # fmt: skip
    assert done.plan.task.name == "programmed" and len(done.model) == sum(p.numel() for p in net.parameters())
    assert all(site.epsilon_site is not None and 0 < site.epsilon_site <= 3 for site in done.result.sites)
    assert StudyPlan.parse(done.plan.canonical) == done.plan


def test_a_torch_mlp_and_the_closed_form_learn_the_same_without_privacy() -> None:
    cohorts = synthetic_cohorts(3, (40, 60), 5, seed=4)
    net = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    local = LocalTraining(epochs=1, batch_size=16, learning_rate=0.3)
    closed = Classification(TabularClassification(hidden=(4,)), 5)
    results = [
        run(task=t, strategy=STRATEGIES["fedavg"](), cohorts=cohorts, rounds=3, local=local, seed=9, scheme="zeros")
        for t in (task(net), closed)
    ]
    # Zeros are the one start that both layouts share; their names, and so their drawn weights, differ.
    assert np.allclose(results[0].model, results[1].model, atol=1e-5)
    assert np.abs(results[0].model).max() > 0.01


def test_a_net_that_couples_patients_is_refused() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
    with pytest.raises(UsageError, match="BatchNorm") as error:
        run(
            task=task(net), strategy=STRATEGIES["fedavg"](), cohorts=synthetic_cohorts(3, (40, 60), 5, seed=4),
            rounds=1, local=LocalTraining(steps=1, learning_rate=0.1), privacy=TERMS,
        )  # fmt: skip
    assert "GroupNorm" in error.value.hint
