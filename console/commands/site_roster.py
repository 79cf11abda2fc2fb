"""``wardround site roster``: the roster that a site holds, pinned once by telephone and followed epoch by epoch."""

from collections.abc import Iterator
from pathlib import Path

import typer

from wardround.client.store.database import open_store
from wardround.client.store.folder import SiteFolder
from wardround.client.store.roster import PinnedRoster
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.roster import Roster, standing


def pin_command(folder: Path, file: Path, fingerprint: str) -> None:
    """Take the first roster of the site in ``folder``: the one whose fingerprint an officer read out."""
    pinned = _pinned(folder)
    for line in _in_words(pinned.pin(_bytes(file), fingerprint), pinned):
        typer.echo(line)


def next_command(folder: Path, file: Path) -> None:
    """Follow the roster in force by the next epoch, which the officers have countersigned."""
    pinned = _pinned(folder)
    for line in _in_words(pinned.advance(_bytes(file)), pinned):
        typer.echo(line)


def show_command(folder: Path) -> None:
    """Say which roster is in force at the site, and what evidence it holds against officers."""
    pinned = _pinned(folder)
    if (held := pinned.held()) is None:
        raise UsageError(
            "this site holds no roster yet",
            "pin the first one: wardround site roster pin FOLDER FILE --fingerprint ...",
        )
    for line in _in_words(held, pinned):
        typer.echo(line)


def _pinned(folder: Path) -> PinnedRoster:
    site = SiteFolder.open(folder)
    return PinnedRoster(open_store(site.database), site.identity().public)


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Unavailable(f"'{file}' cannot be read: {error.strerror}", "check the path") from None


def _in_words(roster: Roster, pinned: PinnedRoster) -> Iterator[str]:
    sites = ", ".join(party.site for party in roster.parties)
    yield f"In force: epoch {roster.epoch} of '{roster.consortium}', {roster.issued} to {roster.expires}."
    yield f"Fingerprint: {roster.fingerprint}"
    yield f"Sites: {sites}."
    yield standing(roster)
    for other in pinned.disputed():
        both = sorted({*roster.signers(roster.governance)} & {*other.signers(roster.governance)})
        who = f"signed by {', '.join(both)} as well" if both else "signed by other officers"
        yield f"Evidence: a second roster of epoch {other.epoch}, {who}. Tell the other officers."
