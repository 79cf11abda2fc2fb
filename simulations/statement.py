"""What a study promises, in sentences: every epsilon with its delta, unit, adjacency, and who may collude."""

from wardround.privacy.accounting import rounded_up
from wardround.privacy.shares import who_may_collude
from wardround.protocol.plan import PrivacyMode, StudyPlan

_OUTSIDERS = (
    " One authority directs the coordinator and a hospital: secure aggregation protects against outsiders only, and "
    "nothing else is claimed."
)


def privacy_statement(plan: StudyPlan, epsilon: float | None, consortium: float | None = None) -> str:
    """The claim in one sentence or two; or that there is none."""
    terms = plan.privacy
    if terms.mode is PrivacyMode.NONE or epsilon is None or terms.delta is None:
        return _without_noise(plan)
    if terms.mode is PrivacyMode.DIST and not terms.outsiders_only:
        return _distributed(plan, epsilon, consortium or 0.0)
    promise = (
        f"Each hospital's contribution is ({rounded_up(epsilon)}, {terms.delta:g})-differentially private for any "
        "single patient of that hospital (adding or removing one patient), against everyone: the coordinator, every "
        "other hospital and every reader of the model, whoever colludes."
    )
    if not terms.secure_aggregation:
        return promise
    if terms.outsiders_only:
        return promise + _OUTSIDERS
    return (
        f"{promise} Besides, secure aggregation opened sums over at least {plan.sum_threshold} hospitals only, never "
        "one contribution."
    )


def _without_noise(plan: StudyPlan) -> str:
    if not plan.privacy.secure_aggregation:
        return "No differential privacy: this run is a simulation only, and no hospital would accept its plan."
    return (
        "No differential privacy: the coordinator sees only sums over all "
        f"{len(plan.participants)} hospitals, and nothing bounds what these tell of a patient. A hospital accepts such "
        "a plan only when two of its officers sign the reason."
    )


def _distributed(plan: StudyPlan, epsilon: float, consortium: float) -> str:
    """Both promises of mode dist, each with all its terms."""
    return (
        f"What is opened is ({rounded_up(consortium)}, {plan.privacy.delta:g})-differentially private for any single "
        f"patient of a hospital (adding or removing one patient), against {who_may_collude(plan)}: "
        f"secure aggregation opened sums over at least {plan.sum_threshold} hospitals only, and each adds a share of "
        "the noise. "
        f"Against everyone, whoever colludes, each hospital's contribution is ({rounded_up(epsilon)}, "
        f"{plan.privacy.delta:g})-differentially private by its own share alone."
    )
