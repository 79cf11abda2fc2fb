"""What studies left in a site's folder: the final model, of a campaign its series so far, and the site's own report.

The first two are what every hospital of the study is told. The report is of the site's own patients and exact, so it is
for the site's own people. Nothing here goes out.
"""

import os
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import ValidationError
from safetensors.numpy import load, save

from wardround.client.site_result import SiteResult
from wardround.client.store.folder import SiteFolder
from wardround.protocol.errors import UsageError
from wardround.protocol.parameters import Vector, model_hash
from wardround.protocol.plan import StudyPlan

MODEL: Final = "model.safetensors"
REPORT: Final = "report.json"
SERIES: Final = "series.safetensors"
"""The newest table of a campaign of indicators that goes on; at its end it is the model, and this file is gone."""


def place_of(folder: Path, plan: StudyPlan) -> Path:
    """Where a site keeps what a study leaves, below the site's ``folder``; it may not be there yet."""
    return folder / "studies" / plan.digest[:16]


def keep_model(folder: SiteFolder, plan: StudyPlan, model: Vector) -> Path:
    """Write the final model of a study into ``studies/<digest>/``; returns its path."""
    path = _keep_vector(folder, plan, model, MODEL)
    path.with_name(SERIES).unlink(missing_ok=True)
    return path


def keep_series(folder: SiteFolder, plan: StudyPlan, table: Vector) -> Path:
    """Write a running campaign's table, which the caller has found in a receipt, over the one before; its path."""
    return _keep_vector(folder, plan, table, SERIES)


def _keep_vector(folder: SiteFolder, plan: StudyPlan, vector: Vector, name: str) -> Path:
    """One vector as the plan's layout names its parts; who reads finds the old file or the new one, whole."""
    place = place_of(folder.path, plan)
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = place / name
    tensors = {name: np.ascontiguousarray(part) for name, part in plan.layout.split(vector).items()}
    beside = path.with_suffix(".new")
    beside.write_bytes(save(tensors, {"plan": plan.digest, "model": model_hash(vector)}))
    beside.replace(path)
    return path


def kept_model(folder: SiteFolder, plan: StudyPlan) -> Vector:
    """The final model of a study, shape (d,). Raises UsageError while there is none."""
    path = place_of(folder.path, plan) / MODEL
    if not path.exists():
        raise UsageError("this study has no final model here yet", "it comes with the end of the study")
    return plan.layout.join(load(path.read_bytes()))


def keep_report(folder: SiteFolder, plan: StudyPlan, report: SiteResult) -> Path:
    """Write the site's own report over the one before, for nobody but the site's own account; returns its path."""
    place = place_of(folder.path, plan)
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = place / REPORT
    beside = path.with_suffix(".new")
    beside.unlink(missing_ok=True)
    with open(beside, "wb", opener=lambda name, flags: os.open(name, flags | os.O_EXCL, 0o600)) as file:
        file.write(report.model_dump_json().encode())
    beside.replace(path)
    return path


def kept_report(folder: Path, plan: StudyPlan) -> SiteResult | None:
    """The report that was made last in a site's ``folder``; None: none was. Raises UsageError: it cannot be read."""
    try:
        return SiteResult.model_validate_json((place_of(folder, plan) / REPORT).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        raise UsageError(
            f"this site's own report of the study cannot be read: '{REPORT}'", "make it again: wardround site report"
        ) from None
