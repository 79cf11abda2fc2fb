"""What a coordinator may have a site keep: a bounded number of plans of a bounded size."""

from datetime import date

import pytest

from wardround.client.store import studies as studies_module
from wardround.client.store.database import open_store
from wardround.client.store.studies import MOST_BYTES, Studies
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.protocol.errors import ProtocolViolation
from wardround.protocol.plan import StudyPlan


def planned(rounds: int) -> StudyPlan:
    configuration = parse_configuration(compose_configuration(["study=heart_disease", f"rounds={rounds}"]))
    return make_plan(configuration, dict.fromkeys(("east", "north", "south"), 100), date(2026, 11, 1))


def test_a_plan_that_is_too_large_is_not_even_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StudyPlan, "parse", lambda content: pytest.fail("it was read"))
    with pytest.raises(ProtocolViolation, match="more than 1 MiB"):
        Studies(open_store(None)).add(b" " * (MOST_BYTES + 1))


def test_a_coordinator_fills_no_disk_with_proposals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies_module, "MOST_PROPOSED", 2)
    kept, plans = Studies(open_store(None)), [planned(rounds) for rounds in (2, 3, 4)]
    for plan in plans[:2]:
        assert kept.add(plan.canonical).digest == plan.digest
    with pytest.raises(ProtocolViolation, match="more than 2 plans"):
        kept.add(plans[2].canonical)
    assert kept.add(plans[0].canonical).digest == plans[0].digest, "a plan that is held is no new one"
    assert len(kept.all()) == 2
