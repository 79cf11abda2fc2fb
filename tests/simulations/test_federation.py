"""The federation in one process: real sites, real rounds, and every fault that a site can have."""

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from wardround.client.connectors import Cohort
from wardround.client.site import Site
from wardround.client.tasks import Classification
from wardround.client.tasks.binary import LogLoss
from wardround.privacy.accounting import epsilon
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.ledger import BlockState
from wardround.protocol.messages import LocalRule, Refusal, RefusalCode, RoundRequest
from wardround.protocol.outgoing import bytes_to_send, parse_answer
from wardround.protocol.parameters import initial_weights, model_hash
from wardround.protocol.plan import LocalTraining, PrivacyMode, PrivacyTerms
from wardround.protocol.tasks import TabularClassification
from wardround.server.rounds import Outcome
from wardround.simulations import run
from wardround.simulations.cohorts import synthetic_cohorts
from wardround.simulations.experiment import Experiment
from wardround.simulations.faults import Fault, FaultKind
from wardround.simulations.result import SimulationResult
from wardround.strategies import STRATEGIES

COHORTS = synthetic_cohorts(4, (60, 140), 5, seed=11)
TASK = Classification(TabularClassification(hidden=(6,)), 5)
LOCAL = LocalTraining(epochs=1, batch_size=16, learning_rate=0.2)
PRIVATE = LocalTraining(steps=3, learning_rate=0.3)
TERMS = PrivacyTerms(
    mode=PrivacyMode.LOCAL, noise_multiplier=3.0, sampling_probability=0.25, delta=1e-4, epsilon=3.0, clip_norm=1.0
)


def simulated(
    *, faults: Sequence[Fault] = (), private: bool = False, rounds: int = 3, cohorts: Sequence[Cohort] = COHORTS,
    strategy: str = "fedavg", min_sites: int = 2,
) -> tuple[SimulationResult, Experiment]:  # fmt: skip
    """A result, and the experiment behind it (kept by the constructor hook)."""
    kept: list[Experiment] = []
    original = Experiment.__post_init__

    def keep(self: Experiment) -> None:
        kept.append(self)
        original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Experiment, "__post_init__", keep)
        result = run(
            task=TASK,
            strategy=STRATEGIES[strategy](),
            cohorts=cohorts,
            rounds=rounds,
            local=PRIVATE if private or STRATEGIES[strategy].equal_steps else LOCAL,
            privacy=TERMS if private else None,
            seed=5,
            min_sites=min_sites,
            faults=faults,
            compare=False,
            engine="sites",
        ).result
    return result, kept[0]


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_a_run_without_privacy_is_bit_reproducible(strategy: str) -> None:
    one, two = (simulated(strategy=strategy)[0] for _ in range(2))
    assert one.final_model == two.final_model and len({r.model_after for r in one.rounds}) == 3


def test_the_order_in_which_sites_are_listed_changes_no_bit() -> None:
    assert simulated()[0].final_model == simulated(cohorts=COHORTS[::-1])[0].final_model


def test_two_private_runs_differ_because_noise_and_sampling_take_no_seed() -> None:
    one, two = (simulated(private=True)[0] for _ in range(2))
    assert one.final_model != two.final_model


def test_one_full_batch_step_of_fedavg_is_the_gradient_step_on_the_pooled_patients() -> None:
    done = run(
        task=TASK, strategy=STRATEGIES["fedavg"](), cohorts=COHORTS, rounds=1,
        local=LocalTraining(steps=1, learning_rate=0.2), seed=5, compare=False, engine="sites",
    )  # fmt: skip
    pooled_x = np.concatenate([c.train.features for c in COHORTS])
    pooled_y = np.concatenate([c.train.targets for c in COHORTS])
    start = initial_weights(TASK.layout, "uniform", 5)
    w = {name: tensor.astype(np.float64) for name, tensor in TASK.layout.split(start).items()}
    # The pooled gradient, written out by hand for one hidden tanh layer.
    hidden = np.tanh(pooled_x @ w["dense0.weight"].T + w["dense0.bias"])
    _, slope = LogLoss().loss_and_slope(hidden @ w["dense1.weight"].T + w["dense1.bias"], pooled_y)
    back = (slope @ w["dense1.weight"]) * (1 - hidden**2)
    n = len(pooled_x)
    gradient = {
        "dense0.weight": back.T @ pooled_x / n, "dense0.bias": back.sum(0) / n,
        "dense1.weight": slope.T @ hidden / n, "dense1.bias": slope.sum(0) / n,
    }  # fmt: skip
    by_hand = TASK.layout.join({name: w[name] - 0.2 * gradient[name] for name in w})
    assert np.allclose(done.model, by_hand, atol=1e-6)


DEATHS = {
    FaultKind.UNREACHED: None,
    FaultKind.DIES_DECIDED: None,
    FaultKind.DIES_RESERVED: BlockState.CANCELLED,
    FaultKind.DIES_STARTED: BlockState.ABANDONED,
    FaultKind.DIES_TRAINED: BlockState.ABANDONED,
    FaultKind.DIES_RELEASED: BlockState.RELEASED,
}


@pytest.mark.parametrize("kind", list(DEATHS))
def test_a_site_that_dies_at_a_step_is_named_and_charged_for_exactly_what_it_may_have_drawn(kind: FaultKind) -> None:
    name = COHORTS[1].site
    result, experiment = simulated(faults=[Fault(name, 2, kind)], private=True)
    assert [r.sites[name].outcome for r in result.rounds] == ["replied", "lost", "replied"]
    assert all(r.state == "closed" for r in result.rounds)
    ledger = next(site.ledger for site in experiment.federation.sites if site.name == name)
    block = [b.state for b in ledger.blocks() if "/00002/" in b.name]
    assert block == ([] if DEATHS[kind] is None else [DEATHS[kind]])
    charged = 2 if DEATHS[kind] in (None, BlockState.CANCELLED) else 3
    assert ledger.charged(experiment.plan.digest) == len(ledger.events()) == charged
    row = next(site for site in result.sites if site.site == name)
    assert row.rounds_in_sum == 2
    assert row.epsilon_site is not None and row.epsilon_site >= epsilon(ledger.events(), 1e-4) - 1e-12


@pytest.mark.parametrize(
    "kind",
    [FaultKind.WRONG_SHAPE, FaultKind.NOT_FINITE, FaultKind.WRONG_TYPE, FaultKind.WRONG_ROUND, FaultKind.WRONG_MODEL],
)
def test_nonsense_drops_the_site_by_name_and_leaves_the_sum_of_the_others(kind: FaultKind) -> None:
    name = COHORTS[2].site
    spoiled, _ = simulated(faults=[Fault(name, 1, kind)], rounds=1)
    gone, _ = simulated(faults=[Fault(name, 1, FaultKind.UNREACHED)], rounds=1)
    assert spoiled.rounds[0].sites[name].outcome == Outcome.VIOLATED.value and spoiled.rounds[0].sites[name].detail
    assert spoiled.final_model == gone.final_model


def test_a_late_answer_is_named_late_and_is_not_in_the_sum() -> None:
    name = COHORTS[0].site
    late, _ = simulated(faults=[Fault(name, 1, FaultKind.LATE)], rounds=1)
    gone, _ = simulated(faults=[Fault(name, 1, FaultKind.UNREACHED)], rounds=1)
    assert late.rounds[0].sites[name].outcome == "late" and late.final_model == gone.final_model


def test_a_round_below_quorum_is_void_and_leaves_the_model_alone() -> None:
    faults = [Fault(c.site, 2, FaultKind.UNREACHED) for c in COHORTS[:2]]
    result, _ = simulated(faults=faults, min_sites=3)
    assert [r.state for r in result.rounds] == ["closed", "void", "closed"]
    assert result.rounds[1].model_after == result.rounds[1].model_before
    assert sum(site.rounds_in_sum for site in result.sites) == 8


def test_three_void_rounds_in_a_row_stop_the_study_and_name_who_was_missing() -> None:
    faults = [Fault(COHORTS[0].site, n, FaultKind.UNREACHED) for n in range(1, 6)]
    with pytest.raises(Unavailable, match=f"{COHORTS[0].site} .lost") as error:
        simulated(faults=faults, min_sites=4, rounds=5)
    assert "resume" in error.value.hint


def test_a_training_that_runs_away_is_named_with_its_cure() -> None:
    wild = LocalTraining(epochs=1, batch_size=16, learning_rate=1e200)
    with pytest.raises(Unavailable, match="not finite") as error, np.errstate(all="ignore"):
        run(task=TASK, strategy=STRATEGIES["fedavg"](), cohorts=COHORTS, rounds=5, local=wild, compare=False)
    assert "learning_rate" in error.value.hint


def test_epsilon_follows_from_the_ledgers_events_alone() -> None:
    result, experiment = simulated(private=True, rounds=4)
    for site in experiment.federation.sites:
        row = next(r for r in result.sites if r.site == site.name)
        assert row.epsilon_site == pytest.approx(epsilon(site.ledger.events(), 1e-4), rel=1e-3)
        assert all(event.declared_patients == row.declared_patients for event in site.ledger.events())


def test_a_domain_whose_budget_ends_refuses_before_it_draws_a_patient() -> None:
    drawn: list[int] = []
    _, experiment = simulated(private=True, rounds=1)
    # The same plan at sites whose budget is a tenth of what one round costs: as after many other studies.
    poor = Experiment(experiment.plan, TASK, STRATEGIES["fedavg"](), COHORTS, date.today(), epsilon_cap=8.0)
    for site in poor.federation.sites:
        domain = site.ledger.state.domains["training"]
        site.ledger._state.domains["training"] = replace(domain, spent=domain.allowance or 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "urandom", lambda count, real=os.urandom: drawn.append(count) or real(count))
        poor.run()
    assert drawn == [] and {site.outcome for site in poor.rounds[0].sites.values()} == {"refused"}
    assert poor.rounds[0].state == "void" and all(site.ledger.events() == [] for site in poor.federation.sites)


def test_a_plan_that_no_budget_can_hold_is_refused_before_the_first_round() -> None:
    with pytest.raises(UsageError, match="% of the budget of site") as error:
        run(
            task=TASK, strategy=STRATEGIES["fedavg"](), cohorts=COHORTS, rounds=9, local=PRIVATE,
            privacy=TERMS.model_copy(update={"noise_multiplier": 0.9, "epsilon": 60.0}), epsilon_cap=8.0,
        )  # fmt: skip
    assert "epsilon_cap" in error.value.hint


def test_an_unprotected_run_shows_no_epsilon() -> None:
    result, _ = simulated()
    assert all(site.epsilon_site is None for site in result.sites)
    assert result.privacy.delta is None and "simulation only" in result.privacy.statement


def test_a_site_without_enough_patients_is_named_and_the_study_goes_on() -> None:
    from wardround.client.connectors import make_cohort

    lone = make_cohort("lone", np.zeros((1, 5)), np.zeros(1), test=np.zeros(1, bool))
    empty = make_cohort("empty", np.zeros((0, 5)), np.zeros(0), test=np.zeros(0, bool))
    done = run(
        task=TASK,
        strategy=STRATEGIES["fedavg"](),
        cohorts=[*COHORTS, lone, empty],
        rounds=1,
        local=LOCAL,
        compare=False,
        engine="sites",
    )
    reasons = {site.site: site.excluded_because for site in done.result.sites if site.excluded_because}
    assert reasons == {"lone": "one training patient", "empty": "no training patient"}
    assert set(done.result.rounds[0].sites) == {c.site for c in COHORTS}


def test_a_site_that_restarts_does_not_answer_a_round_again() -> None:
    _, experiment = simulated(private=True, rounds=2)
    before = experiment.federation.sites[0]
    after = Site(experiment.plan, before.cohort, TASK, STRATEGIES["fedavg"](), before.ledger)
    start = initial_weights(TASK.layout, "uniform", 5)
    request = RoundRequest(experiment.plan.digest, 1, 1, start, model_hash(start), LocalRule(PRIVATE.learning_rate))
    answer = parse_answer(bytes_to_send(after.answer(request, date.today())), before.name)
    assert isinstance(answer, Refusal) and answer.code is RefusalCode.PROTOCOL
    assert after.ledger.charged(experiment.plan.digest) == 2
