"""The deployed protocol in one process: the real desks of hospitals' folders behind the real conductor, without a wire.

What crosses is the same bytes that Flower would carry. Tests use it, and so can a developer who wants to step through a
round with a debugger.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from wardround.client.desk import Desk
from wardround.protocol.incoming import Ask, ask_bytes
from wardround.protocol.outgoing import bytes_to_send
from wardround.server.carrier import Answered, Silent

Loss = Callable[[str, str, int], bool]
"""(exchange, site, number of the exchange) -> whether the answer is lost on its way."""


class DeskCarrier:
    """A ``Carrier`` that calls desks, in the order of the sites' names."""

    def __init__(self, plan: str, desks: Mapping[str, Desk], lost: Loss = lambda kind, site, number: False) -> None:
        self._plan = plan
        self.desks = dict(desks)
        self._lost = lost
        self.exchanges = 0

    def exchange(
        self,
        kind: str,
        asks: Mapping[str, Sequence[Ask]],
        seconds: float,
        give_up: Callable[[], bool] = lambda: False,
    ) -> Iterator[Answered | Silent]:
        self.exchanges += 1
        number = self.exchanges
        for site in sorted(asks):
            if site not in self.desks:
                yield Silent(site, "its connection was lost")
                continue
            requests = [b"".join(bytes(part) for part in ask_bytes(ask)) for ask in asks[site]]
            answers = tuple(bytes_to_send(one) for one in self.desks[site].answer(kind, self._plan, requests))
            yield Silent(site, "its connection was lost") if self._lost(kind, site, number) else Answered(site, answers)
