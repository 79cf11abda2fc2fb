"""*Figures* of a statistics study or an evaluation at the coordinator: results with intervals, pictures, who was in
them, what they cost, and downloads."""

from typing import Final

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from wardround.console.web.figures_view import costs, download, questions
from wardround.console.web.guards import Viewer, console
from wardround.console.web.i18n import N_, _, number
from wardround.console.web.page import Page
from wardround.console.web.pages.coordinator_study import STATES, part_words, step_words
from wardround.console.web.queries.coordinator import HubStudy
from wardround.console.web.queries.figures import Figures
from wardround.console.web.queries.hub_rounds import RoundLine
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face, Role
from wardround.console.web.security import Refused
from wardround.console.web.streaming import stream
from wardround.protocol.errors import UsageError

router = APIRouter()
PATH: Final = "/studies/{digest}/figures"

PAGE: Final = Page(
    face=Face.COORDINATOR,
    path=PATH,
    title=N_("Figures"),
    group="now",
    roles=frozenset({Role.COORDINATOR, Role.RESEARCHER}),
    router=router,
)


@router.get(PATH)
def figures(request: Request, looks: Viewer, digest: str) -> Response:
    """The page. A study that counts nothing says so, and names the one that evaluates its model, if one does."""
    study = _study(request, digest)
    found, fault = _figures(request, digest)
    line = last_sum(study)
    return render(
        request,
        "coordinator_figures.html.j2",
        title=_("Figures"),
        study=study,
        figures=found,
        fault=fault,
        words=words_of(study),
        questions=[] if found is None else questions(found),
        costs=() if found is None else costs(found.plan, len(study.lines)),
        odd=found is not None and not study.names(found.table, found.plan.model.hash),
        line=line,
        present=[] if line is None else [(cell.site, cell.part.value, part_words(cell)) for cell in line.cells],
    )


@router.get(f"{PATH}/live")
async def live(request: Request, looks: Viewer, digest: str) -> Response:
    """What has changed, as server-sent events."""
    await run_in_threadpool(_study, request, digest)
    return await stream(request, looks, lambda count: words_of(_study(request, digest)) | {"fresh": str(count)})


@router.get(f"{PATH}/figures.csv")
def as_csv(request: Request, looks: Viewer, digest: str) -> Response:
    """Every figure as a table."""
    return _downloaded(request, digest, "csv")


@router.get(f"{PATH}/figures.json")
def as_json(request: Request, looks: Viewer, digest: str) -> Response:
    """Every figure, the cost first."""
    return _downloaded(request, digest, "json")


def words_of(study: HubStudy) -> dict[str, str]:
    """What the page says of the moment, by the name of the place."""
    state, tone = STATES[study.state]
    now = study.current
    return {
        "state": _(state),
        "tone": tone,
        "rounds": _("%(done)s of %(rounds)s") % {"done": number(study.done), "rounds": number(study.rounds)},
        "step": _("none now") if now is None else step_words(now.number, now.attempt, now.phase),
    }


def last_sum(study: HubStudy) -> RoundLine | None:
    """The newest receipt of a round that has a sum; None: there is none."""
    return next((line for line in reversed(study.lines) if line.closed), None)


def _study(request: Request, digest: str) -> HubStudy:
    found: HubStudy | None = console(request).queries.study(digest)
    if found is None:
        raise Refused(404)
    return found


def _figures(request: Request, digest: str) -> tuple[Figures | None, UsageError | None]:
    try:
        return console(request).queries.figures(digest), None
    except UsageError as error:
        return None, error


def _downloaded(request: Request, digest: str, form: str) -> Response:
    _study(request, digest)
    found, _fault = _figures(request, digest)
    if found is None or not found.cells:
        raise Refused(404)
    return download(found, form)
