"""What a simulation found, as data: the schema of ``result.json`` (documented in docs/result.md).

Numbers of single sites are in here because one person plays every site in a simulation. In a federation of hospitals
each site sees its own row only.
"""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from wardround.client.site_result import CurveResult, EstimateResult, ModelResult, SiteResult

__all__ = [
    "CurveResult",
    "Environment",
    "EstimateResult",
    "EvaluationResult",
    "FigureResult",
    "LookResult",
    "MadeUpHospital",
    "MadeUpSplit",
    "ModelResult",
    "PluginResult",
    "PrivacyResult",
    "RoundResult",
    "RoundSiteResult",
    "SimulationResult",
    "SiteResult",
]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RoundSiteResult(_Part):
    """One site in one round."""

    outcome: str
    detail: str = ""
    epsilon_site: float | None = None
    metrics: dict[str, float | None] = Field(default_factory=dict)


class RoundResult(_Part):
    """One round; ``metrics`` are means over the sites where the metric is estimable, of the model after the round."""

    round_number: int
    state: Literal["closed", "void"]
    model_before: str
    model_after: str
    metrics: dict[str, float | None] = Field(default_factory=dict)
    voided_by: tuple[str, ...] = Field(default=(), description="sites through whose loss or silence a round is void")
    warning: str = Field(default="", description="what is odd about the length of the round's sum, if anything")
    sites: dict[str, RoundSiteResult]


class PrivacyResult(_Part):
    """What may be claimed, in full: never an epsilon without delta, unit, adjacency and who may collude."""

    mode: str
    claim: str
    statement: str = Field(description="the claim in one sentence")
    standing: str | None = Field(
        default=None, description="under secure aggregation: who directs the coordinator and the hospitals"
    )
    delta: float | None = None
    epsilon_planned: float | None = Field(default=None, description="cost of the whole plan, before it ran")
    epsilon_limit: float | None = None
    noise_multiplier: float | None = None
    sampling_probability: float | None = None
    clip_norm: float | None = None
    accountant: str = ""
    unit: str = "patient"
    adjacency: str = "add or remove one patient"
    filter_order: int | None = None
    domain_cap: float | None = None
    epsilon_consortium: float | None = Field(
        default=None, description="mode dist: the largest of what was charged, against coordinator and colluding sites"
    )
    colluding_sites: int | None = Field(default=None, description="mode dist: how many sites may collude, at most")
    noise_of_shares: int | None = Field(default=None, description="mode dist: h, shares that every sum holds at least")
    secure_sum_of_at_least: int | None = Field(
        default=None, description="under secure aggregation the fewest hospitals that a sum was opened for"
    )
    domain_share_used: float | None = Field(default=None, description="largest share of a domain's budget used, 0..1")


class FigureResult(_Part):
    """One figure of an evaluation; ``value`` null: not shown, for the reason in ``note``."""

    query: str
    group: tuple[str, ...] = Field(description="by column of the query; 'all': of all groups together")
    quantity: str
    value: float | None
    low: float | None = Field(description="of the interval, which holds sampling and the noise of every hospital")
    high: float | None
    unit: str
    patients: float | None = Field(description="how many are behind it, with noise; null: not shown")
    note: str = ""


class LookResult(_Part):
    """The model after one round of training, scored by every hospital's test patients."""

    after_round: int
    state: Literal["closed", "void"]
    sites: int = Field(description="hospitals in the sum; 0 of a void one")
    figures: tuple[FigureResult, ...]


class EvaluationResult(_Part):
    """The evaluation of the model while it was trained, and what it cost a test patient; who trains is not in it."""

    plan_digest: str = Field(description="of the plan that follows the training, and is charged")
    confidence: float
    statement: str = Field(description="the claim in one sentence")
    delta: float | None
    epsilon: float | None = Field(description="of the hospital that was charged most; unit: one test patient")
    epsilon_limit: float | None
    epsilon_consortium: float | None
    noise_multiplier: float | None
    domain_share_used: float | None = Field(description="largest share of a test domain's budget used, 0..1")
    rounds: tuple[LookResult, ...]


class MadeUpHospital(_Part):
    """One hospital of a made-up split."""

    site: str
    patients: int
    positive_share: float | None = Field(default=None, description="of a label of kind class")
    shift: dict[str, float] = Field(default_factory=dict, description="added to a number column, in units of its scale")
    missing: tuple[str, ...] = Field(default=(), description="the columns that it lacks")


class MadeUpSplit(_Part):
    """How the patients of a study were divided among hospitals that do not exist."""

    seed: int
    label_skew: float | None
    size_skew: float
    feature_shift: float
    missing_columns: float
    left_out: dict[str, int] = Field(default_factory=dict, description="records that the contract left out, by reason")
    hospitals: tuple[MadeUpHospital, ...]


class Environment(_Part):
    """Where and with what the run was made."""

    wardround: str
    python: str
    platform: str
    cpu: str
    threads: int
    packages: dict[str, str]
    seed: int


class PluginResult(_Part):
    """A researcher's own code that was part of the run. ``author`` "": nobody has signed it."""

    part: Literal["task", "strategy"]
    name: str
    version: str
    digest: str
    author: str = ""


class SimulationResult(_Part):
    """Everything that the report shows and ``result.json`` holds."""

    format: Literal["wardround/result/1"] = "wardround/result/1"
    study: str
    title: str
    plan_digest: str
    created: datetime
    seconds_to_first_round: float
    seconds_in_rounds: float
    seconds: float
    cpu_seconds: float = Field(description="processor time of the whole process, all threads together")
    engine: Literal["sites", "vectorised", "flower"] = Field(default="sites", description="what made the rounds")
    engine_why: str = ""
    strategy: str
    task: str
    plugins: tuple[PluginResult, ...] = ()
    headline_metrics: tuple[str, ...] = Field(description="the metrics that tables show, best known first")
    privacy: PrivacyResult
    sites: tuple[SiteResult, ...]
    rounds: tuple[RoundResult, ...]
    evaluation: EvaluationResult | None = Field(default=None, description="null: the plan has no evaluation rounds")
    final_model: str
    data_hashes: dict[str, str]
    split_hashes: dict[str, str]
    made_up: MadeUpSplit | None = Field(default=None, description="null: the hospitals are those of the data")
    attribution: str
    notes: tuple[str, ...] = ()
    deployed: bool = False
    environment: Environment
