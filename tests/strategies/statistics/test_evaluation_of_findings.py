"""Models of several findings and of pictures: each finding against its absence, by a site's own code for the task."""

from dataclasses import replace
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import save
from sklearn.metrics import brier_score_loss, roc_auc_score

from wardround.client.answers import answers_from
from wardround.client.tasks import TASKS
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.conf.statistics import parse_statistics
from wardround.privacy.gradients import Examples
from wardround.protocol.contract import DataContract, ImageInput, NumberColumn
from wardround.protocol.errors import UsageError
from wardround.protocol.evaluated import EvaluatedModel
from wardround.protocol.evaluations import Evaluation
from wardround.protocol.image_tasks import ImageClassification
from wardround.protocol.labels import UNKNOWN, ClassLabel, Finding, FindingsLabel
from wardround.protocol.parameters import initial_weights, model_hash
from wardround.protocol.plan import StudyPlan
from wardround.protocol.tasks import TabularClassification
from wardround.protocol.weights import WeightsFile
from wardround.simulations.cohorts import gather
from wardround.simulations.statistics import count
from wardround.strategies.statistics import read, table_of, vector_of

FINDINGS = FindingsLabel(
    meaning="on the picture",
    findings=(Finding(column="edema", meaning="Edema"), Finding(column="effusion", meaning="Effusion")),
)
TABLE = DataContract(
    columns=(NumberColumn(name="x", meaning="x", unit="1", minimum=-9, maximum=9),), label=FINDINGS, patient_id="p"
)
TWO = TabularClassification(outputs=2)
WEIGHTS = {"dense0.weight": np.array([[1.0], [-2.0]], np.float32), "dense0.bias": np.array([0.0, 0.5], np.float32)}


def evaluated(task: Any, weights: dict[str, Any], features: int = 1) -> tuple[EvaluatedModel, bytes]:
    file, layout = save(weights), task.layout(features)
    about = WeightsFile(sha256=sha256(file).hexdigest(), licence="CC0-1.0", provenance="made by a test, for it")
    return EvaluatedModel(
        task=task, file=about, layout=layout.digest, hash=model_hash(layout.join(weights)), trained_by="0" * 64
    ), file


def plan_of(kit: Any, contract: DataContract, *queries: Any) -> StudyPlan:
    """The plan of this folder under another contract."""
    plan = kit.plan_for(kit.query("count", by=[]))
    made = kit.task(*queries, smallest_cell=0.0)
    layout = made.layout(0)
    model = plan.model.model_copy(
        update={"layout": layout.digest, "hash": model_hash(initial_weights(layout, "zeros", 0))}
    )
    return StudyPlan.model_validate(plan.model_dump() | {"contract": contract, "task": made, "model": model})


def asked(name: str, outcome: str) -> Evaluation:
    return Evaluation(name=name, model=evaluated(TWO, WEIGHTS)[0], outcome=outcome)


def figures(plan: StudyPlan, rows: Examples, file: bytes) -> dict[tuple[str, str], Any]:
    vector = answers_from(plan, lambda asked: file).vector(rows, lambda size: b"")
    model = np.concatenate([[1.0], vector]).astype(np.float32)
    return {(cell.query, cell.quantity): cell for cell in read(plan, model)}


def test_each_finding_is_told_from_its_absence_by_its_own_output_where_it_is_stated(kit: Any) -> None:
    random, n = np.random.default_rng(2), 900
    x = random.normal(0, 2, n)
    targets = np.column_stack([random.random(n) < 1 / (1 + np.exp(-x)), random.random(n) < 1 / (1 + np.exp(x))])
    targets = np.where(random.random((n, 2)) < 0.3, UNKNOWN, targets.astype(np.float64))
    plan = plan_of(kit, TABLE, asked("a", "edema"), asked("b", "effusion"))
    found = figures(plan, Examples(x[:, None], targets, np.arange(n), n), evaluated(TWO, WEIGHTS)[1])
    for query, number, logit in (("a", 0, x), ("b", 1, 0.5 - 2 * x)):
        known, p = targets[:, number] != UNKNOWN, 1 / (1 + np.exp(-logit))
        has, said = targets[known, number], p[known]
        assert found[query, "Brier score"].value == pytest.approx(brier_score_loss(has, said), abs=2e-6)
        assert found[query, "AUROC"].value == pytest.approx(roc_auc_score(has, np.floor(said * 10)), abs=2e-6)
        assert found[query, "Brier score"].patients == pytest.approx(known.sum(), abs=1e-3)


def test_whose_finding_is_not_stated_adds_nothing(kit: Any) -> None:
    task = kit.task(asked("a", "edema"))
    for state, length in ((UNKNOWN, 0.0), (0.0, 0.8), (1.0, 0.8)):
        table = table_of(TABLE, Examples(np.zeros((1, 1)), np.array([[state, 1.0]]), np.zeros(1, np.int64), 1))
        norm = np.linalg.norm(vector_of(task, replace(table, scores={"a": np.array([0.99])})))
        assert norm == 0 if length == 0 else length < norm <= 1 + 1e-9


def test_what_the_model_does_not_tell_is_not_asked(kit: Any) -> None:
    other = FINDINGS.model_copy(update={"findings": (*FINDINGS.findings, Finding(column="nodule", meaning="Nodule"))})
    three = TABLE.model_copy(update={"label": other})
    one = TABLE.model_copy(
        update={"label": ClassLabel(column="edema", meaning="Edema", positive=("1",), negative=("0",))}
    )
    for contract, outcome, message in (
        (TABLE, "x", "none of the findings"),
        (three, "edema", "the label has 3 findings, and the task 2 outputs"),
        (one, "edema", "none of the findings"),
    ):
        with pytest.raises(ValidationError, match=message):
            plan_of(kit, contract, asked("a", outcome))


PICTURES = DataContract(
    image=ImageInput(modality="DX", size=(8, 8), window=(0, 255)),
    label=ClassLabel(column="ill", meaning="Ill", positive=("1",), negative=("0",)),
    patient_id="p",
)
NETWORK = ImageClassification(size=(8, 8), widths=(4,), groups=1)


def test_a_network_scores_the_pictures_of_a_site_as_in_training(kit: Any) -> None:
    random, n = np.random.default_rng(3), 60
    layout = NETWORK.layout(1)
    weights = initial_weights(layout, "uniform", 7)
    model, file = evaluated(NETWORK, {name: np.ascontiguousarray(w) for name, w in layout.split(weights).items()})
    has = (random.random(n) < 0.5).astype(np.float64)
    pixels = random.normal(0, 1, (n, 1, 8, 8)).astype(np.float32) + has[:, None, None, None]
    rows = Examples(pixels, has[:, None], np.arange(n), n)
    query = Evaluation(name="a", model=model, outcome="ill")
    found = figures(plan_of(kit, PICTURES, query, kit.query("count", name="n", by=[])), rows, file)
    task = TASKS[NETWORK.name](NETWORK, 1)
    score = task.scores(task.engine.outputs(weights.astype(np.float64), pixels), rows).score
    assert found["a", "Brier score"].value == pytest.approx(brier_score_loss(has, score), abs=2e-6)
    assert found["n", "count"].value == pytest.approx(n), "what is not asked of the model has the label to count by"


def test_pictures_and_columns_are_not_mixed_up(kit: Any) -> None:
    layout = NETWORK.layout(1)
    weights = layout.split(initial_weights(layout, "uniform", 7))
    query = Evaluation(name="a", model=evaluated(NETWORK, dict(weights))[0], outcome="ill")
    larger = PICTURES.model_copy(update={"image": ImageInput(modality="DX", size=(16, 16), window=(0, 255))})
    histogram = ImageInput(modality="DX", size=(8, 8), window=(0, 255), features="histogram")
    for contract, message in (
        (larger, "is for pictures of"),
        (TABLE, "needs an image in the contract"),
        (PICTURES.model_copy(update={"image": histogram}), "no histogram of them"),
    ):
        with pytest.raises(ValidationError, match=message):
            plan_of(kit, contract, query)
    with pytest.raises(ValidationError, match="works on columns"):
        plan_of(kit, PICTURES.model_copy(update={"label": FINDINGS}), asked("a", "edema"))


def test_a_network_on_phantoms_is_evaluated_from_its_folder(tmp_path: Path) -> None:
    """From the files of a study to the sum over its hospitals: pictures are read as they are for training."""
    composed = compose_configuration(["study=brain_mri", "privacy=none", "secagg=off"])
    configuration = parse_configuration(composed)
    declared = dict.fromkeys(("east", "north", "south", "west"), 50)
    trained = make_plan(configuration, declared, date(2026, 11, 29))
    (tmp_path / "plan.json").write_bytes(trained.canonical)
    weights = trained.starting_model()
    tensors = {name: np.ascontiguousarray(part) for name, part in trained.layout.split(weights).items()}
    (tmp_path / "model.safetensors").write_bytes(data := save(tensors))
    query = {"name": "model", "kind": "evaluation", "model": str(tmp_path), "bins": 2}
    given = {"like": "brain_mri", "privacy": {"mode": "none"}, "secagg": "off"}
    asking = parse_statistics(given | {"statistics": {"patients": "test", "smallest_cell": 0, "queries": [query]}})
    plan = make_plan(asking, declared, date(2026, 11, 29))
    cohorts = gather(asking).taking_part
    found = count(plan, cohorts, date(2026, 11, 29), installed=lambda file: data)
    task = TASKS[trained.task.name](trained.task, 1)
    errors = []
    for cohort in cohorts:
        scored = task.scores(task.engine.outputs(weights.astype(np.float64), cohort.test.features), cohort.test)
        errors.append((scored.score - scored.target[:, 0]) ** 2)
    brier = next(cell for cell in found.cells if cell.quantity == "Brier score")
    assert brier.value == pytest.approx(float(np.concatenate(errors).mean()), abs=2e-6)
    with pytest.raises(UsageError, match="no column of 0 and 1"):
        wrong = {"patients": "test", "queries": [query | {"outcome": "tumour"}]}
        make_plan(parse_statistics(given | {"statistics": wrong}), declared, date(2026, 11, 29))
