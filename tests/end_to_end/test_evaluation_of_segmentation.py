"""A U-Net on volumes of several hospitals: evaluated while it is trained and released, in simulation and for real."""

from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest

from wardround.client.admission import cohort_of
from wardround.client.connectors import Cohort
from wardround.client.evaluation import score
from wardround.client.settings import read_settings
from wardround.client.store.database import open_store
from wardround.client.store.members import Members
from wardround.client.tasks import task_from
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.conf.statistics import parse_statistics
from wardround.console.evaluation_table import rows
from wardround.console.reports.evaluation_charts import plots
from wardround.privacy.gradients import Examples
from wardround.protocol.errors import UsageError
from wardround.protocol.parameters import Vector
from wardround.protocol.plan import StudyPlan
from wardround.protocol.receipt import chain_fault
from wardround.protocol.weights import pick, tensors_in
from wardround.simulations.cohorts import gather
from wardround.simulations.configured import Simulated, simulate
from wardround.simulations.statistics import count
from wardround.strategies.statistics import Cell, read

TODAY = date(2026, 11, 29)
DATA = {"dataset": "phantom_mri", "split": "small"}
STUDY = ["study=brain_lesion", "data.split=small", "task.widths=[4,8]"]
QUICK = ["local.steps=null", "local.epochs=1", "local.batch_size=8", "local.learning_rate=0.02"]
ASKED = ["evaluation.rounds=[1,3]", "+evaluation.ask.largest_volume=500", "evaluation.smallest_cell=0"]
POOLED = "pooled Dice of lesion (clipped at 500)"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    """Three rounds on phantoms, evaluated after the first and the last."""
    output = tmp_path_factory.mktemp("runs")
    words = [*STUDY, *QUICK, *ASKED, "privacy=none", "rounds=3", f"simulation.output={output}"]
    configuration = parse_configuration(compose_configuration([*words, "simulation.evaluate_every=0"]))
    return simulate(configuration, today=TODAY, started=perf_counter())


def exact(plan: StudyPlan, model: Vector, patients: list[Examples]) -> dict[str, float]:
    """The figures of all patients by numpy alone, out of what the site's own report counts, and of the masks."""
    found = [score(task_from(plan), model, each) for each in patients]
    twice, either = (np.concatenate([getattr(each, name)[:, 0] for each in found]) for name in ("score", "target"))
    stated = either > 0
    dice, volume = twice[stated] / either[stated], np.minimum(either[stated] / 2, 500)
    without = ~np.concatenate([each.features[:, 1].reshape(each.patients, -1).any(axis=1) for each in patients])
    return {
        "mean Dice of lesion": float(dice.mean()),
        POOLED: float(dice @ volume / volume.sum()),
        "lesion marked where there is none": float(stated[without].mean()),
    }


@cache
def cohorts() -> tuple[Cohort, ...]:
    return gather(parse_configuration(compose_configuration(STUDY))).taking_part


def phantoms() -> list[Examples]:
    return [cohort.test for cohort in cohorts()]


def test_a_training_is_evaluated_on_its_schedule(trained: Simulated) -> None:
    found = trained.result.evaluation
    assert found is not None and [(look.after_round, look.sites) for look in found.rounds] == [(1, 4), (3, 4)]
    last = {figure.quantity: figure.value for figure in found.rounds[-1].figures}
    wanted = exact(trained.plan, trained.model, phantoms())
    assert last == pytest.approx(wanted, abs=1e-5)
    assert 0 < wanted["mean Dice of lesion"] < 1 and wanted["mean Dice of lesion"] != wanted[POOLED]
    drawn = plots([(look.after_round, look.figures) for look in found.rounds])
    assert [quantity for _, quantity in rows(found)] == [plot.name for plot in drawn] == list(wanted)


def planned(trained: Simulated, privacy: dict[str, Any], **statistics: Any) -> StudyPlan:
    query = {"name": "model", "kind": "segmentation_evaluation", "model": str(trained.folder.path)}
    asked = {"patients": "test", "smallest_cell": 0, "queries": [query | {"largest_volume": 500}], **statistics}
    given = {"like": "brain_lesion", "data": DATA, "privacy": privacy, "secagg": "off", "statistics": asked}
    declared = {each.site: each.declared_patients for each in trained.plan.participants}
    return make_plan(parse_statistics(given), declared, TODAY)


def counted(trained: Simulated, plan: StudyPlan) -> list[Cell]:
    data = (trained.folder.path / "model.safetensors").read_bytes()
    found = count(plan, cohorts(), TODAY, epsilon_cap=30, installed=lambda file: data)
    assert set(found.charged.values()) == {1}
    return list(found.cells)


def test_a_released_model_is_evaluated_from_its_folder(trained: Simulated) -> None:
    plan = planned(trained, {"mode": "none"})
    (query,) = plan.task.queries  # type: ignore[union-attr]
    assert (query.outcome, query.structures) == ("mask", ("lesion",))  # type: ignore[union-attr]
    released = pick(tensors_in((trained.folder.path / "model.safetensors").read_bytes()), trained.plan.layout.tensors)
    wanted = exact(trained.plan, released, phantoms())
    assert {cell.quantity: cell.value for cell in counted(trained, plan)} == pytest.approx(wanted, abs=1e-5)


def test_figures_of_each_hospital_are_those_of_its_own_test_patients(trained: Simulated) -> None:
    sites = [each.site for each in trained.plan.participants]
    cells = counted(trained, planned(trained, {"mode": "none"}, by_site=sites))
    for site, patients in zip(sites, phantoms(), strict=True):
        wanted = exact(trained.plan, trained.model, [patients])
        own = {cell.quantity: cell for cell in cells if cell.site == site}
        lesion = patients.features[:, 1].reshape(patients.patients, -1).any(axis=1)
        assert own["lesion marked where there is none"].patients == pytest.approx((~lesion).sum())
        for quantity, cell in own.items():
            # A figure of three patients or fewer has no interval.
            assert cell.value is None or cell.value == pytest.approx(wanted[quantity], abs=1e-5)


def test_under_noise_there_is_an_interval_or_no_figure(trained: Simulated) -> None:
    for cell in counted(trained, planned(trained, {"mode": "local", "epsilon": 8.0})):
        assert (cell.value is None) is (cell.low is None)
        assert cell.value is None or 0 <= (cell.low or 0) <= (cell.high or 0) <= 1


def test_what_pictures_cannot_be_asked_is_said_before_anything_is_sent(trained: Simulated) -> None:
    query = {"name": "model", "model": str(trained.folder.path)}
    for changes, message in (
        ({"kind": "segmentation_evaluation", "by": "sex"}, "no column of codes in the contract"),
        ({"kind": "segmentation_evaluation", "structures": ["tumour"]}, "'tumour' is not the meaning of one structure"),
        ({"kind": "evaluation"}, "'segmentation_evaluation' for one that marks structures"),
    ):
        with pytest.raises(UsageError, match=message) as error:
            planned(trained, {"mode": "none"}, queries=[query | changes])
        assert len(error.value.lines().splitlines()) == 2
    words = [*STUDY, "evaluation.rounds=[1]", "evaluation.epsilon=3", "+evaluation.ask.kind=evaluation"]
    with pytest.raises(UsageError, match="marks structures"):
        make_plan(parse_configuration(compose_configuration(words)), dict.fromkeys("abc", 50), TODAY)


@pytest.mark.parametrize("mode", ["none", "local"])
def test_hospitals_evaluate_the_model_of_a_training_on_their_archives(
    tmp_path: Path, make_pictures_of: Any, mode: str
) -> None:
    """Over the deployed protocol: their own files, masks beside them, their ledgers, masked sums."""
    consortium = make_pictures_of(tmp_path, patients=8, test=4)
    terms = {
        "none": ["privacy=none", *QUICK],
        "local": ["privacy=local", "evaluation.epsilon=3", "local.steps=1", "epsilon_cap=40"],
    }[mode]
    configuration = parse_configuration(compose_configuration([*STUDY, *ASKED, *terms, "secagg=on", "rounds=3"]))
    declared = dict.fromkeys(consortium.folders, 50)
    plan = make_plan(configuration, declared, datetime.now(UTC).date())
    beside = plan.evaluation_plan
    assert beside is not None
    for each in (plan, beside):
        consortium.approve_everywhere(each)
    consortium.conductor(plan).run()
    evaluating = consortium.conductor(beside)
    evaluating.run()
    receipts = evaluating.folder.receipts()
    assert [receipt.state for receipt in receipts] == ["closed"] * 2 and chain_fault(receipts) is None
    assert consortium.charged(beside) == {"training": {0}, "test": {2}}
    sums, models = evaluating.folder.model(beside), [evaluating.folder.in_training(plan.digest, n) for n in (1, 3)]
    cells = read(beside, sums)
    assert {cell.after for cell in cells} == {1, 3}
    if mode == "local":
        return
    patients = [own_test_patients(plan, folder) for folder in consortium.folders.values()]
    assert all(each.patients == 4 for each in patients)
    for after, model in zip((1, 3), models, strict=True):
        wanted = exact(plan, model, patients)
        # Without an interval there is no figure: the pooled one, if nearly all that is marked is one patient's.
        found = {c.quantity: c.value for c in cells if c.after == after and c.value is not None}
        assert found == pytest.approx({name: wanted[name] for name in found}, abs=1e-5)
        assert "mean Dice of lesion" in found


def own_test_patients(plan: StudyPlan, folder: Any) -> Examples:
    store = open_store(folder.database)
    try:
        return cohort_of(plan, folder, read_settings(folder.path), Members(store, folder.patients_key())).test
    finally:
        store.close()
