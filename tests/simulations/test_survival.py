"""Survival in a federation: what is learned, with differential privacy and without, and what is refused."""

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
