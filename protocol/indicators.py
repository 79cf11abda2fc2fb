"""What a standing study asks: indicators of the hospitals, published tick by tick, as data that an officer reads.

Torch-free and without a number of any patient. A tick is a round of the plan. Its vector holds the sums of the tree's
nodes that close at it (``protocol.dyadic``), and the plan's result is the table of all of them in the order of ticks.

An event of a patient has a kind and an amount. Of indicator k it is worth a number within -b_k .. b_k: of a *count* and
a *level* its amount held within 0 .. 1, of a *total* within 0 .. ``upper``. What enters a level counts up, what leaves
it down. A correction (the same identifier again) is worth the difference, in the tick in which it arrives. A patient
makes at most ``contributions`` of them to an indicator in the whole campaign; what comes after is left out.

Two times: events have the campaign's, in which a tick is a quarter of an hour, an hour or a day. By the clock of the
machines a tick takes as long, but for a *rehearsal*, which plays it in seconds.
"""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AwareDatetime, Field, model_validator

from wardround.protocol.dyadic import levels, nodes
from wardround.protocol.parameters import Layout, Tensor
from wardround.protocol.part import Part, later
from wardround.protocol.untrained import LARGEST, Untrained

PRESENT: Final = "present"
"""The tensor of the result that says which hospitals are in the sum of a tick, shape (ticks, hospitals)."""

TICKS: Final = {"15min": timedelta(minutes=15), "hour": timedelta(hours=1), "day": timedelta(days=1)}

Kind: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]


class _Indicator(Part):
    name: Kind
    contributions: int = Field(ge=1, le=10_000, description="m: the most that one patient makes in the whole campaign")
    share: float = Field(default=1.0, gt=0, le=1e6, description="of the budget, relative to the other indicators")

    @property
    def bound(self) -> float:
        """b: how large one contribution is at most."""
        return 1.0

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of event that it is made of."""
        raise NotImplementedError

    def worth(self, kind: str, amount: float) -> float:
        """What an event of this kind and amount adds; 0 for a kind that is not asked for, or an amount of no number."""
        raise NotImplementedError


class Count(_Indicator):
    """How many events of a kind there are in a tick: visits, admissions, emergencies."""

    what: Literal["count"] = "count"
    event: Kind

    @property
    def kinds(self) -> tuple[str, ...]:
        return (self.event,)

    def worth(self, kind: str, amount: float) -> float:
        return _held(amount, 1.0) if kind == self.event else 0.0


class Level(_Indicator):
    """How many are there at the end of a tick, such as beds in use: all that entered, less all that left."""

    what: Literal["level"] = "level"
    enters: Kind
    leaves: Kind

    @model_validator(mode="after")
    def _two(self) -> "Level":
        if self.enters == self.leaves:
            raise ValueError(f"level '{self.name}': what enters and what leaves are two kinds of event")
        if self.contributions < 2:
            raise ValueError(f"level '{self.name}': a way in and a way out are two contributions")
        return self

    @property
    def kinds(self) -> tuple[str, ...]:
        return self.enters, self.leaves

    def worth(self, kind: str, amount: float) -> float:
        sign = 1.0 if kind == self.enters else -1.0 if kind == self.leaves else 0.0
        return sign * _held(amount, 1.0)


class Total(_Indicator):
    """The sum of the amounts of a kind of event in a tick, such as minutes waited; each within 0 .. ``upper``."""

    what: Literal["total"] = "total"
    event: Kind
    upper: float = Field(gt=0, allow_inf_nan=False)
    unit: str = Field(default="", max_length=20)

    @property
    def kinds(self) -> tuple[str, ...]:
        return (self.event,)

    @property
    def bound(self) -> float:
        return self.upper

    def worth(self, kind: str, amount: float) -> float:
        return _held(amount, self.upper) if kind == self.event else 0.0


Indicator = Annotated[Count | Level | Total, Field(discriminator="what")]


class Alarm(Part):
    """A two-sided CUSUM on the noised series (Page 1954): see ``strategies.cusum``."""

    settling: int = Field(default=0, ge=0, description="first ticks that are passed over: a level begins at 0")
    baseline: int = Field(default=14, ge=5, description="ticks with a figure that say what is usual")
    drift: float = Field(default=0.5, ge=0, description="k, in standard deviations: what is let pass each tick")
    threshold: float = Field(default=5.0, gt=0, description="h, in standard deviations: an alarm is above it")
    weekly: bool = later(
        False,
        description="what is usual is that of the same weekday and time of day; the baseline is two weeks at least",
    )


class Indicators(Untrained):
    """A standing study that trains nothing: every tick each hospital adds the noised sums of the nodes that close."""

    name: Literal["indicators"] = "indicators"
    label_kind: Literal["any"] = "any"
    start: AwareDatetime = Field(description="when the first tick begins, UTC; events before it are not counted")
    tick: Literal["15min", "hour", "day"] = "day"
    ticks: int = Field(ge=2, le=10_000, description="T: the campaign ends after so many, and so does its budget")
    on_absence: Literal["wait", "gap", "local"] = Field(
        default="gap",
        description="a tick that too few hospitals answer: tried again (wait) or left out at once (gap); local: every "
        "hospital adds in the open with its own full noise, so any of them make a tick",
    )
    hospitals: int = Field(ge=1, le=100)
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="of every interval")
    alarm: Alarm = Alarm()
    indicators: tuple[Indicator, ...] = Field(min_length=1, max_length=64)
    rehearsal_seconds: float | None = later(
        None,
        gt=0,
        le=900,
        description="a rehearsal with made-up events: a tick takes so many seconds; null: as long as it says",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Indicators":
        if self.start.utcoffset() != timedelta(0) or self.start.microsecond:
            raise ValueError("the first tick begins at a whole second of UTC")
        names = [each.name for each in self.indicators]
        if len(set(names)) < len(names) or PRESENT in names:
            raise ValueError(f"indicators have distinct names, and none is called '{PRESENT}'")
        if self.alarm.weekly and self.alarm.baseline * TICKS[self.tick] < timedelta(days=14):
            raise ValueError(
                "a weekly alarm has a baseline of two weeks at least: one week says nothing of its variation"
            )
        if self.layout(0).size > LARGEST:
            raise ValueError(f"ticks, hospitals and indicators make more than {LARGEST} numbers")
        return self

    @property
    def kinds(self) -> tuple[str, ...]:
        """Every kind of event that is counted, sorted."""
        return tuple(sorted({kind for each in self.indicators for kind in each.kinds}))

    @property
    def levels(self) -> int:
        """L: nodes that a tick lies in at most, and the most that close at one."""
        return levels(self.ticks)

    def layout(self, features: int) -> Layout:
        """Which hospitals are in each tick, then of each indicator every node in the order of ticks."""
        series = (Tensor(each.name, (nodes(self.ticks),), 0) for each in self.indicators)
        return Layout((Tensor(PRESENT, (self.ticks, self.hospitals), 0), *series))

    def begins(self, tick: int) -> datetime:
        """When ``tick``, from 1, begins, UTC. It ends where the next begins."""
        return self.start.astimezone(UTC) + (tick - 1) * TICKS[self.tick]

    @property
    def lasts(self) -> timedelta:
        """How long a tick takes by the clock."""
        return TICKS[self.tick] if self.rehearsal_seconds is None else timedelta(seconds=self.rehearsal_seconds)

    def clock(self, tick: int) -> datetime:
        """What the clock says when ``tick`` begins, UTC: in a rehearsal another time than ``begins``."""
        return self.start.astimezone(UTC) + (tick - 1) * self.lasts

    def at(self, now: datetime) -> datetime:
        """The campaign's time, which events have, when the clock says ``now``."""
        return (
            now if self.rehearsal_seconds is None else self.start + (now - self.start) / self.lasts * TICKS[self.tick]
        )

    def ended(self, now: datetime) -> int:
        """How many ticks are over when the clock says ``now``, at most all."""
        return max(0, min(self.ticks, (now - self.start) // self.lasts))


def alone(sites: int) -> str:
    """Why so few hospitals have privacy mode LOCAL and nothing else, in words."""
    if sites == 1:
        return "one hospital's sum is its own, so only its own full noise (LOCAL) protects its patients"
    return (
        "of two hospitals each knows the other's part of a sum by taking away its own, so only the full noise of each "
        "(LOCAL) protects their patients"
    )


def _held(amount: float, upper: float) -> float:
    """``amount`` within 0 .. ``upper``; 0 for what is no number."""
    return min(max(amount, 0.0), upper) if amount == amount else 0.0
