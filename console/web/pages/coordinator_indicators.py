"""*Indicators* of a campaign at the coordinator: live plots with intervals, who is away, alarms, cost and downloads."""

from typing import Final

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from wardround.console.web.guards import Viewer, console
from wardround.console.web.i18n import N_, _
from wardround.console.web.indicators_view import (
    absence,
    alarm_words,
    away_words,
    cost,
    download,
    legend,
    live_words,
    plots,
    present,
)
from wardround.console.web.page import Page
from wardround.console.web.pages.coordinator_study import STATES, step_words
from wardround.console.web.queries.campaigns import Campaign
from wardround.console.web.queries.coordinator import HubStudy
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face, Role
from wardround.console.web.security import Refused
from wardround.console.web.streaming import stream
from wardround.protocol.errors import UsageError

router = APIRouter()
PATH: Final = "/studies/{digest}/indicators"

PAGE: Final = Page(
    face=Face.COORDINATOR,
    path=PATH,
    title=N_("Indicators"),
    group="now",
    roles=frozenset({Role.COORDINATOR, Role.RESEARCHER}),
    router=router,
)


@router.get(PATH)
def indicators(request: Request, looks: Viewer, digest: str, span: str = "") -> Response:
    """The page; ``span`` "all": every tick and not only the last ones. A study without indicators says so."""
    study = _study(request, digest)
    campaign, fault = _campaign(request, digest) if study.campaign else (None, None)
    return render(
        request,
        "coordinator_indicators.html.j2",
        title=_("Indicators"),
        study=study,
        campaign=campaign,
        fault=fault,
        words=words_of(study, campaign),
        absence=[] if campaign is None else absence(campaign.plan, campaign),
        sites=[] if campaign is None else present(campaign),
        plots=[] if campaign is None else plots(campaign, whole=span == "all"),
        whole=span == "all",
        away="" if campaign is None else away_words(campaign),
        alarms=[] if campaign is None else alarm_words(campaign),
        cost=None if campaign is None else cost(campaign.plan, campaign),
        odd=campaign is not None and not study.names(campaign.table, campaign.plan.model.hash),
        legend=legend(),
    )


@router.get(f"{PATH}/live")
async def live(request: Request, looks: Viewer, digest: str) -> Response:
    """What has changed, as server-sent events."""
    await run_in_threadpool(_study, request, digest)

    def words(count: int) -> dict[str, str]:
        study = _study(request, digest)
        campaign, _fault = _campaign(request, digest) if study.campaign else (None, None)
        return words_of(study, campaign) | {"fresh": str(count)}

    return await stream(request, looks, words)


@router.get(f"{PATH}/series.csv")
def as_csv(request: Request, looks: Viewer, digest: str) -> Response:
    """Every figure as a table."""
    return _downloaded(request, digest, "csv")


@router.get(f"{PATH}/series.json")
def as_json(request: Request, looks: Viewer, digest: str) -> Response:
    """Every figure and alarm, the cost first."""
    return _downloaded(request, digest, "json")


@router.get(f"{PATH}/metrics")
def as_prometheus(request: Request, looks: Viewer, digest: str) -> Response:
    """The last tick as Prometheus reads it."""
    return _downloaded(request, digest, "prometheus")


def words_of(study: HubStudy, campaign: Campaign | None) -> dict[str, str]:
    """What the page says of the moment, by the name of the place."""
    state, tone = STATES[study.state]
    now = study.current
    return {
        "state": _(state),
        "tone": tone,
        "step": _("none now") if now is None else step_words(now.number, now.attempt, now.phase),
        **({} if campaign is None else live_words(campaign)),
    }


def _study(request: Request, digest: str) -> HubStudy:
    found: HubStudy | None = console(request).queries.study(digest)
    if found is None:
        raise Refused(404)
    return found


def _campaign(request: Request, digest: str) -> tuple[Campaign | None, UsageError | None]:
    try:
        return console(request).queries.campaign(digest), None
    except UsageError as error:
        return None, error


def _downloaded(request: Request, digest: str, form: str) -> Response:
    campaign, _fault = _campaign(request, digest) if _study(request, digest).campaign else (None, None)
    if campaign is None:
        raise Refused(404)
    return download(campaign, form)
