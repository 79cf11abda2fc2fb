"""What is learned from a table: torch-free descriptions, so that a plan can be checked on any machine."""

from collections.abc import Sequence
from itertools import pairwise
from math import exp, inf
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from wardround.protocol.image_tasks import Outputs
from wardround.protocol.parameters import Layout, Tensor
from wardround.protocol.part import Part

HAZARD: Final = "hazard.bias"
"""The tensor of a piecewise model with the log hazard of each interval, relative to the baseline rate."""


class _Task(Part):
    hidden: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        default=(), description="units of each hidden layer; none: a linear model"
    )
    activation: Literal["tanh", "relu"] = "tanh"

    @property
    def needs_random_start(self) -> bool:
        """Whether a start at zeros would be one that the model never leaves."""
        return bool(self.hidden)


def _dense(sizes: tuple[int, ...], last_bias: bool = True) -> list[Tensor]:
    tensors: list[Tensor] = []
    for index, (inputs, outputs) in enumerate(pairwise(sizes)):
        tensors.append(Tensor(f"dense{index}.weight", (outputs, inputs), inputs))
        if last_bias or index < len(sizes) - 2:
            tensors.append(Tensor(f"dense{index}.bias", (outputs,), inputs))
    return tensors


class TabularClassification(_Task, Outputs):
    """Binary outcomes from a table: logistic regression or a multilayer perceptron, log loss."""

    name: Literal["tabular_classification"] = "tabular_classification"

    def layout(self, features: int) -> Layout:
        """Layout for ``features`` input columns; each output is the logit of a positive outcome."""
        return Layout(tuple(_dense((features, *self.hidden, self.outputs))))

    @property
    def couples_patients(self) -> bool:
        return False


class TabularRegression(_Task):
    """A measured quantity from a table: linear regression or a multilayer perceptron, squared error.

    The model's output is (value - center) / scale; both are public guesses, which keep errors near 1, and so the
    gradients near the clip norm. Nothing is fitted to patients.
    """

    name: Literal["tabular_regression"] = "tabular_regression"
    label_kind: Literal["number"] = "number"
    center: float = Field(default=0.0, allow_inf_nan=False, description="in the label's unit")
    scale: float = Field(default=1.0, gt=0, allow_inf_nan=False, description="in the label's unit")

    def layout(self, features: int) -> Layout:
        """Layout for ``features`` input columns; the single output is the scaled quantity."""
        return Layout(tuple(_dense((features, *self.hidden, 1))))

    @property
    def couples_patients(self) -> bool:
        return False


class SurvivalCox(_Task):
    """Proportional hazards by the Cox partial likelihood over each batch's risk sets (Cox 1972; Breslow's ties).

    One patient's loss depends on the others in its risk set, so no gradient can be clipped per patient: offered
    without differential privacy only.
    """

    name: Literal["survival_cox"] = "survival_cox"
    label_kind: Literal["survival"] = "survival"
    bias: bool = Field(default=False, description="a constant in the risk; the likelihood does not depend on it")

    def layout(self, features: int) -> Layout:
        """Layout for ``features`` input columns; the single output is the log relative risk."""
        return Layout(tuple(_dense((features, *self.hidden, 1), last_bias=self.bias)))

    @property
    def couples_patients(self) -> bool:
        return True


class SurvivalPiecewise(_Task):
    """Proportional hazards with a hazard constant on the intervals of a public time grid (Friedman 1982).

    The log likelihood is a sum over patients, so it can be clipped per patient and used with differential privacy.
    """

    name: Literal["survival_piecewise"] = "survival_piecewise"
    label_kind: Literal["survival"] = "survival"
    cuts: tuple[float, ...] = Field(min_length=1, description="inner borders of the grid, in the label's time unit")
    baseline_rate: float = Field(gt=0, description="public guess of events per unit of time; centres the hazards")

    @model_validator(mode="after")
    def _cuts(self) -> "SurvivalPiecewise":
        if any(not 0 < a < b for a, b in pairwise((1e-300, *self.cuts))):
            raise ValueError("survival_piecewise: cuts must be positive and rising")
        return self

    def layout(self, features: int) -> Layout:
        """Dense layers to one log relative risk, then a log hazard (relative to ``baseline_rate``) per interval."""
        tensors = _dense((features, *self.hidden, 1), last_bias=False)
        return Layout((*tensors, Tensor(HAZARD, (len(self.cuts) + 1,), 1)))

    def baseline(self, log_hazards: Sequence[float], times: Sequence[float]) -> tuple[float, ...]:
        """Survival at each of ``times`` for a relative risk of 1, from the model's ``HAZARD``; nine digits of it.

        exp(-sum_k rate exp(b_k) t_k), t_k the time that lies in interval k.
        """
        borders = (0.0, *self.cuts, inf)
        found = []
        for time in times:
            lived = (max(0.0, min(time, high) - low) for low, high in pairwise(borders))
            hazard = sum(self.baseline_rate * exp(min(b, 50.0)) * t for b, t in zip(log_hazards, lived, strict=True))
            found.append(max(float(f"{exp(-hazard):.9g}"), 1e-300))
        return tuple(found)

    @property
    def couples_patients(self) -> bool:
        return False
