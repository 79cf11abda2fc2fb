"""One simulated study from start to end: opens the ledgers, runs the rounds, looks at the test patients.

What it learns of a single site (metrics, curves, own model) is what that site would see of itself; one person playing
every site may put it into one table.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from math import inf
from sqlite3 import Connection

from wardround.client.connectors import Cohort
from wardround.client.evaluation import point, score
from wardround.client.governance import CONSORTIUM_DOMAIN, TRAINING_DOMAIN, budget_for, grant_for, open_domain
from wardround.client.secure import SECRET_SIZE, SecureSite
from wardround.client.site import Site
from wardround.client.store.database import open_store
from wardround.client.store.evidence import Evidence
from wardround.client.store.ledger import Ledger
from wardround.client.store.roster import PinnedRoster
from wardround.client.tasks import Task
from wardround.privacy.budget import delta_for
from wardround.privacy.secagg.scale import quantizer_for
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.identity import Identity
from wardround.protocol.messages import Reply
from wardround.protocol.outgoing import Outgoing, outgoing
from wardround.protocol.owners import COORDINATOR
from wardround.protocol.parameters import Vector
from wardround.protocol.plan import PrivacyMode, StudyPlan
from wardround.protocol.roster import Roster, standing
from wardround.protocol.weights import Installed, nothing_installed
from wardround.server.study import Progress, RoundRecord, Study
from wardround.simulations.consortium import simulated_roster
from wardround.simulations.faults import Fault
from wardround.simulations.federation import Federation
from wardround.simulations.result import RoundResult, RoundSiteResult
from wardround.strategies import Strategy


@dataclass(slots=True)
class Experiment:
    """A study with its sites in one process. ``rounds`` grows as rounds end."""

    plan: StudyPlan
    task: Task
    strategy: Strategy
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
    store: Connection = field(init=False)
    federation: Federation = field(init=False)
    secure: dict[str, SecureSite] = field(default_factory=dict, init=False)
    roster: Roster | None = field(default=None, init=False)
    coordinator: Identity | None = field(default=None, init=False)
    _epsilons: "Future[list[float]] | None" = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.store = open_store(None, self.ledger_copy)
        sites, keys = [], self._keys()
        for cohort in self.cohorts:
            ledger = Ledger(self.store, cohort.site)
            site = self._site(cohort, ledger, keys.get(cohort.site))
            if self.ledger_copy is None:
                ledger.record(budget_for(self.plan, self.epsilon_cap, delta_for(cohort.declared_patients)))
                ledger.record(grant_for(self.plan, cohort.site))
                if self.plan.privacy.mode is PrivacyMode.DIST:
                    delta = delta_for(cohort.declared_patients)
                    ledger.record(open_domain(CONSORTIUM_DOMAIN, self.consortium_cap, delta))
                    ledger.record(grant_for(self.plan, cohort.site, CONSORTIUM_DOMAIN))
            else:
                site.recover()
            sites.append(site)
        study = Study(self.plan, self.strategy, self.progress, self.installed)
        self.federation = Federation(study, sites, self.today, self.faults, self.secure, self.roster, self.coordinator)
        self._start_accounting()

    def _keys(self) -> dict[str, tuple[Identity, PinnedRoster, Evidence]]:
        """Under secure aggregation each site's key and the roster that it holds: both end with this process."""
        if not self.plan.privacy.secure_aggregation:
            return {}
        identities = [Identity.generate(cohort.site) for cohort in self.cohorts]
        self.coordinator = Identity.generate(COORDINATOR)
        self.roster = simulated_roster(identities, self.coordinator, self.coordinator_directs, self.today)
        store, keys = open_store(None), {}
        for identity in identities:
            keys[identity.site] = (identity, PinnedRoster(store, identity.public), Evidence(store, identity.site))
            keys[identity.site][1].pin(self.roster.canonical, self.roster.digest)
        return keys

    def _site(self, cohort: Cohort, ledger: Ledger, key: tuple[Identity, PinnedRoster, Evidence] | None) -> Site:
        """The hospital of ``cohort``; under secure aggregation (with a key) one whose replies leave masked."""

        def make(seal: Callable[[Reply], Outgoing]) -> Site:
            return Site(self.plan, cohort, self.task, self.strategy, ledger, seal=seal)

        if key is None:
            return make(outgoing)
        sizes = self.strategy.part_sizes(self.plan.layout.size)
        secure = SecureSite(
            make,
            *key,
            quantizer_for(self.plan, sizes),
            os.urandom(SECRET_SIZE),
            os.urandom,
        )
        self.secure[cohort.site] = secure
        return secure.site

    def run(self, after_round: Callable[[RoundResult], None] = lambda result: None) -> Vector:
        """Run every round that is left; returns the final model, shape (d,)."""

        def note(record: RoundRecord) -> None:
            result = self._describe(record)
            self.rounds.append(result)
            after_round(result)

        self.federation.run(note)
        return self.model

    @property
    def model(self) -> Vector:
        """The shared model as it is now, shape (d,)."""
        return self.federation.study.progress.state.model

    @property
    def standing(self) -> str | None:
        """Under secure aggregation: who directs the coordinator and the sites, in one sentence."""
        return None if self.roster is None else standing(self.roster)

    @property
    def charged(self) -> dict[str, int]:
        """Rounds that each site's ledger was charged for, by site."""
        plan = self.plan.digest
        return {site.name: site.ledger.charged(plan, TRAINING_DOMAIN) for site in self.federation.sites}

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

    def metrics(self, cohort: Cohort) -> dict[str, float | None]:
        """The shared model on a site's test patients, without intervals."""
        if not cohort.test.patients:
            return dict.fromkeys(self.task.metrics)
        scores = score(self.task, self.model, cohort.test)
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
        sites = {}
        for site in self.federation.sites:
            report = record.reports[site.name]
            sites[site.name] = RoundSiteResult(
                outcome=report.outcome.value,
                detail=report.detail,
                epsilon_site=self.epsilon(site.ledger.charged(self.plan.digest, TRAINING_DOMAIN)),
                metrics=self.metrics(site.cohort) if look else {},
            )
        return RoundResult(
            round_number=record.round_number,
            state="closed" if record.state == "closed" else "void",
            model_before=record.model_before,
            model_after=record.model_after,
            voided_by=record.voided_by,
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
