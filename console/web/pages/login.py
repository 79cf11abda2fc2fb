"""Login in two steps, logout, and the choice of a language: the only functions that a stranger may reach."""

import secrets
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from wardround.console.web.accounts import Accounts, Locked
from wardround.console.web.attempts import attempt, remember
from wardround.console.web.guards import Form, Viewer, console, field, secret_field, session_of
from wardround.console.web.i18n import CODES, _
from wardround.console.web.rendering import render
from wardround.console.web.security import Refused
from wardround.console.web.sessions import BEFORE_COOKIE, COOKIE

LOGIN: Final = "/login"
SECOND: Final = "/login/code"

router = APIRouter()


@router.get(LOGIN)
def login(request: Request) -> Response:
    """The form for name and password; who is logged in goes on to the pages."""
    found = session_of(request)
    if found is not None:
        return _to("/" if found.complete else SECOND)
    if request.cookies.get(BEFORE_COOKIE):
        return _login_page(request)
    # The form's token is tied to a cookie, so the cookie comes first; a browser without cookies is told so.
    if "again" in request.query_params:
        return render(request, "login.html.j2", 400, title=_("Log in"), fault=_("This page needs cookies."))
    answer = _to(f"{LOGIN}?again=1")
    _set(answer, BEFORE_COOKIE, secrets.token_urlsafe(32))
    return answer


@router.post(LOGIN)
def check(request: Request, form: Form) -> Response:
    """The first step: name and password."""
    name, password = field(form, "name", 200), secret_field(form, "password")
    accounts: Accounts = console(request).accounts
    answer = attempt(request, name, lambda browser: accounts.check_password(name, password, browser))
    if isinstance(answer, Locked):
        return wait(_login_page(request, 429, too_many()), answer)
    if answer is None:
        return _login_page(request, 403, _("Name or password is wrong."))
    return begin(request, answer.name, complete=False, then=SECOND)


@router.get(SECOND)
def second(request: Request) -> Response:
    """The form for the second factor."""
    found = session_of(request)
    if found is None or found.complete:
        return _to("/" if found is not None else LOGIN)
    return _second_page(request)


@router.post(SECOND)
def check_second(request: Request, form: Form) -> Response:
    """The second step: the code of the authenticator app."""
    found = session_of(request)
    if found is None or found.complete:
        return _to(LOGIN)
    name, code = found.account, field(form, "code", 40)
    accounts: Accounts = console(request).accounts
    answer = attempt(request, name, lambda browser: accounts.check_code(name, code, browser, login=True))
    if isinstance(answer, Locked):
        return wait(_second_page(request, 429, too_many()), answer)
    if answer is None:
        return _second_page(request, 403, _("The code is wrong, or it was used before. Wait for the next one."))
    begun = begin(request, name, complete=True, then="/")
    remember(request, begun, name)
    return begun


@router.post("/logout")
def logout(request: Request, form: Form) -> Response:
    """End the session, complete or not."""
    found = session_of(request)
    if found is not None:
        console(request).sessions.end(found)
    answer = _to(LOGIN)
    for name in (COOKIE, BEFORE_COOKIE):
        answer.delete_cookie(name, secure=True, httponly=True, samesite="strict")
    answer.headers["clear-site-data"] = '"cache"'
    return answer


@router.post("/language")
def language(request: Request, form: Form, looks: Viewer) -> Response:
    """Remember the account's language; every role may, an auditor too."""
    code = field(form, "language", 10)
    if code not in CODES:
        raise Refused(400)
    console(request).accounts.choose_language(looks.account, code)
    back = field(form, "back", 200)
    known = any(page.holds(back) for page in console(request).pages)
    return _to(back if known else "/")


def begin(request: Request, account: str, *, complete: bool, then: str) -> Response:
    """A new session in the place of this request's, and the way to ``then``."""
    value = console(request).sessions.begin(account, complete=complete, instead_of=session_of(request))
    answer = _to(then)
    _set(answer, COOKIE, value)
    answer.delete_cookie(BEFORE_COOKIE, secure=True, httponly=True, samesite="strict")
    return answer


def _login_page(request: Request, status: int = 200, fault: str = "") -> Response:
    return render(request, "login.html.j2", status, title=_("Log in"), fault=fault)


def _second_page(request: Request, status: int = 200, fault: str = "") -> Response:
    return render(request, "second.html.j2", status, title=_("Second factor"), fault=fault)


def too_many() -> str:
    """What is said to somebody who has to wait."""
    return _("Too many wrong attempts. Wait some minutes, then try again.")


def wait(answer: Response, locked: Locked) -> Response:
    """``answer``, with how long to wait in its header."""
    answer.headers["retry-after"] = str(locked.seconds)
    return answer


def _to(path: str) -> Response:
    return RedirectResponse(path, 303)


def _set(answer: Response, name: str, value: str) -> None:
    answer.set_cookie(name, value, secure=True, httponly=True, samesite="strict", path="/")
