"""What a study predicts and by what model, in words for the people who approve it."""

from typing import Final

from wardround.console.reports.numbers import listed, plural
from wardround.protocol.contract import DataContract
from wardround.protocol.image_tasks import (
    PIXEL_TASKS,
    ImageClassification,
    ImageDenseNet,
    ImageSegmentation,
    LinearProbe,
    Outputs,
)
from wardround.protocol.labels import ClassLabel, Finding, FindingsLabel, MaskLabel, NumberLabel
from wardround.protocol.networks import DenseNet121
from wardround.protocol.plan import StudyPlan, TrainedModel
from wardround.protocol.tasks import Programmed, SurvivalPiecewise, TabularRegression
from wardround.protocol.weights import PublicSeed

_UNITS: Final = {
    "1": "none",
    "a": "years",
    "mo": "months",
    "d": "days",
    "h": "hours",
    "min": "minutes",
    "mm[Hg]": "mmHg",
    "/min": "per minute",
    "Cel": "°C",
    "%": "%",
}
"""UCUM codes whose plain form differs; any other code is shown as it is."""


def label_words(contract: DataContract | None) -> str:
    """The outcome that the model predicts."""
    if contract is None:
        return "What the researcher's program gave as the outcome; the plan does not describe it."
    label = contract.label
    if isinstance(label, ClassLabel):
        return _class_words(label)
    if isinstance(label, FindingsLabel):
        each = "; ".join(_class_words(finding) for finding in label.findings)
        return f"{label.meaning}: {plural(len(label.findings), 'finding')}, each stated or not. {each}"
    if isinstance(label, NumberLabel):
        codes = choice([plain(code) for code in label.missing_codes])
        missing = f"; {codes} means missing" if codes else ""
        return (
            f"{label.meaning}: column '{label.column}', {plain(label.minimum)} to {plain(label.maximum)} "
            f"{unit_words(label.unit)}{missing}"
        )
    if isinstance(label, MaskLabel):
        structures = "; ".join(f"{code} = {meaning}" for code, meaning in label.structures.items())
        return f"{label.meaning}: a mask beside each picture, named in column '{label.column}' ({structures})"
    return (
        f"{label.meaning}: time in column '{label.time}' ({unit_words(label.unit)}, at most {label.maximum_time:g}), "
        f"observed event in column '{label.event}'"
    )


def _class_words(label: ClassLabel | Finding) -> str:
    return (
        f"{label.meaning}: yes where column '{label.column}' is {choice(label.positive)}, "
        f"no where it is {choice(label.negative)}"
    )


def weights_words(plan: StudyPlan) -> list[str]:
    """What others have trained before this study, for each file: its hash, licence and provenance."""
    return [
        f"Weights file {file.sha256}. Licence: {file.licence}. Provenance: {file.provenance}. Differential privacy "
        "does not cover the people whose data trained it"
        for file in plan.weights_files
    ]


def model_words(plan: StudyPlan) -> str:
    """The model, its size and its public start."""
    task, size = plan.task, f"{plural(plan.layout.size, 'parameter')} in 32-bit floats"
    start = _start_words(plan)
    if isinstance(task, Programmed):
        return f"A model made by the researcher's program; {size}; starts {start}"
    weighted = ""
    if isinstance(task, Outputs) and task.positive_weights:
        weights = listed([f"{weight:g}" for weight in task.positive_weights])
        weighted = f"; a positive outcome counts {weights} times (public)"
    if isinstance(task, PIXEL_TASKS):
        return f"{_network_words(task)}; {size}; starts {start}{weighted}"
    inputs = plural(0 if plan.contract is None else len(plan.contract.feature_names), "input")
    if task.hidden:
        layers = listed([str(units) for units in task.hidden])
        kind = f"Multilayer perceptron with {layers} hidden units ({task.activation})"
    else:
        kind = {"tabular_classification": "Logistic regression", "tabular_regression": "Linear regression"}.get(
            task.name, "Linear model"
        )
    outcome = {
        "tabular_classification": "of the outcome's probability",
        "tabular_regression": "of the quantity, by squared error",
        "survival_cox": "of the log relative risk, by Cox's partial likelihood",
        "survival_piecewise": "of the log relative risk, with a hazard constant on each interval of a public grid",
    }[task.name]
    cuts = ""
    if isinstance(task, SurvivalPiecewise):
        cuts = f"; grid cut at {listed([f'{cut:g}' for cut in task.cuts])}; public rate {task.baseline_rate:g}"
    if isinstance(task, TabularRegression):
        cuts = f"; public centre {plain(task.center)} and scale {task.scale:g}"
    return f"{kind} {outcome}; {inputs}, {size}; starts {start}{cuts}{weighted}"


def _start_words(plan: StudyPlan) -> str:
    if isinstance(plan.model, TrainedModel):
        return f"from the weights file {plan.model.file.sha256[:12]}"
    return "from zeros" if plan.model.scheme == "zeros" else f"from public random weights (seed {plan.model.seed})"


def _network_words(task: ImageClassification | ImageDenseNet | LinearProbe | ImageSegmentation) -> str:
    if isinstance(task, ImageSegmentation):
        widths = listed([str(width) for width in task.widths])
        return f"U-Net with {widths} channels and group normalisation, for {plural(task.structures, 'structure')}"
    if isinstance(task.network, DenseNet121):
        network = "DenseNet-121 with group normalisation"
    else:
        widths = listed([str(width) for width in task.network.widths])
        network = f"convolutional network with {widths} channels and group normalisation"
    if not isinstance(task, LinearProbe):
        return network[0].upper() + network[1:]
    source = task.weights
    seen = f"public seed {source.seed}" if isinstance(source, PublicSeed) else f"weights file {source.sha256[:12]}"
    return f"Linear model on what a frozen {network} ({seen}) makes of a picture"


def plain(value: float) -> str:
    """A constant of the plan with a real minus sign."""
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


def unit_words(unit: str) -> str:
    """A UCUM code in plain form."""
    return _UNITS.get(unit, unit)


def choice(words: "tuple[str, ...] | list[str]") -> str:
    """``a, b or c``; nothing of nothing."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}" if words else ""
