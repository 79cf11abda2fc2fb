"""The figures of a statistics study in the reader's language: tables with intervals, small pictures, and downloads.

A figure that is hidden has no number here, in no table, picture or file, and says why.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from typing import Final

from markupsafe import Markup
from starlette.responses import Response

from wardround.console.reports.evaluation_charts import plots
from wardround.console.reports.figure_charts import OF_A_CURVE, Ends, calibration, histogram, survival
from wardround.console.reports.figures_words import (
    covers_words,
    group_names,
    interval_words,
    name_words,
    value_words,
    why_hidden,
)
from wardround.console.reports.statistics_words import asked
from wardround.console.statistics_table import as_csv, as_json, promises
from wardround.console.web.given import given
from wardround.console.web.i18n import _, number
from wardround.console.web.queries.figures import Figures
from wardround.console.web.queries.studies import Figure as Cost
from wardround.console.web.queries.studies import figures as costs_of
from wardround.protocol.plan import StudyPlan
from wardround.protocol.queries import Evaluation, Histogram, Query, Survival
from wardround.strategies.statistics import Cell

MOST_ROWS, LEAST_ROWS, ALL_ROWS = 150, 12, 600
"""Figures of one question in its table, at most and where there are many questions; of a page. The files have all."""

FEW_HIDDEN: Final = 3
"""So many neighbours that are hidden for one reason have one row together."""

MOST_PICTURES, ALL_PICTURES = 12, 48
"""Of one question, of its first groups; of a page."""

MOST_BARS: Final = 60
"""Of a picture; a finer histogram, or grid of times, is in the files only."""

FORMS: Final = {
    "csv": ("text/csv; charset=utf-8", "figures.csv"),
    "json": ("application/json", "figures.json"),
}
"""What may be downloaded: its type, and the end of its name."""


@dataclass(frozen=True, slots=True)
class Row:
    """A figure in a table. ``value`` "": it is hidden, and ``why`` says so. ``after``: round of training, 0: none."""

    after: int
    group: str
    figure: str
    value: str
    interval: str
    covers: str
    why: str


@dataclass(frozen=True, slots=True)
class Panel:
    """A picture with what stands above it."""

    caption: str
    chart: Markup


@dataclass(frozen=True, slots=True)
class Question:
    """One query of the plan, and what was found.

    ``words``: what is counted of whom. ``over``: pictures over the rounds of a training; ``panels``: of a curve or a
    histogram. ``left_out``: figures that are in the files only; ``hidden``: of all, how many are not shown.
    """

    name: str
    words: str
    rows: tuple[Row, ...]
    over: tuple[Panel, ...]
    panels: tuple[Panel, ...]
    left_out: int
    hidden: int


def questions(figures: Figures) -> list[Question]:
    """Every query of the plan, in its order; nothing before there are figures."""
    if not figures.cells:
        return []
    return [
        _question(figures, place, query, words)
        for place, (query, (_name, words)) in enumerate(zip(figures.task.queries, asked(figures.task), strict=True), 1)
    ]


def costs(plan: StudyPlan, charges: int = 0) -> tuple[Cost, ...]:
    """What the whole study costs: against everyone, and in mode dist against those who may collude.

    Args:
        charges: how many it had to charge so far; more than the plan's own where rounds were tried again.
    """
    return costs_of(plan, plan.participants[0].site, charges)


def download(figures: Figures, form: str) -> Response:
    """Every figure as a file, the same as ``wardround stats table`` prints."""
    plan, cells = figures.plan, figures.cells
    kind, name = FORMS[form]
    content = as_csv(cells) if form == "csv" else as_json(plan, cells, promises(plan)) + "\n"
    kept = f'attachment; filename="{plan.study}-{plan.digest[:12]}-{name}"'
    return Response(content, media_type=kind, headers={"content-disposition": kept})


def _question(figures: Figures, place: int, query: Query, words: str) -> Question:
    plan = figures.plan
    cells = [cell for cell in figures.cells if cell.query == query.name]
    # Of a training the newest look stands first, and in it what is of all patients.
    newest = sorted(
        cells, key=lambda cell: (-(cell.after or 0), figures.task.follows is not None and not _of_all(cell))
    )
    over: tuple[Panel, ...] = ()
    if looks := figures.looks:
        mine = [(after, [cell for cell in found if cell.query == query.name]) for after, found in looks]
        over = tuple(Panel(plot.name, plot.chart) for plot in plots(mine, f"over-{place}", name_words))
    last = [cell for cell in newest if cell.after == newest[0].after]
    rows, asked_all = list(_rows(plan, newest)), len(figures.task.queries)
    most = max(LEAST_ROWS, min(MOST_ROWS, ALL_ROWS // asked_all))
    pictures = max(1, min(MOST_PICTURES, ALL_PICTURES // asked_all))
    return Question(
        query.name,
        words,
        tuple(rows[:most]),
        over,
        tuple(islice(_panels(plan, query, place, last), pictures)),
        max(0, len(rows) - most),
        sum(cell.value is None for cell in cells),
    )


def _rows(plan: StudyPlan, cells: Sequence[Cell]) -> Iterator[Row]:
    """One for each figure; of neighbours of a group that are hidden for the same reason one together."""
    rows = [_row(plan, cell) for cell in cells]
    for _key, run in groupby(rows, lambda row: (row.after, row.group, row.why)):
        found = list(run)
        if not found[0].why or len(found) < FEW_HIDDEN:
            yield from found
            continue
        places = {"first": found[0].figure, "last": found[-1].figure, "count": number(len(found))}
        yield replace(found[0], figure=_("%(first)s … %(last)s (%(count)s figures)") % places)


def _row(plan: StudyPlan, cell: Cell) -> Row:
    hidden = cell.value is None
    return Row(
        cell.after or 0,
        _group(group_names(plan, cell)),
        given(name_words(cell.quantity)),
        given(value_words(cell)),
        interval_words(cell),
        "" if hidden else covers_words(cell),
        why_hidden(cell) if hidden else "",
    )


def _of_all(cell: Cell) -> bool:
    return set(cell.group) <= {"all"}


def _group(names: Sequence[str]) -> str:
    return " · ".join(given(name_words(name)) for name in names)


def _panels(plan: StudyPlan, query: Query, question: int, cells: Sequence[Cell]) -> Iterator[Panel]:
    """The pictures of a statistic that is a curve or a histogram: one for each of its groups and hospitals."""
    of_groups: dict[tuple[str, tuple[str, ...]], list[Cell]] = {}
    for cell in cells:
        of_groups.setdefault((cell.site, cell.group[: len(query.by)]), []).append(cell)
    for place, ((site, group), found) in enumerate(of_groups.items(), 1):
        name = _group(group_names(plan, found[0])[: len(group) + bool(site)]) or _("all")
        chart = _chart(query, f"panel-{question}-{place}", f"{query.name}, {name}", found)
        if chart is not None:
            yield Panel(name, chart)


def _chart(query: Query, key: str, name: str, cells: Sequence[Cell]) -> Markup | None:
    """The picture of one group; None: this statistic has none, or too many parts for one."""
    match query:
        case Histogram() if query.width <= MOST_BARS:
            bars = [(name_words(cell.group[-1]), Ends.of(cell)) for cell in cells[: query.width]]
            return histogram(key, name, query.cuts, bars)
        case Survival() if len(query.times) <= MOST_BARS:
            lived = [cell for cell in cells if cell.quantity.startswith("survival at ")]
            if len(lived) < len(query.times):
                return None  # The test between groups, which is of all of them.
            unit = lived[0].quantity.removeprefix("survival at ").partition(" ")[2]
            axis = query.time if unit in ("", "1") else f"{query.time} ({unit})"
            return survival(
                key, name, given(axis), given(unit), list(zip(query.times, map(Ends.of, lived), strict=True))
            )
        case Evaluation():
            observed, predicted = ([cell for cell in cells if cell.quantity.startswith(each)] for each in OF_A_CURVE)
            bins = [(Ends.of(p), Ends.of(o)) for p, o in zip(predicted, observed, strict=True)]
            return calibration(key, name, bins) if any(None not in each for each in bins) else None
    return None
