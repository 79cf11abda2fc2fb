"""From the folder of a released model to what a plan says of it: which network, which file, out of which study.

The folder holds ``plan.json`` and ``model.safetensors``, as ``wardround study fetch`` and a simulation write them. The
file itself goes nowhere from here: people install it wherever the study runs (docs/weights.md).
"""

from hashlib import sha256
from pathlib import Path
from typing import Any, Final, get_args

from wardround.protocol.contract import DataContract
from wardround.protocol.errors import UsageError
from wardround.protocol.evaluated import EVALUATED, EvaluatedModel
from wardround.protocol.labels import ClassLabel, Label, MaskLabel, NumberLabel, SurvivalLabel
from wardround.protocol.parameters import Vector, model_hash
from wardround.protocol.plan import StudyPlan
from wardround.protocol.queries import ModelQuery, Query
from wardround.protocol.tabular_tasks import HAZARD, SurvivalPiecewise
from wardround.protocol.weights import WeightsFile, pick, tensors_in

EVALUATIONS: Final = tuple(
    str(each.model_fields["kind"].default) for each in get_args(get_args(Query)[0]) if issubclass(each, ModelQuery)
)
"""The kinds of query that evaluate a model."""


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
            "a model of a yes or no can be evaluated, from a table or pictures, one of a quantity or survival, and one "
            "that marks structures",
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
    found = columns_of(contract.label, str(written.get("kind")))
    if "time" in found:
        found |= _baseline(model, weights, written, contract)
    return found | written | {"model": model.model_dump(mode="json")}


def columns_of(label: Label, kind: str) -> dict[str, Any]:
    """What a query of ``kind`` about a model for ``label`` names of the label, unless a person says otherwise."""
    match label:
        case SurvivalLabel() if kind == "survival_evaluation":
            return {"time": label.time, "outcome": label.event}
        case MaskLabel() if kind == "segmentation_evaluation":
            return {"outcome": label.column, "structures": list(label.structures.values())}
        case (
            SurvivalLabel(event=column)
            | ClassLabel(column=column)
            | NumberLabel(column=column)
            | MaskLabel(column=column)
        ):
            return {"outcome": column}
    return {}


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
