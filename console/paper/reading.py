"""A site's ledger, read once and for reading only, up to any of its entries: what it adds up to there, and its tree."""

from dataclasses import dataclass
from pathlib import Path

from wardround.client.store.database import explained, open_copy
from wardround.client.store.fold import Fold, Misfit
from wardround.client.store.ledger import stored_entries
from wardround.privacy.ledger import LedgerState
from wardround.protocol.entry import DatedFact, Entry
from wardround.protocol.errors import UsageError
from wardround.protocol.tree import Tree


@dataclass(frozen=True, slots=True)
class Dated:
    """An entry with its fact."""

    entry: Entry
    at: str
    fact: DatedFact


@dataclass(frozen=True, slots=True)
class Book:
    """Every entry of a ledger; ``tree`` is over all of them."""

    site: str
    key: str
    entries: tuple[Dated, ...]
    tree: Tree

    def until(self, at: str) -> int:
        """How many entries were written up to the time ``at``: the number of the last of them."""
        return max((one.entry.number for one in self.entries if one.at <= at), default=0)

    def until_before(self, at: str) -> int:
        """How many entries were written before the time ``at``."""
        return next((index for index, one in enumerate(self.entries) if one.at >= at), len(self.entries))

    def state(self, size: int) -> LedgerState:
        """What the first ``size`` entries add up to."""
        state = LedgerState()
        for one in self.entries[:size]:
            state.apply(one.fact.fact)
        return state


def read_book(path: Path, site: str) -> Book:
    """The ledger of ``site`` in the SQLite file ``path``, its chain, times, rules and last signature checked.

    Raises:
        UsageError: it is broken, or a simulation's, which nobody signs.
        Unavailable: the file cannot be read.
    """
    store = open_copy(path)
    try:
        with explained(path):
            stored = list(stored_entries(store, site))
    finally:
        store.close()
    fold, entries = Fold(), []
    try:
        for entry in stored:
            dated = fold.take(entry)
            entries.append(Dated(entry, dated.at, dated))
        fold.check_signature()
    except Misfit as misfit:
        raise UsageError(
            f"the ledger is broken at {misfit}",
            "no paper is made of it; keep the file, and ask: wardround ledger verify",
        ) from misfit
    if fold.last is None:
        raise UsageError(f"the file holds no ledger of site '{site}'", "name the site's own folder")
    state = fold.state
    if state.opened is None or state.opened.key is None:
        raise UsageError("this ledger has no key: it is a simulation's", "name a hospital's folder")
    return Book(site, state.opened.key, tuple(entries), Tree(one.entry.content for one in entries))
