"""What a result says, in sentences: which model was better, who took part, who did not and why.

Better and worse are said only where the paired 95 % interval of the difference leaves out 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from wardround.console.reports.numbers import listed, metric_name, plural
from wardround.simulations.result import EstimateResult, MadeUpSplit, RoundResult, SimulationResult, SiteResult


class Verdict(StrEnum):
    """The shared model against a hospital's own model, by one metric."""

    BETTER = "shared better"
    WORSE = "shared worse"
    HIGHER = "shared higher"
    LOWER = "shared lower"
    UNCLEAR = "no clear difference"
    NONE = "no comparison"


def verdict(metric: str, gain: EstimateResult | None) -> Verdict:
    """What may be said of ``gain`` (shared minus own): an interval that touches 0 is no clear difference."""
    if gain is None or gain.value is None or gain.low is None or gain.high is None:
        return Verdict.NONE
    if gain.low <= 0 <= gain.high:
        return Verdict.UNCLEAR
    higher, good = gain.low > 0, metric_name(metric).higher_is_better
    if good is None:
        return Verdict.HIGHER if higher else Verdict.LOWER
    return Verdict.BETTER if higher == good else Verdict.WORSE


def taking_part(result: SimulationResult) -> list[SiteResult]:
    """The hospitals that took part, in the order of the result."""
    return [site for site in result.sites if not site.excluded_because]


def answer(result: SimulationResult) -> str:
    """The study's answer: the shared model against the hospitals' own models, by the headline metrics."""
    sites = taking_part(result)
    by_metric = {
        name: [v for site in sites if (v := verdict(name, site.gain.get(name))) is not Verdict.NONE]
        for name in result.headline_metrics
    }
    compared = {name: verdicts for name, verdicts in by_metric.items() if verdicts}
    if not compared:
        return "No hospital's own model could be compared with the shared model in this run."
    calm = [name for name, verdicts in compared.items() if set(verdicts) == {Verdict.UNCLEAR}]
    if len(calm) == len(compared) and len({len(verdicts) for verdicts in compared.values()}) == 1:
        names = listed([metric_name(name).inside for name in calm])
        where = _of(len(compared[calm[0]]))
        return f"By {names} there was no clear difference between the shared model and the own model at {where}."
    parts: list[str] = []
    for name, verdicts in compared.items():
        parts.append(_counts(name, verdicts, said_before=any("than the own model" in part for part in parts)))
    sentence = "; ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _counts(name: str, verdicts: Sequence[Verdict], said_before: bool) -> str:
    total, metric = len(verdicts), metric_name(name).inside
    if set(verdicts) == {Verdict.UNCLEAR}:
        return f"by {metric} there was no clear difference between shared and own model at {_of(total)}"
    first, *others = [v for v in Verdict if v not in (Verdict.UNCLEAR, Verdict.NONE) and v in verdicts]
    if said_before:
        sentence = f"by {metric} it was {_word(first)} at {verdicts.count(first)} of {total}"
    else:
        sentence = (
            f"by {metric} the shared model was {_word(first)} than the own model at {verdicts.count(first)} "
            f"of {plural(total, 'hospital')}"
        )
    sentence += "".join(f" and {_word(other)} at {verdicts.count(other)}" for other in others)
    unclear = verdicts.count(Verdict.UNCLEAR)
    return f"{sentence}, with no clear difference at {unclear}" if unclear else sentence


def _word(said: Verdict) -> str:
    return said.value.removeprefix("shared ")


def _of(total: int) -> str:
    return "the one hospital that could compare" if total == 1 else f"any of {total} hospitals"


def caveats(result: SimulationResult) -> list[str]:
    """Whether the hospitals exist, who is missing from the comparison, and why; one sentence each."""
    sentences = [] if result.made_up is None else [made_up(result.made_up)]
    for site in taking_part(result):
        estimates = [site.own.metrics.get(name) for name in result.headline_metrics]
        if site.own.reason:
            sentences.append(f"{site.site} has no own model to compare with: {site.own.reason}.")
        elif result.headline_metrics and not any(estimates):
            sentences.append(f"{site.site} was not compared: no own model was trained in this run.")
    sentences += [f"{s.site} took no part: {s.excluded_because}." for s in result.sites if s.excluded_because]
    return sentences


def made_up(split: MadeUpSplit) -> str:
    """How the patients were divided among hospitals that do not exist."""
    knobs = [
        f"label skew {split.label_skew:g}" if split.label_skew is not None else "",
        f"size skew {split.size_skew:g}" if split.size_skew else "",
        f"feature shift {split.feature_shift:g}" if split.feature_shift else "",
        f"{100 * split.missing_columns:.0f} % of the columns missing" if split.missing_columns else "",
    ]
    how = ", ".join(knob for knob in knobs if knob) or "at random"
    return (
        f"These hospitals do not exist: all patients were pooled and divided again "
        f"among {len(split.hospitals)} ({how}; seed {split.seed})."
    )


class Mark(StrEnum):
    """One hospital in one round, as a picture shows it."""

    IN_SUM = "in the sum"
    UNUSED = "answered, but the round was void"
    MISSING = "not in the sum"


_WORDS: Final = {
    "replied": "answered",
    "refused": "refused",
    "lost": "lost",
    "late": "answered too late",
    "waiting": "had not answered",
    "violated the protocol": "broke a rule of the protocol",
}
_REFUSALS: Final = {
    "unavailable": "it was not available",
    "policy": "its policy or budget did not allow it",
    "protocol": "the request broke a rule",
}


@dataclass(frozen=True, slots=True)
class Drop:
    """A hospital that was not in the sum of a round."""

    round_number: int
    site: str
    what: str


def mark(record: RoundResult, site: str) -> Mark:
    """How ``site`` took part in a round."""
    if site not in record.sites or record.sites[site].outcome != "replied":
        return Mark.MISSING
    return Mark.IN_SUM if record.state == "closed" else Mark.UNUSED


def drops(result: SimulationResult) -> list[Drop]:
    """Every hospital that was missing from a round, by round and name."""
    found = []
    for record in result.rounds:
        for name, site in sorted(record.sites.items()):
            if site.outcome == "replied":
                continue
            why = _REFUSALS.get(site.detail, site.detail) if site.outcome == "refused" else site.detail
            what = _WORDS.get(site.outcome, site.outcome)
            found.append(Drop(record.round_number, name, f"{what}: {why}" if why else what))
    return found


def void_rounds(result: SimulationResult, needed: int) -> list[str]:
    """One sentence for every void round; ``needed`` hospitals make a sum."""
    helping = " and help to open the sum" if result.privacy.secure_sum_of_at_least is not None else ""
    return [
        f"Round {record.round_number} was void through {listed(list(record.voided_by))}: "
        f"{plural(sum(s.outcome == 'replied' for s in record.sites.values()), 'hospital')} answered, and {needed} must "
        f"answer{helping}. Nothing was summed and the model did not change."
        for record in result.rounds
        if record.state == "void"
    ]


def left_out(site: SiteResult) -> str:
    """``33 records left out: 23 chol missing, ...``; or that none was."""
    if not site.left_out:
        return "no record left out"
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in site.left_out.items())
    return f"{plural(sum(site.left_out.values()), 'record')} left out: {reasons}"
