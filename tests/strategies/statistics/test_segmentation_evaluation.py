"""A released U-Net on whole patients: its Dice beside MONAI's, its intervals, and what no plan may ask."""

import os
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from monai.metrics.meandice import DiceMetric
from pydantic import ValidationError
from safetensors.numpy import save

from wardround.client import answers as site_answers
from wardround.client.answers import answers_from
from wardround.client.tasks import segmentation
from wardround.console.reports.statistics_words import asked
from wardround.privacy.gradients import Examples
from wardround.protocol.parameters import initial_weights, model_hash
from wardround.strategies.statistics import read, statistic_for
from wardround.strategies.statistics.segmentation_evaluation import SegmentationEvaluations
from wardround.strategies.statistics.table import Table

SOAK = os.environ.get("WARDROUND_SOAK") == "1"
REPETITIONS = 1000 if SOAK else 200
BETWEEN = scipy.stats.binom.ppf([5e-5, 1 - 5e-5], REPETITIONS, 0.95)
MOST = 60.0
FIGURES = ("mean Dice of a", "pooled Dice of a (clipped at 60)", "a marked where there is none")


def table(patient: Any, *overlaps: Any) -> Table:
    """Rows of one structure, or of several: (voxels in both, in the prediction, in the reference)."""
    found = np.array(overlaps, np.float64).reshape(len(patient), -1, 3)
    return Table({}, {}, np.asarray(patient), overlaps={"q": found})


def statistic(kit: Any, **changes: Any) -> SegmentationEvaluations:
    query = kit.query("segmentation_evaluation", **{"structures": ["a"], "largest_volume": MOST} | changes)
    found = statistic_for(query, {}, 0.95)
    assert isinstance(found, SegmentationEvaluations)
    return found


def test_what_a_patient_adds_is_its_count_its_dice_and_its_volume(kit: Any) -> None:
    """Dice 2 * 12 / 60 = 0.4 of a volume of 30, which is half of 60."""
    d, v = 0.4, 0.5
    expected = [1, 0, 0, d - 0.5, (d**2 - 0.5) / 2, v - 0.5, d * v - 0.5]
    expected += [(v**2 - 0.5) / 2, (d * v**2 - 0.5) / 2, (d**2 * v**2 - 0.5) / 2]
    assert statistic(kit).site_sum(table([0], (12, 40, 20))) == pytest.approx(expected)
    assert statistic(kit, largest_volume=None).site_sum(table([0], (12, 40, 20))) == pytest.approx(expected[:5])


def test_all_pictures_of_a_patient_are_one(kit: Any) -> None:
    """Three pictures, one of them empty, are the sums of their voxels: neither the mean of their Dice nor three."""
    three, other = table([0, 0, 0], (10, 10, 10), (2, 40, 0), (0, 0, 0)), table([0], (12, 50, 10))
    assert statistic(kit).site_sum(three) == pytest.approx(statistic(kit).site_sum(other))
    both = statistic(kit).site_sum(table([0, 0, 0, 4], (10, 10, 10), (2, 40, 0), (0, 0, 0), (12, 50, 10)))
    assert both == pytest.approx(2 * statistic(kit).site_sum(other))


def values(kit: Any, *overlaps: tuple[float, float, float]) -> dict[str, Any]:
    """The figures of fifty patients of each kind, without noise."""
    one = statistic(kit)
    numbers = one.site_sum(table(np.arange(50 * len(overlaps)), *(50 * overlaps)))
    return {cell.quantity: cell for cell in one.answer(numbers[None], 0.0)}


def test_who_has_the_structure_in_neither_is_counted_apart_and_in_no_dice(kit: Any) -> None:
    assert statistic(kit).site_sum(table([0], (0, 0, 0))).tolist() == [0, 0, 1, *[0] * 7]
    found = values(kit, (20, 20, 20), (0, 0, 0), (10, 30, 10), (0, 30, 0), (0, 0, 0))
    assert found["mean Dice of a"].value == pytest.approx((1 + 0.5 + 0) / 3), "marked where there is none, it is 0"
    assert found["mean Dice of a"].patients == pytest.approx(150)
    assert found["a marked where there is none"].value == pytest.approx(1 / 3)
    assert found["a marked where there is none"].patients == pytest.approx(150)


def test_who_is_missed_has_the_structure_and_a_dice_of_zero(kit: Any) -> None:
    found = values(kit, (0, 0, 30), (30, 30, 30), (0, 0, 0))
    assert found["mean Dice of a"].value == pytest.approx(0.5) and found["mean Dice of a"].patients == pytest.approx(
        100
    )
    assert found["a marked where there is none"].value == 0.0
    assert found["a marked where there is none"].patients == pytest.approx(50)


def test_who_is_larger_than_the_largest_volume_keeps_its_dice_and_weighs_as_that(kit: Any) -> None:
    """Volumes of 30 and 600 weigh 30 and 60: (0.5 * 30 + 0.9 * 60) / 90."""
    found = values(kit, (15, 30, 30), (540, 500, 700))
    assert found["pooled Dice of a (clipped at 60)"].value == pytest.approx(0.69 / 0.9)
    assert found["mean Dice of a"].value == pytest.approx(0.7)


@pytest.mark.parametrize(("structures", "largest", "bound"), [(1, None, 21**0.5 / 4), (1, 9, 2**0.5), (3, 9, 6**0.5)])
def test_the_bound_is_that_of_the_proof_and_is_reached(kit: Any, structures: int, largest: Any, bound: float) -> None:
    names = [f"s{number}" for number in range(structures)]
    several = statistic(kit, structures=names, largest_volume=largest)
    assert several.bound == pytest.approx(bound)
    longest = several.site_sum(table([0], *[(50, 50, 50)] * structures))
    assert np.linalg.norm(longest) == pytest.approx(bound)


def test_without_a_largest_volume_there_is_no_pooled_dice_and_less_noise_on_the_mean(kit: Any) -> None:
    plain, both = statistic(kit, largest_volume=None), statistic(kit)
    cells = plain.answer(plain.typical(100)[None], 1.0)
    assert [cell.quantity for cell in cells] == ["mean Dice of a", "a marked where there is none"]
    assert plain.bound < 0.82 * both.bound


def people(random: np.random.Generator, count: int) -> Any:
    """Volumes up to thrice the largest, of larger a better Dice, 10 % missed; 30 % without, half of them marked."""
    volume = np.minimum(np.ceil(random.lognormal(3.4, 0.7, count)), 3 * MOST)
    there = random.random(count) >= 0.3
    seen = np.where(there, random.random(count) >= 0.1, random.random(count) < 0.5)
    both = random.beta(2 + volume / 20, 1.5) * volume * there * seen
    return np.stack([both, volume * seen, volume * there], axis=1)


def covered(kit: Any, patients: int, noise: float, read_as: float) -> dict[str, list[int]]:
    """By figure: times it was shown, and times its interval held the figure of a million."""
    one, random = statistic(kit), np.random.default_rng(20261129)
    both, marked, there = people(random, 1_000_000).T
    stated = marked + there > 0
    each = (2 * both[stated]) / (marked + there)[stated]
    volume = np.minimum((marked + there)[stated] / 2, MOST)
    alarms = (marked[there == 0] > 0).mean()
    truth = dict(zip(FIGURES, (each.mean(), each @ volume / volume.sum(), alarms), strict=True))
    found = {name: [0, 0] for name in FIGURES}
    for _ in range(REPETITIONS):
        sums = one.site_sum(table(np.arange(patients), people(random, patients)))
        for cell in one.answer((sums + random.normal(0, noise, 10))[None], read_as):
            if cell.low is not None and cell.high is not None:
                found[cell.quantity][0] += 1
                found[cell.quantity][1] += cell.low <= truth[cell.quantity] <= cell.high
    return found


@pytest.mark.parametrize(("patients", "noise"), [(1200, 0.0), (1200, 8.0), (250, 8.0)])
def test_intervals_cover_what_a_million_patients_show(kit: Any, patients: int, noise: float) -> None:
    for name, (shown, times) in covered(kit, patients, noise, noise).items():
        assert shown >= 0.99 * REPETITIONS
        assert BETWEEN[0] * shown / REPETITIONS <= times <= BETWEEN[1], f"{name}: {times} of {shown}"


def test_intervals_for_half_the_noise_are_noticed(kit: Any) -> None:
    found = covered(kit, 400, 16.0, 8.0)
    assert all(found[name][1] < BETWEEN[0] for name in FIGURES)


def one_hot(values: Any) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(values), 3).movedim(-1, 1)


def drawn(kit: Any) -> tuple[Any, bytes, Examples]:
    """A query of a U-Net with drawn weights, its file, and 90 pictures of 40 patients; eight of them have no tumour."""
    random, query = np.random.default_rng(5), kit.query("segmentation_evaluation", largest_volume=1000)
    layout = query.model.task.layout(1)
    weights = initial_weights(layout, "uniform", 3)
    file = save({name: np.ascontiguousarray(part) for name, part in layout.split(weights).items()})
    about = query.model.file.model_dump() | {"sha256": sha256(file).hexdigest()}
    model = query.model.model_dump() | {"file": about, "hash": model_hash(weights)}
    patient = np.sort(np.concatenate([np.arange(40), random.integers(0, 40, 50)]))
    # Every fifth patient's pictures are blank, so nothing is marked there, and hold no tumour.
    blank = (patient % 5 == 0)[:, None, None, None]
    mask = random.integers(0, np.where(blank, 2, 3), (90, 1, 8, 8))
    pixels = np.where(blank, 0, random.normal(size=(90, 1, 8, 8)) + mask)
    features = np.concatenate([pixels, mask], axis=1).astype(np.float32)
    rows = Examples(features, np.zeros((90, 1)), patient, 40)
    return kit.query("segmentation_evaluation", largest_volume=1000, model=model), file, rows


def test_dice_of_patients_of_several_pictures_is_monais(kit: Any) -> None:
    """One volume of a patient's pictures, one behind the other; empty in both is 1 to MONAI, and left out."""
    query, file, rows = drawn(kit)
    plan = kit.plan_for(query)
    answers = answers_from(plan, lambda wanted: file)
    (model,) = answers.models.values()
    assert isinstance(model, site_answers.Marking)
    maps = model.task.engine.outputs(model.weights.astype(np.float64), rows.features)
    expected: dict[str, list[float]] = {"liver": [], "tumour": []}
    sums = {name: np.zeros(2) for name in expected}
    for patient in range(40):
        own = rows.patient == patient
        # Their pictures, one behind the other, as one volume.
        marked = one_hot(maps[own, :-1].argmax(1)[None])
        truth = one_hot(rows.features[own, 1].astype(np.int64)[None])
        dice = DiceMetric(include_background=False, ignore_empty=False)(marked, truth)[0]
        for place, name in enumerate(expected, 1):
            either = float(marked[:, place].sum() + truth[:, place].sum())
            if either:
                expected[name].append(float(dice[place - 1]))
                sums[name] += 2 * float((marked[:, place] * truth[:, place]).sum()), either
    model_of_sums = np.concatenate([[1.0], answers.vector(rows, lambda size: b"")]).astype(np.float32)
    found = {cell.quantity: cell for cell in read(plan, model_of_sums)}
    for name, each in expected.items():
        assert found[f"mean Dice of {name}"].value == pytest.approx(np.mean(each), abs=2e-6)
        assert found[f"mean Dice of {name}"].patients == pytest.approx(len(each), abs=1e-4)
        pooled = found[f"pooled Dice of {name} (clipped at 1000)"].value
        assert pooled == pytest.approx(sums[name][0] / sums[name][1], abs=2e-5)
    assert (len(expected["liver"]), len(expected["tumour"])) == (40, 32)


def test_maps_are_made_some_pictures_at_a_time(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    query, file, rows = drawn(kit)
    answers = answers_from(kit.plan_for(query), lambda wanted: file)
    whole = answers.vector(rows, lambda size: b"")
    monkeypatch.setattr(segmentation, "_MAPS_AT_ONCE", 7 * 2 * 64)
    assert answers.vector(rows, lambda size: b"") == pytest.approx(whole, rel=1e-12)


def test_a_hospital_without_test_patients_adds_nothing_but_noise(kit: Any) -> None:
    answers = answers_from(kit.plan_for(kit.query("segmentation_evaluation")), kit.installed)
    nobody = kit.pictures(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
    assert answers.vector(nobody, lambda size: b"").tolist() == [0.0] * 20


def test_a_structure_that_is_asked_alone_is_the_same_as_beside_others(kit: Any) -> None:
    """The tumour is the second map, though its number is written first."""
    alone = kit.plan_for(kit.query("segmentation_evaluation", structures=["tumour"], largest_volume=None))
    both = kit.plan_for(kit.query("segmentation_evaluation", largest_volume=None))
    rows = kit.pictures([0, 1, 2], [50.0, 60.0, 90.0], [0, 1, 1])
    one, two = (answers_from(each, kit.installed).vector(rows, lambda size: b"") for each in (alone, both))
    assert one == pytest.approx(two[5:] * 2**0.5)
    assert one[:3] * 21**0.5 / 4 == pytest.approx([1, 0, 2])


def test_the_officer_reads_which_structures_and_what_a_volume_counts(kit: Any) -> None:
    (_, words), *_ = asked(kit.plan_for(kit.query("segmentation_evaluation")).task)
    assert "000000000000 marks 'liver' and 'tumour': the mean of patients' Dice against the masks of 'mask'" in words
    assert "where a patient's volume counts up to 30 voxels; a patient counts as at most 1 row" in words
    marks = kit.query("segmentation_evaluation").model.model_dump()
    training = marks | {"file": None, "hash": None, "trained_by": None}
    query = kit.query("segmentation_evaluation", model=training, largest_volume=None, structures=["liver"])
    follows = {"plan": "0" * 64, "rounds": (3,)}
    (_, words), *_ = asked(kit.task(query, follows=follows))
    assert words.startswith("how well the model in training marks 'liver': the mean of patients' Dice")
    assert "voxels" not in words


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows_per_patient": 2}, "counts as one"),
        ({"outcome": "picture"}, "'picture' is no column of masks"),
        ({"structures": ["spleen"]}, "'spleen' is not the meaning of one structure"),
        ({"structures": ["liver", "liver"]}, "named twice"),
        ({"by": [{"column": "sex", "codes": ["f", "m", "o"]}]}, "groups by 'sex'"),
        ({"by": [{"column": "age", "cuts": [50]}]}, "'age' is no column of numbers"),
        ({"where": [{"column": "age", "below": 50}]}, "'age' is no column of numbers"),
        ({"largest_volume": 0}, "greater than 0"),
    ],
)
def test_a_query_that_makes_no_sense_is_no_plan(kit: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        kit.plan_for(kit.query("segmentation_evaluation", **changes))


def test_a_model_is_asked_for_what_it_predicts(kit: Any) -> None:
    marks, logistic = kit.query("segmentation_evaluation").model.model_dump(), kit.model.model_dump()
    with pytest.raises(ValidationError, match="'segmentation_evaluation' for one that marks structures"):
        kit.query("evaluation", model=marks)
    with pytest.raises(ValidationError, match="a model that marks structures"):
        kit.query("segmentation_evaluation", model=logistic)
    three = marks | {"task": marks["task"] | {"structures": 3}}
    with pytest.raises(ValidationError, match="not one for the contract"):
        kit.plan_for(kit.query("segmentation_evaluation", model=three))
    with pytest.raises(ValidationError, match="did not train it"):
        kit.plan_for(kit.query("segmentation_evaluation"), patients="everyone")
