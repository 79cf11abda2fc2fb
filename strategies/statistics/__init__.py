"""Statistics of many hospitals' patients: one statistic, one file, one line here.

A statistics study goes through the same round as training (``protocol.statistics`` says what it asks, docs/adr/0028
why): ``vector_of`` is what a site adds to the sum before its noise, ``read`` what the coordinator makes of the sums.
"""

from collections.abc import Mapping
from dataclasses import replace
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
from wardround.protocol.statistics import SITES, Query, Statistics
from wardround.strategies.statistics.base import LEAST_SIGNAL, NOISY, Cell, Statistic
from wardround.strategies.statistics.correlation import Correlations
from wardround.strategies.statistics.count import Counts
from wardround.strategies.statistics.evaluation import Evaluations
from wardround.strategies.statistics.histogram import Histograms
from wardround.strategies.statistics.linear_regression import LeastSquares
from wardround.strategies.statistics.mean import Means
from wardround.strategies.statistics.piecewise_exponential import Rates
from wardround.strategies.statistics.prediction_error import PredictionErrors
from wardround.strategies.statistics.quantiles import FromTree
from wardround.strategies.statistics.survival import KaplanMeier
from wardround.strategies.statistics.table import Table, table_of
from wardround.strategies.statistics.total import Totals
from wardround.strategies.statistics.variance import Variances

__all__ = ["STATISTICS", "Cell", "Statistic", "Table", "expected", "read", "statistic_for", "table_of", "vector_of"]

STATISTICS: Final[dict[str, type[Statistic[Any]]]] = {
    "count": Counts,
    "sum": Totals,
    "mean": Means,
    "variance": Variances,
    "histogram": Histograms,
    "quantiles": FromTree,
    "correlation": Correlations,
    "linear_regression": LeastSquares,
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


def vector_of(task: Statistics, table: Table) -> Array:
    """What a site adds for all queries, shape (layout size - 1,), without noise; one patient moves it by 1 at most.

    Query k of weight w_k, sum w_k^2 = 1, has a patient's 2-norm bound scaled to w_k, so the whole has sqrt(sum w_k^2).
    """
    parts = []
    for query in task.queries:
        statistic = statistic_for(query, {}, task.confidence)
        parts.append(statistic.site_sum(table) * (task.weight(query) / statistic.patient_bound))
    return np.concatenate(parts)


def read(plan: StudyPlan, model: Vector) -> list[Cell]:
    """Every figure of the study from its final model: the noised sums, as the coordinator and everybody else has them.

    Small groups are hidden here, after the noise. That protects nobody, the noise does: it keeps figures away that say
    nothing, and keeps to the custom of official tables.

    Raises:
        Unavailable: nothing was added up.
    """
    task, parts = _task(plan), plan.layout.split(model)
    sites = float(parts[SITES][0])
    if sites < 1:
        raise Unavailable("the round was void, so there are no figures", "the receipt says who was missing, and why")
    scale = (plan.privacy.noise_multiplier or 0.0) * sqrt(sites)
    cells: list[Cell] = []
    for query in task.queries:
        statistic = statistic_for(query, units_of(plan.contract_or_fail), task.confidence)
        by = statistic.patient_bound / task.weight(query)
        found = statistic.answer(parts[query.name].astype(np.float64) * by, scale * by)
        cells += [_shown(cell, query.kind in _OWN_COUNT, task.smallest_cell) for cell in found]
    return cells


def expected(plan: StudyPlan) -> list[Cell]:
    """What the study's intervals will be like, before anybody approves it, if patients are spread evenly.

    Values are placeholders; what counts is the distance of ``low`` and ``high``. With declared patients at every site,
    the same number in every group, values spread over their range, and every site in the sum.
    """
    task, everybody = _task(plan), float(sum(each.declared_patients for each in plan.participants))
    parts: dict[str, Array] = {SITES: np.array([float(len(plan.participants))])}
    for query in task.queries:
        statistic = statistic_for(query, {}, task.confidence)
        each = statistic.typical(everybody * query.rows_per_patient / query.groups)
        parts[query.name] = np.tile(each, (query.groups, 1)) * (task.weight(query) / statistic.patient_bound)
    return read(plan, plan.layout.join(parts))


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
