"""Which events of a source a ``CohortSpec`` takes, and what is kept of them."""

from abc import ABC, abstractmethod
from array import array
from collections.abc import Collection
from typing import Final, get_args

import numpy as np

from wardround.client.connectors.cohort_spec import CohortSpec, Kind
from wardround.client.connectors.cohort_spec import Event as EventColumn
from wardround.client.connectors.events import Clock, Event, Tally
from wardround.client.connectors.reduction import Reducer, reducer_of
from wardround.client.connectors.units import SAME, Conversion, check_unit, conversion, dimensionless
from wardround.protocol.errors import UsageError

DAY: Final = 86_400.0
KEPT: Final = 4096
"""Sets of codes whose columns are remembered; an event brings one of a few as a rule."""


def kinds_of(spec: CohortSpec, columns: Collection[str] | None) -> frozenset[str]:
    """The kinds of events that a reader must yield for ``columns`` of a specification (None: all)."""
    plan = Plan(spec, columns)
    if plan.ages:
        return frozenset(get_args(Kind))
    index = [] if spec.index is None else [spec.index.kind]
    return frozenset([*index, *(column.source for column in plan.takes.values())])


class Plan:
    """The specification as look-ups."""

    def __init__(self, spec: CohortSpec, columns: Collection[str] | None) -> None:
        self.spec = spec
        self.names = [name for name in (spec.patient, *spec.columns) if columns is None or name in columns]
        self.about = {
            n: c.source for n, c in spec.columns.items() if n in self.names and not isinstance(c, EventColumn)
        }
        self.takes = {n: c for n, c in spec.columns.items() if n in self.names and isinstance(c, EventColumn)}
        self.by_code: dict[tuple[str, str], list[str]] = {}
        self.by_kind: dict[str, list[str]] = {}
        for name, column in self.takes.items():
            if spec.index is None and (column.days_before is not None or column.days_after):
                raise UsageError(
                    f"column '{name}' has a window of days, and the cohort has no index", "name an 'index', or no days"
                )
            if column.unit is not None:
                try:
                    check_unit(column.unit)
                except UsageError as error:
                    raise UsageError(f"column '{name}': {error.message}", error.hint) from None
            for code in column.codes:
                self.by_code.setdefault((column.source, code), []).append(name)
            if not column.codes:
                self.by_kind.setdefault(column.source, []).append(name)
        self.known: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        self.ages = spec.index is None and "age" in self.about.values()
        self.reads_events = bool(self.takes) or spec.index is not None or self.ages

    def columns_of(self, event: Event) -> list[str]:
        """The columns that take this event, each once."""
        at = (event.kind, event.codes)
        found = self.known.get(at)
        if found is None:
            taken = [*self.by_kind.get(event.kind, ())]
            for code in event.codes:
                taken += self.by_code.get((event.kind, code), ())
            found = list(dict.fromkeys(taken))
            if len(self.known) < KEPT:
                self.known[at] = found
        return found

    def is_index(self, event: Event) -> bool:
        index = self.spec.index
        if index is None or event.kind != index.kind:
            return False
        return not index.codes or any(code in index.codes for code in event.codes)


class Sink(ABC):
    """Takes the events that count."""

    @abstractmethod
    def takes(self, event: Event) -> bool:
        """Whether the event counts."""

    @abstractmethod
    def add(self, event: Event) -> None:
        """Take an event that counts."""

    def see(self, event: Event) -> None:  # noqa: B027 (most have nothing to do here)
        """Every event, taken or not."""


class Indexes(Sink):
    """The moment of the index of each patient."""

    def __init__(self, plan: Plan, clock: Clock, tally: Tally) -> None:
        self.plan, self.clock, self.tally = plan, clock, tally
        assert plan.spec.index is not None
        self.better = min if plan.spec.index.take == "first" else max
        self.times: dict[str, float] = {}

    def takes(self, event: Event) -> bool:
        return self.plan.is_index(event)

    def add(self, event: Event) -> None:
        seconds = self.clock.seconds(event.time)
        if seconds is not None:
            self.times[event.patient] = self.better(seconds, self.times.get(event.patient, seconds))


class Reduction(Sink):
    """What is kept of each patient and column."""

    def __init__(self, plan: Plan, clock: Clock, tally: Tally, index: dict[str, float] | None) -> None:
        self.plan, self.clock, self.tally, self.index = plan, clock, tally, index
        self.number: dict[str, int] = {}
        self.taken = array("q")
        self.last = array("d")
        self.columns: dict[str, Reducer] = {name: reducer_of(column) for name, column in plan.takes.items()}
        self.one_unit: dict[str, str | None] = {}

    def takes(self, event: Event) -> bool:
        return bool(self.plan.columns_of(event)) or self.plan.is_index(event)

    def see(self, event: Event) -> None:
        if self.plan.ages and not event.void:
            seconds = self.clock.seconds(event.time)
            if seconds is not None:
                patient = self._number_of(event.patient)
                self.last[patient] = max(seconds, self.last[patient])

    def add(self, event: Event) -> None:
        patient = self._number_of(event.patient)
        names = self.plan.columns_of(event)
        self.taken[patient] += bool(names) or self.plan.is_index(event)
        seconds = self.clock.seconds(event.time)
        if seconds is None:
            reason = "no time" if event.time is None else "a time that cannot be"
            self.tally.add(f"{event.kind}: {event.problem if event.problem.startswith('a time') else reason}")
            return
        around = 0.0
        if self.index is not None:
            if event.patient not in self.index:
                return
            around = self.index[event.patient]
        for name in names:
            column = self.plan.takes[name]
            if self.index is not None:
                early = column.days_before is not None and seconds < around - column.days_before * DAY
                if early or seconds > around + column.days_after * DAY:
                    continue
            self._reduce(name, column, patient, seconds, event)

    def _reduce(self, name: str, column: EventColumn, patient: int, seconds: float, event: Event) -> None:
        kept = self.columns[name]
        number, text = event.number, event.text
        if column.source != "measurement":
            text = next((code for code in column.codes if code in event.codes), next(iter(event.codes), event.text))
            kept.add(patient, seconds, None, text)
            return
        if column.take in ("count", "exists"):
            kept.add(patient, seconds, None, None)
            return
        if event.problem:
            self.tally.add(f"column '{name}': {event.problem}")
            return
        if number is not None:
            if not np.isfinite(number):
                self.tally.add(f"column '{name}': not a number")
                return
            if column.unit is None:
                if self.one_unit.setdefault(name, event.unit) != event.unit:
                    raise UsageError(
                        f"column '{name}' reads values in several units and names none", "write 'unit' for this column"
                    )
            else:
                change = self._conversion(column, event.unit)
                if change is None:
                    reason = "a unit that cannot be converted" if event.unit else "no unit"
                    self.tally.add(f"column '{name}': {reason}")
                    return
                number = number * change.factor + change.offset
                if not np.isfinite(number):
                    self.tally.add(f"column '{name}': not a number")
                    return
        if kept.numeric and number is None:
            self.tally.add(f"column '{name}': {'not a number' if text else 'no value'}")
            return
        if number is None and not text:
            self.tally.add(f"column '{name}': no value")
            return
        kept.add(patient, seconds, number, text)

    def _conversion(self, column: EventColumn, unit: str | None) -> Conversion | None:
        assert column.unit is not None
        if not unit:
            return SAME if dimensionless(column.unit) else None
        try:
            return conversion(unit, column.unit, column.molar_mass)
        except UsageError:
            return None

    def _number_of(self, patient: str) -> int:
        number = self.number.get(patient)
        if number is None:
            number = self.number[patient] = len(self.number)
            self.taken.append(0)
            self.last.append(-np.inf)
            for kept in self.columns.values():
                kept.grow()
        return number
