"""``wardround site join``: a site's side of an invitation, and the first roster that it pins."""

import sys
from pathlib import Path
from typing import Final

import typer

from wardround.client.joining import Joined, check_roster, join
from wardround.client.link import Proxy, check_proxy, password_in
from wardround.client.store.database import open_store
from wardround.client.store.folder import SiteFolder
from wardround.client.store.keys import fingerprint
from wardround.client.store.roster import PinnedRoster
from wardround.protocol.errors import UsageError
from wardround.protocol.roster import Roster, standing

_LATER: Final = "the same command again asks once more; or 'wardround site roster pin' with the roster's file"


def join_command(
    site_folder: Path,
    code: str,
    link_folder: Path | None,
    proxy: str | None,
    proxy_user: str | None,
    proxy_password_file: Path | None,
    roster_fingerprint: str | None = None,
) -> None:
    """Join the coordinator that ``code`` names ('-': it is read from standard input), and pin its roster."""
    site = SiteFolder.open(site_folder)
    text = sys.stdin.readline() if code == "-" else code
    link = link_folder or site_folder.absolute().with_name(site_folder.absolute().name + "-link")
    joined = join(site, text, link, _proxy(proxy, proxy_user, proxy_password_file))
    typer.echo(f"Site '{site.site}' has joined the coordinator at {joined.link.about.superlink}.")
    typer.echo(f"Link folder: {joined.link.path}")
    typer.echo(f"This site's fingerprint:  {fingerprint(site.identity().public.key)}")
    typer.echo(f"Coordinator's fingerprint: {fingerprint(joined.coordinator_key)}")
    typer.echo("Read this site's fingerprint to a governance officer, on a number that you know from elsewhere.")
    _pin(site, joined, roster_fingerprint)


def _pin(site: SiteFolder, joined: Joined, told: str | None) -> None:
    """Pin the roster that the coordinator carries, if it names this site and people have compared it."""
    identity = site.identity().public
    pinned = PinnedRoster(open_store(site.database), identity)
    if (held := pinned.held()) is not None:
        check_roster(held, joined.coordinator_key)
        typer.echo(f"This site holds the roster of epoch {held.epoch} already.")
        return
    roster = joined.roster
    if roster is None or identity.site not in roster.identities:
        typer.echo("The coordinator carries no roster with this site yet. Once the officers have signed one:")
        typer.echo(_LATER + ".")
        return
    check_roster(roster, joined.coordinator_key)
    if told is None:
        if not _compared(roster):
            typer.echo(f"Nothing was pinned; {_LATER}.")
            return
        told = roster.fingerprint
    pinned.pin(roster.canonical, told)
    typer.echo(f"Pinned: epoch {roster.epoch} of '{roster.consortium}', until {roster.expires}.")
    typer.echo(standing(roster))


def _compared(roster: Roster) -> bool:
    typer.echo(f"The coordinator brings the roster of epoch {roster.epoch} of '{roster.consortium}':")
    for group in range(0, 16, 4):
        typer.echo("    " + " ".join(roster.fingerprint.split()[group : group + 4]))
    try:
        return typer.confirm("Has an officer read these sixteen groups to you, on a number that you know?")
    except typer.Abort:
        typer.echo()
        return False


def _proxy(url: str | None, user: str | None, password_file: Path | None) -> Proxy | None:
    if url is None:
        if user is not None or password_file is not None:
            raise UsageError("a user or a password of a proxy, but no proxy", "give its address too: --proxy")
        return None
    if user is None and password_file is not None:
        raise UsageError("a password of a proxy, but no user", "give the user too: --proxy-user")
    try:
        address = check_proxy(url)
    except ValueError:
        # The address is not repeated: people write the password into it.
        raise UsageError(
            "the proxy is not given as http://<host>:<port>",
            "user and password go apart: --proxy-user and --proxy-password-file",
        ) from None
    return Proxy(address, user, None if password_file is None else password_in(password_file))
