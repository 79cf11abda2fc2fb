"""The evaluation phase of a training study: after which rounds its model is looked at, what is asked, what it may cost.

The terms stand in the plan that trains, so the schedule is fixed before anybody sees a figure. What is charged to the
test patients is a plan of its own, which follows from these terms (``StudyPlan.evaluation_plan``): with its own event,
domains, approval, sessions and receipts (docs/adr/0031).
"""

from pydantic import Field, model_validator

from wardround.protocol.evaluated import MOST_LOOKS, Followed, check_schedule
from wardround.protocol.part import Part
from wardround.protocol.queries import ModelQuery, Query
from wardround.protocol.statistics import Statistics


class EvaluationPhase(Part):
    """When and how the test patients score the model. Budget, delta apart, of the whole phase; unit: one patient."""

    rounds: tuple[int, ...] = Field(min_length=1, max_length=MOST_LOOKS, description="of training, after which")
    queries: tuple[Query, ...] = Field(min_length=1, max_length=16)
    smallest_cell: float = Field(default=10.0, ge=0, description="a group of fewer, after noise, is not shown")
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    noise_multiplier: float | None = Field(default=None, gt=0, le=1000, description="sigma, of one patient's bound 1")
    epsilon: float | None = Field(default=None, gt=0, description="the most the phase may cost a test patient")
    epsilon_consortium: float | None = Field(
        default=None, gt=0, description="mode dist: the most against the coordinator and the sites that may collude"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "EvaluationPhase":
        check_schedule(self.rounds)
        if not all(isinstance(query, ModelQuery) and query.model.file is None for query in self.queries):
            raise ValueError("an evaluation phase asks about the model in training, and nothing else")
        return self

    def task(self, plan: str) -> Statistics:
        """What the sites are asked, by the plan that follows the training of ``plan`` (a digest)."""
        return Statistics(
            patients="test",
            smallest_cell=self.smallest_cell,
            confidence=self.confidence,
            rounds=len(self.rounds),
            follows=Followed(plan=plan, rounds=self.rounds),
            queries=self.queries,
        )
