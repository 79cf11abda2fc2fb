"""Alarms on a noised series: raised where it moves, once, and on nothing that is not comparable."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from wardround.protocol.indicators import Alarm
from wardround.strategies.cusum import alarms
from wardround.strategies.series import Figure

RULE = Alarm(baseline=20)
START = datetime(2026, 1, 5, tzinfo=UTC)


def figures(values: "list[float | None] | np.ndarray", odd: frozenset[int] = frozenset()) -> list[Figure]:
    return [
        Figure(
            "beds", tick, START + timedelta(days=tick - 1), value, value, value, 1.0, 5,
            away=("west",) if tick in odd else (),
        )
        for tick, value in enumerate(values, 1)
    ]  # fmt: skip


def series(moved: float, ticks: int = 60) -> np.ndarray:
    """90 and 110 in turn, which move at tick 41."""
    values = 100 + 10 * np.where(np.arange(ticks) % 2, 1.0, -1.0)
    values[40:] += moved
    return values


@pytest.mark.parametrize(("moved", "direction"), [(20.0, "above"), (-20.0, "below")])
def test_a_series_that_moves_by_two_deviations_is_told_of_once_and_soon(moved: float, direction: str) -> None:
    found = alarms(figures(series(moved)), RULE)
    assert [alarm.direction for alarm in found] == [direction]
    assert 41 <= found[0].tick <= 46 and found[0].usual == pytest.approx(100, abs=6)


def test_the_sums_are_those_of_the_formula() -> None:
    """By hand: mean 2, deviation 1 of the first five; then z = 2 each tick, so H grows by 1.5: 1.5, 3, 4.5, 6."""
    first = [1.0, 2.0, 3.0, 2.0 - np.sqrt(1.0), 2.0 + np.sqrt(1.0)]
    assert np.std(first, ddof=1) == pytest.approx(1.0)
    found = alarms(figures([*first, 4.0, 4.0, 4.0, 4.0, 4.0]), Alarm(baseline=5))
    assert [(alarm.tick, alarm.direction, alarm.usual) for alarm in found] == [(9, "above", 2.0)]


def test_a_series_in_which_nothing_happens_is_mostly_quiet() -> None:
    """Normal numbers: 30 figures after a baseline of 60; of 100 such series about one in ten has an alarm."""
    normal = [np.random.default_rng(seed).normal(100, 10, 90) for seed in range(100)]
    assert 1 <= sum(bool(alarms(figures(values), Alarm(baseline=60))) for values in normal) <= 25


def test_an_alarm_is_raised_again_after_the_series_was_back() -> None:
    values = np.concatenate([series(0.0, 40), np.full(10, 140.0), np.full(30, 100.0), np.full(10, 140.0)])
    found = alarms(figures(values), RULE)
    assert [alarm.direction for alarm in found] == ["above", "above"]
    assert 41 <= found[0].tick <= 45 and 81 <= found[1].tick <= 85


def test_figures_that_are_not_comparable_are_passed_over() -> None:
    values = list(series(0.0))
    values[45:50] = [1e6] * 5
    assert not alarms(figures(values, frozenset(range(46, 51))), RULE)
    assert alarms(figures(values), RULE)


def test_ticks_that_are_passed_over_say_nothing_of_what_is_usual() -> None:
    values = np.concatenate([np.zeros(20), series(0.0, 60)])
    assert not alarms(figures(values), Alarm(settling=20, baseline=20))
    assert alarms(figures(values), Alarm(baseline=30))


def test_a_short_or_constant_series_has_no_alarm() -> None:
    assert not alarms(figures(series(50.0, 20)), RULE)
    assert not alarms(figures([1.0] * 30 + [2.0]), RULE)
