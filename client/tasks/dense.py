"""What every task on a table shares: dense layers with a closed-form engine; a task adds its loss and metrics."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

from wardround.privacy.closed_form import DenseEngine, Head
from wardround.protocol.parameters import Layout
from wardround.protocol.tasks import SurvivalCox, SurvivalPiecewise, TabularClassification, TabularRegression

Spec = TypeVar("Spec", TabularClassification, TabularRegression, SurvivalCox, SurvivalPiecewise)


@dataclass(frozen=True)
class DenseTask(ABC, Generic[Spec]):
    """A task of the plan at the site: ``spec`` on ``features`` columns."""

    spec: Spec
    features: int

    @property
    @abstractmethod
    def head(self) -> Head:
        """The loss on the outputs, with its slope."""

    @property
    def couples_patients(self) -> bool:
        return self.spec.couples_patients

    @cached_property
    def layout(self) -> Layout:
        return self.spec.layout(self.features)

    @cached_property
    def engine(self) -> DenseEngine:
        return DenseEngine(self.layout, self.spec.hidden, self.spec.activation, self.head)
