"""The cost planner: what a plan would cost this hospital with other rounds or other noise, and what would be left.

What the ledger charges is counted: rounds, or a campaign of indicators once and whole, which may have other noise only.

A plan with other terms is another plan: it would be charged from its first round on, beside what the proposed one was
charged already. Every epsilon is the accountant's, every amount of budget the filter's; both keep what they computed.
"""

import math
from dataclasses import dataclass
from typing import Final

from wardround.client.governance import charge_for
from wardround.console.web.queries.studies import Figure, Room, figures, named_site
from wardround.privacy.accounting import within
from wardround.privacy.budget import cost
from wardround.protocol.errors import UsageError
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.indicators import Indicators
from wardround.protocol.plan import NOISE_OF_A_STATISTIC, Claim, PrivacyMode, StudyPlan
from wardround.protocol.statistics import Statistics

MOST_ROUNDS: Final = 10_000
"""Of a plan."""

LEAST_NOISE: Final = 0.1
MOST_NOISE: Final = 100.0
"""Asked for by the slider, unless the plan itself lies outside."""

CURVE_POINTS: Final = 8


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may be asked: ``slider`` is the most rounds that the slider shows; a field takes ``least_rounds`` up to
    ``most_rounds``."""

    slider: int
    least_noise: float
    most_noise: float
    most_rounds: int = MOST_ROUNDS
    least_rounds: int = 1


@dataclass(frozen=True, slots=True)
class RoomAfter:
    """A data domain when the study has been charged: how many more charges, and whole studies, like it would fit."""

    room: Room
    fits: bool
    charges_left: int
    studies_left: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What a study of ``rounds`` at ``noise`` costs, and what each domain has left after it.

    ``campaign``: its rounds are ticks, and are charged together.
    """

    rounds: int
    noise: float
    figures: tuple[Figure, ...]
    after: tuple[RoomAfter, ...]
    campaign: bool = False


@dataclass(frozen=True, slots=True)
class Point:
    """After so many rounds: epsilon against everyone and, where it is claimed, against those who may collude."""

    rounds: int
    everyone: float
    consortium: float | None


def bounds(plan: StudyPlan) -> Bounds:
    """What may be asked about a plan with differential privacy."""
    noise = proposed_noise(plan)
    if isinstance(plan.task, Statistics | Indicators):
        # What is asked fixes the rounds, and more noise than masks have room for is no plan.
        room = noise + (plan.most_of_a_statistic - 1.0) / NOISE_OF_A_STATISTIC - 0.01  # noise is rounded to hundredths
        least, most, rounds = min(LEAST_NOISE, noise), max(min(MOST_NOISE, room), noise), plan.rounds
        return Bounds(rounds, least, most, most_rounds=rounds, least_rounds=rounds)
    slider = min(MOST_ROUNDS, max(10, 3 * plan.rounds))
    return Bounds(slider, min(LEAST_NOISE, noise), max(MOST_NOISE, noise))


def proposed_noise(plan: StudyPlan) -> float:
    """The plan's own noise multiplier. Raises UsageError for a plan without differential privacy."""
    if plan.privacy.mode is PrivacyMode.NONE or plan.privacy.noise_multiplier is None:
        raise UsageError("this plan has no differential privacy", "no epsilon can be planned for it")
    return plan.privacy.noise_multiplier


def cost_of(plan: StudyPlan, site: str, rooms: tuple[Room, ...], rounds: int, noise: float) -> Cost:
    """The cost of ``plan`` with these rounds and this noise; its own cost where they are its own."""
    asked = with_terms(plan, rounds, noise)
    after = tuple(_after(asked, site, room, room.charged if asked is plan else 0) for room in rooms)
    return Cost(rounds, noise, figures(asked, site), after, isinstance(plan.task, Indicators))


def curve(plan: StudyPlan, site: str, last: int, noise: float) -> tuple[Point, ...]:
    """Upper bounds after some numbers of rounds up to ``last``, near the epsilons that a figure would show.

    None of a campaign: it costs the same from its first tick to its last.
    """
    if isinstance(plan.task, Indicators):
        return ()
    both = plan.privacy.claim is Claim.EPSILON_BOTH
    asked, delta, of = with_terms(plan, plan.rounds, noise), plan.privacy.delta, named_site(plan, site)
    assert delta is not None
    own, shared = asked.round_event(of), asked.consortium_event(of)
    assert isinstance(own, PoissonGaussian) and isinstance(shared, PoissonGaussian)
    marks = sorted({math.ceil(last * point / CURVE_POINTS) for point in range(1, CURVE_POINTS + 1)} | {1})
    return tuple(Point(n, _near(own, n, delta), _near(shared, n, delta) if both else None) for n in marks)


def with_terms(plan: StudyPlan, rounds: int, noise: float) -> StudyPlan:
    """Another plan: the same with other rounds and noise. The plan itself where nothing is other."""
    if (rounds, noise) == (plan.rounds, plan.privacy.noise_multiplier):
        return plan
    privacy = plan.privacy.model_dump() | {"noise_multiplier": noise}
    return StudyPlan.model_validate(plan.model_dump() | {"rounds": rounds, "privacy": privacy})


def _after(plan: StudyPlan, site: str, room: Room, charged: int) -> RoomAfter:
    event = charge_for(plan, named_site(plan, site), room.domain)
    try:
        price = cost(event, room.order)
    except UsageError:  # no budget holds such a release
        return RoomAfter(room, False, 0, 0)
    needed = price * max(0, plan.charges - charged)
    if needed > room.left or room.closed:
        return RoomAfter(room, False, 0, 0)
    charges = (room.left - needed) // price
    return RoomAfter(room, True, charges, charges // plan.charges)


def _near(event: PoissonGaussian, rounds: int, delta: float) -> float:
    """A bound on the epsilon of so many rounds, on the accountant's coarse grid where that is finer than the eye."""
    _, bound = within([event.model_copy(update={"steps": event.steps * rounds})], 0.0, delta)
    return bound
