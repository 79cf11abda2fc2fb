"""The files of an export: a folder with everything below it, a zip of one, or one file; some of them gzipped.

Files come in the order of their names, so that what is read does not depend on the file system.
"""

import gzip
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path
from stat import S_ISREG
from typing import IO, Final, cast
from zipfile import BadZipFile, ZipFile

from wardround.protocol.errors import Unavailable, UsageError

CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """A file of an export: ``name`` relative to it, with slashes."""

    name: str
    open: Callable[[], IO[bytes]]

    @property
    def stem(self) -> str:
        """The name up to its first dot, without folders: ``Observation`` for Observation.1.ndjson.gz."""
        return self.name.rsplit("/", 1)[-1].split(".", 1)[0]


def parts(path: Path, endings: Collection[str], what: str, first: str = "") -> Iterator[Part]:
    """The files whose names end with one of ``endings`` (small letters), also with ``.gz`` behind.

    Those whose stem is ``first`` come first.

    Raises:
        UsageError: there is no such path, no such file in it, or a zip that cannot be read.
    """
    wanted = tuple(ending + more for ending in endings for more in ("", ".gz"))
    if not path.exists():
        raise UsageError(f"no file or folder '{path.name}' in '{path.parent}'", "check 'path' of this site")
    with reading(path.name):
        if path.is_dir():
            files = {str(file.relative_to(path).as_posix()): file for file in path.rglob("*") if file.is_file()}
            found = [Part(name, _opener(files[name])) for name in _chosen(files, wanted)]
            yield from _some(found, path, wanted, what, first)
        elif path.suffix.lower() == ".zip":
            with ZipFile(path) as archive:
                found = [Part(name, _member(archive, name)) for name in _chosen(archive.namelist(), wanted)]
                yield from _some(found, path, wanted, what, first)
        else:
            yield Part(path.name, _opener(path))


def files_below(path: Path) -> Iterator[Path]:
    """Every regular file below ``path``, folder after folder, by name. Links to folders are not followed.

    Raises:
        Unavailable: a folder cannot be looked into; a drive that is gone is not an empty one.
    """
    try:
        entries = sorted(path.iterdir())
    except OSError as error:
        raise Unavailable(
            f"a folder of the source cannot be read: {error.strerror}", "check the drive and its rights"
        ) from None
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink():
            yield from files_below(entry)
        elif entry.is_file():
            yield entry


def shape_of(path: Path) -> str:
    """Size in bytes and time of change in ns of a regular file: another text when it was written again.

    '' for anything else, such as a link that leads nowhere.
    """
    try:
        about = path.stat()
    except OSError:
        return ""
    return f"{about.st_size} {about.st_mtime_ns}" if S_ISREG(about.st_mode) else ""


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turns what goes wrong in a file into a UsageError that names it."""
    try:
        yield
    except (BadZipFile, zlib.error, EOFError, LZMAError, gzip.BadGzipFile, NotImplementedError):
        raise UsageError(f"'{name}' is not a whole file: it cannot be unpacked", "export it again") from None
    except OSError as error:
        raise UsageError(f"'{name}' cannot be read: {error.strerror}", "check the file and its permissions") from None


def lines(stream: IO[bytes], longest: int) -> Iterator[bytes | None]:
    """Lines without their ends; None for one of more than ``longest`` bytes, which is not kept."""
    while line := stream.readline(longest + 1):
        if len(line) > longest and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = stream.readline(CHUNK)
            yield None
        else:
            yield line.rstrip(b"\r\n")


def _chosen(names: Collection[str], wanted: tuple[str, ...]) -> list[str]:
    def hidden(name: str) -> bool:
        return any(piece.startswith(".") or piece == "__MACOSX" for piece in name.split("/"))

    return sorted(name for name in names if name.lower().endswith(wanted) and not hidden(name))


def _some(found: list[Part], path: Path, wanted: tuple[str, ...], what: str, first: str) -> Iterator[Part]:
    if not found:
        raise UsageError(f"'{path.name}' holds no {what}", f"its files must end with one of {', '.join(wanted)}")
    yield from sorted(found, key=lambda part: part.stem != first)


def _opener(path: Path) -> Callable[[], IO[bytes]]:
    def opened() -> IO[bytes]:
        return cast(IO[bytes], gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")

    return opened


def _member(archive: ZipFile, name: str) -> Callable[[], IO[bytes]]:
    def opened() -> IO[bytes]:
        try:
            member = archive.open(name)
        except RuntimeError:
            # This is how zipfile says that a member has a password.
            raise UsageError(f"'{name}' cannot be unpacked: it has a password", "unpack it first") from None
        return cast(IO[bytes], gzip.GzipFile(fileobj=member)) if name.lower().endswith(".gz") else member

    return opened
