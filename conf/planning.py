"""From a checked configuration to the plan that hospitals approve. The date and the sites come as arguments.

Nothing is read but a weights file, where the configuration names one.
"""

from collections.abc import Mapping
from datetime import date
from importlib.metadata import version
from typing import Literal

from pydantic import ValidationError

from wardround.conf.noise import least_noise
from wardround.conf.phase import phase_of
from wardround.conf.schema import Configuration, StudySection, usage_error
from wardround.privacy.budget import delta_for
from wardround.protocol.errors import UsageError, did_you_mean
from wardround.protocol.parameters import Layout, initial_weights, model_hash
from wardround.protocol.plan import (
    Governance,
    InitialModel,
    Participant,
    PrivacyMode,
    PrivacyTerms,
    StudyPlan,
    TrainedModel,
)
from wardround.protocol.secagg import LARGEST, SMALLEST, honest
from wardround.protocol.weights import weights_of
from wardround.strategies import Robust, Strategy, check_strategy, simulated_from


def make_plan(
    configuration: Configuration,
    declared: Mapping[str, int],
    today: date,
    strategy: Strategy | Robust | None = None,
) -> StudyPlan:
    """The plan for sites with ``declared`` (public, rounded) numbers of training patients.

    ``strategy``: a researcher's own, for a simulation; None: the one that the configuration names.

    Raises:
        UsageError: the plan contradicts itself, names an unknown strategy, or asks for what no noise reaches.
    """
    strategy = strategy or simulated_from(configuration.strategy)
    task = configuration.task
    if task.needs_random_start and configuration.initial.scheme == "zeros":
        raise UsageError(
            "a model with hidden layers never leaves a start at zeros", "write initial.scheme=uniform, or use task=mlp"
        )
    model = _starting(configuration, task.layout(len(configuration.contract.feature_names)))
    section = configuration.study
    if configuration.min_sites > len(declared):
        raise UsageError(
            f"the study needs {configuration.min_sites} sites, and {len(declared)} can take part",
            "bring more sites, or lower min_sites (fewer than 3 only for a pilot)",
        )
    try:
        terms = _terms(configuration, declared)
        plan = StudyPlan(
            study=section.name,
            title=section.title,
            governance=governance_of(section, today),
            contract=configuration.contract,
            task=configuration.task,
            model=model,
            strategy=configuration.strategy,
            local=configuration.local,
            rounds=configuration.rounds,
            min_sites=configuration.min_sites,
            deadline_seconds=configuration.deadline_seconds,
            must_include=tuple(sorted(configuration.must_include)),
            attempts=configuration.attempts,
            fall_back_share=configuration.fall_back_share,
            participants=tuple(
                Participant(site=site, declared_patients=count) for site, count in sorted(declared.items())
            ),
            evaluation=phase_of(configuration, terms.delta, _honest(configuration, len(declared))),
            privacy=terms,
            code_version=version("wardround"),
        )
    except ValidationError as error:
        raise usage_error(error) from None
    check_strategy(plan, strategy)
    return plan


def governance_of(section: StudySection, today: date, until: date = date.min) -> Governance:
    """What a plan that is proposed ``today`` says of its purpose; it is valid until ``until`` at least."""
    return Governance(
        purpose=section.purpose,
        controllers=section.controllers,
        legal_basis=section.legal_basis,
        ethics_reference=section.ethics_reference,
        recipients=section.recipients,
        permitted_use=section.permitted_use,
        proposed_on=today,
        expires_on=max(months_later(today, section.valid_months), until),
    )


def _starting(configuration: Configuration, layout: Layout) -> InitialModel | TrainedModel:
    section = configuration.initial
    if section.file is not None:
        start = weights_of(section.file, layout.tensors, configuration.installed)
        return TrainedModel(seed=section.seed, file=section.file, layout=layout.digest, hash=model_hash(start))
    scheme: Literal["zeros", "uniform"] = "zeros" if section.scheme == "zeros" else "uniform"
    start = initial_weights(layout, scheme, section.seed)
    return InitialModel(scheme=scheme, seed=section.seed, layout=layout.digest, hash=model_hash(start))


def months_later(day: date, months: int) -> date:
    """The same day ``months`` later; the 1st of the month after where that month is too short."""
    years, month = divmod(day.month - 1 + months, 12)
    try:
        return day.replace(year=day.year + years, month=month + 1)
    except ValueError:
        return date(day.year + years, month + 2, 1)


def _terms(configuration: Configuration, declared: Mapping[str, int]) -> PrivacyTerms:
    section = configuration.privacy
    smallest = min(declared, key=lambda site: delta_for(declared[site]))
    delta = section.delta
    if delta == "auto":
        delta = None if section.mode is PrivacyMode.NONE else delta_for(declared[smallest])
    elif delta is not None and delta > delta_for(declared[smallest]):
        raise UsageError(
            f"delta {delta:g} is above that of site '{smallest}', {delta_for(declared[smallest]):g}",
            "a plan names one delta, at most every site's: lower it, or write privacy.delta=auto",
        )
    noise = section.noise_multiplier
    if noise == "auto":
        steps = configuration.local.steps
        noise = least_noise(
            section.mode,
            section.epsilon,
            section.epsilon_consortium,
            delta,
            section.sampling_probability,
            None if steps is None else steps * configuration.rounds,
            _honest(configuration, len(declared)),
        )
    for site in configuration.coordinator_directs:
        if site not in declared:
            raise UsageError(f"'coordinator_directs' names '{site}', which takes no part", did_you_mean(site, declared))
    secure = _secure(configuration, len(declared))
    return PrivacyTerms(
        mode=section.mode,
        secure_aggregation=secure,
        outsiders_only=secure and bool(configuration.coordinator_directs),
        update_range=section.update_range,
        clip_norm=section.clip_norm,
        noise_multiplier=noise,
        sampling_probability=section.sampling_probability,
        delta=delta,
        epsilon=section.epsilon,
        epsilon_consortium=section.epsilon_consortium,
    )


def _honest(configuration: Configuration, sites: int) -> int:
    """h, where secure aggregation is possible; else 1, which nobody counts on."""
    return honest(sites, configuration.min_sites) if SMALLEST <= sites <= LARGEST else 1


def _secure(configuration: Configuration, sites: int) -> bool:
    """Whether the plan asks for secure aggregation; auto: where it can be had and single updates may be noised."""
    possible = SMALLEST <= sites <= LARGEST
    dist = configuration.privacy.mode is PrivacyMode.DIST
    if (dist or configuration.secagg == "on") and not possible:
        raise UsageError(
            f"there is no secure aggregation among {sites} sites",
            f"it needs {SMALLEST} to {LARGEST} of them; write secagg=off or secagg=auto",
        )
    if configuration.secagg == "auto":
        return possible and configuration.privacy.mode is not PrivacyMode.NONE
    return configuration.secagg == "on"
