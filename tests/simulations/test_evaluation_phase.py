"""Evaluation rounds of a simulated training: right against the pooled figures, covering, exact in what they charge."""

import os
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import brier_score_loss, roc_auc_score

from wardround.client.connectors import Cohort
from wardround.client.evaluation import score
from wardround.client.tasks import task_from
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.console.evaluation_table import evaluation_table
from wardround.console.reports.evaluation_charts import plots
from wardround.privacy.accounting import epsilon
from wardround.protocol.errors import UsageError
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.parameters import Vector
from wardround.protocol.plan import StudyPlan
from wardround.simulations.cohorts import declared_in, gather
from wardround.simulations.configured import Simulated, simulate
from wardround.simulations.phase import Phase
from wardround.simulations.result import EvaluationResult, FigureResult, RoundResult

TODAY = date(2026, 11, 29)
REPETITIONS = 100 if os.environ.get("WARDROUND_SOAK") == "1" else 20
COHORTS = gather(parse_configuration(compose_configuration(["study=heart_disease"]))).taking_part
QUICK = ("study=heart_disease", "rounds=6", "evaluation.rounds=[3,6]")


@cache
def planned(*words: str) -> StudyPlan:
    configuration = parse_configuration(compose_configuration([*QUICK, "secagg=off", *words]))
    return make_plan(configuration, declared_in(gather(configuration), configuration.task), TODAY)


def phase_of(plan: StudyPlan, cohorts: tuple[Cohort, ...] = COHORTS) -> Phase:
    assert plan.evaluation_plan is not None
    return Phase(plan.evaluation_plan, cohorts, TODAY, 40.0, 40.0, None)


def run(folder: Path, *words: str, stop_after: int | None = None) -> Simulated:
    def listener(plan: StudyPlan, result: RoundResult) -> None:
        if result.round_number == stop_after:
            raise KeyboardInterrupt

    given = [*QUICK, "simulation.evaluate_every=0", f"simulation.output={folder}", *words]
    return simulate(
        parse_configuration(compose_configuration(given)), today=TODAY, started=perf_counter(), listener=listener
    )


def figure(found: EvaluationResult, after: int, quantity: str) -> FigureResult:
    look = next(each for each in found.rounds if each.after_round == after)
    return next(f for f in look.figures if f.quantity == quantity and set(f.group) <= {"all"})


def pooled(plan: StudyPlan, model: Vector) -> tuple[np.ndarray, np.ndarray]:
    """(outcome, score) of all test patients, by another path than the phase's."""
    scores = [score(task_from(plan), model, cohort.test) for cohort in COHORTS]
    return np.concatenate([each.target[:, 0] for each in scores]), np.concatenate([each.score for each in scores])


@pytest.mark.parametrize("engine", ["sites", "vectorised"])
def test_without_noise_the_last_look_is_what_all_test_patients_show_of_the_final_model(
    tmp_path: Path, engine: str
) -> None:
    done = run(tmp_path, "privacy=none", f"simulation.engine={engine}")
    found = done.result.evaluation
    assert found is not None and done.result.engine == engine
    has, p = pooled(done.plan, done.model)
    assert figure(found, 6, "Brier score").value == pytest.approx(brier_score_loss(has, p), abs=1e-5)
    assert figure(found, 6, "AUROC").value == pytest.approx(roc_auc_score(has, np.floor(p * 10)), abs=1e-5)
    assert figure(found, 3, "Brier score").value != figure(found, 6, "Brier score").value
    assert [(look.after_round, look.sites) for look in found.rounds] == [(3, 4), (6, 4)]


@pytest.mark.parametrize(("epsilon_of_phase", "widest"), [(1.0, 0.3), (3.0, 0.17)])
def test_at_epsilon_one_and_three_the_interval_holds_the_exact_pooled_figure(
    epsilon_of_phase: float, widest: float
) -> None:
    plan = planned(f"evaluation.epsilon={epsilon_of_phase}")
    model = run_once()
    has, p = pooled(plan, model)
    exact, inside, reach = roc_auc_score(has, p), 0, []
    for _ in range(REPETITIONS):
        phase = phase_of(plan)
        phase.after(3, model)
        found = figure(phase.result(), 3, "AUROC")
        if found.low is not None and found.high is not None:
            inside += found.low <= exact <= found.high
            reach.append((found.high - found.low) / 2)
    assert len(reach) > REPETITIONS / 2, "the class counts are large enough for the noise"
    assert inside >= scipy.stats.binom.ppf(1e-6, len(reach), 0.95)
    assert np.mean(reach) < widest, "an interval that is everything would cover too"


@cache
def run_once() -> Vector:
    """A good model of heart disease, trained on all training patients without noise."""
    words = ["privacy=none", "evaluation.rounds=[]", "rounds=40"]
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        return run(Path(folder), *words).model


@pytest.mark.parametrize("mode", ["local", "dist"])
def test_the_ledgers_hold_what_was_evaluated_and_training_costs_what_it_did(tmp_path: Path, mode: str) -> None:
    words = [f"privacy={mode}", "epsilon_cap=40", "consortium_cap=40"]
    budget = ["evaluation.epsilon=3"]
    if mode == "dist":
        budget = ["evaluation.epsilon=20", "evaluation.epsilon_consortium=3"]
    done, plain = run(tmp_path, *words, *budget), run(tmp_path, *words, "evaluation.rounds=[]")
    found, beside = done.result.evaluation, done.plan.evaluation_plan
    assert found is not None and beside is not None and plain.result.evaluation is None
    assert done.result.privacy.epsilon_planned == plain.result.privacy.epsilon_planned
    assert done.result.privacy.domain_share_used == plain.result.privacy.domain_share_used
    event, delta = beside.round_event("va"), beside.privacy.delta
    assert isinstance(event, PoissonGaussian) and delta is not None
    assert found.epsilon == epsilon([event, event], delta)
    assert found.epsilon_consortium == (
        None if mode == "local" else epsilon([beside.consortium_event("va")] * 2, delta)
    )
    assert found.epsilon_consortium is None or 2.9 < found.epsilon_consortium <= 3.0


def test_only_test_patients_are_scored() -> None:
    """Other training patients change no figure, and no site's charge; other test patients do."""
    model = run_once()

    def brier(cohorts: tuple[Cohort, ...]) -> float | None:
        phase = phase_of(planned("privacy=none"), cohorts)
        phase.after(3, model)
        return figure(phase.result(), 3, "Brier score").value

    others = tuple(replace(cohort, train=cohort.test) for cohort in COHORTS)
    swapped = tuple(replace(cohort, test=cohort.train) for cohort in COHORTS)
    assert brier(others) == brier(COHORTS) != brier(swapped)


def test_the_noise_of_a_round_is_that_of_every_hospital_and_new_in_each() -> None:
    plan, model = planned("evaluation.epsilon=3"), run_once()
    sums = []
    for _ in range(30):
        phase = phase_of(plan)
        for after in (3, 6):
            phase.after(after, model)
        sums.append(phase.progress.state.model)
    first, second = np.split(np.array(sums), 2, axis=1)
    noise = plan.evaluation_plan
    assert noise is not None and noise.privacy.noise_multiplier is not None
    # The difference of two looks at the same model is noise alone: 2 rounds of 4 sites. chi^2 with 30 * 34 degrees.
    squares, many = np.square((first - second)[:, 1:]).sum(), 30 * (first.shape[1] - 1)
    unit = 2 * 4 * noise.privacy.noise_multiplier**2
    low, high = scipy.stats.chi2.ppf([5e-8, 1 - 5e-8], many)
    assert low < squares / unit < high


def test_a_run_that_was_interrupted_between_looks_goes_on_and_looks_once(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", "privacy=none")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", "privacy=none", stop_after=4)
    (folder,) = (tmp_path / "cut").iterdir()
    done = simulate(
        parse_configuration(compose_configuration([f"simulation.resume={folder}"])), today=TODAY, started=perf_counter()
    )
    assert done.result.evaluation == whole.result.evaluation is not None


def test_a_hospital_without_test_patients_adds_noise_alone() -> None:
    nobody = COHORTS[0].test.take(np.zeros(0, np.int64))
    cohorts = (replace(COHORTS[0], test=nobody, test_ids=()), *COHORTS[1:])
    phase = phase_of(planned("evaluation.epsilon=3"), cohorts)
    phase.after(3, run_once())
    assert phase.result().rounds[0].sites == len(COHORTS)
    assert set(phase.parties.charged().values()) == {1}


def test_a_phase_beyond_the_test_patients_budget_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="of the budget of site") as error:
        run(tmp_path, "evaluation.epsilon=9", "epsilon_cap=8")
    assert error.value.hint


def test_a_round_that_is_not_on_the_schedule_asks_nothing() -> None:
    phase = phase_of(planned("evaluation.epsilon=3"))
    phase.after(2, run_once())
    assert phase.progress.rounds_done == 0 and set(phase.parties.charged().values()) == {0}


def test_a_model_that_ran_away_moves_the_sums_no_further_than_any_other() -> None:
    phase, model = phase_of(planned("privacy=none")), np.full(len(run_once()), np.nan, np.float32)
    phase.after(3, model)
    sums = phase.progress.state.model
    assert np.isfinite(sums).all()
    assert figure(phase.result(), 3, "Brier score").value == pytest.approx(0.25), "it says nothing: one half"


def test_table_and_report_show_every_round_and_hide_what_the_noise_hides(tmp_path: Path) -> None:
    done = run(tmp_path, "evaluation.epsilon=3", "+evaluation.ask.by=[sex]", "evaluation.smallest_cell=100")
    found = done.result.evaluation
    assert found is not None
    table = evaluation_table(found)
    assert [str(column.header) for column in table.columns] == ["Group", "Figure", "Round 3", "Round 6"]
    shown = [cell for column in table.columns[2:] for cell in map(str, column.cells)]
    assert any(" to " in cell for cell in shown) and "not shown" in shown
    drawn = plots([(look.after_round, look.figures) for look in found.rounds])
    assert [plot.name for plot in drawn][:3] == ["AUROC", "AUPRC", "Brier score"]
    assert all("after round" in plot.chart for plot in drawn)
