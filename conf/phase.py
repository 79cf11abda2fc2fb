"""From the settings ``evaluation`` to the evaluation phase of a plan: its schedule, its question, its least noise."""

from typing import Any, Final

from pydantic import ValidationError

from wardround.conf.evaluated import EVALUATIONS, columns_of
from wardround.conf.noise import least_noise
from wardround.conf.schema import Configuration, EvaluationSection, usage_error
from wardround.conf.statistics import with_groups
from wardround.protocol.errors import UsageError
from wardround.protocol.evaluated import MOST_LOOKS
from wardround.protocol.evaluation import EvaluationPhase
from wardround.protocol.plan import PrivacyMode

_NAME: Final = "model"

_KINDS: Final = {
    "class": "evaluation",
    "number": "prediction_error",
    "survival": "survival_evaluation",
    "mask": "segmentation_evaluation",
}
"""What is asked of a model of such a label, unless the settings say another kind."""


def phase_of(configuration: Configuration, delta: float | None, honest: int) -> EvaluationPhase | None:
    """The phase of a plan at ``delta``, ``honest`` sites of which have their noise in every sum; None: no rounds.

    Raises:
        UsageError: a round that the plan has not, a question that its model cannot answer, no budget, or too little.
    """
    section, mode = configuration.evaluation, configuration.privacy.mode
    rounds = _schedule(section, configuration.rounds)
    if not rounds:
        return None
    if mode is not PrivacyMode.NONE and section.epsilon is None:
        raise UsageError(
            "the evaluation has no budget", "write evaluation.epsilon: what its rounds may cost a test patient together"
        )
    noise: float | str | None = section.noise_multiplier
    asked, sums = _question(configuration), len(rounds)
    if noise == "auto":
        noise = least_noise(mode, section.epsilon, section.epsilon_consortium, delta, 1.0, sums, honest)
    written = {
        "rounds": rounds,
        "queries": [asked],
        "smallest_cell": section.smallest_cell,
        "confidence": section.confidence,
        "noise_multiplier": noise,
        "epsilon": section.epsilon,
        "epsilon_consortium": section.epsilon_consortium,
    }
    try:
        return EvaluationPhase.model_validate(written)
    except ValidationError as error:
        said = usage_error(error)
        raise UsageError(said.message.replace(f"queries.0.{asked['kind']}", "evaluation.ask"), said.hint) from None


def _schedule(section: EvaluationSection, last: int) -> tuple[int, ...]:
    if section.every and section.every > last:
        raise UsageError(f"evaluation every {section.every} rounds, and the study has {last}", "lower evaluation.every")
    regular = range(section.every, last + 1, section.every) if section.every else ()
    rounds = tuple(sorted({*section.rounds, *regular}))
    if rounds and rounds[-1] > last:
        raise UsageError(f"evaluation after round {rounds[-1]}, and the study has {last}", "lower evaluation.rounds")
    if len(rounds) > MOST_LOOKS:
        raise UsageError(
            f"{len(rounds)} evaluations share one budget, and {MOST_LOOKS} is the most", "raise evaluation.every"
        )
    return rounds


def _question(configuration: Configuration) -> dict[str, Any]:
    task, contract, asked = configuration.task, configuration.contract, dict(configuration.evaluation.ask)
    kind = asked.pop("kind", None) or _KINDS.get(contract.label.kind)
    if kind not in EVALUATIONS:
        raise UsageError(
            f"a model for a label of kind '{contract.label.kind}' is not evaluated by '{kind}'",
            f"write evaluation.ask.kind, one of {', '.join(EVALUATIONS)}, or leave evaluation.rounds out",
        )
    model = {"task": task.model_dump(mode="json"), "layout": task.layout(len(contract.feature_names)).digest}
    columns = columns_of(contract.label, kind)
    return with_groups({"name": _NAME, "kind": kind, **columns, **asked, "model": model}, contract)
