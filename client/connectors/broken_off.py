"""A source that broke off when some of it had been taken: the whole reading again, a few times, and then the error.

A result of a database cannot be taken up in its middle: another connection sees another state of the tables. So what
was read is thrown away and the question is asked anew, and nothing is doubled or lost.
"""

import time
from collections.abc import Callable
from typing import Final, TypeVar

from wardround.protocol.errors import Unavailable

READINGS: Final = 3
"""Times that a source is read; between them 1 and 2 seconds."""

_T = TypeVar("_T")


class BrokeOff(Unavailable):
    """A source that had answered does so no longer."""


def read_whole(read: Callable[[], _T]) -> _T:
    """What ``read`` returns, which begins at the beginning whenever it is called. Raises its last error."""
    for turn in range(READINGS - 1):
        try:
            return read()
        except BrokeOff:
            time.sleep(2.0**turn)
    return read()
