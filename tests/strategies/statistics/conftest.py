"""One contract, one query of every kind, and plans that ask them: without a task that trains and without files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save

from wardround.privacy.gradients import Examples
from wardround.protocol.contract import CodeColumn, DataContract, ImageInput, NumberColumn
from wardround.protocol.evaluated import EvaluatedModel
from wardround.protocol.image_tasks import ImageSegmentation
from wardround.protocol.labels import MaskLabel, SurvivalLabel
from wardround.protocol.parameters import initial_weights, model_hash
from wardround.protocol.plan import (
    Controller,
    Governance,
    InitialModel,
    LocalTraining,
    Participant,
    PrivacyMode,
    PrivacyTerms,
    StrategySpec,
    StudyPlan,
)
from wardround.protocol.queries import (
    Correlation,
    Count,
    Evaluation,
    Histogram,
    LinearRegression,
    LogisticRegression,
    Mean,
    ModelQuery,
    PiecewiseExponential,
    PredictionError,
    Quantiles,
    SegmentationEvaluation,
    Sum,
    Survival,
    SurvivalEvaluation,
    Variance,
)
from wardround.protocol.query import By, Range
from wardround.protocol.statistics import Statistics
from wardround.protocol.tasks import SurvivalPiecewise, TabularClassification, TabularRegression
from wardround.protocol.weights import WeightsFile

CONTRACT = DataContract(
    columns=(
        NumberColumn(name="age", meaning="Age", unit="a", minimum=0, maximum=120, center=50, scale=10),
        CodeColumn(name="sex", meaning="Sex", codes={"f": "female", "m": "male", "o": "other"}, reference="m"),
        NumberColumn(name="bmi", meaning="Body mass index", unit="kg/m2", minimum=10, maximum=80),
    ),
    label=SurvivalLabel(time="days", event="died", meaning="Death", unit="d", maximum_time=1000),
    patient_id="patient",
)
TODAY = date(2026, 11, 29)
AGE, BMI = Range(column="age", lower=20, upper=100), Range(column="bmi", lower=15, upper=45)
SEX = By(column="sex", codes=("f", "m", "o"))
SLOPE = 0.5
"""Of the model that is evaluated: the logit of death is this times (age - 50) / 10."""

WEIGHTS = {"dense0.weight": np.array([[SLOPE, 0, 0, 0]], np.float32), "dense0.bias": np.zeros(1, np.float32)}
FILE = save(WEIGHTS)
LOGISTIC = TabularClassification()
MODEL = EvaluatedModel(
    task=LOGISTIC,
    file=WeightsFile(sha256=sha256(FILE).hexdigest(), licence="CC0-1.0", provenance="made by a test, for it"),
    layout=LOGISTIC.layout(4).digest,
    hash=model_hash(LOGISTIC.layout(4).join(WEIGHTS)),
    trained_by="0" * 64,
)
LINE = TabularRegression(center=26.0, scale=4.0)
"""A model of the body mass index from the same weights: 26 + 2 (age - 50) / 10."""

LINE_MODEL = EvaluatedModel.model_validate(MODEL.model_dump() | {"task": LINE.model_dump()})
HAZARDS = SurvivalPiecewise(cuts=(300.0,), baseline_rate=0.001)
"""A model of survival with the same slope: its log relative risk is 0.5 (age - 50) / 10."""

HAZARD_WEIGHTS = {
    "dense0.weight": WEIGHTS["dense0.weight"],
    "hazard.bias": np.log(np.array([0.8, 1.2])).astype(np.float32),
}
HAZARD_FILE = save(HAZARD_WEIGHTS)
HAZARD_MODEL = EvaluatedModel(
    task=HAZARDS,
    file=WeightsFile(sha256=sha256(HAZARD_FILE).hexdigest(), licence="CC0-1.0", provenance="made by a test, for it"),
    layout=HAZARDS.layout(4).digest,
    hash=model_hash(HAZARDS.layout(4).join(HAZARD_WEIGHTS)),
    trained_by="0" * 64,
)
TIMES = (200.0, 400.0, 600.0)
BASELINE = HAZARDS.baseline(HAZARD_WEIGHTS["hazard.bias"].tolist(), TIMES)
PICTURES = DataContract(
    image=ImageInput(modality="MR", size=(8, 8), window=(0, 255)),
    label=MaskLabel(column="mask", meaning="Findings", structures={"7": "tumour", "1": "liver"}),
    patient_id="patient",
)
MARKS = ImageSegmentation(size=(8, 8), widths=(4, 8), structures=2)
MARK_WEIGHTS = {t.name: np.zeros(t.shape, np.float32) for t in MARKS.layout(1).tensors}
MARK_WEIGHTS["model.0.conv.weight"][0, 0, 1, 1] = 1.0
MARK_WEIGHTS["model.2.conv.weight"][0, 1] = 1.0
"""Of a model that takes for liver what is bright: of the pictures below the left half, 32 voxels."""

MARK_FILE = save(MARK_WEIGHTS)
MARK_MODEL = EvaluatedModel(
    task=MARKS,
    file=WeightsFile(sha256=sha256(MARK_FILE).hexdigest(), licence="CC0-1.0", provenance="made by a test, for it"),
    layout=MARKS.layout(1).digest,
    hash=model_hash(MARKS.layout(1).join(MARK_WEIGHTS)),
    trained_by="0" * 64,
)
QUERIES: dict[str, Any] = {
    "count": Count(name="q", by=(SEX, By(column="age", cuts=(40, 60)))),
    "sum": Sum(name="q", of=AGE),
    "mean": Mean(name="q", of=AGE),
    "variance": Variance(name="q", of=AGE),
    "histogram": Histogram(name="q", column="age", cuts=(30, 50, 70)),
    "quantiles": Quantiles(name="q", of=AGE, levels=6),
    "correlation": Correlation(name="q", of=(AGE, BMI)),
    "linear_regression": LinearRegression(name="q", of=(AGE,), outcome=BMI),
    "logistic_regression": LogisticRegression(name="q", of=(AGE, BMI), outcome="died"),
    "survival": Survival(name="q", time="days", event="died", times=(200, 400, 600)),
    "piecewise_exponential": PiecewiseExponential(name="q", time="days", event="died", times=(200, 400, 600)),
    "evaluation": Evaluation(name="q", model=MODEL, outcome="died"),
    "prediction_error": PredictionError(name="q", model=LINE_MODEL, outcome="bmi", largest_error=10),
    "survival_evaluation": SurvivalEvaluation(
        name="q", model=HAZARD_MODEL, outcome="died", time="days", times=TIMES, baseline=BASELINE
    ),
    "segmentation_evaluation": SegmentationEvaluation(
        name="q", model=MARK_MODEL, outcome="mask", structures=("liver", "tumour"), largest_volume=30
    ),
}


def examples(
    patient: Sequence[int] | npt.NDArray[np.int64], age: Any, sex: Any, bmi: Any, days: Any, died: Any
) -> Examples:
    """Rows as the contract makes them of cells: ``sex`` is a place in f, m, o; rows of a patient lie together."""
    age, sex, bmi, days, died = (np.asarray(each, np.float64) for each in (age, sex, bmi, days, died))
    features = np.column_stack([(age - 50) / 10, sex == 0, sex == 2, bmi])
    number = np.asarray(patient, np.int64)
    return Examples(features, np.column_stack([days, died]), number, len(np.unique(number)))


def pictures(patient: Sequence[int] | npt.NDArray[np.int64], age: Any, sex: Any) -> Examples:
    """A picture for each row, (8, 8): by age 0 to 48 voxels of liver from the left, and of who is f 16 of tumour."""
    number = np.asarray(patient, np.int64)
    mask = np.zeros((len(number), 64))
    mask[np.arange(64) < liver(age)[:, None]] = 1
    mask[np.asarray(sex) == 0, 48:] = 2
    bright = np.broadcast_to(np.where(np.arange(64) < 32, 1.0, -1.0), mask.shape)
    features = np.stack([bright, mask], axis=1).reshape(-1, 2, 8, 8).swapaxes(2, 3).astype(np.float32)
    return Examples(features, np.zeros((len(number), 1)), number, len(np.unique(number)))


def liver(age: Any) -> Any:
    return np.clip(np.floor((np.asarray(age, np.float64) - 20) * 49 / 80), 0, 48)


ROUNDS = 6
"""Of what is asked in rounds."""


def task_of(*queries: Any, **more: Any) -> Statistics:
    """The task that asks ``queries``, in so many rounds as they need; of test patients where a model is evaluated."""
    rounds = ROUNDS if any(query.in_rounds for query in queries) else 1
    evaluates = any(isinstance(query, ModelQuery) for query in queries)
    return Statistics(queries=queries, **{"rounds": rounds} | ({"patients": "test"} if evaluates else {}) | more)


def plan_for(
    *queries: Any,
    mode: str = "none",
    secure: bool = False,
    noise: float | None = None,
    declared: dict[str, int] | None = None,
    epsilon: float = 8.0,
    **more: Any,
) -> StudyPlan:
    """A plan that asks ``queries``, of three sites unless ``declared`` says otherwise; ``more`` of ``Statistics``."""
    task = task_of(*queries, **{"smallest_cell": 0.0} | more)
    layout = task.layout(0)
    terms: dict[str, Any] = {}
    if mode != "none":
        terms = {"noise_multiplier": noise, "sampling_probability": 1.0, "delta": 1e-4, "epsilon": epsilon}
    if mode == "dist":
        terms["epsilon_consortium"] = epsilon
    sites = declared or {"east": 200, "north": 200, "south": 200}
    return StudyPlan(
        study="figures",
        title="Figures of a test",
        governance=Governance(
            purpose="try every kind of statistic",
            controllers=(Controller(name="nobody"),),
            legal_basis="none",
            ethics_reference="none",
            recipients=("the test",),
            permitted_use="this test only",
            proposed_on=date(2026, 1, 1),
            expires_on=date(2027, 1, 1),
        ),
        contract=PICTURES if any(isinstance(query, SegmentationEvaluation) for query in queries) else CONTRACT,
        task=task,
        model=InitialModel(scheme="zeros", layout=layout.digest, hash=model_hash(initial_weights(layout, "zeros", 0))),
        strategy=StrategySpec(name="statistics", parameters={} if task.rounds == 1 else {"rounds": float(task.rounds)}),
        local=LocalTraining(steps=1, learning_rate=1.0),
        rounds=task.rounds,
        min_sites=min(3, len(sites)),
        participants=tuple(Participant(site=site, declared_patients=count) for site, count in sorted(sites.items())),
        privacy=PrivacyTerms(mode=PrivacyMode(mode), secure_aggregation=secure, **terms),
        code_version="test",
    )


@dataclass(frozen=True)
class Kit:
    """What the tests of this folder share."""

    contract: DataContract = CONTRACT
    today: date = TODAY
    sex: By = SEX
    age: Range = AGE
    bmi: Range = BMI
    examples: Callable[..., Examples] = field(default=examples)
    pictures: Callable[..., Examples] = field(default=pictures)
    liver: Callable[..., Any] = field(default=liver)
    plan_for: Callable[..., StudyPlan] = field(default=plan_for)
    task: Callable[..., Statistics] = field(default=task_of)
    slope: float = SLOPE
    model: EvaluatedModel = MODEL
    model_file: bytes = FILE

    def installed(self, file: WeightsFile) -> bytes:
        """The file of one of the three models that there are."""
        return {sha256(data).hexdigest(): data for data in (self.model_file, HAZARD_FILE, MARK_FILE)}[file.sha256]

    def rows(self, kind: str, patient: Any, age: Any, sex: Any, bmi: Any, days: Any, died: Any) -> Examples:
        """What a query of ``kind`` reads of these patients."""
        if kind == "segmentation_evaluation":
            return self.pictures(patient, age, sex)
        return self.examples(patient, age, sex, bmi, days, died)

    def query(self, kind: str, **changes: Any) -> Any:
        """The query of ``kind``, with some fields changed."""
        found = QUERIES[kind]
        return type(found).model_validate(found.model_dump() | changes)


@pytest.fixture(scope="session")
def kit() -> Kit:
    return Kit()
