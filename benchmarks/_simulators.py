"""One study in each simulator, each as its users write it: how long a round takes, and how long until the first.

All train the MLP 13-32-1 (tanh, log loss) on the same synthetic cohorts of 64 to 300 patients, batch 32, one local
epoch, plain SGD at rate 0.1, every site in every round, the mean weighted by patients, no protection unless said.
Cohorts are made before a clock starts. Our round is a whole one: policy, charges, contributions, sum, step, the record
of the round. Nobody looks at test patients while a round is timed.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter, process_time
from typing import Any

import numpy as np

from wardround.client.connectors import Cohort
from wardround.simulations.cohorts import synthetic_cohorts

PATIENTS, FEATURES, HIDDEN, BATCH, RATE = (64, 300), 13, 32, 32, 0.1
STEPS = 6
"""Of a private round: about as many as an epoch has on average."""


@dataclass(slots=True)
class Timed:
    """Seconds until the first round, imports of its own included, and of each round."""

    start_up: float = 0.0
    rounds: list[float] = field(default_factory=list)


def cohorts(sites: int) -> list[Cohort]:
    """The same for every simulator."""
    return synthetic_cohorts(sites, PATIENTS, FEATURES, seed=1)


def ours(
    sites: Sequence[Cohort],
    rounds: int,
    *,
    private: bool = False,
    engine: Any = "auto",
    threads: int = 1,
    between: Callable[[], None] = lambda: None,
) -> Timed:
    """Our simulator. ``between`` is called after each round, off the clock: what takes turns with us."""
    began = perf_counter()
    from wardround.client.tasks import Classification
    from wardround.protocol.plan import LocalTraining, PrivacyMode, PrivacyTerms
    from wardround.protocol.tasks import TabularClassification
    from wardround.simulations import run
    from wardround.strategies import STRATEGIES

    imported, timed = perf_counter() - began, Timed()
    local, privacy = LocalTraining(epochs=1, batch_size=BATCH, learning_rate=RATE), None
    if private:
        local = LocalTraining(steps=STEPS, learning_rate=RATE)
        privacy = PrivacyTerms(
            mode=PrivacyMode.LOCAL,
            noise_multiplier=4.0,
            sampling_probability=BATCH / float(np.mean([cohort.train.patients for cohort in sites])),
            delta=1e-5,
            epsilon=100.0,
            clip_norm=1.0,
        )
    last = perf_counter()

    def after_round(_: object) -> None:
        nonlocal last
        timed.rounds.append(perf_counter() - last)
        between()
        last = perf_counter()

    done = run(
        task=Classification(TabularClassification(hidden=(HIDDEN,)), FEATURES),
        strategy=STRATEGIES["fedavg"](),
        cohorts=sites,
        rounds=rounds + 2,
        local=local,
        privacy=privacy,
        epsilon_cap=100.0,
        compare=False,
        engine=engine,
        threads=threads,
        after_round=after_round,
    )
    timed.start_up = imported + done.result.seconds_to_first_round
    timed.rounds = timed.rounds[1:-1]  # the first holds the start-up, the last a look at the test patients
    return timed


def paired(sites: Sequence[Cohort], rounds: int, *, private: bool, threads: int = 1) -> tuple[Timed, Timed]:
    """Ours and bare vmap, a round of each in turn in one process, so that a drift of the machine's speed hits both.

    A private round of ours stands beside one without protection of ``STEPS`` steps, of exactly 32 patients each.
    """
    turns, other = vmap_rounds(sites, STEPS if private else None, threads), Timed()
    next(turns)

    def between() -> None:
        began = perf_counter()
        next(turns)
        other.rounds.append(perf_counter() - began)

    mine = ours(sites, rounds, private=private, threads=threads, between=between)
    other.rounds = other.rounds[1:-1]  # those that stood beside the rounds of ours that count
    return mine, other


def vmap_rounds(sites: Sequence[Cohort], steps: int | None, threads: int = 1) -> Iterator[None]:
    """Bare ``torch.func.vmap`` over the sites: ready after the first ``next``, one round for each other one.

    Sites are padded to the longest; a batch of an epoch holds padding where a site has run out. With ``steps``, every
    batch is full: a site that has run out begins again.
    """
    import torch
    from torch.func import grad, vmap

    torch.set_num_threads(threads)
    counts = [cohort.train.patients for cohort in sites]
    number, longest = len(counts), -(-max(counts) // BATCH) * BATCH
    features, targets = torch.zeros(number, longest, FEATURES), torch.zeros(number, longest, 1)
    real = torch.zeros(number, longest)
    for site, cohort in enumerate(sites):
        features[site, : counts[site]] = torch.from_numpy(cohort.train.features)
        targets[site, : counts[site]] = torch.from_numpy(cohort.train.targets)
        real[site, : counts[site]] = 1.0
    weights, lengths = torch.tensor(counts, dtype=torch.float32), torch.tensor(counts)[:, None]

    def loss(parameters: Any, x: Any, y: Any, mask: Any) -> Any:
        hidden, shift, last, bias = parameters
        outputs = torch.tanh(x @ hidden.T + shift) @ last.T + bias
        each = torch.nn.functional.binary_cross_entropy_with_logits(outputs, y, reduction="none")[:, 0]
        return (each * mask).sum() / mask.sum().clamp(min=1.0)

    gradients = vmap(grad(loss))
    torch.manual_seed(1)
    shared = [torch.randn(HIDDEN, FEATURES) / 4, torch.zeros(HIDDEN), torch.randn(1, HIDDEN) / 6, torch.zeros(1)]
    yield
    while True:
        models = [part.expand(number, *part.shape).clone() for part in shared]
        firsts = range(0, longest if steps is None else BATCH * steps, BATCH)
        order = torch.argsort(torch.where(real > 0, torch.rand(number, longest), 2.0), dim=1)
        for first in firsts:
            at = order[:, first : first + BATCH]
            if steps is not None:
                at = order.gather(1, (first + torch.arange(BATCH)) % lengths)
            x = torch.gather(features, 1, at[:, :, None].expand(-1, -1, FEATURES))
            found = gradients(tuple(models), x, torch.gather(targets, 1, at[:, :, None]), torch.gather(real, 1, at))
            models = [part - RATE * slope for part, slope in zip(models, found, strict=True)]
        scale = weights / weights.sum()
        shared = [
            part + torch.tensordot(scale, model - part, dims=1) for part, model in zip(shared, models, strict=True)
        ]
        yield


def vmap(sites: Sequence[Cohort], rounds: int) -> Timed:
    """Bare vmap by itself."""
    began, timed = perf_counter(), Timed()
    turns = vmap_rounds(sites, None)
    next(turns)
    timed.start_up = perf_counter() - began
    for _ in range(rounds + 1):
        began = perf_counter()
        next(turns)
        timed.rounds.append(perf_counter() - began)
    del timed.rounds[0]
    return timed


def loop(sites: Sequence[Cohort], rounds: int) -> Timed:
    """The loop that a researcher would write: one module, plain tensor updates, no optimiser."""
    began, timed = perf_counter(), Timed()
    import torch

    torch.set_num_threads(1)
    data = [_tensors(cohort) for cohort in sites]
    model, loss_of = _module()
    parameters = list(model.parameters())
    timed.start_up = perf_counter() - began
    for _ in range(rounds):
        began = perf_counter()
        start = [p.detach().clone() for p in parameters]
        sums = [torch.zeros_like(p) for p in start]
        weight = 0.0
        for features, targets in data:
            with torch.no_grad():
                for p, s in zip(parameters, start, strict=True):
                    p.copy_(s)
            order = torch.randperm(len(features))
            for first in range(0, len(features), BATCH):
                batch = order[first : first + BATCH]
                gradients = torch.autograd.grad(loss_of(model(features[batch]), targets[batch]), parameters)
                with torch.no_grad():
                    for p, g in zip(parameters, gradients, strict=True):
                        p -= RATE * g
            with torch.no_grad():
                for total, p, s in zip(sums, parameters, start, strict=True):
                    total += len(features) * (p - s)
            weight += len(features)
        with torch.no_grad():
            for p, s, total in zip(parameters, start, sums, strict=True):
                p.copy_(s + total / weight)
        timed.rounds.append(perf_counter() - began)
    return timed


def pfl(sites: Sequence[Cohort], rounds: int) -> Timed:
    """Apple's pfl 0.6 on PyTorch, in one process."""
    began, timed = perf_counter(), Timed()
    import torch
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.hyperparam import NNTrainHyperParams
    from pfl.metrics import Metrics
    from pfl.model.pytorch import PyTorchModel

    torch.set_num_threads(1)
    data = [_tensors(cohort) for cohort in sites]
    module, loss_of = _module()

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = module

        def forward(self, features: Any) -> Any:
            return self.network(features)

        def loss(self, features: Any, targets: Any, eval: bool = False) -> Any:
            return loss_of(self(features), targets)

        def metrics(self, features: Any, targets: Any) -> dict[str, Any]:
            return {}

    last = perf_counter()

    class Clock(TrainingProcessCallback):  # type: ignore[misc]
        def after_central_iteration(self, aggregate: Any, model: Any, *, central_iteration: int) -> Any:
            nonlocal last
            timed.rounds.append(perf_counter() - last)
            last = perf_counter()
            return False, Metrics()

    turn = iter(range(len(data) * (rounds + 2)))
    users = FederatedDataset(lambda user: Dataset(raw_data=data[user]), lambda: next(turn) % len(data))
    model = Model()
    shared = PyTorchModel(model, torch.optim.SGD, torch.optim.SGD(model.parameters(), lr=1.0))
    timed.start_up = perf_counter() - began
    last = perf_counter()
    FederatedAveraging().run(
        NNAlgorithmParams(rounds + 1, rounds + 2, len(data), None),
        SimulatedBackend(users, None),
        shared,
        NNTrainHyperParams(BATCH, 1, RATE),
        callbacks=[Clock()],
        send_metrics_to_platform=False,
    )
    del timed.rounds[0]  # the only one that evaluates
    return timed


def flower(sites: Sequence[Cohort], rounds: int) -> Timed:
    """Flower 1.41 on Ray: ServerApp, ClientApp and FedAvg as its quickstart has them, one core for each client."""
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_DISABLE_IMPORT_WARNING": "1",
    }
    began, timed = perf_counter(), Timed()
    import torch
    from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    logging.getLogger("flwr").setLevel(logging.ERROR)
    number = len(sites)
    client, server = ClientApp(), ServerApp()

    @client.train()  # type: ignore[untyped-decorator]
    def train(message: Message, context: Context) -> Message:
        torch.set_num_threads(1)
        cohort = _cohorts_of_a_process(number)[int(context.node_config["partition-id"])]
        features, targets = _tensors(cohort)
        model, loss_of = _module()
        model.load_state_dict(message.content["arrays"].to_torch_state_dict())
        optimiser = torch.optim.SGD(model.parameters(), lr=RATE)
        order = torch.randperm(len(features))
        for first in range(0, len(features), BATCH):
            batch = order[first : first + BATCH]
            optimiser.zero_grad()
            loss_of(model(features[batch]), targets[batch]).backward()
            optimiser.step()
        content = {
            "arrays": ArrayRecord(model.state_dict()),
            "metrics": MetricRecord({"num-examples": len(features)}),
        }
        return Message(content=RecordDict(content), reply_to=message)

    class Clocked(FedAvg):  # type: ignore[misc]
        """A round begins when its messages are made and ends when the replies are averaged."""

        def configure_train(self, *words: Any, **named: Any) -> Any:
            self.began = perf_counter()
            if not timed.start_up:
                timed.start_up = self.began - began
            return super().configure_train(*words, **named)

        def aggregate_train(self, *words: Any, **named: Any) -> Any:
            made = super().aggregate_train(*words, **named)
            timed.rounds.append(perf_counter() - self.began)
            return made

    @server.main()  # type: ignore[untyped-decorator]
    def main(grid: Grid, context: Context) -> None:
        strategy = Clocked(
            fraction_train=1.0, fraction_evaluate=0.0, min_available_nodes=number, min_train_nodes=number
        )
        start = ArrayRecord(_module()[0].state_dict())
        strategy.start(grid, start, num_rounds=rounds + 1, train_config=ConfigRecord({}))

    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": {"include_dashboard": False}}
    run_simulation(server, client, number, backend_config=resources)
    del timed.rounds[0]  # the actors import torch and make their cohorts
    return timed


_KEPT: dict[int, list[Cohort]] = {}


def _cohorts_of_a_process(sites: int) -> list[Cohort]:
    if sites not in _KEPT:
        _KEPT[sites] = cohorts(sites)
    return _KEPT[sites]


def _tensors(cohort: Cohort) -> tuple[Any, Any]:
    import torch

    kept = cohort.train
    return torch.tensor(kept.features, dtype=torch.float32), torch.tensor(kept.targets, dtype=torch.float32)


def _module() -> tuple[Any, Any]:
    import torch

    torch.manual_seed(1)
    layers = torch.nn.Linear(FEATURES, HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, 1)
    return torch.nn.Sequential(*layers), torch.nn.BCEWithLogitsLoss()


def pictures(size: int, widths: tuple[int, ...], private: bool, repeats: int) -> tuple[list[float], list[float]]:
    """Processor seconds of a step of one site of 32 pictures: all sites at once, and one after the other, in turn."""
    import torch

    from wardround.client.connectors import make_cohort
    from wardround.client.tasks.images import ImageClassifier
    from wardround.client.training import StepCounter
    from wardround.client.training import train_plain as plain_alone
    from wardround.client.training import train_private as private_alone
    from wardround.protocol.events import PoissonGaussian
    from wardround.protocol.image_tasks import ImageClassification
    from wardround.protocol.messages import LocalRule
    from wardround.protocol.parameters import initial_weights
    from wardround.protocol.plan import LocalTraining
    from wardround.simulations.vectorised.draws import keystream
    from wardround.simulations.vectorised.networks import networks_for
    from wardround.simulations.vectorised.stack import Stack
    from wardround.simulations.vectorised.training import Many, train_plain, train_private

    torch.set_num_threads(1)
    task = ImageClassifier(ImageClassification(size=(size, size), widths=widths), 0)
    generator, steps, patients = np.random.default_rng(1), 2, 2 * BATCH
    number = 40 if size < 28 else 8
    sites = []
    for site in range(number):
        shown = generator.normal(size=(patients + 2, *task.spec.shape)).astype(np.float32)
        outcome = (generator.random(patients + 2) < 0.5).astype(np.float64)
        sites.append(make_cohort(f"site-{site:02}", shown, outcome, test=np.arange(patients + 2) >= patients))
    networks = networks_for(task)
    many = Many(networks, Stack(sites, networks.width, networks.values_at_once))
    start, rule = initial_weights(task.layout, "uniform", 1), LocalRule(RATE)
    event = PoissonGaussian(steps=steps, noise_multiplier=1.0, sampling_probability=0.5, declared_patients=patients)
    local, seed = LocalTraining(steps=steps, batch_size=BATCH, learning_rate=RATE), bytes(32)

    def together() -> None:
        if private:
            train_private(many, start, rule, [event] * number, 1.0, keystream())
        else:
            train_plain(many, start, rule, local, [seed] * number)

    def alone() -> None:
        for cohort in sites:
            if private:
                private_alone(task.engine, start, cohort.train, rule, event, 1.0, os.urandom, StepCounter())
            else:
                plain_alone(task.engine, start, cohort.train, rule, local, seed)

    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(repeats + 1):
        for once, work in ((True, together), (False, alone)):
            began = process_time()
            work()
            times[once].append((process_time() - began) / number / steps)
    return times[True][1:], times[False][1:]
