"""What a campaign counts of a hospital's events: each once, corrections as differences, no patient beyond the bound."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from wardround.client.contributions import Contributions, Step
from wardround.client.feeds.events import Event
from wardround.privacy.continual import closed_sums, scale
from wardround.protocol.indicators import Count, Indicators, Level, Total

START = datetime(2026, 1, 5, tzinfo=UTC)
TASK = Indicators(
    start=START,
    tick="day",
    ticks=12,
    hospitals=1,
    indicators=(
        Count(name="admissions", event="admission", contributions=2),
        Level(name="beds", enters="admission", leaves="discharge", contributions=3),
        Total(name="minutes", event="wait", upper=60.0, contributions=2, share=4.0),
    ),
)


def seen(patient: str, day: float, kind: str = "admission", amount: float = 1.0, identifier: str = "1") -> Event:
    return Event(patient, START + timedelta(days=day), kind, amount, identifier)


def after(*ticks: Sequence[Event], again: Sequence[int] = (), task: Indicators = TASK) -> Contributions:
    held = Contributions(task)
    for number, events in enumerate(ticks, 1):
        held.apply(Step(number, number in again, tuple(events), b"w"))
    return held


def test_an_event_counts_in_the_tick_in_which_it_arrives() -> None:
    held = after([seen("a", 0.5)], [seen("b", 0.2)])
    assert held.stream[:2, 0].tolist() == [1, 1]


def test_an_event_that_has_not_happened_yet_waits_for_its_tick() -> None:
    held = after([seen("a", 2.5)], [], [], [])
    assert held.stream[:4, 0].tolist() == [0, 0, 1, 0]


def test_an_event_of_before_the_campaign_does_not_count() -> None:
    assert not after([seen("a", -0.1)]).stream.any()


def test_an_event_that_is_told_twice_counts_once() -> None:
    assert after([seen("a", 0)], [seen("a", 0)]).stream[:2, 0].tolist() == [1, 0]


def test_who_has_opted_out_is_counted_neither_with_an_event_that_waits_nor_again() -> None:
    held = Contributions(TASK)
    held.apply(Step(1, False, (seen("a", 0), seen("b", 0), seen("c", 1.5), seen("d", 1.5)), b"w"))
    assert held.pending(again=False) == {"c", "d"} and held.pending(again=True) == set("abcd")
    held.apply(Step(2, True, (), b"w", gone=("a", "c")))
    assert held.stream[:2, 0].tolist() == [0, 2], "b again, and d's event that waited"
    assert Step.from_bytes(Step(2, True, (), b"w", gone=("a",)).to_bytes()).gone == ("a",)


def test_a_correction_contributes_the_difference_where_it_arrives() -> None:
    held = after([seen("a", 0, "wait", 20)], [seen("a", 0, "wait", 50)])
    assert held.stream[:2, 2].tolist() == [20, 30]
    assert held.used["a", 2] == 2


def test_an_amount_of_zero_takes_an_event_back() -> None:
    held = after([seen("a", 0)], [seen("a", 0, amount=0)])
    assert held.stream[:2, 0].tolist() == [1, -1]


def test_a_correction_that_turns_an_admission_into_a_discharge_is_two_contributions_to_a_level() -> None:
    held = after([seen("a", 0)], [seen("a", 0, "discharge")])
    assert held.stream[:2, 1].tolist() == [1, -2]
    assert held.used["a", 1] == 3


def test_a_way_into_a_level_keeps_one_contribution_back_for_the_way_out() -> None:
    stays = [seen("a", 0, kind, identifier=f"{kind}{n}") for n in range(3) for kind in ("admission", "discharge")]
    held = after(stays[:1], stays[1:2], stays[2:3], stays[3:4], stays[4:])
    assert held.stream[:5, 1].tolist() == [1, -1, 0, 0, 0]


def test_who_was_not_counted_in_does_not_count_out() -> None:
    assert not after([seen("a", 0, "discharge")]).stream.any()


def test_an_entry_that_is_told_after_its_exit_leaves_nobody_in_a_level() -> None:
    held = after([], [seen("a", 1, "discharge", identifier="out")], [seen("a", 0.5)], [seen("a", 3, identifier="2")])
    assert held.stream[:4, 1].tolist() == [0, 0, 0, 1]


def test_amounts_are_held_to_their_range_and_no_number_is_zero() -> None:
    held = after([seen("a", 0, "wait", 1e9), seen("b", 0, "wait", float("nan")), seen("c", 0, "wait", -5)])
    assert held.stream[0, 2] == 60


def test_a_patient_contributes_no_more_than_the_plan_says() -> None:
    held = after([seen("a", 0, identifier=str(n)) for n in range(50)], [seen("a", 0, identifier="x")])
    assert held.stream[:, 0].sum() == 2
    assert held.stream[:, 1].sum() == 2


def test_the_same_identifier_of_another_patient_is_another_event() -> None:
    assert after([seen("a", 0)], [seen("b", 0)]).stream[:2, 0].tolist() == [1, 1]


def test_what_is_in_no_sum_is_counted_again_and_costs_its_patients_another_contribution() -> None:
    held = after([seen("a", 0)], [], again=[2])
    assert held.stream[:2, 0].tolist() == [0, 1]
    assert held.used["a", 0] == 2
    assert after([seen("a", 0)], [], [], again=[2, 3]).stream[:3, 0].tolist() == [0, 0, 0]


def test_ticks_do_not_go_back() -> None:
    held = after([])
    with pytest.raises(ValueError, match="does not come after"):
        held.apply(Step(1, False, (), b""))


def test_a_step_comes_back_from_its_bytes() -> None:
    step = Step(3, True, (seen("ä", 0.25, "wait", 12.5), replace(seen("b", 1), amount=0.0)), b"\x00\xff")
    assert Step.from_bytes(step.to_bytes()) == step


@dataclass(frozen=True)
class Stream:
    """Steps of a campaign by tick, with the ticks whose sums were lost."""

    ticks: tuple[tuple[Event, ...], ...]
    again: frozenset[int]

    def without(self, patient: str) -> "Stream":
        return Stream(tuple(tuple(e for e in tick if e.patient != patient) for tick in self.ticks), self.again)

    def released(self, task: Indicators = TASK) -> np.ndarray:
        """Every number that leaves, before its noise, in units of the joint bound."""
        held, found = Contributions(task), []
        scales = np.array([scale(task, indicator) for indicator in task.indicators])
        for number, events in enumerate(self.ticks, 1):
            held.apply(Step(number, number in self.again, events, b""))
            found.append((closed_sums(held.stream, number) / scales).ravel())
        return np.concatenate(found)


def worst(ticks: int) -> Stream:
    """All that one patient may do, in the first tick, in the same direction."""
    events = [seen("a", 0, "admission", 1, f"a{n}") for n in range(9)]
    events += [seen("a", 0, "wait", 60, f"w{n}") for n in range(9)]
    return Stream((tuple(events), *[()] * (ticks - 1)), frozenset())


def any_stream(seed: int) -> Stream:
    random = np.random.default_rng(seed)
    ticks: list[tuple[Event, ...]] = []
    for tick in range(TASK.ticks):
        events = [
            Event(
                str(random.choice(["a", "b", "c"])),
                START + timedelta(days=float(random.uniform(-1, tick + 3))),
                str(random.choice(["admission", "discharge", "wait"])),
                float(random.choice([0.0, 1.0, 60.0, 1000.0])),
                str(random.integers(4)),
            )
            for _ in range(random.integers(6))
        ]
        ticks.append(tuple(events))
    return Stream(tuple(ticks), frozenset(random.choice(TASK.ticks, 3).tolist()) - {0, 1})


def test_one_patient_with_everything_that_is_theirs_moves_all_that_is_released_by_one_at_most() -> None:
    """Late, corrected, repeated and withdrawn events, identifiers in common with others, and ticks that were lost."""
    for seed in range(150):
        stream = any_stream(seed)
        for patient in "abc":
            moved = np.linalg.norm(stream.released() - stream.without(patient).released())
            assert moved <= 1 + 1e-9, f"seed {seed}, patient {patient}: {moved}"


def test_the_bound_is_met_by_the_worst_patient_so_no_noise_is_wasted() -> None:
    stream, task = worst(TASK.ticks), TASK.model_copy(update={"indicators": (TASK.indicators[0], TASK.indicators[2])})
    assert np.linalg.norm(stream.released(task) - stream.without("a").released(task)) == pytest.approx(1.0)
