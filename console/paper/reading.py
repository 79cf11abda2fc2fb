"""A site's ledger, read once and for reading only, up to any of its entries: what it adds up to there, and its tree."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from wardround.client.store.database import explained, open_copy
from wardround.client.store.ledger import signed, stored_entries
from wardround.privacy.books import NotAllowed
from wardround.privacy.ledger import LedgerState
from wardround.protocol.entry import DatedFact, Entry, chained, misdated, parse_content
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
    entries = _checked(stored, site)
    state = LedgerState()
    for one in entries:
        try:
            state.apply(one.fact.fact)
        except NotAllowed as error:
            raise _broken(one.entry.number, error.message) from error
    if state.opened is None or state.opened.key is None:
        raise UsageError("this ledger has no key: it is empty, or a simulation's", "name a hospital's folder")
    # The last signature stands for every byte before it.
    if not signed(entries[-1].entry, state.opened):
        raise _broken(entries[-1].entry.number, "its signature is not the site's")
    return Book(site, state.opened.key, tuple(entries), Tree(one.entry.content for one in entries))


def _checked(stored: Sequence[Entry], site: str) -> list[Dated]:
    entries: list[Dated] = []
    last, at = None, ""
    for entry in stored:
        if entry.number != len(entries) + 1 or chained(last, entry.number, entry.content) != entry.hash:
            raise _broken(len(entries) + 1, "it does not follow the entry before")
        try:
            dated = parse_content(entry.content)
        except ValidationError:
            raise _broken(entry.number, "its kind or a field is unknown to this version") from None
        if misdated(dated, at):
            raise _broken(entry.number, "it is dated before the entry that it follows")
        entries.append(Dated(entry, dated.at, dated))
        last, at = entry, dated.at
    if not entries:
        raise UsageError(f"the file holds no ledger of site '{site}'", "name the site's own folder")
    return entries


def _broken(number: int, reason: str) -> UsageError:
    return UsageError(
        f"the ledger is broken at entry {number}: {reason}",
        "no paper is made of it; keep the file, and ask: wardround ledger verify",
    )
