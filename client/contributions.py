"""From a hospital's events to what each tick of a campaign counts, with every patient held to the plan's bound.

``Contributions`` is a fold over ``Step``s, one for each tick that was answered: the same steps give the same state, so
a site that was restarted goes on from what its database holds. Rules, in order, for the step of a tick:

1. What the last answered tick counted and no sum holds (the model says who is in each tick) is counted again in this
   one: a further contribution of each patient who is in it. That tick counts nothing from then on.
2. An event counts in the tick in which it arrives, whenever it happened. One of before the campaign does not count; one
   that has not happened by the end of the tick waits.
3. An identifier that the same patient had before is a correction, and contributes the difference; amount 0 takes an
   event back. An identifier of another patient is another event, so that no patient's events change what another
   contributes: an event that was noted under the wrong patient is taken back there and told anew here.
4. Who was not counted in does not count out: a patient leaves a level only where an entry was counted, and an entry
   that is told after the exit it belongs to counts no more than that. So nobody stays in a level for ever because of
   the next rule, which keeps one contribution back for the way out.
5. Who has opted out since is in no later tick: neither with an event that waits, nor with what is counted again. What
   was released stays released, and who opts out inside a level stays in it.
6. A contribution of size s counts as ceil(s / b) of a patient's m contributions to that indicator. Who has not so many
   left contributes nothing, and nobody hears of it.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from math import ceil
from typing import Any, Self

import numpy as np

from wardround.client.feeds.events import Event
from wardround.privacy.gradients import Array
from wardround.protocol.indicators import Indicators, Level

_SLACK = 1e-9
"""So that a difference of two amounts that should be b is not taken for more than b."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a tick took. ``again``: the last answered tick is in no sum, and what it counted is counted once more.

    ``gone``: who has opted out, of the patients whose events waited or were to be counted again.
    """

    tick: int
    again: bool
    events: tuple[Event, ...]
    watermark: bytes
    gone: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """JSON, for the site's own database."""
        events = [[e.patient, e.at.isoformat(), e.kind, e.amount, e.identifier] for e in self.events]
        found = {"tick": self.tick, "again": self.again, "gone": self.gone, "events": events}
        return json.dumps({**found, "watermark": self.watermark.hex()}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        found: dict[str, Any] = json.loads(data)
        events = (Event(p, datetime.fromisoformat(at), kind, amount, i) for p, at, kind, amount, i in found["events"])
        gone, watermark = tuple(found["gone"]), bytes.fromhex(found["watermark"])
        return cls(found["tick"], found["again"], tuple(events), watermark, gone)


@dataclass(slots=True)
class Contributions:
    """Everything that a campaign has counted at one hospital.

    ``stream`` (ticks, indicators) is x_t in each indicator's unit; ``used`` holds contributions by (patient,
    indicator), ``inside`` how often a patient is in a level, and ``left`` when one left without having been counted in;
    ``worth`` what each (patient, identifier) counts for, by indicator; ``last`` is the last answered tick,
    and ``counted`` what that tick counted of whom.
    """

    task: Indicators
    stream: Array = field(init=False)
    used: Counter[tuple[str, int]] = field(default_factory=Counter)
    worth: dict[tuple[str, str], Array] = field(default_factory=dict)
    inside: Counter[tuple[str, int]] = field(default_factory=Counter)
    left: dict[tuple[str, int], list[datetime]] = field(default_factory=dict)
    waiting: list[Event] = field(default_factory=list)
    watermark: bytes | None = None
    last: int = 0
    counted: list[tuple[str, int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stream = np.zeros((self.task.ticks, len(self.task.indicators)))

    def apply(self, step: Step) -> None:
        """Take the step of a later tick than the last. Raises ValueError for another."""
        if step.tick <= self.last:
            raise ValueError(f"tick {step.tick} does not come after tick {self.last}")
        before, self.counted = self.counted, []
        if step.again:
            self.stream[self.last - 1] = 0.0
            for patient, number, size in before:
                if patient not in step.gone:
                    self._contribute(step.tick, patient, number, size)
        waited = [event for event in self.waiting if event.patient not in step.gone]
        due, ends = [*waited, *step.events], self.task.begins(step.tick + 1)
        self.waiting = [event for event in due if event.at >= ends]
        for event in due:
            if self.task.start <= event.at < ends:
                self._take(step.tick, event)
        self.last, self.watermark = step.tick, step.watermark

    def pending(self, again: bool) -> set[str]:
        """Whose events wait for a later tick, and, if ``again``, who was counted in the last one."""
        counted = (patient for patient, _, _ in self.counted) if again else ()
        return {*(event.patient for event in self.waiting), *counted}

    def _take(self, tick: int, event: Event) -> None:
        indicators = self.task.indicators
        worth = self.worth.setdefault((event.patient, event.identifier), np.zeros(len(indicators)))
        for number, indicator in enumerate(indicators):
            size = indicator.worth(event.kind, event.amount) - worth[number]
            if isinstance(indicator, Level) and not worth[number] and self._unmatched(event, number, size):
                continue
            if size and self._contribute(tick, event.patient, number, size):
                worth[number] += size
                self.inside[event.patient, number] += round(np.sign(size))

    def _unmatched(self, event: Event, number: int, size: float) -> bool:
        """Whether a patient's way in or out of a level is not counted because the other one was not."""
        key = event.patient, number
        if size < 0 and self.inside[key] < 1:
            self.left.setdefault(key, []).append(event.at)
            return True
        after = [at for at in self.left.get(key, ()) if at >= event.at]
        if size > 0 and after:
            self.left[key].remove(min(after))
            return True
        return False

    def _contribute(self, tick: int, patient: str, number: int, size: float) -> bool:
        """Whether ``patient`` had enough left to contribute ``size`` to indicator ``number`` in ``tick``."""
        indicator = self.task.indicators[number]
        needed = max(1, ceil(abs(size) / indicator.bound - _SLACK))
        kept = 1 if isinstance(indicator, Level) and size > 0 else 0
        if self.used[patient, number] + needed + kept > indicator.contributions:
            return False
        self.used[patient, number] += needed
        self.stream[tick - 1, number] += size
        self.counted.append((patient, number, size))
        return True
