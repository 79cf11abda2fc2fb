"""What is learned, or counted: the torch-free description of each task, so that a plan can be checked on any machine.

``client/tasks`` implements every task named here that trains, and a contract test holds both equal (layout, outputs,
privacy); ``client/answers`` implements the one that trains nothing.
"""

from typing import Annotated, Literal

from pydantic import Field

from wardround.protocol.image_tasks import ImageClassification, ImageDenseNet, ImageSegmentation, LinearProbe
from wardround.protocol.indicators import Indicators
from wardround.protocol.parameters import Layout, Tensor
from wardround.protocol.part import Part
from wardround.protocol.plugins import PluginTask, TensorSpec
from wardround.protocol.statistics import Statistics
from wardround.protocol.tabular_tasks import (
    SurvivalCox,
    SurvivalPiecewise,
    TabularClassification,
    TabularRegression,
)

__all__ = [
    "Programmed",
    "SurvivalCox",
    "SurvivalPiecewise",
    "TabularClassification",
    "TabularRegression",
    "TaskSpec",
]


class Programmed(Part):
    """A task that a researcher's program made, known to the plan by its tensors only: simulation, never a hospital."""

    name: Literal["programmed"] = "programmed"
    label_kind: Literal["any"] = "any"
    tensors: tuple[TensorSpec, ...]
    couples_patients: bool

    @property
    def needs_random_start(self) -> bool:
        """Nobody but the program knows."""
        return False

    def layout(self, features: int) -> Layout:
        """The layout that the program's model has, whatever the number of features."""
        return Layout(tuple(Tensor(t.name, t.shape, t.fan_in) for t in self.tensors))


TaskSpec = Annotated[
    TabularClassification
    | TabularRegression
    | SurvivalCox
    | SurvivalPiecewise
    | ImageClassification
    | ImageDenseNet
    | LinearProbe
    | ImageSegmentation
    | PluginTask
    | Statistics
    | Indicators
    | Programmed,
    Field(discriminator="name"),
]
