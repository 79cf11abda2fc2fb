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
from wardround.protocol.statistics import SITES, Statistics, rounds_before
from wardround.strategies.statistics.base import LEAST_SIGNAL, NOISY, Cell, Statistic
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
from wardround.strategies.statistics.survival import KaplanMeier
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
}

_OWN_COUNT: Final = ("count", "histogram")
"""Kinds whose figure is the number of patients itself: it is hidden where it is small, and never for its noise."""

HIDDEN: Final = "fewer patients than the plan shows"


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


def asked_after(
    task: Statistics, query: Query, before: Sequence[Opened], noise: float, units: Mapping[str, str] | None = None
) -> Statistic[Any]:
    """The statistic that a round asks for ``query``, after those ``before`` it under ``noise`` (multiplier) a site.

    A pure function of the plan and of what was released: the site that is asked and whoever reads the result agree.
    """
    statistic = statistic_for(query, units or {}, task.confidence)
    for each in before:
        by = statistic.patient_bound / task.weight(query)
        statistic = statistic.learned(each.sums[query.name] * by, noise * sqrt(each.sites) * by)
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
    rounds = opened(task, model)
    if not rounds:
        raise Unavailable("the round was void, so there are no figures", "the receipt says who was missing, and why")
    if task.follows is None:
        return _cells(plan, task, rounds[:-1], rounds[-1])
    found = []
    for each in rounds:
        after = task.follows.rounds[each.number - 1]
        found += [replace(cell, after=after) for cell in _cells(plan, task, (), each)]
    return found


def _cells(plan: StudyPlan, task: Statistics, before: Sequence[Opened], last: Opened) -> list[Cell]:
    noise, units = plan.privacy.noise_multiplier or 0.0, units_of(plan.contract_or_fail)
    cells: list[Cell] = []
    for query in task.queries:
        statistic = asked_after(task, query, before, noise, units)
        by = statistic.patient_bound / task.weight(query)
        found = statistic.answer(last.sums[query.name] * by, noise * sqrt(last.sites) * by)
        cells += [_shown(cell, query.kind in _OWN_COUNT, task.smallest_cell) for cell in found]
    return cells


def expected(plan: StudyPlan) -> list[Cell]:
    """What the study's intervals will be like, before anybody approves it, if patients are spread evenly.

    Values are placeholders; what counts is the distance of ``low`` and ``high``. With declared patients at every site,
    the same number in every group, values spread over their range, and every site in the sum of every round. Of what
    follows a training one round: the others are like it.
    """
    task, everybody = _task(plan), float(sum(each.declared_patients for each in plan.participants))
    parts: dict[str, Array] = {}
    for query in task.queries:
        statistic = statistic_for(query, {}, task.confidence)
        each = statistic.typical(everybody * query.rows_per_patient / query.groups)
        sums = np.tile(each, (query.groups, 1)) * (task.weight(query) / statistic.patient_bound)
        parts |= {rounds_before(query.name, ago): sums for ago in range(task.rounds)}
    sites = np.array([float(len(plan.participants))])
    parts |= {rounds_before(SITES, ago): sites for ago in range(task.rounds)}
    cells = read(plan, plan.layout.join(parts))
    return [replace(cell, after=None) for cell in cells if cell.after == cells[0].after]


def units_of(contract: DataContract) -> dict[str, str]:
    """The unit of every column of numbers."""
    found = {column.name: column.unit for column in contract.columns if isinstance(column, NumberColumn)}
    if contract.quantity is not None:
        found[contract.quantity.name] = contract.quantity.unit
    if isinstance(contract.label, SurvivalLabel):
        found[contract.label.time] = contract.label.unit
    return found


def _shown(cell: Cell, own_count: bool, smallest: float) -> Cell:
    if cell.value is None or cell.patients is None:
        return cell
    if cell.patients < smallest:
        return replace(cell.hidden(HIDDEN), patients=None)
    if not own_count and cell.quantity != "sum" and cell.patients < LEAST_SIGNAL * cell.patients_noise:
        return replace(cell.hidden(NOISY), patients=None)
    return cell


def _task(plan: StudyPlan) -> Statistics:
    if not isinstance(plan.task, Statistics):
        raise TypeError(f"the plan's task is '{plan.task.name}'")
    return plan.task
