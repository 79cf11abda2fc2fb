"""A simulated statistics study: every hospital a party of its own, its ledger and its keys, as in ``site_by_site``."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from wardround.client.answers import answers_from
from wardround.client.connectors import Cohort
from wardround.protocol.identity import Identity
from wardround.protocol.owners import COORDINATOR
from wardround.protocol.parameters import Vector
from wardround.protocol.plan import StudyPlan
from wardround.protocol.weights import Installed, nothing_installed
from wardround.server.study import RoundRecord, Study
from wardround.simulations.checks import check_cost
from wardround.simulations.consortium import simulated_roster
from wardround.simulations.faults import Fault
from wardround.simulations.site_by_site import Keys, SiteBySite, Terms
from wardround.strategies import Adding, strategy_for
from wardround.strategies.statistics import Cell, read


@dataclass(frozen=True, slots=True)
class Counted:
    """A finished statistics study: its figures, the noised sums they are made of, and what each site's ledger spent.

    ``charged``: rounds, by site. ``budget_used``: by site, the share of the domain's lifetime budget; None without one.
    """

    plan: StudyPlan
    cells: tuple[Cell, ...]
    model: Vector
    records: tuple[RoundRecord, ...]
    charged: dict[str, int]
    budget_used: dict[str, float | None]


def count(
    plan: StudyPlan,
    cohorts: Sequence[Cohort],
    today: date,
    *,
    epsilon_cap: float = 8.0,
    consortium_cap: float = 8.0,
    coordinator_directs: Sequence[str] = (),
    faults: Sequence[Fault] = (),
    installed: Installed = nothing_installed,
) -> Counted:
    """Run the study of ``plan`` over ``cohorts``; models that it evaluates are ``installed``.

    Raises:
        UsageError: the plan trains, costs more than it says, or more than a site's budget.
        Unavailable: its round was void.
    """
    answers, strategy = answers_from(plan, installed), strategy_for(plan)
    assert isinstance(strategy, Adding)
    check_cost(plan, epsilon_cap, consortium_cap)
    keys = None
    if plan.privacy.secure_aggregation:
        coordinator = Identity.generate(COORDINATOR)
        sites = [Identity.generate(cohort.site) for cohort in cohorts]
        keys = Keys(simulated_roster(sites, coordinator, coordinator_directs, today), coordinator, sites)
    terms = Terms(plan, answers, strategy, cohorts, today, epsilon_cap, consortium_cap)
    parties = SiteBySite(terms, Study(plan, strategy), faults, keys, None)
    records = parties.run(lambda record: None)
    model = parties.study.progress.state.model
    spent = {site: None if room is None else used / room for site, (used, room) in parties.spent().items()}
    return Counted(plan, tuple(read(plan, model)), model, tuple(records), parties.charged(), spent)
