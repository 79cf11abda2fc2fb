"""What every task on a table shares: dense layers with a closed-form engine; a task adds its loss and metrics."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from wardround.client.tasks.base import PlannedTask
from wardround.privacy.closed_form import DenseEngine, Head
from wardround.protocol.tasks import SurvivalCox, SurvivalPiecewise, TabularClassification, TabularRegression

Spec = TypeVar("Spec", TabularClassification, TabularRegression, SurvivalCox, SurvivalPiecewise)


@dataclass(frozen=True)
class DenseTask(PlannedTask[Spec], ABC):
    """A task of the plan at the site: ``spec`` on ``features`` columns."""

    @property
    @abstractmethod
    def head(self) -> Head:
        """The loss on the outputs, with its slope."""

    @cached_property
    def engine(self) -> DenseEngine:
        return DenseEngine(self.layout, self.spec.hidden, self.spec.activation, self.head)
