"""*Overview* of a hospital: what was used and what is left, what waits for whom, and what runs now."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from wardround.console.notices.watching import Level, Notice
from wardround.console.web.given import given
from wardround.console.web.guards import Viewer, console
from wardround.console.web.i18n import N_, _, moment, number, one_digit, said_again
from wardround.console.web.left_words import left_words
from wardround.console.web.live import Status
from wardround.console.web.page import Page
from wardround.console.web.queries.noticing import kind, waiting_for
from wardround.console.web.queries.site import Budget, SiteView, StudyLine
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face, Role
from wardround.console.web.streaming import stream
from wardround.console.web.wayfinding import where
from wardround.privacy.meaning import in_a_hundred, meaning
from wardround.protocol.errors import UsageError

router = APIRouter()

PAGE: Final = Page(
    face=Face.SITE,
    path="/",
    title=N_("Overview"),
    group="now",
    roles=frozenset({Role.OFFICER, Role.IT, Role.AUDITOR}),
    router=router,
)

STATES: Final = {
    "running": N_("Running"),
    "paused": N_("Paused"),
    "stopping": N_("Stopping"),
}


@dataclass(frozen=True, slots=True)
class Waiting:
    """Something that waits for a person. ``kind``: how urgent, "alert" or "note"; ``words`` and ``more`` are shown.

    ``href``: where it is dealt with, by a link that says ``link``.
    """

    kind: str
    words: str
    more: str
    href: str = ""
    link: str = ""


@router.get("/")
def overview(request: Request, looks: Viewer) -> Response:
    """The page; another view of the same facts for each role."""
    queries = console(request).queries
    status: Status = console(request).ask()
    view: SiteView = queries.view()
    found: list[Notice] = console(request).noticing.look(status, view)
    return render(
        request,
        "overview.html.j2",
        title=_("Overview"),
        view=view,
        budgets=[(budget, left_words(budget), meaning_words(budget)) for budget in view.budgets],
        waiting=waiting(looks.role, found, console(request).pages),
        status=status,
        live=live_words(status, next((one for one in view.studies if one.digest == status.last_plan), None)),
    )


@router.get("/live")
async def live(request: Request, looks: Viewer) -> Response:
    """The daemon's status as it changes, as server-sent events."""
    queries = console(request).queries

    def words(status: Status) -> dict[str, str]:
        return live_words(status, queries.study(status.last_plan) if status.last_plan else None)

    return await stream(request, looks, words)


def live_words(status: Status, study: StudyLine | None) -> dict[str, str]:
    """What the page says of the daemon, by the name of the place; ``study`` is the one that it heard of last."""
    if not status.answers:
        nothing = _("not known")
        return {"state": _("Does not answer"), "tone": "alert", "link": nothing, "study": nothing, "exchange": nothing}
    state = STATES.get(status.state)
    return {
        "state": status.state if state is None else _(state),
        "tone": "good" if status.state == "running" else "alert",
        "link": _("up") if status.link == "up" else _("down"),
        "study": _study_words(status, study),
        "exchange": moment(status.last_at) if status.last_at else _("none since it started"),
    }


def _study_words(status: Status, study: StudyLine | None) -> str:
    if study is None:
        return _("none since it started")
    if not status.round_number:
        return given(study.title, 120)
    words = (
        _("%(title)s, tick %(round)s of %(rounds)s")
        if study.campaign
        else _("%(title)s, round %(round)s of %(rounds)s")
    )
    return words % {
        "title": given(study.title, 120),
        "round": number(status.round_number),
        "rounds": number(study.rounds),
    }


def waiting(role: Role, found: Sequence[Notice], pages: Sequence[Page]) -> list[Waiting]:
    """What waits for a person of this role, the urgent first, by the rules of the notices."""
    return [
        Waiting(
            "note" if one.level is Level.NOTE else "alert",
            said_again(one.sentence),
            said_again(one.cure),
            where(one, role, pages),
            _("Read and decide") if kind(one) == "study" else _("Look at it"),
        )
        for one in waiting_for(role, found)
    ]


def meaning_words(budget: Budget) -> str:
    """In one sentence what the epsilon of a budget means; "" where there is none to explain.

    Beside rounds without a guarantee no sentence about all that has left would be true.
    """
    if budget.epsilon is None or not budget.rounds_charged or budget.without_privacy:
        return ""
    try:
        found = meaning(budget.epsilon, budget.delta)
    except UsageError:
        return ""
    return _(
        "An attacker who wrongly accuses 1 in 100 people that were not in the data rightly accuses at most %(right)s "
        "in 100 that were, by all that has left so far (for Gaussian noise; by guessing 1.0)."
    ) % {"right": one_digit(float(in_a_hundred(found.gaussian)))}
