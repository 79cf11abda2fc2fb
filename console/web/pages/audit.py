"""*Audit log* of a hospital: every entry of its ledger, the newest first, to be searched, filtered and opened."""

from dataclasses import dataclass
from datetime import date
from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from wardround.console.i18n import translations
from wardround.console.paper.entry_words import entry_words
from wardround.console.paper.kinds import kind_words
from wardround.console.paper.terms import Words
from wardround.console.web.guards import console
from wardround.console.web.i18n import N_, _, number, spoken
from wardround.console.web.page import Page
from wardround.console.web.queries.audit import LogView, Shown, log_view
from wardround.console.web.queries.record import MOST_LETTERS, Wanted
from wardround.console.web.queries.record import PAGE as LINES
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face, Role
from wardround.protocol.errors import UsageError

router = APIRouter()

READERS: Final = frozenset({Role.OFFICER, Role.IT, Role.AUDITOR})

PAGE: Final = Page(face=Face.SITE, path="/audit", title=N_("Audit log"), group="record", roles=READERS, router=router)

MOST_STUDIES: Final = 200
"""Studies that can be chosen in the filter; any other is found by its name or digest."""


@dataclass(frozen=True, slots=True)
class Row:
    """An entry as the table shows it; ``kind`` and ``says`` in the reader's language."""

    number: int
    at: str
    kind: str
    domain: str
    says: str
    hash: str


@router.get("/audit")
def audit(
    request: Request,
    q: Annotated[str, Query(max_length=MOST_LETTERS)] = "",
    kind: Annotated[str, Query(max_length=40)] = "",
    study: Annotated[str, Query(max_length=64)] = "",
    domain: Annotated[str, Query(max_length=200)] = "",
    since: Annotated[str, Query(max_length=10)] = "",
    until: Annotated[str, Query(max_length=10)] = "",
    page: Annotated[int, Query(ge=1, le=10**9)] = 1,
) -> Response:
    """The log, or what a search leaves of it."""
    queries = console(request).queries
    wanted = Wanted(q.strip(), kind, study, domain, _day(since), _day(until))
    view: LogView = log_view(queries.ledger, queries.folder.site, wanted, page, in_words)
    asked = {"q": q, "kind": kind, "study": study, "domain": domain, "since": since, "until": until}
    return render(
        request,
        "audit.html.j2",
        title=_("Audit log"),
        view=view,
        rows=[_row(one) for one in view.shown],
        wanted=wanted,
        narrowed=wanted != Wanted(),
        kinds=sorted(((one, in_words(one)) for one in view.kinds), key=lambda pair: pair[1].casefold()),
        studies=view.studies[:MOST_STUDIES],
        page=page,
        pages=max(1, -(-view.total // LINES)),
        link=lambda number: _link(asked, number),
        most_letters=MOST_LETTERS,
    )


class PageWords(Words):
    """The words of papers, with numbers as the reader writes them: a page's bytes are signed by nobody."""

    __slots__ = ()

    def number(self, count: int) -> str:
        return number(count)


def in_words(kind: str) -> str:
    """A kind of entry in the reader's language."""
    return kind_words(kind, _)


def words() -> Words:
    """The reader's language for what papers and pages say alike."""
    return PageWords(translations(spoken()))


def _row(one: Shown) -> Row:
    line = one.line
    says = entry_words(one.fact, one.study, words(), line.round_number)
    return Row(line.number, line.at, in_words(line.kind), line.domain, says, one.hash)


def _link(asked: dict[str, str], page: int) -> str:
    return "/audit?" + urlencode({name: value for name, value in asked.items() if value} | {"page": str(page)})


def _day(text: str) -> str:
    if not text:
        return ""
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise UsageError(_("This is no day."), _("Write it as in 2026-11-23.")) from None
