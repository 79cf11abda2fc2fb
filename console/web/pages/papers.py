"""*Papers*: make and take away what a hospital signs for people outside, and check a paper that somebody brings."""

import re
from datetime import UTC, date, datetime
from typing import Annotated, Final, Literal, TypeAlias

from fastapi import APIRouter, Query, Request
from starlette.datastructures import UploadFile
from starlette.responses import Response

from wardround.console.web.guards import Form, console, field
from wardround.console.web.i18n import LANGUAGES, N_, _
from wardround.console.web.page import Page
from wardround.console.web.queries.papers import Checked, Made, missing, spoken_by_papers
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face, Role
from wardround.console.web.security import Refused
from wardround.protocol.errors import UsageError

router = APIRouter()

PAGE: Final = Page(
    face=Face.SITE,
    path="/papers",
    title=N_("Papers"),
    group="record",
    roles=frozenset({Role.OFFICER, Role.AUDITOR}),
    router=router,
    asks=frozenset({"/papers"}),
)

MOST_UPLOADED: Final = 900_000
"""Bytes of a paper that a page checks; a form may have a megabyte in all."""

Suffix: TypeAlias = Literal["pdf", "html", "json"]
Language: TypeAlias = Annotated[str, Query(pattern=r"^[a-z]{2,3}$")]

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,200}")


@router.get("/papers")
def papers(request: Request) -> Response:
    """The forms."""
    return _page(request)


@router.get("/papers/study")
def of_study(
    request: Request,
    study: Annotated[str, Query(pattern=r"^[0-9a-f]{64}$")],
    kind: Literal["statement", "dpia"] = "statement",
    suffix: Annotated[Suffix, Query(alias="format")] = "pdf",
    language: Language = "en",
) -> Response:
    """A study's privacy statement or DPIA annex, as a file."""
    return _file(console(request).queries.papers.study(kind, study, f".{suffix}", language))


@router.get("/papers/period")
def of_period(
    request: Request,
    since: date,
    until: date,
    suffix: Annotated[Suffix, Query(alias="format")] = "pdf",
    language: Language = "en",
) -> Response:
    """The audit report of a period, as a file."""
    return _file(console(request).queries.papers.period(since.isoformat(), until.isoformat(), f".{suffix}", language))


@router.post("/papers")
def check(request: Request, form: Form) -> Response:
    """What is found in a file that was brought; the file is read, never shown and never kept."""
    file = form.get("paper")
    if not isinstance(file, UploadFile) or not file.size:
        return _page(request, fault=UsageError(_("No file was chosen."), _("Choose the paper, then press the button.")))
    if file.size > MOST_UPLOADED:
        raise Refused(413)
    try:
        found = console(request).queries.papers.check(file.file.read(), field(form, "fingerprint", 100))
    except UsageError as error:
        return _page(request, fault=error)
    return _page(request, checked=found)


def _page(request: Request, checked: Checked | None = None, fault: UsageError | None = None) -> Response:
    today = datetime.now(UTC).date()
    lacking = missing()
    return render(
        request,
        "papers.html.j2",
        title=_("Papers"),
        lacking=lacking,
        studies=console(request).queries.view().studies,
        languages=[one for one in LANGUAGES if one.code in (() if lacking else spoken_by_papers())],
        since=today.replace(month=1, day=1).isoformat(),
        today=today.isoformat(),
        checked=checked,
        fault=fault,
        most=MOST_UPLOADED // 1000,
    )


def _file(made: Made) -> Response:
    """An attachment: a browser never opens it in the console's own origin."""
    name = made.name if _NAME.fullmatch(made.name) else "paper"
    return Response(
        made.content,
        media_type=made.media,
        headers={"content-disposition": f'attachment; filename="{name}"'},
    )
