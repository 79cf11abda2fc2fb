"""A training whose model is evaluated on its schedule, over the deployed protocol: two plans, one ledger."""

import csv
from collections.abc import Callable
from contextlib import closing
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, mean_absolute_error, roc_auc_score

from wardround.client.evaluation import score
from wardround.client.governance import TRAINING_DOMAIN
from wardround.client.store.database import open_store
from wardround.client.store.members import Members, Part
from wardround.client.tasks import task_from
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import Configuration, parse_configuration
from wardround.console.commands.stats import table_command
from wardround.console.commands.study import fetch_command
from wardround.console.plan_words import in_words
from wardround.protocol.incoming import SignReceipt, Train, ask_bytes
from wardround.protocol.messages import Refusal, RefusalCode, Reply
from wardround.protocol.outgoing import is_answer, parse_answer
from wardround.protocol.parameters import Vector, model_hash
from wardround.protocol.plan import StudyPlan
from wardround.protocol.receipt import chain_fault
from wardround.server.carrier import Answered
from wardround.server.conductor import Conductor
from wardround.server.store.studies import StudyFolder
from wardround.server.study import Study
from wardround.simulations.cohorts import declared_patients, gather
from wardround.simulations.desks import DeskCarrier
from wardround.strategies import strategy_for
from wardround.strategies.statistics import Cell, opened, read

ROUNDS, SCHEDULE = 3, (1, 3)
MODES = {
    "none": ["privacy=none", "secagg=on"],
    "local": ["privacy=local", "evaluation.epsilon=3"],
    "dist": ["privacy=dist", "evaluation.epsilon=8", "evaluation.epsilon_consortium=3"],
}


def configured(mode: str, *words: str) -> Configuration:
    given = ["study=heart_disease", *MODES[mode], f"rounds={ROUNDS}", f"evaluation.rounds={list(SCHEDULE)}", *words]
    return parse_configuration(compose_configuration(given))


def planned(configuration: Configuration) -> tuple[StudyPlan, StudyPlan]:
    """The plan that trains, and the one that follows it."""
    plan = make_plan(configuration, declared_patients(configuration), datetime.now(UTC).date())
    assert plan.evaluation_plan is not None
    return plan, plan.evaluation_plan


def trained_and_evaluated(consortium: Any, plan: StudyPlan, beside: StudyPlan) -> tuple[Conductor, Conductor]:
    for each in (plan, beside):
        consortium.approve_everywhere(each)
    training, evaluating = consortium.conductor(plan), consortium.conductor(beside)
    training.run()
    evaluating.run()
    return training, evaluating


def in_training(conductor: Conductor, plan: StudyPlan) -> list[Vector]:
    found = [conductor.folder.in_training(plan.digest, number) for number in SCHEDULE]
    assert all(model is not None for model in found)
    return [model for model in found if model is not None]


def figure(cells: list[Cell], after: int, quantity: str) -> Cell:
    return next(c for c in cells if (c.after, c.quantity) == (after, quantity) and set(c.group) <= {"all"})


@pytest.mark.parametrize("mode", ["local", "dist"])
def test_each_plan_charges_its_own_patients_and_no_others(consortium: Any, mode: str) -> None:
    plan, beside = planned(configured(mode))
    training, evaluating = trained_and_evaluated(consortium, plan, beside)
    curve = {"consortium": {ROUNDS}} if mode == "dist" else {}
    assert consortium.charged(plan) == {"training": {ROUNDS}, "test": {0}} | curve
    curve = {"consortium": {len(SCHEDULE)}} if mode == "dist" else {}
    assert consortium.charged(beside) == {"training": {0}, "test": {len(SCHEDULE)}} | curve
    receipts = evaluating.folder.receipts()
    assert [receipt.state for receipt in receipts] == ["closed"] * len(SCHEDULE) and chain_fault(receipts) is None
    after = {receipt.round_number: receipt.model_after for receipt in training.folder.receipts()}
    assert [receipt.evaluated for receipt in receipts] == [after[number] for number in SCHEDULE]
    assert all(set(each.verified_signers(consortium.roster.identities)) == set(consortium.folders) for each in receipts)
    sums = evaluating.folder.model(beside)
    assert sums is not None and model_hash(sums) == receipts[-1].model_after
    assert [each.sites for each in opened(beside.task, sums)] == [4.0] * len(SCHEDULE)  # type: ignore[arg-type]
    for number in SCHEDULE:
        area = figure(read(beside, sums), number, "AUROC")
        assert area.low is not None and area.high is not None and 0.5 < area.high <= 1


def test_a_hospital_signs_no_receipt_of_another_model_than_came_out_of_the_training(consortium: Any) -> None:
    plan, beside = planned(configured("local"))
    training, evaluating = trained_and_evaluated(consortium, plan, beside)
    true, others = evaluating.folder.receipts()[1], training.folder.receipts()
    name, folder = next(iter(consortium.folders.items()))
    for evaluated, signs in ((others[0].model_after, False), (None, False), (true.evaluated, True)):
        receipt = true.model_copy(update={"evaluated": evaluated, "signatures": ()}).signed_by(consortium.coordinator)
        ask = b"".join(bytes(part) for part in ask_bytes(SignReceipt(receipt.canonical.decode())))
        # As if it came for the first time: the one that was signed is told from any other without a look at its model.
        with closing(open_store(folder.database)) as store, store:
            store.execute("DELETE FROM receipts WHERE plan = ? AND round_number = 2", (beside.digest,))
        (answer,) = consortium.desk(name).answer("query.receipt", beside.digest, [ask])
        assert is_answer(answer.content, name) is not signs, "a refusal is an answer, a signature none"


def test_a_coordinator_that_dies_in_one_exchange_after_another_costs_no_test_patient_a_second_charge(
    consortium: Any,
) -> None:
    plan, beside = planned(configured("local"))
    for each in (plan, beside):
        consortium.approve_everywhere(each)
    consortium.conductor(plan).run()
    evaluating, died = consortium.run_dying(beside)
    assert died >= 2 * len(SCHEDULE), "the study ended before the coordinator died in its exchanges"
    assert [receipt.state for receipt in evaluating.folder.receipts()] == ["closed"] * len(SCHEDULE)
    assert consortium.charged(beside) == {"training": {0}, "test": {len(SCHEDULE)}}


def test_without_noise_every_round_shows_what_all_test_patients_together_show(consortium: Any) -> None:
    configuration = configured("none", "+evaluation.ask.by=[sex]")
    plan, beside = planned(configuration)
    _, evaluating = trained_and_evaluated(consortium, plan, beside)
    sums = evaluating.folder.model(beside)
    assert sums is not None
    cells, task = read(beside, sums), task_from(plan)
    for number, model in zip(SCHEDULE, in_training(evaluating, plan), strict=True):
        scores = [score(task, model, cohort.test) for cohort in gather(configuration).taking_part]
        p, has = np.concatenate([s.score for s in scores]), np.concatenate([s.target[:, 0] for s in scores])
        assert figure(cells, number, "Brier score").value == pytest.approx(brier_score_loss(has, p), abs=1e-5)
        assert figure(cells, number, "AUROC").value == pytest.approx(roc_auc_score(has, np.floor(p * 10)), abs=1e-5)
    briers = [figure(cells, number, "Brier score").value for number in SCHEDULE]
    assert briers[0] != briers[1], "two rounds of training have two models"


def test_a_model_of_a_quantity_is_evaluated_by_its_error(consortium: Any) -> None:
    """Prediction error from rows to figures: the maximum heart rate out of the other columns."""
    words = ["study=heart_disease", "task=regression", *MODES["none"], f"rounds={ROUNDS}"]
    written = deepcopy(
        compose_configuration([*words, f"evaluation.rounds={list(SCHEDULE)}", "local.learning_rate=0.1"])
    )
    rate = written["contract"]["columns"].pop("thalach")
    about = {name: rate[name] for name in ("meaning", "unit", "minimum", "maximum")}
    written["contract"]["label"] = {"kind": "number", "column": "thalach", **about}
    written["task"] |= {"center": 140.0, "scale": 25.0}
    written["evaluation"]["ask"] = {"largest_error": 60}
    configuration = parse_configuration(written)
    plan, beside = planned(configuration)
    _, evaluating = trained_and_evaluated(consortium, plan, beside)
    sums = evaluating.folder.model(beside)
    assert sums is not None
    cohorts = gather(configuration).taking_part
    for number, model in zip(SCHEDULE, in_training(evaluating, plan), strict=True):
        scores = [score(task_from(plan), model, cohort.test) for cohort in cohorts]
        errors = np.concatenate([np.abs(s.score - s.target[:, 0]) for s in scores])
        held = mean_absolute_error(np.zeros(len(errors)), np.minimum(errors, 60))
        found = figure(read(beside, sums), number, "mean absolute error")
        assert found.value == pytest.approx(held, rel=1e-4) and found.unit == "/min"


def test_an_evaluation_waits_for_its_round_and_training_waits_for_no_evaluation(consortium: Any) -> None:
    plan, beside = planned(configured("local"))
    for each in (plan, beside):
        consortium.approve_everywhere(each)
    evaluating, waited = consortium.conductor(beside), list[str]()

    def train(seconds: float) -> None:
        waited.append(evaluating.seen.phase)
        if len(waited) == 1:
            consortium.conductor(plan).run()

    evaluating._sleep = train
    evaluating.run()
    assert waited == ["waiting for round 1 of the training"], "the models of the whole schedule were there then"
    assert [receipt.state for receipt in evaluating.folder.receipts()] == ["closed"] * len(SCHEDULE)


def test_a_coordinator_that_died_before_it_kept_the_model_keeps_it_when_it_is_back(consortium: Any) -> None:
    plan, _ = planned(configured("none"))
    consortium.approve_everywhere(plan)
    conductor = consortium.conductor(plan)
    conductor.run()
    *_, last = sorted((conductor.folder.path / "in-training").iterdir())
    before = last.read_bytes()
    last.unlink()
    consortium.conductor(plan).run()
    assert last.read_bytes() == before


def test_a_hospital_that_approved_the_training_alone_trains_and_is_in_no_evaluation(consortium: Any) -> None:
    plan, beside = planned(configured("local"))
    consortium.approve_everywhere(plan)
    for site in ("cleveland", "hungarian", "switzerland"):
        consortium.approve(beside, site)
    training, evaluating = consortium.conductor(plan), consortium.conductor(beside)
    training.run()
    evaluating.run()
    assert all(line.outcome == "replied" for line in training.folder.receipts()[-1].sites)
    assert [receipt.line["va"].outcome for receipt in evaluating.folder.receipts()] == ["lost"] * len(SCHEDULE)
    assert consortium.charged(beside)["training"] == {0}


def test_a_test_domain_without_budget_refuses_and_nobody_is_charged_there(consortium: Any) -> None:
    """Of a domain of epsilon 12 two looks at epsilon 8 take more than half: the fourth look has no room."""
    plans = [planned(configured("local", "evaluation.epsilon=8", f"local.learning_rate={rate}")) for rate in (0.5, 0.2)]
    for plan, beside in plans:
        _, evaluating = trained_and_evaluated(consortium, plan, beside)
    first, *others = evaluating.folder.receipts()
    assert first.state == "closed" and {receipt.state for receipt in others} == {"void"}
    assert {line.detail for receipt in others for line in receipt.sites} == {"policy"}
    assert [consortium.charged(beside)["test"] for _, beside in plans] == [{2}, {1}]
    assert all(consortium.charged(plan)["training"] == {ROUNDS} for plan, _ in plans), "training goes on"


def test_a_hospital_without_test_patients_adds_noise_alone_and_nobody_can_tell(consortium: Any) -> None:
    plan, beside = planned(configured("local"))
    folder = consortium.folders["va"]
    store = open_store(folder.database)
    members = Members(store, folder.patients_key())
    with (folder.path / "data" / "patients.csv").open() as rows:
        ids = [row["patient"] for row in csv.DictReader(rows)]
    store.execute("DELETE FROM members")
    members.enrol(ids, TRAINING_DOMAIN, Part.TRAIN)
    store.close()
    _, evaluating = trained_and_evaluated(consortium, plan, beside)
    receipts = evaluating.folder.receipts()
    assert all(line.outcome == "replied" for receipt in receipts for line in receipt.sites)
    assert consortium.charged(beside)["test"] == {len(SCHEDULE)}, "it is charged like the others"


def test_a_round_is_evaluated_once_and_a_second_request_gets_the_same_noise(consortium: Any) -> None:
    words = ["secagg=off", "min_sites=1"]
    plan, beside = planned(configured("local", *words))
    consortium.approve_everywhere(beside)
    for folder in consortium.folders.values():
        (folder.path / "policy.yaml").write_text("secure_aggregation_from: 100\n")
    consortium.desk("va").studies.add(beside.canonical)
    study = Study(beside, strategy_for(beside))

    def asked(model: Vector) -> bytes:
        """The answer of a desk that is opened anew, as after a restart."""
        study.in_training = model
        carrier = DeskCarrier(beside.digest, {"va": consortium.desk("va")})
        (outcome,) = carrier.exchange("train.round", {"va": [Train(study.request(), None)]}, 10.0)
        assert isinstance(outcome, Answered)
        (answer,) = outcome.answers
        assert isinstance(answer, bytes)
        return answer

    model = plan.starting_model()
    first, again, other = asked(model), asked(model), asked(model + np.float32(1))
    assert isinstance(parse_answer(first, "va"), Reply) and first == again
    refusal = parse_answer(other, "va")
    assert isinstance(refusal, Refusal) and refusal.code is RefusalCode.PROTOCOL
    assert consortium.charged(beside)["test"] == {0, 1}, "of the four hospitals one was asked, and charged once"


@pytest.mark.slow
def test_daemons_train_and_evaluate_beside_each_other_and_the_table_is_fetched(
    deploy: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two studies of one proposal: each a process of its own at the coordinator, both answered by the same daemons."""
    deployed, (plan, beside) = deploy(), planned(configured("local"))
    deployed.consortium.approve_everywhere(beside)
    deployed.study(plan)
    deployed.start_all()
    for each in (plan, beside):
        deployed.finished(each, 300.0)
    receipts = StudyFolder.of(deployed.hub.studies, beside).receipts()
    after = {one.round_number: one.model_after for one in StudyFolder.of(deployed.hub.studies, plan).receipts()}
    assert [one.evaluated for one in receipts if one.state == "closed"] == [after[number] for number in SCHEDULE]
    assert deployed.consortium.charged(beside) == {"training": {0}, "test": {len(SCHEDULE)}}
    assert deployed.consortium.charged(plan) == {"training": {ROUNDS}, "test": {0}}
    fetch_command(deployed.hub.path, beside.study, tmp_path / "fetched")
    capsys.readouterr()
    table_command(tmp_path / "fetched", "csv")
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    areas = [row for row in rows if row["quantity"] == "AUROC"]
    assert [row["after"] for row in areas] == [str(number) for number in SCHEDULE]


def test_officers_read_the_schedule_in_both_plans(consortium: Any) -> None:
    plan, beside = planned(configured("local"))
    training, evaluating = ("\n".join(in_words(each)) for each in (plan, beside))
    assert f"after rounds 1 and 3 on the patients who test, by plan {beside.digest}" in training
    assert f"the model after rounds 1 and 3 of the training of plan {plan.digest}" in evaluating
    assert "the patients who test; their budget is charged" in evaluating and "the model in training" in evaluating
