"""The application factory: one console of a face, made of a folder. It binds no port; ``serve`` does."""

import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from argon2 import PasswordHasher
from fastapi import APIRouter, Depends, FastAPI
from starlette.staticfiles import StaticFiles

from wardround.client.store.folder import SiteFolder
from wardround.console.web import errors
from wardround.console.web.accounts import Accounts
from wardround.console.web.attempts import Browsers, Limits
from wardround.console.web.guards import page_guard, speak
from wardround.console.web.listeners import Listeners
from wardround.console.web.live import Live, Status, ask
from wardround.console.web.page import Page
from wardround.console.web.pages import PAGES, login
from wardround.console.web.rendering import templates
from wardround.console.web.roles import Face
from wardround.console.web.security import Asgi, Guard, Names
from wardround.console.web.sessions import Sessions
from wardround.console.web.store import open_console

_STATIC: Final = Path(__file__).with_name("static")


@dataclass(frozen=True, slots=True)
class Console:
    """What the pages of one console share. ``place``: whose it is; ``queries``: SiteQueries or CoordinatorQueries.

    ``noticing`` and ``health``: Noticing and Health of a site. ``certificate``: its own for TLS, if it has one.
    """

    face: Face
    place: str
    path: Path
    queries: Any
    accounts: Accounts
    sessions: Sessions
    live: Listeners[Any]
    browsers: Browsers
    limits: Limits
    pages: tuple[Page, ...]
    noticing: Any = None
    health: Any = None
    certificate: Path | None = None

    @property
    def routers(self) -> tuple[APIRouter, ...]:
        """Every router of the application, so that a test can ask each route."""
        return (login.router, *(page.router for page in self.pages))

    def ask(self) -> Status:
        """The daemon's status now."""
        return ask(self.path)


def make_app(
    folder: Path,
    face: Face = Face.SITE,
    names: Names | None = None,
    *,
    tls: bool = False,
    clock: Callable[[], float] = time.time,
    pages: Sequence[Page] = PAGES,
    hasher: PasswordHasher | None = None,
    certificate: Path | None = None,
) -> Asgi:
    """The console of ``folder`` as an ASGI application.

    Args:
        names: under which it may be asked; None: 127.0.0.1 and localhost at port 8640.
        clock: seconds since the epoch, for sessions and second factors.
        hasher: of passwords; left out: Argon2id as the library recommends.
        certificate: the console's own, with which it is served; its end is shown.
    Raises:
        UsageError: it is no folder of that face.
        Unavailable: the console's own database cannot be used.
    """
    opened = _opened(folder, face)
    engine = open_console(folder)
    mine = tuple(page for page in pages if page.face is face)
    console = Console(
        face=face,
        place=opened.place,
        path=folder,
        queries=opened.queries,
        accounts=Accounts(engine, face, clock, hasher),
        sessions=Sessions(engine, clock),
        live=opened.live,
        browsers=Browsers(engine),
        limits=Limits(clock),
        pages=mine,
        noticing=opened.noticing,
        health=opened.health,
        certificate=certificate,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        threading.Thread(target=_warm, args=(opened.warm,), daemon=True, name="console-warm").start()
        yield
        console.live.close()
        engine.dispose()

    app = FastAPI(
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        dependencies=[Depends(speak)],
    )
    app.state.console = console
    app.mount("/static", StaticFiles(directory=_STATIC))
    app.include_router(login.router)
    for page in mine:
        guard = page_guard(page.roles, page.writers, page.asks, own_account=page.own_account)
        app.include_router(page.router, dependencies=[Depends(guard)])
    errors.install(app)
    asked = Names.of(("127.0.0.1", "localhost"), 8640, tls=tls) if names is None else names
    guarded = Guard(errors.Quiet(app), asked, lambda scope, status: errors.refusal(app, scope, status), tls=tls)
    guarded.console = console  # type: ignore[attr-defined]
    return guarded


@dataclass(frozen=True, slots=True)
class _Opened:
    """What is behind a face: whose it is, what is asked, what listeners hear; of a site its notices and its health."""

    place: str
    queries: Any
    live: Listeners[Any]
    warm: Callable[[], None]
    noticing: Any = None
    health: Any = None


def _warm(read: Callable[[], None]) -> None:
    """Compile the templates and read the stores before somebody waits for a page."""
    for name in templates().list_templates():
        templates().get_template(name)
    read()


def _opened(folder: Path, face: Face) -> _Opened:
    if face is Face.SITE:
        from wardround.console.web.queries.health import Health
        from wardround.console.web.queries.noticing import Noticing
        from wardround.console.web.queries.site import SiteQueries
        from wardround.console.web.queries.studies import warm

        site = SiteFolder.open(folder)
        queries = SiteQueries(site)
        noticing = Noticing(queries, partial(ask, folder))
        return _Opened(site.site, queries, Live(folder), partial(warm, queries), noticing, Health(site))
    from wardround.console.web.hub_live import HubLive
    from wardround.console.web.queries.coordinator import CoordinatorQueries
    from wardround.server.folder import CoordinatorFolder

    hub = CoordinatorFolder.open(folder)
    asked = CoordinatorQueries(hub)
    return _Opened(hub.about.name, asked, HubLive(asked.store), asked.warm)
