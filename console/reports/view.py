"""What the report's template shows, worked out from a result and its plan: panels, rows and sentences."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from markupsafe import Markup

from wardround.console.reports import benefits, charts, curves, evaluation_charts, findings, numbers
from wardround.console.reports.svg import around, nice_step, thin
from wardround.privacy.accounting import rounded_up
from wardround.protocol.errors import UsageError
from wardround.protocol.plan import StudyPlan
from wardround.simulations.result import EstimateResult, RoundResult, SimulationResult, SiteResult
from wardround.strategies import strategy_from

MOST_PANELS: Final = 24
"""Hospitals that get pictures; tables always hold every hospital."""

MOST_ROWS: Final = 100
"""Rows of a table over rounds."""

_REACHED: Final = ("replied", "late", "violated the protocol")
"""Outcomes in which a vector arrived, whether it was used or not."""

_NO_CURVES: Final = {
    "survival": "A survival study has no ROC curve and no calibration here: the model ranks patients by risk and gives "
    "no probability of a yes or no. Its measure is the c-index above.",
    "number": "A quantity has no ROC curve: the model gives a value, and its errors are above.",
    "findings": "Several findings have no single ROC curve: the measures above are means over them.",
    "mask": "A mask has no ROC curve: the model marks voxels, and its measure is the overlap above.",
}

_NOTHING: Final = EstimateResult(value=None, reason="not measured in this run")


@dataclass(frozen=True, slots=True)
class Panel:
    """One small picture with its hospital's name; without a picture, ``missing`` says why."""

    site: SiteResult
    chart: Markup | None
    missing: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Numbers:
    """A table over rounds, for those who want the numbers behind the curves."""

    title: str
    rows: list[tuple[RoundResult, list[str]]]


@dataclass(frozen=True)
class View:
    """Everything on the page that is more than a field of the result or the plan."""

    result: SimulationResult
    plan: StudyPlan

    @cached_property
    def sites(self) -> list[SiteResult]:
        """The hospitals that took part."""
        return findings.taking_part(self.result)

    @cached_property
    def excluded(self) -> list[SiteResult]:
        return [site for site in self.result.sites if site.excluded_because]

    @cached_property
    def drawn(self) -> list[SiteResult]:
        """The hospitals that get pictures."""
        return self.sites[:MOST_PANELS]

    @cached_property
    def answer(self) -> str:
        return findings.answer(self.result)

    @cached_property
    def caveats(self) -> list[str]:
        return findings.caveats(self.result)

    @cached_property
    def protected(self) -> bool:
        return bool(self.conditions)

    @cached_property
    def conditions(self) -> str:
        return numbers.conditions(self.result.privacy)

    @cached_property
    def brief_conditions(self) -> str:
        """The label of an epsilon where there is little room; the table's caption says it in full."""
        privacy = self.result.privacy
        if privacy.delta is None:
            return "ε"
        delta = numbers.delta_text(privacy.delta)
        return f"ε at δ = {delta}, per {privacy.unit}, {privacy.adjacency}, whoever colludes"

    @cached_property
    def epsilon(self) -> float | None:
        """The most that any hospital was charged."""
        return max((s.epsilon_site for s in self.sites if s.epsilon_site is not None), default=None)

    @cached_property
    def closed(self) -> int:
        return sum(record.state == "closed" for record in self.result.rounds)

    @cached_property
    def void(self) -> list[int]:
        return [record.round_number for record in self.result.rounds if record.state == "void"]

    @cached_property
    def last_round(self) -> int:
        return max((record.round_number for record in self.result.rounds), default=1)

    @cached_property
    def metrics(self) -> list[str]:
        """Every metric of the result, headline metrics first."""
        names = dict.fromkeys(self.result.headline_metrics)
        for site in self.sites:
            names |= dict.fromkeys([*site.shared.metrics, *site.own.metrics])
        return list(names)

    @cached_property
    def directions(self) -> str:
        """Which way each metric is better, where that is known."""
        names = [numbers.metric_name(metric) for metric in self.metrics]
        groups = [
            ("higher is better", [name.inside for name in names if name.higher_is_better]),
            ("lower is better", [name.inside for name in names if name.higher_is_better is False]),
            ("not known here which way is better", [name.inside for name in names if name.higher_is_better is None]),
        ]
        return "; ".join(f"{numbers.listed(inside)}: {said}" for said, inside in groups if inside)

    @cached_property
    def has_curves(self) -> bool:
        """Whether ROC and calibration make sense: a yes/no outcome with curves in the result."""
        return any(m.curves.roc or m.curves.calibration for s in self.sites for m in (s.own, s.shared))

    @cached_property
    def no_curves(self) -> str:
        """Why there is neither a ROC curve nor a calibration."""
        return _NO_CURVES.get(self.plan.task.label_kind, "This run made no ROC curve and no calibration.")

    def own(self, site: SiteResult, metric: str) -> EstimateResult:
        return site.own.metrics.get(metric) or EstimateResult(value=None, reason=site.own.reason or _NOTHING.reason)

    def shared(self, site: SiteResult, metric: str) -> EstimateResult:
        return site.shared.metrics.get(metric) or EstimateResult(
            value=None, reason=site.shared.reason or _NOTHING.reason
        )

    @cached_property
    def shows_chance(self) -> bool:
        """Whether a picture of the hospitals' table has the dotted line of chance."""
        reaches = [(numbers.metric_name(m).chance, self._reach(m)) for m in self.result.headline_metrics]
        return any(chance is not None and low < chance < high for chance, (low, high) in reaches)

    def no_comparison(self, site: SiteResult, metric: str) -> str:
        """Why own and shared model were not compared at a hospital."""
        own, shared = self.own(site, metric), self.shared(site, metric)
        if own.reason and own.reason == shared.reason:
            return own.reason
        reasons = [f"{kind} model: {e.reason}" for kind, e in (("own", own), ("shared", shared)) if e.reason]
        return "; ".join(reasons) or "the difference has no interval"

    def forest(self, site: SiteResult, metric: str) -> Markup:
        name = numbers.metric_name(metric)
        return charts.forest(
            self._key("f", site, metric),
            f"{name.label} at {site.site}",
            self.own(site, metric),
            self.shared(site, metric),
            self._reach(metric),
            name.chance,
        )

    @cached_property
    def benefit_words(self) -> str:
        """How the verdicts are to be read; empty where nothing was compared."""
        return benefits.together_words(self.result)

    def benefits(self) -> list[Panel]:
        """Does the study help: the differences at each hospital, with the verdicts in words."""
        found = [one.better_by for site in self.drawn for one in site.benefit]
        ends = [v for e in found for v in (e.value, e.low, e.high) if v is not None]
        reach = around([*ends, 0.0], nice_step((max([*ends, 0.0]) - min([*ends, 0.0])) / 3)) if ends else (-0.1, 0.1)
        panels = []
        for site in self.drawn:
            rows = [(one.model, one.better_by, one.verdict != "none") for one in site.benefit]
            if not benefits.compared(site):
                words = [] if site.kept is None else [benefits.kept_words(site.kept)]
                panels.append(Panel(site, None, site.own.reason or _NOTHING.reason, benefits.sentences(words)))
                continue
            name = f"Differences to the own model at {site.site}"
            note = benefits.sentences(benefits.site_words(site))
            panels.append(Panel(site, charts.differences(self._key("b", site), name, rows, reach), note=note))
        return panels

    def evaluation(self) -> list[evaluation_charts.Plot]:
        """The figures of all test patients over the rounds of the schedule."""
        found = self.result.evaluation
        return (
            [] if found is None else evaluation_charts.plots([(one.after_round, one.figures) for one in found.rounds])
        )

    def training(self, metric: str) -> list[Panel]:
        """The metric over rounds, a panel for each hospital."""
        mean = _known((record.round_number, record.metrics.get(metric)) for record in self.result.rounds)
        histories = {site.site: self._history(site, metric) for site in self.drawn}
        owns = {site.site: self.own(site, metric).value for site in self.drawn}
        levels = [v for history in histories.values() for _, v in history] + [v for v in owns.values() if v is not None]
        reach = _reach_of([*levels, *(v for _, v in mean)])
        panels = []
        for site in self.drawn:
            values = histories[site.site]
            if not values:
                why = self.shared(site, metric).reason or "it was not measured during the run"
                panels.append(Panel(site, None, why))
                continue
            name = f"{numbers.metric_name(metric).label} at {site.site} after each round"
            key = self._key("t", site, metric)
            chart = charts.over_rounds(key, name, values, mean, owns[site.site], reach, self.last_round, self.void)
            panels.append(Panel(site, chart, note=numbers.decimal(values[-1][1])))
        return panels

    def roc(self) -> list[Panel]:
        return [
            Panel(
                site,
                curves.roc(self._key("r", site), f"ROC at {site.site}", site.own.curves, site.shared.curves),
                note="" if site.own.curves.roc else f"own {numbers.NOT_ESTIMABLE}",
            )
            if site.own.curves.roc or site.shared.curves.roc
            else Panel(site, None, self.shared(site, "auroc").reason or "its test patients have one class only")
            for site in self.drawn
        ]

    def calibration(self) -> list[Panel]:
        return [
            Panel(
                site,
                curves.calibration(
                    self._key("c", site), f"Calibration at {site.site}", site.own.curves, site.shared.curves
                ),
                note="" if site.own.curves.calibration else f"own {numbers.NOT_ESTIMABLE}",
            )
            if site.own.curves.calibration or site.shared.curves.calibration
            else Panel(site, None, site.shared.reason or "no test patients")
            for site in self.drawn
        ]

    def spending(self) -> list[Panel]:
        """epsilon_site over rounds, a panel for each hospital."""
        limit = self.result.privacy.epsilon_limit
        spent = {site.site: self._spent(site) for site in self.drawn}
        most = max([limit or 0.0, *(e for values in spent.values() for _, e in values)]) * 1.12 or 1.0
        panels = []
        for site in self.drawn:
            values = spent[site.site]
            if not values:
                panels.append(Panel(site, None, "nothing was charged"))
                continue
            name = f"ε per round at {site.site}"
            said = f"ε {rounded_up(values[-1][1])} after round {values[-1][0]}, {self.conditions}"
            key = self._key("e", site)
            chart = charts.spending(key, name, said, values, limit, most, self.last_round, self.void)
            panels.append(Panel(site, chart, note=f"ε {rounded_up(values[-1][1])}"))
        return panels

    def strips(self) -> list[tuple[SiteResult, Markup]]:
        """Each hospital's rounds as a strip of cells."""
        found = []
        for site in self.drawn:
            marks = [findings.mark(record, site.site) for record in self.result.rounds]
            words_ = f"Rounds of {site.site}, from 1 to {self.last_round}"
            found.append((site, charts.strip(self._key("s", site), words_, marks)))
        return found

    def answered(self, site: SiteResult) -> int:
        """Rounds in which a vector of this hospital reached the coordinator, in time or not."""
        return sum(r.sites[site.site].outcome in _REACHED for r in self.result.rounds if site.site in r.sites)

    @cached_property
    def drops(self) -> list[findings.Drop]:
        return findings.drops(self.result)

    @cached_property
    def void_sentences(self) -> list[str]:
        return findings.void_rounds(self.result, self.plan.quorum)

    @cached_property
    def round_tables(self) -> list[Numbers]:
        """Every metric after every round at every hospital, and the epsilons."""
        rounds = self.round_rows
        tables = [
            Numbers(
                numbers.metric_name(metric).label,
                [(r, [_cell(r.metrics.get(metric)), *(self._point(r, s, metric) for s in self.drawn)]) for r in rounds],
            )
            for metric in self.metrics
        ]
        return tables

    @cached_property
    def round_rows(self) -> list[RoundResult]:
        return thin(self.result.rounds, MOST_ROWS)

    @cached_property
    def epsilon_rows(self) -> list[tuple[RoundResult, list[str]]]:
        return [
            (
                record,
                [
                    rounded_up(e)
                    if (part := record.sites.get(site.site)) and (e := part.epsilon_site) is not None
                    else "none"
                    for site in self.drawn
                ],
            )
            for record in self.round_rows
        ]

    @cached_property
    def vector_numbers(self) -> int | None:
        """How many numbers one answer holds; None where the strategy is a program's own."""
        try:
            strategy = strategy_from(self.plan.strategy)
        except UsageError:
            return None
        return sum(strategy.part_sizes(self.plan.layout.size).values())

    def _point(self, record: RoundResult, site: SiteResult, metric: str) -> str:
        part = record.sites.get(site.site)
        return _cell(part.metrics.get(metric) if part else None)

    def _history(self, site: SiteResult, metric: str) -> list[tuple[int, float]]:
        return _known(
            (r.round_number, r.sites[site.site].metrics.get(metric)) for r in self.result.rounds if site.site in r.sites
        )

    def _spent(self, site: SiteResult) -> list[tuple[int, float]]:
        return _known(
            (r.round_number, r.sites[site.site].epsilon_site) for r in self.result.rounds if site.site in r.sites
        )

    def _reach(self, metric: str) -> tuple[float, float]:
        found = [e for s in self.sites for e in (self.own(s, metric), self.shared(s, metric))]
        return _reach_of([v for e in found for v in (e.value, e.low, e.high) if v is not None])

    def _key(self, kind: str, site: SiteResult, metric: str = "") -> str:
        """An id that is unique on the page and holds no text of the result."""
        number = self.metrics.index(metric) if metric else 0
        return f"{kind}{number}-{self.sites.index(site)}"


def _known(pairs: Iterable[tuple[int, float | None]]) -> list[tuple[int, float]]:
    return [(number, value) for number, value in pairs if value is not None]


def _reach_of(values: Sequence[float]) -> tuple[float, float]:
    """A common range of ``values`` for one metric; shares stay within 0 and 1."""
    if not values:
        return 0.0, 1.0
    step = nice_step((max(values) - min(values)) / 3) if max(values) > min(values) else 0.1
    return around(values, step, (0.0, 1.0))


def _cell(value: float | None) -> str:
    return numbers.NOT_ESTIMABLE if value is None else numbers.decimal(value)
