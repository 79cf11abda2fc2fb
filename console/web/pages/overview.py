"""*Overview* of a hospital: what was used and what is left, what waits for whom, and what runs now."""

from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from wardround.console.web.guards import Viewer, console
from wardround.console.web.i18n import N_, _, moment, ngettext, number, one_digit
from wardround.console.web.live import Status
from wardround.console.web.page import Page
from wardround.console.web.queries.site import Budget, Expiry, SiteView, StudyLine
from wardround.console.web.rendering import given, render
from wardround.console.web.roles import Face, Role
from wardround.console.web.streaming import stream
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
    """Something that waits for a person. ``kind``: how urgent, "alert" or "note"; ``words`` and ``more`` are shown."""

    kind: str
    words: str
    more: str


@router.get("/")
def overview(request: Request, looks: Viewer) -> Response:
    """The page; another view of the same facts for each role."""
    queries = console(request).queries
    status: Status = console(request).ask()
    view: SiteView = queries.view()
    expiries: list[Expiry] = queries.expiries()
    return render(
        request,
        "overview.html.j2",
        title=_("Overview"),
        view=view,
        budgets=[(budget, left_words(budget), meaning_words(budget)) for budget in view.budgets],
        waiting=waiting(looks.role, view, status, expiries),
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
    return _("%(title)s, round %(round)s of %(rounds)s") % {
        "title": given(study.title, 120),
        "round": number(status.round_number),
        "rounds": number(study.rounds),
    }


def waiting(role: Role, view: SiteView, status: Status, expiries: list[Expiry]) -> list[Waiting]:
    """What waits for a person of this role, the urgent first. An auditor decides nothing, so nothing waits for her."""
    found: list[Waiting] = []
    if role is Role.AUDITOR:
        return found
    if not status.answers:
        found.append(
            Waiting(
                "alert",
                _("The site's daemon does not answer."),
                _("No round is answered, and nothing can be decided here. IT starts it: wardround site start FOLDER."),
            )
        )
    elif status.state == "paused":
        why = _("Reason: %(reason)s") % {"reason": given(status.reason)} if status.reason else ""
        found.append(Waiting("alert", _("The site is paused: no round is answered."), why))
    if status.answers and status.link != "up":
        found.append(
            Waiting(
                "alert",
                _("The link to the coordinator is down."),
                _("Rounds go on when it is back. IT looks for the cause: wardround site doctor FOLDER."),
            )
        )
    found += [_expiry(expiry) for expiry in expiries]
    if role is Role.OFFICER:
        found += [_undecided(study) for study in view.undecided]
    return found


def _expiry(expiry: Expiry) -> Waiting:
    when = {"name": given(expiry.name, 80), "at": moment(expiry.at)}
    if expiry.days < 0:
        words = _("The certificate %(name)s ended on %(at)s.") % when
    else:
        words = _("The certificate %(name)s ends on %(at)s.") % when
    return Waiting("alert", words, _("IT asks the operator of the coordinator for a new one."))


def _undecided(study: StudyLine) -> Waiting:
    return Waiting(
        "note",
        _("A study waits for your decision: %(title)s") % {"title": given(study.title, 160)},
        _("Plan %(digest)s, received %(at)s.") % {"digest": study.digest[:12], "at": moment(study.received_at)},
    )


def meaning_words(budget: Budget) -> str:
    """In one sentence what the epsilon of a budget means; "" where there is none to explain."""
    if budget.epsilon is None or not budget.rounds_charged:
        return ""
    try:
        found = meaning(budget.epsilon, budget.delta)
    except UsageError:
        return ""
    return _(
        "An attacker who wrongly accuses 1 in 100 people that were not in the data rightly accuses at most %(right)s "
        "in 100 that were, by all that has left so far (for Gaussian noise; by guessing 1.0)."
    ) % {"right": one_digit(float(in_a_hundred(found.gaussian)))}


def left_words(budget: Budget) -> str:
    """How much of the last kind of study still fits, as the filter would admit it."""
    if budget.closed:
        return _("This data domain is closed: nothing is charged to it again.")
    if budget.rounds_left is None or budget.studies_left is None:
        return _("No study was approved on it yet, so there is none to compare with.")
    rounds = ngettext("%(count)s more round", "%(count)s more rounds", budget.rounds_left)
    studies = ngettext("%(count)s more study", "%(count)s more studies", budget.studies_left)
    return _("%(studies)s like the last one would fit, or %(rounds)s of it.") % {
        "studies": studies % {"count": number(budget.studies_left)},
        "rounds": rounds % {"count": number(budget.rounds_left)},
    }
