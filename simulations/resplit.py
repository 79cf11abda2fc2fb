"""Made-up hospitals: the patients of a study pooled and divided again, as unlike each other as one asks for.

Four knobs, each by itself or together, all drawn from one public seed:

* label skew: each hospital's shares of the classes are a draw from Dirichlet(alpha p), p the shares of all patients
  (Hsu, Qi and Brown 2019, arXiv 1909.06335). Alpha large: the same shares everywhere; alpha near 0: one class each, as
  long as there are patients of it left;
* size skew: sizes are proportional to exp(sigma z), z standard normal (log-normal); sigma 0: equal sizes;
* feature shift: each number column is moved at each hospital by a normal draw, in units of the contract's ``scale``;
* missing columns: each hospital lacks this share of the columns, drawn anew; the model is given what the contract gives
  for a missing value, or else its centre and its reference code. Every column stays at one hospital at least.

For simulations only: these hospitals are nobody's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wardround.client.connectors import Cohort, make_cohort
from wardround.conf.schema import ResplitSection
from wardround.protocol.contract import CodeColumn, DataContract, FixedValue, NumberColumn
from wardround.protocol.errors import UsageError
from wardround.simulations.result import MadeUpHospital, MadeUpSplit

LEAST_PATIENTS: Final = 10
"""No made-up hospital has fewer."""

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pool:
    """All patients of a study: features (records, d), targets (records, T), and whose each record is (records,)."""

    features: Array
    targets: Array
    patient: Indices
    patients: int


def resplit(
    cohorts: Sequence[Cohort], contract: DataContract, section: ResplitSection, seed: int, test_share: float
) -> tuple[list[Cohort], MadeUpSplit]:
    """The made-up hospitals, and what they are.

    Raises:
        UsageError: the patients are too few, or the contract has nothing that a knob could turn.
    """
    if contract.image is not None:
        raise UsageError("pictures are not divided again", "simulation.resplit is for tables")
    pool, generator = pooled(cohorts), np.random.Generator(np.random.PCG64(seed))
    sizes = hospital_sizes(pool.patients, section.sites, section.size_skew, generator)
    if section.label_skew is None:
        parts = np.split(generator.permutation(pool.patients), np.cumsum(sizes)[:-1])
    else:
        if contract.label.kind != "class":
            raise UsageError("label skew needs a label of kind 'class'", "leave simulation.resplit.label_skew out")
        classes = np.zeros(pool.patients, np.int64)
        np.maximum.at(classes, pool.patient, (pool.targets[:, 0] > 0.5).astype(np.int64))
        parts = skewed_parts(classes, sizes, section.label_skew, generator)
    shifts = feature_shifts(contract, section, generator)
    missing = missing_columns(contract, section, generator)
    names = [f"hospital-{number + 1:0{len(str(section.sites))}d}" for number in range(section.sites)]
    made = [
        _hospital(name, pool, part, contract, shift, lacks, test_share, generator)
        for name, part, shift, lacks in zip(names, parts, shifts, missing, strict=True)
    ]
    described = [
        _described(cohort, contract, shift, lacks) for cohort, shift, lacks in zip(made, shifts, missing, strict=True)
    ]
    left_out: dict[str, int] = {}
    for cohort in cohorts:
        for reason, count in cohort.excluded.items():
            left_out[reason] = left_out.get(reason, 0) + count
    knobs = section.model_dump(exclude={"sites", "seed"})
    return made, MadeUpSplit(seed=seed, **knobs, left_out=left_out, hospitals=tuple(described))


def pooled(cohorts: Sequence[Cohort]) -> Pool:
    """Every patient of every site, train and test."""
    features, targets, patient, patients = [], [], [], 0
    for part in [part for cohort in cohorts for part in (cohort.train, cohort.test)]:
        features.append(np.asarray(part.features, np.float64))
        targets.append(np.asarray(part.targets, np.float64))
        patient.append(part.patient + patients)
        patients += part.patients
    return Pool(np.concatenate(features), np.concatenate(targets), np.concatenate(patient), patients)


def hospital_sizes(patients: int, sites: int, skew: float, generator: np.random.Generator) -> Indices:
    """Patients of each site, shape (sites,): log-normal shares of what is left beyond ``LEAST_PATIENTS`` each."""
    spare = patients - sites * LEAST_PATIENTS
    if spare < 0:
        raise UsageError(
            f"{patients} patients are too few for {sites} hospitals of {LEAST_PATIENTS} at least",
            f"ask for at most {patients // LEAST_PATIENTS}: simulation.resplit.sites",
        )
    shares = np.exp(skew * generator.normal(size=sites))
    exact = shares / shares.sum() * spare
    sizes = np.floor(exact).astype(np.int64)
    # The patients that rounding left over go where it took most.
    most = np.argsort(sizes - exact, kind="stable")[: spare - int(sizes.sum())]
    sizes[most] += 1
    found: Indices = sizes + LEAST_PATIENTS
    return found


def skewed_parts(classes: Indices, sizes: Indices, alpha: float, generator: np.random.Generator) -> list[Indices]:
    """The patients of each site: a site takes from each class by its Dirichlet shares, while there are some left."""
    waiting = [list(generator.permutation(np.flatnonzero(classes == kind))) for kind in range(classes.max() + 1)]
    prior = np.array([len(members) for members in waiting], np.float64) / len(classes)
    parts: list[Indices] = [np.zeros(0, np.int64)] * len(sizes)
    for site in generator.permutation(len(sizes)):
        shares = _dirichlet(alpha * prior, generator)
        taken: list[int] = []
        while len(taken) < sizes[site]:
            left = np.array([len(members) for members in waiting], np.float64)
            weights = np.where(left > 0, shares, 0.0)
            weights = weights / weights.sum() if weights.sum() > 0 else left / left.sum()
            wanted = generator.multinomial(int(sizes[site]) - len(taken), weights)
            for members, count in zip(waiting, wanted, strict=True):
                taken += [members.pop() for _ in range(min(int(count), len(members)))]
        parts[site] = np.array(sorted(taken), np.int64)
    return parts


def _dirichlet(concentration: Array, generator: np.random.Generator) -> Array:
    """A draw, shape (classes,); all of one class where every gamma draw of a tiny concentration underflows to 0."""
    draws = np.array([generator.gamma(value) if value > 0 else 0.0 for value in concentration])
    if draws.sum() > 0:
        shares: Array = draws / draws.sum()
        return shares
    one: Array = np.zeros(len(concentration))
    one[generator.choice(len(concentration), p=concentration / concentration.sum())] = 1.0
    return one


def feature_shifts(
    contract: DataContract, section: ResplitSection, generator: np.random.Generator
) -> list[dict[str, float]]:
    """What is added to each number column at each site, in units of its scale; empty without a shift."""
    if not section.feature_shift:
        return [{} for _ in range(section.sites)]
    names = [column.name for column in contract.columns if isinstance(column, NumberColumn)]
    if not names:
        raise UsageError("no number column could be shifted", "leave simulation.resplit.feature_shift out")
    drawn = section.feature_shift * generator.normal(size=(section.sites, len(names)))
    return [dict(zip(names, row, strict=True)) for row in drawn.tolist()]


def missing_columns(
    contract: DataContract, section: ResplitSection, generator: np.random.Generator
) -> list[tuple[str, ...]]:
    """The columns that each site lacks: the same number everywhere, never all, and none that would be nowhere."""
    names = [column.name for column in contract.columns]
    count = min(round(section.missing_columns * len(names)), len(names) - 1)
    lacking = [set(generator.choice(len(names), size=count, replace=False).tolist()) for _ in range(section.sites)]
    for column in range(len(names)):
        if all(column in absent for absent in lacking):
            lacking[int(generator.integers(section.sites))].discard(column)
    return [tuple(names[index] for index in sorted(absent)) for absent in lacking]


def _hospital(
    name: str,
    pool: Pool,
    part: Indices,
    contract: DataContract,
    shift: Mapping[str, float],
    lacks: Sequence[str],
    test_share: float,
    generator: np.random.Generator,
) -> Cohort:
    inside = np.isin(pool.patient, part)
    features, whose = pool.features[inside].copy(), pool.patient[inside]
    place = 0
    for column in contract.columns:
        width = len(column.feature_names)
        block = features[:, place : place + width]
        if column.name in lacks:
            block[:] = _as_missing(column, width)
        elif column.name in shift:
            block[:, 0] += shift[column.name]
        place += width
    tests = generator.permutation(part)[: max(1, round(test_share * len(part)))]
    several = len(np.unique(whose)) < len(whose)
    return make_cohort(
        name, features, pool.targets[inside], test=np.isin(whose, tests), patients=whose if several else None
    )


def _as_missing(column: NumberColumn | CodeColumn, width: int) -> Array:
    """The features of a value that is missing: by the contract's policy, or else centre and reference: zeros."""
    values: Array = np.zeros(width)
    if not isinstance(column.missing, FixedValue):
        return values
    value = column.missing.value
    if isinstance(column, NumberColumn):
        values[0] = (value - column.center) / column.scale
    else:
        code = f"{value:g}"
        shown = [known for known in column.codes if known != column.reference]
        values[: len(shown)] = [known == code for known in shown]
    if column.missing.indicator:
        values[-1] = 1.0
    return values


def _described(
    cohort: Cohort, contract: DataContract, shift: Mapping[str, float], lacks: Sequence[str]
) -> MadeUpHospital:
    targets: Any = np.concatenate([cohort.train.targets, cohort.test.targets])
    return MadeUpHospital(
        site=cohort.site,
        patients=cohort.train.patients + cohort.test.patients,
        positive_share=float((targets[:, 0] > 0.5).mean()) if contract.label.kind == "class" else None,
        shift={column: value for column, value in shift.items() if column not in lacks},
        missing=tuple(lacks),
    )
