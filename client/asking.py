"""What an officer may be asked to sign about a plan: the same rules for the command line and for the console."""

from collections.abc import Sequence
from typing import Any, Final, Protocol

from wardround.client.governance import CONSORTIUM_DOMAIN
from wardround.client.limits import WHO_MENDS
from wardround.client.population import usual_domains
from wardround.client.signing import SignedFact, approval_facts
from wardround.protocol.errors import UsageError
from wardround.protocol.ledger import Waive
from wardround.protocol.plan import PrivacyMode, StudyPlan

LEAST_REASON: Final = 10
"""Letters of the reason for a plan without differential privacy; the ledger asks for as many."""


class Here(Protocol):
    """How a plan stands at the site: what the daemon answers to ``ShowStudy``, or the same from the ledger.

    ``domains``: those that have a budget and are not closed.
    """

    @property
    def fault(self) -> str: ...
    @property
    def grants(self) -> Sequence[Any]: ...
    @property
    def domains(self) -> Sequence[str]: ...
    @property
    def waived(self) -> Sequence[str]: ...


def domains_for(plan: StudyPlan, domain: str) -> list[str]:
    """The data domains that a grant on ``domain``, that of who trains, is needed for.

    Those of all patients whom the plan reads, and in mode dist the consortium's curve too.
    """
    return [*usual_domains(plan.task, domain), *([CONSORTIUM_DOMAIN] if plan.privacy.mode is PrivacyMode.DIST else [])]


def to_approve(
    plan: StudyPlan, here: Here, site: str, domain: str, attempts: int, reason: str | None
) -> tuple[SignedFact, ...]:
    """What approves ``plan``: a grant on each domain, and a waiver where there is no differential privacy.

    Raises:
        UsageError: the plan cannot run here, a domain has no budget, or a reason is missing.
    """
    if attempts < 1:
        raise UsageError("a round is charged at least once", "revoking takes an approval back")
    if here.fault:
        raise UsageError(
            f"this plan cannot run here: {here.fault}",
            WHO_MENDS,
        )
    domains = domains_for(plan, domain)
    for name in domains:
        if name not in here.domains:
            raise UsageError(
                f"the data domain '{name}' has no budget, or is closed",
                f"an officer opens it first: wardround site domain open FOLDER {name}; a closed one stays closed",
            )
    why = None
    if plan.privacy.mode is PrivacyMode.NONE and any(name not in here.waived for name in domains):
        why = " ".join((reason or "").split())
        if len(why) < LEAST_REASON:
            raise UsageError(
                "a plan without differential privacy needs two officers and a written reason",
                f"two officers sign it; the reason has at least {LEAST_REASON} letters",
            )
    return _unwaived(approval_facts(plan, site, domains, plan.charges * attempts, versions_of(here), why), here)


def to_revoke(plan: StudyPlan, here: Here, site: str) -> tuple[SignedFact, ...]:
    """What takes every grant of ``plan`` back, on the domains that are not closed: a ledger takes no grant on others.

    Raises:
        UsageError: there is none.
    """
    if not here.grants:
        raise UsageError("this plan was never approved here", "refusing it says no to it")
    domains = [grant.domain for grant in here.grants if grant.domain in here.domains]
    if not domains:
        raise UsageError(
            "this plan is over: every data domain that it was approved on is closed, so no round of it can begin",
            "nothing is left to revoke; pausing the site stops a round that began before",
        )
    return approval_facts(plan, site, domains, 0, versions_of(here))


def versions_of(here: Here) -> dict[str, int]:
    """Version of the grant that stands, by domain."""
    return {grant.domain: grant.version for grant in here.grants}


def _unwaived(facts: Sequence[SignedFact], here: Here) -> tuple[SignedFact, ...]:
    """Without waivers that stand: the ledger takes each once."""
    return tuple(fact for fact in facts if not isinstance(fact, Waive) or fact.domain not in here.waived)
