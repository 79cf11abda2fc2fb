"""Epsilons that were computed before: the accountant takes some tenths of a second for a new sum."""

import threading
from collections import Counter
from collections.abc import Iterable

from wardround.privacy.accounting import epsilon
from wardround.privacy.books import repeated
from wardround.protocol.events import DpEvent


class Epsilons:
    """One for each key, kept until other events stand behind it. May be asked from any thread."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, ...], tuple[Counter[DpEvent], float | None]] = {}
        self._counting = threading.Lock()

    def of(self, key: tuple[str, ...], events: Iterable[tuple[DpEvent, int]], delta: float) -> float | None:
        """The accountant's epsilon of ``events``; None: its own check failed. A key has one delta for ever."""
        asked: Counter[DpEvent] = Counter()
        for event, count in events:
            asked[event] += count
        with self._counting:
            kept = self._kept.get(key)
            if kept is None or kept[0] != asked:
                try:
                    found = epsilon(repeated(asked.items()), delta)
                except ArithmeticError:
                    found = None
                kept = self._kept[key] = asked, found
            return kept[1]
