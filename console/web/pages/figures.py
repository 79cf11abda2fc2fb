"""*Figures* of a study at a hospital: what was released to all, and, for its own people alone, its own figures."""

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from wardround.console.web.figures_own import own_figures
from wardround.console.web.figures_view import costs, download, questions
from wardround.console.web.guards import Viewer, console
from wardround.console.web.i18n import N_, _
from wardround.console.web.page import Page
from wardround.console.web.queries.figures_here import FiguresHere, figures_here
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face, Role
from wardround.console.web.security import Refused

router = APIRouter()
PATH: Final = "/studies/{digest}/figures"

PAGE: Final = Page(
    face=Face.SITE,
    path=PATH,
    title=N_("Figures"),
    group="decide",
    roles=frozenset({Role.OFFICER, Role.IT, Role.AUDITOR}),
    router=router,
)


@router.get(PATH)
def figures(request: Request, looks: Viewer, digest: str) -> Response:
    """The page. A campaign of indicators has its own, and says so."""
    here = _here(request, digest)
    return render(
        request,
        "figures.html.j2",
        title=_("Figures"),
        digest=digest,
        held=here,
        figures=here.released,
        questions=[] if here.released is None else questions(here.released),
        costs=() if here.released is None else costs(here.plan, here.charges),
        own=None if here.own is None else own_figures(here.own),
        present=present(here),
    )


@router.get(f"{PATH}/figures.csv")
def as_csv(request: Request, looks: Viewer, digest: str) -> Response:
    """Every released figure as a table."""
    return _downloaded(request, digest, "csv")


@router.get(f"{PATH}/figures.json")
def as_json(request: Request, looks: Viewer, digest: str) -> Response:
    """Every released figure, the cost first."""
    return _downloaded(request, digest, "json")


def present(here: FiguresHere) -> list[tuple[str, bool]]:
    """Every hospital of the plan, and whether the newest receipt with a sum says that it is in it."""
    if here.receipt is None:
        return []
    lines = here.receipt.line
    return [
        (one.site, (line := lines.get(one.site)) is not None and line.outcome == "replied")
        for one in here.plan.participants
    ]


def _here(request: Request, digest: str) -> FiguresHere:
    found = figures_here(console(request).queries, digest)
    if found is None:
        raise Refused(404)
    return found


def _downloaded(request: Request, digest: str, form: str) -> Response:
    here = _here(request, digest)
    if here.released is None or not here.released.cells:
        raise Refused(404)
    return download(here.released, form)
