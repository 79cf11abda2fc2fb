"""What a site remembers between rounds, encrypted in its database beside its replies (docs/adr/0024).

A row is the memory after a round that began at a model. It is written in the transaction that notes the release, so it
is there exactly when the round's answer is. It counts as soon as a later round begins at *another* model: the sum that
the answer went into was formed, and the model has moved. A later round from the same model says that the round was
void, and the row is passed over. Nothing is ever changed or counted twice, so a crash between any two writes leaves
either the memory before or the memory after.

AES-256-GCM with a random nonce; site, plan, round, attempt and model are the associated data.
"""

import os
from collections.abc import Callable
from sqlite3 import Connection
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from safetensors.numpy import load

from wardround.protocol.canonical import LABEL_MEMORY, encode
from wardround.protocol.errors import UsageError
from wardround.protocol.messages import RoundRequest
from wardround.protocol.tensors import tensor_parts
from wardround.strategies.base import Memory

_NONCE_SIZE: Final = 12
_LATEST: Final = (
    "SELECT round_number, attempt, model_hash, nonce, sealed FROM memories WHERE site = ? AND plan = ? "
    "AND round_number < ? AND model_hash <> ? ORDER BY round_number DESC, attempt DESC LIMIT 1"
)


class SiteMemory:
    """The memories of one site, of all plans. ``key`` is 32 bytes that lie outside the database."""

    def __init__(self, store: Connection, site: str, key: bytes) -> None:
        self._store = store
        self._site = site
        self._cipher = AESGCM(key)

    def before(self, plan: str, round_number: int, model_hash: str) -> Memory | None:
        """The memory with which a round begins at a model; None: this site has none yet.

        Raises:
            UsageError: the row was changed, or was encrypted with another key.
        """
        row = self._store.execute(_LATEST, (self._site, plan, round_number, model_hash)).fetchone()
        if row is None:
            return None
        number, attempt, start, nonce, sealed = row
        try:
            return load(self._cipher.decrypt(nonce, sealed, self._about(plan, number, attempt, start)))
        except InvalidTag:
            raise UsageError(
                f"the memory of site '{self._site}' after round {number} cannot be opened",
                "use the key that it was written with; if the key is lost, this site cannot go on with the study",
            ) from None

    def writer(self, request: RoundRequest, memory: Memory) -> Callable[[Connection], None]:
        """What stores ``memory`` as that after the requested round, and forgets what no later round can begin with."""
        nonce, key = os.urandom(_NONCE_SIZE), (request.plan, request.round_number, request.attempt, request.model_hash)
        sealed = self._cipher.encrypt(nonce, b"".join(tensor_parts(dict(memory))), self._about(*key))

        def write(store: Connection) -> None:
            base = store.execute(_LATEST, (self._site, request.plan, request.round_number, request.model_hash))
            oldest = (base.fetchone() or (0,))[0]
            place = (self._site, request.plan)
            store.execute("DELETE FROM memories WHERE site = ? AND plan = ? AND round_number < ?", (*place, oldest))
            store.execute("INSERT INTO memories VALUES (?, ?, ?, ?, ?, ?, ?)", (self._site, *key, nonce, sealed))

        return write

    def _about(self, plan: str, round_number: int, attempt: int, model_hash: str) -> bytes:
        return LABEL_MEMORY.encode() + b"\x00" + encode([self._site, plan, round_number, attempt, model_hash])
