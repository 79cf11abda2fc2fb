"""The numbers of a sweep as one table: a row for each run, hospital and metric. For CSV, Parquet and the comparison."""

from collections.abc import Iterable, Sequence
from math import inf
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from pyarrow import csv, parquet

from wardround.client.site_result import ModelResult, SiteResult
from wardround.conf.grid import EPSILON, SEED
from wardround.simulations.sweep.folder import Finished

COLUMNS: Final = (
    ("run", pa.int32()),
    ("strategy", pa.string()),
    ("epsilon_limit", pa.float64()),
    ("seed", pa.int64()),
    ("settings", pa.string()),
    ("site", pa.string()),
    ("train_patients", pa.int32()),
    ("test_patients", pa.int32()),
    ("metric", pa.string()),
    ("own", pa.float64()),
    ("shared", pa.float64()),
    ("shared_low", pa.float64()),
    ("shared_high", pa.float64()),
    ("personalised", pa.float64()),
    ("used", pa.float64()),
    ("epsilon_site", pa.float64()),
    ("delta", pa.float64()),
    ("noise_multiplier", pa.float64()),
    ("sampling_probability", pa.float64()),
    ("mode", pa.string()),
    ("plan_digest", pa.string()),
)
"""Name and type of each column; docs/sweep.md says what they mean."""


def limit_of(run: Finished) -> float:
    """The epsilon that the run was to keep; inf without protection."""
    limit = run.plan.privacy.epsilon
    return inf if limit is None else limit


def other_settings(run: Finished) -> dict[str, str]:
    """The run's place on the axes that are neither seed nor epsilon."""
    return {key: value for key, value in run.settings.items() if key not in (SEED, EPSILON)}


def value_of(model: ModelResult | None, metric: str) -> float | None:
    """A metric's value; None where there is no model or it is not estimable."""
    found = None if model is None else model.metrics.get(metric)
    return None if found is None else found.value


def used(site: SiteResult, metric: str) -> float | None:
    """Of the model that the site would use: its personalised one where the strategy gives it one, or the shared one."""
    return value_of(site.personalised or site.shared, metric)


def rows(runs: Iterable[Finished]) -> list[dict[str, Any]]:
    """The rows of ``COLUMNS``, for every site that took part."""
    found = []
    for run in runs:
        settings = " ".join(f"{key}={value}" for key, value in other_settings(run).items())
        privacy = run.result.privacy
        for site in run.result.sites:
            if site.excluded_because:
                continue
            for metric in site.shared.metrics:
                shared = site.shared.metrics[metric]
                found.append(
                    {
                        "run": run.number,
                        "strategy": run.result.strategy,
                        "epsilon_limit": limit_of(run),
                        "seed": run.plan.model.seed,
                        "settings": settings,
                        "site": site.site,
                        "train_patients": site.train_patients,
                        "test_patients": site.test_patients,
                        "metric": metric,
                        "own": value_of(site.own, metric),
                        "shared": shared.value,
                        "shared_low": shared.low,
                        "shared_high": shared.high,
                        "personalised": value_of(site.personalised, metric),
                        "used": used(site, metric),
                        "epsilon_site": inf if site.epsilon_site is None else site.epsilon_site,
                        "delta": privacy.delta,
                        "noise_multiplier": privacy.noise_multiplier,
                        "sampling_probability": privacy.sampling_probability,
                        "mode": privacy.mode,
                        "plan_digest": run.result.plan_digest,
                    }
                )
    return found


def export(runs: Sequence[Finished], folder: Path) -> None:
    """Write ``runs.csv`` and ``runs.parquet``, the same rows. A number that is missing is an empty cell, or null."""
    table = pa.Table.from_pylist(rows(runs), schema=pa.schema(COLUMNS))
    csv.write_csv(table, folder / "runs.csv")
    parquet.write_table(table, folder / "runs.parquet")
