"""``policy.yaml``: limits that no plan may exceed here, whoever approved it. Only the site's own people write it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wardround.client.settings import fault_in
from wardround.client.store.folder import SiteFolder
from wardround.client.yaml_text import load_yaml
from wardround.privacy.promises import broken_promise
from wardround.protocol.behaviour import behaviour
from wardround.protocol.errors import UsageError
from wardround.protocol.indicators import Indicators
from wardround.protocol.plan import Claim, PrivacyMode, StudyPlan

POLICY: Final = "policy.yaml"

WHO_MENDS: Final = (
    "only another plan of the researcher says or costs something else; IT writes policy.yaml and installs weights "
    "(wardround site weights) and plugins (wardround site plugin)"
)
"""The hint to what ``unfit_here`` says."""


class SitePolicy(BaseModel):
    """The limits. Without a file they are the ones below, which are the strictest that a usual study meets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epsilon_at_most: float = Field(default=8.0, gt=0, description="epsilon_site of one study")
    delta_at_most: float = Field(default=1e-3, gt=0, lt=0.01)
    rounds_at_most: int = Field(default=1000, ge=1)
    secure_aggregation_from: int = Field(default=3, ge=3, description="sites from which a plan must use it")
    allow_mask_only: bool = Field(default=False, description="plans without differential privacy, masked sums only")
    allow_unprotected: bool = Field(default=False, description="public or synthetic data only: no protection at all")
    tasks: tuple[str, ...] | None = Field(default=None, description="tasks that may run; null: every one")
    columns: tuple[str, ...] | None = Field(default=None, description="columns that a plan may read; null: every one")
    allow_rehearsals: bool = Field(default=False, description="campaigns whose ticks pass in seconds: made-up events")
    attempts_at_most: int = Field(default=5, ge=1, le=10)


def read_policy(folder: Path) -> SitePolicy:
    """The policy in ``folder``. Raises UsageError that names the first wrong key."""
    path = folder / POLICY
    try:
        given = load_yaml(path.read_text(encoding="utf-8")) if path.exists() else {}
        return SitePolicy.model_validate(given or {})
    except (yaml.YAMLError, UnicodeDecodeError, OSError):
        raise UsageError(f"'{POLICY}' of the site cannot be read as YAML", "docs/site.md shows one") from None
    except ValidationError as error:
        raise fault_in(POLICY, error) from None


def unfit_here(plan: StudyPlan, folder: SiteFolder) -> str | None:
    """Why ``plan`` may not run at this site, or None.

    What the policy says, whether the plan costs what it claims, and whether its weights and its plugin are installed.
    No policy lets a plan run that costs more than it says: its officers would sign for an epsilon that is not kept.
    """
    if (fault := exceeds(plan, read_policy(folder.path), folder.site)) is not None:
        return fault
    if (fault := broken_promise(plan)) is not None:
        return fault
    missing = next((file for file in plan.weights_files if not folder.weights.has(file)), None)
    if missing is not None:
        return f"its weights file {missing.sha256} is not installed here"
    return folder.plugins.fault(plan)


def exceeds(plan: StudyPlan, policy: SitePolicy, site: str) -> str | None:
    """Why ``plan`` may not run here, or None. Looks at the plan and at no patient."""
    terms = plan.privacy
    if plan.behaviour != behaviour():
        return f"the plan was written for behaviour {plan.behaviour[:12]}, and {behaviour()[:12]} is installed here"
    if site not in {participant.site for participant in plan.participants}:
        return f"the plan does not name site '{site}'"
    campaign = plan.task if isinstance(plan.task, Indicators) else None
    if campaign is None and (plan.contract is None or plan.contract.patient_id is None):
        return "the plan does not say which column names the patient, so nobody could opt out or be kept apart"
    if terms.claim is Claim.SIMULATION_ONLY and not policy.allow_unprotected:
        return "the plan has no protection at all, which this site's policy does not allow"
    if terms.claim is Claim.MASK_ONLY and not policy.allow_mask_only:
        return "the plan has no differential privacy, which this site's policy does not allow"
    if terms.mode is not PrivacyMode.NONE:
        if terms.epsilon is not None and terms.epsilon > policy.epsilon_at_most:
            return (
                f"the plan may cost epsilon {terms.epsilon:g}, and the site's policy ends at {policy.epsilon_at_most:g}"
            )
        if terms.delta is not None and terms.delta > policy.delta_at_most:
            return f"the plan's delta {terms.delta:g} is above the site's {policy.delta_at_most:g}"
        many = len(plan.participants) >= policy.secure_aggregation_from
        if many and not terms.secure_aggregation:
            return f"the plan has {len(plan.participants)} sites and no secure aggregation, which the policy asks for"
    if campaign is not None and campaign.rehearsal_seconds is not None and not policy.allow_rehearsals:
        return "the plan is a rehearsal, whose days pass in seconds; this site's policy does not allow one"
    if campaign is None and plan.rounds > policy.rounds_at_most:
        return f"the plan has {plan.rounds} rounds, and the site's policy ends at {policy.rounds_at_most}"
    if plan.attempts > policy.attempts_at_most:
        return f"the plan tries a round {plan.attempts} times, and the site's policy ends at {policy.attempts_at_most}"
    if policy.tasks is not None and plan.task.name not in policy.tasks:
        return f"the task '{plan.task.name}' is not on the site's list"
    if policy.columns is not None:
        unknown = sorted(set(_read(plan)) - set(policy.columns))
        if unknown:
            return f"the plan reads the column '{unknown[0]}', which is not on the site's list"
    return None


def _read(plan: StudyPlan) -> Sequence[str]:
    """The columns that ``plan`` reads: of a campaign of indicators the kinds of events."""
    if isinstance(plan.task, Indicators):
        return plan.task.kinds
    return plan.contract_or_fail.column_names
