"""What a site remembers: kept with its answer, counted when the model has moved, made of what was released."""

import os
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wardround.client import training
from wardround.client.connectors.cohort import make_cohort
from wardround.client.governance import grant_for, open_domain
from wardround.client.site import Phase, Site
from wardround.client.store.backup import backup, restore
from wardround.client.store.memory import SiteMemory
from wardround.client.store.replies import StoredReplies
from wardround.client.tasks import task_from
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.protocol.errors import UsageError
from wardround.protocol.messages import LocalRule, Refusal, Reply, RoundRequest
from wardround.protocol.outgoing import bytes_to_send, parse_answer
from wardround.protocol.parameters import initial_weights, model_hash
from wardround.strategies import strategy_for

TODAY = date(2026, 11, 23)


def planned(*overrides: str) -> Any:
    configuration = parse_configuration(compose_configuration(list(overrides)))
    return make_plan(configuration, {"north": 50, "a": 50, "b": 50}, TODAY)


PLAN = planned("strategy=scaffold", "local.steps=3")
HEADED = planned("strategy=fedper", "task=mlp", "local.steps=2")
C = 0.01


def start_of(plan: Any) -> Any:
    return initial_weights(plan.layout, plan.model.scheme, plan.model.seed)


START = start_of(PLAN)
MOVED = START + np.float32(1)
VALUES = np.random.default_rng(7)
COHORT = make_cohort(
    "north",
    VALUES.normal(size=(60, len(PLAN.contract.feature_names))),
    VALUES.integers(0, 2, 60),
    test=np.arange(60) % 5 == 0,
)


@pytest.fixture
def granted(bare: Any) -> Any:
    bare.ledger.record(bare.approved(open_domain("training", 50.0, 1e-4)))
    for plan in (PLAN, HEADED):
        bare.ledger.record(bare.approved(grant_for(plan, "north")))
    return bare


def request(plan: Any, number: int, model: Any, attempt: int = 1) -> RoundRequest:
    linear = np.full(len(model), C, np.float32) if plan is PLAN else None
    rule = LocalRule(plan.local.learning_rate, linear_term=linear)
    return RoundRequest(plan.digest, number, attempt, model, model_hash(model), rule)


def site_of(hospital: Any, plan: Any = PLAN) -> Site:
    """The site after a restart."""
    ledger, folder = hospital.restart(), hospital.folder
    replies = StoredReplies(ledger._store, "north", folder.replies_key())
    memory = SiteMemory(ledger._store, "north", folder.memory_key())
    site = Site(plan, COHORT, task_from(plan), strategy_for(plan), ledger, replies=replies, memory=memory)
    site.recover()
    return site


def answered(hospital: Any, number: int, model: Any, attempt: int = 1, plan: Any = PLAN) -> Any:
    site = site_of(hospital, plan)
    return parse_answer(bytes_to_send(site.answer(request(plan, number, model, attempt), TODAY)), "north")


def remembered(hospital: Any, number: int, model: Any, plan: Any = PLAN) -> Any:
    return site_of(hospital, plan).remembered(number, model_hash(model))


def difference(reply: Any, plan: Any = PLAN) -> Any:
    assert isinstance(reply, Reply), reply
    return reply.vector[:-1] / plan.declared_patients("north")


def change_of(reply: Any) -> Any:
    """c_i+ - c_i, from what was sent and nothing else."""
    return -C - difference(reply) / (3 * PLAN.local.learning_rate)


def test_a_memory_is_made_of_the_noised_update_that_was_sent_and_of_nothing_else(granted: Any) -> None:
    reply = answered(granted, 1, START)
    kept = remembered(granted, 2, MOVED)
    assert kept is not None
    np.testing.assert_allclose(kept["c"], change_of(reply), atol=1e-6)


def test_a_round_from_the_same_model_says_that_the_one_before_was_void_and_it_is_forgotten(granted: Any) -> None:
    answered(granted, 1, START)
    assert remembered(granted, 2, START) is None
    again = answered(granted, 2, START)
    np.testing.assert_allclose(remembered(granted, 3, MOVED)["c"], change_of(again), atol=1e-6)


def test_rounds_that_count_add_up(granted: Any) -> None:
    first = change_of(answered(granted, 1, START))
    second = change_of(answered(granted, 2, MOVED))
    np.testing.assert_allclose(remembered(granted, 3, MOVED + np.float32(1))["c"], first + second, atol=1e-6)
    np.testing.assert_allclose(remembered(granted, 3, MOVED)["c"], first, atol=1e-6)


def test_another_attempt_at_a_round_changes_nothing(granted: Any) -> None:
    answered(granted, 1, START)
    before = remembered(granted, 2, MOVED)["c"]
    answered(granted, 1, START, attempt=2)
    assert remembered(granted, 2, MOVED)["c"].tobytes() == before.tobytes()


@pytest.mark.parametrize("last", [Phase.DECIDED, Phase.RESERVED, Phase.STARTED, Phase.TRAINED, Phase.RELEASED])
def test_a_crash_leaves_the_memory_before_or_the_memory_after(granted: Any, last: Phase) -> None:
    work = site_of(granted).work(request(PLAN, 1, START), TODAY)
    for phase in work:
        if phase is last:
            break
    work.close()
    kept = remembered(granted, 2, MOVED)
    assert (kept is not None) is (last is Phase.RELEASED)
    if kept is not None:
        reply = answered(granted, 1, START)
        np.testing.assert_allclose(kept["c"], change_of(reply), atol=1e-6)


def test_a_memory_is_sealed_bound_to_its_place_and_in_the_backup(granted: Any, tmp_path: Path) -> None:
    answered(granted, 1, START)
    kept = remembered(granted, 2, MOVED)["c"]
    backup(granted.folder, tmp_path / "b", "correct horse battery staple")
    back = restore(tmp_path / "b", tmp_path / "again", "correct horse battery staple")
    ledger = back.ledger()
    found = SiteMemory(ledger._store, "north", back.memory_key()).before(PLAN.digest, 2, model_hash(MOVED))
    assert found is not None and found["c"].tobytes() == kept.tobytes()
    ledger.close()
    store = granted.ledger._store
    (sealed,) = store.execute("SELECT sealed FROM memories").fetchone()
    assert kept.tobytes()[:32] not in sealed
    with pytest.raises(UsageError, match="cannot be opened"):
        SiteMemory(store, "north", os.urandom(32)).before(PLAN.digest, 2, model_hash(MOVED))
    store.execute("UPDATE memories SET round_number = 0")
    with pytest.raises(UsageError, match="cannot be opened"):
        remembered(granted, 2, MOVED)


def test_rows_that_no_round_can_begin_with_are_removed(granted: Any) -> None:
    for number in range(1, 5):
        answered(granted, number, START + np.float32(number - 1))
    rows = granted.ledger._store.execute("SELECT round_number FROM memories ORDER BY round_number").fetchall()
    assert rows == [(3,), (4,)]


def test_a_linear_term_that_is_no_such_vector_is_refused(granted: Any) -> None:
    for bad in (None, np.zeros(3, np.float32), np.full(len(START), np.nan, np.float32)):
        asked = RoundRequest(
            PLAN.digest, 1, 1, START, model_hash(START), LocalRule(PLAN.local.learning_rate, linear_term=bad)
        )
        assert isinstance(parse_answer(bytes_to_send(site_of(granted).answer(asked, TODAY)), "north"), Refusal)


def test_own_layers_are_not_sent_and_move_by_the_same_clipped_and_noised_gradient(
    granted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mechanism has every coordinate in it: one gradient, clipped as a whole, noised everywhere."""
    seen, real = [], training.private_gradient

    def noted(engine: Any, weights: Any, patients: Any, **terms: Any) -> Any:
        one = patients.take(np.array([0]))
        clipped = engine.gradient_sum(weights, one, terms["clip_norm"])
        assert np.linalg.norm(clipped) <= terms["clip_norm"] * (1 + 1e-9)
        noised = real(engine, weights, patients, **terms)
        seen.append((len(weights), terms["clip_norm"], noised.copy()))
        return noised

    monkeypatch.setattr(training, "private_gradient", noted)
    start, size = start_of(HEADED), HEADED.layout.size
    ((first, end),) = strategy_for(HEADED).personal(HEADED.layout).layers
    sent = difference(answered(granted, 1, start, plan=HEADED), HEADED)
    assert [(length, clip) for length, clip, _ in seen] == [(size, HEADED.privacy.clip_norm)] * 2
    assert not sent[first:end].any()
    assert np.count_nonzero(sent[:first]) > 0.9 * first, "noise lies on a grid, and may be zero now and then"
    whole = start - HEADED.local.learning_rate * sum(noised for *_, noised in seen)
    layers = remembered(granted, 2, start + np.float32(1), HEADED)["layers"]
    np.testing.assert_allclose(layers, whole[first:end], atol=1e-5)
    np.testing.assert_allclose(sent, np.where(np.isin(np.arange(size), range(first, end)), 0, whole - start), atol=1e-5)
