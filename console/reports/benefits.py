"""Does the study help a hospital, in one sentence a model: the verdicts of ``client.benefit`` in plain words."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from wardround.client.benefit import FEWEST_TESTED, HIGHER_IS_BETTER
from wardround.client.site_result import BenefitResult, SiteResult
from wardround.console.reports.numbers import decimal, interval, metric_name, plural, signed

if TYPE_CHECKING:
    # For the checker only: a hospital reads its own verdicts where no simulation is installed.
    from wardround.simulations.result import SimulationResult


def verdict_words(found: BenefitResult) -> str:
    """``the shared model helps you by 0.04 in accuracy, interval 0.01 to 0.07``."""
    metric, by = metric_name(found.metric).inside, found.better_by
    model = f"the {found.model} model"
    if by.value is None:
        return f"{model} cannot be compared: {found.reason}"
    reach = interval(by)
    shown = f"interval {reach}" if reach else "no interval"
    if found.verdict == "helps":
        return f"{model} helps you by {decimal(by.value)} in {metric}, {shown}"
    if found.verdict == "harms":
        low, high = decimal(-(by.high or 0.0)), decimal(-(by.low or 0.0))
        return f"{model} harms you by {decimal(-by.value)} in {metric}, interval {low} to {high}"
    if found.verdict == "not shown":
        return f"no difference of {model} can be shown: {signed(by.value)} in {metric}, {shown}"
    return f"no verdict on {model}, {found.reason}: {signed(by.value)} in {metric}, {shown}"


def kept_words(site: SiteResult) -> str:
    """Which model the plan's fall-back leaves a hospital with; empty where the plan has none."""
    if site.kept is None:
        return ""
    model = {"own": "its own model", "shared": "the shared model", "personalised": "the personalised model"}
    people = plural(site.kept.held_back, "training patient")
    return f"goes on with {model[site.kept.model]} ({site.kept.because}; {people} held back for this)"


def site_words(site: SiteResult) -> Iterator[str]:
    """All that is said of one hospital, a sentence each, without a capital or full stop."""
    yield from map(verdict_words, site.benefit)
    if site.kept is not None:
        yield kept_words(site)


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
        f"no verdict below {FEWEST_TESTED} test patients"
    )
