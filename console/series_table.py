"""The series of a campaign of indicators as a table, JSON, CSV and the text format of Prometheus (version 0.0.4).

A tick without a figure is there without a value and with the reason: nothing is made up for it in any form.
"""

import csv
import json
from collections.abc import Sequence
from io import StringIO
from typing import Any, Final

from rich import box
from rich.table import Table
from rich.text import Text

from wardround.console.plan_words import plain
from wardround.console.reports.indicators_words import absence_words
from wardround.console.reports.numbers import rough
from wardround.privacy.accounting import epsilon, rounded_up
from wardround.privacy.continual import event_level_noise
from wardround.privacy.meaning import AGAINST, conditions
from wardround.privacy.shares import who_may_collude
from wardround.protocol.events import TreeGaussian
from wardround.protocol.indicators import Indicator, Indicators, Level
from wardround.protocol.plan import Claim, StudyPlan
from wardround.strategies.cusum import Raised
from wardround.strategies.series import Expected, Figure, of, unit_of

SHOWN: Final = 14
"""Ticks of the table on the screen: the last ones."""

_COLUMNS: Final = ("indicator", "tick", "begins", "value", "low", "high", "unit", "hospitals", "note")


def promises(plan: StudyPlan) -> list[str]:
    """What the whole campaign costs, with everything that an epsilon needs beside it, and what happens in absence."""
    task, terms = task_of(plan), plan.privacy
    event = plan.round_event(plan.participants[0].site)
    said = []
    if not isinstance(event, TreeGaussian) or terms.delta is None:
        said.append("No differential privacy: no epsilon bounds what these figures tell of a patient.")
    else:
        cost = rounded_up(epsilon([event], terms.delta))
        said.append(
            f"ε {cost} {conditions(terms.delta, AGAINST)}; rounded up. For the whole campaign of {task.ticks} ticks "
            f"and all {task.levels} levels of its tree, charged once to every data domain before the first event is "
            "read."
        )
        if terms.claim is Claim.EPSILON_BOTH:
            both = plan.consortium_event(plan.participants[0].site)
            said.append(
                f"ε {rounded_up(epsilon([both], terms.delta))} {conditions(terms.delta, who_may_collude(plan))}; "
                f"rounded up. For the same whole campaign, charged once to the domain 'consortium': every sum that is "
                f"opened has at least {plan.honest_sites} shares of noise that they do not know."
            )
        bounds = ", ".join(f"{each.name} {each.contributions}" for each in task.indicators)
        said.append(f"A patient counts with so many contributions in the whole campaign: {bounds}; later ones do not.")
        alone = event.model_copy(update={"noise_multiplier": event_level_noise(task, event.noise_multiplier)})
        said.append(
            f"For display only, not charged or promised: one single event, told once, is protected by ε "
            f"{rounded_up(epsilon([alone], terms.delta))} at δ {terms.delta:g}; unit: that event, and not the patient."
        )
    return [*said, absence_words(plan)]


def errors(plan: StudyPlan, found: Sequence[Expected]) -> Table:
    """What the intervals will be like, with every hospital there."""
    table = _table("How exact the figures will be", "Indicator", "Figure")
    table.add_column(f"usually ± ({task_of(plan).confidence:.0%})", justify="right")
    table.add_column("at worst ±", justify="right")
    for each in found:
        unit = unit_of(each.indicator)
        words = [f"{rough(width)} {unit}".rstrip() for width in (each.usual, each.worst)]
        table.add_row(Text(each.indicator.name, "bold"), _kind(each.indicator, task_of(plan)), *words)
    return table


def series(plan: StudyPlan, figures: Sequence[Figure]) -> Table:
    """The last ticks of every indicator."""
    task = task_of(plan)
    table = _table(plain(plan.title), "Indicator", "Begins (UTC)")
    table.add_column(f"Value ({task.confidence:.0%})", justify="right")
    table.add_column("Hospitals", justify="right")
    table.add_column("Note", overflow="fold")
    for indicator in task.indicators:
        for place, figure in enumerate(of(figures, indicator)[-SHOWN:]):
            named = Text(indicator.name if not place else "", "bold")
            sites = f"{figure.hospitals} of {len(plan.participants)}"
            table.add_row(named, when(figure), _value(figure, unit_of(indicator)), sites, Text(figure.note, "dim"))
    return table


def alarm_lines(task: Indicators, raised: Sequence[Raised]) -> list[str]:
    """One line for each alarm."""
    return [
        f"Alarm: {each.indicator} {each.direction} its usual {rough(each.usual)}, by the tick that began "
        f"{task.begins(each.tick):%Y-%m-%d %H:%M} UTC (CUSUM on the noised series)."
        for each in raised
    ]


def as_json(plan: StudyPlan, figures: Sequence[Figure], found: Sequence[Expected], raised: Sequence[Raised]) -> str:
    """Everything that the table has, and all ticks, as one JSON object; the cost comes first."""
    task = task_of(plan)
    written = {
        "study": plan.study,
        "title": plan.title,
        "plan": plan.digest,
        "privacy": promises(plan),
        "expected": [{"indicator": e.indicator.name, "usual": e.usual, "worst": e.worst} for e in found],
        "confidence": task.confidence,
        "alarms": [
            {"indicator": a.indicator, "tick": a.tick, "direction": a.direction, "usual": a.usual, "until": a.until}
            for a in raised
        ],
        "figures": [_fields(task, figure) for figure in figures],
    }
    return json.dumps(written, indent=2)


def as_csv(plan: StudyPlan, figures: Sequence[Figure]) -> str:
    """One line for each indicator and tick under a header; a figure that is not there is an empty cell."""
    written = StringIO()
    lines = csv.DictWriter(written, _COLUMNS, lineterminator="\n")
    lines.writeheader()
    for figure in figures:
        lines.writerow(_fields(task_of(plan), figure))
    return written.getvalue()


def as_prometheus(plan: StudyPlan, figures: Sequence[Figure], raised: Sequence[Raised]) -> str:
    """The last tick of every indicator, each sample at the end of its tick (milliseconds since 1970).

    What has no figure has no sample: a monitoring system then shows the series as absent.
    """
    task = task_of(plan)
    samples: dict[str, list[str]] = {name: [] for name in _MEASURED}
    for indicator in task.indicators:
        if not (found := of(figures, indicator)):
            continue
        last = found[-1]
        ends = int(task.begins(last.tick + 1).timestamp() * 1000)
        labels = f'{{study="{plan.study}",plan="{plan.digest[:12]}",indicator="{indicator.name}"}}'
        count = sum(each.indicator == indicator.name for each in raised)
        values = {"": last.value, "_low": last.low, "_high": last.high, "_hospitals": last.hospitals}
        for suffix, value in (values | {"_alarms_total": count}).items():
            if value is not None:
                samples[f"wardround_indicator{suffix}"].append(f"{labels} {float(value)!r} {ends}")
    lines = [f"# {line}" for line in promises(plan)]
    for name, (kind, about) in _MEASURED.items():
        lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}", *(name + sample for sample in samples[name])]
    return "\n".join(lines) + "\n"


_MEASURED: Final = {
    "wardround_indicator": ("gauge", "Noised figure of the last tick that has a sum."),
    "wardround_indicator_low": ("gauge", "Lower end of its interval."),
    "wardround_indicator_high": ("gauge", "Upper end of its interval."),
    "wardround_indicator_hospitals": ("gauge", "Hospitals in the sum of the last tick."),
    "wardround_indicator_alarms_total": ("counter", "Alarms of the CUSUM on the noised series."),
}


def when(figure: Figure) -> str:
    """When its tick begins, UTC."""
    return f"{figure.begins:%Y-%m-%d %H:%M}"


def task_of(plan: StudyPlan) -> Indicators:
    """The plan's indicators. Raises TypeError for another plan."""
    if not isinstance(plan.task, Indicators):
        raise TypeError(f"the plan's task is '{plan.task.name}'")
    return plan.task


def _kind(indicator: Indicator, task: Indicators) -> str:
    span = {"15min": "15 minutes", "hour": "an hour", "day": "a day"}[task.tick]
    return f"after {span}" if isinstance(indicator, Level) else f"in {span}"


def _fields(task: Indicators, figure: Figure) -> dict[str, Any]:
    indicator = next(each for each in task.indicators if each.name == figure.indicator)
    found = {name: getattr(figure, name) for name in _COLUMNS if name not in ("begins", "unit")}
    return {**found, "begins": f"{figure.begins:%Y-%m-%dT%H:%M:%SZ}", "unit": unit_of(indicator)}


def _table(title: str, *columns: str) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title=Text(title), title_justify="left",
        title_style="bold",
    )  # fmt: skip
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def _value(figure: Figure, unit: str) -> Text:
    if figure.value is None or figure.low is None or figure.high is None:
        return Text("none", "dim")
    text = Text(f"{rough(figure.value)} {unit}".rstrip())
    text.append(f" [{rough(figure.low)}, {rough(figure.high)}]", "dim")
    return text
