"""A simulation from a configuration (``simulate``) or from objects in a program (``run``)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

from threadpoolctl import threadpool_limits

from wardround.client.connectors import Cohort
from wardround.client.store.ledger import store_bytes
from wardround.client.tasks import Task, task_from
from wardround.conf.planning import make_plan, months_later
from wardround.conf.schema import Configuration, parse_configuration
from wardround.privacy.budget import allowance, cost, delta_for, fixed_order
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
from wardround.protocol.tasks import Programmed, TensorSpec
from wardround.simulations.assemble import assemble
from wardround.simulations.cohorts import Gathered, examine, gather
from wardround.simulations.experiment import Experiment
from wardround.simulations.faults import Fault, FaultKind
from wardround.simulations.files import RunFolder, Snapshot
from wardround.simulations.result import RoundResult, SimulationResult
from wardround.strategies import Strategy, spec_of, strategy_from

Listener = Callable[[StudyPlan, RoundResult], None]
"""Told after every round."""


@dataclass(frozen=True, slots=True)
class Run:
    """A finished simulation: what was planned, what was found, and the final model, shape (d,)."""

    plan: StudyPlan
    result: SimulationResult
    model: Vector


@dataclass(frozen=True, slots=True)
class Simulated(Run):
    """A finished simulation that was written to a folder."""

    folder: RunFolder


def simulate(
    configuration: Configuration,
    *,
    today: date,
    started: float,
    prepared: Callable[[StudyPlan, Gathered], None] = lambda plan, gathered: None,
    listener: Listener = lambda plan, result: None,
) -> Simulated:
    """Run a configured study and write its folder.

    ``prepared`` is called once everything was checked and before the first round. ``started`` is a perf_counter
    reading. Raises UsageError before anything runs when the study is impossible.
    """
    with threadpool_limits(configuration.simulation.threads):
        if configuration.simulation.resume is not None:
            return _resume(configuration, today, started, prepared, listener)
        gathered = gather(configuration)
        plan = make_plan(configuration, gathered.declared, today)
        now = datetime.now()
        _check_cost(plan, configuration.epsilon_cap)
        faults = _faults(configuration, gathered)
        folder = RunFolder.create(Path(configuration.simulation.output), plan.study, now)
        folder.begin(plan, configuration.model_dump(mode="json"))
        snapshot = Snapshot(plan, {}, None, None, [])
        return _carry_on(configuration, gathered, snapshot, folder, faults, today, started, prepared, listener)


def run(
    *,
    task: Task,
    strategy: Strategy,
    cohorts: Sequence[Cohort],
    rounds: int,
    local: LocalTraining,
    privacy: PrivacyTerms | None = None,
    seed: int = 0,
    scheme: str = "uniform",
    min_sites: int = 1,
    epsilon_cap: float = 8.0,
    evaluate_every: int = 0,
    compare: bool = True,
    faults: Sequence[Fault] = (),
    name: str = "research",
    threads: int = 1,
) -> Run:
    """Simulate objects: any task, any strategy, any cohorts. Nothing is written.

    ``privacy`` None means no protection. ``evaluate_every`` rounds the test patients are looked at (0: at the end);
    ``compare`` False leaves out own models, intervals and curves. The plan that the sites follow is made here; its task
    is 'programmed', so no hospital can be asked to run it. Raises UsageError for terms that contradict each other.
    """
    started = perf_counter()
    gathered = examine(cohorts, None, "")
    layout = task.layout
    today = date.today()
    start = initial_weights(layout, "zeros" if scheme == "zeros" else "uniform", seed)
    plan = StudyPlan(
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
        model=InitialModel(
            scheme="zeros" if scheme == "zeros" else "uniform", seed=seed, layout=layout.digest, hash=model_hash(start)
        ),
        strategy=spec_of(strategy),
        local=local,
        rounds=rounds,
        min_sites=min_sites,
        participants=tuple(Participant(site=s, declared_patients=n) for s, n in sorted(gathered.declared.items())),
        privacy=privacy or PrivacyTerms(mode=PrivacyMode.NONE),
        code_version=version("wardround"),
    )
    with threadpool_limits(threads):
        _check_cost(plan, epsilon_cap)
        experiment = Experiment(plan, task, strategy, gathered.taking_part, today, epsilon_cap, evaluate_every, faults)
        first = perf_counter()
        experiment.run()
        over = perf_counter()
        result = assemble(
            experiment,
            left_out=_left_out(gathered),
            attribution="",
            notes=(),
            started=started,
            first_round=first,
            rounds_over=over,
            threads=threads,
            compare=compare,
        )
        return Run(plan, result, experiment.model)


def _resume(
    configuration: Configuration,
    today: date,
    started: float,
    prepared: Callable[[StudyPlan, Gathered], None],
    listener: Listener,
) -> Simulated:
    folder = RunFolder(Path(str(configuration.simulation.resume)))
    snapshot = folder.read()
    if (folder.path / "result.json").exists():
        raise UsageError(f"the run in '{folder.path}' is finished", "start a new one")
    original = parse_configuration(dict(snapshot.configuration))
    gathered = gather(original)
    if gathered.declared != {p.site: p.declared_patients for p in snapshot.plan.participants}:
        raise UsageError("the sites' data are not those of the interrupted run", "restore the data and resume again")
    faults = _faults(original, gathered)
    return _carry_on(original, gathered, snapshot, folder, faults, today, started, prepared, listener)


def _carry_on(
    configuration: Configuration,
    gathered: Gathered,
    snapshot: Snapshot,
    folder: RunFolder,
    faults: Sequence[Fault],
    today: date,
    started: float,
    prepared: Callable[[StudyPlan, Gathered], None],
    listener: Listener,
) -> Simulated:
    plan = snapshot.plan
    experiment = Experiment(
        plan,
        task_from(plan),
        strategy_from(plan.strategy),
        gathered.taking_part,
        today,
        configuration.epsilon_cap,
        configuration.simulation.evaluate_every,
        faults,
        snapshot.progress,
        snapshot.ledgers,
        list(snapshot.rounds),
    )
    prepared(plan, gathered)

    written = [result.model_dump_json().encode() for result in snapshot.rounds]

    def after_round(result: RoundResult) -> None:
        written.append(result.model_dump_json().encode())
        progress = experiment.federation.study.progress
        folder.checkpoint(progress, store_bytes(experiment.store), written)
        listener(plan, result)

    first = perf_counter()
    experiment.run(after_round)
    over = perf_counter()
    result = assemble(
        experiment,
        left_out=_left_out(gathered),
        attribution=gathered.attribution,
        notes=_warnings(plan),
        started=started,
        first_round=first,
        rounds_over=over,
        threads=configuration.simulation.threads,
    )
    folder.finish(result, plan.layout, experiment.model)
    return Simulated(plan, result, experiment.model, folder)


def _check_cost(plan: StudyPlan, epsilon_cap: float) -> None:
    """Refuse a plan that costs more than it says, or more than a site's domain can give, before anything runs."""
    if plan.privacy.mode is PrivacyMode.NONE:
        return
    from wardround.privacy.accounting import check_plan_cost

    check_plan_cost(plan)
    for participant in plan.participants:
        delta = delta_for(participant.declared_patients)
        order = fixed_order(epsilon_cap, delta)
        needed = plan.rounds * cost(plan.round_event(participant.site), order)
        room = allowance(epsilon_cap, delta, order)
        if needed > room:
            raise UsageError(
                f"the plan needs {100 * needed / room:.0f} % of the budget of site '{participant.site}' "
                f"(epsilon {epsilon_cap:g} at delta {delta:g} for each patient, over all studies)",
                "take more noise (privacy.noise_multiplier), fewer rounds, or raise epsilon_cap",
            )


def _warnings(plan: StudyPlan) -> list[str]:
    """Named warnings of a plan that is legal but weak: small expected batches under local noise."""
    terms, q = plan.privacy, plan.privacy.sampling_probability
    if q is None:
        return []
    least = 200 if terms.mode is PrivacyMode.LOCAL and (terms.epsilon or 8.0) < 8.0 else 64
    small = [p.site for p in plan.participants if q * p.declared_patients < least]
    if not small:
        return []
    return [
        f"small batches: fewer than {least} patients are expected in a step at {', '.join(small)}, so the noise "
        "weighs much there; distributed noise (privacy=dist, not in this version) is made for such sites"
    ]


def _faults(configuration: Configuration, gathered: Gathered) -> tuple[Fault, ...]:
    known = {kind.name.lower(): kind for kind in FaultKind}
    faults = []
    for item in configuration.simulation.faults:
        if item.kind not in known:
            raise UsageError(f"there is no fault '{item.kind}'", f"known faults: {', '.join(known)}")
        if item.site not in gathered.declared:
            raise UsageError(f"a fault names the site '{item.site}'", f"sites here: {', '.join(gathered.declared)}")
        faults.append(Fault(item.site, item.round_number, known[item.kind]))
    return tuple(faults)


def _left_out(gathered: Gathered) -> list[tuple[Cohort, str]]:
    return [(c, gathered.left_out[c.site]) for c in gathered.cohorts if c.site in gathered.left_out]
