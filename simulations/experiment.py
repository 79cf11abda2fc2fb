"""One simulated study from start to end: chooses the engine, runs the rounds, looks at the test patients.

What it learns of a single site (metrics, curves, own model) is what that site would see of itself; one person playing
every site may put it into one table.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from math import inf
from typing import Protocol

from wardround.client.connectors import Cohort
from wardround.client.evaluation import point, score
from wardround.client.personal import personalised, with_own_layers
from wardround.client.tasks import Task
from wardround.protocol.errors import UsageError
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.identity import Identity
from wardround.protocol.owners import COORDINATOR
from wardround.protocol.parameters import Vector
from wardround.protocol.plan import PrivacyMode, StudyPlan
from wardround.protocol.roster import Roster, standing
from wardround.protocol.weights import Installed, nothing_installed
from wardround.server.study import Progress, RoundRecord, Study
from wardround.simulations.choice import Choice, EngineName, choose
from wardround.simulations.cluster import HERE, Workers
from wardround.simulations.consortium import simulated_roster
from wardround.simulations.faults import Fault
from wardround.simulations.federation import Federation
from wardround.simulations.files import EvaluationSnapshot
from wardround.simulations.phase import Phase
from wardround.simulations.result import RoundResult, RoundSiteResult
from wardround.simulations.single_updates import RobustStudy
from wardround.simulations.site_by_site import Keys, SiteBySite, Terms
from wardround.strategies import Robust, Strategy
from wardround.strategies.base import Memory
from wardround.strategies.fedavg import FedAvg


class Engine(Protocol):
    """What makes the rounds of a study: every hospital by itself, or all of them at once."""

    @property
    def study(self) -> Study: ...

    def run(self, after_round: Callable[[RoundRecord], None]) -> list[RoundRecord]:
        """Every round that is left; see ``simulations.running``."""

    def charged(self) -> Mapping[str, int]:
        """Rounds that each site was charged for, by site."""

    def spent(self) -> Mapping[str, tuple[int, int | None]]:
        """(spent, allowance) of each site's training domain; allowance None: without protection."""

    def ledgers(self) -> bytes:
        """What an interrupted run needs of the ledgers and memories to go on; empty: nothing."""

    def memory(self, site: str) -> Memory | None:
        """What a site remembers after the rounds that are done."""


@dataclass(slots=True)
class Experiment:
    """A study with its sites in one process. ``rounds`` grows as rounds end."""

    plan: StudyPlan
    task: Task
    strategy: Strategy | Robust
    cohorts: Sequence[Cohort]
    today: date
    epsilon_cap: float = 8.0
    evaluate_every: int = 1
    faults: Sequence[Fault] = ()
    progress: Progress | None = None
    ledger_copy: bytes | None = None
    rounds: list[RoundResult] = field(default_factory=list)
    consortium_cap: float = 8.0
    coordinator_directs: Sequence[str] = ()
    installed: Installed = nothing_installed
    wanted: EngineName = "sites"
    workers: Workers = HERE
    evaluation_left: EvaluationSnapshot | None = None
    engine: Engine = field(init=False)
    phase: Phase | None = field(init=False, default=None)
    chosen: Choice = field(init=False)
    roster: Roster | None = field(default=None, init=False)
    _epsilons: "Future[list[float]] | None" = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.chosen = choose(self.wanted, self.task, self.cohorts, self.faults)
        if isinstance(self.strategy, Robust):
            # The sites average as in FedAvg; what is made of their updates is the rule's.
            study: Study = RobustStudy(self.plan, self.strategy, self.progress, self.installed)
            strategy: Strategy = FedAvg()
        else:
            study, strategy = Study(self.plan, self.strategy, self.progress, self.installed), self.strategy
        keys = None
        if self.plan.privacy.secure_aggregation:
            identities = [Identity.generate(cohort.site) for cohort in self.cohorts]
            coordinator = Identity.generate(COORDINATOR)
            self.roster = simulated_roster(identities, coordinator, self.coordinator_directs, self.today)
            keys = Keys(self.roster, coordinator, identities)
        terms = Terms(self.plan, self.task, strategy, self.cohorts, self.today, self.epsilon_cap, self.consortium_cap)
        if self.chosen.engine == "vectorised":
            from wardround.simulations.vectorised.engine import Vectorised

            self.engine = Vectorised(terms, study, memories=self.ledger_copy, threads=self.workers.threads)
        elif self.chosen.engine == "flower":
            from wardround.simulations.flower import Flower

            self.engine = Flower(terms, study, keys, self.ledger_copy, self.workers)
        else:
            self.engine = SiteBySite(terms, study, self.faults, keys, self.ledger_copy)
        if (beside := self.plan.evaluation_plan) is not None:
            left = self.evaluation_left
            self.phase = Phase(
                beside,
                self.cohorts,
                self.today,
                self.epsilon_cap,
                self.consortium_cap,
                keys,
                None if left is None else left.progress,
                None if left is None else left.ledgers,
            )
        self._start_accounting()

    @property
    def federation(self) -> Federation:
        """The parties of the study. Raises UsageError for an engine that has none."""
        if not isinstance(self.engine, SiteBySite):
            raise UsageError("this simulation has no parties", "use simulation.engine=sites")
        return self.engine.federation

    def run(self, after_round: Callable[[RoundResult], None] = lambda result: None) -> Vector:
        """Run every round that is left; returns the final model, shape (d,)."""

        def note(record: RoundRecord) -> None:
            result = self._describe(record)
            self.rounds.append(result)
            if self.phase is not None:
                self.phase.after(record.round_number, self.model)
            after_round(result)

        self.engine.run(note)
        return self.model

    @property
    def model(self) -> Vector:
        """The shared model as it is now, shape (d,)."""
        return self.engine.study.progress.state.model

    @property
    def evaluation(self) -> EvaluationSnapshot | None:
        """What the evaluation rounds need to go on; None: there are none."""
        if self.phase is None:
            return None
        return EvaluationSnapshot(self.phase.progress, self.phase.parties.ledgers())

    @property
    def standing(self) -> str | None:
        """Under secure aggregation: who directs the coordinator and the sites, in one sentence."""
        return None if self.roster is None else standing(self.roster)

    @property
    def charged(self) -> dict[str, int]:
        """Rounds that each site's ledger was charged for, by site."""
        return dict(self.engine.charged())

    def epsilon(self, charged_rounds: int) -> float | None:
        """epsilon_site after so many charged rounds, at the plan's delta; None without protection."""
        if self.plan.privacy.mode is PrivacyMode.NONE or self._epsilons is None:
            return None
        return 0.0 if charged_rounds == 0 else self._epsilons.result()[charged_rounds - 1]

    def epsilon_consortium(self, charged_rounds: int) -> float | None:
        """epsilon_consortium after so many charged rounds, at the plan's delta; None in any mode but dist."""
        event, delta = self.plan.consortium_event(self.plan.participants[0].site), self.plan.privacy.delta
        if self.plan.privacy.mode is not PrivacyMode.DIST or not isinstance(event, PoissonGaussian) or delta is None:
            return None
        from wardround.privacy.accounting import epsilon

        return epsilon([event] * charged_rounds, delta) if charged_rounds else 0.0

    def personalised(self, cohort: Cohort) -> Vector | None:
        """The model that a site itself would use, shape (d,); None: the shared one."""
        if isinstance(self.strategy, Robust):
            return None
        memory = self.engine.memory(cohort.site)
        return personalised(self.plan, self.task, cohort, self.strategy, self.model, memory)

    def metrics(self, cohort: Cohort) -> dict[str, float | None]:
        """The shared model on a site's test patients, with the layers that the site keeps, without intervals."""
        if not cohort.test.patients:
            return dict.fromkeys(self.task.metrics)
        model = self.model
        if not isinstance(self.strategy, Robust):
            model = with_own_layers(self.strategy.personal(self.plan.layout), model, self.engine.memory(cohort.site))
        scores = score(self.task, model, cohort.test)
        return {name: point(metric, scores) for name, metric in self.task.metrics.items()}

    def _start_accounting(self) -> None:
        """Compute the epsilon of 1..rounds in the background: the first round need not wait for it."""
        event, delta = self.plan.round_event(self.plan.participants[0].site), self.plan.privacy.delta
        if not isinstance(event, PoissonGaussian) or delta is None:
            return
        from wardround.privacy.accounting import epsilon_after_rounds

        pool = ThreadPoolExecutor(max_workers=1)
        self._epsilons = pool.submit(epsilon_after_rounds, event, self.plan.rounds, delta)
        pool.shutdown(wait=False)

    def _describe(self, record: RoundRecord) -> RoundResult:
        last = record.round_number == self.plan.rounds
        look = last or (self.evaluate_every > 0 and record.round_number % self.evaluate_every == 0)
        sites, charged = {}, self.engine.charged()
        for cohort in self.cohorts:
            report = record.reports[cohort.site]
            sites[cohort.site] = RoundSiteResult(
                outcome=report.outcome.value,
                detail=report.detail,
                epsilon_site=self.epsilon(charged[cohort.site]),
                metrics=self.metrics(cohort) if look else {},
            )
        return RoundResult(
            round_number=record.round_number,
            state="closed" if record.state == "closed" else "void",
            model_before=record.model_before,
            model_after=record.model_after,
            voided_by=record.voided_by,
            warning=record.warning,
            metrics=_means([site.metrics for site in sites.values()]) if look else {},
            sites=sites,
        )


def _means(metrics: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """The mean of each metric over the sites where it is estimable."""
    names = {name: None for site in metrics for name in site}
    means: dict[str, float | None] = {}
    for name in names:
        values = [value for site in metrics if (value := site.get(name)) is not None and abs(value) < inf]
        means[name] = sum(values) / len(values) if values else None
    return means
