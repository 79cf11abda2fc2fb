"""Strategies in whole studies: personal models, robust rules, refusals, and whether sums have a likely length."""

from typing import Any

import numpy as np
import pytest

from wardround.client.tasks import Classification
from wardround.protocol.errors import UsageError
from wardround.protocol.plan import LocalTraining, PrivacyMode, PrivacyTerms
from wardround.protocol.tasks import TabularClassification
from wardround.server.plausible import FALSE_ALARM, lengths
from wardround.simulations import run
from wardround.simulations.cohorts import synthetic_cohorts
from wardround.simulations.faults import Fault, FaultKind
from wardround.simulations.research import Run
from wardround.simulations.vectorised.memories import Memories
from wardround.strategies import ROBUST, STRATEGIES

TASK = Classification(TabularClassification(hidden=(6,)), 4)
COHORTS = synthetic_cohorts(5, (60, 140), 4, seed=11)
LOCAL = LocalTraining(steps=3, learning_rate=0.3)
PRIVATE = PrivacyTerms(
    mode=PrivacyMode.LOCAL, noise_multiplier=3.0, sampling_probability=0.25, delta=1e-4, epsilon=3.0, clip_norm=1.0
)
DIST = PRIVATE.model_copy(
    update={"mode": PrivacyMode.DIST, "secure_aggregation": True, "epsilon": 8.0, "epsilon_consortium": 8.0}
)
MASKED = PrivacyTerms(mode=PrivacyMode.NONE, secure_aggregation=True)


def simulated(strategy: Any, engine: Any = "sites", **changes: Any) -> Run:
    settings: dict[str, Any] = {"rounds": 4, "local": LOCAL, "seed": 5, "min_sites": 2, "compare": False}
    return run(task=TASK, strategy=strategy, cohorts=COHORTS, engine=engine, **(settings | changes))


@pytest.mark.parametrize("name", ["fedper", "fedrep", "ditto", "tuned"])
def test_personal_models_are_in_the_result_and_the_same_from_both_engines(name: str) -> None:
    one, many = (simulated(STRATEGIES[name](), engine).result.sites for engine in ("sites", "vectorised"))
    for site, other in zip(one, many, strict=True):
        assert site.personalised is not None and other.personalised is not None
        theirs = other.personalised.metrics
        for metric, found in site.personalised.metrics.items():
            assert found.value == pytest.approx(theirs[metric].value, abs=0.05)
    assert any(site.personalised.metrics != site.shared.metrics for site in one if site.personalised)


@pytest.mark.parametrize("name", ["fedavg", "scaffold"])
def test_a_strategy_without_a_personal_model_names_none(name: str) -> None:
    assert all(site.personalised is None for site in simulated(STRATEGIES[name]()).result.sites)


@pytest.mark.parametrize("strategy", [kind() for kind in (*STRATEGIES.values(), *ROBUST.values())])
def test_every_strategy_runs_under_local_noise(strategy: Any) -> None:
    for engine in ("sites", "vectorised"):
        done = simulated(strategy, engine, privacy=PRIVATE)
        assert np.isfinite(done.model).all() and all(not record.warning for record in done.result.rounds)


@pytest.mark.parametrize("name", ROBUST)
def test_a_robust_rule_gives_the_same_model_in_both_engines(name: str) -> None:
    one, many = (simulated(ROBUST[name](), engine) for engine in ("sites", "vectorised"))
    np.testing.assert_allclose(one.model, many.model, atol=1e-5)
    assert np.abs(one.model - simulated(STRATEGIES["fedavg"]()).model).max() > 1e-4


@pytest.mark.parametrize("terms", [MASKED, DIST])
@pytest.mark.parametrize("name", ROBUST)
def test_a_robust_rule_is_refused_under_secure_aggregation_with_the_reason(name: str, terms: PrivacyTerms) -> None:
    with pytest.raises(UsageError, match="single updates, and secure aggregation lets nobody see one"):
        simulated(ROBUST[name](), privacy=terms, min_sites=3, local=LocalTraining(steps=1, learning_rate=0.3))


@pytest.mark.parametrize("name", ["scaffold", "feddyn", "fedper"])
def test_what_sites_remember_of_what_they_sent_is_refused_in_mode_dist(name: str) -> None:
    with pytest.raises(UsageError, match="remember what they sent"):
        simulated(STRATEGIES[name](), privacy=DIST, min_sites=3, local=LocalTraining(steps=1, learning_rate=0.3))


@pytest.mark.parametrize(
    ("strategy", "local", "says"),
    [
        (STRATEGIES["scaffold"](), LocalTraining(epochs=1, learning_rate=0.1), "same number of steps"),
        (STRATEGIES["fedrep"](head_steps=3), LOCAL, "leave none for what is shared"),  # type: ignore[call-arg]
        (STRATEGIES["fedper"](head_layers=2), LOCAL, "nothing would be shared"),  # type: ignore[call-arg]
    ],
)
def test_a_plan_that_does_not_fit_is_refused_with_the_reason(strategy: Any, local: LocalTraining, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        simulated(strategy, local=local)


@pytest.mark.parametrize("kind", [FaultKind.UNREACHED, FaultKind.DIES_TRAINED, FaultKind.DIES_RELEASED])
@pytest.mark.parametrize("name", ["scaffold", "feddyn", "fedper", "ditto"])
def test_a_site_that_dies_in_a_round_comes_back_with_its_memory(name: str, kind: FaultKind) -> None:
    done = simulated(STRATEGIES[name](), faults=[Fault(COHORTS[1].site, 2, kind)])
    assert [record.state for record in done.result.rounds] == ["closed"] * 4
    assert np.isfinite(done.model).all()


@pytest.mark.parametrize("name", ["scaffold", "fedper", "ditto"])
def test_memories_of_one_computation_count_when_the_model_has_moved_and_survive_being_written_down(name: str) -> None:
    strategy = STRATEGIES[name]()
    plan = simulated(strategy, rounds=1).plan
    names = [each.site for each in plan.participants]
    sizes = strategy.memory_sizes(plan.layout)
    memories = Memories(plan, strategy)
    learned = {site: {part: np.full(size, 2.0) for part, size in sizes.items()} for site in names[:2]}
    for moved in (False, True):
        memories._next = dict(learned)
        memories.learned(names[:1])
        memories.settle(moved)
        assert (memories.of(names[0]) is not None) is moved and memories.of(names[1]) is None
    again = Memories(plan, strategy, memories.to_bytes()).of(names[0])
    assert again is not None and {part: array.tolist() for part, array in again.items()} == {
        part: [2.0] * size for part, size in sizes.items()
    }


def test_honest_sums_are_rarely_warned_of_and_sums_without_noise_or_clipping_always() -> None:
    """The rate is measured where it is largest: no signal at all, at a tolerance that makes alarms frequent."""
    plan, strategy = simulated(STRATEGIES["fedavg"](), privacy=PRIVATE, rounds=1).plan, STRATEGIES["fedavg"]()
    names, size = [each.site for each in plan.participants], plan.layout.size
    assert FALSE_ALARM == 1e-3
    allowed = lengths(plan, strategy, names, false_alarm=0.1)
    assert allowed is not None
    generator = np.random.Generator(np.random.PCG64(1))
    one_step = 0.3 * 3.0 * 1.0 / 0.25 * np.sqrt(len(names))
    honest = one_step * np.sqrt(LOCAL.steps or 0) * np.linalg.norm(generator.normal(size=(4000, size)), axis=1)
    last_alone = one_step * np.linalg.norm(generator.normal(size=(4000, size)), axis=1)
    for drawn in (honest, last_alone):
        assert np.mean([bool(allowed.warning(length)) for length in drawn]) <= 0.1
    strict = lengths(plan, strategy, names)
    assert strict is not None and strict.low < allowed.low and strict.high > allowed.high
    assert "noise" in strict.warning(0.1 * one_step * np.sqrt(size)) and "clip" in strict.warning(2 * strict.high)


def test_a_sum_without_noise_is_warned_of_in_the_record_and_the_round_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from wardround.privacy import dpsgd

    monkeypatch.setattr(dpsgd, "noisy_sum", lambda total, *_: total * 0.01)
    done = simulated(STRATEGIES["fedavg"](), privacy=PRIVATE)
    assert all(record.state == "closed" and "noise alone" in record.warning for record in done.result.rounds)
