"""Who has signed which head of whose ledger, as the coordinator knows it: from its own file and from the receipts.

Names, numbers of entries and times: what every hospital of the consortium hears of the others.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from wardround.protocol.owners import COORDINATOR
from wardround.protocol.receipt import Receipt
from wardround.server.store.witness import Kept

MOST_COLUMNS: Final = 12
"""Witnesses that the page shows as columns; with more it says of each ledger how many have signed."""


@dataclass(frozen=True, slots=True)
class Countersigned:
    """``witness`` has signed the first ``size`` entries of ``origin``'s ledger; ``at``: first on record."""

    origin: str
    witness: str
    size: int
    at: str


@dataclass(frozen=True, slots=True)
class WitnessTable:
    """``signed``: of each ledger and witness the longest. ``witnesses``: the coordinator first, then the hospitals."""

    ledgers: tuple[str, ...]
    witnesses: tuple[str, ...]
    signed: tuple[Countersigned, ...]

    @property
    def wide(self) -> bool:
        return len(self.witnesses) > MOST_COLUMNS

    def of(self, origin: str, witness: str) -> Countersigned | None:
        return next((one for one in self.signed if (one.origin, one.witness) == (origin, witness)), None)

    def newest(self, origin: str) -> Countersigned | None:
        """The longest head of a ledger that anybody has signed."""
        return max((one for one in self.signed if one.origin == origin), key=lambda one: one.size, default=None)

    def missing(self, origin: str) -> tuple[str, ...]:
        """Who has signed no head of a ledger yet."""
        there = {one.witness for one in self.signed if one.origin == origin}
        return tuple(name for name in self.witnesses if name != origin and name not in there)


def witness_table(names: Iterable[str], kept: Kept, receipts: Iterable[Receipt]) -> WitnessTable:
    """The table of the hospitals ``names``. ``receipts``: in the order in which they were made."""
    found: dict[tuple[str, str], Countersigned] = {}
    for receipt in receipts:
        for one in receipt.witnessed:
            for witness in one.witnesses:
                _take(found, Countersigned(one.site, witness, one.size, receipt.at))
    for own in kept.signed:
        _take(found, Countersigned(own.origin, COORDINATOR, own.size, own.at))
    there = {name for pair in found for name in pair} - {COORDINATOR}
    ledgers = tuple(sorted({*names, *there}))
    return WitnessTable(ledgers, (COORDINATOR, *ledgers), tuple(found[pair] for pair in sorted(found)))


def _take(found: dict[tuple[str, str], Countersigned], one: Countersigned) -> None:
    held = found.get((one.origin, one.witness))
    if held is None or one.size > held.size:
        found[one.origin, one.witness] = one
