"""Events of made-up hospitals: admissions with a weekly rhythm, stays, visits, emergencies and waiting times.

Patients are drawn from the declared number, so some come more than once. A share of events is told late, and some
waiting times are corrected. ``MadeUpFeed`` tells them as a source that is tailed would: what has arrived by now.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np

from wardround.client.feeds.events import EVENTS_AT_ONCE, Event
from wardround.conf.indicators import MadeUp
from wardround.protocol.indicators import Indicators

_WEEK: Final = (1.15, 1.1, 1.05, 1.0, 1.05, 0.85, 0.8)
"""Admissions of a weekday, from Monday on, relative to the average."""

EMERGENCIES: Final = 0.35
"""Share of admissions that begin in the emergency department."""

VISITS: Final = 3
"""Outpatient visits for each admission."""

WAIT_MINUTES: Final = 40.0


@dataclass(frozen=True, slots=True)
class Told:
    """An event, and when the source tells of it."""

    arrives: datetime
    event: Event


class MadeUpFeed:
    """Tells what has arrived by ``now()``, ``at_once`` events in a poll. The watermark is how much was told before."""

    def __init__(self, told: Sequence[Told], now: Callable[[], datetime], at_once: int = EVENTS_AT_ONCE) -> None:
        self._told = sorted(told, key=lambda each: (each.arrives, each.event.identifier))
        self._times = [each.arrives for each in self._told]
        self._now, self._at_once = now, at_once
        self.set_aside: Counter[str] = Counter()

    def poll(self, watermark: bytes | None) -> tuple[Sequence[Event], bytes]:
        first = int(watermark or b"0")
        last = min(bisect_right(self._times, self._now()), first + self._at_once)
        return [each.event for each in self._told[first:last]], str(last).encode()


def made_up(task: Indicators, given: MadeUp, site: str, place: int, patients: int) -> list[Told]:
    """All events of hospital ``site``, the ``place``-th, over the campaign; the same for the same seed."""
    random = np.random.default_rng([given.seed, place])
    told: list[Told] = []
    days = -(-(task.begins(task.ticks + 1) - task.begins(1)) // timedelta(days=1))
    size = given.admissions_per_day * random.uniform(0.7, 1.3)
    asked = {kind for each in task.indicators for kind in each.kinds}
    surge = None if given.surge_from is None else task.begins(given.surge_from)

    def tell(patient: str, at: datetime, kind: str, amount: float = 1.0, named: str | None = None) -> str:
        late = random.uniform(0, 2) if random.random() < given.late else 0.0
        name = named or f"{site}-{len(told)}"
        told.append(Told(at + timedelta(days=late), Event(patient, at, kind, amount, name)))
        return name

    for day in range(days):
        begins = task.begins(1) + timedelta(days=day)
        more = given.surge if surge is not None and begins >= surge else 1.0
        rate = size * more * _WEEK[begins.weekday()]
        for _ in range(random.poisson(rate)):
            patient, at = f"p{random.integers(patients)}", begins + timedelta(days=random.uniform())
            tell(patient, at, "admission")
            tell(patient, at + timedelta(days=random.exponential(given.stay_days)), "discharge")
            if random.random() < EMERGENCIES:
                tell(patient, at, "emergency")
        for _ in range(random.poisson(VISITS * rate) if asked & {"visit", "waiting"} else 0):
            patient, at = f"p{random.integers(patients)}", begins + timedelta(days=random.uniform())
            tell(patient, at, "visit")
            minutes = random.exponential(WAIT_MINUTES)
            named = tell(patient, at, "waiting", minutes)
            if random.random() < given.corrected:
                later = at + timedelta(days=random.uniform(0.5, 3))
                told.append(Told(later, Event(patient, at, "waiting", minutes * random.uniform(0.5, 1.5), named)))
    return told
