"""Statistics of many hospitals' patients: one statistic, one file, one line here.

A statistics study goes through the same round as training (``protocol.statistics`` says what it asks, docs/adr/0028
why): ``vector_of`` is what a site adds to the sum before its noise, ``read`` what the coordinator makes of the sums.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from statistics import NormalDist
from typing import Any, Final

import numpy as np

from wardround.privacy.gradients import Array
from wardround.protocol.contract import DataContract, NumberColumn
from wardround.protocol.errors import Unavailable
from wardround.protocol.labels import SurvivalLabel
from wardround.protocol.parameters import Vector
from wardround.protocol.plan import StudyPlan
from wardround.protocol.queries import Query
from wardround.protocol.statistics import SITES, Statistics, of_site, rounds_before
from wardround.strategies.statistics import sites
from wardround.strategies.statistics.base import LEAST_SIGNAL, NOISY, Cell, Statistic, groups_of
from wardround.strategies.statistics.correlation import Correlations
from wardround.strategies.statistics.count import Counts
from wardround.strategies.statistics.evaluation import Evaluations
from wardround.strategies.statistics.histogram import Histograms
from wardround.strategies.statistics.linear_regression import LeastSquares
from wardround.strategies.statistics.logistic_regression import Newton
from wardround.strategies.statistics.mean import Means
from wardround.strategies.statistics.piecewise_exponential import Rates
from wardround.strategies.statistics.prediction_error import PredictionErrors
from wardround.strategies.statistics.quantiles import FromTree
from wardround.strategies.statistics.segmentation_evaluation import SegmentationEvaluations
from wardround.strategies.statistics.survival import KaplanMeier
from wardround.strategies.statistics.survival_evaluation import SurvivalEvaluations
from wardround.strategies.statistics.table import Table, table_of
from wardround.strategies.statistics.total import Totals
from wardround.strategies.statistics.variance import Variances

__all__ = [
    "STATISTICS",
    "Cell",
    "Opened",
    "Statistic",
    "Table",
    "asked_after",
    "expected",
    "opened",
    "read",
    "statistic_for",
    "table_of",
    "vector_of",
]

STATISTICS: Final[dict[str, type[Statistic[Any]]]] = {
    "count": Counts,
    "sum": Totals,
    "mean": Means,
    "variance": Variances,
    "histogram": Histograms,
    "quantiles": FromTree,
    "correlation": Correlations,
    "linear_regression": LeastSquares,
    "logistic_regression": Newton,
    "survival": KaplanMeier,
    "piecewise_exponential": Rates,
    "evaluation": Evaluations,
    "prediction_error": PredictionErrors,
    "survival_evaluation": SurvivalEvaluations,
    "segmentation_evaluation": SegmentationEvaluations,
}

_OWN_COUNT: Final = ("count", "histogram")
"""Kinds whose figure is the number of patients itself: it is hidden where it is small, and never for its noise."""

HIDDEN: Final = "fewer patients than the plan shows"
FEW_SITES: Final = "not known to be of as many hospitals as the plan asks"


def statistic_for(query: Query, units: Mapping[str, str], confidence: float) -> Statistic[Any]:
    """The statistic that ``query`` asks for."""
    return STATISTICS[query.kind](query, units, NormalDist().inv_cdf((1 + confidence) / 2))


@dataclass(frozen=True, slots=True)
class Opened:
    """The sums of one round: of how many sites, and for each query the noised numbers, shape (groups, width).

    ``number``: the round's in the plan, where it matters.
    """

    sites: float
    sums: Mapping[str, Array]
    number: int = 0


def opened(task: Statistics, model: Vector) -> list[Opened]:
    """The rounds whose sums ``model`` holds, the first first; a round that was void is none."""
    parts = task.layout(0).split(model)
    found = []
    for ago in reversed(range(task.rounds)):
        sites = float(parts[rounds_before(SITES, ago)][0])
        sums = {query.name: parts[rounds_before(query.name, ago)].astype(np.float64) for query in task.queries}
        if sites >= 1:
            found.append(Opened(sites, sums, task.rounds - ago))
    return found


def opened_by_site(task: Statistics, model: Vector) -> dict[str, Opened]:
    """The sums of each hospital by itself, of those that have answered."""
    parts, found = task.layout(0).split(model), {}
    for site in task.by_site:
        if parts[of_site(site, SITES)][0] >= 1:
            sums = {query.name: parts[of_site(site, query.name)].astype(np.float64) for query in task.queries}
            found[site] = Opened(1.0, sums)
    return found


def asked_after(
    task: Statistics, query: Query, before: Sequence[Opened], noise: float, units: Mapping[str, str] | None = None
) -> Statistic[Any]:
    """The statistic that a round asks for ``query``, after those ``before`` it under ``noise`` (multiplier) a site.

    A pure function of the plan and of what was released: the site that is asked and whoever reads the result agree.
    """
    statistic = statistic_for(query, units or {}, task.confidence)
    for each in before:
        by = statistic.patient_bound / task.weight(query)
        statistic = statistic.learned(each.sums[query.name][:, : query.width] * by, noise * sqrt(each.sites) * by)
    return statistic


def vector_of(task: Statistics, table: Table, before: Sequence[Opened] = (), noise: float = 0.0) -> Array:
    """What a site adds for all queries, shape (task.numbers,), without noise; one patient moves it by 1 at most.

    Query k of weight w_k, sum w_k^2 = 1, has a patient's 2-norm bound scaled to w_k, so the whole has sqrt(sum w_k^2).
    ``before``, ``noise``: as for ``asked_after``.
    """
    parts = []
    for query in task.queries:
        statistic = asked_after(task, query, before, noise)
        parts.append(statistic.site_sum(table) * (task.weight(query) / statistic.patient_bound))
    return np.concatenate(parts)


def read(plan: StudyPlan, model: Vector) -> list[Cell]:
    """Every figure of the study from its final model: the noised sums, as the coordinator and everybody else has them.

    Of a logistic regression those of its last round; of what follows a training those of each round, one after another.
    Small groups are hidden here, after the noise. That protects nobody, the noise does: it keeps figures away that say
    nothing, and keeps to the custom of official tables.

    Raises:
        Unavailable: nothing was added up.
    """
    task = _task(plan)
    if task.by_site:
        alone = opened_by_site(task, model)
        found = [replace(cell, site=site) for site, sums in alone.items() for cell in _figures(plan, [sums])]
    elif task.follows is not None:
        after = task.follows.rounds
        found = [
            replace(cell, after=after[each.number - 1])
            for each in opened(task, model)
            for cell in _figures(plan, [each])
        ]
    else:
        found = _figures(plan, opened(task, model))
    if not found:
        raise Unavailable("the round was void, so there are no figures", "the receipt says who was missing, and why")
    return found


def expected(plan: StudyPlan) -> list[Cell]:
    """What the study's intervals will be like, before anybody approves it, if patients are as ``typical`` says.

    Values are placeholders; what counts is the distance of ``low`` and ``high``. With declared patients at every site,
    the same number in every group, and every site in the sum of every round. Of what follows a training one round: the
    others are like it.
    """
    declared = {each.site: each.declared_patients for each in plan.participants}
    if not _task(plan).by_site:
        return _figures(plan, _typical_rounds(plan, sum(declared.values()), len(declared)))
    return [
        replace(cell, site=site)
        for site, patients in declared.items()
        for cell in _figures(plan, _typical_rounds(plan, patients, 1))
    ]


def _figures(plan: StudyPlan, rounds: Sequence[Opened]) -> list[Cell]:
    """The figures of the last of ``rounds``, the first first; of none there are none."""
    if not rounds:
        return []
    *before, last = rounds
    task, noise, units = _task(plan), plan.privacy.noise_multiplier or 0.0, units_of(plan.contract_or_fail)
    cells: list[Cell] = []
    for query in task.queries:
        statistic = asked_after(task, query, before, noise, units)
        by = statistic.patient_bound / task.weight(query)
        sums, around = last.sums[query.name] * by, noise * sqrt(last.sites) * by
        for cell in statistic.answer(sums[:, : query.width], around):
            seen = _shown(cell, query.kind in _OWN_COUNT, task.smallest_cell)
            cells.append(_of_enough_sites(seen, statistic, sums, around))
    return cells


def _typical_rounds(plan: StudyPlan, patients: int, hospitals: int) -> list[Opened]:
    """The sums that are expected of so many patients at so many hospitals."""
    task, noise = _task(plan), plan.privacy.noise_multiplier or 0.0
    rounds: list[Opened] = []
    for _ in range(task.rounds if task.follows is None else 1):
        sums = {}
        for query in task.queries:
            statistic, here = asked_after(task, query, rounds, noise), patients / query.groups
            each = statistic.typical(here * query.rows_per_patient)
            if query.at_least_sites:
                one = sites.of_one_site(query, statistic.bound, np.array([here / hospitals]))
                each = np.append(each, hospitals * one)
            sums[query.name] = np.tile(each, (query.groups, 1)) * (task.weight(query) / statistic.patient_bound)
        rounds.append(Opened(float(hospitals), sums))
    return rounds


def units_of(contract: DataContract) -> dict[str, str]:
    """The unit of every column of numbers."""
    found = {column.name: column.unit for column in contract.columns if isinstance(column, NumberColumn)}
    if contract.quantity is not None:
        found[contract.quantity.name] = contract.quantity.unit
    if isinstance(contract.label, SurvivalLabel):
        found[contract.label.time] = contract.label.unit
    return found


def _shown(cell: Cell, own_count: bool, smallest: float) -> Cell:
    if cell.value is None:
        return replace(cell, patients=None)
    if cell.patients is None:
        return cell
    if cell.patients < smallest:
        return replace(cell.hidden(HIDDEN), patients=None)
    if not own_count and cell.quantity != "sum" and cell.patients < LEAST_SIGNAL * cell.patients_noise:
        return replace(cell.hidden(NOISY), patients=None)
    return cell


def _of_enough_sites(cell: Cell, statistic: Statistic[Any], sums: Array, noise: float) -> Cell:
    """``cell``, hidden where its query has ``at_least_sites`` and they are not known to be so many."""
    query = statistic.query
    if cell.value is None or not query.at_least_sites:
        return cell
    numbers = sums[groups_of(query, cell.group), -1]
    if sites.enough(query, statistic.bound, numbers, noise, statistic.z):
        return cell
    return replace(cell.hidden(FEW_SITES), patients=None)


def _task(plan: StudyPlan) -> Statistics:
    if not isinstance(plan.task, Statistics):
        raise TypeError(f"the plan's task is '{plan.task.name}'")
    return plan.task
