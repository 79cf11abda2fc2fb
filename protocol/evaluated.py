"""A model that is looked at: its task, and either the file of its released weights or the training it comes out of.

A released one is fixed before anybody scores a patient with it, so a plan that names one says exactly what is computed.
One in training is handed out with the round that asks for it, after a round that the plan names (``Followed``). In both
cases a site scores with its own code: what arrives is numbers, never a program.
"""

from itertools import pairwise
from typing import Annotated, Final

from pydantic import Field, model_validator

from wardround.protocol.errors import UsageError
from wardround.protocol.image_tasks import ImageClassification, ImageDenseNet, ImageSegmentation
from wardround.protocol.parameters import Layout, Vector, model_hash
from wardround.protocol.part import Part, later
from wardround.protocol.tabular_tasks import (
    SurvivalCox,
    SurvivalPiecewise,
    TabularClassification,
    TabularRegression,
)
from wardround.protocol.weights import Installed, WeightsFile, weights_of

EVALUATED: Final = (
    TabularClassification,
    TabularRegression,
    SurvivalCox,
    SurvivalPiecewise,
    ImageClassification,
    ImageDenseNet,
    ImageSegmentation,
)
"""Every task whose models can be evaluated."""

_HEX = r"^[0-9a-f]{64}$"

MOST_LOOKS: Final = 30
"""Rounds after which one training may be evaluated: each is paid for."""


class Followed(Part):
    """A training whose model is evaluated while it goes on: its plan, and after which of its rounds."""

    plan: str = Field(pattern=_HEX, description="digest of the plan that trains")
    rounds: tuple[Annotated[int, Field(ge=1, le=10_000)], ...] = Field(min_length=1, max_length=MOST_LOOKS)

    @model_validator(mode="after")
    def _rising(self) -> "Followed":
        check_schedule(self.rounds)
        return self


class EvaluatedModel(Part):
    """A model.

    With a file: a released one, which people install by hand wherever the study runs. Without: one in training.
    """

    task: Annotated[
        TabularClassification
        | TabularRegression
        | SurvivalCox
        | SurvivalPiecewise
        | ImageClassification
        | ImageDenseNet
        | ImageSegmentation,
        Field(discriminator="name"),
    ]
    file: WeightsFile | None = later(None, description="null: each round hands the model out")
    layout: str = Field(pattern=_HEX, description="digest of the layout")
    hash: str | None = later(None, pattern=_HEX, description="hash of the float32 weights")
    trained_by: str | None = later(None, pattern=_HEX, description="digest of the plan that it came out of")

    @model_validator(mode="after")
    def _whole(self) -> "EvaluatedModel":
        if len({self.file is None, self.hash is None, self.trained_by is None}) > 1:
            raise ValueError("a released model has a file, the hash of its weights, and the plan that trained it")
        return self

    def layout_of(self, features: int) -> Layout:
        """The layout for ``features`` columns. Raises ValueError where the model is one for other columns."""
        layout = self.task.layout(features)
        if layout.digest != self.layout:
            raise ValueError(f"the model is not one for the contract's {features} features")
        return layout

    def weights(self, features: int, installed: Installed) -> Vector:
        """A released model, shape (d,). Raises UsageError where its file is not installed or holds another one."""
        if self.file is None:
            raise UsageError("this model is still in training", "its weights come with the round that asks for it")
        found = weights_of(self.file, self.layout_of(features).tensors, installed)
        if model_hash(found) != self.hash:
            raise UsageError(
                "the model in the installed file is not the one that the plan names",
                "install model.safetensors of the study that the plan names",
            )
        return found


def check_schedule(rounds: tuple[int, ...]) -> None:
    """Raise ValueError unless rounds of training follow one another."""
    if any(not before < after for before, after in pairwise(rounds)):
        raise ValueError("rounds after which a model is evaluated rise, each once")
