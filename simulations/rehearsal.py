"""A plan rehearsed on hospitals that are made of its contract, before any hospital opens its own data.

The rows hold what real ones will hold sooner or later: edges of every range, every code, every way of being missing,
several records of a patient, and one hospital with one class only. What breaks here would break at a hospital. The
figures of such a run say nothing about a model: nobody is behind any row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from time import perf_counter
from typing import Final

from wardround.client.compatibility import incompatibilities
from wardround.client.connectors import Cohort
from wardround.client.tasks import Frozen, frozen_part
from wardround.conf.planning import make_plan
from wardround.conf.schema import Configuration
from wardround.protocol.contract import DataContract
from wardround.protocol.errors import UsageError
from wardround.protocol.plan import PrivacyMode, StudyPlan
from wardround.simulations.cohorts import examine
from wardround.simulations.datasets.source import SitePictures, SiteTable
from wardround.simulations.experiment import Experiment
from wardround.simulations.plugins.configured import own_strategy, own_task
from wardround.simulations.result import RoundResult
from wardround.simulations.synthetic.contract_data import PICTURE, rehearsal_masks, rehearsal_pictures, rehearsal_table

SEED: Final = 20_260_228
"""Public: every rehearsal of a plan is the same."""

TEST_SHARE: Final = 0.3


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What a rehearsal found: the plan for the made-up hospitals, their cohorts, and its rounds.

    ``unfit``: why the model cannot be trained under differential privacy, in a sentence each; empty: it can.
    """

    plan: StudyPlan
    cohorts: tuple[Cohort, ...]
    rounds: tuple[RoundResult, ...]
    seconds_each: float
    unfit: tuple[str, ...]


def rehearse(configuration: Configuration, sites: Sequence[str], patients: int, rounds: int, today: date) -> Rehearsed:
    """``rounds`` rounds of the configured study at ``sites`` with ``patients`` made-up patients each.

    The last site is of one class where the label has classes. Secure aggregation, noise and ledger are those of the
    study.

    Raises:
        UsageError: what would stop the study at a hospital: the contract, the task or the plan contradict each other.
    """
    if rounds < 1:
        raise UsageError("a rehearsal has at least one round", "give --rounds 1 or more")
    configuration = configuration.model_copy(update={"rounds": rounds, "min_sites": min(3, len(sites))})
    frozen = frozen_part(configuration.task, configuration.installed)
    cohorts = [_cohort(configuration.contract, site, patients, site == sites[-1], frozen) for site in sites]
    gathered = examine(cohorts, configuration.contract, "")
    plan = make_plan(configuration, gathered.declared, today, own_strategy(configuration))
    strategy, task = own_strategy(configuration), own_task(configuration, plan)
    unfit = incompatibilities(task, plan.starting_model(configuration.installed), gathered.taking_part[0].train)
    if unfit and plan.privacy.mode is not PrivacyMode.NONE:
        raise UsageError(f"the model is not fit for differential privacy: {unfit[0]}", "docs/models.md says what is")
    experiment = Experiment(
        plan,
        task,
        strategy,
        gathered.taking_part,
        today,
        evaluate_every=0,
        installed=configuration.installed,
    )
    began = perf_counter()
    experiment.run()
    each = (perf_counter() - began) / rounds
    return Rehearsed(plan, gathered.taking_part, tuple(experiment.rounds), each, tuple(unfit))


def _cohort(contract: DataContract, site: str, patients: int, last: bool, frozen: Frozen | None) -> Cohort:
    one_class = last and contract.label.kind in ("class", "findings", "mask")
    table = rehearsal_table(contract, site, patients, SEED, one_class=one_class)
    if contract.image is None:
        return SiteTable(site, table, None).cohort(contract, TEST_SHARE)
    labels = {row[PICTURE]: row for row in table.to_pylist()}
    pictures = SitePictures(
        site,
        lambda image: rehearsal_pictures(contract, site, patients, SEED, one_class=one_class),
        labels,
        masks=rehearsal_masks(contract, site, patients, SEED, one_class=one_class),
    )
    return pictures.cohort(contract, TEST_SHARE, frozen)
