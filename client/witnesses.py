"""What this site's own witnesses know: asked after every start, before the first round.

A file that was put back to an older copy cannot be told from the right one by looking at it. Others have signed its
later heads: c + 1 of them are asked with a fresh nonce, so that at least one answer comes from nobody who colludes. The
coordinator carries questions and answers, and can change neither.
"""

from collections.abc import Callable, Mapping, Sequence

from wardround.client.store.ledger import Ledger
from wardround.protocol.errors import ProtocolViolation
from wardround.protocol.identity import PublicIdentity
from wardround.protocol.owners import COORDINATOR
from wardround.protocol.secagg import colluding
from wardround.protocol.witness import NONCE_SIZE, SeenHead, verified_seen


class Recollection:
    """The question of one process, and the answers to it."""

    def __init__(self, ledger: Ledger, own: PublicIdentity, random_bytes: Callable[[int], bytes]) -> None:
        self._ledger = ledger
        self._own = own
        self._nonce = random_bytes(NONCE_SIZE)
        self._answered: set[str] = set()
        self._needed: int | None = None

    @property
    def question(self) -> str:
        """The nonce in hex; "" once enough have answered."""
        return "" if self.satisfied else self._nonce.hex()

    @property
    def satisfied(self) -> bool:
        return self._needed is not None and len(self._answered) >= self._needed

    def take(self, answers: Sequence[str], others: Mapping[str, PublicIdentity]) -> None:
        """Check what ``others`` (sites of the roster in force) have answered; a head that is missing here is noted.

        Raises:
            ProtocolViolation: an answer is to another question, or not signed by who it says.
        """
        self._needed = colluding(len(others) + 1) + 1
        for answer in answers:
            witness = others.get(_witness(answer))
            if witness is None:
                raise ProtocolViolation(COORDINATOR, "it brought the answer of a witness whom the roster does not name")
            seen = verified_seen(answer.encode(), self._own, witness, self._nonce)
            if seen is not None and seen.head.size:
                self._ledger.rolled_back(seen.head, witness.site)
            self._answered.add(witness.site)


def _witness(answer: str) -> str:
    try:
        return SeenHead.model_validate_json(answer).witness
    except ValueError:
        raise ProtocolViolation(COORDINATOR, "it brought an answer on a ledger's head that is malformed") from None
