"""A study plan in plain words: what an ethics board, an officer or a patient's representative can read.

Everything that was approved is said; nothing is said that is not in the plan.
"""

from dataclasses import dataclass
from datetime import date
from typing import Final

from wardround.console.i18n import _, numeral
from wardround.console.reports.numbers import choice, delta_text, listed, plural
from wardround.console.reports.task_words import (
    label_words,
    model_words,
    plain,
    unit_words,
    weights_words,
)
from wardround.privacy.accounting import rounded_up
from wardround.privacy.shares import who_may_collude
from wardround.protocol.contract import CodeColumn, Column, DataContract, FixedValue, ImageInput
from wardround.protocol.plan import PrivacyMode, StudyPlan

_STRATEGIES: Final = {
    "fedavg": "FedAvg",
    "fedprox": "FedProx",
    "fedadam": "FedAdam",
    "fedyogi": "FedYogi",
    "fedadagrad": "FedAdagrad",
    "fedavgm": "FedAvgM",
    "fednova": "FedNova",
    "scaffold": "SCAFFOLD",
    "feddyn": "FedDyn",
    "fedbn": "FedBN",
    "fedper": "FedPer",
    "fedrep": "FedRep",
    "ditto": "Ditto",
    "tuned": "FedAvg with fine-tuning",
    "median": "median",
    "trimmed_mean": "trimmed mean",
    "krum": "Krum",
    "statistics": "sums",
    "indicators": "sums of a tree over time",
}


@dataclass(frozen=True, slots=True)
class Fact:
    """A line of the plan: what it is about, and what was approved. ``code`` marks text to be copied, such as hashes."""

    name: str
    text: str
    code: bool = False


@dataclass(frozen=True, slots=True)
class ColumnFact:
    """A column that the study reads."""

    name: str
    meaning: str
    unit: str
    allowed: str
    missing: str
    becomes: str


def plan_facts(plan: StudyPlan) -> list[tuple[str, list[Fact]]]:
    """The plan as headed groups of facts."""
    governance = plan.governance
    return [
        (
            "Why, and who answers for it",
            [
                Fact("Purpose", governance.purpose),
                Fact("Controllers", "; ".join(f"{c.name} ({c.role})" for c in governance.controllers)),
                Fact("Legal basis", governance.legal_basis),
                Fact("Ethics reference", governance.ethics_reference),
                Fact("Recipients of the model", "; ".join(governance.recipients)),
                Fact("Permitted use", governance.permitted_use),
                Fact("Valid", f"{day(governance.proposed_on)} to {day(governance.expires_on)}"),
                Fact("Hospitals", _hospitals(plan)),
            ],
        ),
        (
            "What is computed",
            [
                Fact("Predicts", label_words(plan.contract)),
                *([] if plan.contract is None or plan.contract.image is None else [_picture(plan.contract.image)]),
                Fact("Model", model_words(plan)),
                *(Fact("Trained elsewhere", words) for words in weights_words(plan)),
                Fact("Strategy", strategy_words(plan)),
                Fact("Training at a hospital", training_words(plan)),
                Fact("Rounds and quorum", rounds_words(plan)),
                *([Fact("Fall-back", fall_back_words(plan))] if plan.fall_back_share else []),
                Fact("Privacy terms", privacy_words(plan)),
            ],
        ),
        (
            "Names that are exact",
            [
                Fact("Plan digest", plan.digest, code=True),
                Fact("Layout digest", plan.model.layout, code=True),
                Fact("Hash of the initial model", plan.model.hash, code=True),
                Fact("Code version", plan.code_version, code=True),
            ],
        ),
    ]


def _picture(image: ImageInput) -> Fact:
    return Fact("Reads of each picture", picture_words(image))


def picture_words(image: ImageInput) -> str:
    """What is read of a picture, and what it becomes."""
    places = {"modality": image.modality, "low": plain(image.window[0]), "high": plain(image.window[1])}
    if image.intensity == "percentiles":
        what = (
            _("%(modality)s pictures, from the %(low)sth to the %(high)sth percentile of each one's own values")
            % places
        )
    else:
        what = _("%(modality)s pictures, values %(low)s to %(high)s") % places
    if image.features == "histogram":
        return _("%(what)s, as the square roots of the shares of %(bins)s equal parts of that range") % {
            "what": what,
            "bins": numeral(image.bins),
        }
    size = " x ".join(str(count) for count in image.size)
    step = "" if image.spacing is None else _(" at %(step)s mm") % {"step": " x ".join(map(plain, image.spacing))}
    colour = _("grey") if image.channels == 1 else _("in colour")
    return _("%(what)s, as %(size)s pixels%(step)s, %(colour)s") % {
        "what": what,
        "size": size,
        "step": step,
        "colour": colour,
    }


def day(when: date) -> str:
    """``4 March 2026``."""
    return f"{when.day} {when:%B %Y}"


def strategy_words(plan: StudyPlan) -> str:
    """The strategy by its usual name, with its parameters."""
    name = _STRATEGIES.get(plan.strategy.name, plan.strategy.name)
    parameters = ", ".join(f"{key} = {value:g}" for key, value in plan.strategy.parameters.items())
    return f"{name} ({parameters})" if parameters else name


def training_words(plan: StudyPlan) -> str:
    """What each hospital does in a round."""
    local = plan.local
    if local.steps is None:
        much = f"{plural(local.epochs or 0, 'pass', 'passes')} over its patients a round"
    else:
        much = f"{plural(local.steps, 'step')} a round"
    if plan.privacy.sampling_probability is not None:
        much += ", each on a fresh random sample of its patients"
    if local.batch_size is not None:
        much += f", {plural(local.batch_size, 'patient')} a step"
    return f"{much}, learning rate {local.learning_rate:g}"


def rounds_words(plan: StudyPlan) -> str:
    """How many rounds, and when one is void."""
    return (
        f"{plural(plan.rounds, 'round')}; a round in which fewer than {plural(plan.min_sites, 'hospital')} answered "
        f"within {plan.deadline_seconds:g} seconds is void, and nothing is summed"
    )


def fall_back_words(plan: StudyPlan) -> str:
    """What the plan's fall-back does at a hospital."""
    return (
        f"about {100 * plan.fall_back_share:g} % of the training patients are drawn in no round; at the end a hospital "
        "compares its own model with the study's on them, by mean loss, and goes on with the better one. The choice "
        "stays there"
    )


def privacy_words(plan: StudyPlan) -> str:
    """The privacy terms, with everything that an epsilon needs beside it."""
    terms = plan.privacy
    if terms.mode is PrivacyMode.NONE or terms.epsilon is None or terms.delta is None:
        return _unprotected_words(plan)
    return (
        f"Mode '{terms.mode}': the study may cost one hospital at most ε = {rounded_up(terms.epsilon)} "
        f"at δ = {delta_text(terms.delta)}, for any one patient (add or remove one patient), against everyone, "
        f"whoever colludes. One patient's gradient is clipped to {terms.clip_norm:g}, Gaussian noise of "
        f"{terms.noise_multiplier:g} times that bound is added at the hospital, and each step samples each patient "
        f"with probability {terms.sampling_probability:g}. "
        f"{_aggregation_words(plan)}"
    )


def _aggregation_words(plan: StudyPlan) -> str:
    """What secure aggregation adds to the promise."""
    terms = plan.privacy
    if not terms.secure_aggregation:
        return "Secure aggregation: off"
    if terms.outsiders_only:
        return (
            "Secure aggregation: on, against outsiders only, because one authority directs the coordinator and a "
            "hospital: nothing but the ε above is claimed"
        )
    opened = f"Secure aggregation: on, sums over at least {plan.sum_threshold} hospitals are opened"
    if terms.epsilon_consortium is None or terms.delta is None:
        return opened
    return (
        f"{opened}, each with the noise of {plan.honest_sites} of them at least: against {who_may_collude(plan)} the "
        f"study costs at most ε = {rounded_up(terms.epsilon_consortium)} at δ = {delta_text(terms.delta)}, for any "
        "one patient (add or remove one patient)"
    )


def _unprotected_words(plan: StudyPlan) -> str:
    if not plan.privacy.secure_aggregation:
        return "No differential privacy and no protection: for a simulation only, no hospital would accept this plan"
    return (
        f"No differential privacy: the coordinator sees only sums over all {len(plan.participants)} hospitals, and "
        "nothing bounds what these tell of a patient. Two officers of each hospital sign the reason"
    )


def column_facts(contract: DataContract) -> list[ColumnFact]:
    """Every feature column, in the order of the contract."""
    return [
        ColumnFact(
            column.name, column.meaning, unit_words(column.unit), _allowed(column), _missing(column), _feature(column)
        )
        for column in contract.columns
    ]


def reading_words(contract: DataContract) -> str:
    """What else is read, and which cells count as missing."""
    patient = (
        "Each row is one patient"
        if contract.patient_id is None
        else f"Column '{contract.patient_id}' says which rows belong to the same patient"
    )
    if contract.image is not None:
        fields = listed([column.meaning for column in contract.columns]) or "no field"
        return (
            f"{picture_words(contract.image)[0].upper()}{picture_words(contract.image)[1:]}. Of a header {fields} is "
            f"used, besides whose picture it is; labels come from a table of the hospital's, column "
            f"'{', '.join(contract.label.columns)}'. Nothing else is read."
        )
    tokens = [f"'{token}'" if token else "an empty cell" for token in contract.missing_tokens]
    return f"{patient}. A cell is missing when it is {choice(tokens)}. No other column is read."


def _hospitals(plan: StudyPlan) -> str:
    parts = [f"{p.site} (at most {p.declared_patients:,} training patients)" for p in plan.participants]
    return f"{'; '.join(parts)}. These counts are public and rounded up to the next 50"


def _allowed(column: Column) -> str:
    if isinstance(column, CodeColumn):
        return "; ".join(f"{code} = {meaning}" for code, meaning in column.codes.items())
    text = f"{plain(column.minimum)} to {plain(column.maximum)}"
    if column.also_allowed:
        text += f", also {choice([plain(value) for value in column.also_allowed])}"
    return text


def _missing(column: Column) -> str:
    policy, marks = (
        column.missing,
        "" if isinstance(column, CodeColumn) else choice([plain(m) for m in column.missing_codes]),
    )
    coded = f"{marks} means missing; " if marks else ""
    if not isinstance(policy, FixedValue):
        return f"{coded}record left out and counted"
    marked = ", marked by an extra yes/no input" if policy.indicator else ""
    return f"{coded}becomes {plain(policy.value)}, a public constant{marked}"


def _feature(column: Column) -> str:
    if isinstance(column, CodeColumn):
        against = "" if column.reference is None else f", compared with {column.reference}"
        return f"one yes/no input a code{against}"
    if column.center == 0 and column.scale == 1:
        return "as it is"
    sign = "+" if column.center < 0 else "\N{MINUS SIGN}"
    shift = "value" if column.center == 0 else f"(value {sign} {abs(column.center):g})"
    return shift if column.scale == 1 else f"{shift} / {column.scale:g}"
