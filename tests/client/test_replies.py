"""A finished answer leaves again as it left: the same bytes, or the same vector for a new attempt, at no new charge."""

from datetime import date
from typing import Any

import numpy as np
import pytest

from wardround.client.connectors.cohort import make_cohort
from wardround.client.governance import grant_for, open_domain
from wardround.client.site import Site
from wardround.client.store.replies import StoredReplies
from wardround.client.tasks import task_from
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.protocol.errors import UsageError
from wardround.protocol.ledger import Release
from wardround.protocol.messages import LocalRule, Reply, RoundRequest
from wardround.protocol.outgoing import bytes_to_send, parse_answer
from wardround.protocol.parameters import initial_weights, model_hash
from wardround.strategies import strategy_from

TODAY = date(2026, 11, 23)
PLAN = make_plan(parse_configuration(compose_configuration([])), {"north": 50, "a": 50, "b": 50}, TODAY)
START = initial_weights(PLAN.layout, PLAN.model.scheme, PLAN.model.seed)
VALUES = np.random.default_rng(7)
COHORT = make_cohort(
    "north",
    VALUES.normal(size=(60, len(PLAN.contract.feature_names))),
    VALUES.integers(0, 2, 60),
    test=np.arange(60) % 5 == 0,
)
DOMAINS = ("training", "second")


@pytest.fixture
def granted(bare: Any) -> Any:
    """A hospital with a grant of the plan on two domains."""
    for domain in DOMAINS:
        bare.ledger.record(bare.approved(open_domain(domain, 12.0, 1e-4)))
        bare.ledger.record(bare.approved(grant_for(PLAN, "north", domain)))
    return bare


def answered(hospital: Any, number: int = 1, attempt: int = 1, key: bytes | None = None) -> bytes:
    """What leaves after a restart; a request for a later round is of another model."""
    ledger = hospital.restart()
    replies = StoredReplies(ledger._store, "north", key or hospital.folder.replies_key())
    site = Site(PLAN, COHORT, task_from(PLAN), strategy_from(PLAN.strategy), ledger, domains=DOMAINS, replies=replies)
    model = START + np.float32(number - 1)
    rule = LocalRule(PLAN.local.learning_rate)
    return bytes_to_send(site.answer(RoundRequest(PLAN.digest, number, attempt, model, model_hash(model), rule), TODAY))


def attempts(hospital: Any) -> list[int]:
    return [fact.attempt for fact in hospital.ledger.facts() if isinstance(fact, Release)]


def test_a_finished_answer_leaves_again_byte_for_byte(granted: Any) -> None:
    first = answered(granted)
    assert isinstance(parse_answer(first, "north"), Reply)
    assert answered(granted) == first
    assert granted.ledger.charged(PLAN.digest) == len(DOMAINS) and attempts(granted) == [1, 1]


def test_a_new_attempt_gets_the_same_vector_and_a_release_of_its_own(granted: Any) -> None:
    first, second = (parse_answer(answered(granted, attempt=attempt), "north") for attempt in (1, 2))
    assert isinstance(first, Reply) and isinstance(second, Reply)
    assert second.attempt == 2 and second.vector.tobytes() == first.vector.tobytes()
    assert granted.ledger.charged(PLAN.digest) == len(DOMAINS) and attempts(granted) == [1, 1, 2, 2]


def test_a_round_is_charged_to_every_domain_of_the_site(granted: Any) -> None:
    answered(granted)
    spent = [granted.ledger.used(domain)[0] for domain in DOMAINS]
    assert spent[0] == spent[1] > 0


def test_a_stored_answer_is_encrypted_anew_each_time_and_bound_to_its_place(granted: Any) -> None:
    answers = [answered(granted, number) for number in (1, 2)]
    store = granted.ledger._store
    rows = store.execute("SELECT nonce, sealed FROM replies ORDER BY round_number").fetchall()
    assert len({nonce for nonce, _ in rows}) == 2
    assert all(answer[-64:] not in sealed for answer, (_, sealed) in zip(answers, rows, strict=True))
    with pytest.raises(UsageError, match="cannot be opened"):
        answered(granted, key=bytes(32))
    store.execute("DELETE FROM replies WHERE round_number = 2")
    store.execute("UPDATE replies SET round_number = 2, model_hash = ?", (model_hash(START + np.float32(1)),))
    with pytest.raises(UsageError, match="cannot be opened"):
        answered(granted, 2)
