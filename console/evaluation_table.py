"""The evaluation of a model while it was trained, as a table: a row for each figure, a column for each round.

Of the calibration curve there are too many figures for a screen: they are in result.json and in the report.
"""

from collections.abc import Iterator

from rich import box
from rich.table import Table
from rich.text import Text

from wardround.console.plan_words import plain
from wardround.simulations.result import EvaluationResult, FigureResult

_CURVE = ("observed at ", "predicted at ")

AT_ONCE = 4
"""Rounds on a screen: the first, and the last ones."""


def evaluation_table(found: EvaluationResult) -> Table:
    """All patients first, then the groups."""
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title_justify="left", title_style="bold",
        title=Text("The model on the test patients of all hospitals while it was trained"),
    )  # fmt: skip
    shown = found.rounds if len(found.rounds) <= AT_ONCE else (found.rounds[0], *found.rounds[1 - AT_ONCE :])
    table.add_column("Group", overflow="fold")
    table.add_column("Figure", overflow="fold")
    for look in shown:
        table.add_column(f"Round {look.after_round}", justify="right", no_wrap=True)
    before: tuple[str, ...] | None = None
    for group, quantity in rows(found):
        cells = [_cell(look.figures, group, quantity) if look.sites else Text("void", "dim") for look in shown]
        name = "" if group == before else " · ".join(map(plain, group)) or "all"
        table.add_row(Text(name, "bold"), Text(quantity), *cells)
        before = group
    return table


def rows(found: EvaluationResult) -> Iterator[tuple[tuple[str, ...], str]]:
    """(group, figure) of every row, the calibration curve left out."""
    figures = next((look.figures for look in found.rounds if look.figures), ())
    groups = dict.fromkeys(figure.group for figure in figures)
    for group in sorted(groups, key=lambda each: set(each) > {"all"} or each != ("all",) * len(each)):
        for figure in figures:
            if figure.group == group and not figure.quantity.startswith(_CURVE):
                yield group, figure.quantity


def _cell(figures: tuple[FigureResult, ...], group: tuple[str, ...], quantity: str) -> Text:
    figure = next(each for each in figures if (each.group, each.quantity) == (group, quantity))
    if figure.value is None:
        return Text("not shown", "dim")
    unit = "" if figure.unit == "1" else f" {figure.unit}"
    text = Text(f"{figure.value:.3f}{unit}")
    if figure.low is not None and figure.high is not None:
        text.append(f"\n{figure.low:.3f} to {figure.high:.3f}", "dim")
    return text
