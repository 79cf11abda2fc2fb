"""What an officer signs on a machine of her own: a request that a site writes, and the signed facts that come back.

The request is text that can be carried by hand. It is not believed: the plan's digest is computed from its bytes, and
every fact in it must follow from that plan, that site and the standing that the request names; whatever else it asks
for is refused. The site's ledger checks the signatures again, and whether the facts may come next.

Where two officers must sign, the first one's signature goes back as the same request with her approval in it, half
signed; the second officer reads it in the same words.
"""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from wardround.client.governance import charge_for
from wardround.privacy.approvals import EYES_TO_WAIVE
from wardround.privacy.budget import fixed_order
from wardround.protocol.canonical import encode
from wardround.protocol.errors import UsageError
from wardround.protocol.identity import Identity, PublicIdentity, SiteId
from wardround.protocol.ledger import Grant, Hex32, OpenDomain, Waive, approval_message, approve
from wardround.protocol.plan import PrivacyMode, StudyPlan

MOST_BYTES: Final = 4 << 20

SignedFact = Annotated[Grant | Waive | OpenDomain, Field(discriminator="kind")]


class _Text(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SigningRequest(_Text):
    """What a site asks its officer to sign about one plan, or about data domains, which belong to none.

    ``ledger``: what a signature is bound to, the ledger's public key. ``facts`` carry the approvals of officers who
    have signed already: of all facts, or of none.
    """

    format: Literal["wardround/signing-request/1"] = "wardround/signing-request/1"
    site: SiteId
    ledger: Hex32
    plan: dict[str, Any] | None
    facts: tuple[SignedFact, ...] = Field(min_length=1, max_length=64)


class SignedFacts(_Text):
    """The facts of a request with the approvals of officers."""

    format: Literal["wardround/signed-facts/1"] = "wardround/signed-facts/1"
    site: SiteId
    ledger: Hex32
    plan: Hex32 | None
    facts: tuple[SignedFact, ...] = Field(min_length=1, max_length=64)


_EITHER: Final = TypeAdapter[Any](Annotated[SignedFacts | SigningRequest, Field(discriminator="format")])


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


def request_for(plan: StudyPlan | None, site: str, ledger: str, facts: Sequence[SignedFact]) -> str:
    """The text of a request."""
    content = None if plan is None else json.loads(plan.canonical)
    return _text(SigningRequest(site=site, ledger=ledger, plan=content, facts=tuple(facts)))


def read_request(text: str) -> tuple[SigningRequest, StudyPlan | None]:
    """The request in ``text`` and the plan that it is about, whose digest is computed here.

    Raises:
        UsageError: it is no request, asks for what does not follow from its plan, or carries a signature that is none.
    """
    request: SigningRequest = _read(TypeAdapter(SigningRequest), text, "request to sign")
    plan = None
    if request.plan is not None:
        try:
            plan = StudyPlan.parse(encode(request.plan))
        except (ValueError, TypeError):
            raise UsageError("the request holds no plan of this version", "use the same version as the site") from None
    check_follows(request.facts, plan, request.site)
    signers(request.facts, request.ledger)
    return request, plan


def check_follows(facts: Sequence[SignedFact], plan: StudyPlan | None, site: str) -> None:
    """Raise UsageError for a fact that says anything but what ``plan`` asks of ``site`` (None: opens a data domain)."""
    if plan is not None and site not in {participant.site for participant in plan.participants}:
        raise UsageError(f"the plan does not name site '{site}'", "do not sign; ask the site's IT")
    for fact in facts:
        if (fault := _domain_fault(fact) if plan is None else _fault(fact, plan, site)) is not None:
            raise UsageError(f"the request asks for more than its plan: {fault}", "do not sign; ask the site's IT")


def signers(facts: Sequence[SignedFact], ledger: str) -> dict[str, str]:
    """Officers who have signed all of ``facts`` for ``ledger``: name -> key, which nobody has compared yet.

    Raises:
        UsageError: a signature is not its key's, or not everybody has signed every fact once.
    """
    found: list[dict[str, str]] = []
    for fact in facts:
        message = approval_message(ledger, fact)
        for one in fact.approvals:
            if not PublicIdentity(one.officer, bytes.fromhex(one.key)).verifies(bytes.fromhex(one.signature), message):
                raise UsageError(f"a signature of officer '{one.officer}' is not hers", "begin with a new request")
        found.append({one.officer: one.key for one in fact.approvals})
        if len(set(found[-1].values())) != len(fact.approvals):
            raise UsageError("an officer has signed a fact twice", "begin with a new request")
    if any(one != found[0] for one in found):
        raise UsageError("the facts are not all signed by the same officers", "begin with a new request")
    return found[0]


def missing(facts: Sequence[SignedFact]) -> int:
    """How many officers must still sign ``facts`` before the ledger takes them."""
    needed = EYES_TO_WAIVE if any(isinstance(fact, Waive) for fact in facts) else 1
    return max(0, needed - min(len(fact.approvals) for fact in facts))


def _fault(fact: SignedFact, plan: StudyPlan, site: str) -> str | None:
    if isinstance(fact, OpenDomain):
        return "a data domain belongs to no plan"
    if fact.plan != plan.digest:
        return "a fact is about another plan"
    if isinstance(fact, Waive):
        return None if plan.privacy.mode is PrivacyMode.NONE else "a waiver of a plan that has differential privacy"
    if fact.event != charge_for(plan, site, fact.domain):
        return f"a grant on '{fact.domain}' lets a round do what the plan does not say"
    if fact.blocks % plan.charges or fact.blocks > plan.charges * plan.attempts:
        return f"a grant on '{fact.domain}' is for more rounds than the plan tries"
    return None


def _domain_fault(fact: SignedFact) -> str | None:
    if not isinstance(fact, OpenDomain):
        return "a fact is about a plan, and there is none"
    if fact.epsilon_cap is None or fact.order != fixed_order(fact.epsilon_cap, fact.delta):
        return f"the budget of '{fact.domain}' is not the one of its cap and delta"
    return None


def sign(request: SigningRequest, plan: StudyPlan | None, officers: Sequence[Identity]) -> str:
    """The text that goes on: to the site, signed; or half signed, to the officer who must still sign.

    Raises:
        UsageError: an officer has signed already.
    """
    known = signers(request.facts, request.ledger)
    facts: list[Any] = list(request.facts)
    for officer in officers:
        if officer.site in known or officer.public.key.hex() in known.values():
            raise UsageError(f"officer '{officer.site}' has signed this already", "another officer signs now")
        known[officer.site] = officer.public.key.hex()
        facts = [approve(fact, request.ledger, officer) for fact in facts]
    if missing(facts):
        return _text(request.model_copy(update={"facts": tuple(facts)}))
    digest = None if plan is None else plan.digest
    return _text(SignedFacts(site=request.site, ledger=request.ledger, plan=digest, facts=tuple(facts)))


def read_signed(text: str, site: str, ledger: str) -> SignedFacts:
    """The signed facts in ``text``, for this site and ledger. Raises UsageError for another one's, or none."""
    found: SignedFacts | SigningRequest = _read(_EITHER, text, "signed facts")
    if isinstance(found, SigningRequest):
        raise UsageError(
            "this is a request that still lacks a signature", "an officer signs it: wardround officer sign"
        )
    if (found.site, found.ledger) != (site, ledger):
        raise UsageError("these facts were signed for another site's ledger", "sign this site's own request")
    if not all(fact.approvals for fact in found.facts):
        raise UsageError("a fact is not signed", "wardround officer sign makes them")
    return found


def _text(made: _Text) -> str:
    return json.dumps(made.model_dump(mode="json"), indent=2, ensure_ascii=True) + "\n"


def _read(adapter: TypeAdapter[Any], text: str, what: str) -> Any:
    if len(text) > MOST_BYTES:
        raise UsageError(f"this is no {what}: it is too large", "paste the whole text of the file, and nothing else")
    try:
        return adapter.validate_json(text)
    except ValidationError:
        raise UsageError(f"this is no {what}", "paste the whole text of the file, and nothing else") from None
