"""What an alarm on a ledger is in words: what was seen, what it means, and what to do, as docs/operations.md says."""

from dataclasses import dataclass

from wardround.console.web.given import given
from wardround.console.web.i18n import _
from wardround.console.web.queries.alarms import AlarmLine, Missing
from wardround.protocol.alarm import AlarmKind


@dataclass(frozen=True, slots=True)
class AlarmWords:
    """``kind`` in a word or two; ``seen``: what was seen; ``meaning``: what it means; ``cure``: what to do."""

    kind: str
    seen: str
    meaning: str
    cure: str


def alarm_words(line: AlarmLine, *, coordinator: bool = False) -> AlarmWords:
    """``coordinator``: for its people, and not a hospital's."""
    kinds = {AlarmKind.FORK: _("Two histories"), AlarmKind.ROLLBACK: _("Shorter than before")}
    kind = kinds.get(line.kind, _("Silence"))
    if not line.open:
        return AlarmWords(kind, _seen(line), *_answered(line))
    if line.kind is AlarmKind.SILENCE:
        return AlarmWords(kind, _seen(line), _("One party alone has seen this, and it proves nothing."), _unheard(line))
    return AlarmWords(kind, _seen(line), _meaning(line), _cure(line, coordinator))


def _seen(line: AlarmLine) -> str:
    site = {"site": given(line.origin, 63)}
    if line.kind is AlarmKind.FORK:
        return _("The ledger of %(site)s has two histories: its key signed both.") % site
    if line.kind is AlarmKind.ROLLBACK:
        return _("The ledger of %(site)s was longer before: its key signed both lengths.") % site
    words = {
        Missing.COSIGNATURE: _("No countersignature of %(site)s has come, round after round, though it takes part."),
        Missing.BULLETIN: _("No bulletin of %(site)s has come, round after round, though it takes part."),
        Missing.PROOF: _("%(site)s does not prove that a head which others hold belongs to its ledger."),
    }
    return words.get(line.missing, _("%(site)s is silent.")) % site


def _meaning(line: AlarmLine) -> str:
    if line.own:
        return _("This site's file is not what this site signed before. No new charge is made here meanwhile.")
    if line.kind is AlarmKind.FORK:
        return _("A restore that nobody recovered, a copied machine, or a rewritten past. Its own signatures prove it.")
    return _("An old backup or a snapshot of its machine was put back. Its own signatures prove it.")


def _cure(line: AlarmLine, coordinator: bool) -> str:
    if line.own:
        return _("Stop the daemon, look for a second machine with this key, then docs/restore.md from step 4.")
    if coordinator:
        return _(
            "Tell the officers of all hospitals, and have its officers called on a number that is known. If no "
            "recovery comes within days, the officers sign a roster without it (docs/roster.md). No head of it is "
            "signed meanwhile."
        )
    return _(
        "Call its officers on a number that you know. If no recovery comes within days, the officers sign a roster "
        "without it (docs/roster.md). This site goes on, and signs no head of it meanwhile."
    )


def _unheard(line: AlarmLine) -> str:
    if line.missing is Missing.PROOF:
        return _("Ask its officers to run wardround ledger verify --against the head that others hold.")
    return _(
        "Somebody may keep it back. Call the coordinator's operator and that hospital; if it goes on, compare "
        "wardround ledger checkpoint by telephone."
    )


def _answered(line: AlarmLine) -> tuple[str, str]:
    if line.kind is AlarmKind.SILENCE:
        return _("What was missing has come."), _("Nothing is to be done.")
    return (
        _("The hospital has named the lost head as recovered. That is its own word."),
        _("Ask its officers whether two of them signed the recovery, and when."),
    )
