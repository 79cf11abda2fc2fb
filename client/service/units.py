"""The units of a site and of a coordinator, filled in, and put where systemd looks for them (systemd.exec(5)).

The daemon's unit lets it write one folder and reach loopback only. The link's unit may go out, and sees neither the
site's folder nor its data. ``MemoryDenyWriteExecute`` is set for link and coordinator, not for the daemon: oneDNN,
which PyTorch calls for a convolution, compiles its kernels into memory and fails without.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final, Protocol

import wardround.client.store
from wardround.client.settings import SiteSettings
from wardround.protocol.errors import Unavailable, UsageError

SYSTEMD: Final = Path("etc/systemd/system")
_WANTED: Final = SYSTEMD / "multi-user.target.wants"
_MISREAD: Final = " %\"'\\\n\t$"
_HIDDEN: Final = tuple(Path(place) for place in ("/home", "/root", "/run/user", "/tmp", "/var/tmp"))
"""What ``ProtectHome`` and ``PrivateTmp`` hide from a service."""


class Units(Protocol):
    """Something that runs as services."""

    def units(self) -> dict[str, str]: ...
    def needs(self) -> tuple[Path, ...]: ...


@dataclass(frozen=True, slots=True)
class SiteService:
    """A site's two services. ``data``: folders outside the site's that hold exports or lists of opt-outs."""

    site: str
    folder: Path
    link: Path
    python: Path
    data: tuple[Path, ...] = ()
    user: str = "wardround"
    link_user: str = "wardround-link"
    group: str = "wardround"

    def needs(self) -> tuple[Path, ...]:
        """Every path that a service must be able to see."""
        return (self.folder, self.link, *self.data, *_program(self.python))

    def units(self) -> dict[str, str]:
        """The text of each unit, by file name.

        Raises:
            UsageError: systemd would misread a path, or the link could not work without seeing the data.
        """
        for place in self.data:
            for needed in (self.folder, self.link, *_program(self.python)):
                if needed.is_relative_to(place):
                    raise UsageError(
                        f"'{place}' holds patients' data, which the link may not see, and '{needed}', which it needs",
                        "keep exports and lists of opt-outs in a folder of their own",
                    )
        values = {
            "site": self.site,
            "folder": _plain(self.folder),
            "link": _plain(self.link),
            "python": _plain(self.python),
            "user": self.user,
            "link_user": self.link_user,
            "group": self.group,
            "inaccessible": " ".join(_plain(place) for place in (self.folder, *self.data)),
        }
        return {
            f"wardround-site-{self.site}.service": _filled("wardround-site.service", values),
            f"wardround-link-{self.site}.service": _filled("wardround-link.service", values),
        }


@dataclass(frozen=True, slots=True)
class CoordinatorService:
    """A coordinator's one service."""

    folder: Path
    python: Path
    user: str = "wardround-coordinator"
    group: str = "wardround-coordinator"

    def needs(self) -> tuple[Path, ...]:
        """Every path that the service must be able to see."""
        return (self.folder, *_program(self.python))

    def units(self) -> dict[str, str]:
        """The text of the unit, by file name. Raises UsageError for a path that systemd would misread."""
        paths = {"folder": _plain(self.folder), "python": _plain(self.python)}
        values = {**paths, "user": self.user, "group": self.group}
        return {"wardround-coordinator.service": _filled("wardround-coordinator.service", values)}


def data_folders(settings: SiteSettings, folder: Path) -> tuple[Path, ...]:
    """The folders outside ``folder`` from which the settings read patients' data, without repetition.

    A folder and not the file: an export that is replaced by renaming stays hidden.
    """
    sources = [folder / source.path for source in (*settings.data, *settings.opt_outs)]
    places = {Path(os.path.normpath(source)).parent for source in sources}
    return tuple(sorted(place for place in places if not place.is_relative_to(folder)))


def unseen(service: Units) -> Iterator[str]:
    """What keeps the services from starting on this machine, one sentence each; nothing: they will start."""
    for path in service.needs():
        real = path.resolve()
        hiding = next((place for place in _HIDDEN if real.is_relative_to(place)), None)
        if hiding is not None:
            yield f"'{path}' lies in '{hiding}', which a service does not see"
        elif not path.exists():
            yield f"'{path}' does not exist"


def install(service: Units, root: Path = Path("/")) -> list[Path]:
    """Write the units below ``root``; returns their paths. Writing the same again changes nothing.

    Raises:
        UsageError: on this machine they could not start.
        Unavailable: the folder cannot be written: it takes root.
    """
    texts = service.units()
    if root == Path("/") and (why := next(unseen(service), None)) is not None:
        raise UsageError(why, "use folders below /srv or /var/lib, and Wardround below /opt: docs/deploy.md")
    written = []
    for name, text in texts.items():
        path = root / SYSTEMD / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            path.chmod(0o644)
        except OSError as error:
            raise Unavailable(f"'{path}' cannot be written: {error.strerror}", "run it as root") from error
        written.append(path)
    return written


def uninstall(service: Units, root: Path = Path("/")) -> list[Path]:
    """Remove the units and what ``systemctl enable`` made of them; what was not there is no error.

    Raises:
        Unavailable: one cannot be removed: it takes root.
    """
    gone = []
    for name in service.units():
        for path in (root / _WANTED / name, root / SYSTEMD / name):
            if not (path.exists() or path.is_symlink()):
                continue
            try:
                path.unlink()
            except OSError as error:
                raise Unavailable(f"'{path}' cannot be removed: {error.strerror}", "run it as root") from error
            gone.append(path)
    return gone


def _program(python: Path) -> tuple[Path, ...]:
    """The interpreter, the environment that it belongs to, and where this package lies."""
    package = Path(wardround.client.store.__file__).parents[2]
    return tuple(dict.fromkeys((python, Path(sys.prefix), package)))


def _filled(template: str, values: Mapping[str, str]) -> str:
    return files(__package__).joinpath(template).read_text(encoding="utf-8").format(**values)


def _plain(path: Path) -> str:
    """A path as a unit takes it. Raises UsageError when systemd would read something else."""
    text = str(path)
    if not path.is_absolute() or path == Path("/") or any(character in _MISREAD for character in text):
        raise UsageError(f"{text!r} is no path for a service", "use an absolute path without spaces and signs")
    return text
