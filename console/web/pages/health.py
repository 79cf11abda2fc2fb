"""*Health* of a hospital's machine: daemon and link, what the doctor finds, certificates, disk, backups, last fault."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from wardround.client.doctor import CHECKS, Finding, State
from wardround.console.web.guards import Form, Viewer, console, field
from wardround.console.web.i18n import N_, _, said_again
from wardround.console.web.live import Status
from wardround.console.web.page import Page
from wardround.console.web.pages.overview import live_words
from wardround.console.web.queries.health import Examination, Fault, Health
from wardround.console.web.queries.site import Expiry
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face, Role
from wardround.protocol.errors import WardroundError

router = APIRouter()

PAGE: Final = Page(
    face=Face.SITE,
    path="/health",
    title=N_("Health"),
    group="run",
    roles=frozenset({Role.OFFICER, Role.IT, Role.AUDITOR}),
    router=router,
    writers=frozenset({Role.OFFICER, Role.IT}),
)

SOON_DAYS: Final = 30
"""So many days before its end a certificate should be renewed."""

BACKUP_DAYS: Final = 7
"""Days without a backup after which the page says so."""

STATES: Final = {
    State.OK: ("good", N_("In order")),
    State.WARNING: ("warning", N_("Look at it")),
    State.FAILED: ("alert", N_("Does not work")),
}
_WORST_FIRST: Final = (State.FAILED, State.WARNING, State.OK)

FAULTS: Final = {
    "refused": (
        N_("A request of the coordinator was refused."),
        N_("The log has the reason. Where it is the plan or its approval, tell the officer; else the coordinator."),
    ),
    "link not usable": (
        N_("The SuperNode could not be reached."),
        N_("Walk the way to the coordinator below, and look whether the SuperNode runs: wardround site doctor FOLDER."),
    ),
    "task of another type": (
        N_("The coordinator asked for something that this version does not know."),
        N_("Compare the versions of both sides."),
    ),
    "message failed": (
        N_("A message could not be answered because of a defect."),
        N_("Report the kind of the error, without patients' data. The round goes on without this site."),
    ),
    "control connection lost": (
        N_("A command or a console broke off its connection."),
        N_("Nothing is to be done unless it comes again and again."),
    ),
    "control connection refused": (
        N_("A user of this machine who may not asked the daemon for something."),
        N_("Find out who it was by the user's number; roles stand in site.yaml."),
    ),
    "control call refused": (
        N_("Somebody asked the daemon for what their role may not."),
        N_("Find out who it was; roles stand in site.yaml."),
    ),
    "control call failed": (
        N_("A command or a page met a defect of the daemon."),
        N_("Report the kind of the error, without patients' data."),
    ),
    "the series is not kept": (
        N_("The table of a campaign's series could not be written; the tick was answered."),
        N_("Free the disk, or see who owns the site's folder: the next tick's table takes its place."),
    ),
    "bulletin refused": (
        N_("What another party signed of its ledgers was malformed, or not signed by who it says."),
        N_("If it goes on, call the coordinator: somebody changes what it carries."),
    ),
    "own ledger is not what others hold": (
        N_("Others hold a head of this site's ledger that this file does not continue."),
        N_("Keep the file as it is, and go on as docs/restore.md says: two officers sign a recovery."),
    ),
    "ledger alarm": (
        N_("A party contradicted itself about a ledger, or owes an answer on it."),
        N_("Read the alarm on the page Countersignatures, and go on as docs/operations.md says."),
    ),
    "supernode ended": (
        N_("The SuperNode ended and was started again."),
        N_("If it goes on, walk the way to the coordinator below: a clock that is ahead is the usual reason."),
    ),
}
"""Event of the daemon's log -> what happened, and what to do."""


@dataclass(frozen=True, slots=True)
class Line:
    """A finding as the page shows it."""

    tone: str
    state: str
    question: str
    sentence: str
    cure: str


@dataclass(frozen=True, slots=True)
class Ending:
    """A certificate: ``tone`` and ``words`` say how long it lasts."""

    name: str
    at: datetime
    tone: str
    days: int


@router.get("/health")
def health(request: Request, looks: Viewer) -> Response:
    """The page. The daemon is asked now; the doctor's findings may be a minute old."""
    shared = console(request)
    machine: Health = shared.health
    status: Status = shared.ask()
    study, clock_set_at, ledger_fault = None, "", ""
    try:
        clock_set_at = shared.queries.clock_set_at()
        study = shared.queries.study(status.last_plan) if status.last_plan else None
    except WardroundError as error:
        # This page is where one looks for the reason, so it is shown all the same.
        ledger_fault = error.message
    facts = machine.facts()
    local = machine.machine.recent()
    way = None if machine.way.running else machine.way.last
    return render(
        request,
        "health.html.j2",
        title=_("Health"),
        status=status,
        live=live_words(status, study),
        facts=facts,
        local=local,
        machine_lines=lines(local),
        way=way,
        way_lines=lines(way),
        way_runs=machine.way.running,
        clock=clock_of(way),
        clock_set_at=clock_set_at,
        ledger_fault=ledger_fault,
        endings=[ending(one) for one in [*shared.queries.certificates(), *own_certificate(shared.certificate)]],
        fault=None if facts.fault is None else fault_words(facts.fault),
        low=facts.free < facts.wanted,
        overdue=facts.backed_up_at is None or time.time() - facts.backed_up_at > BACKUP_DAYS * 86_400,
        may_ask=looks.role in PAGE.writers,
    )


@router.post("/health")
def check_again(request: Request, form: Form, looks: Viewer) -> Response:
    """Look at this machine again, or walk the way to the coordinator: ``what`` says which."""
    machine: Health = console(request).health
    (machine.way if field(form, "what", 20) == "way" else machine.machine).examine()
    return RedirectResponse("/health", 303)


def lines(found: Examination | None) -> list[Line]:
    """The findings, the worst first."""
    if found is None:
        return []
    return [line(one) for one in sorted(found.findings, key=lambda one: _WORST_FIRST.index(one.state))]


def line(finding: Finding) -> Line:
    """One finding in the reader's language."""
    tone, state = STATES[finding.state]
    question = said_again(CHECKS[finding.check])
    return Line(tone, _(state), question, said_again(finding.sentence), said_again(finding.cure))


def clock_of(way: Examination | None) -> Line | None:
    """What the way to the coordinator said of both clocks, if it came so far."""
    return next((line(one) for one in (way.findings if way else ()) if one.check == "clock"), None)


def fault_words(fault: Fault) -> tuple[Fault, str, str]:
    """The fault, what happened, and what to do."""
    what, cure = FAULTS[fault.event]
    return fault, _(what), _(cure)


def ending(one: Expiry) -> Ending:
    """A certificate with its state."""
    tone = "alert" if one.days < 0 else "warning" if one.days < SOON_DAYS else "good"
    return Ending(one.name, one.at, tone, one.days)


def own_certificate(path: object) -> list[Expiry]:
    """The console's own certificate for TLS; none where a proxy speaks TLS, or nobody does."""
    try:
        with open(str(path), "rb") as file:
            found = x509.load_pem_x509_certificates(file.read())[0]
    except (OSError, ValueError, IndexError):
        return []
    at = found.not_valid_after_utc
    return [Expiry(found.subject.rfc4514_string(), (at - datetime.now(UTC)).days, at)]
