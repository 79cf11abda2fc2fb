"""*Study* of a hospital: a plan in words, how it stands, what changed, and what it would cost with other terms."""

import math
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from wardround.console.plan_changes import changes
from wardround.console.plan_words import sections
from wardround.console.web.guards import Viewer, console
from wardround.console.web.i18n import N_, _, number, number_full
from wardround.console.web.page import Page
from wardround.console.web.queries.costs import Bounds, Cost, Point, bounds, cost_of, curve, proposed_noise
from wardround.console.web.queries.studies import StudyView, plan_bytes, study_view
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face, Role
from wardround.console.web.security import Refused
from wardround.console.web.study_picture import cost_picture
from wardround.protocol.errors import UsageError
from wardround.protocol.plan import PrivacyMode

router = APIRouter()

PAGE: Final = Page(
    face=Face.SITE,
    path="/studies/{digest}",
    title=N_("Study"),
    group="decide",
    roles=frozenset({Role.OFFICER, Role.IT, Role.AUDITOR}),
    router=router,
)

DECIDE: Final = "/studies/{digest}/decide"
"""The page on which an officer decides, where this console has one."""

MOST_LETTERS: Final = 20
"""Of a number that is asked for."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What the cost planner shows: the plan's own cost, the one asked for, and a picture where rounds are charged."""

    proposed: Cost
    asked: Cost
    points: tuple[Point, ...]
    picture: str


@router.get("/studies/{digest}")
def study(request: Request, looks: Viewer, digest: str, rounds: str = "", noise: str = "") -> Response:
    """The page; with ``rounds`` and ``noise`` also what the study would cost with these."""
    view = _found(request, digest)
    limits, planned, fault = None, None, None
    if view.plan.privacy.mode is not PrivacyMode.NONE:
        limits = bounds(view.plan)
        try:
            terms = _terms(view, limits, rounds, noise)
        except UsageError as error:
            terms, fault = (view.plan.rounds, proposed_noise(view.plan)), error
        planned = _planned(view, console(request).place, limits, *terms)
    return render(
        request,
        "study.html.j2",
        400 if fault else 200,
        title=_("Study"),
        view=view,
        sections=sections(view.plan),
        changes=[] if view.former is None else list(changes(view.former, view.plan)),
        file_digest=sha256(view.plan.canonical).hexdigest(),
        decide=_decide_path(request, looks.role, digest),
        limits=limits,
        planned=planned,
        fault=fault,
        typed=(rounds, noise) if fault else None,
    )


@router.get("/studies/{digest}/cost")
def cost(request: Request, looks: Viewer, digest: str, rounds: str = "", noise: str = "") -> Response:
    """The part of the page that depends on what is asked, for the script that moves the sliders."""
    view = _found(request, digest)
    try:
        limits = bounds(view.plan)
        terms = _terms(view, limits, rounds, noise)
    except UsageError as error:
        return render(request, "study_cost_fault.html.j2", 400, fault=error)
    return render(request, "study_cost.html.j2", planned=_planned(view, console(request).place, limits, *terms))


@router.get("/studies/{digest}/plan.json")
def plan_file(request: Request, looks: Viewer, digest: str) -> Response:
    """The plan, byte for byte as it was proposed."""
    content = plan_bytes(console(request).queries, digest)
    if content is None:
        raise Refused(404)
    name = f"plan-{digest[:12]}.json"
    return Response(
        content, media_type="application/json", headers={"content-disposition": f'attachment; filename="{name}"'}
    )


def _found(request: Request, digest: str) -> StudyView:
    view = study_view(console(request).queries, digest)
    if view is None:
        raise Refused(404)
    return view


def _decide_path(request: Request, role: Role, digest: str) -> str:
    """Where ``role`` decides on the plan; "" where it may not, or where this console has no such page."""
    for page in console(request).pages:
        if page.path == DECIDE and role in page.roles and role is Role.OFFICER:
            return DECIDE.format(digest=digest)
    return ""


def _terms(view: StudyView, limits: Bounds, rounds: str, noise: str) -> tuple[int, float]:
    """Rounds and noise that are asked for; the plan's own where nothing is. Raises UsageError for nonsense."""
    own = view.plan.rounds, proposed_noise(view.plan)
    whole = _number(rounds, float(own[0]))
    least, most = limits.least_rounds, limits.most_rounds
    if whole is None or whole != int(whole) or not least <= whole <= most:
        hint = _("Give a whole number from 1 to %(most)s.") % {"most": number(most)}
        if least > 1:
            hint = _("Give a number from %(least)s to %(most)s.") % {"least": number(least), "most": number(most)}
        raise UsageError(_("These rounds cannot be planned."), hint)
    level = _number(noise, own[1])
    if level is None or not limits.least_noise <= level <= limits.most_noise:
        raise UsageError(
            _("This noise multiplier cannot be planned."),
            _("Give a number from %(least)s to %(most)s.")
            % {"least": number_full(limits.least_noise), "most": number_full(limits.most_noise)},
        )
    # A slider has steps of a hundredth; the plan's own value, with all its digits, is asked for as it is.
    return int(whole), level if level == own[1] else max(limits.least_noise, round(level, 2))


def _number(text: str, otherwise: float) -> float | None:
    """A finite number as a form sends it; ``otherwise`` where the field is empty; None: it is none."""
    if not text.strip():
        return otherwise
    try:
        found = float(text) if len(text) <= MOST_LETTERS and text.isascii() else math.nan
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _planned(view: StudyView, site: str, limits: Bounds, rounds: int, noise: float) -> Planned:
    plan = view.plan
    proposed = cost_of(plan, site, view.rooms, plan.rounds, proposed_noise(plan))
    asked = cost_of(plan, site, view.rooms, rounds, noise)
    points = curve(plan, site, max(limits.slider, rounds), noise)
    picture = cost_picture(points, proposed, asked, view.rooms) if points else ""
    return Planned(proposed, asked, points, picture)
