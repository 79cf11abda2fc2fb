"""The folder of an HL7 v2 engine: its files grow, appear and go, and each message in them is given once it is whole.

HL7 v2.5.1, chapter 2. A message runs from MSH to the next header (MSH, or FHS, BHS, BTS, FTS of a batch, 2.10.3) or to
the end block of MLLP (HL7 implementation guide, appendix C). The last one of a file often says nothing of its end: it
is whole when its file has rested. Should more of it come all the same, it is given again, whole. Files are opened for
reading only, and never moved or deleted.
"""

import os
import re
import struct
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple

from wardround.client.connectors.hl7v2_messages import LONGEST
from wardround.protocol.errors import Unavailable, UsageError

ENDINGS: Final = (".hl7", ".txt", ".dat", ".msg")
MOST_FILES: Final = 100_000
"""Files of a folder that a watermark names, in 64 bytes each."""

_PIECE: Final = 2 * LONGEST + (1 << 20)
"""Bytes that are read at once: more than two messages, so that each piece ends at least one."""

_TOO_LONG: Final = f"a message of more than {LONGEST >> 20} MB"
_ENTRY: Final = struct.Struct(">16sqqqq16s")
ENTRY_SIZE: Final = _ENTRY.size
"""Bytes of a place."""

_HEADER: Final = re.compile(rb"(?:\A|[\r\n\x0b\x1c])[ \t\xef\xbb\xbf]*(MSH|FHS|BHS|BTS|FTS)(?=[^A-Za-z0-9])")
_AROUND: Final = b"\r\n\x0b\x1c \t\x00"


class Place(NamedTuple):
    """How far a file was read.

    Args:
        start: where the last message that was given begins, in bytes.
        upto: everything before this was read.
        size: of the file, when it was looked at.
        changed: in ns since 1970, likewise.
        tail: keyed hash of what lies between ``start`` and ``upto``: another one when the file was written anew.
    """

    start: int = 0
    upto: int = 0
    size: int = 0
    changed: int = 0
    tail: bytes = b""


_NOTHING: Final = Place()


class Inbox:
    """How far each file was read, and the folder that it is of.

    Args:
        places: what ``packed`` returned; b"": nothing was read yet.
        rest: ns after which a file that was not touched is whole.
        now: ns since 1970.
    """

    def __init__(self, folder: Path, places: bytes, key: bytes, rest: int, now: int) -> None:
        self._folder, self._key, self._rest, self._now = folder, key, rest, now
        self.set_aside: Counter[str] = Counter()
        self._places: dict[bytes, Place] = {}
        for name, *place in _ENTRY.iter_unpack(places):
            self._places[name] = Place._make(place)
        self._there: set[bytes] = set()

    def files(self) -> Iterator[Path]:
        """The files that may hold something new, in the order in which they were last written, then by name."""
        if not self._folder.is_dir():
            raise Unavailable("the feed's folder is not there", "check 'path' of this feed, and the drive")
        found: list[tuple[int, str]] = []
        for name, entry in _below(str(self._folder)):
            try:
                about = entry.stat()
            except OSError:
                continue
            mark = self._mark(name.encode("utf-8", "surrogateescape"))
            self._there.add(mark)
            place = self._places.get(mark, _NOTHING)
            if (place.size, place.changed, place.upto) != (about.st_size, about.st_mtime_ns, about.st_size):
                found.append((about.st_mtime_ns, name))
        if len(self._there) > MOST_FILES:
            raise UsageError(
                f"the feed's folder holds more than {MOST_FILES:,} files", "move those of former days elsewhere"
            )
        for _, name in sorted(found):
            yield self._folder / name

    def pieces(self, path: Path) -> Iterator[list[bytes]]:
        """The messages of a file that were not given yet, or have grown, some megabytes at a time.

        The watermark counts a piece as read when it is yielded: the caller may stop after any of them.
        """
        name = self._mark(path.relative_to(self._folder).as_posix().encode("utf-8", "surrogateescape"))
        place = self._places.get(name, _NOTHING)
        try:
            about = path.stat()
            settled = abs(self._now - about.st_mtime_ns) >= self._rest
            with path.open("rb") as stream:
                more = True
                while more:
                    stream.seek(place.start)
                    data = stream.read(max(0, min(_PIECE, about.st_size - place.start)))
                    read = data[: place.upto - place.start]
                    if place.upto and (about.st_size < place.upto or self._mark(read) != place.tail):
                        # Another file under this name.
                        place = _NOTHING
                        continue
                    # A file that is cut short meanwhile gives less than it said.
                    more = len(data) == _PIECE and place.start + len(data) < about.st_size
                    place, fresh = self._next(place, data, more, settled)
                    self._places[name] = place = place._replace(size=about.st_size, changed=about.st_mtime_ns)
                    yield fresh
        except OSError:
            # It may have gone since it was listed; if it has not, the next poll tries it again.
            self.set_aside["a file that cannot be read"] += 1

    def _next(self, place: Place, data: bytes, more: bool, settled: bool) -> tuple[Place, list[bytes]]:
        """What ``data``, which lies at ``place.start``, brings; ``more``: the file goes on behind it."""
        found, whole = _split(data)
        if settled and not more:
            whole = len(found)
        fresh = [data[begin:end] for begin, end in found[:whole] if place.start + end > place.upto]
        start, upto = 0, found[whole][0] if whole < len(found) else len(data)
        if whole:
            begin, end = found[whole - 1]
            start = begin if end - begin <= LONGEST else end
        if more and not fresh:
            self.set_aside[_TOO_LONG] += 1
            start = upto = len(data)
        elif not found and not settled:
            upto = 0
        elif not found and not place.start and data:
            self.set_aside["a file without a message"] += 1
        upto = max(upto, place.upto - place.start)
        tail = self._mark(data[start:upto])
        return Place(place.start + start, place.start + upto, tail=tail), fresh

    def packed(self) -> bytes:
        """The places. A file that is gone stays in them while there is room: a drive may be away for an hour."""
        kept = sorted(self._places.items(), key=lambda item: (item[0] not in self._there, -item[1].changed, item[0]))
        return b"".join(_ENTRY.pack(name, *place) for name, place in sorted(kept[:MOST_FILES]))

    def _mark(self, data: bytes) -> bytes:
        return blake2b(data, key=self._key, digest_size=16).digest()


def _below(folder: str, under: str = "") -> Iterator[tuple[str, os.DirEntry[str]]]:
    """The files that messages may lie in, by their names below the folder. Links to folders are not followed.

    Raises Unavailable: a drive that is gone is not an empty one.
    """
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    yield from _below(entry.path, f"{under}{entry.name}/")
                elif entry.name.lower().endswith(ENDINGS) and entry.is_file():
                    yield under + entry.name, entry
    except OSError as error:
        raise Unavailable(
            f"a folder of the feed cannot be read: {error.strerror}", "check the drive and its rights"
        ) from None


def _split(data: bytes) -> tuple[list[tuple[int, int]], int]:
    """Where messages begin and end, and how many of them say where they end: all, or all but the last."""
    heads = [(found.start(1), found[1] == b"MSH") for found in _HEADER.finditer(data)]
    found: list[tuple[int, int]] = []
    whole = 0
    for number, (begin, message) in enumerate(heads):
        if not message:
            continue
        last = number + 1 == len(heads)
        end = len(data) if last else heads[number + 1][0]
        block = data.find(b"\x1c", begin, end)
        if block >= 0:
            end = block
        found.append((begin, begin + len(data[begin:end].rstrip(_AROUND))))
        whole += not last or block >= 0
    return found, whole
