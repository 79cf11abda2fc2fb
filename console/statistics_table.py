"""The figures of a statistics study as a table on the screen, as JSON and as CSV: each with its interval.

It takes 80 columns and prints no colour into a pipe. A figure that is not shown says why.
"""

import csv
import json
from collections.abc import Sequence
from io import StringIO
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from wardround.console.plan_words import plain
from wardround.console.reports.figures_words import group_names
from wardround.console.reports.numbers import four_digits
from wardround.privacy.accounting import epsilon, rounded_up
from wardround.privacy.meaning import AGAINST, conditions
from wardround.privacy.shares import who_may_collude
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.plan import Claim, PrivacyMode, StudyPlan
from wardround.protocol.statistics import Statistics
from wardround.strategies.statistics import Cell

_COLUMNS = ("query", "site", "group", "quantity", "value", "low", "high", "unit", "covers", "patients", "note", "after")


def figures(plan: StudyPlan, cells: Sequence[Cell]) -> Table:
    """One row for each figure; of an evaluation while a model was trained, under the round of training."""
    table = _table(plain(plan.title), "Query", "Group", "Figure")
    table.add_column(f"Value ({_task(plan).confidence:.0%})", justify="right")
    table.add_column("Of", no_wrap=True)
    before: tuple[str, int | None] = ("", None)
    for cell in cells:
        if cell.after is not None and cell.after != before[1]:
            table.add_row(Text(f"after round {cell.after}", "bold"))
        named = "" if (cell.query, cell.after) == before else cell.query
        table.add_row(Text(named, "bold"), _group(plan, cell), Text(cell.quantity), _value(cell), _covers(cell))
        before = (cell.query, cell.after)
    return table


def errors(plan: StudyPlan, cells: Sequence[Cell]) -> Table:
    """What the intervals will be like; ``cells`` are of ``strategies.statistics.expected``."""
    table = _table("What the figures will be like", "Query", "Group", "Figure")
    table.add_column(f"± ({_task(plan).confidence:.0%})", justify="right")
    before = ""
    for cell in cells:
        named = "" if cell.query == before else cell.query
        if cell.value is None:
            reach = cell.note
        elif cell.low is None or cell.high is None:
            reach = "no interval"
        else:
            reach = f"{four_digits((cell.high - cell.low) / 2)} {_unit(cell)}".rstrip()
        table.add_row(Text(named, "bold"), _group(plan, cell), Text(cell.quantity), reach)
        before = cell.query
    return table


def promises(plan: StudyPlan) -> list[str]:
    """What the figures of the study, run once, cost, with everything that an epsilon needs beside it."""
    terms, site = plan.privacy, plan.participants[0].site
    event, together = plan.round_event(site), plan.consortium_event(site)
    if not isinstance(event, PoissonGaussian) or terms.delta is None:
        return ["No differential privacy: no epsilon bounds what these figures tell of a patient."]
    own = epsilon([event] * plan.rounds, terms.delta)
    lines = [f"ε {rounded_up(own)} {conditions(terms.delta, AGAINST)}; rounded up."]
    if terms.mode is PrivacyMode.DIST and terms.claim is Claim.EPSILON_BOTH:
        consortium = epsilon([together] * plan.rounds, terms.delta)
        lines.append(f"ε {rounded_up(consortium)} {conditions(terms.delta, who_may_collude(plan))}; rounded up.")
    return lines


def as_json(plan: StudyPlan, cells: Sequence[Cell], said: Sequence[str]) -> str:
    """Everything that the table has, as one JSON object."""
    found = {
        "study": plan.study,
        "title": plan.title,
        "plan": plan.digest,
        "confidence": _task(plan).confidence,
        "privacy": list(said),
        "figures": [_fields(cell) for cell in cells],
    }
    return json.dumps(found, indent=2)


def as_csv(cells: Sequence[Cell]) -> str:
    """One line for each figure under a header; groups of several columns are joined by ' | '."""
    written = StringIO()
    lines = csv.DictWriter(written, _COLUMNS, lineterminator="\n")
    lines.writeheader()
    for cell in cells:
        lines.writerow({**_fields(cell), "group": " | ".join(cell.group)})
    return written.getvalue()


def _fields(cell: Cell) -> dict[str, Any]:
    return {name: getattr(cell, name) for name in _COLUMNS}


def _table(title: str, *columns: str) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title=Text(title), title_justify="left",
        title_style="bold",
    )  # fmt: skip
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def _value(cell: Cell) -> Text:
    if cell.value is None:
        return Text(cell.note, "dim")
    text = Text(f"{four_digits(cell.value)} {_unit(cell)}".rstrip())
    if cell.low is not None and cell.high is not None:
        text.append(f" [{four_digits(cell.low)}, {four_digits(cell.high)}]", "dim")
    return text


def _group(plan: StudyPlan, cell: Cell) -> Text:
    """The hospital, where it is one's own figure, and the group by what the contract says that its codes mean."""
    return Text(" · ".join(map(plain, group_names(plan, cell))))


def _covers(cell: Cell) -> str:
    return "" if cell.value is None else cell.covers.removeprefix("the ")


def _unit(cell: Cell) -> str:
    return "" if cell.unit == "1" else cell.unit


def _task(plan: StudyPlan) -> Statistics:
    assert isinstance(plan.task, Statistics)
    return plan.task
