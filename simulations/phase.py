"""The evaluation rounds of a simulated training: the test patients of every hospital score its model on schedule.

Whatever engine trains, these go hospital by hospital (``site_by_site``), on ledgers of their own: the test patients'
domain and, in mode dist, the curve against who may collude. They change nothing in the training.
"""

from collections.abc import Sequence
from datetime import date

from wardround.client.answers import answers_from
from wardround.client.connectors import Cohort
from wardround.protocol.events import DpEvent, PoissonGaussian
from wardround.protocol.parameters import Vector
from wardround.protocol.plan import PrivacyMode, StudyPlan
from wardround.protocol.statistics import Statistics
from wardround.server.study import Progress, Study
from wardround.simulations.checks import check_cost
from wardround.simulations.result import EvaluationResult, FigureResult, LookResult
from wardround.simulations.site_by_site import Keys, SiteBySite, Terms
from wardround.simulations.statement import privacy_statement
from wardround.strategies import strategy_for
from wardround.strategies.statistics import Cell, opened, read


class Phase:
    """The hospitals of ``plan``, which follows a training.

    Args:
        progress, ledgers: of an interrupted run that goes on.

    Raises:
        UsageError: the plan costs more than it says, or more than the test patients' budget.
    """

    def __init__(
        self,
        plan: StudyPlan,
        cohorts: Sequence[Cohort],
        today: date,
        epsilon_cap: float,
        consortium_cap: float,
        keys: Keys | None,
        progress: Progress | None = None,
        ledgers: bytes | None = None,
    ) -> None:
        assert isinstance(plan.task, Statistics) and plan.task.follows is not None
        check_cost(plan, epsilon_cap, consortium_cap)
        self.plan, self.rounds = plan, plan.task.follows.rounds
        self._task = plan.task
        strategy = strategy_for(plan)
        terms = Terms(plan, answers_from(plan), strategy, cohorts, today, epsilon_cap, consortium_cap)
        self.parties = SiteBySite(terms, Study(plan, strategy, progress), (), keys, ledgers)

    @property
    def progress(self) -> Progress:
        return self.parties.study.progress

    def after(self, round_number: int, model: Vector) -> None:
        """Evaluate the ``model`` that came out of a round of training, if that is on the schedule."""
        if round_number in self.rounds:
            self.parties.study.in_training = model
            self.parties.federation.step()

    def result(self) -> EvaluationResult:
        """What was found, and what it cost a test patient of the hospital that was charged most."""
        plan, task = self.plan, self._task
        charged = max(self.parties.charged().values(), default=0)
        model = self.progress.state.model
        closed = {each.number: int(each.sites) for each in opened(task, model)}
        cells = read(plan, model) if closed else []
        epsilon, consortium = self._epsilons(charged)
        shares = [spent / room for spent, room in self.parties.spent().values() if room]
        return EvaluationResult(
            plan_digest=plan.digest,
            confidence=task.confidence,
            statement=privacy_statement(plan, epsilon, consortium),
            delta=plan.privacy.delta,
            epsilon=epsilon,
            epsilon_limit=plan.privacy.epsilon,
            epsilon_consortium=consortium,
            noise_multiplier=plan.privacy.noise_multiplier,
            domain_share_used=max(shares, default=None),
            rounds=tuple(
                LookResult(
                    after_round=after,
                    state="closed" if number in closed else "void",
                    sites=closed.get(number, 0),
                    figures=tuple(_figure(cell) for cell in cells if cell.after == after),
                )
                for number, after in enumerate(self.rounds[: self.progress.rounds_done], 1)
            ),
        )

    def _epsilons(self, charged: int) -> tuple[float | None, float | None]:
        """epsilon_site after so many rounds, and in mode dist epsilon_consortium."""
        plan, site = self.plan, self.plan.participants[0].site
        found = [self._epsilon(event, charged) for event in (plan.round_event(site), plan.consortium_event(site))]
        return found[0], found[1] if plan.privacy.mode is PrivacyMode.DIST else None

    def _epsilon(self, event: DpEvent, charged: int) -> float | None:
        delta = self.plan.privacy.delta
        if not isinstance(event, PoissonGaussian) or delta is None:
            return None
        from wardround.privacy.accounting import epsilon

        return epsilon([event] * charged, delta) if charged else 0.0


def _figure(cell: Cell) -> FigureResult:
    return FigureResult(
        query=cell.query,
        group=cell.group,
        quantity=cell.quantity,
        value=cell.value,
        low=cell.low,
        high=cell.high,
        unit=cell.unit,
        patients=cell.patients,
        note=cell.note,
    )
