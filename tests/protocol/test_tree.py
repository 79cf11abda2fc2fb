"""The tree: the reference vectors of Certificate Transparency, and RFC 6962's definition written down a second time."""

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.protocol.errors import UsageError
from wardround.protocol.tree import (
    EMPTY_ROOT,
    Frontier,
    Head,
    Tree,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)

# The leaves, roots and proofs of the reference implementations of Certificate Transparency.
LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
L0, L1, L4 = (
    ROOTS[1],
    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    ("bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"),
)
N23 = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
N45 = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
N67 = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
N47 = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
L6 = "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f"
INCLUSIONS = [  # index from 0, size, proof
    (0, 1, []),
    (0, 8, [L1, N23, N47]),
    (5, 8, [L4, N67, ROOTS[4]]),
    (2, 3, [ROOTS[2]]),
    (1, 5, [L0, N23, L4]),
]
CONSISTENCIES = [  # first size, second size, proof
    (1, 1, []),
    (1, 8, [L1, N23, N47]),
    (6, 8, [N45, N67, ROOTS[4]]),
    (2, 5, [N23, L4]),
    (6, 7, [N45, L6, ROOTS[4]]),
]


def hashes(texts: list[str]) -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(text) for text in texts)


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def split(n: int) -> int:
    """k of RFC 6962: the largest power of two smaller than n."""
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def mth(d: list[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, as it is defined there."""
    if len(d) < 2:
        return sha(b"\x00" + d[0]) if d else sha(b"")
    k = split(len(d))
    return sha(b"\x01" + mth(d[:k]) + mth(d[k:]))


def path(m: int, d: list[bytes]) -> list[bytes]:
    """PATH of section 2.1.1."""
    if len(d) == 1:
        return []
    k = split(len(d))
    return [*path(m, d[:k]), mth(d[k:])] if m < k else [*path(m - k, d[k:]), mth(d[:k])]


def subproof(m: int, d: list[bytes], b: bool) -> list[bytes]:
    """SUBPROOF of section 2.1.2; PROOF(m, D) is SUBPROOF(m, D, true)."""
    if m == len(d):
        return [] if b else [mth(d)]
    k = split(len(d))
    return [*subproof(m, d[:k], b), mth(d[k:])] if m <= k else [*subproof(m - k, d[k:], False), mth(d[:k])]


def distinct(size: int) -> list[bytes]:
    return [b"entry %d" % number for number in range(size)]


def test_the_reference_roots() -> None:
    tree, frontier = Tree(LEAVES), Frontier()
    assert [tree.head(size) for size in range(9)] == [Head(n, bytes.fromhex(root)) for n, root in enumerate(ROOTS)]
    assert frontier.head() == Head(0, EMPTY_ROOT)
    for leaf, root in zip(LEAVES, ROOTS[1:], strict=True):
        frontier.append(leaf)
        assert frontier.head().root.hex() == root


@pytest.mark.parametrize(("index", "size", "proof"), INCLUSIONS)
def test_the_reference_inclusion_proofs(index: int, size: int, proof: list[str]) -> None:
    tree = Tree(LEAVES)
    assert tree.inclusion(index, size) == hashes(proof)
    assert verify_inclusion(LEAVES[index], index, hashes(proof), Head(size, bytes.fromhex(ROOTS[size])))


@pytest.mark.parametrize(("first", "second", "proof"), CONSISTENCIES)
def test_the_reference_consistency_proofs(first: int, second: int, proof: list[str]) -> None:
    tree = Tree(LEAVES)
    assert tree.consistency(first, second) == hashes(proof)
    old, new = (Head(size, bytes.fromhex(ROOTS[size])) for size in (first, second))
    assert verify_consistency(old, new, hashes(proof))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.binary(max_size=40), max_size=70), st.data())
def test_the_tree_is_the_one_that_the_rfc_defines(entries: list[bytes], data: st.DataObject) -> None:
    tree, frontier = Tree(entries), Frontier()
    for entry in entries:
        frontier.append(entry)
    assert tree.head() == frontier.head() == Head(len(entries), mth(entries))
    size = data.draw(st.integers(0, len(entries)))
    first = data.draw(st.integers(0, size))
    assert tree.head(size).root == mth(entries[:size])
    assert list(tree.consistency(first, size)) == (subproof(first, entries[:size], True) if first else [])
    assert verify_consistency(tree.head(first), tree.head(size), tree.consistency(first, size))
    if first < size:
        assert list(tree.inclusion(first, size)) == path(first, entries[:size])
        assert verify_inclusion(entries[first], first, tree.inclusion(first, size), tree.head(size))


def test_every_proof_up_to_forty_entries_verifies() -> None:
    entries = distinct(40)
    tree = Tree(entries)
    heads = [tree.head(size) for size in range(41)]
    for size in range(41):
        assert all(verify_inclusion(entries[i], i, tree.inclusion(i, size), heads[size]) for i in range(size))
        assert all(verify_consistency(heads[m], heads[size], tree.consistency(m, size)) for m in range(size + 1))


def spoiled(proof: tuple[bytes, ...], extra: bytes) -> list[tuple[bytes, ...]]:
    """``proof`` with every single bit flipped, cut, lengthened at both ends, reordered, or cut within a hash."""
    found = []
    for place, part in enumerate(proof):
        for bit in range(256):
            wrong = bytearray(part)
            wrong[bit // 8] ^= 1 << bit % 8
            found.append((*proof[:place], bytes(wrong), *proof[place + 1 :]))
        found.append(proof[:place] + proof[place + 1 :])
        found.append((*proof[:place], part[:-1], *proof[place + 1 :]))
        found.append((*proof[:place], part + b"\x00", *proof[place + 1 :]))
    found += [(*proof, extra), (extra, *proof), (*proof, b""), (b"", *proof)]
    if len(proof) > 1:
        found.append(proof[::-1])
        # The same bytes, cut at another place.
        found.append((proof[0] + proof[1][:1], proof[1][1:], *proof[2:]))
    return found


SIZES = st.integers(1, 70)


@settings(deadline=None, max_examples=40)
@given(SIZES, st.data())
def test_a_spoiled_inclusion_proof_is_refused(size: int, data: st.DataObject) -> None:
    entries = distinct(size)
    tree, index = Tree(entries), data.draw(st.integers(0, size - 1))
    head, proof = tree.head(), tree.inclusion(index)
    for wrong in spoiled(proof, head.root):
        assert not verify_inclusion(entries[index], index, wrong, head)
    for other in range(-1, size + 2):
        assert verify_inclusion(entries[index], other, proof, head) == (other == index)
    assert not verify_inclusion(entries[index] + b"x", index, proof, head)
    for bit in range(256):
        assert not verify_inclusion(entries[index], index, proof, Head(size, flipped(head.root, bit)))
    # Another size comes with another root.
    longer = Tree(distinct(size + 8))
    for other in set(range(size + 9)) - {size}:
        same = other > index and longer.inclusion(index, other) == proof
        assert verify_inclusion(entries[index], index, proof, longer.head(other)) == same
        assert not same


@settings(deadline=None, max_examples=40)
@given(SIZES, st.data())
def test_a_spoiled_consistency_proof_is_refused(size: int, data: st.DataObject) -> None:
    tree, first = Tree(distinct(size)), data.draw(st.integers(1, size))
    old, new, proof = tree.head(first), tree.head(), tree.consistency(first)
    for wrong in spoiled(proof, new.root):
        assert not verify_consistency(old, new, wrong)
    for bit in range(256):
        assert not verify_consistency(Head(first, flipped(old.root, bit)), new, proof)
        assert not verify_consistency(old, Head(size, flipped(new.root, bit)), proof)
    assert first == size or not verify_consistency(new, old, proof)
    for other in range(size + 1):
        accepted = verify_consistency(tree.head(other), new, proof)
        assert accepted == (tree.consistency(other) == proof)
        assert accepted == (other == first or (proof == () and other in (0, size)))


def flipped(root: bytes, bit: int) -> bytes:
    wrong = bytearray(root)
    wrong[bit // 8] ^= 1 << bit % 8
    return bytes(wrong)


def test_a_changed_history_has_no_proof() -> None:
    entries = distinct(20)
    changed = [*entries[:7], b"another", *entries[8:]]
    for first in range(8, 20):
        old, new = Tree(entries[:first]), Tree(changed)
        assert not verify_consistency(old.head(), new.head(), new.consistency(first))
        assert not verify_consistency(old.head(), new.head(), Tree(entries).consistency(first))


def test_the_size_is_bound_by_the_checkpoint_and_not_by_a_proof() -> None:
    """The module says so: with the root of three entries, a claim of four has a proof of the same form."""
    tree = Tree(distinct(3))
    claimed = Head(4, tree.head().root)
    assert verify_inclusion(b"entry 0", 0, tree.inclusion(0), claimed)
    assert not verify_inclusion(b"entry 0", 0, tree.inclusion(0), Head(5, claimed.root))


def test_a_root_made_for_a_wrong_proof_does_not_help() -> None:
    """A site that signs what it likes: the sizes and lengths are checked even where every hash fits."""
    tree, extra = Tree(distinct(8)), bytes(32)
    for other in (bytes(31), bytes(33), b""):
        assert not verify_inclusion(b"a", 0, (other,), Head(2, sha(b"\x01" + leaf_hash(b"a") + other)))
    assert not verify_inclusion(b"a", 0, (extra,), Head(1, node_hash(extra, leaf_hash(b"a"))))
    small, large = tree.head(2), tree.head(4)
    assert verify_consistency(small, large, tree.consistency(2, 4))
    assert not verify_consistency(small, Head(8, large.root), tree.consistency(2, 4))
    proof = (*tree.consistency(3, 4), extra)
    old, new = (Head(size, node_hash(extra, tree.head(size).root)) for size in (3, 4))
    assert not verify_consistency(old, new, proof)


def test_an_entry_cannot_pass_for_a_node() -> None:
    one, two = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(one + two) != node_hash(one, two)
    assert leaf_hash(b"\x01" + one + two) != node_hash(one, two)
    assert node_hash(one, two) != node_hash(two, one)
    head = Tree([b"a", b"b"]).head()
    assert not verify_inclusion(one + two, 0, (), Head(1, head.root))


def test_heads_that_cannot_be_are_refused() -> None:
    tree = Tree(distinct(4))
    assert not verify_consistency(Head(0, tree.head().root), tree.head(), ())
    assert not verify_consistency(Head(0, tree.head().root), Head(0, tree.head().root), ())
    assert not verify_consistency(Head(-1, EMPTY_ROOT), tree.head(), ())
    assert not verify_consistency(Head(0, EMPTY_ROOT), tree.head(), (EMPTY_ROOT,))
    assert not verify_inclusion(b"", 0, (), Head(0, EMPTY_ROOT))
    assert verify_consistency(Head(0, EMPTY_ROOT), tree.head(), ())


@pytest.mark.parametrize("size", [0, 1, 2, 7, 8, 13])
def test_a_frontier_goes_on_from_its_state(size: int) -> None:
    frontier = Frontier()
    for entry in distinct(size):
        frontier.append(entry)
    again = Frontier(frontier.size, frontier.peaks)
    again.append(b"next")
    assert again.head() == Tree([*distinct(size), b"next"]).head()
    assert frontier.size == size


@pytest.mark.parametrize(("size", "peaks"), [(1, ()), (2, (EMPTY_ROOT,) * 2), (-1, (EMPTY_ROOT,)), (1, (b"short",))])
def test_a_state_that_is_none_is_refused(size: int, peaks: tuple[bytes, ...]) -> None:
    with pytest.raises(UsageError, match="not the state"):
        Frontier(size, peaks)


def test_what_a_tree_does_not_have_is_refused() -> None:
    tree = Tree(distinct(3))
    for ask in (lambda: tree.inclusion(3), lambda: tree.inclusion(-1), lambda: tree.inclusion(1, 1)):
        with pytest.raises(UsageError, match="no entry at index"):
            ask()
    for ask in (lambda: tree.inclusion(0, 4), lambda: tree.consistency(1, 4)):
        with pytest.raises(UsageError, match="has 3 entries, not 4"):
            ask()
    with pytest.raises(UsageError, match="no beginning"):
        tree.consistency(3, 2)
    with pytest.raises(UsageError, match="has 3 entries, not -1"):
        tree.head(-1)


def test_a_hundred_thousand_entries_cost_two_hashes_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: n leaves and fewer than n nodes for the appends, log2(n) for a head."""
    counted = {"leaf": 0, "node": 0}

    def leaf(entry: bytes) -> bytes:
        counted["leaf"] += 1
        return leaf_hash(entry)

    def node(left: bytes, right: bytes) -> bytes:
        counted["node"] += 1
        return node_hash(left, right)

    monkeypatch.setattr("wardround.protocol.tree.leaf_hash", leaf)
    monkeypatch.setattr("wardround.protocol.tree.node_hash", node)
    frontier, marks = Frontier(), [0]
    for number in range(100_000):
        frontier.append(number.to_bytes(4, "big"))
        marks.append(counted["node"])
    assert counted["leaf"] == 100_000 and counted["node"] < 100_000
    assert max(after - before for before, after in pairwise(marks)) <= 17
    before = dict(counted)
    head = frontier.head()
    assert counted["leaf"] == before["leaf"] and counted["node"] - before["node"] <= 17
    assert head == Tree(number.to_bytes(4, "big") for number in range(100_000)).head()
