"""A sweep in the terminal: contenders against levels of epsilon, the answer, and what choosing would have cost."""

from dataclasses import dataclass
from typing import Final

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from wardround.console.reports.numbers import delta_text, metric_name
from wardround.console.reports.sweep import SweepView, estimate_words, level_words, price_words
from wardround.simulations.sweep.comparison import Cell

FULL_WIDTH: Final = 110


def sweep_table(view: SweepView) -> RenderableType:
    """The table of ``view`` with its sentences."""
    return _SweepTable(view)


@dataclass(frozen=True, slots=True)
class _SweepTable:
    view: SweepView

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield _table(self.view, 3 if options.max_width >= FULL_WIDTH else 2)
        for sentence in _below(self.view):
            yield Text(sentence)


def _table(view: SweepView, digits: int) -> Table:
    comparison = view.comparison
    label = metric_name(comparison.metric).label
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        title=Text(f"{view.title} · {label}, mean over hospitals [95 % over seeds]"),
        title_justify="left",
        title_style="bold",
    )
    table.add_column("Contender", overflow="fold", min_width=8)
    for level in comparison.levels:
        table.add_column(level_words(level))
    for contender in comparison.contenders:
        cells = [view.cell(contender, level) for level in comparison.levels]
        table.add_row(Text(contender, "bold"), *(_words(cell, digits) for cell in cells))
    return table


def _words(cell: Cell | None, digits: int) -> Text:
    """The mean, and its interval below it."""
    if cell is None:
        return Text("no run", "dim")
    value, _, interval = estimate_words(cell.over_hospitals, digits).partition(" ")
    return Text(value).append(f"\n{interval}", "dim")


def _below(view: SweepView) -> list[str]:
    lines = [view.answer, *view.caveats]
    if view.deltas:
        deltas = ", ".join(delta_text(delta) for delta in view.deltas)
        lines.append(
            f"ε of one run at δ = {deltas}, for any one patient of a hospital (add or remove one), against everyone, "
            "whoever colludes; rounded up. A simulation starts with fresh ledgers, so runs are not added up."
        )
    if view.prices:
        lines.append("Had it been run on patients of a hospital, who trained would have paid for the choice as well:")
        lines += [price_words(price) for price in view.prices]
    return lines
