"""What an officer is asked to sign: the budget of a patient population, and what one plan may spend of it."""

from wardround.privacy.budget import fixed_order
from wardround.protocol.ledger import Grant, OpenDomain
from wardround.protocol.plan import PrivacyMode, StudyPlan

TRAINING_DOMAIN = "training"
"""The data domain of a site's training patients, where a site has not divided them further."""


def budget_for(plan: StudyPlan, epsilon_cap: float, delta: float, domain: str = TRAINING_DOMAIN) -> OpenDomain:
    """A domain with a lifetime budget; for a plan without protection one without, which only a simulation opens."""
    if plan.privacy.mode is PrivacyMode.NONE:
        return OpenDomain(domain=domain, delta=delta, epsilon_cap=None, order=None)
    return open_domain(domain, epsilon_cap, delta)


def open_domain(domain: str, epsilon_cap: float, delta: float) -> OpenDomain:
    """A domain with its fixed order. Raises UsageError where the cap leaves nothing to spend."""
    return OpenDomain(domain=domain, delta=delta, epsilon_cap=epsilon_cap, order=fixed_order(epsilon_cap, delta))


def grant_for(plan: StudyPlan, site: str, domain: str = TRAINING_DOMAIN, attempts: int = 1) -> Grant:
    """Every round of ``plan``, each at most ``attempts`` times."""
    return Grant(domain=domain, plan=plan.digest, event=plan.round_event(site), blocks=plan.rounds * attempts)
