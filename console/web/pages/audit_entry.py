"""One entry of the ledger, whole: as its bytes stand in the file, with everything that can be checked about it now."""

from typing import Annotated, Final, TypeAlias

from fastapi import APIRouter, Request
from fastapi import Path as InPath
from starlette.responses import Response

from wardround.console.paper.entry_words import entry_words
from wardround.console.web.guards import console
from wardround.console.web.i18n import N_, _
from wardround.console.web.i18n import number as spelt
from wardround.console.web.page import Page
from wardround.console.web.pages.audit import READERS, in_words, words
from wardround.console.web.queries.audit import WholeEntry, whole_entry
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face
from wardround.protocol.entry import parse_content

router = APIRouter()

PAGE: Final = Page(
    face=Face.SITE,
    path="/audit/{number}",
    title=N_("Entry of the ledger"),
    group="record",
    roles=READERS,
    router=router,
)

MOST_SHOWN: Final = 20_000
"""Characters of an entry that the page shows; the download has all."""

Number: TypeAlias = Annotated[int, InPath(ge=1, lt=2**53)]


@router.get("/audit/{number}")
def entry(request: Request, number: Number) -> Response:
    """The page."""
    found = _read(request, number)
    try:
        fact = parse_content(found.content).fact.model_dump(mode="json")
    except ValueError:  # it was changed on disk since it was folded, and the page says so
        fact = {"kind": ""}
    return render(
        request,
        "audit_entry.html.j2",
        title=_("Entry %(number)s") % {"number": spelt(number)},
        entry=found,
        kind=in_words(found.line.kind),
        says=entry_words(fact, found.study, words(), found.line.round_number),
        content=found.content.decode(errors="backslashreplace"),
        most=MOST_SHOWN,
    )


@router.get("/audit/{number}/content")
def content(request: Request, number: Number) -> Response:
    """The entry's bytes as they are hashed, to be kept."""
    found = _read(request, number)
    name = f"{console(request).place}-entry-{number}.json"
    return Response(
        found.content, media_type="application/json", headers={"content-disposition": f'attachment; filename="{name}"'}
    )


def _read(request: Request, number: int) -> WholeEntry:
    queries = console(request).queries
    return whole_entry(queries.ledger, queries.folder.site, number)
