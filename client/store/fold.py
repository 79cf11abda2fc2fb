"""A ledger's entries taken one after another: each must follow the one before, and may do only what the rules allow.

The daemon's ledger, the console and the papers all read through this. ``ledger verify`` does not: it trusts no one.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from pydantic import ValidationError

from wardround.privacy.books import NotAllowed
from wardround.privacy.ledger import LedgerState
from wardround.protocol.entry import DatedFact, Entry, chained, misdated, parse_content, signed_message
from wardround.protocol.identity import PublicIdentity
from wardround.protocol.ledger import Fact, OpenLedger


class Misfit(Exception):
    """Entry ``number`` cannot stand where it stands; ``reason`` says why, and holds nothing of the entry."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(f"entry {number}: {reason}")
        self.number, self.reason = number, reason


@dataclass(slots=True)
class Fold:
    """What the entries that were taken add up to. ``last`` and its time are those of the newest.

    ``signed_to``: the number of the newest entry whose signature is known to be the site's.
    """

    state: LedgerState = field(default_factory=LedgerState)
    last: Entry | None = None
    last_at: str = ""
    signed_to: int = 0

    def take(self, entry: Entry) -> DatedFact:
        """Take the next entry, its signature apart. Raises Misfit; nothing but the state is touched then."""
        number = self.state.size + 1
        if entry.number != number or chained(self.last, entry.number, entry.content) != entry.hash:
            raise Misfit(number, "it does not follow the entry before")
        try:
            dated = parse_content(entry.content)
            if misdated(dated, self.last_at):
                raise Misfit(number, "it is dated before the entry that it follows")
            self.state.apply(dated.fact)
        except ValidationError:
            raise Misfit(number, "its kind or a field is unknown to this version") from None
        except NotAllowed as error:
            raise Misfit(number, error.message) from error
        self.last, self.last_at = entry, dated.at
        return dated

    def wrote(self, facts: Iterable[Fact], last: Entry, at: str) -> None:
        """Take ``facts``, whose entries this process has just made, signed and written; ``last`` is their last."""
        for fact in facts:
            self.state.apply(fact)
        self.last, self.last_at, self.signed_to = last, at, last.number

    def check_signature(self) -> None:
        """The newest signature stands for every byte before it. Raises Misfit, and again until it is mended."""
        if self.last is None or self.last.number == self.signed_to:
            return
        if not signed(self.last, self.state.opened):
            raise Misfit(self.last.number, "its signature is not the site's")
        self.signed_to = self.last.number


def signed(entry: Entry, opened: OpenLedger | None) -> bool:
    """Whether the key that the ledger was opened with signed ``entry``; a simulation's entries carry no signature."""
    if opened is None or opened.key is None:
        return entry.signature == b""
    return PublicIdentity(opened.site, bytes.fromhex(opened.key)).verifies(entry.signature, signed_message(entry.hash))
