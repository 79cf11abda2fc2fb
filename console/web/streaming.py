"""A page's stream of server-sent events: for one logged-in browser, in its language, until its session is over."""

from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import Request
from starlette.responses import Response, StreamingResponse

from wardround.console.web.guards import console
from wardround.console.web.i18n import spoken, use
from wardround.console.web.listeners import TooMany
from wardround.console.web.security import Refused
from wardround.console.web.sessions import COOKIE, Session


async def stream(request: Request, looks: Session, words: Callable[[Any], dict[str, str]]) -> Response:
    """The answer to a browser that listens; ``words`` is what an event says of what the console watches."""
    sessions, language, cookie = console(request).sessions, spoken(), request.cookies.get(COOKIE)

    def said(seen: Any) -> dict[str, str]:
        use(language)
        return words(seen)

    events = console(request).live.events(looks.key, said, lambda: sessions.find(cookie, active=False) is not None)
    try:
        first = await anext(events)
    except TooMany:
        raise Refused(503) from None

    async def whole() -> AsyncIterator[bytes]:
        yield first
        async for event in events:
            yield event

    return StreamingResponse(whole(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})
