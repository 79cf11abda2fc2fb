"""From the state of a site to the notices that its people should have. Pure: what was seen comes as a value.

A notice says what happened and what to do. It names studies, domains and rounds, and nothing of a patient. Its ``key``
is the same as long as the matter is, so that nobody hears of it twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from wardround.conf.said import said
from wardround.console.plan_words import plain

BUDGET_STEPS: Final = (50, 80, 100)
"""Per cent of a domain's budget."""

LINK_PATIENCE: Final = timedelta(hours=1)
CERTIFICATE_DAYS: Final = (30, 7, 1)


class Level(StrEnum):
    """How soon somebody should look."""

    NOTE = "note"
    SOON = "soon"
    NOW = "now"


@dataclass(frozen=True, slots=True)
class Notice:
    """``sentence`` what happened, ``cure`` what to do."""

    key: str
    level: Level
    sentence: str
    cure: str


@dataclass(frozen=True, slots=True)
class SeenStudy:
    """A plan at the site. ``voided``: rounds that ended void, by number and attempt, with who voided them."""

    name: str
    digest: str
    standing: str
    fault: str = ""
    voided: tuple[tuple[int, int, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """A site now. ``answers`` False: no daemon answers, and nothing else is known.

    ``spent``: per cent of each domain's budget, rounded down. ``alarms``: what others signed and could not have signed
    honestly, by kind and digest. ``ledgers``: open alarms on ledgers: kind, whose ledger, digest.
    """

    site: str
    at: datetime
    answers: bool
    paused: str | None = None
    link_down_since: datetime | None = None
    studies: tuple[SeenStudy, ...] = ()
    spent: tuple[tuple[str, int], ...] = ()
    certificate_ends: datetime | None = None
    alarms: tuple[tuple[str, str], ...] = ()
    ledgers: tuple[tuple[str, str, str], ...] = ()


def notices(seen: Seen, patience: timedelta = LINK_PATIENCE) -> list[Notice]:
    """Everything that people should know now, the most urgent first.

    ``patience``: so long a link may be down before it is spoken of.
    """
    found = [
        *_alarms(seen),
        *_ledgers(seen),
        *_daemon(seen, patience),
        *_keys(seen),
        *_budgets(seen),
        *_studies(seen),
        *_certificate(seen),
    ]
    return sorted(found, key=lambda notice: list(Level).index(notice.level), reverse=True)


def _alarms(seen: Seen) -> Iterator[Notice]:
    for kind, digest in seen.alarms:
        yield Notice(
            f"alarm/{kind}/{digest}", Level.NOW,
            said(
                "Somebody signed what contradicts what they signed before (%(kind)s, %(digest)s).",
                kind=kind,
                digest=digest[:12],
            ),
            "Look at it with 'wardround site evidence FOLDER', and call the coordinator and the other hospitals.",
        )  # fmt: skip


def _ledgers(seen: Seen) -> Iterator[Notice]:
    for kind, origin, digest in seen.ledgers:
        named = {"site": plain(origin), "digest": digest[:12]}
        sentences = {
            "fork": said("Two histories of the ledger of '%(site)s' were shown (alarm %(digest)s).", **named),
            "rollback": said(
                "The ledger of '%(site)s' lost entries that others have seen (alarm %(digest)s).", **named
            ),
            "silence": said("'%(site)s' owes witnesses an answer on its ledger (alarm %(digest)s).", **named),
        }
        level = Level.SOON if kind == "silence" else Level.NOW
        yield Notice(
            f"ledger/{kind}/{digest}", level, sentences[kind],
            "Look at it with 'wardround site witnessed FOLDER', and go on as docs/operations.md says.",
        )  # fmt: skip


def _daemon(seen: Seen, patience: timedelta) -> Iterator[Notice]:
    if not seen.answers:
        yield Notice(
            "daemon/silent", Level.NOW, "The site's daemon does not answer.",
            "Look at its log, and start it: wardround site start FOLDER. No study goes on here before that.",
        )  # fmt: skip
        return
    if seen.paused is not None:
        yield Notice(
            "daemon/paused", Level.NOTE, said(
                "The site is paused: %(reason)s.",
                reason=plain(seen.paused) if seen.paused.strip() else said("no reason was given"),
            ),
            "It answers no round until somebody runs 'wardround site resume FOLDER'.",
        )  # fmt: skip
    down = seen.link_down_since
    if down is not None and seen.at - down >= patience:
        yield Notice(
            f"link/{down:%Y-%m-%dT%H:%MZ}", Level.SOON,
            said("The link to the coordinator is down since %(time)s UTC.", time=f"{down:%Y-%m-%d %H:%M}"),
            "Run 'wardround site doctor FOLDER': it says where the way is blocked.",
        )  # fmt: skip


def _keys(seen: Seen) -> Iterator[Notice]:
    waiting = sorted(study.digest for study in seen.studies if study.standing == "suspended")
    if waiting:
        yield Notice(
            f"officer-keys/{'/'.join(digest[:12] for digest in waiting)}", Level.NOW,
            said("An officer's key was suspended. Studies to be signed again: %(count)s.", count=len(waiting)),
            "Look with 'wardround site officer list FOLDER', and go on as docs/officer-keys.md says.",
        )  # fmt: skip


def _budgets(seen: Seen) -> Iterator[Notice]:
    for domain, spent in seen.spent:
        step = max((step for step in BUDGET_STEPS if spent >= step), default=None)
        if step is None:
            continue
        name = plain(domain)
        if step == 100:
            sentence = said("Of the privacy budget of '%(domain)s' all is spent.", domain=name)
            cure = said(
                "No further round fits. What is spent stays spent; new patients make a new domain (docs/patients.md)."
            )
        else:
            sentence = said("Of the privacy budget of '%(domain)s' %(step)s %% is spent.", domain=name, step=step)
            cure = said("Before the next approval ask what it leaves: wardround site study show FOLDER STUDY.")
        level = Level.SOON if step >= 80 else Level.NOTE
        yield Notice(f"budget/{domain}/{step}", level, sentence, cure)


def _studies(seen: Seen) -> Iterator[Notice]:
    for study in seen.studies:
        name, short = plain(study.name)[:80], study.digest[:12]
        if study.standing == "proposed":
            waits = said("The study '%(study)s' (%(digest)s) waits for a decision.", study=name, digest=short)
            if study.fault:
                waits = said(
                    "%(waits)s It cannot run here as it is: %(fault)s.", waits=waits, fault=plain(study.fault)[:300]
                )
            yield Notice(
                f"study/{study.digest}/waiting", Level.NOTE, waits,
                "Read it with 'wardround site study show', then approve or refuse it.",
            )  # fmt: skip
        for number, attempt, by in study.voided:
            here = seen.site in by
            values = {"number": number, "study": name, "digest": short, "attempt": attempt, "sites": ", ".join(by)}
            yield Notice(
                f"round/{study.digest}/{number}/{attempt}", Level.SOON if here else Level.NOTE,
                said(
                    "Round %(number)s of '%(study)s' (%(digest)s), attempt %(attempt)s, was void, because of "
                    "%(sites)s.",
                    **values,
                )
                if by
                else said(
                    "Round %(number)s of '%(study)s' (%(digest)s), attempt %(attempt)s, was void.", **values
                ),
                "Run 'wardround site doctor FOLDER'; the daemon's log says why this site voided it."
                if here
                else "Nothing is to be done here; the coordinator tries it again as the plan says.",
            )  # fmt: skip


def _certificate(seen: Seen) -> Iterator[Notice]:
    if seen.certificate_ends is None:
        return
    left = (seen.certificate_ends - seen.at).days
    step = min((days for days in CERTIFICATE_DAYS if left < days), default=None)
    if step is not None:
        when = f"{seen.certificate_ends:%Y-%m-%d}"
        yield Notice(
            f"certificate/{when}/{step}", Level.NOW if step <= 7 else Level.SOON,
            said("The coordinator's certificate authority ends on %(date)s, in %(days)s day(s).", date=when, days=left)
            if left >= 0
            else said("The coordinator's certificate authority ended on %(date)s.", date=when),
            "Ask the coordinator's people for the next one ('wardround coordinator renew'), and pin it here.",
        )  # fmt: skip
