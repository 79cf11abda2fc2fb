"""Does the study help a hospital, in one sentence a model: the verdicts of ``client.benefit`` in plain words."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from wardround.client.benefit import FEWEST_TESTED, HIGHER_IS_BETTER
from wardround.client.site_result import BenefitResult, KeptResult, SiteResult
from wardround.console.reports.numbers import decimal, interval, metric_name, plural, signed

if TYPE_CHECKING:
    # For the checker only: a hospital reads its own verdicts where no simulation is installed.
    from wardround.simulations.result import SimulationResult


VERDICTS: Final = {
    "helps": "helps",
    "harms": "harms",
    "not shown": "not shown",
    "none": "no verdict",
}


def verdict_words(found: BenefitResult) -> str:
    """``the shared model helps you by 0.040, interval 0.010 to 0.070``."""
    model, by = f"the {found.model} model", found.better_by
    if by.value is None:
        return f"no verdict on {model}: {found.reason}"
    reach = interval(by)
    shown = f"{signed(by.value)}, interval {reach}" if reach else f"{signed(by.value)}, no interval"
    if found.verdict == "helps":
        return f"{model} helps you by {decimal(by.value)}, interval {reach}"
    if found.verdict == "harms":
        low, high = decimal(-(by.high or 0.0)), decimal(-(by.low or 0.0))
        return f"{model} harms you by {decimal(-by.value)}, interval {low} to {high}"
    if found.verdict == "not shown":
        return f"no difference can be shown for {model}: {shown}"
    return f"no verdict on {model}, {found.reason}: {shown}"


def kept_words(kept: KeptResult) -> str:
    """Which model the plan's fall-back leaves a hospital with."""
    model = {"own": "its own model", "shared": "the shared model", "personalised": "the personalised model"}
    return f"goes on with {model[kept.model]}: {kept.because}"


def site_words(site: SiteResult) -> Iterator[str]:
    """All that is said of one hospital, a sentence each, without a capital or full stop."""
    if compared(site):
        yield from map(verdict_words, site.benefit)
    elif site.benefit:
        yield f"no verdict: {site.benefit[0].reason}"
    if site.kept is not None:
        yield kept_words(site.kept)


def sentences(words: Iterable[str]) -> str:
    """Such words as sentences."""
    return " ".join(f"{each[:1].upper()}{each[1:]}." for each in words)


def compared(site: SiteResult) -> bool:
    """Whether any model could be compared with the hospital's own."""
    return any(one.better_by.value is not None for one in site.benefit)


def together_words(result: "SimulationResult") -> str:
    """How the verdicts of a result are to be read; empty where there is none."""
    found = [one for site in result.sites for one in site.benefit]
    if not found:
        return ""
    metric = metric_name(found[0].metric).inside
    way = "" if HIGHER_IS_BETTER.get(found[0].metric, True) else " (lower is better; above zero is an improvement)"
    comparisons = found[0].comparisons
    wide = (
        f"the {plural(comparisons, 'interval')} hold together at 95 % (Bonferroni)"
        if comparisons > 1
        else "the interval is of 95 %"
    )
    return (
        f"Against the hospital's own model by {metric}{way}, on the same test patients; {wide}; "
        f"no verdict below {FEWEST_TESTED} test patients. A mark or word elsewhere looks at one interval alone"
    )
