"""Which visits and discharges were cancelled and stay so, whatever an update says of them: kept in a feed's watermark.

Each is 16 bytes, a keyed hash. Of more than ``MOST`` the oldest are forgotten: an update that comes after so many other
cancellations is taken for what it says.
"""

from hashlib import blake2b
from struct import Struct
from typing import Final

from wardround.protocol.errors import UsageError

MOST: Final = 50_000
"""In 800 kB of a watermark: a year of a hospital that cancels 130 visits a day."""

_SIZE: Final = 16
_COUNT: Final = Struct(">I")


class Cancelled:
    """A set that remembers in which order it was filled. ``key``: 32 bytes."""

    def __init__(self, key: bytes, marks: tuple[bytes, ...] = ()) -> None:
        self._key = key
        self._marks = dict.fromkeys(marks)

    @classmethod
    def parse(cls, body: bytes | None, key: bytes, entry: int) -> tuple["Cancelled", bytes]:
        """The set at the beginning of ``body``, and what follows it: entries of ``entry`` bytes.

        Raises:
            UsageError: it is no such body.
        """
        if not body:
            return cls(key), b""
        count = _COUNT.unpack_from(body)[0] if len(body) >= _COUNT.size else 0
        end = _COUNT.size + _SIZE * count
        if end > len(body) or (len(body) - end) % entry:
            raise UsageError("the watermark was made by another version", "give the feed a new name")
        marks = tuple(body[at : at + _SIZE] for at in range(_COUNT.size, end, _SIZE))
        return cls(key, marks), body[end:]

    def __contains__(self, what: str) -> bool:
        return self._mark(what) in self._marks

    def add(self, what: str) -> None:
        """``what`` is cancelled, and counts as the newest."""
        self.drop(what)
        self._marks[self._mark(what)] = None
        while len(self._marks) > MOST:
            del self._marks[next(iter(self._marks))]

    def drop(self, what: str) -> None:
        """``what`` is cancelled no more."""
        self._marks.pop(self._mark(what), None)

    def packed(self) -> bytes:
        """What ``parse`` reads."""
        return _COUNT.pack(len(self._marks)) + b"".join(self._marks)

    def _mark(self, what: str) -> bytes:
        return blake2b(what.encode(), key=self._key, digest_size=_SIZE, person=b"cancelled").digest()
