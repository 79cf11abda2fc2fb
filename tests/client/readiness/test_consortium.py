"""What others see: no count below the threshold can be worked out, whatever they know of the totals."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from wardround.client.readiness.consortium import STEP, THRESHOLD, for_consortium, shown, shown_total
from wardround.client.readiness.finding import Finding, Severity
from wardround.client.readiness.gathered import Column, Gathered
from wardround.protocol.contract import DataContract, NumberColumn
from wardround.protocol.labels import ClassLabel

CONTRACT = DataContract(
    columns=(NumberColumn(name="age", meaning="Age", unit="a", minimum=18, maximum=110),),
    label=ClassLabel(column="sick", meaning="Sick", positive=("1",), negative=("0",)),
    patient_id="who",
)


def gathered(patients: int, positive: int, missing: int) -> Gathered:
    label = np.array([1.0] * positive + [0.0] * (patients - positive))
    found = Gathered(CONTRACT, None, None, patients, label=label)  # type: ignore[arg-type]
    found.patients = [f"p{number}" for number in range(patients)]
    found.columns = {"age": Column(np.zeros(patients), missing=missing), "sick": Column(label)}
    return found


def outcome(patients: int, positive: int, missing: int) -> str:
    return json.dumps(for_consortium(gathered(patients, positive, missing), [], "a", "digest"))


def test_no_outcome_fits_fewer_than_five_counts_and_none_tells_a_small_one() -> None:
    """Every table of up to 60 patients. An outsider may even know the exact number of patients."""
    for patients in range(1, 61):
        fits = defaultdict[str, set[int]](set)
        for positive in range(patients + 1):
            fits[outcome(patients, positive, 0)].add(positive)
        for counts in fits.values():
            small = {count for count in counts if count < THRESHOLD or patients - count < THRESHOLD}
            assert not small or small == counts, "a small count never shares its outcome with a shown one"
            assert len(counts) >= min(STEP, patients + 1) or min(counts, default=0) >= patients - THRESHOLD - STEP
            if small and patients >= 2 * THRESHOLD:
                assert min(counts) == 0 and max(counts) == patients, "small and nearly all cannot be told apart"


def test_the_brute_force_would_find_a_rule_that_only_hides_small_counts() -> None:
    def naive(count: int, total: int) -> int | None:
        return None if count < THRESHOLD else count // STEP * STEP

    # 58 of 60 is shown as 55, so the other class has at most 5 of 60.
    assert naive(58, 60) == 55 and shown(58, 60) is None


@pytest.mark.parametrize("count", [0, 1, 9])
def test_totals_below_the_threshold_are_suppressed(count: int) -> None:
    assert shown_total(count) is None and shown_total(14) == 10
    document = json.loads(outcome(count, 0, 0))
    assert document["patients"] is None and document["records"] is None and document["label_positive"] is None


def test_missing_cells_are_thresholded_on_both_sides() -> None:
    def missing(count: int) -> object:
        return json.loads(outcome(60, 30, count))["missing"]["age"]

    assert [missing(count) for count in (0, 9, 10, 33, 50, 51, 60)] == [None, None, 10, 30, 50, None, None]


def test_findings_about_few_patients_are_not_named_and_no_sentence_leaves() -> None:
    findings = [
        Finding("outside", Severity.STOPS, "exact words", "cure", "age", 3),
        Finding("repeated", Severity.LOOK, "exact words", "cure", "", 12),
        Finding("one class", Severity.LOOK, "exact words", "cure", "sick"),
        Finding("prevalence", Severity.FINE, "exact words", "cure", "sick", 30),
    ]
    document = for_consortium(gathered(60, 30, 0), findings, "a", "digest")
    assert [(one["code"], one["column"]) for one in document["findings"]] == [("few of a class", ""), ("repeated", "")]
    assert document["ready"] is False and "exact words" not in json.dumps(document)
    # That everybody is of one class would say each patient's class: it reads as a rare class does.
    rare = for_consortium(gathered(60, 30, 0), [Finding("rare class", Severity.LOOK, "", "", "sick")], "a", "digest")
    same = for_consortium(gathered(60, 30, 0), [Finding("one class", Severity.LOOK, "", "", "sick")], "a", "digest")
    assert rare == same


def test_names_that_are_not_the_contracts_do_not_leave() -> None:
    findings = [
        Finding("absent", Severity.STOPS, "", "", "local_column"),
        Finding("missing", Severity.LOOK, "", "", "age"),
    ]
    document = for_consortium(gathered(60, 30, 0), findings, "a", "digest")
    assert {one["column"] for one in document["findings"]} == {"", "age"}


def test_a_larger_threshold_hides_more(tmp_path: Path) -> None:
    assert shown(15, 60, 20) is None and shown(25, 60, 20) == 25
