"""*Notices*: what people should know now and what to do, and what was sent. The words are those of the e-mails."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from wardround.conf.said import said
from wardround.console.notices.channels import channels_of
from wardround.console.notices.journal import Delivery, Journal, Outcome
from wardround.console.notices.settings import NotifySettings, read_notify
from wardround.console.notices.told import TOLD
from wardround.console.notices.watching import Level, Notice, Seen
from wardround.console.web.guards import Form, Viewer, console
from wardround.console.web.i18n import N_, _, said_again
from wardround.console.web.page import Page
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face, Role
from wardround.console.web.wayfinding import where
from wardround.protocol.errors import UsageError, WardroundError

router = APIRouter()

PAGE: Final = Page(
    face=Face.SITE,
    path="/notices",
    title=N_("Notices"),
    group="now",
    roles=frozenset({Role.OFFICER, Role.IT, Role.AUDITOR}),
    router=router,
    writers=frozenset({Role.IT}),
)

LEVELS: Final = {
    Level.NOW: ("alert", N_("Now")),
    Level.SOON: ("warning", N_("Soon")),
    Level.NOTE: ("note", N_("To know")),
}
CHANNELS: Final = {"email": N_("E-mail"), "webhook": N_("Webhook")}
MOST_SHOWN: Final = 20
TEST_EVERY: Final = 30.0
"""Seconds between two test messages."""

_testing = threading.Lock()
_tested_at = -TEST_EVERY


@dataclass(frozen=True, slots=True)
class Shown:
    """A notice as the page shows it. ``path``: of the page where it can be done, or ""; ``sent``: what went out."""

    tone: str
    level: str
    sentence: str
    cure: str
    path: str
    sent: tuple[Delivery, ...]


@router.get("/notices")
def notices(request: Request, looks: Viewer) -> Response:
    """The page."""
    shared = console(request)
    found: list[Notice] = shared.noticing.look()
    sent = Journal.beside(shared.path / TOLD).read()
    settings, fault = _settings(shared.path)
    said_done = {
        "sent": _("The test message was handed over."),
        "failed": _("The test message was not taken; the table below says why."),
        "wait": _("A test message was sent just now. Wait half a minute."),
    }
    done = request.query_params.get("test", "")
    return render(
        request,
        "notices.html.j2",
        title=_("Notices"),
        notices=[shown(one, looks.role, shared.pages, sent) for one in found],
        sent=[(one, [said_again(told.sentence.said()) for told in one.notices]) for one in sent[:MOST_SHOWN]],
        more=max(0, len(sent) - MOST_SHOWN),
        channels={name: _(words) for name, words in CHANNELS.items()},
        settings=settings,
        settings_fault=fault,
        webhook_host=urlsplit(settings.webhook.url).hostname if settings and settings.webhook else "",
        looked_at=_changed(shared.path / TOLD),
        done=said_done.get(done, ""),
        done_tone="good" if done == "sent" else "alert",
        may_test=looks.role in PAGE.writers and settings is not None,
    )


@router.post("/notices/test")
def send_test(request: Request, form: Form, looks: Viewer) -> Response:
    """One message to every channel that notify.yaml names, which asks for nothing."""
    global _tested_at
    shared = console(request)
    channels = channels_of(read_notify(shared.path), shared.path)
    with _testing:
        if time.monotonic() - _tested_at < TEST_EVERY:
            return _back("wait")
        _tested_at = time.monotonic()
    now, failed = datetime.now(UTC), 0
    test = Notice(
        "test",
        Level.NOTE,
        said("This is a test message; IT asked for it in the console."),
        said("Nothing is to be done: notices of this site reach you."),
    )
    journal = Journal.beside(shared.path / TOLD)
    for name, channel in channels.items():
        try:
            channel.send(Seen(shared.place, now, answers=True), [test])
            journal.note(now, name, Outcome.SENT, [test])
        except WardroundError as error:
            failed += 1
            journal.note(now, name, Outcome.FAILED, [test], error.message)
    return _back("failed" if failed or not channels else "sent")


def shown(notice: Notice, role: Role, pages: Sequence[Page], sent: Sequence[Delivery]) -> Shown:
    """A notice in the reader's language, with the way to where it can be done and what was sent of it."""
    tone, level = LEVELS[notice.level]
    of = tuple(one for one in sent if any(told.key == notice.key for told in one.notices))
    path = where(notice, role, pages)
    return Shown(tone, _(level), said_again(notice.sentence), said_again(notice.cure), path, of[:3])


def _settings(folder: Path) -> tuple[NotifySettings | None, str]:
    """(whom notices go to, what is wrong with that); both empty where nobody has written notify.yaml."""
    try:
        return read_notify(folder), ""
    except UsageError as error:
        return None, error.message if (folder / "notify.yaml").exists() else ""


def _changed(file: Path) -> float | None:
    try:
        return file.stat().st_mtime
    except OSError:
        return None


def _back(how: str) -> Response:
    return RedirectResponse(f"/notices?test={how}", 303)
