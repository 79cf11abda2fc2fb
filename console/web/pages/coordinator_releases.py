"""*Releases* of finished studies: files, hashes, how to check them, and the files themselves."""

import os
from collections.abc import Iterator
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from wardround.console.web.guards import Viewer, console
from wardround.console.web.i18n import N_, _
from wardround.console.web.page import Page
from wardround.console.web.queries.hub_releases import open_released
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face, Role
from wardround.console.web.security import Refused

router = APIRouter()

PAGE: Final = Page(
    face=Face.COORDINATOR,
    path="/releases",
    title=N_("Releases"),
    group="record",
    roles=frozenset({Role.COORDINATOR, Role.RESEARCHER}),
    router=router,
)

KINDS: Final = {
    "model": N_("The model"),
    "plan": N_("The plan"),
    "card": N_("Model card"),
    "statement": N_("Privacy statement"),
}
MOST: Final = 20
"""Releases on the page, the newest."""

_BLOCK: Final = 1 << 18


@router.get("/releases")
def releases(request: Request, looks: Viewer) -> Response:
    """The page."""
    found = console(request).queries.releases()
    kinds = {kind: _(words) for kind, words in KINDS.items()}
    return render(
        request,
        "coordinator_releases.html.j2",
        title=_("Releases"),
        releases=found[:MOST],
        hidden=max(0, len(found) - MOST),
        kinds=kinds,
    )


@router.get("/releases/{digest}/{name}")
def download(request: Request, looks: Viewer, digest: str, name: str) -> Response:
    """One released file, as a file."""
    found = console(request).queries.release(digest)
    opened = None if found is None else open_released(found[1], found[0], name)
    if opened is None:
        raise Refused(404)
    descriptor, size = opened
    # Never shown in the console's own origin, whatever it holds: it is saved.
    headers = {"content-disposition": f'attachment; filename="{name}"', "content-length": str(size)}
    return StreamingResponse(_blocks(descriptor, size), media_type="application/octet-stream", headers=headers)


def _blocks(descriptor: int, size: int) -> Iterator[bytes]:
    with os.fdopen(descriptor, "rb") as file:
        while size and (block := file.read(min(_BLOCK, size))):
            size -= len(block)
            yield block
