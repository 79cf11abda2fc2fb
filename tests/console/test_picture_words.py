"""What an officer reads of a study of pictures: everything that is taken of them, and that nothing else is."""

from datetime import date

import pytest

from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.console.plan_words import in_words
from wardround.console.reports.words import model_words, picture_words, reading_words
from wardround.protocol.contract import ImageInput
from wardround.protocol.plan import StudyPlan


def planned(study: str) -> StudyPlan:
    configuration = parse_configuration(compose_configuration([f"study={study}", "privacy.delta=auto"]))
    return make_plan(configuration, dict.fromkeys(("pitt", "unc", "washu"), 50), date(2026, 11, 24))


@pytest.mark.parametrize(
    ("study", "said"),
    [
        ("lung_ct", "CT pictures, values \N{MINUS SIGN}160 to 240, as 64 x 64 pixels, grey"),
        (
            "lung_ct_histogram",
            "CT pictures, values \N{MINUS SIGN}160 to 240, as the square roots of the shares of 64 equal parts",
        ),
        ("chest_xray", "DX pictures, values 0 to 255, as 28 x 28 pixels, grey"),
    ],
)
def test_the_plan_says_what_becomes_of_a_picture(study: str, said: str) -> None:
    plan = planned(study)
    assert plan.contract is not None
    assert reading_words(plan.contract).startswith(said) and "no field is used" in reading_words(plan.contract)
    assert any(said in line for line in in_words(plan)), "the officer's page says it too"


def test_spacing_and_colour_are_named() -> None:
    image = ImageInput(modality="MR", size=(8, 16, 16), channels=3, spacing=(2.0, 1.0, 1.5), window=(0, 1000))
    assert picture_words(image) == "MR pictures, values 0 to 1000, as 8 x 16 x 16 pixels at 2 x 1 x 1.5 mm, in colour"


def test_the_network_is_named_with_its_size() -> None:
    words = model_words(planned("lung_ct"))
    assert "16, 32 and 64 channels" in words and "23,249 parameters" in words
