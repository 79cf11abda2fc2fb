"""How a decision is taken: what would be signed as a page shows it, the signed facts that come back, and the code.

A decision is made in one place only: ``decided`` takes a code of the second factor and makes one call to the daemon. It
looks first whether the daemon answers, so that no code is spent on nothing.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from markupsafe import Markup
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from wardround.client.control import control_pb2 as pb
from wardround.client.control.client import SECONDS, control
from wardround.client.governance import CONSORTIUM_DOMAIN
from wardround.client.signing import (
    SignedFact,
    SignedFacts,
    check_follows,
    missing,
    read_signed,
    request_for,
    signers,
)
from wardround.client.store.keys import fingerprint
from wardround.console.web.accounts import Locked
from wardround.console.web.guards import console, field
from wardround.console.web.i18n import _
from wardround.console.web.queries.decide import LedgerTerms
from wardround.console.web.sessions import Session
from wardround.privacy.accounting import epsilon
from wardround.privacy.books import repeated
from wardround.protocol.errors import Unavailable, UsageError, WardroundError
from wardround.protocol.events import DpEvent, PoissonGaussian
from wardround.protocol.indicators import Indicators
from wardround.protocol.ledger import Grant, OpenDomain
from wardround.protocol.plan import StudyPlan

MOST_TEXT: Final = 500_000
"""Characters of a request or of signed facts."""

_STATUS_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Fault:
    """Why nothing was decided: ``what`` happened and what to do ``then``; ``after``: seconds to wait."""

    status: int
    what: str
    then: str = ""
    after: int | None = None

    @classmethod
    def of(cls, error: WardroundError) -> "Fault":
        return cls(503 if isinstance(error, Unavailable) else 409, error.message, error.hint)


@dataclass(frozen=True, slots=True)
class Asked:
    """One fact as a page shows it. ``kind``: grant, revoke, waive or open_domain; ``epsilon``: of all that it allows.

    ``campaign``: it allows no rounds, but a campaign of indicators as a whole.
    """

    kind: str
    fact: Any
    epsilon: float | None = None
    consortium: bool = False
    campaign: bool = False

    @property
    def cap(self) -> str:
        """The cap of a data domain, in full and for every language alike: the script compares it."""
        return _in_full(self.fact.epsilon_cap)

    @property
    def delta(self) -> str:
        return _in_full(self.fact.delta)


@dataclass(frozen=True, slots=True)
class Sheet:
    """What an officer would sign: ``request`` is what ``wardround officer sign`` reads, for a machine of her own.

    ``signed``: fingerprint of the key by name of who has signed already; ``missing``: how many must still sign.
    """

    asked: tuple[Asked, ...]
    request: str
    site: str
    digest: str
    delta: float | None
    ledger: str
    signed: Mapping[str, str]
    missing: int

    @property
    def data(self) -> Markup:
        """The request inside a page's element of JSON, which no text in it can end."""
        return Markup(json.dumps(json.loads(self.request), separators=(",", ":")).replace("<", "\\u003c"))


def sheet_of(terms: LedgerTerms, plan: StudyPlan | None, facts: Sequence[SignedFact]) -> Sheet:
    """The sheet for ``facts``. Raises UsageError where a signature under them is none."""
    delta = None if plan is None else plan.privacy.delta
    return Sheet(
        tuple(_asked(fact, delta, plan) for fact in facts),
        request_for(plan, terms.site, terms.ledger_key, facts),
        terms.site,
        "" if plan is None else plan.digest,
        delta,
        fingerprint(bytes.fromhex(terms.ledger_key)),
        {name: fingerprint(bytes.fromhex(key)) for name, key in signed_by(facts, terms).items()},
        missing(facts),
    )


def signed_by(facts: Sequence[SignedFact], terms: LedgerTerms) -> dict[str, str]:
    """Name -> key of the officers under ``facts``. Raises UsageError for one whom this ledger does not name."""
    found = signers(facts, terms.ledger_key)
    for name, key in found.items():
        if (why := terms.suspended.get(key)) is not None:
            raise UsageError(
                f"this was signed with a key of '{name}' that was suspended ({why}), and such a key approves nothing",
                f"sign with a key that stands; now these may sign: {', '.join(sorted(terms.officers)) or 'nobody'}",
            )
        if terms.officers.get(name) != key:
            raise UsageError(
                f"'{name}' with this key is no officer of this site",
                f"the ledger names {', '.join(sorted(terms.officers))}: sign with the key that belongs to one of them",
            )
    return found


def brought(form: FormData, name: str) -> str:
    """The text that was pasted into the field ``name``, or else the content of the file ``name_file``.

    Raises:
        UsageError: there is neither, or the file is no text.
    """
    if text := field(form, name, MOST_TEXT):
        return text
    file = form.get(f"{name}_file")
    content = file.file.read(MOST_TEXT + 1) if isinstance(file, UploadFile) else b""
    try:
        text = content.decode() if len(content) <= MOST_TEXT else ""
    except UnicodeDecodeError:
        text = ""
    if not text.strip():
        raise UsageError("there is nothing to read", "paste the text of the file, or choose the file")
    return text


def read_decision(text: str, terms: LedgerTerms, plan: StudyPlan | None) -> SignedFacts:
    """The signed facts in ``text``, if they are for this ledger, about this plan, and signed by its officers.

    Raises:
        UsageError: they are not. The ledger checks all of it again.
    """
    found = read_signed(text, terms.site, terms.ledger_key)
    if found.plan != (None if plan is None else plan.digest):
        raise UsageError("these facts were signed about another plan", "sign what this page asks for")
    check_follows(found.facts, plan, terms.site)
    signed_by(found.facts, terms)
    return found


def decided(request: Request, looks: Session, form: FormData, call: Callable[[Any], object]) -> Fault | None:
    """Take the code of ``form`` and let ``call`` ask the daemon; None: it is done.

    Args:
        call: gets the daemon's stub.
    """
    try:
        with control(console(request).path) as site:
            site.Status(pb.StatusRequest(), timeout=_STATUS_SECONDS)
            if (fault := _code_fault(request, looks, form)) is not None:
                return fault
            call(site)
    except WardroundError as error:
        return Fault.of(error)
    return None


def record(facts: Sequence[SignedFact]) -> Callable[[Any], object]:
    """The call that brings signed facts to the daemon."""
    contents = [fact.model_dump_json().encode() for fact in facts]
    return lambda site: site.Record(pb.RecordRequest(facts=contents), timeout=SECONDS)


def _code_fault(request: Request, looks: Session, form: FormData) -> Fault | None:
    answer = console(request).accounts.check_code(looks.account, field(form, "code", 40))
    if isinstance(answer, Locked):
        return Fault(429, _("Too many wrong attempts. Wait some minutes, then try again."), after=answer.seconds)
    if answer is None:
        return Fault(403, _("The code is wrong, or it was used before. Wait for the next one."))
    return None


def _asked(fact: SignedFact, delta: float | None, plan: StudyPlan | None) -> Asked:
    if isinstance(fact, OpenDomain):
        return Asked("open_domain", fact, consortium=fact.domain == CONSORTIUM_DOMAIN)
    if not isinstance(fact, Grant):
        return Asked("waive", fact)
    campaign = plan is not None and isinstance(plan.task, Indicators)
    if fact.blocks == 0:
        return Asked("revoke", fact, campaign=campaign)
    cost = None if delta is None else _cost(fact.event, fact.blocks, delta)
    return Asked("grant", fact, cost, fact.domain == CONSORTIUM_DOMAIN, campaign)


def _in_full(value: float) -> str:
    return f"{Decimal(repr(value)).normalize():f}"


@lru_cache(maxsize=256)
def _cost(event: DpEvent, rounds: int, delta: float) -> float | None:
    """The epsilon of all rounds together, as ``wardround site study approve`` shows it; None: there is none to show."""
    if not isinstance(event, PoissonGaussian):
        return None
    try:
        return epsilon(repeated([(event, rounds)]), delta)
    except ArithmeticError:
        return None
