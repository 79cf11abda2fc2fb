"""The binary tree over the ticks 1, 2, ... T of a campaign: which of its nodes close at which tick, and where they lie.

A node of level l >= 0 spans 2^l ticks and closes at the last of them, so node (t, l) exists where 2^l divides t. In the
order of ticks, the lower levels first, the nodes lie one after another: that is how a campaign's result is written.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Node:
    """The ticks ``begin`` to ``end``, both included: 2^``level`` of them."""

    end: int
    level: int

    @property
    def begin(self) -> int:
        return self.end - (1 << self.level) + 1

    @property
    def halves(self) -> tuple["Node", "Node"]:
        """The two nodes of the level below. Raises ValueError for a single tick."""
        if not self.level:
            raise ValueError("a single tick has no halves")
        return Node(self.end - (1 << (self.level - 1)), self.level - 1), Node(self.end, self.level - 1)

    @property
    def position(self) -> int:
        """Its place among all nodes, from 0."""
        return nodes(self.end - 1) + self.level


def levels(ticks: int) -> int:
    """L = floor(log2 T) + 1: nodes that a tick lies in, at most."""
    return ticks.bit_length()


def closing(tick: int) -> tuple[Node, ...]:
    """The nodes that close at ``tick`` >= 1, the single tick first: as many as 2 divides it, and one."""
    return tuple(Node(tick, level) for level in range((tick & -tick).bit_length()))


def nodes(ticks: int) -> int:
    """Nodes that close at ticks 1 to ``ticks``: sum over l of floor(T / 2^l), below 2 T."""
    return sum(ticks >> level for level in range(levels(ticks)))


def prefix(tick: int) -> tuple[Node, ...]:
    """The fewest nodes that together are ticks 1 to ``tick``, in order: one for each 1 among its binary digits."""
    found, end = [], 0
    for level in reversed(range(levels(tick))):
        if tick >> level & 1:
            end += 1 << level
            found.append(Node(end, level))
    return tuple(found)
