"""A field that was added later leaves the digest of every earlier plan alone."""

from datetime import date

import pytest
from pydantic import ValidationError

from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.protocol.part import Part, later
from wardround.protocol.plan import StudyPlan

BEFORE = {
    # Computed by the version that had no later fields, with this behaviour and code version written in.
    "study=heart_disease": "f865e0d5dbbc82c6bad157e382e369ac5d00b71ad2d3f886f1d4074d3f27fee6",
    "study=lung_ct": "112dbcd1a6e58141d1bac7b49857e6a49749dfce969a5ab84a6ad1485c210e6d",
    "study=lung_ct_histogram": "e1ba6287f85d345211086721a2ff909059c31d681236dc80c9a66bd21c39d3ca",
    "study=heart_disease task=mlp privacy=dist": "bdbcceb67bfd021d81425a134ea298fa851a18b2af599497e099490741286158",
}


class Old(Part):
    name: str


class New(Part):
    name: str
    much: int = later(1, ge=1)
    ordinary: int = 2


def plan_of(words: str) -> StudyPlan:
    configuration = parse_configuration(compose_configuration(words.split()))
    plan = make_plan(configuration, dict.fromkeys("abcd", 100), date(2026, 11, 24))
    return plan.model_copy(update={"behaviour": "0" * 64, "code_version": "0"})


@pytest.mark.parametrize(("words", "digest"), BEFORE.items())
def test_plans_of_earlier_versions_keep_their_names(words: str, digest: str) -> None:
    plan = plan_of(words)
    assert plan.digest == digest
    assert StudyPlan.parse(plan.canonical).digest == digest


def test_a_later_field_is_written_only_when_it_says_something_new() -> None:
    assert New(name="a").model_dump() == {"name": "a", "ordinary": 2}
    assert New(name="a", much=1).model_dump(mode="json") == {"name": "a", "ordinary": 2}
    assert New(name="a", much=3).model_dump(mode="json") == {"name": "a", "much": 3, "ordinary": 2}
    assert New.model_validate(Old(name="a").model_dump()) == New(name="a")


def test_a_later_field_that_is_set_renames_the_plan_and_comes_back() -> None:
    plain, weighted = plan_of("study=heart_disease"), plan_of("study=heart_disease +task.positive_weights=[2.0]")
    assert plain.digest != weighted.digest
    assert StudyPlan.parse(weighted.canonical) == weighted


def test_a_part_takes_no_field_that_it_does_not_know_and_changes_none() -> None:
    with pytest.raises(ValidationError):
        New.model_validate({"name": "a", "more": 1})
    with pytest.raises(ValidationError):
        New(name="a").much = 4
