"""Finished answers, encrypted in the site's database: what left once leaves again byte for byte, at no further charge.

AES-256-GCM (NIST SP 800-38D) with a random nonce of 96 bits for each answer. Site and key of the answer are the
associated data, so that no row can stand in for another.
"""

import os
from collections.abc import Callable
from sqlite3 import Connection
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from wardround.protocol.canonical import LABEL_REPLY, encode
from wardround.protocol.errors import UsageError
from wardround.protocol.messages import RoundRequest

KEY_SIZE: Final = 32
_NONCE_SIZE: Final = 12


class StoredReplies:
    """The answers of one site. ``key`` is 32 bytes that lie outside the database."""

    def __init__(self, store: Connection, site: str, key: bytes) -> None:
        self._store = store
        self._site = site
        self._cipher = AESGCM(key)

    def writer(self, request: RoundRequest, answer: bytes) -> Callable[[Connection], None]:
        """What stores ``answer`` inside the ledger's transaction that notes its release."""
        nonce = os.urandom(_NONCE_SIZE)
        sealed = self._cipher.encrypt(nonce, answer, self._about(request.key))
        row = (self._site, request.plan, request.round_number, request.model_hash, request.attempt, nonce, sealed)

        def write(store: Connection) -> None:
            store.execute("INSERT INTO replies VALUES (?, ?, ?, ?, ?, ?, ?)", row)

        return write

    def find(self, request: RoundRequest) -> tuple[int, bytes] | None:
        """(attempt, bytes) of this round's answer from the same model: of this attempt, else of the first; or None.

        Raises:
            UsageError: the row was changed, or was encrypted with another key.
        """
        row = self._store.execute(
            "SELECT attempt, nonce, sealed FROM replies WHERE site = ? AND plan = ? AND round_number = ? "
            "AND model_hash = ? ORDER BY attempt <> ?, attempt LIMIT 1",
            (self._site, request.plan, request.round_number, request.model_hash, request.attempt),
        ).fetchone()
        if row is None:
            return None
        attempt, nonce, sealed = row
        key = (request.plan, request.round_number, attempt, request.model_hash)
        try:
            return attempt, self._cipher.decrypt(nonce, sealed, self._about(key))
        except InvalidTag:
            raise UsageError(
                f"the stored answer of site '{self._site}' to round {request.round_number} cannot be opened",
                "use the key that it was written with; if the key is lost, this round stays unanswered",
            ) from None

    def _about(self, key: tuple[str, int, int, str]) -> bytes:
        return LABEL_REPLY.encode() + b"\x00" + encode([self._site, *key])
