"""An alarm on a ledger: what is wrong, whose ledger it is, and the bytes that show it to anybody.

* **fork**: two heads of one ledger of which neither continues the other. Evidence: a signed head, and another signed
  head of the same size with another root, or a signed statement whose proof from that size does not fit.
* **rollback**: a ledger that was longer before. Evidence: two signed statements, of which the later names fewer
  entries.
* **silence**: what should have come did not. Seen by one party only, and proves nothing: a party may be cut off.

Fork and rollback are proven by the accused site's own signatures, so that it does not matter who brings them; the
signature of the party that raised the alarm says who noticed first. A statement in which the site names the lost head
as recovered answers an alarm, and does not remove it.
"""

from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wardround.protocol.bulletin import Statement, parse_statement
from wardround.protocol.canonical import LABEL_ALARM, digest, encode
from wardround.protocol.checkpoint import parse_note, verified_signers, verify
from wardround.protocol.errors import ProtocolViolation
from wardround.protocol.identity import Identity, PublicIdentity, SiteId
from wardround.protocol.ledger import Hex64
from wardround.protocol.tree import Head

MAX_ALARM_BYTES: Final = 1 << 18


class AlarmKind(StrEnum):
    FORK = "fork"
    ROLLBACK = "rollback"
    SILENCE = "silence"


class Alarm(BaseModel):
    """``origin``: whose ledger, or who is silent. ``first``, ``second``: notes or statements; silence: what is
    missing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["wardround/alarm/1"] = "wardround/alarm/1"
    kind: AlarmKind
    origin: SiteId
    at: str = Field(max_length=20)
    first: str = Field(max_length=100_000)
    second: str = Field(max_length=100_000)
    by: SiteId
    signature: Hex64

    @cached_property
    def message(self) -> bytes:
        """What the party signs that raised it."""
        return LABEL_ALARM.encode() + b"\x00" + encode(self.model_dump(mode="json", exclude={"signature"}))

    @property
    def canonical(self) -> bytes:
        return encode(self.model_dump(mode="json"))

    @property
    def digest(self) -> str:
        """Names the evidence, 64 hex digits: the same for everybody who raises it over the same bytes."""
        return digest(
            LABEL_ALARM, self.kind.value.encode(), self.origin.encode(), self.first.encode(), self.second.encode()
        )


def raise_alarm(kind: AlarmKind, origin: str, first: str, second: str, at: str, identity: Identity) -> Alarm:
    """A signed alarm."""
    made = Alarm(kind=kind, origin=origin, at=at, first=first, second=second, by=identity.site, signature="00" * 64)
    return made.model_copy(update={"signature": identity.sign(made.message).hex()})


def parse_alarm(content: bytes, sender: str) -> Alarm:
    """The alarm in ``content``, of which nothing is checked yet. Raises ProtocolViolation."""
    try:
        found = Alarm.model_validate_json(content)
    except ValidationError:
        raise ProtocolViolation(sender, "it sent bytes that are no alarm") from None
    if len(content) > MAX_ALARM_BYTES or found.canonical != content:
        raise ProtocolViolation(sender, "it sent an alarm that is not in canonical form")
    return found


def proven(alarm: Alarm, accused: PublicIdentity) -> bool:
    """Whether the evidence alone, with the accused's key, shows what the alarm says. Silence is never proven."""
    try:
        if alarm.origin != accused.site:
            return False
        if alarm.kind is AlarmKind.FORK:
            head = verify(alarm.first.encode(), accused).checkpoint.head
            if not alarm.second.startswith("{"):
                return forked(head, verify(alarm.second.encode(), accused).checkpoint.head)
            statement = parse_statement(alarm.second.encode(), accused.site)
            return contradicted(head, statement, statement.head(accused))
        if alarm.kind is AlarmKind.ROLLBACK:
            before, after = (parse_statement(text.encode(), accused.site) for text in (alarm.first, alarm.second))
            return went_back(before, before.head(accused), after, after.head(accused))
    except ProtocolViolation:
        return False
    return False


def forked(first: Head, second: Head) -> bool:
    """Two heads of one size with two roots."""
    return first.size == second.size and first.root != second.root


def contradicted(head: Head, statement: Statement, now: Head) -> bool:
    """Whether a site's ``statement``, which names ``now``, shows that its ledger does not continue its own ``head``."""
    return not statement.excuses(head) and statement.proves(head, now) is False


def went_back(before: Statement, first: Head, after: Statement, second: Head) -> bool:
    """Whether the later of two statements names fewer entries, and no recovery from the longer ledger."""
    return before.at < after.at and second.size < first.size and not after.excuses(first)


def answered(alarm: Alarm, statement: Statement, accused: PublicIdentity) -> bool:
    """Whether the accused says, in a statement, that two officers have signed a recovery from the head that was
    lost.
    """
    if alarm.kind is AlarmKind.SILENCE or alarm.origin != accused.site:
        return False
    if alarm.kind is AlarmKind.ROLLBACK:
        return statement.excuses(parse_statement(alarm.first.encode(), accused.site).head(accused))
    heads = [verify(alarm.first.encode(), accused).checkpoint.head]
    if not alarm.second.startswith("{"):
        heads.append(verify(alarm.second.encode(), accused).checkpoint.head)
    return any(statement.excuses(head) for head in heads)


def false_witnesses(alarm: Alarm, known: Mapping[str, PublicIdentity]) -> tuple[str, ...]:
    """Who of ``known`` has cosigned both heads of a fork, which no honest witness does."""
    if alarm.kind is not AlarmKind.FORK or alarm.second.startswith("{"):
        return ()
    signers = [
        {one.site for one in verified_signers(parse_note(text.encode(), alarm.origin), known.values(), alarm.origin)}
        for text in (alarm.first, alarm.second)
    ]
    return tuple(sorted((signers[0] & signers[1]) - {alarm.origin}))


def in_words(alarm: Alarm) -> str:
    """An alarm as one sentence for people."""
    if alarm.kind is AlarmKind.FORK:
        return f"The ledger of '{alarm.origin}' has two histories: it signed both."
    if alarm.kind is AlarmKind.ROLLBACK:
        return f"The ledger of '{alarm.origin}' was longer before: it signed both lengths."
    what = {
        "cosignature": f"No cosignature of '{alarm.origin}' has come, round after round, though it takes part.",
        "bulletin": f"No bulletin of '{alarm.origin}' has come, round after round, though it takes part.",
        "proof": f"'{alarm.origin}' does not prove that a head which others hold belongs to its ledger.",
    }
    return what.get(alarm.first, f"'{alarm.origin}' is silent.")
