"""The pages of errors: what happened in one line, what to do in another, and nothing that was typed or defective."""

import logging
import os
from contextlib import suppress
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from wardround.console.web.given import given
from wardround.console.web.guards import LoginNeeded, console, speak
from wardround.console.web.i18n import N_, _
from wardround.console.web.pages.login import LOGIN
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face
from wardround.console.web.security import Asgi, Receive, Refused, Scope, Send
from wardround.protocol.errors import Unavailable, WardroundError

ERRORS: Final = {
    400: (N_("This request cannot be understood."), N_("Go back to the overview and try again from there.")),
    403: (
        N_("This is not allowed with your account, or the form is too old."),
        N_("Open the page anew and send its form again. Who may do what is in the documentation of the console."),
    ),
    404: (N_("There is no such page."), N_("Use the navigation; an address from an older mail may have moved.")),
    405: (N_("This page cannot be asked so."), N_("Use the navigation and the buttons of the pages.")),
    408: (N_("The form came too slowly."), N_("Look at the network, then send it again.")),
    409: (N_("This cannot be done now."), N_("Look at the page again: somebody may have decided meanwhile.")),
    413: (N_("What was sent is too long."), N_("Send less than one megabyte.")),
    429: (N_("There were too many attempts."), N_("Wait some minutes, then try again.")),
    500: (N_("This is a defect of the console."), N_("Tell IT: the console's log names it. Nothing was changed.")),
    503: (N_("The site's daemon does not answer."), N_("IT starts it: wardround site start FOLDER. Then try again.")),
}
"""Status -> what happened, and what to do."""

HUB_AWAY: Final = (
    N_("What this page needs does not answer now."),
    N_(
        "Try again in a moment. If it stays so, look at the coordinator's processes: wardround coordinator status "
        "FOLDER."
    ),
)
"""The same of a 503 on the coordinator's console: no daemon of a site is behind it."""

log = logging.getLogger(__name__)


def install(app: FastAPI) -> None:
    """Let every error of the application end in its page."""

    async def login_needed(request: Request, error: Exception) -> Response:
        return RedirectResponse(LOGIN, 303)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        answer = await error_page(request, error.status)
        if error.after is not None:
            answer.headers["retry-after"] = str(error.after)
        return answer

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return await error_page(request, error.status_code)

    async def malformed(request: Request, error: Exception) -> Response:
        return await error_page(request, 400)

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, WardroundError)
        status = 503 if isinstance(error, Unavailable) else 409
        return await error_page(request, status, error.message, error.hint)

    async def defect(request: Request, error: Exception) -> Response:
        # Its text is not logged: it may hold a patient's value.
        log.error("a defect while a page was made: %s", type(error).__name__)
        if os.environ.get("WARDROUND_DEBUG") == "1":
            log.error("a defect while a page was made", exc_info=error)
        return await error_page(request, 500)

    app.add_exception_handler(Exception, defect)
    app.add_exception_handler(LoginNeeded, login_needed)
    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(WardroundError, ours)


async def error_page(request: Request, status: int, what: str = "", then: str = "") -> Response:
    """The page of one error; ``what`` and ``then`` in place of the usual lines."""
    await speak(request)
    usual = ERRORS.get(status, ERRORS[400] if status < 500 else ERRORS[500])
    if status == 503 and console(request).face is Face.COORDINATOR:
        usual = HUB_AWAY
    lines = given(what) if what else _(usual[0]), given(then) if then else _(usual[1])
    return render(request, "error.html.j2", status, title=_("Error %(status)s") % {"status": status}, lines=lines)


def refusal(app: FastAPI, scope: Scope, status: int) -> Asgi:
    """The answer to a request that never reaches the application: the page of its error."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = app
        # Nothing of such a request is believed, so nobody is logged in on its page.
        request = Request({**scope, "headers": []})
        await (await error_page(request, status))(scope, receive, send)

    return answer


class Quiet:
    """Starlette raises a defect again after its page was sent, for a server that prints it: here nobody does."""

    def __init__(self, app: Asgi) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(Exception):
            await self._app(scope, receive, send)
