"""What an officer is asked to sign: the budget of a patient population, and what one plan may spend of it."""

from wardround.privacy.budget import fixed_order
from wardround.protocol.events import DpEvent
from wardround.protocol.ledger import Grant, OpenDomain
from wardround.protocol.plan import PrivacyMode, StudyPlan

TRAINING_DOMAIN = "training"
"""The data domain of a site's training patients, where a site has not divided them further."""

TEST_DOMAIN = "test"
"""The data domain of a site's test patients, where a site has not divided them further."""

CONSORTIUM_DOMAIN = "consortium"
"""The same patients as the coordinator and the sites that may collude see them: a second curve with a cap of its own.

It holds everything that is released: rounds of mode dist with the noise of h shares, all others with their own.
"""


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
    return Grant(domain=domain, plan=plan.digest, event=charge_for(plan, site, domain), blocks=plan.charges * attempts)


def charge_for(plan: StudyPlan, site: str, domain: str) -> DpEvent:
    """What one round of ``plan`` is on ``domain``."""
    return plan.consortium_event(site) if domain == CONSORTIUM_DOMAIN else plan.round_event(site)
