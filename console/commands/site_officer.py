"""``wardround site officer``: whose keys may sign, what they have signed, and what is done when one is lost or stolen.

Beside a running daemon everything goes through its control socket. Without one, IT works on the folder itself: a stolen
key must be stopped while the daemon is down too.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import typer

from wardround.client.control import control_pb2 as pb
from wardround.client.control.client import SECONDS, control
from wardround.client.store.database import open_store
from wardround.client.store.folder import SiteFolder
from wardround.client.store.keys import fingerprint, read_officer_card, read_officer_key
from wardround.client.store.ledger import Ledger
from wardround.client.store.officers import roll_of
from wardround.client.store.studies import Studies
from wardround.console.commands.ledger import passphrase
from wardround.console.plan_words import plain
from wardround.privacy.approvals import EYES_TO_RECOVER
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.ledger import Officers, Suspend, approve
from wardround.protocol.plan import StudyPlan

EFFECTS: Final = {
    "stands": "stands",
    "suspended": "SUSPENDED until it is signed again",
    "replaced": "was replaced by a later one",
    "revokes": "revokes",
    "done": "stays",
}
KINDS: Final = {
    "officers": "list of officers",
    "open_domain": "budget",
    "waive": "waiver",
    "grant": "approval",
    "close": "budget closed",
    "recover": "recovery",
    "set_clock": "clock set",
    "suspend": "a key suspended",
}

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Place:
    """A site's ledger, behind its daemon or on the disk. ``names``: of the studies, by the digests of their plans."""

    ledger_key: str
    roll: Callable[[], Any]
    names: Callable[[], dict[str, str]]
    record: Callable[[Any], None]


def list_command(folder: Path) -> None:
    """Every officer's key, how it stands, and what it has signed."""
    roll, names = _at(folder, lambda place: (place.roll(), place.names()))
    for key in roll.keys:
        for line in _key_in_words(key, names):
            typer.echo(line)
    for line in _waiting(roll, roll.waiting, names):
        typer.echo(line)


def suspend_command(
    folder: Path, which: str, reason: Literal["lost", "stolen"], note: str, officer_key: Path, yes: bool
) -> None:
    """Suspend an officer's key at once and for ever, with the signature of any officer."""

    def work(place: _Place) -> tuple[Any, Any, Any, dict[str, str]]:
        before = place.roll()
        key = _found(which, before.keys)
        typer.echo(f"The key of {key.name}, {fingerprint(bytes.fromhex(key.key))}, was {reason}.")
        typer.echo("It will approve nothing any more, and all that rests on it stops until it is signed again.")
        if not yes and not typer.confirm("Suspend this key for ever?"):
            typer.echo("Not suspended.")
            raise typer.Exit(1)
        officer = read_officer_key(officer_key, passphrase(f"Passphrase of {officer_key.name}"))
        fact = Suspend(key=key.key, reason=reason, note=" ".join(note.split())[:200])
        place.record(approve(fact, place.ledger_key, officer))
        return key, before, place.roll(), place.names()

    key, before, after, names = _at(folder, work)
    typer.echo(f"Suspended: the key of {key.name}.")
    stopped = [digest for digest in after.waiting if digest not in before.waiting]
    for line in _waiting(after, stopped, names):
        typer.echo(line)
    typer.echo("What else it has signed: wardround site officer list FOLDER")


def name_command(folder: Path, cards: Sequence[Path], officer_keys: Sequence[Path], yes: bool) -> None:
    """Replace the list of officers: who is on no card may sign nothing from then on."""
    officers = {card.site: card.key.hex() for card in map(read_officer_card, cards)}
    if len(officers) != len(cards):
        raise UsageError("two cards name the same officer", "every officer has a name and a key of her own")

    def work(place: _Place) -> None:
        roll = place.roll()
        now = {key.name: key.key for key in roll.keys if key.listed}
        for name, key in sorted(officers.items()):
            word = "stays" if now.get(name) == key else "new key" if name in now else "new"
            typer.echo(f"  {name:<20} {fingerprint(bytes.fromhex(key))}  {word}")
        for name in sorted(now.keys() - officers.keys()):
            typer.echo(f"  {name:<20} may sign nothing any more; what was signed stands")
        typer.echo("Compare the fingerprint of each new key by telephone.")
        if not yes and not typer.confirm("Name these officers?"):
            typer.echo("Not named.")
            raise typer.Exit(1)
        fact = Officers(version=roll.version + 1, officers=officers)
        for path in officer_keys:
            signer = read_officer_key(path, passphrase(f"Passphrase of {path.name}"))
            fact = approve(fact, place.ledger_key, signer)
        place.record(fact)

    _at(folder, work)
    typer.echo(f"Named: {', '.join(sorted(officers))}.")


def _at(folder: Path, work: Callable[[_Place], _T]) -> _T:
    """What ``work`` gives at the site's daemon, or on its folder where no daemon answers."""
    try:
        with control(folder) as site:
            status = site.Status(pb.StatusRequest(), timeout=SECONDS)
    except Unavailable:
        if folder.is_socket():
            raise
        return work(_on_disk(folder))
    with control(folder) as site:
        return work(_behind(site, status.ledger_key))


def _behind(site: Any, ledger_key: str) -> _Place:
    def record(fact: Any) -> None:
        site.Record(pb.RecordRequest(facts=[fact.model_dump_json().encode()]), timeout=SECONDS)

    def names() -> dict[str, str]:
        studies = site.ListStudies(pb.Empty(), timeout=SECONDS).studies
        return {one.digest: StudyPlan.parse(bytes(one.plan)).study for one in studies}

    return _Place(ledger_key, lambda: site.ListOfficers(pb.Empty(), timeout=SECONDS), names, record)


def _on_disk(folder: Path) -> _Place:
    site = SiteFolder.open(folder)
    store = open_store(site.database)
    ledger = Ledger(store, site.site, site.identity())
    return _Place(
        site.identity().public.key.hex(),
        lambda: roll_of(store, site.site, ledger.state),
        lambda: {held.digest: held.plan.study for held in Studies(store).all()},
        ledger.record,
    )


def _found(which: str, keys: Sequence[Any]) -> Any:
    """The one key that is meant: by a card's file, the key, its fingerprint, or the officer's name."""
    path = Path(which)
    wanted = read_officer_card(path).key.hex() if path.is_file() else "".join(which.lower().split())
    found = [
        key
        for key in keys
        if wanted in (key.key, fingerprint(bytes.fromhex(key.key)).replace(" ", "")) or key.name == which
    ]
    if len(found) != 1:
        known = ", ".join(f"{key.name} ({fingerprint(bytes.fromhex(key.key))})" for key in keys)
        raise UsageError(f"'{plain(which)[:80]}' is no one officer's key here", f"known here: {known}")
    return found[0]


def _key_in_words(key: Any, names: dict[str, str]) -> Iterator[str]:
    standing = "may sign" if key.listed else "no officer any more"
    if key.reason:
        standing = f"SUSPENDED: {key.reason}, reported {key.at}" + (f" ({plain(key.note)})" if key.note else "")
    yield f"{key.name:<20} {fingerprint(bytes.fromhex(key.key))}  {standing}"
    for one in key.signed:
        about = plain(names.get(one.plan, "")) or one.plan[:12]
        where = f" on '{plain(one.domain)}'" if one.domain else ""
        what = f"{KINDS.get(one.kind, one.kind)}{f' of {about}' if about else ''}{where}"
        yield f"    entry {one.entry}, {one.at}: {what}: {EFFECTS[one.effect]}"


def _waiting(roll: Any, plans: Sequence[str], names: dict[str, str]) -> Iterator[str]:
    """What waits to be signed again, each with its command, and whether enough keys are left for the rest."""
    domains = {
        one.domain for key in roll.keys for one in key.signed if (one.kind, one.effect) == ("open_domain", "suspended")
    }
    if domains or plans:
        yield "Waits to be signed again, by an officer who has read it anew:"
    for domain in sorted(domains):
        yield f"  the budget of '{plain(domain)}', with the same numbers as before:"
        yield f"    wardround site domain open FOLDER {plain(domain)} --patients N --epsilon-cap E --officer-key FILE"
    for digest in plans:
        yield f"  the study {plain(names.get(digest, 'that nobody proposed here'))}:"
        yield f"    wardround site study approve FOLDER {digest[:12]} --officer-key FILE"
    able = [key.name for key in roll.keys if key.listed and not key.reason]
    yield f"May sign now: {', '.join(able) or 'nobody'}."
    if any(key.listed and key.reason for key in roll.keys):
        if len(able) >= min(EYES_TO_RECOVER, sum(key.listed for key in roll.keys)):
            yield "Name a new key for who lost one: wardround site officer name FOLDER --officer CARD ..."
        else:
            yield f"A new list of officers takes {EYES_TO_RECOVER} of them: too few are left (docs/officer-keys.md)."
