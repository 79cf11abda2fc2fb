"""A site as witness of other sites' ledgers: keeps the last checkpoint that it has signed for each of them.

What was signed is on disk before it is sent, so that a crash never lets one witness sign two histories.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from sqlite3 import Connection

from wardround.client.store.database import explained
from wardround.client.store.evidence import Evidence
from wardround.protocol.identity import Identity, PublicIdentity
from wardround.protocol.witness import cosign, seen_head


class Witness:
    """``store`` is from ``open_store``; ``identity`` is the key of the site that witnesses."""

    def __init__(self, store: Connection, identity: Identity) -> None:
        self._store = store
        self._identity = identity

    def cosign(self, offered: bytes, proof: Sequence[bytes], log: PublicIdentity) -> bytes:
        """The checkpoint ``offered`` by ``log`` with this site's signature.

        Raises:
            ProtocolViolation: it is not ``log``'s, or does not continue what this site signed before.
            Unavailable: it could not be kept; nothing was signed.
        """
        with explained(f"the database of site '{self._identity.site}'"):
            self._store.execute("BEGIN IMMEDIATE")
            try:
                note = cosign(offered, self._row(log.site), proof, log, self._identity)
                self._store.execute("INSERT OR REPLACE INTO witnessed VALUES (?, ?)", (log.site, note))
                self._store.execute("INSERT OR REPLACE INTO witnessed_at VALUES (?, ?)", (log.site, _now()))
                self._store.execute("COMMIT")
            finally:
                if self._store.in_transaction:
                    self._store.execute("ROLLBACK")
        return note

    def seen(self, origin: str, nonce: bytes) -> bytes:
        """The signed answer to ``origin``'s question, 32 bytes of nonce, which head of its ledger was signed last."""
        with explained(f"the database of site '{self._identity.site}'"):
            return seen_head(self._row(origin), origin, nonce, self._identity)

    def held(self, origin: str) -> bytes | None:
        """The last note of ``origin``'s ledger that this site has signed."""
        with explained(f"the database of site '{self._identity.site}'"):
            return self._row(origin)

    def begin_again(self, origin: str) -> None:
        """``origin`` says that two officers have signed a recovery from the head that is held here: the next head may
        be of the restored ledger. What was held is kept as evidence.
        """
        with explained(f"the database of site '{self._identity.site}'"):
            self._store.execute("BEGIN IMMEDIATE")
            try:
                if (note := self._row(origin)) is not None:
                    Evidence(self._store, self._identity.site).keep("lost head", note)
                    self._store.execute("DELETE FROM witnessed WHERE origin = ?", (origin,))
                self._store.execute("COMMIT")
            finally:
                if self._store.in_transaction:
                    self._store.execute("ROLLBACK")

    def _row(self, origin: str) -> bytes | None:
        row = self._store.execute("SELECT note FROM witnessed WHERE origin = ?", (origin,)).fetchone()
        return None if row is None else bytes(row[0])


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
