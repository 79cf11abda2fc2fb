"""Training of simulated hospitals in other processes: what a federation asks of whoever does it.

Ledger, decisions, memory and keys of every hospital stay with the federation; only what comes between "started" and
"trained" happens elsewhere. So a process that dies there can lose a hospital's work, but never its charge.
"""

from collections.abc import Mapping
from typing import Protocol

from wardround.protocol.messages import RoundRequest
from wardround.protocol.parameters import Update
from wardround.strategies.base import Memory


class Elsewhere(Protocol):
    """Trains hospitals at the same time."""

    def train(self, request: RoundRequest, memories: Mapping[str, Memory | None]) -> Mapping[str, str]:
        """Train the named sites for one round that each was charged for; ``memories``: with which each begins.

        Returns those whose work was lost, and why. Each site is trained at most once: whatever happened, none again.

        Raises:
            WardroundError: training itself failed, or nothing can be trained there any more.
        """

    def learned(self, site: str) -> tuple[Update, Memory]:
        """What the site's last training taught; it is given once."""
