"""Who may read what: the site's keys are the daemon's alone, and the SuperNode's user reads neither data nor keys.

The mode bits are looked at, so the answer is the same whoever asks. Access control lists are not.
"""

import os
import pwd
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from wardround.client.doctor.examined import Examined
from wardround.client.doctor.words import Finding, failed, ok, warning
from wardround.conf.said import said

SITE_FILES: Final = ("keys/site.pem", "keys/replies.key", "keys/patients.key", "ledger.sqlite")
LINK_FILES: Final = ("node_key", "superexec.secret", "proxy.password")

_PKCS8: Final = b"-----BEGIN PRIVATE KEY-----"
"""How site.pem begins; a node key begins in another way."""

_LOOKED_AT: Final = 65_536
"""Bytes of a file in the link folder that are searched for a key."""


def readable_by(path: Path, user: int | None, groups: Collection[int]) -> bool:
    """Whether ``user`` (None: somebody who owns nothing) in ``groups`` may read the file and reach it."""
    resolved = path.resolve()
    return _allows(resolved, stat.S_IROTH, user, groups) and all(
        _allows(parent, stat.S_IXOTH, user, groups) for parent in resolved.parents
    )


def _allows(path: Path, bit: int, user: int | None, groups: Collection[int]) -> bool:
    about = path.stat()
    if about.st_uid == user:
        return bool(about.st_mode & (bit << 6))
    if about.st_gid in groups:
        return bool(about.st_mode & (bit << 3))
    return bool(about.st_mode & bit)


def check_site_folder(examined: Examined) -> Iterator[Finding]:
    """The folder and its keys are closed to everybody but their owner, and whole."""
    folder = examined.site_folder
    if folder is None:
        return
    found: list[Finding] = []
    if not folder.is_dir():
        yield failed("site-folder", "The site's folder is not there.", "Name the right folder.")
        return
    about = folder.stat()
    if about.st_mode & 0o077:
        found.append(failed("site-folder", "Others may look into the site's folder.", "Run chmod 700 on the folder."))
    for name in SITE_FILES:
        path = folder / name
        try:
            file = path.stat()
        except FileNotFoundError:
            # The ledger has a check of its own, and this key may come from the environment.
            if path.suffix != ".sqlite" and not (
                name.endswith("replies.key") and "WARDROUND_REPLIES_KEY" in os.environ
            ):
                found.append(
                    failed(
                        "site-folder",
                        said("%(name)s is missing.", name=name),
                        said("Restore %(name)s from the site's backup.", name=name),
                    )
                )
            continue
        if path.suffix != ".sqlite" and file.st_mode & 0o077:
            found.append(
                failed(
                    "site-folder",
                    said("Others may read %(name)s.", name=name),
                    said("Run chmod 600 on %(name)s in the folder.", name=name),
                )
            )
        if file.st_uid != about.st_uid:
            found.append(
                failed(
                    "site-folder",
                    said("%(name)s belongs to another user than the folder.", name=name),
                    said("Run chown on %(name)s.", name=name),
                )
            )
    yield from found or [ok("site-folder", "The site's folder is closed to others.")]


def check_link_folder(examined: Examined) -> Iterator[Finding]:
    """Only the SuperNode's user, and the daemon's group, may look into the link folder."""
    folder = examined.link_folder
    if folder is None or not folder.is_dir():
        return
    found: list[Finding] = []
    if folder.stat().st_mode & 0o007:
        found.append(failed("link-folder", "Everybody may look into the link folder.", "Run chmod o= on the folder."))
    for name in LINK_FILES:
        try:
            mode = (folder / name).stat().st_mode
        except FileNotFoundError:
            if name != "proxy.password":
                cure = said(
                    "Restore %(name)s from the backup of the link folder, or join again with a new code.", name=name
                )
                found.append(failed("link-folder", said("%(name)s is missing.", name=name), cure))
            continue
        if mode & 0o007:
            found.append(
                failed(
                    "link-folder",
                    said("Everybody may read %(name)s.", name=name),
                    said("Run chmod o= on %(name)s in the folder.", name=name),
                )
            )
    yield from found or [ok("link-folder", "The link folder is closed to others.")]


def check_separation(examined: Examined) -> Iterator[Finding]:
    """The SuperNode talks to the outside: nothing of the site's own may be in its reach."""
    site, link = examined.site_folder, examined.link_folder
    if link is None or not link.is_dir():
        return
    found: list[Finding] = []
    if site is not None and _nested(site.resolve(), link.resolve()):
        found.append(
            failed(
                "separation",
                "The link folder and the site's folder lie one in the other.",
                "Move the link folder beside the site's folder, and write its new place into site.yaml.",
            )
        )
    elif _holds_a_key(link, _keys(site)):
        found.append(
            failed(
                "separation",
                "The link folder holds a key or the ledger of the site.",
                "Remove it from there; if the SuperNode runs as a user of its own, tell an officer that it was there.",
            )
        )
    if site is not None:
        found += _in_reach(examined, site, link)
    yield from found or [ok("separation", "The SuperNode's folder holds nothing of the site's data and keys.")]


def check_data_rights(examined: Examined) -> Iterator[Finding]:
    """The site's tables are closed to users who have nothing to do with them."""
    open_ = [
        number for number, source in enumerate(examined.data or (), 1) if _try_readable(source.path, None, frozenset())
    ]
    for number in open_:
        yield warning(
            "data-rights",
            said("Every user of this machine may read data source %(number)s of site.yaml.", number=number),
            "Take the right to read away from others: chmod o= on the file or on its folder.",
        )
    if examined.data and not open_:
        yield ok("data-rights", "The data is closed to other users of this machine.")


def _in_reach(examined: Examined, site: Path, link: Path) -> Iterator[Finding]:
    """What the SuperNode's user may read, if it is a user of its own."""
    owner = link.stat().st_uid
    if owner in (0, site.stat().st_uid):
        return
    try:
        person = pwd.getpwuid(owner)
        groups = frozenset(os.getgrouplist(person.pw_name, person.pw_gid))
    except KeyError:
        groups = frozenset({link.stat().st_gid})
    for name in SITE_FILES:
        if _try_readable(site / name, owner, groups):
            yield failed(
                "separation",
                said("The SuperNode's user may read %(name)s.", name=name),
                "Run chmod 700 on the site's folder.",
            )
    for number, source in enumerate(examined.data or (), 1):
        if _try_readable(source.path, owner, groups):
            yield failed(
                "separation",
                said("The SuperNode's user may read data source %(number)s of site.yaml.", number=number),
                "Take this right away from the SuperNode's user and its groups.",
            )


def _try_readable(path: Path, user: int | None, groups: Collection[int]) -> bool:
    with suppress(OSError):
        return readable_by(path, user, groups)
    return False


def _nested(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def _keys(site: Path | None) -> tuple[bytes, ...]:
    """The site's keys, as far as this user may read them, to be looked for elsewhere."""
    found = []
    for name in SITE_FILES[:3]:
        with suppress(OSError):
            if site is not None and (key := (site / name).read_bytes()):
                found.append(key)
    return tuple(found)


def _holds_a_key(link: Path, keys: Collection[bytes]) -> bool:
    names = {Path(name).name for name in SITE_FILES}
    for path in link.rglob("*"):
        if path.name in names:
            return True
        with suppress(OSError):
            if path.is_file():
                with path.open("rb") as file:
                    head = file.read(_LOOKED_AT)
                if _PKCS8 in head or any(key in head for key in keys):
                    return True
    return False
