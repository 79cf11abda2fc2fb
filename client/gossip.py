"""A site's part in the gossip on ledgers: it hears bulletins, makes its own, and notes what does not come.

What a site does on an alarm (docs/adr/0022): on one of its own ledger it reserves nothing until two officers have
signed a recovery; on one of another's it cosigns nothing more of that ledger and goes on training. Whether a hospital
stays in the consortium is for the officers, who sign rosters; otherwise one hospital could stop all others by
breaking a ledger.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from sqlite3 import Connection
from typing import Final

from wardround.client.store.ledger import Ledger
from wardround.client.store.watched import Watched
from wardround.client.store.witness import Witness
from wardround.protocol.alarm import Alarm
from wardround.protocol.bulletin import cycle, make_bulletin, make_statement, parse_statement, witnesses_of
from wardround.protocol.errors import ProtocolViolation
from wardround.protocol.identity import Identity, PublicIdentity
from wardround.protocol.owners import COORDINATOR
from wardround.protocol.receipt import Receipt
from wardround.protocol.secagg import colluding
from wardround.protocol.watch import Heard, Watch

TURNS: Final = 8
"""m: how often in a row a cosignature or a cycle's bulletin may be missing before it is called silence."""

log = logging.getLogger(__name__)


class Gossiper:
    """The gossip of one site. Belongs to one thread, as its database does."""

    def __init__(
        self,
        store: Connection,
        ledger: Ledger,
        witness: Witness,
        identity: Identity,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._memory = Watched(store, identity.site)
        self._ledger = ledger
        self._witness = witness
        self._identity = identity
        self._clock = clock
        self.watch = Watch(identity, self._memory, witness.held, self._now)

    def hear(self, bulletins: Iterable[str], parties: Mapping[str, PublicIdentity]) -> None:
        """Take what other sites of the roster say; one that is not signed by who it names is passed over."""
        for bulletin in bulletins:
            try:
                heard = self.watch.hear(bulletin.encode(), parties)
            except ProtocolViolation as error:
                log.warning("bulletin refused reason=%r", error.message)
                continue
            self._act(heard)

    def refused(self, note: bytes, party: PublicIdentity) -> None:
        """This site did not cosign ``note``, because it does not continue what it signed before."""
        self._act(self.watch.refused(note, party))

    def suspects(self, origin: str) -> bool:
        """Whether an alarm on ``origin``'s ledger has no answer: then this site cosigns nothing of it."""
        return any(one.origin == origin and one.second and one.kind != "silence" for one in self.watch.open_alarms())

    def bulletin(self, parties: Mapping[str, PublicIdentity]) -> bytes:
        """This site's bulletin now."""
        state, tree = self._ledger.state, self._ledger.tree()
        note, size = self._ledger.checkpoint(), tree.size
        sizes = {*state.countersigned.values(), *self.watch.own_sizes()}
        proofs = {earlier: tree.consistency(earlier, size) for earlier in sizes if 0 < earlier < size}
        before = self._memory.get("statement", self._identity.site)
        at = self._now()
        if before is not None:
            at = max(at, parse_statement(before, self._identity.site).at)
        statement = make_statement(self._identity, at, note, proofs, state.recovered)
        self.watch.stated(statement)
        heads = [held for origin in sorted(parties) if (held := self._witness.held(origin)) is not None]
        return make_bulletin(self._identity, statement, [*heads, *self.watch.waiting()], self.watch.to_pass_on())

    def settled(self, receipt: Receipt, roster: Iterable[str]) -> None:
        """A round was closed: whoever took part owed this site a bulletin, and some a cosignature."""
        own, names = self._identity.site, sorted(set(receipt.line) & set(roster))
        if receipt.state != "closed" or own not in names:
            return
        there = {line.site for line in receipt.sites if line.outcome == "replied"} & set(names)
        count = colluding(len(names)) + 1
        asked = set(witnesses_of(own, names, receipt.round_number, count))
        for other in sorted(there - {own}):
            self._note(self.watch.missed("bulletin", other, TURNS * cycle(len(names))))
            if other in asked:
                self._note(self.watch.missed("cosignature", other, TURNS))
        self._note(self.watch.missed("cosignature", COORDINATOR, TURNS))

    def cosigned(self, witness: str, size: int, sites: int) -> None:
        """A cosignature of ``witness`` under the first ``size`` entries has come back; the roster names ``sites``."""
        self.watch.spoke("cosignature", witness)
        self.watch.remember(size, sites)

    def _act(self, heard: Heard) -> None:
        for head, witness in heard.own:
            if self._ledger.rolled_back(head, witness):
                log.error("own ledger is not what others hold entries=%d witness=%s", head.size, witness)
        for origin in heard.recovered:
            self._witness.begin_again(origin)
        for alarm in heard.alarms:
            self._note(alarm)

    def _note(self, alarm: Alarm | None) -> None:
        if alarm is not None:
            log.error(
                "ledger alarm kind=%s origin=%s by=%s sha256=%s", alarm.kind, alarm.origin, alarm.by, alarm.digest
            )

    def _now(self) -> str:
        return self._clock().strftime("%Y-%m-%dT%H:%M:%SZ")
