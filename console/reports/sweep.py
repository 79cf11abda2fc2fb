"""The page of a sweep: which contender at which epsilon, for which hospital, and what is not known."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf, isfinite

from markupsafe import Markup

from wardround.console.reports import sweep_charts as charts
from wardround.console.reports.html import page
from wardround.console.reports.numbers import decimal, listed, metric_name, plural, signed
from wardround.privacy.accounting import rounded_up
from wardround.simulations.sweep.comparison import Cell, Comparison, Difference, Interval
from wardround.simulations.sweep.folder import Failed, Finished, Manifest
from wardround.simulations.sweep.price import Price


@dataclass(frozen=True)
class SweepView:
    """What the page and the terminal show of a sweep, in words."""

    manifest: Manifest
    runs: Sequence[Finished]
    failed: Sequence[Failed]
    missing: int
    comparison: Comparison
    prices: Sequence[Price]

    @property
    def title(self) -> str:
        return self.runs[0].result.title

    @property
    def metric(self) -> str:
        return metric_name(self.comparison.metric).label

    @property
    def drawn(self) -> tuple[str, ...]:
        return self.comparison.contenders[: charts.MOST_DRAWN]

    @property
    def sites(self) -> list[str]:
        return sorted({site.site for cell in self.comparison.cells for site in cell.sites})

    @property
    def seeds(self) -> int:
        return max((len(cell.by_seed) for cell in self.comparison.cells), default=0)

    @property
    def deltas(self) -> list[float]:
        return sorted({cell.delta for cell in self.comparison.cells if cell.delta is not None})

    @cached_property
    def answer(self) -> str:
        """Which differences between contenders can be shown, level by level."""
        inside = metric_name(self.comparison.metric).inside
        shown = [difference for difference in self.comparison.differences if difference.is_shown]
        if not self.comparison.tests:
            return f"By {inside} no difference between contenders was tested: {self.why_untested}."
        if not shown:
            return (
                f"By {inside} no difference between contenders can be shown at any ε, "
                f"in {plural(self.comparison.tests, 'test')} over {plural(self.seeds, 'seed')}."
            )
        parts = []
        for level in dict.fromkeys(difference.level for difference in shown):
            here = [self.sentence(difference) for difference in shown if difference.level == level]
            parts.append(f"{level_words(level)}: {listed(here[:3])}" + (", and more" if len(here) > 3 else ""))
        return f"By {inside}, what can be shown: " + "; ".join(parts) + ". Of the other pairs nothing can be said."

    @property
    def why_untested(self) -> str:
        reasons = list(dict.fromkeys(d.reason for d in self.comparison.differences if d.reason))
        return "; ".join(reasons) or "there is one contender at each ε"

    def sentence(self, difference: Difference) -> str:
        """``fedavg above fedadam by 0.014``, or "better" where the metric has a direction."""
        good = metric_name(self.comparison.metric).higher_is_better
        value = difference.difference.value
        first, second = difference.first, difference.second
        if (value < 0) is (good is not False):
            first, second = second, first
        word = "above" if good is None else "better than"
        return f"{first} {word} {second} by {decimal(abs(value))}"

    @property
    def caveats(self) -> list[str]:
        said = []
        if self.failed:
            said.append(f"{plural(len(self.failed), 'run')} failed and {_is(len(self.failed))} not in these numbers.")
        if self.missing:
            said.append(f"{plural(self.missing, 'run')} of the grid {_is(self.missing)} not done yet.")
        said += [f"Not of equal terms: {text}." for text in self.comparison.unequal]
        return said

    @property
    def sorted_differences(self) -> list[Difference]:
        """Tested ones first, the smallest p first."""
        return sorted(self.comparison.differences, key=lambda d: (d.p is None, d.p or 0.0, d.level))

    def cell(self, contender: str, level: float) -> Cell | None:
        return self.comparison.cell(contender, level)

    @property
    def frontier(self) -> Markup:
        words = f"{self.metric} against ε: mean over hospitals, 95 % intervals over seeds"
        return charts.frontier("frontier", words, self.comparison, self.drawn)

    @property
    def panels(self) -> list[tuple[str, str, Markup]]:
        """(hospital, its true epsilons, picture)."""
        reach = charts.site_reach(self.comparison, self.drawn)
        return [
            (
                site,
                self.true_epsilons(site),
                charts.of_site(
                    f"site-{number}", f"{self.metric} at {site} against ε", site, self.comparison, self.drawn, reach
                ),
            )
            for number, site in enumerate(self.sites)
        ]

    def true_epsilons(self, site: str) -> str:
        found = charts.true_epsilons(self.comparison.cells, site)
        return "true ε " + " · ".join(text for _, text in found) if found else "no protection"

    @property
    def has_own(self) -> bool:
        return any(site.own is not None for cell in self.comparison.cells for site in cell.sites)


def render_sweep(view: SweepView) -> str:
    """The page, as one string of HTML."""
    return page(
        "sweep.html.j2",
        view=view,
        level_words=level_words,
        estimate=estimate_words,
        p_value=p_value,
        contender_swatch=charts.contender_swatch,
        price_words=price_words,
        signed=signed,
        isfinite=isfinite,
    )


def level_words(level: float) -> str:
    return f"ε {level:g}" if level < inf else "no protection"


def estimate_words(found: Interval | None, digits: int = 3) -> str:
    """``0.858 [0.851, 0.865]``."""
    if found is None:
        return "not estimable"
    if found.low is None or found.high is None:
        return decimal(found.value, digits)
    if found.low == found.high:
        return f"{decimal(found.value, digits)} every seed"
    return f"{decimal(found.value, digits)} [{decimal(found.low, digits)}, {decimal(found.high, digits)}]"


def p_value(value: float | None) -> str:
    if value is None:
        return "\N{EN DASH}"
    return "< 0.001" if value < 0.001 else decimal(value)


def price_words(price: Price) -> str:
    """What choosing at one level would have cost, in one sentence."""
    return (
        f"At ε {price.level:g} (one run: {rounded_up(price.one_run)}), choosing the best of {price.contenders} would "
        f"cost {rounded_up(price.private.epsilon)} by private selection with one run each, and "
        f"{rounded_up(price.every_run)} as it was done here, every run added up."
    )


def _is(count: int) -> str:
    return "is" if count == 1 else "are"
