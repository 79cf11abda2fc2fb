"""The words of a plan that become names of files and files' digests are whole words, not words somewhere in a text."""

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.protocol.plan import StudyPlan

DIGEST = "a" * 64


@pytest.fixture(scope="module")
def plan() -> StudyPlan:
    words = ["study=heart_disease", "data.dataset=null", "+data.declared={east:200,north:200,south:200}"]
    words += ["rounds=15", "privacy.noise_multiplier=2.84"]
    declared = dict.fromkeys(("east", "north", "south"), 200)
    return make_plan(parse_configuration(compose_configuration(words)), declared, datetime.now(UTC).date())


@pytest.mark.parametrize(
    "study", ["../../keys/x", "a/b", "x\n", "x\x1b[2J", "Heart", "", "a" * 64, "heart disease", "\u0430rteries"]
)
def test_the_name_of_a_study_is_one_plain_word(plan: StudyPlan, study: str) -> None:
    with pytest.raises(ValidationError):
        StudyPlan.model_validate(plan.model_dump() | {"study": study})
    assert StudyPlan.model_validate(plan.model_dump() | {"study": "a" * 63}).study == "a" * 63


@pytest.mark.parametrize("key", ["layout", "hash"])
@pytest.mark.parametrize("value", [DIGEST + "a", "x" + DIGEST, DIGEST + "\n", DIGEST[1:], DIGEST.upper()])
def test_a_digest_in_a_plan_is_64_digits_and_nothing_else(plan: StudyPlan, key: str, value: str) -> None:
    content = plan.model_dump()
    with pytest.raises(ValidationError):
        StudyPlan.model_validate(content | {"model": content["model"] | {key: value}})
    good = StudyPlan.model_validate(content | {"model": content["model"] | {key: DIGEST}})
    assert getattr(good.model, key) == DIGEST
