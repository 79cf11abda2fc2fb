"""Which data domain each patient of a site belongs to, and whether for training or for testing: once, for all studies.

Patients are kept by keyed hash, HMAC-SHA256 (RFC 2104) over LABEL_MEMBER || 0x00 || id, so that the database names
nobody. Domains are disjoint. Whoever is enrolled stays where they are: nobody moves between training and testing, and
nobody gets a new budget. The one exception is no move either: when two ids turn out to be one person (``merge``), that
person belongs to the domains of both.

Beside each time stands ``after``, the number of the ledger's last entry then. It says exactly which rounds came later.
"""

import hmac
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from sqlite3 import Connection
from typing import Final

from wardround.client.governance import TEST_DOMAIN, TRAINING_DOMAIN
from wardround.client.store.database import explained
from wardround.client.store.ledger import utc_now
from wardround.protocol.canonical import LABEL_MEMBER
from wardround.protocol.errors import UsageError

_CHUNK: Final = 5_000
"""Parameters of one statement; SQLite takes 32,766."""


class Part(StrEnum):
    TRAIN = "train"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Period:
    """The domains that admit new patients now."""

    train: str = TRAINING_DOMAIN
    test: str = TEST_DOMAIN

    def domain(self, part: Part) -> str:
        return self.train if part is Part.TRAIN else self.test


def always(now: datetime) -> Period:
    """One period for ever."""
    return Period()


def one_a_year(now: datetime) -> Period:
    """``training-2026`` and ``test-2026`` in 2026 (UTC), and so on: new patients bring a budget of their own."""
    return Period(f"{TRAINING_DOMAIN}-{now.year}", f"{TEST_DOMAIN}-{now.year}")


class HashedId(str):
    """A patient's id as its keyed hash, in hex: what may be written down outside the sources. Not hashed again."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Membership:
    """A domain that an id belongs to since a time (UTC), from the round behind entry ``after`` on."""

    domain: str
    part: Part
    since: str
    after: int


@dataclass(frozen=True, slots=True)
class KnownId:
    """One of a patient's ids, by hash; ``merged_after``: when it was merged with the others, -1 for the first."""

    id: bytes
    memberships: tuple[Membership, ...]
    merged_since: str | None = None
    merged_after: int = -1


class Members:
    """The patients of one site. Every method that writes is one transaction: all of it or nothing.

    Args:
        store: from ``open_store``: the site's own file.
        key: ``SiteFolder.patients_key()``.
        clock: the time of day, UTC.
    """

    def __init__(self, store: Connection, key: bytes, clock: Callable[[], datetime] = utc_now) -> None:
        self.store = store
        self._key = key
        self._clock = clock

    def hashed(self, ids: Iterable[str]) -> list[bytes]:
        """The keyed hash of each id, 32 bytes. Spaces around an id do not count; everything else does."""
        prefix = LABEL_MEMBER.encode() + b"\x00"
        return [
            bytes.fromhex(id_)
            if isinstance(id_, HashedId)
            else hmac.digest(self._key, prefix + id_.strip().encode(), "sha256")
            for id_ in ids
        ]

    def enrol(self, ids: Iterable[str], domain: str, part: Part) -> int:
        """Patients of ``part`` into ``domain``; whoever is there already stays. Returns how many are new.

        Raises:
            UsageError: one of them is of the other part or of another domain, or the domain holds the other part;
                nobody was enrolled. The message has counts, never an id.
        """
        hashes = dict.fromkeys(self.hashed(ids))
        with self.transaction():
            known = self._known(hashes)
            self._check_parts(known.values(), part, len(hashes))
            strangers = sum(bool(found) and all(m.domain != domain for m in found) for found in known.values())
            if strangers:
                raise UsageError(
                    f"{strangers:,} of {len(hashes):,} patients belong to another data domain than '{domain}'",
                    "domains of a site share no patient: leave these where they are, and charge both domains",
                )
            new = [(hash_, domain, part) for hash_, found in known.items() if not found]
            self._insert(new)
        return len(new)

    def admit(self, ids: Iterable[str], *, test_share: float, period: Callable[[datetime], Period] = always) -> int:
        """New patients into the domains of the period that is open now; known ones stay. Returns how many are new.

        A new patient tests when the keyed hash of the id, as a number in [0, 1), is below ``test_share``, whoever else
        comes.
        """
        if not 0 <= test_share < 1:
            raise UsageError(f"a test share of {test_share:g} leaves nobody to train on", "give a number in [0, 1)")
        hashes = dict.fromkeys(self.hashed(ids))
        with self.transaction():
            open_ = period(self._clock().astimezone(UTC))
            drawn = ((h, _part(h, test_share)) for h, found in self._known(hashes).items() if not found)
            new = [(hash_, open_.domain(part), part) for hash_, part in drawn]
            self._insert(new)
        return len(new)

    def merge(self, id_: str, other: str) -> None:
        """Two ids are one person, who from now on belongs to the domains of both.

        A round that may draw this person is charged to each of these. A person of both parts is drawn for neither.
        Whose ids are merged can be merged again, never separated.

        Raises:
            UsageError: the site knows neither id.
        """
        with self.transaction():
            keep, gone = self._patients(self.hashed((id_, other)))
            if keep == gone:
                return
            if not any(self._memberships({keep, gone}).values()):
                raise UsageError("neither of these ids is in a data domain", "check how the site's table writes them")
            since, after = self.now()
            # Ids that were merged before count as merged with these only from now on.
            self.store.execute(
                "UPDATE merged_ids SET patient = ?, since = ?, after = ? WHERE patient = ?", (keep, since, after, gone)
            )
            self.store.execute("INSERT INTO merged_ids VALUES (?, ?, ?, ?)", (gone, keep, since, after))

    def parts(self, ids: Sequence[str]) -> list[Part | None]:
        """The part of each id; None: unknown, or of both parts, so that it may be in neither."""
        with self.transaction("BEGIN"):
            hashes = self.hashed(ids)
            known = self._known(hashes)
        found = [{m.part for m in known[hash_]} for hash_ in hashes]
        return [next(iter(parts)) if len(parts) == 1 else None for parts in found]

    def state(self) -> str:
        """Another text whenever somebody was admitted or merged: what was divided before is then divided anew."""
        counted = "SELECT (SELECT count(*) FROM members), (SELECT count(*) FROM merged_ids)"
        return " ".join(str(count) for count in self.store.execute(counted).fetchone())

    def domains(self, ids: Iterable[str]) -> tuple[str, ...]:
        """Every domain that a round over these patients is charged to, in the order of their names.

        Raises:
            UsageError: a patient is in no domain, so that nobody would be charged.
        """
        with self.transaction("BEGIN"):
            known = self._known(self.hashed(ids))
        strangers = sum(not found for found in known.values())
        if strangers:
            raise UsageError(
                f"{strangers:,} of {len(known):,} patients are in no data domain", "enrol or admit them first"
            )
        return tuple(sorted({m.domain for found in known.values() for m in found}))

    def may_be_drawn(
        self, ids: Sequence[str], domains: Iterable[str], parts: Collection[Part] = (Part.TRAIN,)
    ) -> list[bool]:
        """Whether a round that is charged to ``domains`` may draw each patient.

        Not who is in no domain, in one that is not charged, or in no part of ``parts``; of two ids of one person only
        the first.
        """
        charged, seen = set(domains), set[bytes]()
        allowed = []
        with self.transaction("BEGIN"):
            people = self._patients(self.hashed(ids))
            known = self._memberships(set(people))
        for person in people:
            found = known[person]
            fits = all(m.domain in charged and m.part in parts for m in found)
            allowed.append(bool(found) and fits and person not in seen)
            seen.add(person)
        return allowed

    def same_person(self, hashes: Iterable[bytes]) -> list[bytes]:
        """One hash for each id, the same for ids of one person."""
        with self.transaction("BEGIN"):
            return self._patients(hashes)

    def known_ids(self, id_: str) -> list[KnownId]:
        """Every id of the person with this id, the first id first. Without any membership: the site knows nobody."""
        with self.transaction("BEGIN"):
            (person,) = self._patients(self.hashed((id_,)))
            rows = self.store.execute(
                "SELECT id, since, after FROM merged_ids WHERE patient = ? ORDER BY after, id", (person,)
            ).fetchall()
            each = [(person, None, -1), *rows]
            return [KnownId(hash_, tuple(self._rows([hash_])[hash_]), since, after) for hash_, since, after in each]

    def now(self) -> tuple[str, int]:
        """The time as the ledger writes it, and the number of its last entry."""
        (after,) = self.store.execute(
            "SELECT coalesce(max(number), 0) FROM entries WHERE site = (SELECT site FROM entries LIMIT 1)"
        ).fetchone()
        return self._clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), after

    @contextmanager
    def transaction(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
        """One transaction; with the write lock from its start, unless ``begin`` says that it only reads."""
        with explained("the site's list of patients"):
            try:
                self.store.execute(begin)
                yield
                self.store.execute("COMMIT")
            finally:
                if self.store.in_transaction:
                    self.store.execute("ROLLBACK")

    def _check_parts(self, known: Iterable[list[Membership]], part: Part, total: int) -> None:
        moved = sum(bool(found) and all(m.part is not part for m in found) for found in known)
        if moved:
            other = Part.TEST if part is Part.TRAIN else Part.TRAIN
            raise UsageError(
                f"{moved:,} of {total:,} patients are {other} patients of this site, and would become {part} patients",
                "training or testing is decided once for all studies: take this site's own division",
            )

    def _insert(self, new: Sequence[tuple[bytes, str, Part]]) -> None:
        for domain, part in {(domain, part) for _, domain, part in new}:
            row = self.store.execute("SELECT part FROM members WHERE domain = ? LIMIT 1", (domain,)).fetchone()
            if row is not None and row[0] != part:
                raise UsageError(
                    f"the data domain '{domain}' holds {row[0]} patients", f"name another for {part} patients"
                )
        since, after = self.now()
        self.store.executemany(
            "INSERT INTO members VALUES (?, ?, ?, ?, ?)",
            [(hash_, domain, part.value, since, after) for hash_, domain, part in new],
        )

    def _patients(self, hashes: Iterable[bytes]) -> list[bytes]:
        merged = dict(self.store.execute("SELECT id, patient FROM merged_ids"))
        return [merged.get(hash_, hash_) for hash_ in hashes]

    def _known(self, hashes: Iterable[bytes]) -> dict[bytes, list[Membership]]:
        """By hash of an id, the memberships of the person; empty for a new one."""
        hashes = list(hashes)
        people = self._patients(hashes)
        found = self._memberships(set(people))
        return {hash_: found[person] for hash_, person in zip(hashes, people, strict=True)}

    def _memberships(self, people: set[bytes]) -> dict[bytes, list[Membership]]:
        """By person, the memberships under all ids."""
        ids = {person: person for person in people}
        merged = self.store.execute("SELECT id, patient FROM merged_ids").fetchall()
        ids |= {id_: person for id_, person in merged if person in people}
        found: dict[bytes, list[Membership]] = {person: [] for person in people}
        for id_, rows in self._rows(list(ids)).items():
            found[ids[id_]] += rows
        return found

    def _rows(self, ids: Sequence[bytes]) -> dict[bytes, list[Membership]]:
        found: dict[bytes, list[Membership]] = {id_: [] for id_ in ids}
        for start in range(0, len(ids), _CHUNK):
            chunk = ids[start : start + _CHUNK]
            marks = ",".join("?" * len(chunk))
            rows = self.store.execute(
                f"SELECT patient, domain, part, since, after FROM members WHERE patient IN ({marks})", chunk
            )
            for id_, domain, part, since, after in rows:
                found[id_].append(_membership(domain, part, since, after))
        return found


@lru_cache(maxsize=4096)
def _membership(domain: str, part: str, since: str, after: int) -> Membership:
    """Cached, because thousands are admitted together."""
    return Membership(domain, Part(part), since, after)


def _part(hash_: bytes, test_share: float) -> Part:
    return Part.TEST if int.from_bytes(hash_[:8], "big") / 2.0**64 < test_share else Part.TRAIN
