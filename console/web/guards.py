"""What a page's function may ask for: who looks at it, and a form that is really from this person.

They are dependencies of FastAPI. ``page_guard`` is hung on every page by the application itself.
"""

import hmac
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, TypeAlias

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData

from wardround.console.web.i18n import negotiated, use
from wardround.console.web.roles import READS_ONLY, Role
from wardround.console.web.security import SAFE, Refused
from wardround.console.web.sessions import BEFORE_COOKIE, COOKIE, Session

CSRF_FIELD: Final = "csrf"

ITSELF: Final = "x-wardround-itself"
"""The header of a request that a live page makes by itself: nobody did anything, so it keeps no session awake."""


class LoginNeeded(Exception):
    """Nobody is logged in here: the answer leads to the login."""


def console(request: Request) -> Any:
    """The console that this request is for: ``app.Console``."""
    return request.app.state.console


def session_of(request: Request) -> Session | None:
    """The session of this request, whether or not it is complete; looked up once."""
    if not hasattr(request.state, "session"):
        active = ITSELF not in request.headers
        found: Session | None = console(request).sessions.find(request.cookies.get(COOKIE), active=active)
        request.state.session = found
        request.scope["wardround.role"] = found.role.value if found is not None and found.complete else "-"
    kept: Session | None = request.state.session
    return kept


async def speak(request: Request) -> None:
    """Let this request speak its reader's language. Async, so that it holds for all that follows."""
    found = await run_in_threadpool(session_of, request)
    use(negotiated(found.language if found else None, request.headers.get("accept-language", "")))


def viewer(request: Request) -> Session:
    """Who looks at the page. Raises LoginNeeded before both factors were given."""
    found = session_of(request)
    if found is None or not found.complete:
        raise LoginNeeded
    return found


Viewer: TypeAlias = Annotated[Session, Depends(viewer)]


def page_guard(
    roles: frozenset[Role],
    writers: frozenset[Role],
    asks: frozenset[str] = frozenset(),
    *,
    own_account: bool = False,
) -> Callable[..., Awaitable[None]]:
    """A dependency that lets ``roles`` read a page and ``writers`` send its forms, and nobody else; see ``Page``."""
    writing = writers if own_account else writers - READS_ONLY

    async def guard(request: Request, looks: Viewer) -> None:
        may = roles if request.method in SAFE else writing
        if request.url.path in asks:
            may = roles
        if looks.role not in may:
            raise Refused(403)
        if request.method not in SAFE:
            await checked_form(request)

    return guard


async def checked_form(request: Request) -> FormData:
    """The form of this request. Raises Refused unless it carries the token that our own page gave this browser."""
    try:
        form = await request.form(max_files=4, max_fields=200)
    except Refused:
        raise
    except Exception:  # a body that is no form, whatever it is
        raise Refused(400) from None
    given, wanted = form.get(CSRF_FIELD), csrf_token(request)
    if not isinstance(given, str) or wanted is None or not hmac.compare_digest(given.encode(), wanted.encode()):
        raise Refused(403)
    return form


Form: TypeAlias = Annotated[FormData, Depends(checked_form)]


def csrf_token(request: Request) -> str | None:
    """The token that forms of this request's pages carry; None: this browser has no cookie of ours yet."""
    found = session_of(request)
    if found is not None:
        return found.csrf
    value = request.cookies.get(BEFORE_COOKIE)
    made: str | None = console(request).sessions.token(f"before {value}") if value else None
    return made


def secret_field(form: FormData, name: str) -> str:
    """A password as it was typed, spaces and all, or ""; a file or a far longer text is refused."""
    value = form.get(name, "")
    if not isinstance(value, str) or len(value) > 1000:
        raise Refused(400)
    return value


def field(form: FormData, name: str, most: int = 1000) -> str:
    """A text field without spaces at its ends, or ""; a file or a longer text is refused."""
    value = form.get(name, "")
    if not isinstance(value, str) or len(value) > most:
        raise Refused(400)
    return value.strip()
