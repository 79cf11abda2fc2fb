"""A simulation of a configuration: what ``wardround simulate`` runs, writes and resumes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from time import perf_counter

from threadpoolctl import threadpool_limits

from wardround.conf.planning import make_plan
from wardround.conf.schema import Configuration, parse_configuration
from wardround.protocol.errors import UsageError
from wardround.protocol.plan import StudyPlan
from wardround.simulations.assemble import assemble
from wardround.simulations.checks import check_cost, named_faults, weaknesses
from wardround.simulations.cluster import Workers
from wardround.simulations.cohorts import Gathered, gather
from wardround.simulations.experiment import Experiment
from wardround.simulations.faults import Fault
from wardround.simulations.files import RunFolder, Snapshot
from wardround.simulations.plugins.configured import own_strategy, own_task
from wardround.simulations.research import Run
from wardround.simulations.result import RoundResult

Listener = Callable[[StudyPlan, RoundResult], None]
"""Told after every round."""

Source = Callable[[Configuration], Gathered]
"""Gives the sites of a configuration; ``gather``, or one that keeps what it read."""


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
    folder: RunFolder | None = None,
    source: Source = gather,
    checkpoint_seconds: float = 0.0,
) -> Simulated:
    """Run a configured study and write its folder.

    ``prepared`` is called once everything was checked and before the first round. ``started`` is a perf_counter
    reading. ``folder`` None: a new one below ``simulation.output``. A checkpoint is written after a round that ends so
    many seconds after the last one. Raises UsageError before anything runs when the
    study is impossible.
    """
    with threadpool_limits(configuration.simulation.threads):
        if configuration.simulation.resume is not None:
            folder = RunFolder(Path(configuration.simulation.resume))
            return resume(folder, today, started, prepared, listener, source, checkpoint_seconds)
        gathered = source(configuration)
        plan = make_plan(configuration, gathered.declared, today, own_strategy(configuration))
        now = datetime.now()
        check_cost(plan, configuration.epsilon_cap, configuration.consortium_cap)
        faults = named_faults(configuration, gathered)
        folder = folder or RunFolder.create(Path(configuration.simulation.output), plan.study, now)
        folder.begin(plan, configuration.model_dump(mode="json"))
        snapshot = Snapshot(plan, {}, None, None, [])
        return _carry_on(
            configuration, gathered, snapshot, folder, faults, today, started, prepared, listener, checkpoint_seconds
        )


def resume(
    folder: RunFolder,
    today: date,
    started: float,
    prepared: Callable[[StudyPlan, Gathered], None] = lambda plan, gathered: None,
    listener: Listener = lambda plan, result: None,
    source: Source = gather,
    checkpoint_seconds: float = 0.0,
) -> Simulated:
    """Go on with the run in ``folder`` after its last finished round. Raises UsageError if it cannot."""
    snapshot = folder.read()
    if (folder.path / "result.json").exists():
        raise UsageError(f"the run in '{folder.path}' is finished", "start a new one")
    original = parse_configuration(dict(snapshot.configuration))
    gathered = source(original)
    if gathered.declared != {p.site: p.declared_patients for p in snapshot.plan.participants}:
        raise UsageError("the sites' data are not those of the interrupted run", "restore the data and resume again")
    faults = named_faults(original, gathered)
    return _carry_on(
        original, gathered, snapshot, folder, faults, today, started, prepared, listener, checkpoint_seconds
    )


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
    checkpoint_seconds: float,
) -> Simulated:
    plan, terms = snapshot.plan, configuration.simulation
    experiment = Experiment(
        plan,
        own_task(configuration, plan),
        own_strategy(configuration),
        gathered.taking_part,
        today,
        configuration.epsilon_cap,
        configuration.simulation.evaluate_every,
        faults,
        snapshot.progress,
        snapshot.ledgers,
        list(snapshot.rounds),
        configuration.consortium_cap,
        configuration.coordinator_directs,
        configuration.installed,
        configuration.simulation.engine,
        Workers(terms.workers, terms.threads, terms.cluster),
        snapshot.evaluation,
    )
    prepared(plan, gathered)

    written = [result.model_dump_json().encode() for result in snapshot.rounds]
    first = saved = perf_counter()

    def after_round(result: RoundResult) -> None:
        nonlocal saved
        written.append(result.model_dump_json().encode())
        if perf_counter() - saved >= checkpoint_seconds:
            progress = experiment.engine.study.progress
            folder.checkpoint(progress, experiment.engine.ledgers(), written, experiment.evaluation)
            saved = perf_counter()
        listener(plan, result)

    experiment.run(after_round)
    over = perf_counter()
    result = assemble(
        experiment,
        left_out=gathered.excluded,
        attribution=gathered.attribution,
        notes=weaknesses(plan),
        started=started,
        first_round=first,
        rounds_over=over,
        threads=configuration.simulation.threads,
        made_up=gathered.made_up,
    )
    folder.finish(result, plan.layout, experiment.model)
    return Simulated(plan, result, experiment.model, folder)
