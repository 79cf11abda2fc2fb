"""The kinds of query that evaluate a released model on patients who did not train it, one class for each ``kind``.

As those of ``protocol.queries``: each says its ``width`` and the columns that it reads; the computation is in
``strategies.statistics``.
"""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from wardround.protocol.evaluated import EvaluatedModel
from wardround.protocol.image_tasks import ImageSegmentation, Outputs
from wardround.protocol.query import BaseQuery, check_rising
from wardround.protocol.tabular_tasks import SurvivalCox, SurvivalPiecewise, TabularRegression


class ModelQuery(BaseQuery):
    """How well a released model predicts ``outcome`` of patients who did not train it, in each group."""

    model: EvaluatedModel
    outcome: str

    @model_validator(mode="after")
    def _patients(self) -> "ModelQuery":
        if self.rows_per_patient != 1:
            raise ValueError("evaluation: a patient of many rows counts as one, rows_per_patient is 1")
        return self


class Evaluation(ModelQuery):
    """How well a released model tells ``outcome`` of patients who did not train it, in each group.

    Of a model of several findings ``outcome`` is one of them, against its absence; who has it not stated is not looked
    at.
    ``bins`` are equal intervals of the predicted probability 0 .. 1. A log loss above ``largest_loss`` counts as that.
    """

    kind: Literal["evaluation"] = "evaluation"
    bins: int = Field(default=10, ge=2, le=100)
    largest_loss: float = Field(default=4.0, ge=1, le=20, description="in nats")

    @model_validator(mode="after")
    def _one_outcome(self) -> "Evaluation":
        if not isinstance(self.model.task, Outputs):
            raise ValueError(
                "evaluation: a model of a yes or no; 'prediction_error' is for one of a quantity, "
                "'segmentation_evaluation' for one that marks structures"
            )
        return self

    @property
    def width(self) -> int:
        """Patients by bin without and with the outcome, their place in the bin; both counts; the two losses."""
        return 3 * self.bins + 4

    @property
    def coded(self) -> tuple[str, ...]:
        return (self.outcome,)


class PredictionError(ModelQuery):
    """How far a released model's prediction of a quantity lies from it; an error above ``largest_error`` is that."""

    kind: Literal["prediction_error"] = "prediction_error"
    largest_error: float = Field(gt=0, allow_inf_nan=False, description="in the quantity's unit")

    @model_validator(mode="after")
    def _quantity(self) -> "PredictionError":
        if not isinstance(self.model.task, TabularRegression):
            raise ValueError("prediction_error: a model of a quantity; 'evaluation' is for one of a yes or no")
        return self

    @property
    def width(self) -> int:
        """Patients, and of their errors the first, second and fourth power."""
        return 4

    @property
    def numbers(self) -> tuple[str, ...]:
        return (self.outcome,)


class SurvivalEvaluation(ModelQuery):
    """How well a released model of survival ranks patients by their risk, and how near its probabilities are.

    ``outcome`` is the column of the event. The model's relative risk r, 1 for a patient whose features are all zero, is
    told apart in ``bins`` equal intervals of r / (1 + r). ``baseline``: survival of relative risk 1 at each of
    ``times``, so S(t | r) = baseline(t) ** r; none: the model ranks and says no probability, and has a c-index only.
    """

    kind: Literal["survival_evaluation"] = "survival_evaluation"
    time: str
    times: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field(min_length=1, max_length=24)
    bins: int = Field(default=8, ge=2, le=40)
    baseline: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()

    @model_validator(mode="after")
    def _of_survival(self) -> "SurvivalEvaluation":
        if not isinstance(self.model.task, SurvivalCox | SurvivalPiecewise):
            raise ValueError("survival_evaluation: a model of survival; 'evaluation' is for one of a yes or no")
        if self.baseline and self.model.file is None:
            raise ValueError("survival_evaluation: a model in training has no baseline that a plan could name")
        check_rising(self.times, f"survival by '{self.time}'")
        if self.baseline and len(self.baseline) != len(self.times):
            raise ValueError("survival_evaluation: baseline needs one probability for each of times")
        if any(a < b for a, b in pairwise(self.baseline)):
            raise ValueError("survival_evaluation: baseline is survival, which never rises")
        return self

    @property
    def outcomes(self) -> int:
        """The event in each interval, censored in each, and seen beyond the last."""
        return 2 * len(self.times) + 1

    @property
    def width(self) -> int:
        """Patients by outcome and bin; with a baseline those by outcome alone, and the losses at every time."""
        losses = len(self.times) * (len(self.times) + 3) // 2
        return self.outcomes * self.bins + (self.outcomes + losses if self.baseline else 0)

    @property
    def numbers(self) -> tuple[str, ...]:
        return (self.time,)

    @property
    def coded(self) -> tuple[str, ...]:
        return (self.outcome,)


class SegmentationEvaluation(ModelQuery):
    """How well a released model marks structures in pictures: Dice of each, of whole patients.

    ``outcome`` is the column of the masks, and ``structures`` are those asked about, by their meaning in the contract.
    ``largest_volume``: a patient whose structure is larger, in the mean of reference and prediction, counts in the
    pooled Dice as if it were so large; none: there is no pooled Dice, and less noise on that of patients.
    """

    kind: Literal["segmentation_evaluation"] = "segmentation_evaluation"
    structures: tuple[str, ...] = Field(min_length=1, max_length=32)
    largest_volume: float | None = Field(default=None, gt=0, le=1e9, description="in voxels of the contract's pictures")

    @model_validator(mode="after")
    def _of_pictures(self) -> "SegmentationEvaluation":
        if not isinstance(self.model.task, ImageSegmentation):
            raise ValueError(
                "segmentation_evaluation: a model that marks structures; 'evaluation' is for one of a yes or no"
            )
        if len(set(self.structures)) < len(self.structures):
            raise ValueError("segmentation_evaluation: a structure is named twice")
        return self

    @property
    def each(self) -> int:
        """Of a structure: patients by where it is, of their Dice two powers; pooled, volumes and their squares."""
        return 5 if self.largest_volume is None else 10

    @property
    def width(self) -> int:
        return self.each * len(self.structures)
