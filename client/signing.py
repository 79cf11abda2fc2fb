"""What an officer signs on a machine of her own: a request that a site writes, and the signed facts that come back.

The request is text that can be carried by hand. It is not believed: the plan's digest is computed from its bytes, and
every fact in it must follow from that plan, that site and the standing that the request names; whatever else it asks
for is refused. The site's ledger checks the signatures again, and whether the facts may come next.
"""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from wardround.client.governance import charge_for
from wardround.protocol.canonical import encode
from wardround.protocol.errors import UsageError
from wardround.protocol.identity import Identity, SiteId
from wardround.protocol.ledger import Grant, Hex32, Waive, approve
from wardround.protocol.plan import PrivacyMode, StudyPlan

MOST_BYTES: Final = 4 << 20

SignedFact = Annotated[Grant | Waive, Field(discriminator="kind")]


class _Text(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SigningRequest(_Text):
    """What a site asks its officer to sign about one plan.

    ``ledger``: what a signature is bound to, the ledger's public key. ``facts`` are without approvals.
    """

    format: Literal["wardround/signing-request/1"] = "wardround/signing-request/1"
    site: SiteId
    ledger: Hex32
    plan: dict[str, Any]
    facts: tuple[SignedFact, ...] = Field(min_length=1, max_length=64)


class SignedFacts(_Text):
    """The facts of a request with the approvals of officers."""

    format: Literal["wardround/signed-facts/1"] = "wardround/signed-facts/1"
    site: SiteId
    ledger: Hex32
    plan: Hex32
    facts: tuple[SignedFact, ...] = Field(min_length=1, max_length=64)


def approval_facts(
    plan: StudyPlan, site: str, domains: Sequence[str], blocks: int, versions: dict[str, int], waived: str | None = None
) -> tuple[SignedFact, ...]:
    """What approves ``plan`` (``blocks`` rounds on each domain) or revokes it (0).

    Args:
        versions: of the grants that stand, by domain; the new one is the next.
        waived: the written reason, for a plan without differential privacy whose waiver does not stand yet.
    """
    waivers = [Waive(domain=name, plan=plan.digest, reason=waived) for name in domains if waived is not None]
    grants = [
        Grant(
            domain=name,
            plan=plan.digest,
            version=versions.get(name, 0) + 1,
            event=charge_for(plan, site, name),
            blocks=blocks,
        )
        for name in domains
    ]
    return (*waivers, *grants)


def request_for(plan: StudyPlan, site: str, ledger: str, facts: Sequence[SignedFact]) -> str:
    """The text of a request."""
    content = json.loads(plan.canonical)
    made = SigningRequest(site=site, ledger=ledger, plan=content, facts=tuple(facts))
    return json.dumps(made.model_dump(mode="json"), indent=2, ensure_ascii=True) + "\n"


def read_request(text: str) -> tuple[SigningRequest, StudyPlan]:
    """The request in ``text`` and the plan that it is about, whose digest is computed here.

    Raises:
        UsageError: it is no request, or asks for what does not follow from its plan.
    """
    request: SigningRequest = _read(TypeAdapter(SigningRequest), text, "request to sign")
    try:
        plan = StudyPlan.parse(encode(request.plan))
    except (ValueError, TypeError):
        raise UsageError("the request holds no plan of this version", "use the same version as the site") from None
    if request.site not in {participant.site for participant in plan.participants}:
        raise UsageError(f"the plan does not name site '{request.site}'", "do not sign; ask the site's IT")
    for fact in request.facts:
        if (fault := _fault(fact, plan, request.site)) is not None:
            raise UsageError(f"the request asks for more than its plan: {fault}", "do not sign; ask the site's IT")
    return request, plan


def _fault(fact: SignedFact, plan: StudyPlan, site: str) -> str | None:
    if fact.approvals:
        return "a fact comes with approvals of others"
    if fact.plan != plan.digest:
        return "a fact is about another plan"
    if isinstance(fact, Waive):
        return None if plan.privacy.mode is PrivacyMode.NONE else "a waiver of a plan that has differential privacy"
    if fact.event != charge_for(plan, site, fact.domain):
        return f"a grant on '{fact.domain}' lets a round do what the plan does not say"
    if fact.blocks % plan.rounds or fact.blocks > plan.rounds * plan.attempts:
        return f"a grant on '{fact.domain}' is for more rounds than the plan tries"
    return None


def sign(request: SigningRequest, plan: StudyPlan, officers: Sequence[Identity]) -> str:
    """The text that goes back to the site: every fact with the approval of each officer."""
    facts: list[Any] = []
    for fact in request.facts:
        signed: Any = fact
        for officer in officers:
            signed = approve(signed, request.ledger, officer)
        facts.append(signed)
    made = SignedFacts(site=request.site, ledger=request.ledger, plan=plan.digest, facts=tuple(facts))
    return json.dumps(made.model_dump(mode="json"), indent=2, ensure_ascii=True) + "\n"


def read_signed(text: str, site: str, ledger: str) -> SignedFacts:
    """The signed facts in ``text``, for this site and ledger. Raises UsageError for another one's, or none."""
    found: SignedFacts = _read(TypeAdapter(SignedFacts), text, "signed facts")
    if (found.site, found.ledger) != (site, ledger):
        raise UsageError("these facts were signed for another site's ledger", "sign this site's own request")
    if not all(fact.approvals for fact in found.facts):
        raise UsageError("a fact is not signed", "wardround officer sign makes them")
    return found


def _read(adapter: TypeAdapter[Any], text: str, what: str) -> Any:
    if len(text) > MOST_BYTES:
        raise UsageError(f"this is no {what}: it is too large", "paste the whole text of the file, and nothing else")
    try:
        return adapter.validate_json(text)
    except ValidationError:
        raise UsageError(f"this is no {what}", "paste the whole text of the file, and nothing else") from None
