"""A list in pages, the newest first, however long it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

PER_PAGE: Final = 25

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """Page ``page`` of ``pages`` (from 1) of ``count`` items; ``first`` and ``last`` count from 1, the newest first."""

    items: tuple[T, ...]
    page: int
    pages: int
    count: int

    @property
    def first(self) -> int:
        return (self.page - 1) * PER_PAGE + 1 if self.count else 0

    @property
    def last(self) -> int:
        return min(self.page * PER_PAGE, self.count)

    def with_items(self, items: "Sequence[U]") -> "Part[U]":
        """The same place in the list, with what is shown of each item."""
        return Part(tuple(items), self.page, self.pages, self.count)


U = TypeVar("U")


def newest(items: Sequence[T], page: int) -> Part[T]:
    """``items`` are in the order of time; a page behind the last one is the last one."""
    pages = max(1, -(-len(items) // PER_PAGE))
    page = min(max(page, 1), pages)
    end = len(items) - (page - 1) * PER_PAGE
    return Part(tuple(reversed(items[max(0, end - PER_PAGE) : end])), page, pages, len(items))
