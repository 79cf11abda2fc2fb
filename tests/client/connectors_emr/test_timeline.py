"""One row per patient from events: windows, ties, units, versions and zones, by numbers that are worked out by hand."""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from random import Random
from statistics import fmean
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.client.connectors.cohort_spec import parse_spec
from wardround.client.connectors.timeline import Event, Person, Tally, rows
from wardround.protocol.errors import UsageError

HB = "loinc:718-7"
DAY0 = datetime(2024, 3, 10, 12, tzinfo=UTC)
ANN = Person("ann", date(1960, 3, 11), "female", "north")
BOB = Person("bob", date(1970, 1, 1), "male")


def hb(patient: str, day: float, number: float | None, unit: str | None = "g/dL", **more: Any) -> Event:
    return Event(patient, "measurement", (HB,), DAY0 + timedelta(days=day), number, unit=unit, **more)


def ill(patient: str, day: float, code: str = "snomed:22298006", **more: Any) -> Event:
    return Event(patient, "condition", (code,), DAY0 + timedelta(days=day), **more)


def table(
    options: dict[str, Any], persons: Sequence[Person], events: Iterable[Event | Person], **more: Any
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pa.Table.from_batches(rows(parse_spec(options), persons, events, **more)).to_pylist()
    return found


def column(take: str, **more: Any) -> dict[str, Any]:
    return {"columns": {"x": {"from": "measurement", "codes": [HB], "take": take, **more}}}


def xs(options: dict[str, Any], events: Iterable[Event | Person], **more: Any) -> list[Any]:
    return [row["x"] for row in table(options, [ANN, BOB], events, **more)]


@pytest.mark.parametrize(
    ("take", "ann", "bob"),
    [
        ("first", 13.0, None),
        ("last", 11.0, None),
        ("min", 9.0, None),
        ("max", 13.0, None),
        ("mean", 11.0, None),
        ("count", 3, 0),
        ("exists", 1, 0),
    ],
)
def test_each_reduction_gives_what_the_specification_promises_for_some_and_for_none(
    take: str, ann: float, bob: float | None
) -> None:
    events = [hb("ann", 2, 11.0), hb("ann", 0, 13.0), hb("ann", 1, 9.0)]
    unit = {} if take in ("count", "exists") else {"unit": "g/dL"}
    assert xs(column(take, **unit), events) == [ann, bob]


def test_the_types_of_columns_do_not_depend_on_the_data() -> None:
    options = {
        "columns": {
            "age": {"from": "age"},
            "sex": {"from": "sex"},
            "place": {"from": "site_of_care"},
            "hb": {"from": "measurement", "codes": [HB], "unit": "g/dL"},
            "raw": {"from": "measurement", "codes": [HB]},
            "n": {"from": "condition", "take": "count"},
            "code": {"from": "condition", "take": "last"},
        }
    }
    for persons in ([], [ANN]):
        (batch,) = rows(parse_spec(options), persons, [])
        expected = ["string", "int64", "string", "string", "double", "string", "int64", "string"]
        assert [str(kind) for kind in batch.schema.types] == expected
        assert batch.schema.names == ["patient", "age", "sex", "place", "hb", "raw", "n", "code"]
        assert batch.num_rows == len(persons)


def test_a_window_has_both_ends_and_is_counted_from_the_moment_of_the_index() -> None:
    options = {
        "index": {"kind": "condition", "codes": ["snomed:22298006"]},
        "columns": {
            "x": {"from": "measurement", "codes": [HB], "take": "count", "days_before": 2, "days_after": 1},
            "before": {"from": "measurement", "codes": [HB], "take": "count"},
        },
    }
    second = 1 / 86_400
    days = [-2 - second, -2, 0, second, 1, 1 + second]
    events = [hb("ann", day, 10.0) for day in days] + [ill("ann", 5), ill("ann", 0), hb("bob", 0, 9.0)]
    tally = Tally()
    assert table(options, [ANN, BOB], events, tally=tally) == [{"patient": "ann", "x": 4, "before": 3}]
    assert tally.counts == {"a patient without the index": 1}


def test_the_index_can_be_the_last_event_of_a_kind() -> None:
    options = {
        "index": {"kind": "condition", "take": "last"},
        "columns": {"age": {"from": "age"}, "x": {"from": "condition", "take": "count"}},
    }
    events = [ill("ann", 0), ill("ann", 1, "icd10:I21.9")]
    # 11 March 2024 is Ann's 64th birthday.
    assert table(options, [ANN], events) == [{"patient": "ann", "age": 64, "x": 2}]


def test_age_is_taken_at_the_last_event_where_there_is_no_index() -> None:
    options = {"columns": {"age": {"from": "age"}}}
    assert [row["age"] for row in table(options, [ANN, BOB], [ill("ann", 0), ill("ann", -400)])] == [63, None]


def test_the_birthday_is_the_calendar_day_of_the_site() -> None:
    options = {"columns": {"age": {"from": "age"}}}
    late = [Event("ann", "encounter", (), datetime(2024, 3, 10, 23, 30, tzinfo=UTC))]
    assert table(options, [ANN], late, time_zone="UTC")[0]["age"] == 63
    assert table(options, [ANN], late, time_zone="Europe/Berlin")[0]["age"] == 64


def test_times_are_compared_in_utc_and_a_date_is_local_midnight() -> None:
    east, west = timezone(timedelta(hours=9)), timezone(timedelta(hours=-5))
    # 08:00 in Tokyo is 23:00 UTC of the day before; 20:00 in New York is 01:00 UTC of the day after.
    early = Event("ann", "measurement", (HB,), datetime(2024, 3, 11, 8, tzinfo=east), 1.0, unit="g/dL")
    late = Event("ann", "measurement", (HB,), datetime(2024, 3, 10, 20, tzinfo=west), 2.0, unit="g/dL")
    midnight = Event("ann", "measurement", (HB,), date(2024, 3, 11), 3.0, unit="g/dL")
    assert xs(column("last", unit="g/dL"), [late, early])[0] == 2.0
    assert xs(column("first", unit="g/dL"), [late, early])[0] == 1.0
    # Midnight in Tokyo is 15:00 UTC of 10 March, in Honolulu 10:00 UTC of 11 March.
    assert xs(column("first", unit="g/dL"), [early, midnight], time_zone="Asia/Tokyo")[0] == 3.0
    assert xs(column("first", unit="g/dL"), [early, midnight], time_zone="Pacific/Honolulu")[0] == 1.0


def test_of_two_values_at_one_time_first_takes_the_smaller_and_last_the_larger() -> None:
    same = [hb("ann", 0, 10.0), hb("ann", 0, 12.0)]
    for events in (same, same[::-1]):
        assert xs(column("first", unit="g/dL"), events)[0] == 10.0
        assert xs(column("last", unit="g/dL"), events)[0] == 12.0
        assert xs(column("last"), events)[0] == "12"


def test_units_are_converted_and_what_cannot_be_is_counted_and_never_used() -> None:
    events = [
        hb("ann", 0, 130.0, "g/L"),
        hb("ann", 1, 1.0, "mmHg-ish"),
        hb("ann", 2, 1.0, "cm"),
        hb("ann", 3, 1.0, None),
        hb("ann", 4, None, "g/dL"),
        hb("ann", 5, float("nan"), "g/dL"),
        hb("ann", 6, None, text="haemolysed"),
        hb("ann", 7, None, problem="a bound, not a number"),
    ]
    tally = Tally()
    assert xs(column("max", unit="g/dL"), events, tally=tally) == [13.0, None]
    assert tally.counts == {
        "column 'x': a unit that cannot be converted": 2,
        "column 'x': no unit": 1,
        "column 'x': no value": 1,
        "column 'x': not a number": 2,
        "column 'x': a bound, not a number": 1,
    }
    assert "haemolysed" not in str(tally.counts) and "130" not in repr(events[0])


def test_text_in_a_unit_field_can_neither_break_nor_stop_a_reader() -> None:
    wild = [
        "10*9999999999",
        "m99999999",
        "a" * 5000,
        "",
        " ",
        "((((",
        "{score",
        "\n",
        "10*400/uL",
        "10^-9999",
        "g" + "." * 39,
    ]
    tally = Tally()
    assert xs(column("last", unit="g/dL"), [hb("ann", 0, 1.0, unit) for unit in wild], tally=tally)[0] is None
    assert tally.counts.total() == len(wild)
    assert xs(column("last", unit="{score}"), [hb("ann", 0, 7.0, "{points}"), hb("bob", 0, 8.0, "1")]) == [7.0, 8.0]


def test_an_amount_becomes_a_mass_by_the_molar_mass() -> None:
    glucose = [hb("ann", 0, 5.0, "mmol/L")]
    # 5 mmol/L x 180.156 g/mol = 900.78 mg/L = 90.078 mg/dL
    assert xs(column("last", unit="mg/dL", molar_mass=180.156), glucose)[0] == pytest.approx(90.078)
    assert xs(column("last", unit="mg/dL"), glucose)[0] is None


def test_a_column_without_a_unit_refuses_values_in_several_units() -> None:
    with pytest.raises(UsageError, match="several units"):
        xs(column("max"), [hb("ann", 0, 13.0, "g/dL"), hb("bob", 0, 130.0, "g/L")])
    assert xs(column("count"), [hb("ann", 0, 13.0, "g/dL"), hb("bob", 0, 130.0, "g/L")]) == [1, 1]


def test_a_dimensionless_value_may_come_without_a_unit() -> None:
    assert xs(column("last", unit="1"), [hb("ann", 0, 7.35, None)])[0] == 7.35


def test_the_newest_version_of_an_event_replaces_the_others_wherever_it_stands() -> None:
    versions = [
        hb("ann", 0, 50.0, key="r1", version=(1.0,)),
        hb("ann", 0, 12.0, key="r1", version=(2.0,)),
        hb("ann", 1, 14.0, key="r2"),
    ]
    for events in (versions, versions[::-1]):
        assert xs(column("max", unit="g/dL"), events)[0] == 14.0
        assert xs(column("count"), events)[0] == 2
        assert xs(column("mean", unit="g/dL"), events)[0] == 13.0


def test_the_same_event_read_twice_counts_once() -> None:
    assert xs(column("count"), [hb("ann", 0, 12.0, key="r1")] * 3 + [hb("ann", 0, 12.0)])[0] == 2


def test_a_withdrawn_event_is_gone_and_can_be_no_index() -> None:
    options: dict[str, Any] = column("count") | {"index": {"kind": "condition", "take": "first"}}
    events = [
        ill("ann", -3, key="c1", version=(1.0,)),
        ill("ann", -3, key="c1", version=(2.0,), void=True),
        ill("ann", 0, key="c2"),
        hb("ann", -1, 12.0, key="r1"),
        hb("ann", -1, 12.0, key="r1", version=(1.0,), void=True),
        hb("ann", -2, 12.0, key="r3", void=True),
        hb("ann", -1, 12.0, key="r2"),
    ]
    for order in (events, events[::-1]):
        # With the withdrawn index of day -3 the result of day -1 would lie after the index.
        assert xs(options, order) == [1]


def test_events_without_a_time_or_of_strangers_are_counted() -> None:
    tally = Tally()
    events = [
        Event("ann", "measurement", (HB,), None, 12.0, unit="g/dL"),
        hb("nobody", 0, 12.0),
        hb("ann", 0, 12.0),
        Event("nobody", "condition", ("snomed:1",), DAY0),
    ]
    assert xs(column("count"), events, tally=tally) == [1, 0]
    assert tally.counts == {"measurement: no time": 1, "an event of a patient who is not in the source": 1}


def test_counts_are_those_of_one_reading_however_often_the_source_is_read() -> None:
    options: dict[str, Any] = column("count") | {"index": {"kind": "condition"}}
    events = [ill("ann", 9, key="a"), ill("ann", 9, key="a"), Event("ann", "measurement", (HB,), None)] * 2
    tally = Tally()
    xs(options, events, tally=tally)
    assert tally.counts == {"measurement: no time": 2, "a patient without the index": 1}


def test_persons_may_lie_among_the_events_and_the_newest_statement_counts() -> None:
    options = {"columns": {"sex": {"from": "sex"}, "place": {"from": "site_of_care"}, "age": {"from": "age"}}}
    mixed = [
        Person("cid", sex="male", site_of_care="south", version=(2.0,)),
        Event("cid", "encounter", (), DAY0),
        Person("cid", date(1980, 1, 1), "other", version=(1.0,)),
        Person("ghost", site_of_care="west", listed=False),
    ]
    expected = [{"patient": "cid", "sex": "male", "place": "south", "age": 44}]
    assert table(options, [], mixed) == expected
    assert table(options, [], mixed[::-1]) == expected


def test_only_the_columns_that_are_asked_for_are_made() -> None:
    options = {
        "index": {"kind": "condition"},
        "columns": {"x": {"from": "measurement", "codes": [HB], "unit": "g/dL"}, "sex": {"from": "sex"}},
    }
    events = [ill("ann", 0), hb("ann", 0, 1.0), hb("ann", 0, 1.0, "cm")]
    tally = Tally()
    assert table(options, [ANN, BOB], events, columns=["patient", "label"], tally=tally) == [{"patient": "ann"}]
    assert tally.counts == {"a patient without the index": 1}
    assert table(options, [ANN, BOB], events, columns=["sex"]) == [{"sex": "female"}]


def test_codes_choose_events_and_a_code_column_holds_the_code_that_was_asked_for() -> None:
    options = {
        "columns": {
            "listed": {"from": "condition", "codes": ["icd10:I21.9", "snomed:22298006"]},
            "any": {"from": "condition"},
            "other": {"from": "condition", "codes": ["icd10:I21"], "take": "exists"},
        }
    }
    both = Event("ann", "condition", ("snomed:22298006", "icd10:I21.9"), DAY0)
    (row,) = table(options, [ANN], [both])
    assert row == {"patient": "ann", "listed": "icd10:I21.9", "any": "snomed:22298006", "other": 0}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (column("last", unit="bananas"), "column 'x': 'bananas' is no UCUM unit"),
        (column("last", days_before=3), "window of days"),
        (column("last", days_after=3), "window of days"),
    ],
)
def test_a_specification_that_cannot_be_met_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        xs(options, [])


def test_an_unknown_time_zone_is_refused() -> None:
    for zone in ("Mars/Olympus", "", "../../etc/passwd"):
        with pytest.raises(UsageError, match="time zone"):
            xs(column("last"), [], time_zone=zone)


def test_a_source_that_can_be_read_once_only_is_refused() -> None:
    with pytest.raises(TypeError, match="readable again"):
        xs(column("last"), iter([hb("ann", 0, 1.0)]))


def test_an_impossible_time_is_counted() -> None:
    tally = Tally()
    far = [Event("ann", "measurement", (HB,), datetime.min.replace(tzinfo=timezone(timedelta(hours=14))), 1.0)]
    assert xs(column("count"), far, tally=tally)[0] in (0, 1)
    assert xs({"columns": {"x": {"from": "age"}}}, far) == [None, None]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ann", "bob"]),
            st.integers(-5, 5),
            st.floats(-1e9, 1e9),
            st.sampled_from(["", "k1", "k2", "k3"]),
            st.integers(0, 3),
        ),
        max_size=20,
        unique_by=lambda found: (found[0], found[3], found[4]) if found[3] else object(),
    ),
    st.randoms(use_true_random=False),
)
def test_rows_equal_a_plain_computation_and_do_not_depend_on_the_order(
    found: list[tuple[str, int, float, str, int]], random: Random
) -> None:
    events = [hb(p, day, number, key=key and p + key, version=(float(v),)) for p, day, number, key, v in found]
    newest: dict[object, Event] = {}
    for event in events:
        at = event.key or object()
        if at not in newest or event.version > newest[at].version:
            newest[at] = event
    takes = {take: {"from": "measurement", "codes": [HB], "take": take} for take in ("first", "last")}
    for name in takes:
        takes[name]["unit"] = "g/dL"
    takes |= {take: {"from": "measurement", "codes": [HB], "take": take} for take in ("min", "max", "mean", "count")}
    random.shuffle(events)
    for row in table({"columns": takes}, [ANN, BOB], events):
        mine = [event for event in newest.values() if event.patient == row["patient"]]
        timed = sorted((event.time, event.number) for event in mine)  # type: ignore[type-var]
        numbers = [event.number for event in mine if event.number is not None]
        assert row["count"] == len(mine)
        assert (row["first"], row["last"]) == ((timed[0][1], timed[-1][1]) if timed else (None, None))
        assert (row["min"], row["max"]) == ((min(numbers), max(numbers)) if numbers else (None, None))
        assert row["mean"] == (fmean(numbers) if numbers else None)
