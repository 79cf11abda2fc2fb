"""Alarms on a noised series: raised where it moves, once, and on nothing that is not comparable."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from wardround.protocol.indicators import Alarm, Indicators
from wardround.strategies.cusum import alarms
from wardround.strategies.series import Figure

RULE = Alarm(baseline=20)
COUNT = {"name": "admissions", "event": "admission", "contributions": 2}
START = datetime(2026, 1, 5, tzinfo=UTC)


def figures(values: "list[float | None] | np.ndarray", odd: frozenset[int] = frozenset()) -> list[Figure]:
    return [
        Figure(
            "beds", tick, START + timedelta(days=tick - 1), value, value, value, 1.0, 5 if value is not None else 0,
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


WEEK = np.array([60.0, 40.0, 20.0, 30.0, 50.0, -90.0, -110.0])
"""Monday to Sunday, beside the mean: hospitals admit fewer at weekends."""

WEEKLY = Alarm(baseline=28, weekly=True)


def weeks(count: int, seed: int, moved_from: int = 10**9, moved: float = 0.0) -> np.ndarray:
    """So many weeks of days with standard deviation 10 around the day's own mean."""
    days = np.arange(7 * count)
    noise = np.random.default_rng(seed).normal(0, 10, days.size)
    return 500 + WEEK[days % 7] + noise + np.where(days >= moved_from, moved, 0.0)


def test_a_weekly_alarm_hears_what_weekends_drown() -> None:
    """Two of a day's own deviations more, from the sixth week on."""
    found = [alarms(figures(weeks(8, seed, 35, 20.0)), WEEKLY) for seed in range(20)]
    assert sum(any(36 <= alarm.tick <= 46 and alarm.direction == "above" for alarm in each) for each in found) >= 18
    plain = [alarms(figures(weeks(8, seed, 35, 20.0)), Alarm(baseline=28)) for seed in range(20)]
    assert not any(plain), "to it a Sunday is as unusual as the surge"
    first = next(alarm for alarm in found[0] if alarm.direction == "above")
    weekday = (START + timedelta(days=first.tick - 1)).weekday()
    assert first.usual == pytest.approx(500 + WEEK[weekday], abs=25), "usual is that of the same weekday"


def test_false_alarms_of_a_weekly_rule_are_as_rare_as_tables_say() -> None:
    """Montgomery, table 9.3: k = 0.5 and h = 5 run 465 figures on average until a false alarm, mu and s being known.

    A hundred weeks tell them well. Alarms by exposure of 150 runs, cut off after 1,500 figures, vary by 8 %.
    """
    rule, alarmed, heard = Alarm(baseline=700, weekly=True), 0, 0
    for seed in range(150):
        values = weeks(100 + 1500 // 7, seed)
        found = alarms(figures(values), rule)
        alarmed += bool(found)
        heard += (found[0].tick if found else values.size) - rule.baseline
    assert 0.6 <= alarmed / heard * 465 <= 1.6


def test_a_weekday_that_the_baseline_does_not_know_is_passed_over() -> None:
    values = list(weeks(10, 1))
    holes: list[float | None] = [None if day % 7 == 6 and day < 35 else value for day, value in enumerate(values)]
    holes[41] = 1e6
    assert (START + timedelta(days=41)).weekday() == 6
    assert not any(alarm.tick == 42 for alarm in alarms(figures(holes), WEEKLY))
    holes[40] = 1e6
    assert any(alarm.tick == 41 for alarm in alarms(figures(holes), WEEKLY))


def test_an_alarm_says_by_which_tick_it_was_over() -> None:
    values = np.concatenate([series(0.0, 40), np.full(4, 140.0), np.full(40, 95.0)])
    (above, *_) = alarms(figures(values), RULE)
    assert above.direction == "above" and above.until is not None and above.until > 44
    (stands,) = alarms(figures(series(40.0)), RULE)
    assert stands.until is None


def test_a_weekly_rule_has_two_weeks_to_learn_from_and_leaves_older_plans_their_digest() -> None:
    given = {"start": START, "ticks": 90, "hospitals": 4, "indicators": [{**COUNT, "what": "count"}]}
    for tick, baseline in (("day", 14), ("hour", 14 * 24)):
        asked = {**given, "tick": tick, "ticks": 1000}
        assert Indicators.model_validate({**asked, "alarm": {"weekly": True, "baseline": baseline}}).alarm.weekly
        with pytest.raises(ValueError, match="two weeks"):
            Indicators.model_validate({**asked, "alarm": {"weekly": True, "baseline": baseline - 1}})
    plain = Indicators.model_validate({**given, "alarm": {}})
    assert "weekly" not in plain.model_dump()["alarm"]
    assert Indicators.model_validate({**given, "alarm": {"weekly": True}}).model_dump()["alarm"]["weekly"] is True
