"""What others see: no number of patients below the threshold can be worked out, findings and all.

Tables are enumerated and go through the whole check. Those with one outcome form a class, for nobody outside can tell
them apart, even who knows the exact number of patients; within a class every small number must be possible.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, product

import numpy as np
import pytest

from wardround.client.readiness import check, consortium
from wardround.client.readiness.consortium import STEP, THRESHOLD, for_consortium, shown, shown_total
from wardround.client.readiness.finding import Finding, Severity
from wardround.client.readiness.gathered import Column, Gathered
from wardround.client.store.members import Part
from wardround.protocol.contract import DataContract, NumberColumn
from wardround.protocol.errors import UsageError
from wardround.protocol.labels import ClassLabel

CONTRACT = DataContract(
    columns=(NumberColumn(name="age", meaning="Age", unit="a", minimum=18, maximum=110, center=50, scale=10),),
    label=ClassLabel(column="sick", meaning="Sick", positive=("1",), negative=("0",)),
    patient_id="who",
)
NOTHING = float("nan")
OUTSIDE = 900.0


class Outside:
    """The first ``count`` patients are in no data domain; the others train and test in turn."""

    def __init__(self, count: int) -> None:
        self.count = count

    def parts(self, ids: Sequence[str]) -> list[Part | None]:
        sides = [Part.TEST if number % 3 == 0 else Part.TRAIN for number in range(len(ids))]
        return [None if number < self.count else side for number, side in enumerate(sides)]


def gathered(
    values: Sequence[float],
    label: Sequence[float],
    ids: Sequence[str] | None = None,
    outside: int = 0,
    unread: bool = False,
    absent: Sequence[str] = (),
) -> Gathered:
    """What ``gather`` makes of a record for each value, by default each of a patient of its own."""
    column, labels = np.array(values, float), np.array(label, float)
    found = Gathered(CONTRACT, None, Outside(outside), len(column), label=labels)
    found.patients = [f"p{number:03}" for number in range(len(column))] if ids is None else list(ids)
    faults = {"outside": int((column == OUTSIDE).sum())}
    age = Column(column, missing=int(np.isnan(column).sum()))
    age.faults.update(faults)
    found.columns = {"age": age, "sick": Column(labels, missing=int(np.isnan(labels).sum()))}
    found.content = np.array([hash(pair) for pair in zip(column.tolist(), labels.tolist(), strict=True)], np.int64)
    found.unread = [UsageError("a source cannot be read", "")] if unread else []
    found.absent = dict.fromkeys(absent, len(column))
    return found


def outcome(found: Gathered, threshold: int = THRESHOLD) -> str:
    return json.dumps(for_consortium(found, check(found), "a", "digest", threshold))


def outcome_with_findings(found: Gathered, threshold: int = THRESHOLD) -> str:
    """The fault that the rule is there for: findings that carry no count are named beside the suppressed counts."""
    named = sorted({each.code for each in check(found) if each.severity is not Severity.FINE and each.count is None})
    return outcome(found, threshold) + json.dumps(named)


Facts = dict[str, int]


@dataclass(frozen=True)
class Told:
    """A number below the threshold that an outcome rules out, and so tells something about."""

    fact: str
    possible: tuple[int, ...]


def told(
    tables: Iterable[tuple[Gathered, Facts]], seen: Callable[[Gathered, int], str], threshold: int
) -> Iterator[Told]:
    """Where a class of tables with one outcome holds some small numbers and not all; what ``ready`` may tell is let."""
    classes = defaultdict[str, list[Facts]](list)
    for found, facts in tables:
        classes[seen(found, threshold)].append(facts)
    for said, members in classes.items():
        ready = '"ready": true' in said
        for fact in members[0]:
            most = max(facts["patients"] for facts in members)
            every = set(range(min(threshold, most + 1)))
            if ready:
                every -= {0} if fact in ("usable", "labelled", "admitted") else set()
                every &= {0} if fact == "out of range" else every
            small = {facts[fact] for facts in members if facts[fact] < threshold}
            if fact != "patients" and small and small != every:
                yield Told(fact, tuple(sorted(small)))


def facts_of(found: Gathered, outside: int) -> Facts:
    """Numbers of patients, counted in another way than the program does: patient by patient."""
    values, label = found.columns["age"].values.tolist(), found.label.tolist()
    total = len(set(found.patients))
    return {
        "patients": total,
        "usable": sum(18 <= value <= 110 for value in values),
        "missing": sum(value != value for value in values),
        "out of range": sum(value == OUTSIDE for value in values),
        "unusable": sum(not 18 <= value <= 110 for value in values),
        "positive": label.count(1.0),
        "negative": label.count(0.0),
        "unlabelled": sum(each != each for each in label),
        "labelled": sum(each == each for each in label),
        "not admitted": outside,
        "admitted": total - outside,
    }


def every_table(patients: int, divided: bool) -> Iterator[tuple[Gathered, Facts]]:
    """Every table of a value in, missing or out of range and a label of 1, 0 or none for each patient.

    With and without a second source that cannot be read; ``divided``: and every number of patients in no domain.
    """
    kinds = list(product((40.0, NOTHING, OUTSIDE), (1.0, 0.0, NOTHING)))
    for rows in combinations_with_replacement(kinds, patients):
        values, label = [value for value, _ in rows], [each for _, each in rows]
        for outside, unread in product(range(patients + 1) if divided else (0,), (False, True)):
            found = gathered(values, label, outside=outside, unread=unread)
            yield found, facts_of(found, outside)


@pytest.mark.parametrize(
    ("patients", "threshold", "divided"), [(3, 2, True), (4, 2, True), (5, 2, False), (6, 3, False)]
)
def test_every_small_table_shares_its_outcome_with_all_small_numbers(
    patients: int, threshold: int, divided: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consortium, "STEP", 1)  # the proof does not rest on rounding
    found = list(told(every_table(patients, divided), outcome, threshold))
    # Without other divisions nobody is outside, in every table alike.
    assert [each for each in found if divided or each.fact != "not admitted"] == []


def of_forty(
    missing: Iterable[int] = (5,),
    odd: Iterable[int] = (9,),
    positive: Iterable[int] = (20,),
    outside: Iterable[int] = (0,),
) -> Iterator[tuple[Gathered, Facts]]:
    """Forty patients: so many have no value, so many of the others another one than the rest, so many are sick.

    The sick come first, with values of their own or not, so that in some tables a value or its absence tells the label.
    """
    for lacking, other, sick, out, unread, turned in product(
        missing, odd, positive, outside, (False, True), (False, True)
    ):
        filled = 40 - lacking
        values = [40.0 + (number < other) for number in range(filled)] + [NOTHING] * lacking
        label = [float(number < sick) for number in range(40)]
        found = gathered(values[::-1] if turned else values, label, outside=out, unread=unread)
        facts = {
            "patients": 40, "usable": filled, "missing": lacking, "positive": sick, "negative": 40 - sick,
            "odd": min(other, filled), "like most": max(filled - other, 0), "not admitted": out, "admitted": 40 - out,
        }  # fmt: skip
        yield found, facts


FAMILIES: dict[str, tuple[Callable[[], Iterable[tuple[Gathered, Facts]]], set[str]]] = {
    "values": (lambda: of_forty(missing=range(41), odd=range(41)), {"usable", "missing", "odd", "like most"}),
    "labels": (
        lambda: of_forty(missing=(0, 1, 9, 10, 20, 31, 39, 40), positive=range(41)), {"positive", "negative"},
    ),
    "division": (lambda: of_forty(outside=range(41), missing=(0, 20)), {"not admitted", "admitted"}),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_no_outcome_of_forty_patients_tells_a_number_below_ten(family: str) -> None:
    tables, about = FAMILIES[family]
    assert [each for each in told(tables(), outcome, THRESHOLD) if each.fact in about] == []


def test_the_search_finds_findings_that_are_named_beside_suppressed_counts() -> None:
    tables, _ = FAMILIES["values"]
    found = {each.fact for each in told(tables(), outcome_with_findings, THRESHOLD)}
    assert {"usable", "odd"} <= found
    labels, _ = FAMILIES["labels"]
    assert {"positive", "negative"} <= {each.fact for each in told(labels(), outcome_with_findings, THRESHOLD)}
    small = list(told(every_table(3, True), outcome_with_findings, 2))
    assert {"usable", "labelled"} <= {each.fact for each in small}


def test_the_search_finds_a_rule_that_only_hides_small_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    def naive(count: int, total: int, threshold: int = THRESHOLD) -> int | None:
        return None if count < threshold else count

    monkeypatch.setattr(consortium, "shown", naive)
    tables, _ = FAMILIES["labels"]
    assert "negative" in {each.fact for each in told(tables(), outcome, THRESHOLD)}
    assert list(told(every_table(4, True), outcome, 2))


def test_one_value_of_forty_looks_like_none_and_like_nine() -> None:
    def seen(filled: int, unread: bool) -> str:
        return outcome(gathered([40.0] * filled + [NOTHING] * (40 - filled), [1.0, 0.0] * 20, unread=unread))

    assert len({seen(filled, True) for filled in range(10)}) == 1
    # 'ready' says that there is a value, and not how many.
    assert len({seen(filled, False) for filled in range(1, 10)}) == 1
    assert seen(0, False) != seen(1, False)
    # Nearly all, for all that can be told.
    assert seen(1, False) == seen(40, False) == seen(31, False) != seen(30, False)


def test_the_same_records_twice_and_one_person_under_two_spellings_are_not_told() -> None:
    def seen(extra: Sequence[str]) -> str:
        ids = [*(f"p{number:03}" for number in range(40)), *extra]
        return outcome(gathered([40.0 + number % 30 for number in range(len(ids))], [1.0, 0.0] * (len(ids) // 2), ids))

    assert len({seen(["p039"] * more) for more in range(0, 30, 2)}) == 1
    assert seen(["P001", "P-001"]) == seen(["new one", "another"])


def test_a_number_is_of_patients_and_not_of_their_records() -> None:
    ids = [f"p{number:03}" for number in range(40)] + ["p000"] * 20 + [""] * 20
    label = [1.0] + [0.0] * 39 + [1.0] * 20 + [1.0] * 20
    document = json.loads(outcome(gathered([NOTHING] + [40.0] * 39 + [NOTHING] * 40, label, ids)))
    assert document["patients"] == 40 and document["label_positive"] is None
    assert document["unusable"] == {"age": None}


@pytest.mark.parametrize("count", [0, 1, 9])
def test_totals_below_the_threshold_are_suppressed(count: int) -> None:
    assert shown_total(count) is None and shown_total(14) == 10
    document = json.loads(outcome(gathered([40.0] * count, [1.0] * count)))
    assert document["patients"] is None and document["label_positive"] is None


def test_unusable_cells_are_thresholded_on_both_sides() -> None:
    def unusable(missing: int, wild: int) -> object:
        values = [NOTHING] * missing + [OUTSIDE] * wild + [40.0] * (60 - missing - wild)
        return json.loads(outcome(gathered(values, [1.0, 0.0] * 30)))["unusable"]["age"]

    assert [unusable(count, 0) for count in (0, 9, 10, 33, 50, 51, 60)] == [None, None, 10, 30, 50, None, None]
    assert [unusable(4, wild) for wild in (5, 6, 29, 46, 47)] == [None, 10, 30, 50, None]


def test_a_column_that_is_not_there_is_named_where_it_concerns_ten_patients() -> None:
    def absent(patients: int) -> object:
        values, label = [NOTHING] * patients, [1.0, 0.0] * patients
        return json.loads(outcome(gathered(values, label[:patients], absent=["age"])))["absent"]

    assert absent(40) == ["age"] and absent(10) == ["age"] and absent(9) == []
    # Where another source fills it for nearly all, the few are not told.
    assert json.loads(outcome(gathered([40.0] * 35 + [NOTHING] * 5, [1.0, 0.0] * 20, absent=["age"])))["absent"] == []


def test_the_label_of_some_is_not_counted_beside_the_positive_ones_of_the_others() -> None:
    label = [1.0] * 20 + [NOTHING] * 10
    document = json.loads(outcome(gathered([40.0] * 30, label, absent=["sick"])))
    # 30 patients, 20 positive and 10 or more without a label would leave no negative one.
    assert document["absent"] == ["sick"] and document["label_positive"] is None


def test_no_finding_leaves_but_whether_one_of_them_stops_the_study() -> None:
    codes = ("outside", "one class", "constant", "leak", "unit", "declared")
    findings = [Finding(code, Severity.LOOK, "exact words", "cure", "age", 30) for code in codes]
    found = gathered([40.0] * 60, [1.0, 0.0] * 30)
    without, looks = (for_consortium(found, each, "a", "digest") for each in ([], findings))
    stops = for_consortium(found, [Finding("outside", Severity.STOPS, "exact words", "cure", "age", 3)], "a", "digest")
    assert without == looks and looks["ready"] is True
    assert stops == looks | {"ready": False}
    # Whoever adds a field goes through docs/readiness.md and the families above first.
    assert set(without) == {
        "format", "site", "plan", "rule", "patients", "label_positive", "unusable", "not_admitted", "absent", "ready",
    }  # fmt: skip


def test_a_larger_threshold_hides_more() -> None:
    assert shown(15, 60, 20) is None and shown(25, 60, 20) == 25
    # Two files with two thresholds tell no more than the one with the lower.
    for total, count in ((n, k) for n in range(60) for k in range(n + 1)):
        assert shown(count, total, 20) in (None, shown(count, total))
    assert STEP == 5
