"""*Indicators* of a campaign at a hospital: what it has answered, who was in the last tick, what it costs; at its end
the series with its downloads."""

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from wardround.console.web.guards import Viewer, console
from wardround.console.web.i18n import N_, _, moment, number
from wardround.console.web.indicators_view import (
    Present,
    absence,
    alarm_words,
    cost,
    download,
    legend,
    plots,
)
from wardround.console.web.page import Page
from wardround.console.web.queries.campaign_here import CampaignHere, campaign_here
from wardround.console.web.queries.studies import plan_bytes
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face, Role
from wardround.console.web.security import Refused
from wardround.protocol.errors import UsageError

router = APIRouter()
PATH: Final = "/studies/{digest}/indicators"

PAGE: Final = Page(
    face=Face.SITE,
    path=PATH,
    title=N_("Indicators"),
    group="decide",
    roles=frozenset({Role.OFFICER, Role.IT, Role.AUDITOR}),
    router=router,
)


@router.get(PATH)
def indicators(request: Request, looks: Viewer, digest: str, span: str = "") -> Response:
    """The page; ``span`` "all": every tick and not only the last ones. A study without indicators says so."""
    if plan_bytes(console(request).queries, digest) is None:
        raise Refused(404)
    here, fault = _here(request, digest)
    series = None if here is None else here.series
    return render(
        request,
        "indicators.html.j2",
        title=_("Indicators"),
        digest=digest,
        held=here,
        fault=fault,
        words={} if here is None else words_of(here),
        sites=[] if here is None else present_by_receipt(here),
        absence=[] if here is None else absence(here.plan, here.series),
        campaign=series,
        plots=[] if series is None else plots(series, whole=span == "all"),
        whole=span == "all",
        alarms=[] if series is None else alarm_words(series),
        cost=None if here is None else cost(here.plan, here.series),
        legend=legend(),
    )


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


def words_of(here: CampaignHere) -> dict[str, str]:
    """What the page says of the moment."""
    task = here.series.task
    if here.over:
        next_ = _("none: entries of the ledger were lost, so the campaign is over here")
    elif here.last >= task.ticks:
        next_ = _("none: the campaign is over")
    else:
        next_ = moment(task.clock(here.last + 2))
    charged = _("charged, the whole campaign once") if here.charged else _("nothing yet")
    return {
        "answered": _("%(count)s of %(all)s") % {"count": number(here.answered), "all": number(task.ticks)},
        "next": next_,
        "charged": charged,
    }


def present_by_receipt(here: CampaignHere) -> list[Present]:
    """Every hospital in the tick of the newest receipt: in its sum, or away; nothing stands in for it."""
    receipt, found = here.receipt, []
    for one in here.plan.participants:
        line = None if receipt is None else receipt.line.get(one.site)
        if receipt is None:
            tone, words = "plain", _("no receipt yet")
        elif receipt.state != "closed":
            tone, words = "alert", _("no sum was opened")
        elif line is not None and line.outcome == "replied":
            tone, words = "good", _("in the sum")
        else:
            tone, words = "alert", _("away")
        found.append(Present(one.site, tone, words, "", 0))
    return found


def _here(request: Request, digest: str) -> tuple[CampaignHere | None, UsageError | None]:
    try:
        return campaign_here(console(request).queries, digest), None
    except UsageError as error:
        return None, error


def _downloaded(request: Request, digest: str, form: str) -> Response:
    here, _fault = _here(request, digest)
    if here is None or not here.series.figures:
        raise Refused(404)
    return download(here.series, form)
