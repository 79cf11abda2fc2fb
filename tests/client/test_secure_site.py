"""A site under secure aggregation joins no session but the one that its plan and its roster give."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from wardround.client.secure import MAX_ATTEMPTS, SESSION_DAYS, SecureSite
from wardround.client.tasks.classification import Classification
from wardround.protocol.errors import ProtocolViolation, Unavailable
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import Refuse
from wardround.protocol.outgoing import bytes_to_send, parse_answer, parse_step
from wardround.protocol.plan import LocalTraining, PrivacyMode, PrivacyTerms
from wardround.protocol.secagg import Keys, Session
from wardround.protocol.tasks import TabularClassification
from wardround.simulations import run
from wardround.simulations.cohorts import synthetic_cohorts
from wardround.simulations.experiment import Experiment
from wardround.simulations.federation import Federation
from wardround.strategies import STRATEGIES

TERMS = PrivacyTerms(mode=PrivacyMode.LOCAL, secure_aggregation=True, noise_multiplier=3.0, sampling_probability=0.25,
                     delta=1e-4, epsilon=3.0)  # fmt: skip
TODAY = date.today() + timedelta(days=1)
"""Not before the roster that a test makes, even if midnight comes in between."""


@pytest.fixture(scope="module")
def experiment() -> Iterator[Experiment]:
    """Four hospitals with a roster, after one round of three."""
    kept: list[Experiment] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Federation, "run", lambda self, note: [self.step()])
        patch.setattr(Experiment, "run", lambda self, _: (kept.append(self), self.federation.run(print), self.model)[2])
        run(task=Classification(TabularClassification(hidden=()), 4), strategy=STRATEGIES["fedavg"](), rounds=3,
            cohorts=synthetic_cohorts(4, (60, 90), 4, seed=3), privacy=TERMS, compare=False, engine="sites",
            local=LocalTraining(steps=2, learning_rate=0.3))  # fmt: skip
    yield kept[0]


@pytest.fixture
def site(experiment: Experiment) -> SecureSite:
    return next(iter(experiment.federation.secure.values()))


@pytest.fixture
def honest(experiment: Experiment) -> Session:
    """The session of the rounds that are left, under a name of its own."""
    desk = experiment.federation.study.desk
    assert desk is not None
    return replace(desk.session, name="the next one", rounds=(2, 3))


def reasons(site: SecureSite) -> list[str]:
    return [fact.reason for fact in site.site.ledger.facts() if isinstance(fact, Refuse) and fact.round_number == 0]


def test_the_session_of_plan_and_roster_is_joined(site: SecureSite, honest: Session) -> None:
    message, parcels = parse_step(bytes_to_send(site.keys(honest, TODAY)), site.name)
    assert isinstance(message, Keys) and message.session == honest.digest and parcels == ()
    assert reasons(site) == []


STRANGER = Identity.generate("zed").public
CHANGES: dict[str, tuple[Any, str]] = {
    "lower threshold": (lambda s: {"threshold": 2, "colluding": 0} if s.threshold > 2 else {}, "other terms"),
    "fewer that collude": (lambda s: {"colluding": 0}, "other terms"),
    "another roster": (lambda s: {"roster": "00" * 32}, "other terms"),
    "another plan": (lambda s: {"plan": "00" * 32}, "other terms"),
    "a key of the coordinator's own": (
        lambda s: {"members": (*s.members[:3], replace(s.members[3], key=STRANGER.key))},
        "other terms",
    ),
    "a site that nobody planned": (lambda s: {"members": (*s.members[:3], STRANGER)}, "the plan does not name"),
    "a shorter vector": (lambda s: {"length": s.length - 1}, "other terms"),
    "another ring": (lambda s: {"bits": 64}, "other terms"),
    "a round behind the plan": (lambda s: {"rounds": (2, 3, 4)}, "other rounds than the plan's"),
    "a round twice": (lambda s: {"rounds": (2, 2, 3)}, "other rounds than the plan's"),
    "too many attempts": (lambda s: {"attempts": MAX_ATTEMPTS + 1}, "attempts at a round"),
    "no attempt": (lambda s: {"attempts": 0}, "attempts at a round"),
}


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_a_session_on_other_terms_than_plan_and_roster_give_is_refused(
    site: SecureSite, honest: Session, name: str
) -> None:
    change, reason = CHANGES[name]
    before = len(reasons(site))
    if name == "lower threshold":
        # 2t > n + c would not even make a session of four; three of the four hospitals, then.
        honest = replace(honest, members=honest.members[:3])
    offered = replace(honest, **change(honest))
    assert offered != honest
    for _ in range(2):
        with pytest.raises(ProtocolViolation, match=reason):
            site.keys(offered, TODAY)
    # The officer finds it in the ledger, once, and the site still answers what is right.
    told = reasons(site)
    assert len(told) - before <= 1 and any(reason in each for each in told)
    site.keys(honest, TODAY)


def test_a_session_that_was_used_is_not_joined_again(site: SecureSite, experiment: Experiment) -> None:
    desk = experiment.federation.study.desk
    assert desk is not None
    with pytest.raises(ProtocolViolation, match="a session that was used before"):
        site.keys(desk.session, TODAY)


def test_an_expired_roster_gives_no_session(site: SecureSite, honest: Session) -> None:
    with pytest.raises(ProtocolViolation, match="has expired"):
        site.keys(honest, TODAY + timedelta(days=400))


def test_a_session_ends_after_its_days(experiment: Experiment) -> None:
    site = list(experiment.federation.secure.values())[1]
    study = experiment.federation.study
    desk, request = study.desk, study.open_round(0.0).request
    assert desk is not None and site.ready
    proposal = desk.proposal(request.round_number, 1, request.model_hash, "contribution")
    late = parse_answer(
        bytes_to_send(site.answer(request, proposal, TODAY + timedelta(days=SESSION_DAYS + 1))), site.name
    )
    assert "Refusal" in type(late).__name__
    assert any(isinstance(fact, Refuse) and "the session is over" in fact.reason for fact in site.site.ledger.facts())


def test_a_ledger_that_was_put_back_joins_no_session(site: SecureSite, honest: Session) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(site.site.ledger), "missing_head", lambda self: 99)
        with pytest.raises(Unavailable, match="others have seen 99 entries"):
            site.keys(honest, TODAY)
    site.keys(honest, TODAY)
