"""``wardround ledger``: check a ledger, show it, give its signed head, and let it go on after a restored backup."""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import typer

from wardround.client.governance import CONSORTIUM_DOMAIN
from wardround.client.store.database import explained, open_copy
from wardround.client.store.folder import SiteFolder
from wardround.client.store.keys import fingerprint, read_officer_key, read_public_key
from wardround.client.store.ledger import stored_entries
from wardround.client.store.verify import Verified, verify_file
from wardround.privacy.accounting import rounded_up
from wardround.privacy.approvals import EYES_TO_RECOVER
from wardround.privacy.meaning import ADJACENCY, AGAINST, AGAINST_CONSORTIUM, UNIT, WAIVED, conditions
from wardround.protocol.checkpoint import Checkpoint, verify
from wardround.protocol.errors import ProtocolViolation, Unavailable, UsageError
from wardround.protocol.identity import PublicIdentity
from wardround.protocol.ledger import Recover, approve
from wardround.protocol.witness import checkpoint_of

PASSPHRASE: Final = "WARDROUND_PASSPHRASE"


def verify_command(path: Path, key: str | None, against: list[Path], as_json: bool) -> None:
    """Check the ledger in ``path``, print what it holds; what is wrong is an error of two lines."""
    public = None if key is None else read_public_key(key)
    found = verify_file(path, key=public, seen=[_checkpoint(file) for file in against])
    if as_json:
        typer.echo(json.dumps(_as_json(found, len(against)), indent=2, allow_nan=False))
        return
    for line in _in_words(found, len(against), public is not None):
        typer.echo(line)


def checkpoint_command(folder: Path) -> None:
    """Print the signed head of the ledger of the site in ``folder``."""
    typer.echo(SiteFolder.open(folder).ledger().checkpoint().decode(), nl=False)


def show_command(path: Path) -> None:
    """Print every entry, one line of JSON each, as ``number``, ``at``, ``fact``: unchecked."""
    store = open_copy(path)
    with explained(path):
        sites = store.execute("SELECT DISTINCT site FROM entries ORDER BY site").fetchall()
        entries = [entry for (site,) in sites for entry in stored_entries(store, site)]
    for entry in entries:
        typer.echo(json.dumps({"number": entry.number, **json.loads(entry.content)}))


def recover_command(folder: Path, seen: Path, witness: str, reason: str, officers: list[Path]) -> None:
    """Let the ledger in ``folder`` go on behind the head that others have seen, with two officers' signatures."""
    site = SiteFolder.open(folder)
    ledger = site.ledger()
    head = _checkpoint(seen, site.identity().public.key).head
    if not ledger.rolled_back(head, witness):
        typer.echo("This ledger continues what others have seen: there is nothing to recover.")
        return
    if len(officers) < EYES_TO_RECOVER:
        raise UsageError(f"a recovery needs {EYES_TO_RECOVER} officers", "give --officer-key for each of them")
    charges = ledger.state.missing_charges(head.size)
    fact = Recover(seen_size=head.size, seen_root=head.root.hex(), charges=charges, reason=reason)
    typer.echo(
        f"Others have seen {head.size} entries; this ledger holds {ledger.state.size}. Blocks that are charged for "
        "what may have run in between:"
    )
    for charge in charges:
        typer.echo(f"  {charge.blocks:>6,} of plan {charge.plan[:16]} on '{charge.domain}'")
    if not charges:
        typer.echo("  none: no plan had anything left to run")
    key = site.identity().public.key.hex()
    for path in officers:
        fact = approve(fact, key, read_officer_key(path, passphrase(f"Passphrase of {path.name}")))
    ledger.record(fact)
    typer.echo("The recovery is in the ledger. The site may take part again.")


def passphrase(prompt: str) -> str:
    """From the environment (scripts), else asked for without showing it."""
    return os.environ.get(PASSPHRASE) or typer.prompt(prompt, hide_input=True, err=True)


def _checkpoint(path: Path, key: bytes | None = None) -> Checkpoint:
    """The checkpoint in a file; with ``key`` only if that key signed it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Unavailable(f"'{path}' cannot be read: {error.strerror}", "check the path") from error
    try:
        found = checkpoint_of(data, path.name)
        return found if key is None else verify(data, PublicIdentity(found.origin, key)).checkpoint
    except ProtocolViolation as error:
        why = f"'{path}' is no checkpoint of this ledger: {error.message}"
        raise UsageError(why, "give the note as it was sent") from error


def _in_words(found: Verified, compared: int, known_key: bool) -> Iterator[str]:
    site, key = found.opened.site, found.opened.key
    yield f"The ledger of '{site}' holds: {found.entries:,} entries, {found.first} to {found.last}."
    if key is None:
        yield "It is a simulation's: nothing is signed."
    else:
        whose = "the key that you gave" if known_key else "the key that its first entry names; compare it by telephone"
        yield f"Signed with {whose}: {fingerprint(bytes.fromhex(key))}"
    yield f"Root of its tree: {found.head.root.hex()}"
    if found.countersigned_by:
        yield f"Countersigned by {', '.join(found.countersigned_by)}."
    if compared:
        yield f"It continues the {compared} checkpoint(s) that you gave."
    else:
        yield "Whether its end was cut off can be seen only with --against and a checkpoint that others have kept."
    if found.recoveries:
        yield f"Recoveries after a restored copy: {found.recoveries}."
    for spent in found.domains:
        closed = ", closed" if spent.closed else ""
        if spent.epsilon is None or spent.epsilon_cap is None or spent.share_of_filter is None:
            yield f"'{spent.domain}'{closed}: {spent.blocks:,} rounds, without a budget (simulation)."
            continue
        terms = conditions(spent.delta, _against(spent.domain))
        yield (
            f"'{spent.domain}'{closed}: {spent.blocks:,} rounds charged, epsilon {rounded_up(spent.epsilon)} of at "
            f"most {spent.epsilon_cap:g} ({terms}; rounded up). Of what the filter admits, "
            f"{math.ceil(1000 * spent.share_of_filter) / 10:.1f} % is used."
        )
        if spent.without_privacy:
            yield f"  {spent.without_privacy:,} of these rounds {WAIVED}."


def _against(domain: str) -> str:
    """Who may collude, for the epsilon of this domain."""
    return AGAINST_CONSORTIUM if domain == CONSORTIUM_DOMAIN else AGAINST


def _as_json(found: Verified, compared: int) -> dict[str, Any]:
    domains = [
        asdict(spent) | {"unit": UNIT, "adjacency": ADJACENCY, "against": _against(spent.domain)}
        for spent in found.domains
    ]
    return {
        "site": found.opened.site,
        "key": found.opened.key,
        "entries": found.entries,
        "root": found.head.root.hex(),
        "first": found.first,
        "last": found.last,
        "countersigned_by": list(found.countersigned_by),
        "checkpoints_continued": compared,
        "recoveries": found.recoveries,
        "domains": domains,
    }
