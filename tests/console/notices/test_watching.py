"""What people are told, of which state, and how soon; each notice says what to do and nothing of a patient."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from wardround.console.notices.watching import Level, Seen, SeenStudy, notices

NOW = datetime(2026, 11, 29, 8, 0, tzinfo=UTC)
QUIET = Seen("north", NOW, answers=True)
PLAN = "ab" * 32


def seen(**changes: Any) -> Seen:
    fields = {name: getattr(QUIET, name) for name in QUIET.__dataclass_fields__}
    return Seen(**{**fields, **changes})


def told(**changes: Any) -> list[tuple[str, Level]]:
    return [(notice.key, notice.level) for notice in notices(seen(**changes))]


def test_a_site_where_all_is_well_says_nothing() -> None:
    approved = SeenStudy("hearts", PLAN, "approved")
    ends = NOW + timedelta(days=200)
    assert told(studies=(approved,), spent=(("training", 49),), certificate_ends=ends) == []


@pytest.mark.parametrize(
    ("spent", "step", "level"),
    [(50, 50, Level.NOTE), (79, 50, Level.NOTE), (80, 80, Level.SOON), (99, 80, Level.SOON), (100, 100, Level.SOON)],
)
def test_a_budget_is_spoken_of_at_half_at_four_fifths_and_at_its_end(spent: int, step: int, level: Level) -> None:
    assert told(spent=(("training", spent),)) == [(f"budget/training/{step}", level)]


def test_a_study_that_waits_is_named_with_what_keeps_it() -> None:
    waiting = SeenStudy("hearts", PLAN, "proposed", "the plan has 2000 rounds, and the site's policy ends at 1000")
    (notice,) = notices(seen(studies=(waiting,)))
    assert notice.key == f"study/{PLAN}/waiting" and "policy ends at 1000" in notice.sentence
    for standing in ("approved", "refused", "revoked", "paused"):
        assert told(studies=(SeenStudy("hearts", PLAN, standing),)) == []


def test_a_round_that_this_site_voided_is_sooner_looked_at_than_one_that_others_did() -> None:
    study = SeenStudy("hearts", PLAN, "approved", voided=((3, 1, ("north",)), (4, 2, ("east",)), (5, 1, ())))
    assert told(studies=(study,)) == [
        (f"round/{PLAN}/3/1", Level.SOON), (f"round/{PLAN}/4/2", Level.NOTE), (f"round/{PLAN}/5/1", Level.NOTE),
    ]  # fmt: skip


def test_a_link_that_is_down_is_spoken_of_after_an_hour_and_once() -> None:
    since = NOW - timedelta(minutes=59)
    assert told(link_down_since=since) == []
    since = NOW - timedelta(hours=1)
    assert told(link_down_since=since) == [("link/2026-11-29T07:00Z", Level.SOON)]
    later = notices(seen(at=NOW + timedelta(hours=9), link_down_since=since))
    assert [notice.key for notice in later] == ["link/2026-11-29T07:00Z"]


@pytest.mark.parametrize(("days", "step"), [(29, 30), (8, 30), (6, 7), (1, 7), (0, 1), (-3, 1)])
def test_a_certificate_is_spoken_of_a_month_a_week_and_a_day_before(days: int, step: int) -> None:
    ends = NOW + timedelta(days=days, hours=1)
    (notice,) = notices(seen(certificate_ends=ends))
    assert notice.key.endswith(f"/{step}") and f"{ends:%Y-%m-%d}" in notice.sentence
    assert notice.level is (Level.SOON if step == 30 else Level.NOW)


def test_an_alarm_of_the_ledger_comes_first() -> None:
    found = told(alarms=(("roster", "cd" * 32),), spent=(("training", 60),))
    assert found == [(f"alarm/roster/{'cd' * 32}", Level.NOW), ("budget/training/50", Level.NOTE)]


def test_a_daemon_that_does_not_answer_is_all_that_is_known() -> None:
    silent = Seen("north", NOW, answers=False)
    assert [(notice.key, notice.level) for notice in notices(silent)] == [("daemon/silent", Level.NOW)]


def test_every_notice_says_what_to_do_and_a_name_from_outside_says_no_more_than_itself() -> None:
    evil = SeenStudy("a\n\x1b[2J" + "x" * 500, PLAN, "proposed", "b\u202ec", voided=((1, 1, ("north",)),))
    found = notices(
        seen(
            studies=(evil,), spent=(("training", 100),), paused="maintenance", link_down_since=NOW - timedelta(days=2),
            certificate_ends=NOW, alarms=(("request", PLAN),),
        )
    )  # fmt: skip
    assert len(found) == 7 and len({notice.key for notice in found}) == 7
    for notice in found:
        assert len(notice.cure) > 20 and len(notice.sentence) < 400
        assert notice.sentence.isprintable() and notice.cure.isprintable()
