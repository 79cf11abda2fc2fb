"""A study's charges on a data domain, and one charge down to the mechanism's event and the entries of the ledger."""

import json
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from wardround.console.web.given import given
from wardround.console.web.guards import Viewer, console
from wardround.console.web.i18n import N_, _, ngettext, number, number_full
from wardround.console.web.page import Page
from wardround.console.web.pages.budget import READERS
from wardround.console.web.queries.budget import ChargeDetail, EntryLine, StudyCharges
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face, Role
from wardround.console.web.security import Refused
from wardround.protocol.events import DpEvent, PoissonGaussian, TreeGaussian
from wardround.protocol.ledger import Abandon, Cancel, Recover, Release, Reserve, Start

AUDIT: Final = "/audit"
MOST_PAGES: Final = 10**7

router = APIRouter()
charge_router = APIRouter()

STUDY: Final = Page(
    face=Face.SITE,
    path="/budget/{domain}/{plan}",
    title=N_("Charges of a study"),
    group="record",
    roles=READERS,
    router=router,
)
CHARGE: Final = Page(
    face=Face.SITE,
    path="/budget/{domain}/{plan}/{charge}",
    title=N_("One charge"),
    group="record",
    roles=READERS,
    router=charge_router,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the ledger in words."""

    number: int
    at: str
    words: str
    hash: str


@router.get("/budget/{domain}/{plan}")
def charges_of_study(
    request: Request, looks: Viewer, domain: str, plan: str, page: Annotated[int, Query(ge=1, le=MOST_PAGES)] = 1
) -> Response:
    """The study's rounds on the domain, in pages."""
    found: StudyCharges | None = console(request).queries.budgets.study(domain, plan, page)
    if found is None:
        raise Refused(404)
    return render(request, "budget_charges.html.j2", title=_("Charges of a study"), found=found)


@charge_router.get("/budget/{domain}/{plan}/{charge}")
def one_charge(request: Request, looks: Viewer, domain: str, plan: str, charge: int) -> Response:
    """One charge: event, entries, hashes."""
    found: ChargeDetail | None = console(request).queries.budgets.charge(domain, plan, charge)
    if found is None:
        raise Refused(404)
    return render(
        request,
        "budget_charges_one.html.j2",
        title=_("Round %(round)s") % {"round": number(found.charge.round_number)}
        if found.charge.block
        else _("Charged by a recovery"),
        found=found,
        event_words=event_words(found.event, found.plan.clip_norm),
        event_json=json.dumps(found.event.model_dump(mode="json"), indent=2),
        entries=[_entry(line, found) for line in found.entries],
        audit=audit_path(request, looks.role),
    )


def audit_path(request: Request, role: Role) -> str:
    """The page of the audit log, where this console has one for this reader; else ""."""
    pages = console(request).pages
    return AUDIT if any(page.path == AUDIT and role in page.roles for page in pages) else ""


def event_words(event: DpEvent, clip_norm: float | None) -> str:
    """What one round does to this hospital's patients, as the ledger has it."""
    if not isinstance(event, PoissonGaussian):
        return _(
            "A release without noise: no privacy guarantee, sums only, as two officers signed. No epsilon covers it."
        )
    if isinstance(event, TreeGaussian):
        return _tree_words(event)
    sums = ngettext("%(count)s sum", "%(count)s sums", event.steps) % {"count": number(event.steps)}
    norm = _("a norm that the plan fixes") if clip_norm is None else f"C = {number_full(clip_norm)}"
    return _(
        "%(sums)s over a random sample of about %(patients)s declared patients: each of them is drawn by itself with "
        "probability %(probability)s, what a patient adds is cut to %(norm)s, and Gaussian noise with a standard "
        "deviation of %(noise)s times that norm is added to each sum."
    ) % {
        "sums": sums,
        "patients": number(event.declared_patients),
        "probability": number_full(event.sampling_probability),
        "norm": norm,
        "noise": number_full(event.noise_multiplier),
    }


def _tree_words(event: TreeGaussian) -> str:
    words = _(
        "The whole campaign of %(ticks)s ticks, of which each publishes sums over all of about %(patients)s declared "
        "patients: a patient makes at most %(contributions)s contributions to any indicator, so that one patient moves "
        "all sums together by a vector of length 1 at most, and Gaussian noise with a standard deviation of %(noise)s "
        "is added to each sum once. It is charged once, however many ticks are published."
    )
    return words % {
        "ticks": number(event.ticks),
        "patients": number(event.declared_patients),
        "contributions": number(event.contributions),
        "noise": number_full(event.noise_multiplier),
    }


def _entry(line: EntryLine, found: ChargeDetail) -> Entry:
    return Entry(line.number, line.dated.at, fact_words(line, found), line.hash)


def fact_words(line: EntryLine, found: ChargeDetail) -> str:
    """What the entry says."""
    match line.dated.fact:
        case Reserve() as fact if isinstance(fact.event, TreeGaussian):
            return _("The whole campaign was charged, before the first event was read.")
        case Start() if isinstance(found.event, TreeGaussian):
            return _("The campaign started: from here on events of patients may have been read.")
        case Release() as fact if isinstance(found.event, TreeGaussian):
            return _(
                "The answer of tick %(tick)s left, at attempt %(attempt)s; the hash of its bytes is %(content)s."
            ) % {
                "tick": number(fact.round_number or 0),
                "attempt": number(fact.attempt),
                "content": fact.content,
            }
        case Reserve() as fact:
            return _("Round %(round)s was charged, before anything was drawn.") % {"round": number(fact.round_number)}
        case Start() as fact:
            if not fact.opted_out_at_most:
                return _("The round started: from here on patients may have been drawn. Nobody had opted out.")
            return _(
                "The round started: from here on patients may have been drawn. At most %(count)s had opted out."
            ) % {"count": number(fact.opted_out_at_most)}
        case Cancel():
            return _("The round was cancelled before anything was drawn: its charge was given back.")
        case Release() as fact:
            return _("An answer to attempt %(attempt)s left; the hash of its bytes is %(content)s.") % {
                "attempt": number(fact.attempt),
                "content": fact.content,
            }
        case Abandon():
            return _("The round ended without an answer that counts; its charge stays.")
        case Recover() as fact:
            return _(
                "Others had seen %(size)s entries of this ledger, so two officers charged %(rounds)s that may have run "
                "in those that are lost. Reason: %(reason)s"
            ) % {
                "size": number(fact.seen_size),
                "rounds": ngettext("%(count)s round", "%(count)s rounds", found.charge.rounds)
                % {"count": number(found.charge.rounds)},
                "reason": given(fact.reason),
            }
    return line.dated.fact.kind
