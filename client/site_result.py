"""What one hospital finds for itself at the end of a study: its row, as data.

In a federation of hospitals each site sees its own row only; in a simulation one person plays every site and sees all.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EstimateResult(_Part):
    """A metric with its 95 % bootstrap interval; ``value`` null: not estimable, for ``reason``."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""


class CurveResult(_Part):
    """Pictures of one model at one site: ROC points (fpr, tpr); calibration (predicted, observed, patients)."""

    roc: tuple[tuple[float, float], ...] = ()
    calibration: tuple[tuple[float, float, int], ...] = ()


class ModelResult(_Part):
    """One model on one site's test patients."""

    metrics: dict[str, EstimateResult] = Field(default_factory=dict)
    curves: CurveResult = CurveResult()
    reason: str = Field(default="", description="why there is no such model or no such metric, if so")


class BenefitResult(_Part):
    """A model against the site's own by one metric, on the same test patients.

    ``better_by`` is above zero where the model is better, whichever way the metric runs; its interval holds together
    with those of all ``comparisons`` at 95 %.
    """

    model: Literal["shared", "personalised"]
    metric: str
    better_by: EstimateResult
    comparisons: int = Field(description="made together: the interval is that much wider")
    verdict: Literal["helps", "harms", "not shown", "none"] = Field(description="none: see reason")
    reason: str = Field(default="", description="why there is no verdict")


class KeptResult(_Part):
    """The plan's fall-back at a site: the model that it goes on with, chosen on ``held_back`` training patients."""

    model: Literal["own", "shared", "personalised"]
    held_back: int
    because: str


class SiteResult(_Part):
    """One hospital. A site with ``excluded_because`` took no part, and is named all the same."""

    site: str
    train_patients: int
    test_patients: int
    declared_patients: int | None = Field(description="what the plan says in public; null when the site took no part")
    left_out: dict[str, int] = Field(description="records that the contract left out, by reason")
    excluded_because: str = ""
    rounds_in_sum: int = 0
    epsilon_site: float | None = Field(default=None, description="null: no protection in this run, or took no part")
    own: ModelResult = ModelResult()
    shared: ModelResult = ModelResult()
    gain: dict[str, EstimateResult] = Field(
        default_factory=dict, description="shared minus own on the same patients, paired bootstrap"
    )
    personalised: ModelResult | None = Field(
        default=None, description="the model that the site itself would use, where the strategy gives it another"
    )
    personalised_gain: dict[str, EstimateResult] = Field(default_factory=dict, description="personalised minus own")
    benefit: tuple[BenefitResult, ...] = Field(default=(), description="does another model help: one for each model")
    kept: KeptResult | None = Field(default=None, description="the plan's fall-back; null: it has none")
