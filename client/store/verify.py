"""Whether a ledger is what its site wrote, whole and in order, and whether it kept its own rules. Trusts no one.

Every entry is read again from its bytes: one spelling, number, time, chain, signature, officers' signatures, the
rules of ``privacy.ledger`` with the filter's integers recomputed, the tree under every countersignature. Then the
accountant says what each domain has spent, from the events alone.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import ValidationError

from wardround.client.store.database import explained, open_copy
from wardround.client.store.ledger import stored_entries
from wardround.privacy.books import Domain, NotAllowed, repeated, without_waived
from wardround.privacy.ledger import LedgerState
from wardround.protocol.checkpoint import Checkpoint
from wardround.protocol.entry import DatedFact, Entry, chained, content_bytes, misdated, parse_content, signed_message
from wardround.protocol.errors import UsageError
from wardround.protocol.identity import PublicIdentity
from wardround.protocol.ledger import Countersign, OpenLedger
from wardround.protocol.tree import Head, Tree

_BATCH: Final = 5_000
_TOLD: Final = 500


class Broken(UsageError):
    """The ledger is not what it should be; the message says in one sentence what is wrong and where."""

    def __init__(self, number: int, reason: str) -> None:
        hint = "keep the file as it is, and compare it with the site's backups and with the checkpoints of others"
        super().__init__(f"entry {number}: {reason}", hint)
        self.number = number


@dataclass(frozen=True, slots=True)
class Spent:
    """A domain's budget: the filter's share that is used, and the accountant's epsilon of what happened.

    ``epsilon`` is at the domain's delta, for any single patient, adding or removing one; None: without a budget. It
    does not hold for ``without_privacy`` of the ``blocks``, which officers have waived: nothing bounds what these told.
    """

    domain: str
    delta: float
    epsilon: float | None
    epsilon_cap: float | None
    share_of_filter: float | None
    closed: bool
    blocks: int
    without_privacy: int = 0


@dataclass(frozen=True, slots=True)
class Verified:
    """A ledger that holds.

    ``signatures``: of the site, one an entry (0: a simulation's); ``approvals``: of officers; ``countersignatures``: of
    others; ``checkpoints``: different heads that these or somebody else hold, each found to be a beginning.
    """

    opened: OpenLedger
    entries: int
    head: Head
    first: str
    last: str
    countersigned_by: tuple[str, ...]
    domains: tuple[Spent, ...]
    recoveries: int
    signatures: int
    approvals: int
    countersignatures: int
    checkpoints: int


def verify_file(
    path: Path,
    *,
    key: bytes | None = None,
    seen: Sequence[Checkpoint] = (),
    tell: Callable[[int], None] | None = None,
) -> Verified:
    """Check the ledger in the SQLite file ``path``.

    Args:
        key: the site's public key, if it is known from elsewhere; without it the ledger's own first entry is believed.
        seen: checkpoints of this ledger that others keep; each must be a beginning of it.
        tell: called now and then with how many entries were read so far.

    Raises:
        Broken: says what is wrong, and at which entry.
        UsageError, Unavailable: the file is no ledger, or cannot be read.
    """
    store = open_copy(path)
    with explained(path):
        sites = [site for (site,) in store.execute("SELECT DISTINCT site FROM entries")]
        if len(sites) != 1:
            raise UsageError(f"'{path}' holds the ledgers of {len(sites)} sites", "a hospital's file holds one")
        return verify(stored_entries(store, sites[0]), sites[0], key=key, seen=seen, tell=tell)


def verify(
    entries: Iterable[Entry],
    site: str,
    *,
    key: bytes | None = None,
    seen: Sequence[Checkpoint] = (),
    tell: Callable[[int], None] | None = None,
) -> Verified:
    """Check ``entries`` as the whole ledger of ``site``; see ``verify_file``."""
    state, tree, last, first_at, at = LedgerState(), Tree(), None, "", ""
    signers: list[str] = []
    heads = {checkpoint.head for checkpoint in seen}
    approvals = 0
    with _Signatures() as signatures:
        for entry in entries:
            dated = _read(entry, state.size + 1)
            fact = dated.fact
            if chained(last, entry.number, entry.content) != entry.hash:
                raise Broken(entry.number, "its hash does not follow from its content and the entry before")
            if misdated(dated, at):
                raise Broken(entry.number, "it is dated before the entry that it follows")
            try:
                state.apply(fact)
            except NotAllowed as error:
                raise Broken(entry.number, error.message) from error
            if isinstance(fact, OpenLedger):
                _check_opening(fact, site, key)
            if isinstance(fact, Countersign):
                _check_countersign(fact, entry.number, site, tree)
                signers.append(fact.signer)
                heads.add(Head(fact.size, bytes.fromhex(fact.root)))
            approvals += len(getattr(fact, "approvals", ()))
            signatures.expect(entry, state.opened)
            tree.append(entry.content)
            first_at, at, last = first_at or dated.at, dated.at, entry
            if tell is not None and state.size % _TOLD == 0:
                tell(state.size)
    if state.opened is None:
        raise Broken(1, "there is none: the ledger is empty")
    for checkpoint in seen:
        _check_seen(checkpoint, site, tree, state)
    domains = tuple(_spent(state, domain) for domain in state.domains.values())
    return Verified(
        opened=state.opened,
        entries=state.size,
        head=tree.head(),
        first=first_at,
        last=at,
        countersigned_by=tuple(sorted(set(signers))),
        domains=domains,
        recoveries=len(state.recovered),
        signatures=0 if state.opened.key is None else state.size,
        approvals=approvals,
        countersignatures=len(signers),
        checkpoints=len(heads),
    )


def _read(entry: Entry, expected: int) -> DatedFact:
    if entry.number != expected:
        raise Broken(expected, f"it is missing; entry {entry.number} stands in its place")
    try:
        dated = parse_content(entry.content)
        datetime.fromisoformat(dated.at)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"]) or "its content"
        raise Broken(entry.number, f"its kind or a field ({where}) is not one that this version knows") from None
    except ValueError:
        raise Broken(entry.number, "its time does not exist") from None
    if content_bytes(dated.at, dated.fact) != entry.content:
        raise Broken(entry.number, "its content is not in canonical form")
    return dated


def _check_opening(fact: OpenLedger, site: str, key: bytes | None) -> None:
    if fact.site != site:
        raise Broken(1, f"it opens the ledger of '{fact.site}', but the file says '{site}'")
    if key is not None and fact.key != key.hex():
        raise Broken(1, "it names another key than the one that you gave for this site")


def _check_countersign(fact: Countersign, number: int, site: str, tree: Tree) -> None:
    head = Head(fact.size, bytes.fromhex(fact.root))
    if tree.head(fact.size) != head:
        raise Broken(number, f"'{fact.signer}' countersigned another beginning of {fact.size} entries than this one")
    signer = PublicIdentity(fact.signer, bytes.fromhex(fact.key))
    if not signer.verifies(bytes.fromhex(fact.signature), Checkpoint(site, head).note().text.encode()):
        raise Broken(number, f"the signature of '{fact.signer}' does not belong to the checkpoint that it names")


def _check_seen(checkpoint: Checkpoint, site: str, tree: Tree, state: LedgerState) -> None:
    size, root = checkpoint.head.size, checkpoint.head.root
    if checkpoint.origin != site:
        raise UsageError(
            f"the checkpoint is of '{checkpoint.origin}', not of '{site}'", "give this ledger's checkpoint"
        )
    if (size, root.hex()) in state.recovered:
        return
    if size > tree.size:
        raise Broken(tree.size + 1, f"it is missing; others have seen {size} entries, and the file ends before")
    if tree.head(size) != checkpoint.head:
        raise Broken(size, f"it or one before it is not what others have seen in the first {size} entries")


def _spent(state: LedgerState, domain: Domain) -> Spent:
    from wardround.privacy.accounting import epsilon

    name, cap, delta = domain.fact.domain, domain.fact.epsilon_cap, domain.fact.delta
    history = list(state.events(domain=name))
    blocks = sum(count for _, count in history)
    if cap is None or domain.allowance is None:
        return Spent(name, delta, None, None, None, domain.closed, blocks)
    counted, waived = without_waived(history)
    value = epsilon(repeated(counted), delta) if counted else 0.0
    recovered = any(fact.charges for fact in state.recovered.values())
    if not recovered and not (value <= cap and domain.spent <= domain.allowance):
        raise Broken(state.size, f"the events of '{name}' add up to epsilon {value:.4f}, above its cap of {cap:g}")
    return Spent(name, delta, value, cap, domain.spent / domain.allowance, domain.closed, blocks, waived)


class _Signatures:
    """Checks every signature, in other processes when there are many: they are most of the time it takes."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, str, bytes, bytes]] = []
        self._running: list[Future[int | None]] = []
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "_Signatures":
        return self

    def expect(self, entry: Entry, opened: OpenLedger | None) -> None:
        """``entry`` should carry the site's signature, or none in a simulation's ledger."""
        if opened is None or opened.key is None:
            if entry.signature:
                raise Broken(entry.number, "it is signed, though the ledger was opened without a key")
            return
        self._waiting.append((entry.number, opened.key, entry.signature, signed_message(entry.hash)))
        if len(self._waiting) == _BATCH:
            if self._pool is None:
                self._pool = ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn"))
            self._running.append(self._pool.submit(first_unsigned, self._waiting))
            self._waiting = []

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            # An earlier bad signature is the better explanation of whatever else was found.
            found = [number for future in self._running if (number := future.result()) is not None]
            if not found and (number := first_unsigned(self._waiting)) is not None:
                found.append(number)
        finally:
            if self._pool is not None:
                self._pool.shutdown()
        if found and (error is None or (isinstance(error, Broken) and found[0] <= error.number)):
            raise Broken(found[0], "its signature is not the site's")


def first_unsigned(expected: Sequence[tuple[int, str, bytes, bytes]]) -> int | None:
    """The number of the first that does not verify, or None. Items: number, key, signature, message."""
    for number, key, signature, message in expected:
        try:
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(signature, message)
        except InvalidSignature:
            return number
    return None
