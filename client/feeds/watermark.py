"""What every watermark has: a keyed tag, so that one of another feed, or a broken one, is refused and not misread."""

from hashlib import blake2b
from hmac import compare_digest
from typing import Final

from wardround.protocol.errors import UsageError

_FORMAT: Final = b"wardround/watermark/1\x00"
_TAG: Final = 16


def feed_key(key: bytes, kind: str, name: str) -> bytes:
    """32 bytes of one feed's own, from those of the site."""
    return blake2b(f"{kind}\x00{name}".encode(), key=key, digest_size=32).digest()


def sealed(body: bytes, key: bytes) -> bytes:
    """The watermark that holds ``body``."""
    return _FORMAT + _tag(body, key) + body


def opened(watermark: bytes | None, key: bytes) -> bytes | None:
    """What ``sealed`` was given; None: nothing was read yet. Raises UsageError for what this feed did not seal."""
    if not watermark:
        return None
    head = len(_FORMAT) + _TAG
    if not compare_digest(watermark[:head], _FORMAT + _tag(watermark[head:], key)):
        raise UsageError("the watermark is not one of this feed", "give a changed feed a new name")
    return watermark[head:]


def _tag(body: bytes, key: bytes) -> bytes:
    return blake2b(body, key=key, digest_size=_TAG, person=b"watermark").digest()
