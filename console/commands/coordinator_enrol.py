"""``wardround coordinator``: make it, invite sites, and carry the officers' roster."""

from collections.abc import Iterator
from pathlib import Path

import typer

from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.invitation import address, key_fingerprint
from wardround.protocol.roster import Roster, standing
from wardround.server.certificates import WARN_DAYS, days_left
from wardround.server.enrolment import Enrolment, Proposed
from wardround.server.folder import ALL_INTERFACES, CoordinatorFolder, GivenCertificate, utc_now
from wardround.server.store.sites import JoinedSite


def init_command(
    folder: Path,
    name: str,
    host: str,
    port: int,
    certificate: Path | None,
    key: Path | None,
    ca: Path | None,
    listen: str = ALL_INTERFACES,
) -> None:
    """Make a coordinator's folder, with a CA of its own or with the certificate in the three files."""
    made = CoordinatorFolder.create(folder, name, host, port, _given(certificate, key, ca), listen_host=listen)
    about, public = made.about, made.identity().public.key
    typer.echo(f"{folder}: the coordinator '{about.name}' at {address(about.public_host, about.public_port)}.")
    typer.echo(f"Its key, for the roster: {public.hex()}")
    typer.echo(f"Fingerprint, to be compared by telephone: {key_fingerprint(public)}")
    typer.echo(_certificate_words(made))
    typer.echo(f"Next: wardround coordinator invite {folder} SITE")


def renew_command(folder: Path, certificate: Path | None, key: Path | None, ca: Path | None) -> None:
    """Renew the certificate of the public listener. Sites notice nothing."""
    opened = CoordinatorFolder.open(folder)
    opened.renew(utc_now(), _given(certificate, key, ca))
    typer.echo(_certificate_words(opened))
    typer.echo("Start the coordinator again, so that its listener takes it.")


def invite_command(folder: Path, site: str, days: int) -> None:
    """Print a one-time code for ``site``."""
    invitation = Enrolment(CoordinatorFolder.open(folder)).invite(site, days)
    typer.echo(invitation.encode())
    typer.echo(f"For site '{site}' only, once, until {invitation.expires:%Y-%m-%d %H:%M} UTC. It is a secret: do not")
    typer.echo("mail it where others read along. A code that was made for this site before holds no more.")
    typer.echo("There: wardround site join FOLDER CODE")


def roster_show_command(folder: Path) -> None:
    """Say which roster is in force, which sites have joined, and who is invited."""
    opened = CoordinatorFolder.open(folder)
    roster, sites, invited = Enrolment(opened).overview()
    typer.echo(f"This coordinator: {key_fingerprint(opened.identity().public.key)}")
    for line in _roster_words(roster):
        typer.echo(line)
    if not sites:
        typer.echo("No site has joined yet.")
    for site in sites:
        typer.echo(_site_words(site, roster))
    for invitation in invited:
        ended = "expired on" if invitation.expires <= utc_now() else "invited until"
        typer.echo(f"  {invitation.site}: {ended} {invitation.expires:%Y-%m-%d %H:%M} UTC")


def roster_propose_command(folder: Path, file: Path) -> None:
    """Put the signed roster in ``file`` in force at the coordinator; the sites check it again."""
    done = Enrolment(CoordinatorFolder.open(folder)).propose(_read(file))
    for line in _roster_words(done.roster):
        typer.echo(line)
    if not done.new:
        typer.echo("It was in force already.")
    for line in _warnings(done):
        typer.echo(line)


def roster_revoke_command(folder: Path, site: str) -> None:
    """Talk to ``site`` no more, from the next message on."""
    opened = CoordinatorFolder.open(folder)
    enrolment = Enrolment(opened)
    if not enrolment.revoke(site):
        typer.echo(f"Site '{site}' was revoked already.")
        return
    typer.echo(f"Site '{site}' is revoked: this coordinator talks to it no more, and no code of it holds.")
    roster = enrolment.roster()
    if roster is not None and site in roster.identities:
        typer.echo(
            f"The roster of epoch {roster.epoch} still names it, so other sites believe its key. The officers should "
            "sign a next epoch without it: wardround governance new ... --previous"
        )


def _given(certificate: Path | None, key: Path | None, ca: Path | None) -> GivenCertificate | None:
    if certificate is None and key is None and ca is None:
        return None
    if certificate is None or key is None or ca is None:
        raise UsageError(
            "a given certificate comes with its key and its CA", "give all of --certificate, --key and --ca, or none"
        )
    return GivenCertificate(_read(certificate), _read(key), _read(ca))


def _certificate_words(folder: CoordinatorFolder) -> str:
    left = days_left(folder.certificate.read_bytes(), utc_now())
    when = "renew it now" if left < WARN_DAYS else f"renew it {WARN_DAYS} days before its end"
    return f"The certificate of the public listener holds {left} more days: {when}."


def _roster_words(roster: Roster | None) -> Iterator[str]:
    if roster is None:
        yield "No roster is in force: sites take part in no session of secure aggregation."
        return
    yield f"In force: epoch {roster.epoch} of '{roster.consortium}', {roster.issued} to {roster.expires}."
    yield f"Fingerprint: {roster.fingerprint}"
    yield standing(roster)


def _site_words(site: JoinedSite, roster: Roster | None) -> str:
    if site.revoked_at is not None:
        state = f"revoked on {site.revoked_at:%Y-%m-%d}"
    elif roster is None:
        state = "joined"
    elif site.site in roster.identities:
        state = "joined, in the roster"
    else:
        state = "joined, NOT in the roster"
    waits = "" if site.node_id is not None or site.revoked_at is not None else ", not yet known to Flower"
    return f"  {site.site}: {key_fingerprint(site.identity_key)}  {state}{waits}"


def _warnings(done: Proposed) -> Iterator[str]:
    if done.joined_but_not_named:
        yield f"Warning: joined but not in this roster: {', '.join(done.joined_but_not_named)}."
    if done.named_but_revoked:
        yield f"Warning: in this roster although revoked here: {', '.join(done.named_but_revoked)}."
    if done.named_but_not_joined:
        yield f"Not joined yet: {', '.join(done.named_but_not_joined)}."


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Unavailable(f"'{file}' cannot be read: {error.strerror}", "check the path") from None
