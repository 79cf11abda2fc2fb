"""*Account*: one's own password, sessions, and what happened to the account. For every role of both consoles."""

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from wardround.console.web.accounts import LEAST_PASSWORD, Account, Accounts, Event, Locked
from wardround.console.web.attempts import attempt, remember
from wardround.console.web.guards import Form, Viewer, console, field, secret_field
from wardround.console.web.i18n import N_, _, ngettext, number, said_again
from wardround.console.web.page import Page
from wardround.console.web.pages.login import begin, too_many, wait
from wardround.console.web.rendering import render
from wardround.console.web.roles import ROLES, Face
from wardround.console.web.sessions import Sessions
from wardround.protocol.errors import UsageError

router = APIRouter()

PATH: Final = "/account"
SITE_PAGE, HUB_PAGE = (
    Page(
        face=face,
        path=PATH,
        title=N_("Account"),
        group="",
        roles=frozenset(ROLES[face]),
        router=router,
        writers=frozenset(ROLES[face]),
        own_account=True,
    )
    for face in (Face.SITE, Face.COORDINATOR)
)
"""In no group of the navigation: the account's name leads here."""

MOST_SHOWN: Final = 20

EVENTS: Final = {
    "login": ("good", N_("Logged in")),
    "wrong password": ("warning", N_("A wrong password")),
    "wrong code": ("warning", N_("A wrong code")),
    "password changed": ("note", N_("Password changed")),
    "disabled": ("alert", N_("Account disabled")),
    "reset": ("alert", N_("Second factor made anew")),
}


@router.get(PATH)
def account(request: Request, looks: Viewer) -> Response:
    """The page."""
    done = request.query_params.get("done")
    said = {
        "password": _("The password is changed. Every other session of this account has ended."),
        "sessions": _("The other sessions of this account have ended."),
    }
    return _page(request, looks, done=said.get(done or "", ""))


@router.post(PATH)
def change(request: Request, form: Form, looks: Viewer) -> Response:
    """A new password, for the old one and a code."""
    old, new, again = (secret_field(form, name) for name in ("old", "new", "again"))
    code, accounts = field(form, "code", 40), _accounts(request)
    if new != again:
        return _page(request, looks, 400, _("The two new passwords are not the same. Nothing was changed."))
    try:
        answer = attempt(
            request, looks.account, lambda browser: accounts.change_password(looks.account, old, code, new, browser)
        )
    except UsageError as error:
        fault = _("%(fault)s: %(hint)s. Nothing was changed.") % {
            "fault": _capital(said_again(error.message)),
            "hint": said_again(error.hint),
        }
        return _page(request, looks, 400, fault)
    if isinstance(answer, Locked):
        return wait(_page(request, looks, 429, too_many()), answer)
    if not isinstance(answer, Account):
        wrong = _("The old password or the code is wrong, or the code was used before. Nothing was changed.")
        return _page(request, looks, 403, wrong)
    begun = begin(request, looks.account, complete=True, then=f"{PATH}?done=password")
    remember(request, begun, looks.account)
    return begun


@router.post(f"{PATH}/sessions")
def end_others(request: Request, form: Form, looks: Viewer) -> Response:
    """Log every other browser of this account out."""
    sessions: Sessions = console(request).sessions
    sessions.end_others(looks)
    return RedirectResponse(f"{PATH}?done=sessions", 303)


def _page(request: Request, looks: Viewer, status: int = 200, fault: str = "", done: str = "") -> Response:
    shared, accounts = console(request), _accounts(request)
    sessions = shared.sessions.of(looks)
    others = sum(not one.this for one in sessions)
    return render(
        request,
        "account.html.j2",
        status,
        title=_("Account"),
        fault=fault,
        done=done,
        least=LEAST_PASSWORD,
        sessions=sessions,
        others=others,
        end_words=ngettext("End %(count)s other session", "End %(count)s other sessions", others)
        % {"count": number(others)},
        history=[_told(event) for event in accounts.history(looks.account, MOST_SHOWN)],
    )


def _told(event: Event) -> tuple[Event, str, str]:
    tone, words = EVENTS[event.what]
    return event, tone, _(words)


def _accounts(request: Request) -> Accounts:
    found: Accounts = console(request).accounts
    return found


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"
