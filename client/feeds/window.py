"""Where a source that stamps what arrives was read up to, and what was read of the time just before.

A stamp is no order of arrival: a transaction that stamps its rows at its beginning commits them late, and a clock may
be set back. So each poll reads again what is stamped within ``overlap`` of the latest stamp read, and a keyed hash of
what was given tells the rest. What arrives with a stamp older than that is not seen.
"""

import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Final

from wardround.client.feeds.watermark import opened, sealed

MARK: Final = 16
"""Bytes of the keyed hash of a row: two of 2^32 rows are alike with a chance of 2^-65."""

_HEAD: Final = struct.Struct(">q")
_ENTRY: Final = struct.Struct(f">q{MARK}s")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_LEAST: Final = (datetime(2, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND
"""A year after the first time that there is, so that a zone or an overlap can be taken from it."""


class Window:
    """A watermark that is taken apart.

    Args:
        key: 32 bytes, under which rows are hashed.
        overlap: how late a row may become visible after its stamp.
        now: this machine's clock: a source whose clock once ran ahead must not hide what it stamps after it was put
            right, so nothing after ``now`` moves the watermark.
        since: without a watermark, nothing that is stamped earlier is read.

    Raises:
        UsageError: the watermark is not this feed's.
    """

    def __init__(
        self,
        watermark: bytes | None,
        key: bytes,
        overlap: timedelta,
        now: Callable[[], datetime],
        since: datetime | None = None,
    ) -> None:
        self._key, self._overlap, self._now = key, overlap // _MICROSECOND, now
        self._high: int | None = None
        self._seen: dict[bytes, int] = {}
        body = opened(watermark, key)
        if body is None:
            if since is not None:
                self._high = (since - _EPOCH) // _MICROSECOND + self._overlap
            return
        (self._high,) = _HEAD.unpack_from(body)
        self._seen = {mark: stamp for stamp, mark in _ENTRY.iter_unpack(body[_HEAD.size :])}

    @property
    def start(self) -> datetime | None:
        """The first stamp that is read again, UTC; None: everything is read."""
        return None if self._high is None else _EPOCH + max(self._high - self._overlap, _LEAST) * _MICROSECOND

    def take(self, stamp: datetime, row: str) -> bool:
        """Whether ``row`` is new; from now on it is not. ``row``: all that makes a version of it another one."""
        at = (stamp - _EPOCH) // _MICROSECOND
        if self._high is not None and at < self._high - self._overlap:
            return False
        mark = blake2b(row.encode("utf-8", "surrogatepass"), key=self._key, digest_size=MARK).digest()
        if mark in self._seen:
            return False
        self._seen[mark] = at
        return True

    def reach(self, stamp: datetime) -> None:
        """Everything with an earlier stamp was read, but for what becomes visible late."""
        at = (min(stamp, self._now()) - _EPOCH) // _MICROSECOND
        self._high = at if self._high is None else max(self._high, at)

    def packed(self) -> bytes:
        """The watermark; b"" stands for a source in which nothing was ever found, and is read as None is."""
        if self._high is None:
            return b""
        least = self._high - self._overlap
        kept = sorted((stamp, mark) for mark, stamp in self._seen.items() if stamp >= least)
        return sealed(_HEAD.pack(self._high) + b"".join(_ENTRY.pack(*each) for each in kept), self._key)
