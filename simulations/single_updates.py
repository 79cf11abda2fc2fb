"""Robust rules in a simulation, where one person plays every party and may see single updates.

A coordinator's ``Study`` has no place for them: this one takes each site's vector apart, combines the updates, and
hands the strategy the total of one site that sent just that.
"""

from collections.abc import Sequence

import numpy as np

from wardround.protocol.errors import UsageError
from wardround.protocol.messages import RoundRequest, join_contribution, split_contribution
from wardround.protocol.parameters import Sums, Total, Update
from wardround.protocol.plan import StudyPlan
from wardround.protocol.weights import Installed, nothing_installed
from wardround.server.plausible import Lengths
from wardround.server.study import Progress, Study
from wardround.server.sums import Adding, OpenSum
from wardround.strategies import Robust, check_strategy
from wardround.strategies.fedavg import FedAvg


class RobustStudy(Study):
    """A study whose model moves by what ``rule`` makes of single updates.

    Raises:
        UsageError: the plan has secure aggregation.
    """

    def __init__(
        self,
        plan: StudyPlan,
        rule: Robust,
        progress: Progress | None = None,
        installed: Installed = nothing_installed,
    ) -> None:
        check_strategy(plan, rule)
        super().__init__(plan, FedAvg(), progress, installed)
        self._rule = rule

    def combined(self, vectors: Sequence[Sums]) -> Sums:
        """The vector of one site of weight 1 whose update is what the rule makes of the others'."""
        sizes, updates = FedAvg().part_sizes(self.plan.layout.size), []
        for vector in vectors:
            parts = split_contribution(vector, sizes)
            weight = float(parts["weight"][0])
            updates.append(Update((parts["update"] / weight).astype(np.float32), weight))
        return join_contribution({"update": self._rule.combine(updates), "weight": np.ones(1)})

    def _expected(self, sites: tuple[str, ...]) -> Lengths | None:
        # What the rule makes of the updates is no sum of them.
        return None

    def _sums(self, request: RoundRequest, among: Sequence[str]) -> tuple[Adding, int]:
        sums, quorum = super()._sums(request, among)
        if not isinstance(sums, OpenSum):
            raise UsageError("a robust rule needs single updates", "simulate it with secagg=off")
        return _RobustSum(FedAvg().part_sizes(self.plan.layout.size), self), quorum


class _RobustSum(OpenSum):
    def __init__(self, sizes: dict[str, int], study: RobustStudy) -> None:
        super().__init__(sizes)
        self._study = study

    def total(self) -> Total:
        vector = self._study.combined([self._vectors[site] for site in self.sites])
        return Total(split_contribution(vector, self._sizes), len(self._vectors))
