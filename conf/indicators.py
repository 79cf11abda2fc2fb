"""From the YAML file of a campaign of indicators to the plan that hospitals approve.

A person writes who asks (``study``), which hospitals with how many patients, which indicators over how long, and what
they may cost. What such a plan has no choice in (a tick is a round, every patient is in it, one charge) is filled in.
"""

from datetime import date, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wardround.conf.noise import least_noise
from wardround.conf.planning import governance_of
from wardround.conf.schema import StudySection, usage_error
from wardround.privacy.budget import delta_for
from wardround.protocol.errors import UsageError, did_you_mean
from wardround.protocol.identity import SiteId
from wardround.protocol.indicators import Indicators, alone
from wardround.protocol.parameters import initial_weights, model_hash
from wardround.protocol.plan import (
    InitialModel,
    LocalTraining,
    Participant,
    PrivacyMode,
    PrivacyTerms,
    StrategySpec,
    StudyPlan,
)
from wardround.protocol.secagg import SMALLEST, honest


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Cost(_Section):
    """``mode`` dist: every hospital adds a share of the noise; none: without noise, for a simulation only."""

    mode: Literal["local", "dist", "none"] = "local"
    epsilon: float | None = Field(
        default=None, gt=0, description="of the whole campaign, against everyone: in mode dist of one share alone"
    )
    epsilon_consortium: float | None = Field(
        default=None, gt=0, description="mode dist: against the coordinator and the hospitals that may collude"
    )
    delta: float | None = Field(default=None, gt=0, lt=0.01, description="null: that of the smallest hospital")
    update_range: float = Field(default=16.0, gt=0)


class Away(_Section):
    """A hospital that is offline in ticks ``first`` to ``last``."""

    site: SiteId
    first: int = Field(ge=1)
    last: int = Field(ge=1)


class MadeUp(_Section):
    """The events of a simulation: see ``simulations.made_up_events``."""

    seed: int = 0
    admissions_per_day: float = Field(default=40.0, gt=0, le=10_000, description="of each hospital, on average")
    stay_days: float = Field(default=5.0, gt=0, le=365, description="on average")
    late: float = Field(default=0.05, ge=0, lt=1, description="share of events told up to two days late")
    corrected: float = Field(default=0.02, ge=0, lt=1, description="share of waiting times that are corrected later")
    surge_from: int | None = Field(default=None, ge=1, description="from this tick on there are more admissions")
    surge: float = Field(default=1.5, gt=0, le=100, description="so many times as many")
    away: tuple[Away, ...] = ()


class CampaignFile(_Section):
    """All that a file may say."""

    study: StudySection
    hospitals: dict[SiteId, Annotated[int, Field(ge=50, multiple_of=50)]] = Field(
        min_length=1, description="declared patients, rounded up to the next 50"
    )
    indicators: dict[str, Any]
    privacy: Cost
    secagg: Literal["auto", "on", "off"] = "auto"
    deadline_seconds: float | None = Field(
        default=None,
        gt=0,
        le=3600,
        description="how long a tick waits for a hospital; null: a quarter of it, at most 600",
    )
    attempts: int = Field(default=3, ge=2, le=10, description="at a tick, where on_absence is 'wait'")
    epsilon_cap: float = Field(default=8.0, gt=0, description="lifetime budget of a data domain")
    consortium_cap: float = Field(default=8.0, gt=0, description="mode dist: that of the domain 'consortium'")
    made_up: MadeUp = MadeUp()


def read_campaign(file: Path) -> CampaignFile:
    """What is in ``file``. Raises UsageError: it cannot be read, or the first thing that is wrong in it."""
    try:
        given = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        raise UsageError(f"no file '{file}' of YAML that can be read", "docs/indicators.md shows one") from None
    if not isinstance(given, dict):
        raise UsageError(f"'{file}' holds no settings", "docs/indicators.md shows a file")
    for key in given:
        if key not in CampaignFile.model_fields:
            raise UsageError(
                f"a campaign of indicators has no setting '{key}'", did_you_mean(str(key), CampaignFile.model_fields)
            )
    try:
        return CampaignFile.model_validate(given)
    except ValidationError as error:
        raise usage_error(error) from None


def campaign_plan(given: CampaignFile, today: date) -> StudyPlan:
    """The plan. Raises UsageError where it contradicts itself, or asks for what no noise reaches."""
    hospitals = sorted(given.hospitals.items())
    if given.privacy.mode == "dist" and len(hospitals) < SMALLEST:
        raise UsageError(
            f"privacy mode 'dist' shares noise between {SMALLEST} hospitals at least: {alone(len(hospitals))}",
            "write privacy.mode: local",
        )
    try:
        task = Indicators.model_validate({**given.indicators, "hospitals": len(hospitals)})
        layout, local = task.layout(0), task.on_absence == "local"
        start = initial_weights(layout, "zeros", 0)
        section = given.study
        return StudyPlan(
            study=section.name,
            title=section.title,
            governance=governance_of(section, today, task.clock(task.ticks + 1).date() + timedelta(days=1)),
            contract=None,
            task=task,
            model=InitialModel(scheme="zeros", seed=0, layout=layout.digest, hash=model_hash(start)),
            strategy=StrategySpec(
                name="indicators",
                parameters={
                    "ticks": task.ticks,
                    "indicators": len(task.indicators),
                    "hospitals": len(hospitals),
                },
            ),
            local=LocalTraining(steps=1, learning_rate=1.0),
            rounds=task.ticks,
            min_sites=_least(len(hospitals), local),
            deadline_seconds=given.deadline_seconds or _patience(task),
            attempts=given.attempts if task.on_absence == "wait" else 1,
            participants=tuple(Participant(site=site, declared_patients=count) for site, count in hospitals),
            privacy=_terms(given, local),
            code_version=version("wardround"),
        )
    except ValidationError as error:
        raise usage_error(error) from None


def _patience(task: Indicators) -> float:
    """Seconds that a tick waits for a hospital: never so long that the next one is late, and never too short."""
    return min(600.0, max(10.0, task.lasts.total_seconds() / 4))


def _terms(given: CampaignFile, local: bool) -> PrivacyTerms:
    asked, sites, mode = given.privacy, len(given.hospitals), PrivacyMode(given.privacy.mode)
    possible = sites >= SMALLEST and not local
    auto = mode is PrivacyMode.DIST or (possible and mode is PrivacyMode.LOCAL)
    masked = {"auto": auto, "on": True, "off": False}[given.secagg]
    if mode is PrivacyMode.NONE:
        return PrivacyTerms(mode=mode, secure_aggregation=masked, update_range=asked.update_range)
    needed = ("epsilon", "epsilon_consortium") if mode is PrivacyMode.DIST else ("epsilon",)
    if missing := [name for name in needed if getattr(asked, name) is None]:
        raise UsageError(
            f"privacy mode '{mode}' needs an {missing[0]} for the whole campaign", f"write privacy.{missing[0]}"
        )
    most = min(delta_for(count) for count in given.hospitals.values())
    delta = asked.delta or most
    if delta > most:
        raise UsageError(f"delta {delta:g} is above that of the smallest hospital, {most:g}", "leave delta out")
    shares = honest(sites, _least(sites, local)) if possible else 1
    return PrivacyTerms(
        mode=mode,
        secure_aggregation=masked,
        update_range=asked.update_range,
        clip_norm=1.0,
        noise_multiplier=least_noise(mode, asked.epsilon, asked.epsilon_consortium, delta, 1.0, 1, shares),
        sampling_probability=1.0,
        delta=delta,
        epsilon=asked.epsilon,
        epsilon_consortium=asked.epsilon_consortium,
    )


def _least(sites: int, local: bool) -> int:
    """Hospitals without which a tick has no sum."""
    return 1 if local else min(SMALLEST, sites)
