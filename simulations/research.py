"""A simulation of objects: any task, any strategy, any cohorts, from a researcher's own program."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from time import perf_counter
from typing import Literal

from pydantic import ValidationError
from threadpoolctl import threadpool_limits

from wardround.client.connectors import Cohort
from wardround.client.tasks import Task
from wardround.conf.planning import months_later
from wardround.conf.schema import usage_error
from wardround.protocol.errors import UsageError
from wardround.protocol.parameters import Vector, initial_weights, model_hash
from wardround.protocol.plan import (
    Controller,
    Governance,
    InitialModel,
    LocalTraining,
    Participant,
    PrivacyMode,
    PrivacyTerms,
    StudyPlan,
)
from wardround.protocol.plugins import TensorSpec
from wardround.protocol.tasks import Programmed
from wardround.simulations.assemble import assemble
from wardround.simulations.checks import check_cost
from wardround.simulations.choice import EngineName
from wardround.simulations.cluster import Workers
from wardround.simulations.cohorts import Gathered, examine
from wardround.simulations.experiment import Experiment
from wardround.simulations.faults import Fault
from wardround.simulations.result import RoundResult, SimulationResult
from wardround.strategies import Robust, Strategy, check_strategy, spec_of


@dataclass(frozen=True, slots=True)
class Run:
    """A finished simulation: what was planned, what was found, and the final model, shape (d,)."""

    plan: StudyPlan
    result: SimulationResult
    model: Vector


def run(
    *,
    task: Task,
    strategy: Strategy | Robust,
    cohorts: Sequence[Cohort],
    rounds: int,
    local: LocalTraining,
    privacy: PrivacyTerms | None = None,
    seed: int = 0,
    scheme: Literal["zeros", "uniform"] = "uniform",
    min_sites: int = 1,
    epsilon_cap: float = 8.0,
    consortium_cap: float = 8.0,
    evaluate_every: int = 0,
    compare: bool = True,
    faults: Sequence[Fault] = (),
    name: str = "research",
    threads: int = 1,
    engine: EngineName = "auto",
    after_round: Callable[[RoundResult], None] = lambda result: None,
    workers: int | None = None,
    cluster: str | None = None,
) -> Run:
    """Simulate objects: any task, any strategy, any cohorts. Nothing is written.

    ``privacy`` None means no protection. ``evaluate_every`` rounds the test patients are looked at (0: at the end);
    ``compare`` False leaves out own models, intervals and curves. The plan that the sites follow is made here; its task
    is 'programmed', so no hospital can be asked to run it. ``engine``: see ``simulations.choice``; ``workers`` and
    ``cluster`` are for "flower", see ``simulations.cluster``. ``after_round`` is told of each round. Raises UsageError
    for terms that contradict each other.
    """
    started = perf_counter()
    gathered = examine(cohorts, None, "")
    today = date.today()
    try:
        plan = _plan(name, task, strategy, gathered, rounds, local, privacy, seed, scheme, min_sites, today)
    except ValidationError as error:
        raise usage_error(error) from None
    with threadpool_limits(threads):
        check_strategy(plan, strategy)
        check_cost(plan, epsilon_cap, consortium_cap)
        experiment = Experiment(
            plan,
            task,
            strategy,
            gathered.taking_part,
            today,
            epsilon_cap,
            evaluate_every,
            faults,
            consortium_cap=consortium_cap,
            wanted=engine,
            workers=Workers(workers, threads, cluster),
        )
        first = perf_counter()
        experiment.run(after_round)
        over = perf_counter()
        result = assemble(
            experiment,
            left_out=gathered.excluded,
            attribution="",
            notes=(),
            started=started,
            first_round=first,
            rounds_over=over,
            threads=threads,
            compare=compare,
        )
        return Run(plan, result, experiment.model)


def patient_privacy(
    *, epsilon: float, rounds: int, local: LocalTraining, delta: float = 1e-4, sampling_probability: float = 0.2
) -> PrivacyTerms:
    """Terms for ``run`` with the least noise at which a study of so many rounds keeps within ``epsilon`` at ``delta``.

    For any one patient of a site, adding or removing one, against everyone, whoever colludes. Raises UsageError for
    training by epochs: the number of steps would depend on patients.
    """
    if local.steps is None:
        raise UsageError("under privacy a round has a fixed number of steps", "use LocalTraining(steps=...)")
    from wardround.privacy.accounting import calibrate_noise_multiplier

    noise = calibrate_noise_multiplier(epsilon, delta, sampling_probability, rounds * local.steps)
    return PrivacyTerms(
        mode=PrivacyMode.LOCAL,
        noise_multiplier=noise,
        sampling_probability=sampling_probability,
        delta=delta,
        epsilon=epsilon,
    )


def _plan(
    name: str,
    task: Task,
    strategy: Strategy | Robust,
    gathered: Gathered,
    rounds: int,
    local: LocalTraining,
    privacy: PrivacyTerms | None,
    seed: int,
    scheme: Literal["zeros", "uniform"],
    min_sites: int,
    today: date,
) -> StudyPlan:
    """The plan that the simulated sites follow; its task is 'programmed'."""
    layout = task.layout
    start = initial_weights(layout, scheme, seed)
    return StudyPlan(
        study=name,
        title=f"{name}: a simulation by a program",
        governance=Governance(
            purpose="simulation on a researcher's machine",
            controllers=(Controller(name="the researcher", role="sole"),),
            legal_basis="none: no hospital takes part",
            ethics_reference="none",
            recipients=("the researcher",),
            permitted_use="research on this machine",
            proposed_on=today,
            expires_on=months_later(today, 12),
        ),
        contract=None,
        task=Programmed(
            tensors=tuple(TensorSpec(name=t.name, shape=t.shape, fan_in=t.fan_in) for t in layout.tensors),
            couples_patients=task.couples_patients,
        ),
        model=InitialModel(scheme=scheme, seed=seed, layout=layout.digest, hash=model_hash(start)),
        strategy=spec_of(strategy),
        local=local,
        rounds=rounds,
        min_sites=min_sites,
        participants=tuple(Participant(site=s, declared_patients=n) for s, n in sorted(gathered.declared.items())),
        privacy=privacy or PrivacyTerms(mode=PrivacyMode.NONE),
        code_version=version("wardround"),
    )
