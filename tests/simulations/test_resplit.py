"""Made-up hospitals: each knob at its limits, where what comes out is known without the code."""

import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wardround.client.connectors import Cohort, make_cohort
from wardround.conf.compose import compose_configuration
from wardround.conf.schema import ResplitSection, parse_configuration
from wardround.console.reports.html import render_report
from wardround.protocol.contract import DataContract
from wardround.protocol.errors import UsageError
from wardround.simulations.cohorts import gather
from wardround.simulations.configured import simulate
from wardround.simulations.resplit import LEAST_PATIENTS, hospital_sizes, resplit, skewed_parts

CONTRACT = DataContract.model_validate(
    {
        "columns": [
            {"type": "number", "name": "a", "meaning": "A", "unit": "1", "minimum": -99, "maximum": 99},
            {
                "type": "number", "name": "b", "meaning": "B", "unit": "1", "minimum": -99, "maximum": 99,
                "center": 1, "scale": 2, "missing": {"kind": "fixed_value", "value": 5, "indicator": True},
            },
            {"type": "code", "name": "c", "meaning": "C", "codes": {"x": "x", "y": "y", "z": "z"}, "reference": "x"},
        ],
        "label": {"kind": "class", "column": "ill", "meaning": "Ill", "positive": ["1"], "negative": ["0"]},
    }
)  # fmt: skip


def cohorts(patients: int = 600, records_each: int = 1) -> list[Cohort]:
    """Two sites whose features are 1, 2, 0 (no indicator), 1, 0: whatever moves can be read off."""
    made = []
    for number, name in enumerate(("one", "two")):
        people = np.repeat(np.arange(patients // 2), records_each)
        x = np.tile([1.0, 2.0, 0.0, 1.0, 0.0], (len(people), 1))
        y = (people % 3 == 0).astype(np.float64)
        made.append(
            make_cohort(name, x, y, test=people % 5 == number, patients=people if records_each > 1 else None,
                        excluded={"a missing": 2})
        )  # fmt: skip
    return made


def split(seed: int = 0, patients: int = 600, records_each: int = 1, **knobs: Any) -> tuple[list[Cohort], Any]:
    section = ResplitSection.model_validate({"sites": 6, **knobs})
    return resplit(cohorts(patients, records_each), CONTRACT, section, seed, 0.3)


def shares(made: Any) -> np.ndarray:
    return np.array([hospital.positive_share for hospital in made.hospitals])


def test_nobody_is_lost_and_nobody_is_in_two_hospitals() -> None:
    whole = cohorts()
    for index, site in enumerate(whole):  # each patient has a feature of its own
        site.train.features[:, 0] = 1000 * index + np.arange(site.train.patients)
        site.test.features[:, 0] = 1000 * index + 500 + np.arange(site.test.patients)
    before = np.sort(np.concatenate([part.features[:, 0] for c in whole for part in (c.train, c.test)]))
    knobs = ResplitSection(sites=7, label_skew=0.3, size_skew=1.0)
    made, _ = resplit(whole, CONTRACT, knobs, 5, 0.3)
    after = np.sort(np.concatenate([part.features[:, 0] for c in made for part in (c.train, c.test)]))
    assert (before == after).all()


def test_without_skew_sizes_and_shares_are_equal() -> None:
    made, said = split()
    assert [hospital.patients for hospital in said.hospitals] == [100] * 6
    assert [cohort.test.patients for cohort in made] == [30] * 6
    assert np.abs(shares(said) - 1 / 3).max() < 0.15  # 100 of 600 at random: five standard errors
    assert said.left_out == {"a missing": 4}


def test_a_large_concentration_gives_every_hospital_the_same_shares() -> None:
    found = np.concatenate([shares(split(seed, label_skew=1e6)[1]) for seed in range(10)])
    # Each hospital then draws 100 patients with probability 1/3: binomial.
    assert found.mean() == pytest.approx(1 / 3, abs=0.01) and found.std() < 1.5 * np.sqrt(2 / 9 / 100)


def test_a_tiny_concentration_gives_each_hospital_one_class_as_long_as_there_are_some() -> None:
    for seed in range(5):
        found = shares(split(seed, label_skew=1e-9)[1])
        assert ((found == 0) | (found == 1)).sum() >= 4, found


def test_shares_vary_as_dirichlets_do() -> None:
    """Beta(alpha p, alpha (1-p)) has variance p (1-p) / (alpha + 1): of the first hospital, which takes from all."""
    classes = np.repeat([0, 1], 5000)
    for alpha in (0.5, 4.0):
        found = []
        for seed in range(300):
            generator = np.random.Generator(np.random.PCG64(seed))
            parts = skewed_parts(classes, np.array([400, 400]), alpha, generator)
            found.append(classes[parts[seed % 2]].mean())
        assert np.mean(found) == pytest.approx(0.5, abs=0.06)
        assert np.var(found) == pytest.approx(0.25 / (alpha + 1), rel=0.2)


def test_log_normal_sizes_add_up_and_spread_as_asked() -> None:
    generator = np.random.Generator(np.random.PCG64(1))
    spread = []
    for _ in range(50):
        sizes = hospital_sizes(100_000, 40, 0.8, generator)
        assert sizes.sum() == 100_000 and sizes.min() >= LEAST_PATIENTS
        spread.append(np.log(sizes - LEAST_PATIENTS + 0.5).std(ddof=1))
    assert np.mean(spread) == pytest.approx(0.8, rel=0.05)
    with pytest.raises(UsageError, match="too few"):
        hospital_sizes(59, 6, 0.0, generator)


def test_a_shift_moves_number_columns_alone_and_the_result_says_by_how_much() -> None:
    drawn = []
    for seed in range(40):
        made, said = split(seed, feature_shift=0.5)
        for cohort, hospital in zip(made, said.hospitals, strict=True):
            for part in (cohort.train, cohort.test):
                moved = part.features - np.array([1.0, 2.0, 0.0, 1.0, 0.0])
                wanted = np.array([hospital.shift["a"], hospital.shift["b"], 0.0, 0.0, 0.0])
                assert np.allclose(moved, wanted)
            drawn += [hospital.shift["a"], hospital.shift["b"]]
    assert np.std(drawn) == pytest.approx(0.5, rel=0.1) and abs(np.mean(drawn)) < 0.1


def test_a_missing_column_is_what_the_contract_says_of_a_missing_value() -> None:
    as_missing = {"a": (0, [0.0]), "b": (1, [2.0, 1.0]), "c": (3, [0.0, 0.0])}  # b: (5 - 1) / 2, and the indicator
    for seed in range(10):
        made, said = split(seed, missing_columns=0.34)
        assert all(len(hospital.missing) <= 1 for hospital in said.hospitals)
        assert sum(len(hospital.missing) for hospital in said.hospitals) >= 5
        for cohort, hospital in zip(made, said.hospitals, strict=True):
            row = np.array([1.0, 2.0, 0.0, 1.0, 0.0])
            for name in hospital.missing:
                place, values = as_missing[name]
                row[place : place + len(values)] = values
            assert (cohort.train.features == row).all()


def test_no_column_is_missing_everywhere_and_no_hospital_lacks_all() -> None:
    for seed in range(30):
        _, said = split(seed, sites=2, missing_columns=0.99)
        lacking = [set(hospital.missing) for hospital in said.hospitals]
        assert not set.intersection(*lacking) and all(len(missing) < 3 for missing in lacking)


def test_the_records_of_a_patient_stay_together() -> None:
    made, _ = split(patients=200, records_each=3)
    assert sum(c.train.patients + c.test.patients for c in made) == 200
    assert all(len(c.train.features) == 3 * c.train.patients for c in made)


def test_the_seed_decides_and_nothing_else() -> None:
    def hashes(seed: int) -> list[str]:
        return [cohort.data_hash for cohort in split(seed, label_skew=0.5, feature_shift=0.2)[0]]

    assert hashes(3) == hashes(3) != hashes(4)


@pytest.mark.parametrize(
    "words",
    [
        "sites=1", "sites=3 label_skew=0", "sites=3 label_skew=-1", "sites=3 size_skew=4", "sites=3 missing_columns=1",
        "label_skew=0.5", "sites=3 feature_shift=-0.1", "sites=20000",
    ],
)  # fmt: skip
def test_a_knob_outside_its_range_is_refused(words: str) -> None:
    overrides = [f"simulation.resplit.{word}" for word in words.split()]
    with pytest.raises(UsageError, match="resplit"):
        parse_configuration(compose_configuration(["study=synthetic", *overrides]))


def test_label_skew_needs_classes() -> None:
    survival = CONTRACT.model_copy(update={"label": CONTRACT.label.model_copy(update={"kind": "number"})})
    with pytest.raises(UsageError, match="label skew"):
        resplit(cohorts(), survival, ResplitSection(sites=3, label_skew=1.0), 0, 0.3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    knobs = ["sites=4", "label_skew=2", "size_skew=0.7", "feature_shift=0.5", "missing_columns=0.2"]
    folder = tmp_path_factory.mktemp("runs")
    words = ["study=synthetic", "rounds=2", f"simulation.output={folder}"]
    configuration = parse_configuration(
        compose_configuration([*words, *(f"simulation.resplit.{knob}" for knob in knobs)])
    )
    yield simulate(configuration, today=date(2026, 11, 23), started=time.perf_counter()), configuration


def test_the_result_and_the_page_say_that_the_hospitals_do_not_exist(finished: Any) -> None:
    simulated, configuration = finished
    made_up = simulated.result.made_up
    patients = sum(c.train.patients + c.test.patients for c in gather(configuration).cohorts)
    assert sum(hospital.patients for hospital in made_up.hospitals) == patients == 880
    assert made_up.seed == 42
    page = render_report(simulated.result, simulated.plan)
    assert "These hospitals do not exist" in page and 'id="made-up"' in page
    for hospital in made_up.hospitals:
        assert all(column in page for column in hospital.missing)


def test_the_hospitals_of_the_data_are_left_as_they_are(tmp_path: Path) -> None:
    gathered = gather(parse_configuration(compose_configuration(["study=synthetic"])))
    assert gathered.made_up is None and set(gathered.declared) == {"north", "south", "east", "west"}
