"""From a finished experiment to the result that people read and files hold."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from time import perf_counter, process_time
from typing import Final, Literal

from wardround.client.comparison import compare as compare_models
from wardround.client.comparison import headlines, row, together
from wardround.client.connectors import Cohort
from wardround.client.own_model import assess
from wardround.privacy.budget import fixed_order
from wardround.protocol.parameters import model_hash
from wardround.protocol.plan import Claim, PrivacyMode, StudyPlan
from wardround.protocol.plugins import PluginRef, PluginTask
from wardround.protocol.secagg import colluding
from wardround.simulations.environment import describe_environment
from wardround.simulations.experiment import Experiment
from wardround.simulations.result import (
    EstimateResult,
    MadeUpSplit,
    ModelResult,
    PluginResult,
    PrivacyResult,
    SimulationResult,
    SiteResult,
)
from wardround.simulations.statement import privacy_statement

ACCOUNTANT: Final = "dp-accounting: the smaller of Renyi DP and privacy loss distributions, rounded up"


def assemble(
    experiment: Experiment,
    *,
    left_out: Sequence[tuple[Cohort, str]],
    attribution: str,
    notes: Sequence[str],
    started: float,
    first_round: float,
    rounds_over: float,
    threads: int,
    compare: bool = True,
    made_up: MadeUpSplit | None = None,
) -> SimulationResult:
    """The result of a finished experiment; times are ``time.perf_counter`` readings in seconds.

    ``compare`` False leaves out each hospital's own model, intervals and curves.
    """
    plan = experiment.plan
    charged = experiment.charged
    if compare:
        sites = _compared(experiment, charged)
    else:
        sites = [_scored(experiment, cohort, charged[cohort.site]) for cohort in experiment.cohorts]
    sites += [_named(cohort, reason) for cohort, reason in left_out]
    return SimulationResult(
        study=plan.study,
        title=plan.title,
        plan_digest=plan.digest,
        created=datetime.now(UTC).replace(microsecond=0),
        seconds_to_first_round=first_round - started,
        seconds_in_rounds=rounds_over - first_round,
        seconds=perf_counter() - started,
        cpu_seconds=process_time(),
        engine=experiment.chosen.engine,
        engine_why=experiment.chosen.why,
        strategy=plan.strategy.name,
        task=plan.task.name,
        plugins=tuple(_plugins(plan)),
        headline_metrics=headlines(plan, experiment.task),
        privacy=_privacy(experiment),
        sites=tuple(sorted(sites, key=lambda site: site.site)),
        rounds=tuple(experiment.rounds),
        evaluation=None if experiment.phase is None else experiment.phase.result(),
        final_model=model_hash(experiment.model),
        data_hashes={cohort.site: cohort.data_hash for cohort in experiment.cohorts},
        split_hashes={cohort.site: cohort.split_hash for cohort in experiment.cohorts},
        made_up=made_up,
        attribution=attribution,
        notes=tuple(notes),
        environment=describe_environment(threads, plan.model.seed),
    )


def _plugins(plan: StudyPlan) -> Iterator[PluginResult]:
    named: dict[Literal["task", "strategy"], PluginRef | None] = {
        "task": plan.task.plugin if isinstance(plan.task, PluginTask) else None,
        "strategy": plan.strategy.plugin,
    }
    for part, ref in named.items():
        if ref is not None:
            yield PluginResult(part=part, name=ref.name, version=ref.version, digest=ref.digest, author=ref.author)


def _compared(experiment: Experiment, charged: Mapping[str, int]) -> list[SiteResult]:
    """The rows of all sites that took part; their verdicts are read together."""
    task, plan = experiment.task, experiment.plan
    found = [
        compare_models(plan, task, cohort, experiment.model, experiment.personalised(cohort), experiment.installed)
        for cohort in experiment.cohorts
    ]
    verdicts = together(found)
    return [
        row(
            plan,
            task,
            cohort,
            compared,
            verdicts,
            rounds_in_sum=_rounds_in_sum(experiment, cohort),
            epsilon_site=experiment.epsilon(charged[cohort.site]),
        )
        for cohort, compared in zip(experiment.cohorts, found, strict=True)
    ]


def _scored(experiment: Experiment, cohort: Cohort, charged: int) -> SiteResult:
    """A row without own model, intervals and curves."""
    points = experiment.metrics(cohort).items()
    model = experiment.personalised(cohort)
    return SiteResult(
        site=cohort.site,
        train_patients=cohort.train.patients,
        test_patients=cohort.test.patients,
        declared_patients=experiment.plan.declared_patients(cohort.site),
        left_out=dict(cohort.excluded),
        rounds_in_sum=_rounds_in_sum(experiment, cohort),
        epsilon_site=experiment.epsilon(charged),
        shared=ModelResult(metrics={name: EstimateResult(value=value) for name, value in points}),
        personalised=None if model is None else assess(experiment.task, model, cohort)[0],
    )


def _rounds_in_sum(experiment: Experiment, cohort: Cohort) -> int:
    closed = (record for record in experiment.rounds if record.state == "closed")
    return sum(record.sites[cohort.site].outcome == "replied" for record in closed)


def _named(cohort: Cohort, reason: str) -> SiteResult:
    return SiteResult(
        site=cohort.site,
        train_patients=cohort.train.patients,
        test_patients=cohort.test.patients,
        declared_patients=None,
        left_out=dict(cohort.excluded),
        excluded_because=reason,
    )


def _privacy(experiment: Experiment) -> PrivacyResult:
    plan = experiment.plan
    terms = plan.privacy
    if terms.mode is PrivacyMode.NONE or terms.delta is None:
        return PrivacyResult(
            mode=terms.mode.value,
            claim=terms.claim.value,
            standing=experiment.standing,
            statement=privacy_statement(plan, None),
            secure_sum_of_at_least=plan.sum_threshold if terms.secure_aggregation else None,
        )
    spent = experiment.engine.spent()
    most = max(experiment.charged.values())
    largest = experiment.epsilon(most) or 0.0
    consortium = None
    if terms.claim is Claim.EPSILON_BOTH:
        consortium = experiment.epsilon_consortium(most)
    return PrivacyResult(
        mode=terms.mode.value,
        claim=terms.claim.value,
        standing=experiment.standing,
        statement=privacy_statement(plan, largest, consortium),
        epsilon_consortium=consortium,
        colluding_sites=None if consortium is None else colluding(len(plan.participants)),
        noise_of_shares=None if consortium is None else plan.honest_sites,
        delta=terms.delta,
        epsilon_planned=experiment.epsilon(plan.rounds),
        epsilon_limit=terms.epsilon,
        noise_multiplier=terms.noise_multiplier,
        sampling_probability=terms.sampling_probability,
        clip_norm=terms.clip_norm,
        accountant=ACCOUNTANT,
        filter_order=fixed_order(experiment.epsilon_cap, terms.delta),
        domain_cap=experiment.epsilon_cap,
        secure_sum_of_at_least=plan.sum_threshold if terms.secure_aggregation else None,
        domain_share_used=max(used / allowed for used, allowed in spent.values() if allowed),
    )
