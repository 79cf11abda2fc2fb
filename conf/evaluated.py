"""From the folder of a released model to what a plan says of it: which network, which file, out of which study.

The folder holds ``plan.json`` and ``model.safetensors``, as ``wardround study fetch`` and a simulation write them. The
file itself goes nowhere from here: people install it wherever the study runs (docs/weights.md).
"""

from hashlib import sha256
from pathlib import Path
from typing import Any

from wardround.protocol.contract import DataContract
from wardround.protocol.errors import UsageError
from wardround.protocol.evaluated import EvaluatedModel
from wardround.protocol.labels import ClassLabel, NumberLabel
from wardround.protocol.parameters import model_hash
from wardround.protocol.plan import StudyPlan
from wardround.protocol.tabular_tasks import TabularClassification, TabularRegression
from wardround.protocol.weights import WeightsFile, pick, tensors_in


def evaluated_in(folder: Path, contract: DataContract) -> tuple[EvaluatedModel, str]:
    """The model in ``folder``, and the column of the outcome that it predicts.

    Raises:
        UsageError: there is none, it tells neither a yes or no nor a quantity, or it was trained on other columns than
            ``contract``'s.
    """
    try:
        plan, data = StudyPlan.parse((folder / "plan.json").read_bytes()), (folder / "model.safetensors").read_bytes()
    except OSError:
        raise UsageError(
            f"'{folder}' lacks plan.json or model.safetensors", "wardround study fetch writes both"
        ) from None
    task, trained = plan.task, plan.contract_or_fail
    if not isinstance(task, TabularClassification | TabularRegression) or not isinstance(
        trained.label, ClassLabel | NumberLabel
    ):
        raise UsageError(
            f"the model in '{folder}' is one of task '{task.name}'",
            "a model of one yes or no, or of one quantity, from a table can be evaluated",
        )
    if (trained.columns, trained.label, trained.image) != (contract.columns, contract.label, contract.image):
        raise UsageError(
            f"the model in '{folder}' was trained on other columns than this study's contract has",
            "evaluate it under the contract of its own study",
        )
    model = EvaluatedModel(
        task=task,
        file=WeightsFile(
            sha256=sha256(data).hexdigest(),
            licence=_first(plan.governance.permitted_use, 200),
            provenance=_first(f"The model of study '{plan.study}' ({plan.title}), plan {plan.digest}.", 1000),
        ),
        layout=plan.layout.digest,
        hash=model_hash(pick(tensors_in(data), plan.layout.tensors)),
        trained_by=plan.digest,
    )
    return model, trained.label.column


def described(written: dict[str, Any], contract: DataContract) -> dict[str, Any]:
    """A query that evaluates a model as a person writes it, its folder replaced by what is in it."""
    if not isinstance(written.get("model"), str):
        return written
    model, outcome = evaluated_in(Path(written["model"]), contract)
    return {"outcome": outcome, **written, "model": model.model_dump(mode="json")}


def _first(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
