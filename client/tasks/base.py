"""What a task is to the rest of the client: a gradient engine, and metrics of the model on test patients."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from wardround.privacy.gradients import Array, Examples, GradientEngine
from wardround.protocol.parameters import Layout


class Task(Protocol):
    """Model, loss and metrics. ``metrics`` maps a metric's name to a function of (outputs, targets, weights)."""

    @property
    def layout(self) -> Layout: ...

    @property
    def engine(self) -> GradientEngine: ...

    @property
    def couples_patients(self) -> bool: ...

    @property
    def metrics(self) -> Mapping[str, "Metric"]: ...

    def scores(self, outputs: Array, examples: Examples) -> "Scores":
        """One score per patient, for metrics and pictures."""


class TaskOfPlan(Protocol):
    """What the protocol says of every task that a plan names."""

    @property
    def couples_patients(self) -> bool: ...

    def layout(self, features: int) -> Layout: ...


Spec = TypeVar("Spec", bound=TaskOfPlan)


@dataclass(frozen=True)
class PlannedTask(Generic[Spec]):
    """A task of a plan at the site: ``spec`` on ``features`` columns; pictures have a shape of their own instead."""

    spec: Spec
    features: int = 1

    @property
    def couples_patients(self) -> bool:
        return self.spec.couples_patients

    @cached_property
    def layout(self) -> Layout:
        return self.spec.layout(self.features)


@dataclass(frozen=True, slots=True)
class Scores:
    """Per patient the predicted score, (patients,) or (patients, T), and the target (patients, T). Stays here."""

    score: Array
    target: Array


class Metric(Protocol):
    """A metric of weighted patients, for many weightings at once (a bootstrap resample is a weighting).

    ``weights`` has shape (resamples, patients); the result has shape (resamples,), NaN where not estimable.
    """

    def __call__(self, scores: Scores, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]: ...


def patient_means(values: Array, examples: Examples) -> Array:
    """The mean of per-record ``values`` (records, ...) over each patient's records: shape (patients, ...)."""
    if examples.one_record_each:
        return values
    sums: npt.NDArray[Any] = np.zeros((examples.patients, *values.shape[1:]))
    np.add.at(sums, examples.patient, values)
    counts = np.bincount(examples.patient, minlength=examples.patients)
    return np.asarray(sums / counts.reshape(-1, *[1] * (values.ndim - 1)))
