"""Data from a contract hold every edge of it, pass its check, and can be learnt."""

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from wardround.client.connectors.table import apply_contract
from wardround.client.imaging.picture import Picture
from wardround.client.imaging.prepare import features_of
from wardround.client.imaging.records import picture_records
from wardround.protocol.contract import DataContract, ImageInput
from wardround.protocol.errors import UsageError
from wardround.simulations.synthetic.contract_data import PICTURE, rehearsal_pictures, rehearsal_table

AGE = {"type": "number", "name": "age", "meaning": "Age", "unit": "a", "minimum": 18, "maximum": 90.5, "center": 60,
       "scale": 10}  # fmt: skip
CHOL = {"type": "number", "name": "chol", "meaning": "Cholesterol", "unit": "mg/dL", "minimum": 60, "maximum": 700,
        "center": 200, "scale": 60, "also_allowed": [0], "missing_codes": [-9, 999],
        "missing": {"kind": "fixed_value", "value": 200}}  # fmt: skip
STAGE = {"type": "code", "name": "stage", "meaning": "Stage", "codes": {"1": "one", "2": "two", "x": "unknown"},
         "reference": "1"}  # fmt: skip
LABEL = {"kind": "class", "column": "ill", "meaning": "Ill", "positive": ["1", "2"], "negative": ["0"]}
SURVIVAL = {"kind": "survival", "time": "days", "event": "dead", "meaning": "Death", "unit": "d", "maximum_time": 900}


def contract(**changes: Any) -> DataContract:
    given = {"columns": [AGE, CHOL, STAGE], "label": LABEL, "patient_id": "who", "missing_tokens": ["", "?", "NA"]}
    return DataContract.model_validate(given | changes)


def test_every_edge_of_the_contract_is_in_the_table() -> None:
    table = rehearsal_table(contract(), "north", 40, seed=1)
    cells = {name: set(table[name].to_pylist()) for name in table.column_names}
    assert {"18", "90.5", "", "?", "NA", None} <= cells["age"]
    assert {"60", "700", "0", "-9", "999", "", "?", "NA", None} <= cells["chol"]
    assert {"1", "2", "x", "1.0", "2.0", "", None} <= cells["stage"]
    assert {"0", "1", "2"} <= cells["ill"] and len(cells["ill"] - {"0", "1", "2"}) == 1
    assert len(cells["who"]) == 40 < table.num_rows == 70


def test_the_contract_accepts_the_table_and_leaves_out_only_what_is_missing() -> None:
    for seed in range(20):
        table = rehearsal_table(contract(), "north", 40, seed)
        records = apply_contract(table, contract(), "north")
        assert {"age missing", "label"} <= set(records.excluded) | {"label"} and "label missing" in records.excluded
        assert sum(records.excluded.values()) + len(records.targets) == table.num_rows
        assert len(records.targets) > 0.7 * table.num_rows
        assert set(records.targets[:, 0]) == {0.0, 1.0}


def test_a_broken_table_would_be_refused() -> None:
    table = rehearsal_table(contract(), "north", 40, 0)
    ages = table["age"].to_pylist()
    ages[3] = "91"
    with pytest.raises(UsageError, match="row 4, column 'age'"):
        apply_contract(table.set_column(0, "age", pa.array(ages, pa.string())), contract(), "north")


def test_a_site_of_one_class_on_request() -> None:
    records = apply_contract(rehearsal_table(contract(), "south", 40, 0, one_class=True), contract(), "south")
    assert set(records.targets[:, 0]) == {0.0}
    survival = contract(label=SURVIVAL)
    records = apply_contract(rehearsal_table(survival, "south", 40, 0, one_class=True), survival, "south")
    assert set(records.targets[:, 1]) == {0.0}


def test_survival_times_reach_from_nothing_to_the_longest_with_events_and_without() -> None:
    survival = contract(label=SURVIVAL)
    records = apply_contract(rehearsal_table(survival, "north", 60, 0), survival, "north")
    assert (records.targets[:, 0].min(), records.targets[:, 0].max()) == (0.0, 900.0)
    assert 0.2 < records.targets[:, 1].mean() < 0.8


def test_without_a_patient_each_row_is_one_and_sites_and_seeds_differ() -> None:
    plain = contract(patient_id=None)
    table = rehearsal_table(plain, "north", 50, 0)
    assert table.num_rows == 50 and "who" not in table.column_names
    assert table.equals(rehearsal_table(plain, "north", 50, 0))
    others = [rehearsal_table(plain, "south", 50, 0), rehearsal_table(plain, "north", 50, 1)]
    assert not any(table.equals(other) for other in others)


def test_a_model_has_something_to_learn() -> None:
    parts = [apply_contract(rehearsal_table(contract(), "north", 600, seed), contract(), "n") for seed in (0, 1)]
    fitted = LogisticRegression(max_iter=500).fit(parts[0].features, parts[0].targets[:, 0])
    assert roc_auc_score(parts[1].targets[:, 0], fitted.decision_function(parts[1].features)) > 0.7


def test_too_few_patients_for_the_edges_are_named() -> None:
    with pytest.raises(UsageError, match="3 patients at 'north' are too few"):
        rehearsal_table(contract(), "north", 3, 0)
    with pytest.raises(UsageError, match="has no image"):
        next(rehearsal_pictures(contract(), "north", 40, 0))


IMAGES = [
    ImageInput(modality="CT", size=(32, 32), spacing=(8, 8), window=(-160, 240)),
    ImageInput(modality="CT", size=(16, 24, 24), spacing=(10, 10, 10), window=(-1000, 400), orientation="LPS"),
    ImageInput(modality="DX", size=(28, 40), window=(0, 4095)),
    ImageInput(modality="CR", size=(24, 24), window=(0, 255), channels=3),
    ImageInput(modality="MR", size=(12, 32, 32), spacing=(8, 5, 5), window=(0, 700), orientation="LPS"),
    ImageInput(modality="MR", size=(48, 48), window=(-1, 1)),
    ImageInput(modality="DX", size=(8, 16, 16), window=(0, 1)),
]


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: f"{image.modality}{image.size}")
def test_pictures_of_any_contract_become_features_of_its_shape(image: ImageInput) -> None:
    asked = contract(columns=[], image=image)
    table = rehearsal_table(asked, "north", 12, 0)
    found = list(rehearsal_pictures(asked, "north", 12, 0))
    labels = {row[PICTURE]: row for row in table.to_pylist()}
    assert [picture.key for picture in found] == table[PICTURE].to_pylist()
    assert [picture.patient for picture in found] == table["who"].to_pylist()
    assert len({picture.pixels.shape for picture in found}) > 5
    assert any(np.isnan(picture.pixels).any() for picture in found)
    parts = list(picture_records(iter(found), labels, asked, "north"))
    features = np.concatenate([part.features for part in parts])
    assert features.shape[1:] == image.shape and np.isfinite(features).all()
    assert (features.min(), features.max()) == (-1.0, 1.0)
    assert sum(sum(part.excluded.values()) for part in parts) == len(found) - len(features) == 1


def test_a_volume_in_any_order_of_axes_comes_back_upright() -> None:
    image = ImageInput(modality="CT", size=(12, 24, 32), spacing=(9, 9, 9), window=(-900, 300), orientation="LPS")
    asked = contract(columns=[], image=image)
    found = list(rehearsal_pictures(asked, "north", 12, 0))
    turns = [picture.affine[:3, :3] for picture in found if picture.affine is not None]
    assert len({tuple(np.argmax(np.abs(turn), axis=0)) for turn in turns}) == 3
    assert {float(np.sign(np.linalg.det(turn))) for turn in turns} == {1.0, -1.0}
    upright = np.stack([features_of(picture, image)[0] for picture in found])
    # Of a chest, the heart is left of the middle, the spine behind and the lungs' tips above.
    for axis in (0, 1, 2):
        odd = (upright - np.flip(upright, axis + 1)).reshape(len(found), -1)
        assert (odd @ odd.mean(0) > 0).all()
    assert (upright[:, :, 14:, 14:18].mean((1, 2, 3)) - upright[:, :, :10, 14:18].mean((1, 2, 3))).mean() > 0.03
    assert upright[..., 17:22].mean() - upright[..., 10:15].mean() > 0.03
    assert upright[:, 2:5].mean() - upright[:, -3:].mean() > 0.03


def test_header_fields_come_with_the_pictures_and_their_edges_too() -> None:
    image = ImageInput(modality="CT", size=(32, 32), window=(-160, 240), features="histogram", bins=20)
    kvp = {"type": "number", "name": "KVP", "meaning": "Tube voltage", "unit": "kV", "minimum": 70, "maximum": 150,
           "center": 120, "scale": 20}  # fmt: skip
    asked = contract(columns=[kvp], image=image)
    table = rehearsal_table(asked, "north", 20, 0)
    assert "KVP" not in table.column_names
    found = list(rehearsal_pictures(asked, "north", 20, 0))
    values = {picture.numbers.get("KVP") for picture in found}
    assert {70.0, 150.0, None} <= values
    labels = {row[PICTURE]: row for row in table.to_pylist()}
    (records,) = [part for part in picture_records(iter(found), labels, asked, "n") if len(part.targets)][:1]
    assert records.features.shape[1] == 21


def test_the_finding_in_the_pictures_follows_the_label() -> None:
    image = ImageInput(modality="CT", size=(48, 48), window=(-160, 240), features="histogram", bins=40)
    asked = contract(columns=[], image=image)

    def part(seed: int) -> tuple[np.ndarray, np.ndarray]:
        labels = {row[PICTURE]: row["ill"] for row in rehearsal_table(asked, "north", 60, seed).to_pylist()}
        pairs = [(features_of(one, image), labels[one.key]) for one in rehearsal_pictures(asked, "north", 60, seed)]
        known = [(x, y in ("1", "2")) for x, y in pairs if y in ("0", "1", "2")]
        return np.array([x for x, _ in known]), np.array([y for _, y in known])

    fitted = LogisticRegression(max_iter=2000).fit(*part(0))
    x, y = part(1)
    assert roc_auc_score(y, fitted.decision_function(x)) > 0.9


def test_pictures_are_made_one_at_a_time() -> None:
    asked = contract(columns=[], image=IMAGES[0])
    first = next(rehearsal_pictures(asked, "north", 100_000, 0))
    assert isinstance(first, Picture)
    keys = [picture.key for picture, _ in zip(rehearsal_pictures(asked, "north", 50, 0), range(9), strict=False)]
    assert all(one < two for one, two in pairwise(keys))
