"""*Pause the site*: no round is answered until somebody resumes it. Stopping is easy; going on takes a code."""

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from wardround.client.control import control_pb2 as pb
from wardround.client.control.client import SECONDS, control
from wardround.console.web.deciding import Fault, decided
from wardround.console.web.guards import Form, Viewer, console, field
from wardround.console.web.i18n import N_, _
from wardround.console.web.page import Page
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face, Role
from wardround.protocol.errors import WardroundError

router = APIRouter()
PATH: Final = "/pause"

PAGE: Final = Page(
    face=Face.SITE,
    path=PATH,
    title=N_("Pause and resume"),
    group="run",
    roles=frozenset({Role.OFFICER, Role.IT}),
    router=router,
    writers=frozenset({Role.OFFICER, Role.IT}),
)


@router.get(PATH)
def state(request: Request, looks: Viewer) -> Response:
    """How the site stands, and the one form that changes it."""
    return _page(request, None)


@router.post(PATH)
def pause(request: Request, looks: Viewer, form: Form) -> Response:
    """Answer no round from here on. In an emergency nobody looks for a telephone, so it takes no code."""
    reason = field(form, "reason", 200)
    try:
        with control(console(request).path) as site:
            site.Pause(pb.PauseRequest(reason=reason), timeout=SECONDS)
    except WardroundError as error:
        return _page(request, Fault.of(error), reason)
    return RedirectResponse(PATH, 303)


@router.post(f"{PATH}/resume")
def resume(request: Request, looks: Viewer, form: Form) -> Response:
    """Go on."""
    fault = decided(request, looks, form, lambda site: site.Resume(pb.Empty(), timeout=SECONDS))
    return RedirectResponse(PATH, 303) if fault is None else _page(request, fault)


def _page(request: Request, fault: Fault | None, reason: str = "") -> Response:
    answer = render(
        request,
        "pause.html.j2",
        200 if fault is None else fault.status,
        title=_("Pause and resume"),
        status=console(request).ask(),
        fault=fault,
        reason=reason,
    )
    if fault is not None and fault.after is not None:
        answer.headers["retry-after"] = str(fault.after)
    return answer
