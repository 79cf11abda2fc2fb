"""How a study's requests reach its sites: behind Flower, or in this process.

An exchange sends each site a list of requests and yields each site's answers as they come. What is lost is tried again
until the deadline; a site answers the same request with the same bytes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from wardround.protocol.incoming import Ask
from wardround.protocol.outgoing import Stored


@dataclass(frozen=True, slots=True)
class Answered:
    """What came back from a site, one answer for each request; a large one may lie on disk."""

    site: str
    answers: tuple[bytes | Stored, ...]


@dataclass(frozen=True, slots=True)
class Silent:
    """A site did not answer before the deadline, and what is known of why."""

    site: str
    reason: str


class Carrier(Protocol):
    """Carries exchanges of one study."""

    def exchange(
        self,
        kind: str,
        asks: Mapping[str, Sequence[Ask]],
        seconds: float,
        give_up: Callable[[], bool] = lambda: False,
    ) -> Iterator[Answered | Silent]:
        """Send ``asks`` and yield one outcome for each site, in the order in which they come.

        ``give_up`` is asked while waiting: True ends the exchange, and who has not answered is silent.
        """
