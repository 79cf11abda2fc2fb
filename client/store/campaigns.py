"""What a campaign of indicators took into each tick, encrypted in the site's database beside its replies.

A row is one tick that was answered. It is written in the transaction that notes the release and is never changed, so
rows and releases agree whatever crashes between them: a tick that left has its row, one that did not has none and its
events are read again. The rows in order make the whole state again (``client.contributions``).

AES-256-GCM with a random nonce; site, plan and tick are the associated data.
"""

import os
from collections.abc import Callable, Iterator
from sqlite3 import Connection
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from wardround.protocol.canonical import LABEL_CAMPAIGN, encode
from wardround.protocol.errors import UsageError

_NONCE_SIZE: Final = 12


class CampaignSteps:
    """The steps of one site's campaigns. ``key`` is 32 bytes that lie outside the database."""

    def __init__(self, store: Connection, site: str, key: bytes) -> None:
        self._store = store
        self._site = site
        self._cipher = AESGCM(key)

    def all(self, plan: str) -> Iterator[bytes]:
        """The steps of ``plan`` in the order of their ticks.

        Raises:
            UsageError: a row was changed, or was encrypted with another key.
        """
        rows = self._store.execute(
            "SELECT tick, nonce, sealed FROM campaign_steps WHERE site = ? AND plan = ? ORDER BY tick",
            (self._site, plan),
        ).fetchall()
        for tick, nonce, sealed in rows:
            try:
                yield self._cipher.decrypt(nonce, sealed, self._about(plan, tick))
            except InvalidTag:
                raise UsageError(
                    f"what site '{self._site}' counted in tick {tick} cannot be opened",
                    "use the key that it was written with; if the key is lost, this site cannot go on with the study",
                ) from None

    def writer(self, plan: str, tick: int, step: bytes) -> Callable[[Connection], None]:
        """What stores ``step`` inside the ledger's transaction that notes the tick's release."""
        nonce = os.urandom(_NONCE_SIZE)
        row = (self._site, plan, tick, nonce, self._cipher.encrypt(nonce, step, self._about(plan, tick)))

        def write(store: Connection) -> None:
            store.execute("INSERT INTO campaign_steps VALUES (?, ?, ?, ?, ?)", row)

        return write

    def _about(self, plan: str, tick: int) -> bytes:
        return LABEL_CAMPAIGN.encode() + b"\x00" + encode([self._site, plan, tick])
