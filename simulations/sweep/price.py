"""What choosing by a sweep would have cost, had its patients been a hospital's: selection is not free."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from wardround.privacy.accounting import epsilon
from wardround.privacy.private_selection import Selection, cheapest
from wardround.protocol.events import DpEvent
from wardround.simulations.sweep.folder import Finished
from wardround.simulations.sweep.table import limit_of, other_settings


@dataclass(frozen=True, slots=True)
class Price:
    """Epsilons at ``delta`` for one patient of one hospital, adding or removing one, of choosing at one level.

    ``one_run``: of a single run, as if nothing had been chosen. ``every_run``: of all that this sweep ran, added up.
    ``private``: of the best of a random number of trials, as many as contenders in the mean, with one run each.
    ``private_means``: the same, where each trial runs every seed and means are compared.
    """

    level: float
    delta: float
    contenders: int
    seeds: int
    one_run: float
    every_run: float
    private: Selection
    private_means: Selection


def prices(runs: Sequence[Finished]) -> list[Price]:
    """One price for each level with protection, rising; none where there was nothing to choose."""
    found = []
    for level in sorted({limit_of(run) for run in runs} - {inf}):
        here = [run for run in runs if limit_of(run) == level]
        contenders: dict[str, list[Finished]] = {}
        for run in here:
            contenders.setdefault(repr(other_settings(run)), []).append(run)
        delta = here[0].plan.privacy.delta
        if len(contenders) < 2 or delta is None:
            continue
        one_each = [_released(members[:1]) for members in contenders.values()]
        all_seeds = [_released(members) for members in contenders.values()]
        found.append(
            Price(
                level,
                delta,
                len(contenders),
                max(len(members) for members in contenders.values()),
                max(epsilon(events, delta) for events in one_each),
                epsilon(_released(here), delta),
                cheapest(one_each, delta, float(len(contenders))),
                cheapest(all_seeds, delta, float(len(contenders))),
            )
        )
    return found


def _released(runs: Sequence[Finished]) -> list[DpEvent]:
    """What these runs together released about the patients of a hospital: the same noise at each."""
    return [run.plan.round_event(run.plan.participants[0].site) for run in runs for _ in range(run.plan.rounds)]
