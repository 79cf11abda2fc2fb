"""``wardround site``: make a site's folder, and answer one patient's question from its ledger."""

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import typer

from wardround.client.patient_record import DomainRecord, PatientRecord, StudyRecord, patient_record
from wardround.client.store.database import open_store
from wardround.client.store.folder import SiteFolder
from wardround.client.store.keys import fingerprint, read_officer_card, read_officer_key
from wardround.client.store.ledger import Ledger
from wardround.client.store.members import Members, Part
from wardround.client.store.opt_outs import OptOuts
from wardround.console.commands.ledger import passphrase
from wardround.privacy.accounting import rounded_up
from wardround.privacy.approvals import EYES_TO_RECOVER
from wardround.privacy.meaning import ADJACENCY, AGAINST, UNIT, WAIVED, conditions
from wardround.protocol.errors import UsageError
from wardround.protocol.identity import Identity, check_site_id
from wardround.protocol.ledger import Inquiry

STDIN: Final = "-"

STATEMENT: Final = "These rounds could have drawn this patient. Who was drawn is written down nowhere."

_PURPOSE: Final = {Part.TRAIN: "for training", Part.TEST: "for testing"}


def init_command(folder: Path, name: str, cards: Sequence[Path]) -> None:
    """Make the folder of site ``name``, with new keys and a ledger that names the officers of ``cards``."""
    try:
        check_site_id(name)
    except ValueError as error:
        raise UsageError(str(error), "for example: --name north") from None
    officers = [read_officer_card(card) for card in cards]
    site = SiteFolder.create(folder, name, officers)
    typer.echo(f"{folder}: the folder of site '{name}', for its own user only.")
    typer.echo(f"  {site.database.name}: the ledger, empty but for the names of the site and its officers")
    typer.echo("  keys/: three keys that only this site has. Back them up, apart from the ledger.")
    typer.echo(f"Fingerprint of the site: {fingerprint(site.identity().public.key)}")
    for officer in officers:
        typer.echo(f"Fingerprint of {officer.site}: {fingerprint(officer.key)}")
    typer.echo("Next: compare each officer's fingerprint by telephone. A wrong one means a wrong card: begin anew.")
    typer.echo("Then: an officer opens a data domain with its budget, and grants plans on it (docs/ledger.md).")
    if len(officers) < EYES_TO_RECOVER:
        typer.echo(
            f"wardround: warning: {len(officers)} officer alone can never let a restored ledger go on: that takes "
            f"{EYES_TO_RECOVER} signatures. Name a second one.",
            err=True,
        )
    elif len(officers) == EYES_TO_RECOVER:
        typer.echo("With two officers a lost key can never be replaced: a third is safer (docs/officer-keys.md).")


def patient_show_command(ids: Sequence[str], folder: Path, officer_key: Path, as_json: bool) -> None:
    """Print what the ledger of the site in ``folder`` says of one patient; that an officer asked stands in it first."""
    site = SiteFolder.open(folder)
    id_ = _one_id(ids)
    officer = read_officer_key(officer_key, passphrase(f"Passphrase of {officer_key.name}"))
    store = open_store(site.database)
    ledger = Ledger(store, site.site, site.identity())
    _check_officer(ledger, officer)
    members = Members(store, site.patients_key())
    ledger.record(Inquiry(officer=officer.site))
    try:
        found = patient_record(store, site.site, ledger.state, members, OptOuts(members), id_)
    except ArithmeticError:
        raise UsageError(
            "the accountant's own check failed, so there is no epsilon to show",
            "run 'wardround ledger verify', and report this without patients' data",
        ) from None
    if as_json:
        typer.echo(json.dumps(_as_json(found), indent=2, allow_nan=False))
        return
    for line in _in_words(found):
        typer.echo(line)


def _one_id(ids: Sequence[str]) -> str:
    """The id from the words of the command, or one line from standard input. No error repeats it."""
    if len(ids) != 1:
        raise UsageError("one question is about one patient", "put an id with spaces in quotes, or give '-'")
    (id_,) = ids
    if id_ == STDIN:
        id_ = typer.prompt("Patient's id", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
    if not id_.strip():
        raise UsageError("there is no id", "write it as the site's table does, or send it to standard input")
    return id_


def _check_officer(ledger: Ledger, officer: Identity) -> None:
    known = ledger.state.officers
    key = officer.public.key.hex()
    if known is None or known.officers.get(officer.site) != key or key in ledger.state.suspended:
        raise UsageError(
            f"'{officer.site}' with this key is no officer of this site, or the key is suspended",
            "only its officers may ask about a patient",
        )


def _in_words(found: PatientRecord) -> Iterator[str]:
    if not found.known:
        yield "This id is in no data domain of this site, so no round could have drawn this patient."
        yield "Is it written as in the site's table, with all zeros and letters?"
    for since in found.merged_since:
        yield f"Another id was found to be this patient's on {since}. Until then each id was counted for itself."
    for domain in found.domains:
        yield from _domain_in_words(domain)
    for absence in found.opted_out:
        yield f"Opted out since {absence.since}{f', until {absence.until}' if absence.until else ''}."
    if found.known and not any(absence.until is None for absence in found.opted_out):
        yield "Not opted out now, as far as the last round has seen."
    if found.known and not found.studies:
        yield "No round could have drawn this patient."
    for study in found.studies:
        yield from _study_in_words(study)
    if found.studies:
        yield STATEMENT


def _domain_in_words(domain: DomainRecord) -> Iterator[str]:
    yield f"In '{domain.domain}', {_PURPOSE[domain.part]}, since {domain.since}{', now closed' * domain.closed}."
    if domain.epsilon is None or domain.delta is None:
        yield "  No officer has opened this domain yet: nothing could be spent."
        return
    yield (
        f"  Epsilon {rounded_up(domain.epsilon)} {conditions(domain.delta)}; rounded up. It is of the rounds below, "
        "and of what recoveries have charged."
    )
    if domain.without_privacy:
        yield f"  {domain.without_privacy:,} of these rounds {WAIVED}."
    if domain.epsilon_cap is not None and domain.share_left is not None:
        yield (
            f"  Of what the domain may ever spend (epsilon at most {domain.epsilon_cap:g}, same terms), "
            f"{math.floor(1000 * domain.share_left) / 10:.1f} % is left for all its patients."
        )


def _study_in_words(study: StudyRecord) -> Iterator[str]:
    yield f"Study with plan {study.plan}: {len(study.rounds)} round(s) could have drawn this patient."
    for row in study.rounds:
        yield f"  Round {row.round_number} on '{row.domain}', started {row.started}"
        for sent in row.sent:
            yield f"    left {sent.at}: one vector, SHA-256 {sent.content}"
        if not row.sent:
            yield "    nothing left"


def _as_json(found: PatientRecord) -> dict[str, Any]:
    domains = [
        asdict(domain)
        | {"epsilon_shown": None if domain.epsilon is None else rounded_up(domain.epsilon)}
        | {"unit": UNIT, "adjacency": ADJACENCY, "against": AGAINST}
        for domain in found.domains
    ]
    return {"known": found.known, "statement": STATEMENT} | asdict(found) | {"domains": domains}
