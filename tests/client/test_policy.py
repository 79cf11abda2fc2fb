"""What a site refuses before it reserves anything; and what no argument can change: where its randomness comes from."""

import inspect
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest

from wardround.client.policy import Accepted, Denied, decide
from wardround.client.site import Site
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.protocol.messages import LocalRule, RefusalCode, RoundRequest
from wardround.protocol.parameters import initial_weights, model_hash

TODAY = date(2026, 11, 23)
PLAN = make_plan(parse_configuration(compose_configuration([])), {"a": 50, "b": 100, "c": 150}, TODAY)
START = initial_weights(PLAN.layout, PLAN.model.scheme, PLAN.model.seed)
RULE = LocalRule(PLAN.local.learning_rate)
REQUEST = RoundRequest(PLAN.digest, 1, 1, START, model_hash(START), RULE)
OTHER = START + np.float32(1)


def test_a_request_that_follows_the_plan_is_accepted() -> None:
    assert isinstance(decide(PLAN, REQUEST, RULE, TODAY), Accepted)
    second = replace(REQUEST, round_number=2, model=OTHER, model_hash=model_hash(OTHER))
    assert isinstance(decide(PLAN, second, RULE, TODAY), Accepted)


@pytest.mark.parametrize(
    ("change", "code", "reason"),
    [
        ({"plan": "0" * 64}, RefusalCode.POLICY, "not approved"),
        ({"round_number": 0}, RefusalCode.PROTOCOL, "not in the plan"),
        ({"round_number": 16}, RefusalCode.PROTOCOL, "not in the plan"),
        ({"model": START[:-1]}, RefusalCode.PROTOCOL, "layout"),
        ({"model": START.astype(np.float64)}, RefusalCode.PROTOCOL, "layout"),
        ({"model": OTHER}, RefusalCode.PROTOCOL, "hash"),
        ({"model": OTHER, "model_hash": model_hash(OTHER)}, RefusalCode.POLICY, "initial model"),
        ({"rule": LocalRule(9.0)}, RefusalCode.POLICY, "local rule"),
        ({"rule": replace(RULE, proximal_mu=0.5)}, RefusalCode.POLICY, "local rule"),
        ({"rule": replace(RULE, linear_term=START)}, RefusalCode.POLICY, "local rule"),
    ],
)
def test_a_request_that_leaves_the_plan_is_refused(change: dict[str, object], code: RefusalCode, reason: str) -> None:
    answer = decide(PLAN, replace(REQUEST, **change), RULE, TODAY)
    assert isinstance(answer, Denied) and answer.code is code and reason in answer.reason


def test_an_expired_plan_runs_no_more() -> None:
    last = PLAN.governance.expires_on
    assert isinstance(decide(PLAN, REQUEST, RULE, last), Accepted)
    assert isinstance(decide(PLAN, REQUEST, RULE, last + timedelta(days=1)), Denied)


def test_nobody_can_hand_a_site_its_randomness() -> None:
    for function in (Site.__init__, Site.work, Site.answer):
        names = " ".join(inspect.signature(function).parameters)
        assert not any(word in names for word in ("random", "seed", "noise", "generator"))
