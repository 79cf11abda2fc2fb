"""What a site says of ledgers each round: of its own in a statement, of others in the bulletin around it.

A statement is a site's word on its own ledger: its head now, and proofs that this head continues earlier ones that
others hold. Two statements, or a statement and a head, that cannot both be of one ledger accuse the site by its own
signatures (``alarm``). A bulletin adds the heads of others that its site has cosigned, so that two witnesses who were
shown two histories compare them. Nothing here is of a patient: sizes, roots, times and signatures.

Both are canonical JSON, signed over a label, 0x00 and the bytes without the signature.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wardround.protocol.canonical import LABEL_BULLETIN, LABEL_STATEMENT, encode
from wardround.protocol.checkpoint import verify
from wardround.protocol.errors import ProtocolViolation
from wardround.protocol.identity import Identity, PublicIdentity, SiteId
from wardround.protocol.ledger import Hex32, Hex64
from wardround.protocol.tree import Head, Proof, verify_consistency

MOST_PROOFS: Final = 64
"""Earlier heads that a statement proves; the newest come first."""

MOST_RECOVERED: Final = 16
MOST_HEADS: Final = 128
"""Heads of others in a bulletin: one a site of the largest consortium, and some that wait for a proof."""

MOST_ALARMS: Final = 8
MAX_STATEMENT_BYTES: Final = 40_000
MAX_BULLETIN_BYTES: Final = 256 << 10
_ALARM_BYTES: Final = 128 << 10
"""What the alarms of a bulletin may take of it."""

PARTNERS: Final = 4
"""Bulletins that a site hears in a round."""

_TIME: Final = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"


class _Signed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def canonical(self) -> bytes:
        return encode(self.model_dump(mode="json"))


class Earlier(_Signed):
    """The proof that the statement's head continues the first ``size`` entries: places in the statement's
    ``hashes``.
    """

    size: int = Field(ge=1, lt=2**53)
    proof: tuple[Annotated[int, Field(ge=0, lt=512)], ...] = Field(max_length=64)


class Lost(_Signed):
    """A head that the ledger does not continue, because it was restored; two officers signed a recovery that names
    it.
    """

    size: int = Field(ge=1, lt=2**53)
    root: Hex32


class Statement(_Signed):
    """A site's word on its own ledger. ``at`` never goes back from one statement to the next, whatever the clock does.

    Proofs of neighbouring sizes share most of their hashes, so each hash is written once.
    """

    format: Literal["wardround/statement/1"] = "wardround/statement/1"
    site: SiteId
    at: str = Field(pattern=_TIME)
    note: str = Field(max_length=2_000)
    hashes: tuple[Hex32, ...] = Field(max_length=512)
    earlier: tuple[Earlier, ...] = Field(max_length=MOST_PROOFS)
    recovered: tuple[Lost, ...] = Field(max_length=MOST_RECOVERED)
    signature: Hex64

    @model_validator(mode="after")
    def _places(self) -> Self:
        if any(place >= len(self.hashes) for one in self.earlier for place in one.proof):
            raise ValueError("a proof names a hash that is not there")
        return self

    @cached_property
    def message(self) -> bytes:
        """What the site signs."""
        return LABEL_STATEMENT.encode() + b"\x00" + encode(self.model_dump(mode="json", exclude={"signature"}))

    def head(self, party: PublicIdentity) -> Head:
        """The head that it names. Raises ProtocolViolation unless ``party`` signed the statement and the head."""
        if self.site != party.site or not party.verifies(bytes.fromhex(self.signature), self.message):
            raise ProtocolViolation(party.site, "its statement on its ledger is not signed with its known key")
        return verify(self.note.encode(), party).checkpoint.head

    def excuses(self, head: Head) -> bool:
        """Whether two officers have signed, by the site's word, that ``head`` was lost."""
        return (head.size, head.root.hex()) in {(lost.size, lost.root) for lost in self.recovered}

    def proves(self, head: Head, now: Head) -> bool | None:
        """Whether the ledger at ``now``, which this statement names, continues ``head``; None: it says nothing of
        it.
        """
        if head.size == now.size:
            return head.root == now.root
        found = next((one for one in self.earlier if one.size == head.size), None)
        if found is None or head.size > now.size:
            return None
        return verify_consistency(head, now, [bytes.fromhex(self.hashes[place]) for place in found.proof])


class Bulletin(_Signed):
    """``heads`` are notes of others' ledgers that this site has cosigned; ``alarms`` are in canonical form."""

    format: Literal["wardround/bulletin/1"] = "wardround/bulletin/1"
    statement: Statement
    heads: tuple[str, ...] = Field(max_length=MOST_HEADS)
    alarms: tuple[str, ...] = Field(max_length=MOST_ALARMS)
    signature: Hex64

    @cached_property
    def message(self) -> bytes:
        """What the site signs: without it a carrier could leave heads out."""
        return LABEL_BULLETIN.encode() + b"\x00" + encode(self.model_dump(mode="json", exclude={"signature"}))


def make_statement(
    identity: Identity,
    at: str,
    note: bytes,
    proofs: dict[int, Proof],
    recovered: Iterable[tuple[int, str]] = (),
) -> Statement:
    """The signed statement of a site. ``proofs``: from each earlier size to the one that ``note`` names."""
    newest, places = sorted(proofs, reverse=True)[:MOST_PROOFS], dict[bytes, int]()
    earlier = tuple(
        Earlier(size=size, proof=tuple(places.setdefault(step, len(places)) for step in proofs[size]))
        for size in newest
    )
    made = Statement(
        site=identity.site,
        at=at,
        note=note.decode(),
        hashes=tuple(step.hex() for step in places),
        earlier=earlier,
        recovered=tuple(Lost(size=size, root=root) for size, root in sorted(recovered, reverse=True)[:MOST_RECOVERED]),
        signature="00" * 64,
    )
    return made.model_copy(update={"signature": identity.sign(made.message).hex()})


def make_bulletin(identity: Identity, statement: Statement, heads: Sequence[bytes], alarms: Sequence[bytes]) -> bytes:
    """The signed bulletin, in canonical form."""
    told, room = [], _ALARM_BYTES
    for content in alarms[:MOST_ALARMS]:
        if len(content) <= room:
            told.append(content.decode())
            room -= len(content)
    made = Bulletin(
        statement=statement,
        heads=tuple(note.decode() for note in heads[:MOST_HEADS]),
        alarms=tuple(told),
        signature="00" * 64,
    )
    return made.model_copy(update={"signature": identity.sign(made.message).hex()}).canonical


def parse_statement(content: bytes, sender: str) -> Statement:
    """The statement in ``content``, of which no signature is checked yet. Raises ProtocolViolation."""
    try:
        found = Statement.model_validate_json(content)
    except ValidationError:
        raise ProtocolViolation(sender, "it sent bytes that are no statement on a ledger") from None
    if len(content) > MAX_STATEMENT_BYTES or found.canonical != content:
        raise ProtocolViolation(sender, "it sent a statement that is not in canonical form")
    return found


def parse_bulletin(content: bytes, sender: str) -> Bulletin:
    """The bulletin in ``content``, of which no signature is checked yet. Raises ProtocolViolation."""
    if len(content) > MAX_BULLETIN_BYTES:
        raise ProtocolViolation(sender, f"a bulletin has more than {MAX_BULLETIN_BYTES} bytes")
    try:
        found = Bulletin.model_validate_json(content)
    except ValidationError:
        raise ProtocolViolation(sender, "it sent bytes that are no bulletin on ledgers") from None
    if len(found.statement.canonical) > MAX_STATEMENT_BYTES:
        raise ProtocolViolation(sender, f"a statement on a ledger has more than {MAX_STATEMENT_BYTES} bytes")
    if found.canonical != content:
        raise ProtocolViolation(sender, "it sent a bulletin that is not in canonical form")
    return found


def signed_by(bulletin: Bulletin, party: PublicIdentity) -> Head:
    """The head of the bulletin's own site. Raises ProtocolViolation unless ``party`` signed all of it."""
    if not party.verifies(bytes.fromhex(bulletin.signature), bulletin.message):
        raise ProtocolViolation(party.site, "its bulletin is not signed with its known key")
    return bulletin.statement.head(party)


def witnesses_of(origin: str, names: Iterable[str], round_number: int, count: int) -> tuple[str, ...]:
    """Who cosigns ``origin``'s head in a round: ``count`` of the other names, going round from one round to the next.

    A function of the roster's names and the round only, so that a coordinator cannot choose a witness. Every other site
    is asked within ceil((n - 1) / count) rounds.
    """
    return _next(origin, names, (round_number - 1) * count, count)


def partners_of(site: str, names: Iterable[str], step: int) -> tuple[str, ...]:
    """Whose bulletins ``site`` hears in exchange number ``step`` (from 0): everybody's within ``cycle`` steps."""
    return _next(site, names, step * PARTNERS, PARTNERS)


def cycle(sites: int) -> int:
    """P: rounds until a site of so many has heard every other: ceil((n - 1) / PARTNERS)."""
    return max(1, -(-(sites - 1) // PARTNERS))


def _next(site: str, names: Iterable[str], start: int, count: int) -> tuple[str, ...]:
    order = sorted({*names, site})
    others = order[order.index(site) + 1 :] + order[: order.index(site)]
    if not others:
        return ()
    return tuple(others[(start + step) % len(others)] for step in range(min(count, len(others))))
