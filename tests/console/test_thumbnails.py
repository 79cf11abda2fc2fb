"""Pictures on a page are phantoms of the plan's contract, and the page holds them itself."""

import io
from base64 import b64decode
from datetime import date

import numpy as np
import pytest
from PIL import Image

from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.console.reports.thumbnails import EACH, SIDE, thumbnails
from wardround.protocol.contract import DataContract, ImageInput
from wardround.protocol.plan import StudyPlan


def contract_of(study: str) -> DataContract | None:
    configuration = parse_configuration(compose_configuration([f"study={study}", "privacy.delta=auto"]))
    plan: StudyPlan = make_plan(configuration, dict.fromkeys(("pitt", "unc", "washu"), 50), date(2026, 11, 24))
    return plan.contract


def opened(address: str) -> np.ndarray:
    head, _, body = address.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(b64decode(body))))


@pytest.mark.parametrize("study", ["lung_ct", "lung_ct_histogram", "chest_xray"])
def test_an_imaging_study_shows_phantoms_of_both_classes(study: str) -> None:
    contract = contract_of(study)
    assert contract is not None and contract.image is not None
    found = thumbnails(contract)
    assert [each.caption.endswith(": yes") for each in found] == [True] * EACH + [False] * EACH
    for each in found:
        picture = opened(each.address)
        assert picture.shape == tuple(min(side, SIDE) for side in contract.image.size) and picture.std() > 5
    assert len({each.address for each in found}) == 2 * EACH
    assert sum(len(each.address) for each in found) < 100_000


def test_they_are_a_function_of_the_contract_alone() -> None:
    contract = contract_of("lung_ct")
    assert thumbnails(contract) == thumbnails(contract)


def test_colour_and_volumes_are_drawn_small() -> None:
    contract = contract_of("lung_ct")
    assert contract is not None
    large = ImageInput(modality="MR", size=(8, 300, 200), channels=3, window=(0, 800))
    (first, *_) = thumbnails(contract.model_copy(update={"image": large}))
    assert opened(first.address).shape == (128, 85, 3)


def test_a_study_of_tables_shows_none() -> None:
    assert thumbnails(contract_of("heart_disease")) == [] and thumbnails(None) == []
