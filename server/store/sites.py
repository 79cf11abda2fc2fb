"""Invitations, sites and rosters in the coordinator's database: every statement about them, and no rule.

The caller holds the transaction (``database.transaction``).
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from sqlite3 import Connection
from typing import Final

from wardround.protocol.roster import Roster

_FORMAT: Final = "%Y-%m-%dT%H:%M:%S.%fZ"


@dataclass(frozen=True, slots=True)
class StoredInvitation:
    """The last code that was made for a site. ``proof_key``: what is kept of its secret, 32 bytes."""

    site: str
    proof_key: bytes
    expires: datetime
    used: bool


@dataclass(frozen=True, slots=True)
class JoinedSite:
    """A site that joined. ``identity_key``: Ed25519, 32 bytes; ``node_key``: an OpenSSH line."""

    site: str
    identity_key: bytes
    node_key: str
    node_id: int | None
    joined_at: datetime
    revoked_at: datetime | None


class Sites:
    """``store``: from ``open_database``."""

    def __init__(self, store: Connection) -> None:
        self._store = store

    def invitation(self, site: str) -> StoredInvitation | None:
        """The last invitation of ``site``, used or not."""
        return next((one for one in self.invitations() if one.site == site), None)

    def invitations(self) -> list[StoredInvitation]:
        """The last invitation of every site, by name."""
        rows = self._store.execute("SELECT site, secret_hash, expires, used_at FROM invitations ORDER BY site")
        return [
            StoredInvitation(site, bytes(key), _time(expires), used is not None) for site, key, expires, used in rows
        ]

    def invite(self, site: str, proof_key: bytes, expires: datetime) -> None:
        """Keep a new invitation; the one before holds no more."""
        self._store.execute("DELETE FROM invitations WHERE site = ?", (site,))
        row = (site, proof_key, _text(expires))
        self._store.execute("INSERT INTO invitations (site, secret_hash, expires) VALUES (?, ?, ?)", row)

    def withdraw(self, site: str) -> bool:
        """Forget an invitation that was not used; whether there was one."""
        gone = self._store.execute("DELETE FROM invitations WHERE site = ? AND used_at IS NULL", (site,))
        return gone.rowcount > 0

    def use(self, site: str, now: datetime) -> None:
        self._store.execute("UPDATE invitations SET used_at = ? WHERE site = ?", (_text(now), site))

    def site(self, site: str) -> JoinedSite | None:
        return next((one for one in self.sites() if one.site == site), None)

    def sites(self) -> list[JoinedSite]:
        """Every site that ever joined, by name."""
        rows = self._store.execute(
            "SELECT site, identity_key, node_key, node_id, joined_at, revoked_at FROM sites ORDER BY site"
        )
        return [
            JoinedSite(site, bytes(identity), node, number, _time(joined), None if revoked is None else _time(revoked))
            for site, identity, node, number, joined, revoked in rows
        ]

    def join(self, site: str, identity_key: bytes, node_key: str, now: datetime) -> None:
        """Write down a site, in place of what it was before it was revoked."""
        self._store.execute("DELETE FROM sites WHERE site = ?", (site,))
        row = (site, identity_key, node_key, _text(now))
        self._store.execute("INSERT INTO sites (site, identity_key, node_key, joined_at) VALUES (?, ?, ?, ?)", row)

    def revoke(self, site: str, now: datetime) -> None:
        """Mark a site, and never take its node key again."""
        self._store.execute("UPDATE sites SET revoked_at = ? WHERE site = ?", (_text(now), site))
        self._store.execute(
            "INSERT OR IGNORE INTO retired_node_keys SELECT node_key, site FROM sites WHERE site = ?", (site,)
        )

    def retired(self, node_key: str) -> bool:
        found = self._store.execute("SELECT 1 FROM retired_node_keys WHERE node_key = ?", (node_key,)).fetchone()
        return found is not None

    def roster(self) -> Roster | None:
        """The roster in force."""
        row = self._store.execute("SELECT content FROM rosters WHERE in_force = 1").fetchone()
        return None if row is None else Roster.parse(bytes(row[0]))

    def put_in_force(self, roster: Roster) -> None:
        """Add ``roster``, in force from now on."""
        self._store.execute("UPDATE rosters SET in_force = 0 WHERE in_force = 1")
        row = (roster.epoch, roster.digest, roster.canonical)
        self._store.execute("INSERT INTO rosters (epoch, digest, content, in_force) VALUES (?, ?, ?, 1)", row)


def _text(time: datetime) -> str:
    return time.astimezone(UTC).strftime(_FORMAT)


def _time(text: str) -> datetime:
    return datetime.strptime(text, _FORMAT).replace(tzinfo=UTC)
