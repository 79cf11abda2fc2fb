"""From the folder of a released model to what a plan says of it: which network, which file, out of which study.

The folder holds ``plan.json`` and ``model.safetensors``, as ``wardround study fetch`` and a simulation write them. The
file itself goes nowhere from here: people install it wherever the study runs (docs/weights.md).
"""

from hashlib import sha256
from pathlib import Path
from typing import Any

from wardround.protocol.contract import DataContract
from wardround.protocol.errors import UsageError
from wardround.protocol.evaluated import EVALUATED, EvaluatedModel
from wardround.protocol.labels import ClassLabel, NumberLabel, SurvivalLabel
from wardround.protocol.parameters import Vector, model_hash
from wardround.protocol.plan import StudyPlan
from wardround.protocol.tabular_tasks import HAZARD, SurvivalPiecewise
from wardround.protocol.weights import WeightsFile, pick, tensors_in


def evaluated_in(folder: Path, contract: DataContract) -> tuple[EvaluatedModel, Vector]:
    """The model in ``folder``, and its weights, shape (d,).

    Raises:
        UsageError: there is none, it tells nothing that is evaluated, or it was trained on other
            columns than ``contract``'s.
    """
    try:
        plan, data = StudyPlan.parse((folder / "plan.json").read_bytes()), (folder / "model.safetensors").read_bytes()
    except OSError:
        raise UsageError(
            f"'{folder}' lacks plan.json or model.safetensors", "wardround study fetch writes both"
        ) from None
    task, trained = plan.task, plan.contract_or_fail
    if not isinstance(task, EVALUATED):
        raise UsageError(
            f"the model in '{folder}' is one of task '{task.name}'",
            "a model of a yes or no can be evaluated, from a table or pictures, and one of a quantity or survival",
        )
    if (trained.columns, trained.label, trained.image) != (contract.columns, contract.label, contract.image):
        raise UsageError(
            f"the model in '{folder}' was trained on other columns than this study's contract has",
            "evaluate it under the contract of its own study",
        )
    weights = pick(tensors_in(data), plan.layout.tensors)
    model = EvaluatedModel(
        task=task,
        file=WeightsFile(
            sha256=sha256(data).hexdigest(),
            licence=_first(plan.governance.permitted_use, 200),
            provenance=_first(f"The model of study '{plan.study}' ({plan.title}), plan {plan.digest}.", 1000),
        ),
        layout=plan.layout.digest,
        hash=model_hash(weights),
        trained_by=plan.digest,
    )
    return model, weights


def described(written: dict[str, Any], contract: DataContract) -> dict[str, Any]:
    """A query that evaluates a model as a person writes it, its folder replaced by what is in it."""
    if not isinstance(written.get("model"), str):
        return written
    model, weights = evaluated_in(Path(written["model"]), contract)
    found: dict[str, Any] = {}
    match contract.label:
        case SurvivalLabel(time=time, event=event) if written.get("kind") == "survival_evaluation":
            found = {"time": time, "outcome": event, **_baseline(model, weights, written, contract)}
        case SurvivalLabel(event=column) | ClassLabel(column=column) | NumberLabel(column=column):
            found = {"outcome": column}
    return found | written | {"model": model.model_dump(mode="json")}


def _baseline(
    model: EvaluatedModel, weights: Vector, written: dict[str, Any], contract: DataContract
) -> dict[str, Any]:
    """The survival of relative risk 1 at the query's times, which a piecewise model says and a Cox model does not."""
    task, times = model.task, written.get("times")
    if not isinstance(task, SurvivalPiecewise) or not isinstance(times, list):
        return {}
    if not all(isinstance(time, int | float) for time in times):
        return {}
    hazards = model.layout_of(len(contract.feature_names)).split(weights)[HAZARD]
    return {"baseline": list(task.baseline(hazards.tolist(), times))}


def _first(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
