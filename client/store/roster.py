"""The rosters that a site has followed, one an epoch; the last one is in force.

The first is pinned by the digest that people compared by telephone, every later one by the officers of the one before.
Rows are only ever added, so that a coordinator can lead a site neither back nor, by two rosters of one epoch, astray.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from sqlite3 import Connection
from typing import Final

from wardround.client.store.database import explained
from wardround.client.store.evidence import Evidence
from wardround.protocol.errors import ProtocolViolation, UsageError
from wardround.protocol.identity import PublicIdentity
from wardround.protocol.owners import COORDINATOR
from wardround.protocol.roster import Roster, TwoRosters, check_first, check_next, session_members

ROSTER: Final = "roster"
"""The kind of evidence that a second roster is."""


class PinnedRoster:
    """What one site knows of the others' keys.

    Args:
        store: from ``open_store``.
        identity: the site's own name and public key, which a roster must name right.
    """

    def __init__(self, store: Connection, identity: PublicIdentity) -> None:
        self._store = store
        self._identity = identity
        self._evidence = Evidence(store, identity.site)

    def held(self) -> Roster | None:
        """The roster in force. Raises UsageError when the file was changed."""
        with explained(self._name):
            return self._held()

    def followed(self, digest: str) -> Roster | None:
        """The roster of this digest, in force or an earlier one; None: this site never followed it.

        Raises:
            UsageError: the file was changed.
        """
        with explained(self._name):
            row = self._store.execute(
                "SELECT digest, content FROM rosters WHERE site = ? AND digest = ?", (self._identity.site, digest)
            ).fetchone()
            return None if row is None else self._parsed(row)

    def pin(self, content: bytes, fingerprint: str) -> Roster:
        """Take the first roster; pinning the one in force again changes nothing.

        Args:
            fingerprint: the roster's digest, 64 hex digits, as an officer told it and not the coordinator.

        Raises:
            UsageError: another roster is pinned already, or ``fingerprint`` is none.
            ProtocolViolation: it is not the roster that was agreed on, or gives this site another key.
        """
        offered = Roster.parse(content, COORDINATOR)
        check_first(offered, fingerprint)
        self._check_own(offered.identities.get(self._identity.site))
        with self._transaction() as held:
            if held is not None and held.digest != offered.digest:
                raise UsageError(
                    f"site '{self._identity.site}' holds the roster of epoch {held.epoch} already",
                    "a later one needs no fingerprint: it comes with signatures of the officers of the one before",
                )
            if held is None:
                self._add(offered)
        return offered

    def advance(self, content: bytes) -> Roster:
        """Take the next epoch, and return what is in force; the same roster again changes nothing.

        Raises:
            UsageError: no roster is pinned yet.
            TwoRosters: another roster of the epoch in force; the error holds both.
            ProtocolViolation: not the next epoch, or not signed by the officers of the one in force.
            Unavailable: it could not be written, and does not hold.
        """
        offered = Roster.parse(content, COORDINATOR)
        with self._transaction() as held:
            if held is None:
                raise _unpinned(self._identity.site)
            if offered.digest == held.digest:
                return held
            try:
                check_next(held, offered)
            except TwoRosters:
                self._keep_evidence(held, offered)
                raise
            self._add(offered)
        return offered

    def disputed(self) -> tuple[Roster, ...]:
        """The second rosters of an epoch that this site was shown: evidence against whoever signed both."""
        return tuple(Roster.parse(exhibit.content) for exhibit in self._evidence.all() if exhibit.kind == ROSTER)

    def members(self, wanted: Iterable[str], today: date) -> tuple[Roster, tuple[PublicIdentity, ...]]:
        """The roster in force, and by it the identities of a session's sites, this site among them.

        Raises:
            UsageError: no roster is pinned yet.
            ProtocolViolation: as ``session_members``; or this site is not wanted, or has another key in the roster.
        """
        if (held := self.held()) is None:
            raise _unpinned(self._identity.site)
        members = session_members(held, wanted, today)
        self._check_own(next((member for member in members if member.site == self._identity.site), None))
        return held, members

    def _keep_evidence(self, held: Roster, roster: Roster) -> None:
        """Keep a second roster of an epoch for good; one that no known officer signed is evidence against nobody."""
        if roster.signers(held.governance):
            self._evidence.keep(ROSTER, roster.canonical)
            self._store.execute("COMMIT")

    def _check_own(self, named: PublicIdentity | None) -> None:
        if named is None:
            raise ProtocolViolation(
                COORDINATOR, f"site '{self._identity.site}' is not among these sites", "ask the governance officers"
            )
        if named.key != self._identity.key:
            raise ProtocolViolation(
                COORDINATOR,
                f"the roster gives site '{self._identity.site}' another key than it has",
                "tell the governance officers at once: somebody else could speak for this site",
            )

    @property
    def _name(self) -> str:
        return f"the database of site '{self._identity.site}'"

    def _held(self) -> Roster | None:
        row = self._store.execute(
            "SELECT digest, content FROM rosters WHERE site = ? ORDER BY epoch DESC LIMIT 1", (self._identity.site,)
        ).fetchone()
        return None if row is None else self._parsed(row)

    def _parsed(self, row: tuple[str, bytes]) -> Roster:
        roster = Roster.parse(bytes(row[1]))
        if roster.digest != row[0]:
            raise UsageError(
                f"{self._name} holds a roster that was changed", "keep the file and ask the data governance officer"
            )
        return roster

    @contextmanager
    def _transaction(self) -> Iterator[Roster | None]:
        """The roster in force, which no other process can change until the block ends."""
        with explained(self._name):
            self._store.execute("BEGIN IMMEDIATE")
            try:
                yield self._held()
                self._store.execute("COMMIT")
            finally:
                if self._store.in_transaction:
                    self._store.execute("ROLLBACK")

    def _add(self, roster: Roster) -> None:
        row = (self._identity.site, roster.epoch, roster.digest, roster.canonical)
        self._store.execute("INSERT INTO rosters VALUES (?, ?, ?, ?)", row)


def _unpinned(site: str) -> UsageError:
    return UsageError(
        f"site '{site}' holds no roster yet", "pin the first one with the fingerprint that an officer reads out"
    )
