"""Hospitals that train on Ray workers learn what they learn one by one, and a worker's death costs no charge back."""

import os
import sys
from collections.abc import Collection
from datetime import date
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import psutil
import pytest
import ray
import torch

from wardround.client.connectors import Cohort
from wardround.client.learning import Learner
from wardround.client.tasks import Classification, task_from
from wardround.client.tasks.module import ModuleTask
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.protocol.errors import Unavailable, UsageError, WardroundError
from wardround.protocol.messages import RoundRequest
from wardround.protocol.parameters import Update
from wardround.protocol.plan import LocalTraining, PrivacyMode, PrivacyTerms
from wardround.protocol.tasks import TabularClassification
from wardround.simulations import cluster, flower, run
from wardround.simulations.cohorts import synthetic_cohorts
from wardround.simulations.configured import Simulated, simulate
from wardround.simulations.experiment import Experiment
from wardround.simulations.faults import Fault, FaultKind
from wardround.simulations.flower import Berths, Fleet, Orders, learn_part, learned_of
from wardround.strategies import STRATEGIES, strategy_for
from wardround.strategies.base import Memory

TODAY = date(2026, 11, 29)
FEATURES = 4
TASK = Classification(TabularClassification(hidden=(6,)), FEATURES)
TERMS = PrivacyTerms(mode=PrivacyMode.LOCAL, noise_multiplier=4.0, sampling_probability=0.3, delta=1e-4, epsilon=3.0)


def cohorts() -> list[Cohort]:
    return synthetic_cohorts(4, (40, 60), FEATURES, seed=6)


def trained(strategy: str, engine: Any, **more: Any) -> Any:
    arguments: dict[str, Any] = {"task": TASK, "local": LocalTraining(steps=4, batch_size=16, learning_rate=0.1)} | more
    return run(
        strategy=STRATEGIES[strategy](), cohorts=cohorts(), rounds=3, engine=engine, compare=False, **arguments
    )  # fmt: skip


def train_here(fleet: Fleet, request: RoundRequest, memories: dict[str, Memory | None]) -> dict[str, str]:
    """Every message of a fleet and every answer, made and read as with Ray, but one after the other in this process."""
    berths = fleet.berths()
    for site, memory in memories.items():
        parts = [b"".join(part) for part in flower.ask_of(site, request, memory)]
        fleet._learned[site] = learned_of(learn_part(berths, parts))
    return {}


class Reference:
    def __init__(self, thing: Any) -> None:
        self.thing = thing


def without_ray(patch: pytest.MonkeyPatch) -> None:
    """Ray's store holds things of this process, which does what the workers would do."""
    patch.setattr(ray, "put", Reference)
    patch.setattr(ray, "get", lambda reference: reference.thing)
    patch.setattr(Fleet, "train", train_here)
    patch.setattr(flower.Flower, "run", flower.SiteBySite.run)


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_learns_bit_for_bit_what_it_learns_site_by_site(
    name: str, no_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembered: list[Memory] = []
    learn = Learner.learn

    def noted(self: Learner, *asked: Any) -> tuple[Update, Memory]:
        update, memory = learn(self, *asked)
        remembered.append(memory)
        return update, memory

    monkeypatch.setattr(Learner, "learn", noted)
    there, here = trained(name, "flower"), trained(name, "sites")
    assert len(remembered) == 2 * 3 * 4
    for one, other in zip(remembered[:12], remembered[12:], strict=True):
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[key], other[key]) for key in one)
    assert there.result.engine == "flower"
    assert np.abs(here.model).max() > 0.01
    np.testing.assert_array_equal(there.model, here.model)


def test_a_worker_is_given_no_patient_whom_the_plan_holds_back(no_ray: None) -> None:
    def model(engine: Any, share: float) -> Any:
        words = [f"fall_back_share={share}", "privacy=none", "secagg=off", "local.epochs=null", "local.steps=4"]
        plan = make_plan(
            parse_configuration(compose_configuration([*words, "local.batch_size=16", "rounds=2"])),
            {cohort.site: cohort.declared_patients for cohort in mine},
            TODAY,
        )
        return Experiment(plan, task_from(plan), strategy_for(plan), mine, TODAY, wanted=engine).run()

    mine = synthetic_cohorts(4, (40, 60), 13, seed=6)
    np.testing.assert_array_equal(model("flower", 0.3), model("sites", 0.3))
    assert np.abs(model("flower", 0.3) - model("flower", 0.0)).max() > 1e-4


def test_with_the_same_random_bytes_a_worker_adds_the_same_noise(no_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sites draw in the order of their names in both engines here, so one stream of bytes serves both."""
    models = []
    for engine in ("sites", "flower", "flower"):
        generator = np.random.Generator(np.random.PCG64(len(models) // 2))
        monkeypatch.setattr("wardround.client.learning.os.urandom", generator.bytes)
        models.append(trained("fedavg", engine, privacy=TERMS, local=LocalTraining(steps=4, learning_rate=0.1)).model)
    np.testing.assert_array_equal(models[0], models[1])
    assert np.abs(models[0] - models[2]).max() > 1e-3


@pytest.mark.parametrize("secure", [False, True])
def test_a_hospital_whose_training_was_lost_is_charged_like_the_others_and_named(
    secure: bool, no_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loses(fleet: Fleet, request: RoundRequest, memories: dict[str, Memory | None]) -> dict[str, str]:
        gone = {"site-0001": "its machine is gone"} if request.round_number == 2 else {}
        train_here(fleet, request, {site: memory for site, memory in memories.items() if site not in gone})
        return gone

    monkeypatch.setattr(Fleet, "train", loses)
    terms = TERMS.model_copy(update={"secure_aggregation": secure})
    result = trained("fedavg", "flower", privacy=terms, local=LocalTraining(steps=2, learning_rate=0.1)).result
    assert len({site.epsilon_site for site in result.sites}) == 1 and (result.sites[0].epsilon_site or 0) > 0
    told = [{site: (each.outcome, each.detail) for site, each in entry.sites.items()} for entry in result.rounds]
    assert told[1].pop("site-0001") == ("lost", "its machine is gone")
    assert {outcome for entry in told for outcome, _ in entry.values()} == {"replied"}
    assert [entry.state for entry in result.rounds] == ["closed"] * 3


def test_a_worker_of_another_version_or_with_a_broken_task_says_so_in_two_lines(no_ray: None) -> None:
    found: list[RoundRequest] = []
    learner = Learner.learn

    def seen(self: Learner, request: RoundRequest, *rest: Any) -> tuple[Update, Memory]:
        found.append(request)
        return learner(self, request, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "learn", seen)
        done = trained("fedavg", "sites")
    (cohort, *_), parts = cohorts(), [b"".join(part) for part in flower.ask_of("site-0000", found[0], None)]
    for version, task, words in (
        ("0.0.0", TASK, "the simulation 0.0.0"),
        (done.plan.code_version, object(), "training of site 'site-0000' failed: AttributeError"),
    ):
        orders = Orders(done.plan.canonical, STRATEGIES["fedavg"](), task, 1, version)  # type: ignore[arg-type]
        answer = learn_part(Berths(Reference(orders), {cohort.site: Reference(cohort.train)}), parts)
        with pytest.raises(Unavailable, match=words) as error:
            learned_of(answer)
        assert error.value.hint


def test_without_ray_faults_or_terms_that_fit_nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="faults"):
        trained("fedavg", "flower", faults=[Fault("site-0001", 1, FaultKind.LATE)])
    with pytest.raises(UsageError, match="as many workers as its cores"):
        trained("fedavg", "flower", workers=2, cluster="there:6379")
    for address, error_kind, words in (
        ("there", UsageError, "no address"),
        ("127.0.0.1:1", Unavailable, "was reached"),
    ):
        with pytest.raises(error_kind, match=words):
            trained("fedavg", "flower", cluster=address)
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs Ray, which is not installed") as error:
        trained("fedavg", "flower")
    assert "pip install 'wardround[ray]'" in error.value.hint


def test_an_error_of_training_is_said_in_its_first_line(no_ray: None) -> None:
    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        raise ValueError("no such loss\n  at line 7 of somebody's file")

    with pytest.raises(WardroundError, match="ValueError: no such loss") as error:
        trained("fedavg", "flower", task=ModuleTask(torch.nn.Linear(FEATURES, 1), loss, {}))
    assert error.value.lines().count("\n") == 1 and "line 7" not in error.value.lines()


def listening(known: Collection[int] = ()) -> dict[int, set[str]]:
    """At which addresses each child of this process listens; ``known``: children of earlier tests, to be left out."""
    found = dict[int, set[str]]()
    for process in psutil.Process().children(recursive=True):
        try:
            at = {c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
        except psutil.NoSuchProcess:
            continue
        if at and process.pid not in known:
            found[process.pid] = at
    return found


def test_a_ray_that_is_slow_to_start_is_tried_twice_and_then_said_in_two_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []

    def slow(**terms: Any) -> None:
        tried.append(terms)
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", slow)
    with pytest.raises(Unavailable, match="timed out during startup") as refused:
        trained("fedavg", "flower")
    assert len(tried) == 2 and refused.value.lines().count("\n") == 1


def test_an_interrupted_run_on_two_workers_goes_on_to_the_same_model_and_listens_on_loopback_only(
    tmp_path: Path,
) -> None:
    terms = [
        "privacy=none",
        "strategy=scaffold",
        "local.epochs=null",
        "local.steps=4",
        "local.batch_size=16",
        "rounds=3",
    ]
    on_ray = ["simulation.engine=flower", "simulation.workers=2"]
    seen: set[str] = set()
    known = set(listening())

    def go(*overrides: str, stop: bool = False) -> Simulated:
        def listener(plan: Any, result: Any) -> None:
            seen.update(*listening(known).values())
            if stop:
                raise KeyboardInterrupt

        configuration = parse_configuration(compose_configuration([*overrides, f"simulation.output={tmp_path}"]))
        return simulate(configuration, today=TODAY, started=perf_counter(), listener=listener)

    # Interrupted without Ray and resumed on it: one start of Ray less, and the files are the same.
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        without_ray(patch)
        go(*terms, *on_ray, stop=True)
    assert not seen
    (folder,) = tmp_path.iterdir()
    there = go(f"simulation.resume={folder}", *on_ray)
    assert seen and seen <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    here = go(*terms, "simulation.engine=sites")
    assert there.result.engine == "flower" and len(there.result.rounds) == 3
    np.testing.assert_array_equal(there.model, here.model)
    assert [s.epsilon_site for s in there.result.sites] == [s.epsilon_site for s in here.result.sites]


def dies_once(flag: Path) -> Any:
    """A loss at which the first worker that comes to it ends as if it were killed."""

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        try:
            flag.unlink()
        except FileNotFoundError:
            return torch.nn.functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(1)
        os._exit(9)

    return loss


def test_a_worker_that_dies_loses_its_sites_round_but_no_charge_and_the_next_round_has_all(tmp_path: Path) -> None:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    (flag := tmp_path / "flag").touch()
    task = ModuleTask(torch.nn.Linear(FEATURES, 1), dies_once(flag), {})
    secure = TERMS.model_copy(update={"secure_aggregation": True})
    more = {"privacy": secure, "local": LocalTraining(steps=2, learning_rate=0.1)}
    there = trained("fedavg", "flower", task=task, workers=2, **more)
    assert not flag.exists()
    first, *later = there.result.rounds
    lost = {site: told.detail for site, told in first.sites.items() if told.outcome != "replied"}
    assert lost and all("its Ray worker ended" in str(detail) for detail in lost.values())
    assert all(told.outcome == "replied" for each in later for told in each.sites.values())
    here = trained("fedavg", "sites", task=task, **more)
    assert [s.epsilon_site for s in there.result.sites] == [s.epsilon_site for s in here.result.sites]
    assert all(site.epsilon_site is not None and site.epsilon_site > 0 for site in there.result.sites)
