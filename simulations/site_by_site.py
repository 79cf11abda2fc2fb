"""A study in which every hospital is a party of its own: its ledger, its keys, its messages. The reference engine.

All that crosses a border between parties is made, checked and read back as it is between machines.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

from wardround.client.answers import Answers
from wardround.client.connectors import Cohort
from wardround.client.governance import CONSORTIUM_DOMAIN, budget_for, grant_for, open_domain
from wardround.client.learning import Learn
from wardround.client.population import usual_domains
from wardround.client.secure import SECRET_SIZE, SecureSite
from wardround.client.site import Site
from wardround.client.store.database import open_store, store_bytes
from wardround.client.store.evidence import Evidence
from wardround.client.store.ledger import Ledger
from wardround.client.store.memory import SiteMemory
from wardround.client.store.replies import KEY_SIZE
from wardround.client.store.roster import PinnedRoster
from wardround.client.tasks import Task
from wardround.privacy.budget import delta_for
from wardround.privacy.secagg.scale import quantizer_for
from wardround.protocol.identity import Identity
from wardround.protocol.messages import Reply
from wardround.protocol.outgoing import Outgoing, outgoing
from wardround.protocol.parameters import model_hash
from wardround.protocol.plan import PrivacyMode, StudyPlan
from wardround.protocol.roster import Roster
from wardround.server.study import RoundRecord, Study
from wardround.simulations.elsewhere import Elsewhere
from wardround.simulations.faults import Fault
from wardround.simulations.federation import Federation
from wardround.strategies import Strategy
from wardround.strategies.base import Memory


@dataclass(frozen=True, slots=True)
class Terms:
    """What is simulated, whatever engine does it. The caps are lifetime budgets of a domain, in epsilon."""

    plan: StudyPlan
    task: Task | Answers
    strategy: Strategy
    cohorts: Sequence[Cohort]
    today: date
    epsilon_cap: float
    consortium_cap: float


@dataclass(frozen=True, slots=True)
class Keys:
    """Under secure aggregation: the roster, and the keys in it, which end with this process."""

    roster: Roster
    coordinator: Identity
    sites: Sequence[Identity]


class SiteBySite:
    """The parties of one study in one process.

    Args:
        ledgers: of an interrupted run that goes on.
        elsewhere: what trains the hospitals; None: this process, one after the other.
    """

    def __init__(
        self,
        terms: Terms,
        study: Study,
        faults: Sequence[Fault],
        keys: Keys | None,
        ledgers: bytes | None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self._terms = terms
        self._domains = usual_domains(terms.plan.task)
        self._store = open_store(None, ledgers)
        self.keys = keys
        self._elsewhere = elsewhere
        self._secure: dict[str, SecureSite] = {}
        sites, holders = [], _holders(keys)
        for cohort in terms.cohorts:
            ledger = Ledger(self._store, cohort.site)
            site = self._site(cohort, ledger, holders.get(cohort.site))
            if ledgers is None:
                self._open_domains(ledger, cohort)
            else:
                site.recover()
            sites.append(site)
        roster, coordinator = (None, None) if keys is None else (keys.roster, keys.coordinator)
        self.federation = Federation(study, sites, terms.today, faults, self._secure, roster, coordinator, elsewhere)

    @property
    def study(self) -> Study:
        return self.federation.study

    def run(self, after_round: Callable[[RoundRecord], None]) -> list[RoundRecord]:
        """Every round that is left; see ``simulations.running``."""
        return self.federation.run(after_round)

    def charged(self) -> dict[str, int]:
        """Rounds that each site's ledger was charged for, on each domain that the plan reads."""
        plan = self._terms.plan.digest
        return {site.name: site.ledger.charged(plan, self._domains[0]) for site in self.federation.sites}

    def spent(self) -> dict[str, tuple[int, int | None]]:
        """(spent, allowance) of each site's domain, the first of those that the plan reads."""
        return {site.name: site.ledger.used(self._domains[0]) for site in self.federation.sites}

    def ledgers(self) -> bytes:
        """All ledgers, as the database that holds them."""
        return store_bytes(self._store)

    def memory(self, site: str) -> Memory | None:
        """What a site remembers after the rounds that are done."""
        progress, parties = self.study.progress, {each.name: each for each in self.federation.sites}
        return parties[site].remembered(progress.rounds_done + 1, model_hash(progress.state.model))

    def _open_domains(self, ledger: Ledger, cohort: Cohort) -> None:
        plan, delta = self._terms.plan, delta_for(cohort.declared_patients)
        for domain in self._domains:
            ledger.record(budget_for(plan, self._terms.epsilon_cap, delta, domain))
            ledger.record(grant_for(plan, cohort.site, domain))
        if plan.privacy.mode is PrivacyMode.DIST:
            ledger.record(open_domain(CONSORTIUM_DOMAIN, self._terms.consortium_cap, delta))
            ledger.record(grant_for(plan, cohort.site, CONSORTIUM_DOMAIN))

    def _site(self, cohort: Cohort, ledger: Ledger, key: tuple[Identity, PinnedRoster, Evidence] | None) -> Site:
        """The hospital of ``cohort``; under secure aggregation (with a key) one whose replies leave masked."""
        terms = self._terms
        # The database is the researcher's own, like all patients in it: there is nobody to seal it against.
        memory = SiteMemory(self._store, cohort.site, bytes(KEY_SIZE))

        def make(seal: Callable[[Reply], Outgoing]) -> Site:
            learn = None if self._elsewhere is None else _taken(self._elsewhere, cohort.site)
            return Site(
                terms.plan,
                cohort,
                terms.task,
                terms.strategy,
                ledger,
                domains=self._domains,
                learn=learn,
                seal=seal,
                memory=memory,
            )

        if key is None:
            return make(outgoing)
        quantizer = quantizer_for(terms.plan, terms.strategy.part_sizes(terms.plan.layout.size))
        secure = SecureSite(make, *key, quantizer, os.urandom(SECRET_SIZE), os.urandom)
        self._secure[cohort.site] = secure
        assert isinstance(secure.site, Site)
        return secure.site


def _taken(elsewhere: Elsewhere, site: str) -> Learn:
    """What a site whose training happened elsewhere does instead of training."""
    return lambda request, memory, patients: elsewhere.learned(site)


def _holders(keys: Keys | None) -> dict[str, tuple[Identity, PinnedRoster, Evidence]]:
    """Each site's key, the roster that it holds and what it keeps of others' contradictions."""
    if keys is None:
        return {}
    store, holders = open_store(None), {}
    for identity in keys.sites:
        pinned = PinnedRoster(store, identity.public)
        pinned.pin(keys.roster.canonical, keys.roster.digest)
        holders[identity.site] = (identity, pinned, Evidence(store, identity.site))
    return holders
