"""What left the site, kept up entry by entry: answers to rounds, lists of survivors that were signed, sums opened."""

from dataclasses import dataclass, field

from wardround.privacy.ledger import LedgerState
from wardround.protocol.entry import DatedFact
from wardround.protocol.ledger import OpenSum, Release, SignSurvivors


@dataclass(slots=True)
class Sent:
    """One answer. ``numbers``: its entries, one for each domain that it was charged to; the first is its name.

    ``content``: the hash of the bytes that left, 64 hex digits; ``at`` when that was written down, before they left.
    """

    numbers: list[int]
    at: str
    plan: str
    round_number: int
    attempt: int
    content: str
    domains: list[str]

    @property
    def attempted(self) -> tuple[str, int, int]:
        return self.plan, self.round_number, self.attempt


@dataclass(slots=True)
class Leaving:
    """``sent`` in the order of time, and of each plan; ``signed`` and ``opened``: entries by (plan, round, attempt)."""

    sent: list[Sent] = field(default_factory=list)
    of_plan: dict[str, list[Sent]] = field(default_factory=dict)
    by_number: dict[int, Sent] = field(default_factory=dict)
    by_attempt: dict[tuple[str, int, int], Sent] = field(default_factory=dict)
    signed: dict[tuple[str, int, int], list[int]] = field(default_factory=dict)
    opened: dict[tuple[str, int, int], list[int]] = field(default_factory=dict)

    def take(self, number: int, dated: DatedFact, state: LedgerState) -> None:
        """Follow entry ``number``, which ``state`` has just taken."""
        fact = dated.fact
        if isinstance(fact, Release):
            self._sent(number, dated.at, fact, state)
        elif isinstance(fact, SignSurvivors):
            self.signed.setdefault((fact.plan, fact.round_number, fact.attempt), []).append(number)
        elif isinstance(fact, OpenSum):
            self.opened.setdefault((fact.plan, fact.round_number, fact.attempt), []).append(number)

    def _sent(self, number: int, at: str, fact: Release, state: LedgerState) -> None:
        block = state.blocks[fact.block]
        last = self.by_attempt.get((block.plan, block.round_number, fact.attempt))
        # A round is charged to every domain that it touches, and still is one answer.
        if last is not None and last.content == fact.content:
            last.numbers.append(number)
            last.domains.append(block.domain)
            return
        sent = Sent([number], at, block.plan, block.round_number, fact.attempt, fact.content, [block.domain])
        self.sent.append(sent)
        self.of_plan.setdefault(block.plan, []).append(sent)
        self.by_number[number] = self.by_attempt[sent.attempted] = sent
