"""A histogram of 1,000 intervals over 50 hospitals in one process: the whole study, and its round alone.

Beside it a plain NumPy histogram of all patients in one array: what it costs who may see the rows.
"""

import argparse
import json
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from wardround.client.answers import answers_from
from wardround.client.connectors import Cohort, make_cohort
from wardround.protocol.contract import DataContract, NumberColumn
from wardround.protocol.identity import Identity
from wardround.protocol.labels import ClassLabel
from wardround.protocol.owners import COORDINATOR
from wardround.protocol.parameters import initial_weights, model_hash
from wardround.protocol.plan import (
    Controller,
    Governance,
    InitialModel,
    LocalTraining,
    Participant,
    PrivacyMode,
    PrivacyTerms,
    StrategySpec,
    StudyPlan,
)
from wardround.protocol.queries import Histogram
from wardround.protocol.statistics import Statistics
from wardround.server.study import Study
from wardround.simulations.consortium import simulated_roster
from wardround.simulations.site_by_site import Keys, SiteBySite, Terms
from wardround.strategies import strategy_for
from wardround.strategies.statistics import read

TODAY = date(2026, 11, 29)
CONTRACT = DataContract(
    columns=(NumberColumn(name="x", meaning="a number", unit="1", minimum=0, maximum=1000),),
    label=ClassLabel(column="y", meaning="nothing", positive=("1",), negative=("0",)),
    patient_id="patient",
)


def plan_for(cohorts: Sequence[Cohort], bins: int, secure: bool) -> StudyPlan:
    task = Statistics(
        queries=(Histogram(name="x", column="x", cuts=tuple(1000 * (i + 1) / bins for i in range(bins - 1))),)
    )
    layout = task.layout(1)
    return StudyPlan(
        study="counting",
        title="A histogram",
        governance=Governance(
            purpose="measure how long it takes",
            controllers=(Controller(name="nobody"),),
            legal_basis="none",
            ethics_reference="none",
            recipients=("nobody",),
            permitted_use="this benchmark",
            proposed_on=TODAY,
            expires_on=date(2027, 11, 29),
        ),
        contract=CONTRACT,
        task=task,
        model=InitialModel(scheme="zeros", layout=layout.digest, hash=model_hash(initial_weights(layout, "zeros", 0))),
        strategy=StrategySpec(name="statistics"),
        local=LocalTraining(steps=1, learning_rate=1.0),
        rounds=1,
        participants=tuple(Participant(site=c.site, declared_patients=c.declared_patients) for c in cohorts),
        privacy=PrivacyTerms(
            mode=PrivacyMode.LOCAL, secure_aggregation=secure, noise_multiplier=4.0, sampling_probability=1.0,
            delta=1e-5, epsilon=3.0,
        ),
        code_version=version("wardround"),
    )  # fmt: skip


def cohorts_of(sites: int, patients: int) -> list[Cohort]:
    random = np.random.default_rng(1)
    return [
        make_cohort(
            f"site-{number:03d}",
            random.uniform(0, 1000, (patients, 1)),
            np.zeros((patients, 1)),
            test=np.arange(patients) % 4 == 0,
            patients=np.arange(patients).astype(str),
        )
        for number in range(sites)
    ]


def study_of(plan: StudyPlan, cohorts: Sequence[Cohort]) -> SiteBySite:
    keys = None
    if plan.privacy.secure_aggregation:
        sites, coordinator = [Identity.generate(c.site) for c in cohorts], Identity.generate(COORDINATOR)
        keys = Keys(simulated_roster(sites, coordinator, (), TODAY), coordinator, sites)
    strategy = strategy_for(plan)
    terms = Terms(plan, answers_from(plan), strategy, cohorts, TODAY, 8.0, 8.0)  # type: ignore[arg-type]
    return SiteBySite(terms, Study(plan, strategy), (), keys, None)


def measure(sites: int, patients: int, bins: int, repeat: int) -> list[dict[str, Any]]:
    cohorts, rows = cohorts_of(sites, patients), []
    everybody = np.concatenate([np.asarray(part.features[:, 0]) for c in cohorts for part in (c.train, c.test)])
    started = perf_counter()
    for _ in range(repeat):
        np.histogram(everybody, bins, (0, 1000))
    plain = (perf_counter() - started) / repeat
    for secure in (False, True):
        plan = plan_for(cohorts, bins, secure)
        whole, alone = [], []
        for _ in range(repeat):
            started = perf_counter()
            parties = study_of(plan, cohorts)
            if secure:
                parties.federation._set_up()
            begun = perf_counter()
            parties.run(lambda record: None)
            read(plan, parties.study.progress.state.model)
            alone.append(perf_counter() - begun)
            whole.append(perf_counter() - started)
        case = f"{bins} bins, {sites} sites of {patients} patients, {'masked' if secure else 'in the open'}"
        for metric, values in (("study", whole), ("round", alone)):
            value = median(values)
            rows.append(
                {"case": case, "metric": metric, "value": value, "unit": "s", "against": plain, "ratio": value / plain}
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one repetition")
    parser.add_argument("--json", type=Path, help="also write the rows as JSON")
    given = parser.parse_args()
    rows = measure(50, 1000, 1000, 1 if given.quick else 5)
    for row in rows:
        print(f"{row['case']:<60} {row['metric']:<6} {row['value']:8.3f} {row['unit']}  {row['ratio']:10.0f} x NumPy")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
