"""Spending over time: what each plan had spent at the end of each day, week, month or year, and what all had together.

Sums are in the filter's units, as the ledger stood then: a charge that was given back later counts until that day.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final, Literal, TypeAlias

MOST_SPANS: Final = 36
"""Columns of a chart, rows of its table."""

MOST_LAYERS: Final = 5
"""Plans that have a layer of their own, those that have spent most; the rest is one more."""

Step: TypeAlias = Literal["day", "week", "month", "year"]


@dataclass(frozen=True, slots=True)
class Layer:
    """What one plan had spent at the end of each span, in units; ``plan`` None: all the others together."""

    plan: str | None
    spent: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """``spans`` are the first days of the spans; none is left out between the first and the last."""

    step: Step
    spans: tuple[date, ...]
    layers: tuple[Layer, ...]

    @property
    def together(self) -> tuple[int, ...]:
        return tuple(map(sum, zip(*(layer.spent for layer in self.layers), strict=True)))


def timeline(by_day: Mapping[str, Mapping[str, int]], until: str) -> Timeline | None:
    """From units by plan and day (ISO), up to the day ``until``; None: nothing was ever spent.

    A plan whose rounds cost the filter nothing has no layer. Where even years are too many, only the latest are shown;
    what was spent before is in the first.
    """
    by_day = {plan: one for plan, one in by_day.items() if any(one.values())}
    if not by_day:
        return None
    days = {day for one in by_day.values() for day in one}
    first, last = date.fromisoformat(min(days)), date.fromisoformat(max(max(days), until[:10]))
    step, spans = _spans(first, last)
    plans = sorted(by_day, key=lambda plan: (-sum(by_day[plan].values()), plan))
    layers = [Layer(plan, _running(by_day[plan], spans)) for plan in plans[:MOST_LAYERS]]
    if rest := plans[MOST_LAYERS:]:
        others = [_running(by_day[plan], spans) for plan in rest]
        layers.append(Layer(None, tuple(map(sum, zip(*others, strict=True)))))
    return Timeline(step, spans, tuple(layers))


def _spans(first: date, last: date) -> tuple[Step, tuple[date, ...]]:
    steps: tuple[Step, ...] = ("day", "week", "month", "year")
    for step in steps:
        found = [_begin(step, first)]
        while found[-1] < _begin(step, last):
            found.append(_next(step, found[-1]))
            if step != "year" and len(found) > MOST_SPANS:
                break
        if len(found) <= MOST_SPANS:
            return step, tuple(found)
    return "year", tuple(found[-MOST_SPANS:])


def _begin(step: Step, day: date) -> date:
    """The first day of the span that ``day`` is in."""
    match step:
        case "day":
            return day
        case "week":
            return day - timedelta(days=day.weekday())
        case "month":
            return day.replace(day=1)
        case "year":
            return day.replace(month=1, day=1)


def _next(step: Step, begun: date) -> date:
    return _begin(step, begun + timedelta(days={"day": 1, "week": 7, "month": 31, "year": 366}[step]))


def _running(by_day: Mapping[str, int], spans: Sequence[date]) -> tuple[int, ...]:
    """What was spent at the end of each span."""
    ordered, found, total, index = sorted(by_day.items()), [], 0, 0
    for following in (*(span.isoformat() for span in spans[1:]), "9999-99-99"):
        while index < len(ordered) and ordered[index][0] < following:
            total += ordered[index][1]
            index += 1
        found.append(total)
    return tuple(found)
