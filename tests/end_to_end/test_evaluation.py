"""A released model of heart disease: beside the exact pooled figures, and over the deployed protocol."""

from datetime import UTC, date, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import brier_score_loss, roc_auc_score

from wardround.client.evaluation import score
from wardround.client.limits import unfit_here
from wardround.client.tasks import task_from
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.conf.statistics import parse_statistics
from wardround.console.plan_words import in_words
from wardround.protocol.errors import UsageError
from wardround.protocol.plan import StudyPlan
from wardround.protocol.receipt import chain_fault
from wardround.protocol.weights import pick, tensors_in
from wardround.simulations.cohorts import declared_patients, gather
from wardround.simulations.configured import simulate
from wardround.simulations.statistics import count
from wardround.strategies.statistics import Cell, read

TODAY = date(2026, 11, 29)
REPETITIONS = 20


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a trained heart disease model."""
    output = tmp_path_factory.mktemp("runs")
    given = ["study=heart_disease", "privacy=none", "rounds=10", f"simulation.output={output}"]
    configuration = parse_configuration(compose_configuration(given))
    return simulate(configuration, today=TODAY, started=perf_counter()).folder.path


def asked(model: Path, mode: str = "local", epsilon: float = 3.0, **query: Any) -> dict[str, Any]:
    privacy = {
        "none": {"mode": "none"},
        "local": {"mode": "local", "epsilon": epsilon},
        "dist": {"mode": "dist", "epsilon": 8.0, "epsilon_consortium": epsilon},
    }[mode]
    queries = [{"name": "model", "kind": "evaluation", "model": str(model), **query}]
    return {"like": "heart_disease", "privacy": privacy, "statistics": {"patients": "test", "queries": queries}}


def planned(model: Path, *how: Any, **query: Any) -> StudyPlan:
    configuration = parse_statistics(asked(model, *how, **query))
    return make_plan(configuration, declared_patients(configuration), datetime.now(UTC).date())


@pytest.fixture(scope="module")
def exact(model: Path) -> dict[str, Any]:
    """Outcome, score and sex of all test patients, by another path than the study's."""
    configuration = parse_configuration(compose_configuration(["study=heart_disease"]))
    plan = StudyPlan.parse((model / "plan.json").read_bytes())
    task = task_from(plan)
    weights = pick(tensors_in((model / "model.safetensors").read_bytes()), plan.layout.tensors)
    cohorts = gather(configuration).taking_part
    scores = [score(task, weights, cohort.test) for cohort in cohorts]
    return {
        "cohorts": cohorts,
        "score": np.concatenate([each.score for each in scores]),
        "has": np.concatenate([each.target[:, 0] for each in scores]),
    }


def figures(model: Path, exact: dict[str, Any], plan: StudyPlan) -> dict[str, Cell]:
    data = (model / "model.safetensors").read_bytes()
    found = count(plan, exact["cohorts"], TODAY, epsilon_cap=30, installed=lambda file: data)
    assert set(found.charged.values()) == {1}
    return {cell.quantity: cell for cell in found.cells if set(cell.group) <= {"all"}}


def test_without_noise_the_federation_finds_what_all_patients_together_show(model: Path, exact: dict[str, Any]) -> None:
    has, p = exact["has"], exact["score"]
    found = figures(model, exact, planned(model, "none", by=["sex"]))
    assert found["Brier score"].value == pytest.approx(brier_score_loss(has, p), abs=1e-5)
    assert found["AUROC"].value == pytest.approx(roc_auc_score(has, np.floor(p * 10)), abs=1e-5)
    assert found["AUROC"].value == pytest.approx(roc_auc_score(has, p), abs=0.01), "ten bins are enough"


@pytest.mark.parametrize(("epsilon", "widest"), [(1.0, 0.2), (3.0, 0.12)])
def test_intervals_at_epsilon_one_and_three_hold_the_exact_pooled_figures(
    model: Path, exact: dict[str, Any], epsilon: float, widest: float
) -> None:
    plan, pooled = planned(model, "local", epsilon), roc_auc_score(exact["has"], exact["score"])
    covered, reach = 0, []
    for _ in range(REPETITIONS):
        cell = figures(model, exact, plan)["AUROC"]
        if cell.low is not None and cell.high is not None:
            covered += cell.low <= pooled <= cell.high
            reach.append((cell.high - cell.low) / 2)
    assert len(reach) >= REPETITIONS - 3, "the class counts are large enough for the noise"
    assert covered >= scipy.stats.binom.ppf(1e-4, len(reach), 0.95)
    assert np.mean(reach) < widest, "an interval that is everything would cover too"


@pytest.mark.parametrize("mode", ["local", "dist"])
def test_only_the_test_domain_is_charged_and_only_once_however_often_the_coordinator_dies(
    consortium: Any, model: Path, mode: str
) -> None:
    plan = planned(model, mode)
    for site, folder in consortium.folders.items():
        assert "is not installed here" in (unfit_here(plan, folder) or "")
        folder.weights.install(model / "model.safetensors")
        assert unfit_here(plan, folder) is None
        consortium.approve(plan, site)
    conductor, died = consortium.run_dying(plan)
    assert died >= 5, "the study ended before the coordinator died in its exchanges"
    (receipt,) = conductor.folder.receipts()
    assert (receipt.state, chain_fault([receipt])) == ("closed", None)
    assert consortium.charged(plan) == {"test": {1}} | ({"consortium": {1}} if mode == "dist" else {})
    found = conductor.folder.model(plan)
    assert found is not None
    area = next(cell for cell in read(plan, found) if cell.quantity == "AUROC")
    assert area.low is not None and area.high is not None and 0.5 < area.high <= 1


def test_the_officer_reads_which_model_is_looked_at_and_on_whom(model: Path) -> None:
    plan = planned(model)
    text = "\n".join(in_words(plan))
    trained = StudyPlan.parse((model / "plan.json").read_bytes())
    assert trained.digest in text and trained.digest[:12] in text
    assert "the patients who test; their budget is charged" in text
    assert plan.weights_files[0].sha256 in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "nowhere"}, "lacks plan.json or model.safetensors"),
        ({"outcome": "sex2"}, "no column of 0 and 1"),
        ({"bins": 1}, "greater than or equal to 2"),
    ],
)
def test_what_cannot_be_evaluated_is_said_before_anything_is_sent(
    model: Path, change: dict[str, Any], message: str
) -> None:
    given = asked(model)
    given["statistics"]["queries"][0] |= change
    with pytest.raises(UsageError, match=message):
        make_plan(parse_statistics(given), {"va": 50, "cleveland": 50, "hungarian": 50}, TODAY)


def test_a_model_of_another_contract_is_refused(model: Path) -> None:
    given = asked(model)
    written = compose_configuration(["study=heart_disease"])["contract"]
    assert parse_statistics(given | {"contract": written}).task.name == "statistics"
    written["columns"]["age"]["scale"] = 11
    with pytest.raises(UsageError, match="trained on other columns"):
        parse_statistics(given | {"contract": written})
