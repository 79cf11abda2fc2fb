"""How a plan stands at its sites: the greeting before a session, which brings plan, roster and lost heads along.

A site that was restarted asks, in its greeting, which head of its ledger others have seen. The question is carried to
them and their answers back, before the site is asked to join anything.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from wardround.protocol.errors import ProtocolViolation
from wardround.protocol.incoming import Ask, Follow, Heads, Hello, Propose, Recall
from wardround.protocol.messages import Greeting, Recalled
from wardround.protocol.plan import StudyPlan
from wardround.protocol.roster import Roster
from wardround.server.carrier import Answered, Silent
from wardround.server.exchange import said

HELLO_SECONDS: Final = 30.0
"""How long a greeting waits for sites that are away, if a round waits as long."""

log = logging.getLogger(__name__)


class Exchange(Protocol):
    """Sends each site its requests within so many seconds; see ``Carrier``."""

    def __call__(self, kind: str, asks: Mapping[str, Sequence[Ask]], seconds: float) -> Iterator[Answered | Silent]: ...


class Greeter:
    """Greets the sites of one plan. ``roster`` gives the one in force, or None."""

    def __init__(self, plan: StudyPlan, roster: Callable[[], Roster | None], exchange: Exchange) -> None:
        self._plan = plan
        self._roster = roster
        self._exchange = exchange
        self._seconds = min(HELLO_SECONDS, plan.deadline_seconds)

    def greet(self, propose: bool = False) -> dict[str, Greeting]:
        """What each site says that answers. ``propose``: the plan goes along, for its officers."""
        first: list[Ask] = [Propose(self._plan.canonical.decode())] if propose else [Hello(self._plan.digest)]
        roster = self._roster()
        asks: dict[str, list[Ask]] = {each.site: list(first) for each in self._plan.participants}
        greetings = self._greetings(asks, 1)
        behind = [s for s, g in greetings.items() if roster and g.roster not in ("", roster.digest)]
        if behind and roster is not None:
            follow = {site: [Follow(roster.canonical.decode()), *first] for site in behind}
            greetings |= self._greetings(follow, 2)
        self._recollect(greetings)
        return greetings

    def _greetings(self, asks: Mapping[str, Sequence[Ask]], count: int) -> dict[str, Greeting]:
        found = {}
        for outcome in self._exchange("query.hello", asks, self._seconds):
            if isinstance(outcome, Answered) and len(outcome.answers) == count:
                try:
                    found[outcome.site] = said(outcome.answers[-1], outcome.site, Greeting)[0]
                except ProtocolViolation as error:
                    log.warning("greeting refused site=%s reason=%r", outcome.site, error.message)
        return found

    def _recollect(self, greetings: Mapping[str, Greeting]) -> None:
        """Carry each restarted site's question to the others, and their answers back."""
        asking = {site: greeting.nonce for site, greeting in greetings.items() if greeting.nonce}
        if not asking or len(greetings) < 2:
            return
        asks: dict[str, list[Ask]] = {
            site: [Recall(origin, nonce) for origin, nonce in asking.items() if origin != site] for site in greetings
        }
        answers: dict[str, list[str]] = {origin: [] for origin in asking}
        for outcome in self._exchange("query.hello", {s: a for s, a in asks.items() if a}, self._seconds):
            if not isinstance(outcome, Answered):
                continue
            for ask, content in zip(asks[outcome.site], outcome.answers, strict=False):
                try:
                    recalled = said(content, outcome.site, Recalled)[0]
                except ProtocolViolation:
                    continue
                assert isinstance(ask, Recall)
                answers[ask.origin].append(recalled.answer)
        back: dict[str, list[Ask]] = {origin: [Heads(tuple(found))] for origin, found in answers.items() if found}
        for outcome in self._exchange("query.keys", back, self._seconds):
            log.info("heads answered site=%s", outcome.site)
