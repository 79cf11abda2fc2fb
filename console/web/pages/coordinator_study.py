"""*Study* of the coordinator: how its plan stands at each site, its rounds as they run, and what it has released."""

from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from wardround.console.plan_words import sections
from wardround.console.web.guards import Viewer, console
from wardround.console.web.i18n import N_, _, ngettext, number
from wardround.console.web.page import Page
from wardround.console.web.queries.coordinator import HubStudy, State
from wardround.console.web.queries.hub_rounds import Cell, Part, RoundLine, Step
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face, Role
from wardround.console.web.rounds_chart import alone, grid
from wardround.console.web.security import Refused
from wardround.console.web.streaming import stream

router = APIRouter()

PAGE: Final = Page(
    face=Face.COORDINATOR,
    path="/studies/{digest}",
    title=N_("Study"),
    group="now",
    roles=frozenset({Role.COORDINATOR, Role.RESEARCHER}),
    router=router,
)

AT_ONCE: Final = 25
"""Receipts on one page."""

STATES: Final = {
    State.WAITING: (N_("Waits for approvals"), "note"),
    State.READY: (N_("Approved, not started"), "note"),
    State.RUNNING: (N_("Running"), "good"),
    State.STOPPING: (N_("Stopping"), "alert"),
    State.STOPPED: (N_("Stopped"), "plain"),
    State.FINISHED: (N_("Finished"), "good"),
    State.NEEDS_PEOPLE: (N_("Needs people"), "alert"),
}
PARTS: Final = {
    Part.IN_SUM: N_("in the sum"),
    Part.UNOPENED: N_("answered; no sum opened"),
    Part.SILENT: N_("answered, did not help to open the sum"),
    Part.REFUSED: N_("refused"),
    Part.LOST: N_("no answer"),
    Part.LATE: N_("too late"),
    Part.VIOLATED: N_("broke a rule of the protocol"),
    Part.WAITING: N_("not yet answered"),
}
STEPS: Final = {
    Step.SESSION: N_("when the session was set up"),
    Step.VECTOR: N_("when its vector was due"),
    Step.OPENING: N_("when the sum was opened"),
}
CODES: Final = {
    "unavailable": N_("unavailable"),
    "policy": N_("its policy"),
    "protocol": N_("a rule of the protocol"),
}
PHASES: Final = {
    "setting up secure aggregation": N_("Setting up secure aggregation"),
    "training": N_("Training at the hospitals"),
    "opening the sum": N_("Opening the sum"),
    "handing out the model": N_("Handing out the model"),
}
FAULTS: Final = {
    "chain": N_("They are no chain: one was left out, put in or changed."),
    "unreadable": N_("One of them is no receipt that can be read."),
    "signature": N_("A signature under one of them does not hold."),
}
COMMANDS: Final = {
    State.WAITING: (N_("Start it as soon as enough hospitals have approved"), "start"),
    State.READY: (N_("Start it"), "start"),
    State.RUNNING: (N_("Stop it; what was charged stays charged"), "stop"),
    State.STOPPING: (N_("Go on where it was"), "resume"),
    State.STOPPED: (N_("Go on where it was"), "resume"),
    State.NEEDS_PEOPLE: (N_("Go on where it was"), "resume"),
    State.FINISHED: (N_("Check the receipts and copy them with plan and model"), "fetch"),
}


@dataclass(frozen=True, slots=True)
class Command:
    """What somebody may type on the coordinator's machine, and what it does."""

    words: str
    typed: str


@router.get("/studies/{digest}")
def study(
    request: Request, looks: Viewer, digest: str, page: Annotated[int | None, Query(ge=1, le=10_000)] = None
) -> Response:
    """The page; ``page``: which receipts, the newest where it is left out."""
    queries = console(request).queries
    found: HubStudy | None = queries.study(digest)
    plan = queries.plan(digest)
    if found is None or plan is None:
        raise Refused(404)
    pages = max(1, -(-len(found.lines) // AT_ONCE))
    shown = min(page or pages, pages)
    lines = found.lines[(shown - 1) * AT_ONCE : shown * AT_ONCE]
    now = found.current if shown == pages else None
    drawn = grid(
        lines,
        now.cells if now else (),
        len(found.standings),
        min(AT_ONCE, max(found.rounds, len(found.lines))),
        now.number if now else 0,
    )
    return render(
        request,
        "coordinator_study.html.j2",
        title=_("Study"),
        study=found,
        words=study_words(found),
        state=_(STATES[found.state][0]),
        rounds=[(line, line_words(line)) for line in lines],
        drawn=drawn,
        legend=[(part.value, alone(part), _(words)) for part, words in PARTS.items()],
        now={cell.site: now_words(cell) for cell in now.cells} if now else {},
        last={cell.site: part_words(cell) for cell in found.lines[-1].cells} if found.lines else {},
        pages=pages,
        page=shown,
        commands=commands(found),
        fault=_(FAULTS[found.fault]) if found.fault else "",
        sections=sections(plan),
    )


@router.get("/studies/{digest}/live")
async def live(request: Request, looks: Viewer, digest: str) -> Response:
    """What has changed, as server-sent events."""
    queries = console(request).queries
    if await run_in_threadpool(queries.study, digest) is None:
        raise Refused(404)

    def words(count: int) -> dict[str, str]:
        found: HubStudy | None = queries.study(digest)
        return {} if found is None else study_words(found) | {"fresh": str(count)}

    return await stream(request, looks, words)


def study_words(study: HubStudy) -> dict[str, str]:
    """What the page says of the moment, by the name of the place."""
    state, tone = STATES[study.state]
    now = study.current
    of = {"done": number(study.done), "rounds": number(study.rounds)}
    return {
        "state": _(state),
        "tone": tone,
        "rounds": _("%(done)s of %(rounds)s") % of,
        "step": _("none now") if now is None else step_words(now.number, now.attempt, now.phase),
        "left": left_words(now.seconds_left if now else None),
    }


def step_words(round_number: int, attempt: int, phase: str) -> str:
    """Where the round that runs is."""
    words = _(PHASES[phase]) if phase in PHASES else _("Running")
    if not round_number:
        return words
    if attempt > 1:
        tried = {"step": words, "round": number(round_number), "attempt": number(attempt)}
        return _("%(step)s: round %(round)s, attempt %(attempt)s") % tried
    return _("%(step)s: round %(round)s") % {"step": words, "round": number(round_number)}


def left_words(seconds: float | None) -> str:
    if seconds is None:
        return _("not known")
    return _("about %(time)s, as the last rounds took") % {"time": duration_words(round(seconds))}


def duration_words(seconds: int) -> str:
    """So many seconds, minutes or hours."""
    if seconds < 90:
        return ngettext("%(count)s second", "%(count)s seconds", seconds) % {"count": number(seconds)}
    if seconds < 90 * 60:
        minutes = round(seconds / 60)
        return ngettext("%(count)s minute", "%(count)s minutes", minutes) % {"count": number(minutes)}
    hours = round(seconds / 3600)
    return ngettext("%(count)s hour", "%(count)s hours", hours) % {"count": number(hours)}


def part_words(cell: Cell) -> str:
    """What a site did, with the word that it refused with, if it may say one; never more than that."""
    words = _(PARTS[cell.part])
    return words if cell.code is None else f"{words} ({_(CODES[cell.code.value])})"


def now_words(cell: Cell) -> str:
    """The same in the round that runs, whose sum may yet be opened."""
    return _("answered") if cell.part is Part.UNOPENED else part_words(cell)


@dataclass(frozen=True, slots=True)
class LineWords:
    """A receipt's line in words. ``dropped``: (site, what happened)."""

    took: str
    dropped: tuple[tuple[str, str], ...]
    seconds: str


def line_words(line: RoundLine) -> LineWords:
    dropped = tuple((cell.site, _dropped(cell)) for cell in line.cells if cell.step is not None)
    return LineWords(
        _("%(sum)s of %(sites)s") % {"sum": number(line.opened_over), "sites": number(len(line.cells))},
        dropped,
        "" if line.seconds is None else duration_words(line.seconds),
    )


def _dropped(cell: Cell) -> str:
    if cell.step is None or cell.part is Part.SILENT:
        return part_words(cell)
    return _("%(what)s, %(when)s") % {"what": part_words(cell), "when": _(STEPS[cell.step])}


def commands(study: HubStudy) -> list[Command]:
    """What changes the study: at the command line, on the coordinator's machine."""
    words, verb = COMMANDS[study.state]
    name, out = study.digest[:12], " --out NEW_FOLDER" if verb == "fetch" else ""
    return [
        Command(_(words), f"wardround study {verb} {name} --coordinator FOLDER{out}"),
        Command(_("Watch it in a terminal"), f"wardround study watch {name} --coordinator FOLDER"),
    ]
