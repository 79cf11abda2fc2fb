"""*Open a data domain*: a patient population gets its privacy budget for ever, by an officer's signature."""

from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from wardround.client.governance import TRAINING_DOMAIN, open_domain
from wardround.client.signing import request_for
from wardround.console.web.deciding import Fault, Sheet, brought, decided, read_decision, record, sheet_of
from wardround.console.web.guards import Form, Viewer, console, field
from wardround.console.web.i18n import N_, _
from wardround.console.web.page import Page
from wardround.console.web.queries.decide import LedgerTerms, ledger_terms
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face, Role
from wardround.console.web.security import Refused
from wardround.privacy.budget import delta_for
from wardround.protocol.errors import UsageError
from wardround.protocol.ledger import OpenDomain

router = APIRouter()
PATH: Final = "/domains/open"

PAGE: Final = Page(
    face=Face.SITE,
    path=PATH,
    title=N_("Open a data domain"),
    group="decide",
    roles=frozenset({Role.OFFICER}),
    router=router,
    writers=frozenset({Role.OFFICER}),
)

MOST_NAME: Final = 60


@dataclass(frozen=True, slots=True)
class Wish:
    """What was typed: ``cap`` and ``patients`` as text; all empty at first."""

    domain: str = ""
    cap: str = ""
    patients: str = ""


@router.get(PATH)
def form(request: Request, looks: Viewer) -> Response:
    """The page; with what would be signed once the budget is in the address."""
    terms = ledger_terms(console(request).queries)
    return _page(request, terms, _wish(request.query_params), done=request.query_params.get("done", ""))


@router.get(f"{PATH}/request.json")
def request_file(request: Request, looks: Viewer) -> Response:
    """The request, for 'wardround officer sign'."""
    terms = ledger_terms(console(request).queries)
    fact = _fact(terms, _wish(request.query_params))
    text = request_for(None, terms.site, terms.ledger_key, [fact])
    kept = 'attachment; filename="request-domain.json"'
    return Response(text, media_type="application/json", headers={"content-disposition": kept})


@router.post(PATH)
def opened(request: Request, looks: Viewer, form: Form) -> Response:
    """Record the domain that was signed."""
    terms, text, wish = ledger_terms(console(request).queries), field(form, "signed", 500_000), _wish(form)
    try:
        text = brought(form, "signed")
        signed = read_decision(text, terms, None)
        sheet = sheet_of(terms, None, signed.facts)
    except UsageError as error:
        return _page(request, terms, wish, fault=Fault.of(error), signed=text)
    if (fault := decided(request, looks, form, record(signed.facts))) is None:
        return RedirectResponse(f"{PATH}?done=1", 303)
    return _page(request, terms, wish, sheet=sheet, fault=fault, signed=text)


def _wish(given: Any) -> Wish:
    texts = [given.get(name, "") for name in ("domain", "epsilon_cap", "patients")]
    if not all(isinstance(text, str) and len(text) <= MOST_NAME for text in texts):
        raise Refused(400)
    return Wish(*(text.strip() for text in texts))


def _fact(terms: LedgerTerms, wish: Wish) -> OpenDomain:
    """The fact of a wish; of a name alone, where its budget waits to be signed again as it is.

    Raises:
        UsageError: no ledger would take it.
    """
    again = terms.again.get(wish.domain)
    if again is not None and not wish.cap and not wish.patients:
        return again.model_copy(update={"approvals": ()})
    if not wish.domain or not wish.domain.isprintable():
        raise UsageError("the data domain has no name", "name the patient population, for example: training")
    if wish.domain in terms.domains:
        raise UsageError(
            f"the data domain '{wish.domain}' is open already",
            "its delta and cap are fixed for ever; use another name for another patient population",
        )
    try:
        cap = float(wish.cap.replace(",", "."))
        patients = int(wish.patients)
    except ValueError:
        raise UsageError("cap and patients are numbers", "for example: 8, and 1200") from None
    if not (0 < cap < float("inf") and 0 < patients < 10**12):
        raise UsageError("cap and patients are above zero", "for example: 8, and 1200")
    fact = open_domain(wish.domain, cap, delta_for(patients))
    if again is not None and fact != again.model_copy(update={"approvals": ()}):
        raise UsageError(
            f"the data domain '{wish.domain}' was opened with epsilon at most {again.epsilon_cap} and delta "
            f"{again.delta}",
            "these are fixed for ever: sign the same again",
        )
    return fact


def _page(
    request: Request,
    terms: LedgerTerms,
    wish: Wish,
    *,
    sheet: Sheet | None = None,
    fault: Fault | None = None,
    signed: str = "",
    done: str = "",
) -> Response:
    obstacle: UsageError | None = None
    if sheet is None and wish != Wish():
        try:
            sheet = sheet_of(terms, None, [_fact(terms, wish)])
        except UsageError as error:
            obstacle = error
    answer = render(
        request,
        "domains_open.html.j2",
        200 if fault is None else fault.status,
        title=_("Open a data domain"),
        terms=terms,
        wish=wish,
        suggested=TRAINING_DOMAIN,
        sheet=sheet,
        obstacle=obstacle,
        fault=fault,
        signed=signed,
        done=bool(done) and bool(terms.domains),
        answers=console(request).ask().answers,
    )
    if fault is not None and fault.after is not None:
        answer.headers["retry-after"] = str(fault.after)
    return answer
