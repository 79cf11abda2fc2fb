"""A model that was released and is now looked at: its task, the file of its weights, and the plan that trained it.

It is fixed before anybody scores a patient with it. So a plan that names one says exactly what is computed, and a site
scores with its own code: the plan brings numbers, never a program.
"""

from typing import Annotated, Final

from pydantic import Field

from wardround.protocol.errors import UsageError
from wardround.protocol.image_tasks import ImageClassification, ImageDenseNet
from wardround.protocol.parameters import Layout, Vector, model_hash
from wardround.protocol.part import Part
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
)
"""Every task whose models can be evaluated."""


class EvaluatedModel(Part):
    """A released model, which people install by hand wherever the study runs."""

    task: Annotated[
        TabularClassification
        | TabularRegression
        | SurvivalCox
        | SurvivalPiecewise
        | ImageClassification
        | ImageDenseNet,
        Field(discriminator="name"),
    ]
    file: WeightsFile
    layout: str = Field(pattern=r"^[0-9a-f]{64}$", description="digest of the layout")
    hash: str = Field(pattern=r"^[0-9a-f]{64}$", description="hash of the float32 weights")
    trained_by: str = Field(pattern=r"^[0-9a-f]{64}$", description="digest of the plan that it came out of")

    def layout_of(self, features: int) -> Layout:
        """The layout for ``features`` columns. Raises ValueError where the model is one for other columns."""
        layout = self.task.layout(features)
        if layout.digest != self.layout:
            raise ValueError(f"the model is not one for the contract's {features} features")
        return layout

    def weights(self, features: int, installed: Installed) -> Vector:
        """The model, shape (d,). Raises UsageError where its file is not installed or holds another one."""
        found = weights_of(self.file, self.layout_of(features).tensors, installed)
        if model_hash(found) != self.hash:
            raise UsageError(
                "the model in the installed file is not the one that the plan names",
                "install model.safetensors of the study that the plan names",
            )
        return found
