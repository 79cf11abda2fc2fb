"""Cohorts for simulations: from a configuration's data source, or synthetic ones for research and benchmarks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from wardround.client.connectors import Cohort, cohort_from_table, make_cohort, read_table
from wardround.client.own_model import one_class
from wardround.client.population import declared_for
from wardround.client.tasks import frozen_part
from wardround.conf.schema import Configuration
from wardround.protocol.contract import DataContract
from wardround.protocol.errors import UsageError
from wardround.protocol.tasks import TaskSpec
from wardround.simulations.datasets import load_dataset
from wardround.simulations.resplit import resplit
from wardround.simulations.result import MadeUpSplit

FEWEST_PATIENTS: Final = 2
"""Below this a site has nothing to train on, and it is left out by name."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """Every site that a study was asked for: those that can take part, and why the others cannot."""

    cohorts: tuple[Cohort, ...]
    left_out: Mapping[str, str]
    attribution: str = ""
    made_up: MadeUpSplit | None = None

    @property
    def taking_part(self) -> tuple[Cohort, ...]:
        return tuple(cohort for cohort in self.cohorts if cohort.site not in self.left_out)

    @property
    def excluded(self) -> list[tuple[Cohort, str]]:
        """The sites that take no part, each with the reason."""
        return [(cohort, self.left_out[cohort.site]) for cohort in self.cohorts if cohort.site in self.left_out]

    @property
    def declared(self) -> dict[str, int]:
        return {cohort.site: cohort.declared_patients for cohort in self.taking_part}


def gather(configuration: Configuration) -> Gathered:
    """Every site of the configuration: as its data has them, or made up of all their patients.

    Raises:
        UsageError: a file or column is missing, a cell breaks the contract, or no class varies anywhere.
    """
    gathered, section = _read(configuration), configuration.simulation.resplit
    if not section.sites:
        return gathered
    seed = configuration.initial.seed if section.seed is None else section.seed
    test_share = configuration.data.test_share
    cohorts, made_up = resplit(gathered.cohorts, configuration.contract, section, seed, test_share)
    return replace(examine(cohorts, configuration.contract, gathered.attribution), made_up=made_up)


def data_key(configuration: Configuration) -> str:
    """Equal for configurations that ``gather`` gives the same sites for."""
    section = configuration.simulation.resplit
    seed = configuration.initial.seed if section.sites and section.seed is None else section.seed
    parts = (configuration.data, configuration.contract, configuration.task, section)
    return "\n".join([*(part.model_dump_json() for part in parts), configuration.weights, str(seed)])


def _read(configuration: Configuration) -> Gathered:
    data, contract = configuration.data, configuration.contract
    if data.declared:
        raise UsageError(
            "this study has declared patients and no data, so there is nothing to simulate",
            "name a dataset or files: data.dataset=NAME, or data.sites; or propose it to the hospitals",
        )
    if data.dataset is not None:
        dataset = load_dataset(data.dataset, data.split)
        frozen = frozen_part(configuration.task, configuration.installed)
        cohorts = [part.cohort(contract, data.test_share, frozen) for part in dataset.sites]
        return examine(cohorts, contract, dataset.attribution)
    cohorts = [
        cohort_from_table(
            source.site,
            read_table(source.connector, Path(source.path), source.options),
            contract,
            test_rows=None,
            test_share=data.test_share,
        )
        for source in data.sites
    ]
    return examine(cohorts, contract, "")


def declared_patients(configuration: Configuration) -> dict[str, int]:
    """What the hospitals declare in public, by site: as the configuration says, or else counted in its data."""
    if configuration.data.declared:
        return dict(configuration.data.declared)
    return declared_in(gather(configuration), configuration.task)


def declared_in(gathered: Gathered, task: TaskSpec) -> dict[str, int]:
    """What each site that takes part declares of the patients whom ``task`` reads."""
    return {cohort.site: declared_for(task, cohort) for cohort in gathered.taking_part}


def examine(cohorts: Sequence[Cohort], contract: DataContract | None, attribution: str) -> Gathered:
    """Name the sites that cannot take part; refuse a study whose label has one class at every site."""
    ordered = tuple(sorted(cohorts, key=lambda cohort: cohort.site))
    left_out = {c.site: _too_few(c) for c in ordered if c.train.patients < FEWEST_PATIENTS}
    gathered = Gathered(ordered, left_out, attribution)
    classes = contract is not None and contract.label.kind in ("class", "findings")
    targets = [cohort.train.targets for cohort in gathered.taking_part]
    if contract is not None and classes and targets and one_class(np.concatenate(targets)):
        raise UsageError(
            f"the label '{contract.label.columns[0]}' has one class in the training patients of every site",
            "check 'positive' and 'negative' of the label in the contract, and the exports",
        )
    return gathered


def _too_few(cohort: Cohort) -> str:
    return "no training patient" if cohort.train.patients == 0 else "one training patient"


def synthetic_cohorts(
    sites: int, patients: tuple[int, int], features: int, *, seed: int, records_each: int = 1, shift: float = 0.3
) -> list[Cohort]:
    """Made-up cohorts of a logistic model, for benchmarks and tests: no person is behind any row.

    ``patients`` is the range (inclusive) of a site's training patients; ``shift`` moves each site's features (standard
    deviations) and its intercept, so that sites differ. A quarter as many patients again are for testing.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    truth = generator.normal(size=features) / np.sqrt(features) * 2.0
    cohorts = []
    for number in range(sites):
        train = int(generator.integers(patients[0], patients[1] + 1))
        total = train + max(train // 4, 1)
        people = np.repeat(np.arange(total), records_each)
        x = generator.normal(size=(len(people), features)) + shift * generator.normal(size=features)
        logit = x @ truth + shift * generator.normal()
        outcome = generator.random(total) < 1 / (1 + np.exp(-logit.reshape(total, records_each).mean(axis=1)))
        y = outcome.astype(np.float64)[people]
        name = f"site-{number:04d}"
        cohorts.append(make_cohort(name, x, y, test=people >= train, patients=people if records_each > 1 else None))
    return cohorts
