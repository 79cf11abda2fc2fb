"""``wardround site install-service``, ``backup``, ``restore``, ``leave``, ``upgrade``: a site over the years."""

import os
import sys
from pathlib import Path

import typer

from wardround.client.joining import joined_link
from wardround.client.leaving import LEFT, has_left, leave, purge, still_running
from wardround.client.service.units import SiteService, data_folders, install, uninstall, unseen
from wardround.client.settings import read_settings
from wardround.client.store.backup import MIN_PASSPHRASE, backup, restore
from wardround.client.store.database import explained, open_copy, schema_version
from wardround.client.store.folder import REPLIES_KEY, SiteFolder
from wardround.client.store.ledger import Ledger
from wardround.client.store.migrations import HEAD
from wardround.console.commands.ledger import PASSPHRASE, passphrase
from wardround.protocol.behaviour import behaviour
from wardround.protocol.errors import UsageError
from wardround.protocol.plan import StudyPlan


def install_service_command(folder: Path, data: Path | None, root: Path, show: bool) -> None:
    """Write two systemd units: the daemon and the link, each with a user of its own."""
    service = _service(folder, data)
    if show:
        for name, text in service.units().items():
            typer.echo(f"# {name}\n{text}")
        for fault in unseen(service):
            typer.echo(f"On this machine they would not start: {fault}.", err=True)
        return
    for path in install(service, root):
        typer.echo(f"written: {path}")
    user, link_user, group = service.user, service.link_user, service.group
    account = "--no-create-home --shell /usr/sbin/nologin"
    shared = f"{service.link}/link.json {service.link}/superexec.secret {service.link}/ca.pem"
    lines = [
        f"groupadd --system {group}",
        f"useradd --system --gid {group} {account} {user}",
        f"useradd --system --gid {group} {account} {link_user}",
        f"chown -R {user}:{group} {service.folder} && chmod 700 {service.folder}",
        f"chown -R {link_user}:{group} {service.link} && chmod 750 {service.link} && chmod 640 {shared}",
        f"systemctl daemon-reload && systemctl enable --now {' '.join(service.units())}",
    ]
    typer.echo("Next, as root:")
    for line in lines:
        typer.echo(f"  {line}")
    for place in service.data:
        typer.echo(f"The user '{user}' must be able to read '{place}'; the link does not see it.")


def uninstall_service_command(folder: Path, root: Path, purge_too: bool) -> None:
    """Remove the units; with ``purge_too`` what Wardround made in the site's folder too, after the site has left."""
    opened = SiteFolder.open(folder)
    if purge_too and not has_left(opened):
        raise UsageError("this site has not left yet", "leave the federation first: wardround site leave FOLDER")
    service = _service(folder, None)
    names = " ".join(service.units())
    if (running := next(still_running(opened, service.link), None)) is not None:
        raise UsageError(f"{running} still runs", f"run: systemctl disable --now {names}")
    gone = uninstall(service, root)
    for path in gone:
        typer.echo(f"removed: {path}")
    if gone:
        typer.echo("Next, as root: systemctl daemon-reload")
    if not purge_too:
        typer.echo("Data, keys and ledger are where they were.")
        return
    others = purge(opened)
    typer.echo(f"removed: what Wardround made in {folder}")
    for path in others:
        typer.echo(f"kept, because Wardround did not make it: {path}")


def backup_command(folder: Path, out: Path) -> None:
    """Ledger, keys and settings in one sealed file; the daemon may run."""
    opened = SiteFolder.open(folder)
    text = f"Passphrase, at least {MIN_PASSPHRASE} characters"
    word = os.environ.get(PASSPHRASE) or typer.prompt(text, hide_input=True, confirmation_prompt=True, err=True)
    backup(opened, out, word)
    typer.echo(f"{out}: the backup of site '{opened.site}'. Without the passphrase it is worth nothing; keep both.")
    if os.environ.get(REPLIES_KEY):
        typer.echo(f"The key of {REPLIES_KEY} is not in it: keep that too.")


def restore_command(file: Path, folder: Path) -> None:
    """Make a site's folder anew from a backup."""
    made = restore(file, folder, passphrase(f"Passphrase of {file.name}"))
    typer.echo(f"{folder}: site '{made.site}' as it was when the backup was made.")
    typer.echo("Rounds may have been charged since, so its ledger is an older copy of itself. Before it starts:")
    typer.echo("  1. The old machine must never run this site again.")
    typer.echo("  2. If the link folder is lost: the operator revokes the site and invites it again.")
    typer.echo("  3. Ask the other hospitals for the head of this ledger that they hold, and your officer for the last")
    typer.echo(f"     one that was printed: wardround ledger verify {folder / 'ledger.sqlite'} --against HEAD")
    typer.echo("  4. If one is not a beginning of this ledger, two officers sign: wardround ledger recover")
    typer.echo("docs/restore.md explains each step.")


def witnessed_command(folder: Path, site: str) -> None:
    """Print the last head of another site's ledger that this site has signed, for that site's recovery."""
    opened = SiteFolder.open(folder)
    store = open_copy(opened.database)
    with explained(opened.database):
        row = store.execute("SELECT note FROM witnessed WHERE origin = ?", (site,)).fetchone()
    if row is None:
        raise UsageError(f"this site has signed no head of a ledger of '{site}'", "ask another hospital of the roster")
    typer.echo(bytes(row[0]).decode(), nl=False)


def leave_command(folder: Path, out: Path, yes: str | None) -> None:
    """Export the ledger, then destroy the site's keys for good."""
    opened = SiteFolder.open(folder)
    question = (
        f"This destroys the keys of site '{opened.site}' for good. No patient's question can be answered afterwards, "
        "so answer those that are open first (wardround site patient show). Type the site's name"
    )
    if (yes or typer.prompt(question, err=True)) != opened.site:
        raise UsageError("that is not the site's name", "nothing was changed")
    again = (opened.path / LEFT).exists()
    leave(opened, out, _link(opened))
    if again:
        typer.echo("What had been begun is finished.")
    typer.echo(f"{out}: the whole ledger with its last signed head. Anybody can check it:")
    typer.echo(f"  wardround ledger verify {out / 'ledger.sqlite'} --against {out / 'checkpoint.txt'}")
    typer.echo("The keys are overwritten and removed. Flash disks, snapshots and backups may still hold the old bytes:")
    typer.echo("destroy the backups of this site, or their passphrase, and the disk when it is retired.")
    if os.environ.get(REPLIES_KEY):
        typer.echo(f"The key of {REPLIES_KEY} is not Wardround's to destroy: do that where it is kept.")
    typer.echo(f"Now ask the operator: 'Please run wardround coordinator roster revoke HUB {opened.site}.'")
    typer.echo(f"And ask the officers for a roster without '{opened.site}'.")


def upgrade_command(folder: Path) -> None:
    """Say what the installed version means for the site's studies and its database."""
    opened = SiteFolder.open(folder)
    version = schema_version(open_copy(opened.database))
    typer.echo(f"Behaviour of the installed version: {behaviour()}")
    if version is not None and version > HEAD:
        typer.echo(f"The database has schema {version}, which this version does not know: it would not start.")
    elif version != HEAD:
        typer.echo(f"The database has schema {version}; the next start brings it to {HEAD} and keeps a copy beside it.")
    else:
        typer.echo(f"The database has schema {HEAD}: nothing is pending.")
    for line in _plans_in_words(opened):
        typer.echo(line)


def _plans_in_words(opened: SiteFolder) -> list[str]:
    """One line for each plan that an officer has approved and not taken back."""
    store = open_copy(opened.database)
    with explained(opened.database):
        if store.execute("SELECT 1 FROM sqlite_master WHERE name = 'studies'").fetchone() is None:
            return ["No plan was proposed to this site."]
        rows = store.execute("SELECT digest, content FROM studies WHERE refused IS NULL ORDER BY digest").fetchall()
    granted, lines = _granted(opened), []
    for digest, content in rows:
        if digest not in granted:
            continue
        try:
            plan = StudyPlan.parse(bytes(content))
        except (ValueError, UsageError):
            lines.append(f"{digest[:12]}: this version cannot read the plan: keep the version that runs it now")
            continue
        fits = plan.behaviour == behaviour()
        needs = f"needs behaviour {plan.behaviour[:12]}: keep the version that runs it now until it has ended"
        lines.append(f"{plan.study} ({digest[:12]}): {'goes on' if fits else needs}")
    return lines or ["No approved plan is open at this site."]


def _granted(opened: SiteFolder) -> set[str]:
    """The digests of the plans whose last grant on every domain allows rounds. Reads the ledger and writes nothing."""
    state = Ledger(open_copy(opened.database), opened.site, opened.identity()).state
    blocks: dict[str, list[int]] = {}
    for (plan, _), grant in state.grants.items():
        blocks.setdefault(plan, []).append(grant.fact.blocks)
    return {plan for plan, given in blocks.items() if all(given)}


def _link(opened: SiteFolder) -> Path | None:
    """The link folder of a site: as its settings name it, else as 'site join' wrote it down, else none."""
    named = read_settings(opened.path).link
    found = joined_link(opened) if named is None else opened.path / named
    return None if found is None else Path(os.path.abspath(found))


def _service(folder: Path, data: Path | None) -> SiteService:
    opened = SiteFolder.open(folder)
    link = _link(opened)
    if link is None:
        raise UsageError("this site has not joined a coordinator yet", "run 'wardround site join FOLDER CODE'")
    place = Path(os.path.abspath(folder))
    outside = set(data_folders(read_settings(opened.path), place))
    # A folder that lies in the site's own is hidden with it.
    if data is not None and not (given := Path(os.path.abspath(data))).is_relative_to(place):
        outside.add(given)
    return SiteService(opened.site, place, link, Path(sys.executable), tuple(sorted(outside)))
