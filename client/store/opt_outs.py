"""Who has opted out, and since when, by keyed hash of the id: what the sources said each time that they were read.

An id that no domain holds is kept too: who opts out before the first admission is never drawn.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from wardround.client.store.members import Members


@dataclass(frozen=True, slots=True)
class OptOut:
    """An id was opted out for rounds behind entry ``after``, up to entry ``until_after``; None: it holds."""

    id: bytes
    since: str
    after: int
    until: str | None
    until_after: int | None

    def holds_for(self, number: int) -> bool:
        """Whether a round that entry ``number`` reserved left this id out."""
        return self.after < number and (self.until_after is None or number <= self.until_after)


class OptOuts:
    """The opt-outs of the site whose patients ``members`` keeps."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._store = members.store

    def update(self, ids: Iterable[str]) -> None:
        """Exactly ``ids`` are opted out from now on; what changes is written down with its time, in one transaction."""
        wanted = set(self._members.hashed(ids))
        with self._members.transaction():
            before, (at, after) = self._open(), self._members.now()
            # An opt-out that ended and begins anew, with no entry between, never ended.
            self._store.executemany(
                "INSERT INTO opt_outs VALUES (?, ?, ?, NULL, NULL) "
                "ON CONFLICT DO UPDATE SET until = NULL, until_after = NULL",
                [(id_, at, after) for id_ in wanted - before],
            )
            self._store.executemany(
                "UPDATE opt_outs SET until = ?, until_after = ? WHERE id = ? AND until IS NULL",
                [(at, after, id_) for id_ in before - wanted],
            )

    def now(self) -> set[bytes]:
        """The hashes of the ids that are opted out."""
        with self._members.transaction("BEGIN"):
            return self._open()

    def history(self, id_: bytes) -> list[OptOut]:
        """Every opt-out of the id with this hash, the first one first."""
        with self._members.transaction("BEGIN"):
            rows = self._store.execute(
                "SELECT id, since, after, until, until_after FROM opt_outs WHERE id = ? ORDER BY after", (id_,)
            )
            return [OptOut(*row) for row in rows]

    def _open(self) -> set[bytes]:
        return {id_ for (id_,) in self._store.execute("SELECT id FROM opt_outs WHERE until IS NULL")}
