"""The Merkle tree over a ledger's entries: RFC 6962 section 2.1, checked as in RFC 9162 section 2.1.

Two answers that need no copy of the ledger: "this entry is number i of that ledger" (inclusion) and "that ledger is
this one with entries added" (consistency). A leaf is hashed behind 0x00 and a node behind 0x01, so that no entry can
pass for an inner node.

A proof speaks about a root. Alone it does not fix the number of entries: some proofs have the same form in trees of
different size. Size and root therefore travel together as a ``Head``, and a signed checkpoint binds them.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from wardround.protocol.errors import UsageError

HASH_SIZE: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
"""The root of a tree without entries."""

Proof: TypeAlias = tuple[bytes, ...]
"""Hashes of 32 bytes, from the leaves upwards."""


@dataclass(frozen=True, slots=True)
class Head:
    """The first ``size`` entries of a ledger, and the root (32 bytes) of the tree over them."""

    size: int
    root: bytes


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256(0x00 || entry)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """What a writer keeps to go on: the roots of the complete subtrees, one for each 1 in the binary size.

    An append costs one hash on average and log2(n) at most, the head log2(n). ``size`` and ``peaks`` are all of its
    state, largest subtree first; ``Frontier(size, peaks)`` goes on from stored ones without reading an entry.
    """

    __slots__ = ("_peaks", "_size")

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        self._size, self._peaks = size, list(peaks)
        right_number = size >= 0 and len(self._peaks) == size.bit_count()
        if not right_number or any(len(peak) != HASH_SIZE for peak in self._peaks):
            raise UsageError(
                f"these {len(self._peaks)} hashes are not the state of a tree of {size} entries",
                "build the tree again from the entries of the ledger",
            )

    @property
    def size(self) -> int:
        return self._size

    @property
    def peaks(self) -> tuple[bytes, ...]:
        return tuple(self._peaks)

    def append(self, entry: bytes) -> None:
        """Add ``entry`` at the end."""
        new, rest = leaf_hash(entry), self._size
        while rest & 1:
            new, rest = node_hash(self._peaks.pop(), new), rest >> 1
        self._peaks.append(new)
        self._size += 1

    def head(self) -> Head:
        """Size and root of the tree so far."""
        if not self._peaks:
            return Head(0, EMPTY_ROOT)
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return Head(self._size, root)


class Tree:
    """Every complete subtree's root, so that heads and proofs of any earlier size cost log2(n)^2 steps at most.

    Memory: two hashes for each entry. A writer that gives no proofs needs a ``Frontier`` only.
    """

    __slots__ = ("_levels",)

    def __init__(self, entries: Iterable[bytes] = ()) -> None:
        self._levels: list[list[bytes]] = [[]]
        for entry in entries:
            self.append(entry)

    @property
    def size(self) -> int:
        return len(self._levels[0])

    def append(self, entry: bytes) -> None:
        """Add ``entry`` at the end."""
        new, level = leaf_hash(entry), 0
        self._levels[0].append(new)
        while len(self._levels[level]) % 2 == 0:
            new = node_hash(*self._levels[level][-2:])
            level += 1
            if level == len(self._levels):
                self._levels.append([])
            self._levels[level].append(new)

    def head(self, size: int | None = None) -> Head:
        """The head of the first ``size`` entries; None: of all. Raises UsageError when there are fewer."""
        size = self._known(self.size if size is None else size)
        return Head(size, self._root(0, size) if size else EMPTY_ROOT)

    def inclusion(self, index: int, size: int | None = None) -> Proof:
        """PATH(index, D[size]) of RFC 6962 section 2.1.1; ``index`` counts from 0. Raises UsageError outside."""
        size = self._known(self.size if size is None else size)
        if not 0 <= index < size:
            raise UsageError(f"a tree of {size} entries has no entry at index {index}", "the first entry is index 0")
        return tuple(self._path(index, 0, size))

    def consistency(self, first: int, second: int | None = None) -> Proof:
        """PROOF(first, D[second]) of RFC 6962 section 2.1.2; empty for an empty or an equal first tree."""
        second = self._known(self.size if second is None else second)
        if not 0 <= first <= second:
            raise UsageError(f"{first} entries are no beginning of {second}", "name the smaller tree first")
        return tuple(self._subproof(first, 0, second, True)) if 0 < first < second else ()

    def _known(self, size: int) -> int:
        if not 0 <= size <= self.size:
            raise UsageError(f"this tree has {self.size} entries, not {size}", "ask for a size that it has reached")
        return size

    def _root(self, start: int, end: int) -> bytes:
        """MTH(D[start:end]) for a range that the recursion of RFC 6962 reaches, and so starts at a multiple."""
        width = end - start
        if width & (width - 1) == 0:
            level = width.bit_length() - 1
            return self._levels[level][start >> level]
        middle = start + _split(width)
        return node_hash(self._root(start, middle), self._root(middle, end))

    def _path(self, index: int, start: int, end: int) -> list[bytes]:
        if end - start == 1:
            return []
        middle = start + _split(end - start)
        if index < middle:
            return [*self._path(index, start, middle), self._root(middle, end)]
        return [*self._path(index, middle, end), self._root(start, middle)]

    def _subproof(self, first: int, start: int, end: int, known: bool) -> list[bytes]:
        """SUBPROOF; ``known``: the verifier has the root of this subtree, because it is the first tree's own."""
        if first == end:
            return [] if known else [self._root(start, end)]
        middle = start + _split(end - start)
        if first <= middle:
            return [*self._subproof(first, start, middle, known), self._root(middle, end)]
        return [*self._subproof(first, middle, end, False), self._root(start, middle)]


def verify_inclusion(entry: bytes, index: int, proof: Sequence[bytes], head: Head) -> bool:
    """True when ``proof`` shows that ``entry`` is at ``index`` (from 0) under ``head``. RFC 9162 section 2.1.3.2."""
    return verify_leaf(leaf_hash(entry), index, proof, head)


def verify_leaf(leaf: bytes, index: int, proof: Sequence[bytes], head: Head) -> bool:
    """The same for an entry of which only the leaf hash (32 bytes) is known."""
    if not 0 <= index < head.size or not _well_formed((leaf, *proof)):
        return False
    node, last, root = index, head.size - 1, leaf
    for other in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            root = node_hash(other, root)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            root = node_hash(root, other)
        node, last = node >> 1, last >> 1
    return last == 0 and root == head.root


def verify_consistency(first: Head, second: Head, proof: Sequence[bytes]) -> bool:
    """True when ``proof`` shows that ``second`` is ``first`` with entries added. RFC 9162 section 2.1.4.2.

    The RFC asks for 0 < first < second. Here an equal tree and the empty tree are consistent too, with an empty proof.
    """
    if not 0 <= first.size <= second.size or not _well_formed(proof):
        return False
    if first.size == second.size:
        return not proof and first.root == second.root and (first.size > 0 or first.root == EMPTY_ROOT)
    if first.size == 0:
        return not proof and first.root == EMPTY_ROOT
    if not proof:
        return False
    # A first tree of 2^k entries is a subtree of the second, and its root is not repeated in the proof.
    path = [first.root, *proof] if first.size & (first.size - 1) == 0 else list(proof)
    node, last = first.size - 1, second.size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = path[0]
    for other in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            old, new = node_hash(other, old), node_hash(other, new)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, other)
        node, last = node >> 1, last >> 1
    return last == 0 and old == first.root and new == second.root


def _split(width: int) -> int:
    """The largest power of two below ``width`` (at least 2): where RFC 6962 divides a tree."""
    return 1 << ((width - 1).bit_length() - 1)


def _well_formed(proof: Sequence[bytes]) -> bool:
    """Parts of another length could move bytes from one hash to its neighbour."""
    return all(len(part) == HASH_SIZE for part in proof)
