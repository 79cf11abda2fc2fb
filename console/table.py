"""The result in the terminal: one row per hospital, own model above shared model, and everything an epsilon needs.

It asks for 100 columns, takes 80, and prints no colour into a pipe.
"""

from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from wardround.console.evaluation_table import evaluation_table
from wardround.console.reports.benefits import VERDICTS, compared, together_words
from wardround.console.reports.findings import Verdict, answer, caveats, left_out, taking_part, verdict
from wardround.console.reports.numbers import (
    NOT_ESTIMABLE,
    UNPROTECTED,
    conditions,
    decimal,
    metric_name,
)
from wardround.privacy.accounting import rounded_up
from wardround.simulations.result import EstimateResult, ModelResult, SimulationResult, SiteResult

FULL_WIDTH = 96
_STYLES = {Verdict.BETTER: "green", Verdict.WORSE: "red"}
_MARKS = {Verdict.BETTER: "▲", Verdict.WORSE: "▼"}


def result_table(result: SimulationResult) -> RenderableType:
    """The table of ``result``, with its caption, its exclusions and the answer."""
    return _ResultTable(result)


@dataclass(frozen=True, slots=True)
class _ResultTable:
    result: SimulationResult

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        result = self.result
        digits = 3 if options.max_width >= FULL_WIDTH else 2
        yield _table(result, digits)
        if (helps := _benefits(result, digits)) is not None:
            yield helps
        if result.evaluation is not None:
            yield evaluation_table(result.evaluation)
        for sentence in _below(result):
            yield Text(sentence)


def _table(result: SimulationResult, digits: int) -> Table:
    """``digits`` decimals of each metric: two where the terminal is narrow."""
    protected = bool(conditions(result.privacy))
    title = Text(result.title if protected else f"{result.title} · {UNPROTECTED}")
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        title=title,
        title_justify="left",
        title_style="bold",
    )
    table.add_column("Hospital", overflow="fold", min_width=8)
    table.add_column("Train/test", justify="right", no_wrap=True)
    table.add_column("ε", justify="right", no_wrap=True)
    table.add_column("Model", no_wrap=True)
    for name in result.headline_metrics:
        table.add_column(f"{metric_name(name).label} (95 %)", no_wrap=True)
    for site in result.sites:
        table.add_row(*_row(result, site, protected, digits))
    return table


def _row(result: SimulationResult, site: SiteResult, protected: bool, digits: int) -> list[Text]:
    patients = Text(f"{site.train_patients:,}/{site.test_patients:,}")
    if site.excluded_because:
        cells = [Text(site.site, "dim"), patients, Text("-"), Text("-")]
        return [*cells, *(Text("took no part", "dim") for _ in result.headline_metrics)]
    spent = "none" if not protected or site.epsilon_site is None else rounded_up(site.epsilon_site)
    cells = [Text(site.site, "bold"), patients, Text(spent), Text("own\nshared")]
    for name in result.headline_metrics:
        said = verdict(name, site.gain.get(name))
        cell = _estimate(site.own, name, digits)
        cell.append("\n")
        cell.append_text(_estimate(site.shared, name, digits))
        cell.append((" " if digits == 3 else "") + _MARKS.get(said, ""), _STYLES.get(said, ""))
        cells.append(cell)
    return cells


def _estimate(model: ModelResult, name: str, digits: int) -> Text:
    return _value(model.metrics.get(name) or EstimateResult(value=None), digits)


def _value(found: EstimateResult, digits: int) -> Text:
    if found.value is None:
        return Text(NOT_ESTIMABLE, "dim")
    text = Text(decimal(found.value, digits))
    if found.low is not None and found.high is not None:
        text.append(f" [{decimal(found.low, digits)}, {decimal(found.high, digits)}]", "dim")
    return text


def _below(result: SimulationResult) -> list[str]:
    """Sentences under the table: the answer, what is missing and why, the terms of every epsilon."""
    lines = [answer(result)]
    if any(mark in _MARKS for site in result.sites for mark in _verdicts(result, site)):
        lines[0] += " ▲ better and ▼ worse: the 95 % interval of the difference on the same patients leaves out 0."
    lines += caveats(result)
    lines += [f"{together_words(result)}."] if any(map(compared, taking_part(result))) else []
    lines += _no_verdict(result)
    lines += _not_estimable(result)
    lines += _missed(result)
    lines += [f"{site.site}: {left_out(site)}." for site in result.sites if site.left_out]
    terms = conditions(result.privacy)
    lines.append(f"ε {terms}; rounded up." if terms else f"ε: {UNPROTECTED}.")
    if result.privacy.mode == "dist":
        lines.append(result.privacy.statement)
    if result.evaluation is not None:
        lines.append(f"Evaluation while it was trained, on test patients alone: {result.evaluation.statement}")
    lines += [f"Note: {note}." for note in result.notes]
    return lines


def _benefits(result: SimulationResult, digits: int) -> Table | None:
    """Does the study help: a row for each hospital and model; None where nothing was compared."""
    sites = [site for site in taking_part(result) if site.benefit or site.kept]
    if not any(compared(site) or site.kept for site in sites):
        return None
    title = Text("Does it help? Against the own model, all intervals together 95 %")
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        title=title,
        title_justify="left",
        title_style="bold",
    )
    for column in ("Hospital", "Model", f"{metric_name(result.headline_metrics[0]).label}, better by", "Verdict"):
        table.add_column(column, no_wrap=column != "Hospital")
    if any(site.kept for site in sites):
        table.add_column("Keeps", no_wrap=True)
    for site in sites:
        table.add_row(*_benefit(site, digits))
    return table


def _benefit(site: SiteResult, digits: int) -> list[Text]:
    """One hospital's cells, with a line for each model that was compared."""
    cells = [Text(site.site, "bold"), *(Text() for _ in range(3))]
    for number, found in enumerate(site.benefit if compared(site) else site.benefit[:1]):
        mark = {"helps": "▲ ", "harms": "▼ "}.get(found.verdict, "")
        style = {"helps": "green", "harms": "red"}.get(found.verdict, "")
        parts = [
            Text(found.model if compared(site) else "any"),
            _value(found.better_by, digits),
            Text(f"{mark}{VERDICTS[found.verdict]}", style),
        ]
        for cell, part in zip(cells[1:], parts, strict=True):
            cell.append("\n" if number else "").append_text(part)
    return cells if site.kept is None else [*cells, Text(site.kept.model)]


def _no_verdict(result: SimulationResult) -> list[str]:
    """Why a hospital that has an own model has no verdict."""
    sites = [site for site in taking_part(result) if site.benefit and not site.own.reason]
    return [f"{site.site}: no verdict, {reason}." for site in sites if (reason := site.benefit[0].reason)]


def _missed(result: SimulationResult) -> list[str]:
    """Who was not in the sum of a round, and why; a round that did not count. Nothing where all took part in all."""
    rounds = len(result.rounds)
    lines = []
    for site in taking_part(result):
        here = [(r.round_number, r.sites[site.site]) for r in result.rounds if site.site in r.sites]
        missed = [(number, found) for number, found in here if found.outcome != "replied"]
        if missed:
            why = "; ".join(
                f"round {number} {found.outcome}{f' ({found.detail})' if found.detail else ''}"
                for number, found in missed
            )
            lines.append(f"{site.site} was in the sum of {site.rounds_in_sum} of {rounds} rounds: {why}.")
    void = [str(r.round_number) for r in result.rounds if r.state == "void"]
    if void:
        lines.append(f"Void, because too few hospitals replied: round {', '.join(void)}; charges stay.")
    return lines


def _verdicts(result: SimulationResult, site: SiteResult) -> list[Verdict]:
    return [verdict(name, site.gain.get(name)) for name in result.headline_metrics]


def _not_estimable(result: SimulationResult) -> list[str]:
    """Why a metric is not estimable, where the model itself is there."""
    found = []
    for site in taking_part(result):
        for kind, model in (("own", site.own), ("shared", site.shared)):
            if model.reason and kind == "own":
                continue
            found += [
                f"{site.site}, {kind} model: {metric_name(name).inside} is not estimable: {estimate.reason}."
                for name in result.headline_metrics
                if (estimate := model.metrics.get(name)) and estimate.value is None and estimate.reason
            ]
    return found
