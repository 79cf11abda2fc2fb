"""Every hospital in one computation gives what the hospitals give one by one: models, charges, records."""

from datetime import date
from io import BytesIO
from typing import Any

import numpy as np
import pytest

from wardround.client.connectors import Cohort, make_cohort
from wardround.client.tasks import Classification, Cox, Piecewise, Regression
from wardround.client.tasks.dense import DenseTask
from wardround.client.tasks.images import ImageClassifier
from wardround.client.training import StepCounter
from wardround.client.training import train_plain as of_one_plain
from wardround.client.training import train_private as of_one_private
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.image_tasks import ImageClassification
from wardround.protocol.labels import UNKNOWN
from wardround.protocol.messages import LocalRule
from wardround.protocol.parameters import initial_weights
from wardround.protocol.plan import LocalTraining, PrivacyMode, PrivacyTerms
from wardround.protocol.tasks import SurvivalCox, SurvivalPiecewise, TabularClassification, TabularRegression
from wardround.server.study import Study
from wardround.simulations import run
from wardround.simulations.choice import choose
from wardround.simulations.cohorts import synthetic_cohorts
from wardround.simulations.faults import Fault, FaultKind
from wardround.simulations.research import Run
from wardround.simulations.single_updates import RobustStudy
from wardround.simulations.site_by_site import Terms
from wardround.simulations.vectorised.draws import Draw, keystream
from wardround.simulations.vectorised.engine import Vectorised
from wardround.simulations.vectorised.networks import networks_for
from wardround.simulations.vectorised.stack import MOST_PADDING, Stack
from wardround.simulations.vectorised.training import Many, train_plain, train_private
from wardround.strategies import ROBUST, STRATEGIES, Robust
from wardround.strategies.fedavg import FedAvg

FEATURES = 4
TASKS: dict[str, DenseTask[Any]] = {
    "logistic": Classification(TabularClassification(), FEATURES),
    "mlp": Classification(TabularClassification(hidden=(7, 5)), FEATURES),
    "mlp of relu": Classification(TabularClassification(hidden=(7,), activation="relu"), FEATURES),
    "regression": Regression(TabularRegression(hidden=(6,), center=0.5, scale=2.0), FEATURES),
    "cox": Cox(SurvivalCox(hidden=(5,)), FEATURES),
    "piecewise": Piecewise(SurvivalPiecewise(cuts=(0.5, 1.5), baseline_rate=0.7, hidden=(5,)), FEATURES),
}
PICTURES: dict[str, ImageClassifier] = {
    "pictures": ImageClassifier(ImageClassification(size=(9, 8), channels=3, widths=(4, 8), groups=2), 0),
    "pictures of two findings": ImageClassifier(
        ImageClassification(size=(8, 8), widths=(4,), groups=4, outputs=2, positive_weights=(2.0, 0.5)), 0
    ),
}
ALL: dict[str, Any] = TASKS | PICTURES
LOCALS = {
    "epochs": LocalTraining(epochs=2, batch_size=16, learning_rate=0.1),
    "steps": LocalTraining(steps=5, batch_size=48, learning_rate=0.1),
    "all patients": LocalTraining(steps=3, learning_rate=0.1),
}
RULES = {
    "plain": LocalRule(0.1),
    "proximal": LocalRule(0.1, proximal_mu=0.3),
}
TERMS = PrivacyTerms(
    mode=PrivacyMode.LOCAL, noise_multiplier=3.0, sampling_probability=0.25, delta=1e-4, epsilon=3.0, clip_norm=1.0
)


def cohorts_for(task: Any, sites: int = 9) -> list[Cohort]:
    """Sites of 2 to 90 patients; for survival with tied times."""
    generator, made = np.random.Generator(np.random.PCG64(3)), []
    for number, patients in enumerate([2, 3, 17, 90, 33, 48, 64, 5, 71][:sites]):
        shape = task.spec.shape if isinstance(task, ImageClassifier) else (FEATURES,)
        x = generator.normal(size=(patients + 2, *shape))
        if isinstance(task, Cox | Piecewise):
            times = np.ceil(4 * generator.exponential(size=len(x))) / 4
            y = np.stack([times, generator.random(len(x)) < 0.7], axis=1).astype(np.float64)
        elif isinstance(task, ImageClassifier):
            y = (
                generator.choice([0.0, 1.0, UNKNOWN], size=(len(x), task.spec.outputs))
                if task.spec.outputs > 1
                else (generator.random(len(x)) < 0.4).astype(np.float64)
            )
        else:
            y = (generator.random(len(x)) < 0.4).astype(np.float64)
        made.append(make_cohort(f"site-{number}", x, y, test=np.arange(len(x)) >= patients))
    return made


def many_of(task: Any, cohorts: list[Cohort]) -> Many:
    networks = networks_for(task)
    return Many(networks, Stack(cohorts, 1, 600))  # groups of several sites, so that there is padding


def seeds_of(cohorts: list[Cohort]) -> list[bytes]:
    return [number.to_bytes(32, "big") for number in range(len(cohorts))]


def streams(cohorts: list[Cohort], task: Any, steps: int) -> list[BytesIO]:
    """Fixed bytes for each site, as many as it will ask for."""
    each = [steps * (8 * c.train.patients + 16 * ((task.layout.size + 1) // 2)) for c in cohorts]
    return [BytesIO(np.random.Generator(np.random.PCG64(i)).bytes(size)) for i, size in enumerate(each)]


def drawn_from(of_sites: list[BytesIO]) -> Draw:
    def draw(sites: Any, sizes: Any) -> bytes:
        return b"".join(of_sites[site].read(size) for site, size in zip(sites, sizes, strict=True))

    return draw


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("local", LOCALS)
@pytest.mark.parametrize("name", ALL)
def test_training_without_protection_is_that_of_each_site(name: str, local: str, rule: str) -> None:
    task, cohorts = ALL[name], cohorts_for(ALL[name])
    start = initial_weights(task.layout, "uniform", 4)
    together = train_plain(many_of(task, cohorts), start, RULES[rule], LOCALS[local], seeds_of(cohorts))
    one_by_one = [
        of_one_plain(task.engine, start, cohort.train, RULES[rule], LOCALS[local], seed)
        for cohort, seed in zip(cohorts, seeds_of(cohorts), strict=True)
    ]
    assert np.abs(together - start).max() > 1e-3
    np.testing.assert_allclose(together, one_by_one, rtol=0, atol=1e-6)


@pytest.mark.parametrize("q", [0.3, 1.0])
@pytest.mark.parametrize("name", [name for name in ALL if name != "cox"])
def test_private_training_from_the_same_random_bytes_is_that_of_each_site(name: str, q: float) -> None:
    task, cohorts, steps = ALL[name], cohorts_for(ALL[name]), 6
    start, rule = initial_weights(task.layout, "uniform", 4), LocalRule(0.1)
    events = [
        PoissonGaussian(
            steps=steps, noise_multiplier=0.8, sampling_probability=q, declared_patients=c.declared_patients
        )
        for c in cohorts
    ]
    ours = drawn_from(streams(cohorts, task, steps))
    together = train_private(many_of(task, cohorts), start, rule, events, 0.4, ours)
    theirs = streams(cohorts, task, steps)
    one_by_one = [
        of_one_private(task.engine, start, cohort.train, rule, event, 0.4, stream.read, StepCounter())
        for cohort, event, stream in zip(cohorts, events, theirs, strict=True)
    ]
    assert np.abs(together - start).max() > 1e-3
    np.testing.assert_allclose(together, one_by_one, rtol=0, atol=1e-5)


@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.parametrize("name", ["mlp", "pictures"])
def test_a_patient_whose_gradient_is_not_finite_adds_nothing(name: str, clip_norm: float | None) -> None:
    task, cohorts = ALL[name], cohorts_for(ALL[name])
    weights = np.repeat(initial_weights(task.layout, "uniform", 4).astype(np.float64)[None], 2, axis=0)
    chosen = [cohorts[3].train, cohorts[6].train]
    broken = np.zeros((2, 90, *chosen[0].features.shape[1:]))
    targets = np.zeros((2, 90, 1))
    for site, examples in enumerate(chosen):
        broken[site, : examples.patients] = examples.features
        targets[site, : examples.patients] = examples.targets
    broken[0, 4] = np.inf
    found = networks_for(task).gradient_sums(weights, broken, targets, np.array([90, 64]), clip_norm)
    without = np.delete(np.arange(90), 4)
    near = 1e-9 if name == "mlp" else 1e-4
    expected = task.engine.gradient_sum(weights[0], chosen[0].take(without), clip_norm)
    np.testing.assert_allclose(found[0], expected, atol=near)
    np.testing.assert_allclose(found[1], task.engine.gradient_sum(weights[1], chosen[1], clip_norm), atol=near)


@pytest.mark.parametrize("name", ["mlp", "pictures"])
def test_every_patients_gradient_is_clipped_by_itself(name: str) -> None:
    """A site of one patient: the sum is that patient's gradient, whose length the clip norm bounds."""
    task, cohorts = ALL[name], cohorts_for(ALL[name])
    weights = np.repeat(initial_weights(task.layout, "uniform", 4).astype(np.float64)[None], 5, axis=0)
    features, targets = cohorts[3].train.features[:5, None], cohorts[3].train.targets[:5, None]
    networks, ones = networks_for(task), np.ones(5, np.int64)
    free, clipped = (networks.gradient_sums(weights, features, targets, ones, c) for c in (None, 0.05))
    lengths = np.linalg.norm(free, axis=1)
    assert (lengths > 0.05).all() and (np.linalg.norm(clipped, axis=1) <= 0.05).all()
    np.testing.assert_allclose(clipped, free * (0.05 / lengths)[:, None], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("clip_norm", [None, 0.05])
def test_a_batch_that_is_too_large_for_one_pass_is_summed_in_several(clip_norm: float | None) -> None:
    from wardround.simulations.vectorised.pictures import ManyPictures

    task = PICTURES["pictures"]
    one_pass, generator = ManyPictures(task), np.random.Generator(np.random.PCG64(8))
    several = ManyPictures(task, values_of_a_pass=3 * 2 * one_pass.width)  # three records of two sites
    weights = np.stack([initial_weights(task.layout, "uniform", seed) for seed in (4, 5)]).astype(np.float64)
    features, targets = generator.normal(size=(2, 8, *task.spec.shape)), np.ones((2, 8, 1))
    counts, passes = np.array([8, 4]), []
    inner = several._summed
    several._summed = lambda *words: passes.append(words[1].shape[0]) or inner(*words)  # type: ignore[func-returns-value, method-assign]
    found = several.gradient_sums(weights, features, targets, counts, clip_norm)
    assert passes == [3, 3, 2]
    np.testing.assert_allclose(
        found, one_pass.gradient_sums(weights, features, targets, counts, clip_norm), rtol=1e-4, atol=1e-6
    )


def test_pictures_are_computed_where_their_tensors_are() -> None:
    """A tensor made elsewhere would end a computation on the device without memory that torch has for this."""
    import torch

    from wardround.simulations.vectorised.pictures import ManyPictures

    task, device = PICTURES["pictures of two findings"], torch.device("meta")
    networks = ManyPictures(task, device)
    arrays = [torch.empty(*shape, device=device) for shape in ((3, networks.size), (5, 3, 1, 8, 8), (5, 3, 2), (5, 3))]
    assert networks.plain_sums(*arrays).shape == (3, networks.size)
    arrays[0] = arrays[0].detach()
    parts = networks.kept_gradients(*arrays)
    assert {part.device for part in parts} == {device} and sum(part.shape[2] for part in parts) == networks.size


def simulated(engine: Any, strategy: str = "fedavg", private: bool = False, **changes: Any) -> Run:
    by: Any = (STRATEGIES | ROBUST)[strategy]
    by_steps = private or (strategy in STRATEGIES and by.equal_steps)
    settings: dict[str, Any] = {
        "task": TASKS["mlp"],
        "strategy": by(),
        "cohorts": synthetic_cohorts(5, (60, 140), FEATURES, seed=11),
        "rounds": 3,
        "local": LocalTraining(steps=3, learning_rate=0.3) if by_steps else LOCALS["epochs"],
        "privacy": TERMS if private else None,
        "seed": 5,
        "min_sites": 2,
        "compare": False,
    }
    return run(**(settings | changes), engine=engine)


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_a_whole_study_ends_with_the_same_model_for_every_strategy(strategy: str) -> None:
    together, one_by_one = (simulated(engine, strategy) for engine in ("vectorised", "sites"))
    np.testing.assert_allclose(together.model, one_by_one.model, rtol=0, atol=1e-5)
    assert [r.metrics for r in together.result.rounds][-1].keys() == one_by_one.result.rounds[-1].metrics.keys()
    assert (together.result.engine, one_by_one.result.engine) == ("vectorised", "sites")


@pytest.mark.parametrize("strategy", ["fedavg", "scaffold", "ditto", "fedper"])
def test_a_whole_study_on_pictures_ends_with_the_same_model(strategy: str) -> None:
    task = PICTURES["pictures"]
    together, one_by_one = (
        simulated(engine, strategy, task=task, cohorts=cohorts_for(task, 5)) for engine in ("vectorised", "sites")
    )
    np.testing.assert_allclose(together.model, one_by_one.model, rtol=0, atol=1e-5)


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("strategy", ["fedavg", "scaffold", "ditto", "fedper", "median"])
def test_threads_change_no_bit_and_chunks_no_more_than_the_order_of_a_sum(strategy: str, private: bool) -> None:
    """Five sites in chunks of two, the last of one; random bytes are each site's own stream."""
    by: Any = (STRATEGIES | ROBUST)[strategy]
    local = LocalTraining(steps=3, batch_size=None if private else 16, learning_rate=0.3)
    cohorts, task = synthetic_cohorts(5, (60, 140), FEATURES, seed=11), TASKS["mlp"]
    plan = simulated("vectorised", strategy, private, cohorts=cohorts, local=local).plan
    models = []
    for threads, sites_of_a_chunk in ((1, 5), (1, 2), (3, 2)):
        ours = streams(cohorts, task, 3 * plan.rounds)
        strategy_now = by()
        robust = isinstance(strategy_now, Robust)
        study = RobustStudy(plan, strategy_now) if robust else Study(plan, strategy_now)
        terms = Terms(plan, task, FedAvg() if robust else strategy_now, cohorts, date.today(), 8.0, 8.0)
        numbers = sites_of_a_chunk * task.layout.size
        engine = Vectorised(terms, study, drawn_from(ours), threads=threads, numbers_of_a_chunk=numbers)
        engine.run()
        models.append(study.progress.state.model)
    assert np.abs(models[0] - initial_weights(task.layout, "uniform", 5)).max() > 1e-3
    np.testing.assert_allclose(models[1], models[0], rtol=0, atol=1e-6)
    assert (models[1] == models[2]).all()


def test_full_batches_give_the_same_model_bit_for_bit() -> None:
    local = LocalTraining(steps=4, learning_rate=0.2)
    together, one_by_one = (simulated(engine, local=local) for engine in ("vectorised", "sites"))
    assert together.result.final_model == one_by_one.result.final_model


def test_sums_under_masks_and_sums_without_are_the_same_but_for_the_rounding_of_each_site() -> None:
    privacy = PrivacyTerms(mode=PrivacyMode.NONE, secure_aggregation=True)
    together, one_by_one = (simulated(engine, privacy=privacy, min_sites=3) for engine in ("vectorised", "sites"))
    np.testing.assert_allclose(together.model, one_by_one.model, rtol=0, atol=1e-5)
    assert together.result.privacy.standing == one_by_one.result.privacy.standing


@pytest.mark.parametrize("mode", [PrivacyMode.LOCAL, PrivacyMode.DIST])
def test_charges_and_epsilons_are_those_of_the_ledgers(mode: PrivacyMode) -> None:
    shared = {"secure_aggregation": True, "epsilon": 8.0, "epsilon_consortium": 8.0, "noise_multiplier": 2.0}
    terms = TERMS.model_copy(update={"mode": mode} | (shared if mode is PrivacyMode.DIST else {}))
    local = LocalTraining(steps=1, learning_rate=0.3)
    settings = {"private": True, "privacy": terms, "min_sites": 3, "local": local}
    together, one_by_one = (simulated(engine, **settings) for engine in ("vectorised", "sites"))
    assert together.result.privacy == one_by_one.result.privacy
    ours, theirs = ([site.epsilon_site for site in done.result.sites] for done in (together, one_by_one))
    assert ours == theirs and all(ours)


def test_two_private_runs_differ_because_their_key_cannot_be_given() -> None:
    one, two = (simulated("vectorised", private=True) for _ in range(2))
    assert one.result.final_model != two.result.final_model
    sizes = np.array([16, 16])
    drawn = {keystream()(np.arange(2), sizes) for _ in range(8)}
    assert len(drawn) == 8 and all(len(each) == 32 for each in drawn)


def test_a_training_that_runs_away_names_the_sites_and_stops() -> None:
    local = LocalTraining(epochs=1, batch_size=8, learning_rate=1e30)
    task = TASKS["regression"]
    found = []
    for engine in ("vectorised", "sites"):
        with pytest.raises(Unavailable) as caught:
            simulated(engine, local=local, task=task)
        found.append(str(caught.value))
    assert "not finite" in found[0] and found[0] == found[1]


def test_groups_of_batches_waste_little_and_leave_nobody_out() -> None:
    cohorts = synthetic_cohorts(200, (1, 300), FEATURES, seed=2)
    stack = Stack(cohorts, 32, 1 << 17)
    seen: list[int] = []
    table = real = 0
    counts = stack.patients
    for group in stack.groups(np.arange(200), np.arange(int(counts.sum())), counts):
        batch = stack.load(group)
        seen += batch.sites.tolist()
        table, real = table + batch.features.shape[0] * batch.features.shape[1], real + int(batch.counts.sum())
        for site, features, count in zip(batch.sites, batch.features, batch.counts, strict=True):
            assert (features[:count] == cohorts[site].train.features).all() and not features[count:].any()
    assert sorted(seen) == list(range(200)) and real == counts.sum()
    assert 1 - real / table <= MOST_PADDING


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"cohorts": synthetic_cohorts(4, (60, 140), FEATURES, seed=11, records_each=2)}, "several records"),
        ({"faults": (Fault("site-0001", 1, FaultKind.UNREACHED),)}, "faults are played between parties"),
    ],
)
def test_what_cannot_be_computed_at_once_goes_site_by_site_and_says_why(change: dict[str, Any], why: str) -> None:
    done = simulated("auto", **change)
    assert done.result.engine == "sites" and why in done.result.engine_why
    with pytest.raises(UsageError, match=why):
        simulated("vectorised", **change)


@pytest.mark.parametrize(("size", "engine"), [(8, "vectorised"), (28, "sites")])
def test_auto_takes_for_pictures_the_engine_that_was_measured_to_be_the_faster(size: int, engine: str) -> None:
    task = ImageClassifier(ImageClassification(size=(size, size)), 0)
    choice = choose("auto", task, [], ())
    assert choice.engine == engine
    assert choose("vectorised", task, [], ()).why == "asked for"
    if engine == "sites":  # 28 * 28 * 9 * 16 + 14 * 14 * 144 * 32 + 7 * 7 * 288 * 64
        assert choice.why.startswith("1.9 million multiplications a picture, above the 1.0 million")
