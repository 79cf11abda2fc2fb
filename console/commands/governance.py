"""``wardround governance``: make the roster, say what is in it, and sign it on an officer's own machine."""

import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

import typer
import yaml
from pydantic import ValidationError

from wardround.client.store.keys import fingerprint, read_officer_key
from wardround.client.yaml_text import load_yaml
from wardround.console.commands.ledger import passphrase
from wardround.console.new_files import write_new
from wardround.protocol.errors import ProtocolViolation, Unavailable, UsageError
from wardround.protocol.owners import Governance, Owner, compared
from wardround.protocol.roster import Roster, check_follows, check_signed, first_fault, standing

_GIVEN_BY_US: Final = {"format", "epoch", "previous", "signatures"}


def new_command(path: Path, out: Path, previous: Path | None) -> None:
    """Write the roster that the YAML in ``path`` describes, unsigned, to the new file ``out``."""
    before = None if previous is None else _previous(previous)
    roster = _from_yaml(path, before)
    if before is not None:
        _follows(before, roster)
    write_new(out, roster.canonical)
    typer.echo(f"{out}: the roster of epoch {roster.epoch}, not signed yet.")
    typer.echo(f"Fingerprint: {roster.fingerprint}")
    typer.echo("Next: each officer runs 'wardround governance sign' on it.")


def show_command(path: Path, previous: Path | None) -> None:
    """Print the roster in ``path`` in words; with ``previous`` what changes."""
    roster, before = _roster(path), None if previous is None else _previous(previous)
    if before is not None:
        _follows(before, roster)
    for line in _in_words(roster, before):
        typer.echo(line)


def sign_command(path: Path, key: Path, previous: Path | None, out: Path | None, yes: bool) -> None:
    """Show the roster in ``path``, ask, and add the signature of the officer whose key is in ``key``."""
    roster, before = _roster(path), None if previous is None else _previous(previous)
    if before is not None:
        _follows(before, roster)
    elif roster.epoch > 1:
        raise UsageError(
            f"this is epoch {roster.epoch}, and nobody should sign it without seeing what changes",
            "give the roster of the epoch before, from your own files: --previous FILE",
        )
    if roster.expires < _today():
        raise UsageError(f"this roster has expired on {roster.expires}", "make a new one with a later date")
    for line in _in_words(roster, before):
        typer.echo(line)
    if not yes and not typer.confirm("Sign this roster?"):
        typer.echo("Not signed.")
        raise typer.Exit(1)
    officer = read_officer_key(key, passphrase(f"Passphrase of {key.name}"))
    public = officer.public.key.hex()
    if public not in _may_sign(roster, before):
        raise UsageError(
            f"the key of '{officer.site}' is no governance key of this roster or of the one before",
            "an officer's key counts from the roster on that names it",
        )
    signed = roster.signed_by(officer)
    if out is None:
        _replace(path, signed)
    else:
        write_new(out, signed.canonical)
    typer.echo(f"{out or path}: signed by {officer.site}. {_missing(signed, before)}")


def _may_sign(roster: Roster, before: Roster | None) -> set[str]:
    keys = set(roster.governance.keys.values())
    return keys if before is None else keys | set(before.governance.keys.values())


def _in_words(roster: Roster, before: Roster | None) -> Iterator[str]:
    """Everything that an officer answers for, then who has signed."""
    yield f"Roster of '{roster.consortium}', epoch {roster.epoch}, issued {roster.issued}, expires {roster.expires}."
    yield f"Fingerprint, from the bytes of this file: {roster.fingerprint}"
    if before is not None:
        yield f"It follows the roster of epoch {before.epoch} that you gave."
    elif roster.previous is not None:
        yield f"It follows a roster that you did not give, with digest {roster.previous}."
    yield f"Coordinator: {_owner(roster.coordinator)}"
    yield f"Sites: {len(roster.parties)}"
    for party in roster.parties:
        yield f"  {party.site}: {_owner(party)}; valid {party.valid_from} to {party.valid_until}"
    yield f"Officers: {roster.governance.m} of {len(roster.governance.keys)} must sign"
    for name, key in sorted(roster.governance.keys.items()):
        yield f"  {name}: key {_key(key)}"
    yield from _under_one_roof(roster)
    yield standing(roster)
    if before is not None:
        changes = [f"  {change}" for change in _changes(before, roster)]
        yield f"Against epoch {before.epoch}:"
        yield from changes or ["  nothing but dates"]
    yield _missing(roster, before)
    if roster.expires < _today():
        yield f"It has expired on {roster.expires}: no session begins with it."


def _owner(owner: Owner) -> str:
    return f"{owner.legal_entity}, controlled by {owner.controlling_authority}; key {_key(owner.key)}"


def _key(key: str) -> str:
    return fingerprint(bytes.fromhex(key))


def _under_one_roof(roster: Roster) -> Iterator[str]:
    """Who is one owner, and which authority controls more than one site."""
    entities, authorities = defaultdict(list), defaultdict(list)
    for party in roster.parties:
        entities[compared(party.legal_entity)].append(party)
        authorities[compared(party.controlling_authority)].append(party)
    for parties in entities.values():
        if len(parties) > 1:
            names = ", ".join(party.site for party in parties)
            yield f"One legal entity, {parties[0].legal_entity}: {names}. A session takes one of them."
    for parties in authorities.values():
        if len(parties) > 1:
            names = ", ".join(party.site for party in parties)
            yield f"One controlling authority, {parties[0].controlling_authority}: {names}."


def _changes(before: Roster, roster: Roster) -> Iterator[str]:
    """What an officer must know before signing: who is new, gone, has another key, owner or validity."""
    old, new = ({party.site: party for party in one.parties} for one in (before, roster))
    for site in sorted(old.keys() | new.keys()):
        if site not in old:
            yield f"NEW SITE {site}: {_owner(new[site])}"
        elif site not in new:
            yield f"SITE GONE {site}: its key counts no longer"
        else:
            yield from _owner_changes(f"site {site}", old[site], new[site])
            was, is_ = ((party.valid_from, party.valid_until) for party in (old[site], new[site]))
            if was != is_:
                yield f"site {site}: valid {is_[0]} to {is_[1]}, before {was[0]} to {was[1]}"
    yield from _owner_changes("the coordinator", before.coordinator, roster.coordinator)
    yield from _governance_changes(before.governance, roster.governance)


def _owner_changes(who: str, old: Owner, new: Owner) -> Iterator[str]:
    if old.key != new.key:
        yield f"KEY CHANGED of {who}: now {_key(new.key)}, before {_key(old.key)}"
    if old.legal_entity != new.legal_entity:
        yield f"LEGAL ENTITY CHANGED of {who}: now {new.legal_entity}, before {old.legal_entity}"
    if old.controlling_authority != new.controlling_authority:
        yield f"CONTROL CHANGED of {who}: now {new.controlling_authority}, before {old.controlling_authority}"


def _governance_changes(old: Governance, new: Governance) -> Iterator[str]:
    for name in sorted(old.keys.keys() | new.keys.keys()):
        if name not in old.keys:
            yield f"NEW OFFICER {name}: key {_key(new.keys[name])}"
        elif name not in new.keys:
            yield f"OFFICER GONE {name}"
        elif old.keys[name] != new.keys[name]:
            yield f"KEY CHANGED of officer {name}: now {_key(new.keys[name])}, before {_key(old.keys[name])}"
    if old.m != new.m or len(old.keys) != len(new.keys):
        yield f"OFFICERS WHO MUST SIGN: now {new.m} of {len(new.keys)}, before {old.m} of {len(old.keys)}"


def _missing(roster: Roster, before: Roster | None) -> str:
    """Who has signed, and what is still missing; a signature that does not hold is none."""
    parts = [_signed(roster, roster.governance, "of this roster")]
    if before is not None and before.governance != roster.governance:
        parts.append(_signed(roster, before.governance, f"of epoch {before.epoch}"))
    return f"Signed by {'; '.join(parts)}."


def _signed(roster: Roster, governance: Governance, which: str) -> str:
    names = roster.signers(governance)
    left = governance.m - len(names)
    state = "enough" if left <= 0 else f"{left} missing"
    return f"{len(names)} of {governance.m} officers {which} ({', '.join(names) or 'nobody'}): {state}"


def _from_yaml(path: Path, before: Roster | None) -> Roster:
    try:
        given = load_yaml(_read(path))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"'{path}' is no YAML", "docs/roster.md shows such a file") from error
    if not isinstance(given, dict) or _GIVEN_BY_US & given.keys():
        raise UsageError(
            f"'{path}' does not describe a roster",
            "docs/roster.md shows such a file; epoch and previous come by --previous",
        )
    with suppress(TypeError, KeyError):
        given["parties"] = sorted(given["parties"], key=lambda party: party["site"])
    chain = {"epoch": 1, "previous": None} if before is None else {"epoch": before.epoch + 1, "previous": before.digest}
    try:
        return Roster.model_validate(given | chain)
    except ValidationError as error:
        raise UsageError(
            f"'{path}' makes no roster: {first_fault(error)}", "docs/roster.md shows such a file"
        ) from None


def _roster(path: Path) -> Roster:
    return Roster.parse(_read(path))


def _previous(path: Path) -> Roster:
    """The roster in ``path``, which its own officers must have signed."""
    roster = _roster(path)
    try:
        check_signed(roster, roster.governance)
    except ProtocolViolation as error:
        raise UsageError(f"'{path}' never was in force: {error.message}", "give the signed roster") from error
    return roster


def _follows(before: Roster, roster: Roster) -> None:
    try:
        check_follows(before, roster)
    except ProtocolViolation as error:
        raise UsageError(error.message, "check which roster is in force; compare its fingerprint") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unavailable(f"'{path}' cannot be read: {error.strerror}", "check the path") from error


def _replace(path: Path, roster: Roster) -> None:
    """Put the signed roster in the place of the unsigned one, whole or not at all."""
    beside = path.with_name(path.name + ".new")
    write_new(beside, roster.canonical)
    os.replace(beside, path)


def _today() -> date:
    return datetime.now(UTC).date()
