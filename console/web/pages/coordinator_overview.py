"""*Overview* of the coordinator: whether it runs, what its studies do, who has joined, and what waits for whom."""

from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from wardround.console.web.alarm_words import alarm_words
from wardround.console.web.given import given
from wardround.console.web.guards import Viewer, console
from wardround.console.web.i18n import N_, _, moment, number
from wardround.console.web.page import Page
from wardround.console.web.pages.coordinator_study import FAULTS, study_words
from wardround.console.web.queries.alarms import AlarmLine
from wardround.console.web.queries.coordinator import ENDED, EXPIRY_DAYS, HubStudy, HubView, State
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face, Role
from wardround.console.web.streaming import stream
from wardround.protocol.messages import Standing

router = APIRouter()

PAGE: Final = Page(
    face=Face.COORDINATOR,
    path="/",
    title=N_("Overview"),
    group="now",
    roles=frozenset({Role.COORDINATOR, Role.RESEARCHER}),
    router=router,
)

MOST_ENDED: Final = 5
"""Studies that are over, on the overview; *Studies* has them all."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Something that waits for a person: how urgent, what, what then, and what is typed.

    ``said``: a text of the coordinator's own log, in English. ``href``: the page of this console that has more.
    """

    kind: str
    words: str
    more: str = ""
    typed: str = ""
    said: str = ""
    href: str = ""


@router.get("/")
def overview(request: Request, looks: Viewer) -> Response:
    """The page."""
    view: HubView = console(request).queries.view_with_links()
    going = [study for study in view.studies if study.state not in ENDED]
    over = [study for study in view.studies if study.state in ENDED]
    shown = [(study, study_words(study)) for study in [*going, *over[:MOST_ENDED]]]
    return render(
        request,
        "coordinator_overview.html.j2",
        title=_("Overview"),
        view=view,
        words=hub_words(view),
        waiting=waiting(looks.role, view),
        studies=shown,
        hidden=len(view.studies) - len(shown),
    )


@router.get("/live")
async def live(request: Request, looks: Viewer) -> Response:
    """What has changed, as server-sent events."""
    queries = console(request).queries

    def words(count: int) -> dict[str, str]:
        return hub_words(queries.view()) | {"fresh": str(count)}

    return await stream(request, looks, words)


def hub_words(view: HubView) -> dict[str, str]:
    """What the page says of the moment, by the name of the place."""
    states = [study.state for study in view.studies]
    return {
        "state": _("Running") if view.running else _("Does not run"),
        "tone": "good" if view.running else "alert",
        "running": number(sum(state in (State.RUNNING, State.STOPPING) for state in states)),
        "waiting": number(sum(state in (State.WAITING, State.READY, State.NEEDS_PEOPLE) for state in states)),
        "ended": number(sum(state in ENDED for state in states)),
    }


def waiting(role: Role, view: HubView) -> list[Waiting]:
    """What waits for a person of this role, the urgent first, and of it alarms: alarms and studies for both roles."""
    found = [_of_alarm(alarm) for alarm in view.alarms if alarm.open]
    found += [one for study in view.studies for one in _of_study(study)]
    if role is Role.COORDINATOR:
        found += _of_service(view) + _of_roster(view) + _of_sites(view)
    return sorted(found, key=lambda one: one.kind != "alert")


def _of_alarm(alarm: AlarmLine) -> Waiting:
    words = alarm_words(alarm, coordinator=True)
    return Waiting("alert", words.seen, f"{words.meaning} {words.cure}", href="/witnesses")


def _of_study(study: HubStudy) -> list[Waiting]:
    title, name = {"title": given(study.title, 160)}, study.digest[:12]
    found = []
    if study.fault:
        found.append(
            Waiting(
                "alert",
                _("The receipts of a study do not hold: %(title)s") % title,
                _(FAULTS[study.fault]),
                f"wardround study fetch {name} --coordinator FOLDER --out NEW_FOLDER",
            )
        )
    if study.state is State.NEEDS_PEOPLE:
        found.append(
            Waiting(
                "alert",
                _("A study needs people: %(title)s") % title,
                typed=f"wardround study resume {name} --coordinator FOLDER",
                said=given(study.note),
            )
        )
    if study.state is State.READY:
        found.append(
            Waiting(
                "note",
                _("Enough hospitals have approved, and the study was not started: %(title)s") % title,
                typed=f"wardround study start {name} --coordinator FOLDER",
            )
        )
    if study.state is State.WAITING:
        found.append(Waiting("note", _("A study waits for approvals: %(title)s") % title, _approvals(study)))
    return found


def _approvals(study: HubStudy) -> str:
    counted = {"approved": number(len(study.approved)), "quorum": number(study.quorum)}
    words = [_("%(approved)s of the %(quorum)s that a round needs have approved.") % counted]
    refused = [one.site for one in study.standings if one.standing is Standing.REFUSED]
    open_ = [site for site in study.missing if site not in refused]
    if open_:
        words.append(_("Not there yet: %(sites)s.") % {"sites": given(", ".join(open_), 400)})
    if refused:
        words.append(_("Refused: %(sites)s.") % {"sites": given(", ".join(refused), 400)})
    words.append(_("The officers of each hospital decide there."))
    return " ".join(words)


def _of_service(view: HubView) -> list[Waiting]:
    found = []
    if not view.running:
        going = any(study.state not in ENDED for study in view.studies)
        more = _("No study goes on, and no site can join.") if going else _("No site can join.")
        words = _("The coordinator does not run.")
        found.append(Waiting("alert", words, more, "wardround coordinator start FOLDER"))
    if view.certificate_days is None:
        found.append(Waiting("alert", _("The certificate of the public listener cannot be read.")))
    elif view.certificate_days < EXPIRY_DAYS and view.certificate_until is not None:
        at = {"at": moment(view.certificate_until)}
        ended = view.certificate_days < 0
        words = (
            _("The coordinator's certificate ended on %(at)s.")
            if ended
            else _("The coordinator's certificate ends on %(at)s.")
        )
        more = _("Sites notice nothing when it is renewed; then start the coordinator again.")
        found.append(Waiting("alert", words % at, more, "wardround coordinator renew FOLDER"))
    return found


def _of_roster(view: HubView) -> list[Waiting]:
    roster = view.roster
    propose = "wardround coordinator roster propose FOLDER ROSTER"
    if roster is None:
        if not view.joined:
            return []
        words, more = _("No roster is in force."), _("Without one no study uses secure aggregation. Officers sign it.")
        return [Waiting("note", words, more, propose)]
    found = []
    if roster.days < EXPIRY_DAYS:
        at = {"at": roster.expires.isoformat()}
        ended = roster.days < 0
        words = _("The roster expired on %(at)s.") if ended else _("The roster expires on %(at)s.")
        more = _("Officers sign the next epoch: wardround governance new, with --previous.")
        found.append(Waiting("alert", words % at, more, propose))
    outside = [site.site for site in view.joined if not site.in_roster]
    if outside:
        words = _("Joined, and not in the roster: %(sites)s.") % {"sites": given(", ".join(outside), 400)}
        found.append(Waiting("note", words, _("They take part in no secure aggregation before the next epoch.")))
    return found


def _of_sites(view: HubView) -> list[Waiting]:
    return [
        Waiting(
            "note",
            _("Invited, and not joined yet: %(site)s.") % {"site": given(site.site, 63)},
            _("The code holds until %(at)s. A new one takes its place:") % {"at": moment(site.invited_until)},
            f"wardround coordinator invite FOLDER {site.site}",
        )
        for site in view.sites
        if site.invited_until is not None and site.joined_at is None
    ]
