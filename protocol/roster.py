"""The roster: which key belongs to which hospital, who owns and controls whom, and who may change that.

A chain of epochs. Each roster names the digest of the one before and is signed by m of its own governance keys and m of
the keys of the epoch before, so that a site which holds one roster can check the next without trusting who brought it.
The first roster that a site holds has no such proof: people compare its digest by telephone. The coordinator carries
rosters and is named in them; it has no say over them.
"""

from collections.abc import Iterable
from datetime import date
from functools import cached_property
from typing import Final, Literal, NoReturn, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wardround.protocol.canonical import LABEL_ROSTER, digest, encode
from wardround.protocol.errors import ProtocolViolation, UsageError
from wardround.protocol.identity import Identity, PublicIdentity
from wardround.protocol.ledger import Count, Hex32, Hex64
from wardround.protocol.owners import COORDINATOR, Governance, Name, Owner, Party, compared

MAX_ROSTER_BYTES: Final = 1 << 18
"""Room for some 500 sites."""

_HINT: Final = "ask the governance officers, not the coordinator, which roster holds"
_OWN_HINT: Final = "take the file as 'wardround governance' wrote it, or make it anew"


class Roster(BaseModel):
    """One epoch. ``signatures`` go by public key; they are no part of the digest, which is the roster's name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["wardround/roster/1"] = "wardround/roster/1"
    consortium: Name
    epoch: Count
    previous: Hex32 | None = Field(description="digest of the epoch before; null in epoch 1")
    issued: date
    expires: date = Field(description="the last day on which a session may begin with this roster")
    coordinator: Owner
    parties: tuple[Party, ...] = Field(min_length=1)
    governance: Governance
    signatures: dict[Hex32, Hex64] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.epoch == 1) is not (self.previous is None):
            raise ValueError("epoch 1 has no previous roster, and every later one names it")
        if self.expires < self.issued:
            raise ValueError("a roster cannot expire before it is issued")
        sites = [party.site for party in self.parties]
        if sites != sorted(set(sites)):
            raise ValueError("parties must be distinct and in the order of their names")
        keys = [party.key for party in self.parties] + [self.coordinator.key, *self.governance.keys.values()]
        if len(set(keys)) < len(keys):
            raise ValueError("one key stands twice: sites, officers and the coordinator have a key of their own each")
        return self

    @cached_property
    def message(self) -> bytes:
        """What officers sign: LABEL_ROSTER || 0x00 || canonical JSON of everything but the signatures."""
        return LABEL_ROSTER.encode() + b"\x00" + self._unsigned

    @cached_property
    def digest(self) -> str:
        """The roster's name: 64 hex digits, whoever has signed it."""
        return digest(LABEL_ROSTER, self._unsigned)

    @property
    def fingerprint(self) -> str:
        """The digest as people compare it by telephone, all of it: who writes a roster could look for two alike."""
        return " ".join(self.digest[i : i + 4] for i in range(0, 64, 4))

    @cached_property
    def canonical(self) -> bytes:
        """The bytes that are sent and stored."""
        return encode(self.model_dump(mode="json"))

    @cached_property
    def _unsigned(self) -> bytes:
        return encode(self.model_dump(mode="json", exclude={"signatures"}))

    @cached_property
    def identities(self) -> dict[str, PublicIdentity]:
        """Every site's name and key, whether valid today or not."""
        return {party.site: party.identity for party in self.parties}

    def signed_by(self, officer: Identity) -> "Roster":
        """This roster with an officer's signature; signing again changes nothing."""
        signature = officer.sign(self.message).hex()
        return Roster.model_validate(
            self.model_dump() | {"signatures": self.signatures | {officer.public.key.hex(): signature}}
        )

    def signers(self, governance: Governance) -> tuple[str, ...]:
        """The officers of ``governance`` whose signature under this roster holds, by name."""
        return tuple(name for name, key in sorted(governance.keys.items()) if self._signed_with(name, key))

    def _signed_with(self, name: str, key: str) -> bool:
        signature = self.signatures.get(key)
        return signature is not None and PublicIdentity(name, bytes.fromhex(key)).verifies(
            bytes.fromhex(signature), self.message
        )

    @classmethod
    def parse(cls, data: bytes, sender: str | None = None) -> "Roster":
        """The roster in canonical bytes, whose signatures nobody has checked yet.

        Raises:
            ProtocolViolation: it is malformed, and ``sender`` delivered it.
            UsageError: it is malformed, and is a file of our own (no sender).
        """
        if len(data) > MAX_ROSTER_BYTES:
            _refuse(f"the roster has more than {MAX_ROSTER_BYTES} bytes", sender)
        try:
            roster = cls.model_validate_json(data)
            same = roster.canonical == data
        except ValidationError as error:
            _refuse(f"this is no roster: {first_fault(error)}", sender)
        except ValueError:
            _refuse("this is no roster: it has no canonical form", sender)
        if not same:
            _refuse("these bytes of a roster are not in canonical form", sender)
        return roster


class TwoRosters(ProtocolViolation):
    """Two rosters of one epoch. ``evidence`` holds the bytes of both; ``both`` names the officers who signed both."""

    def __init__(self, held: Roster, offered: Roster) -> None:
        self.evidence = (held.canonical, offered.canonical)
        self.both = tuple(sorted({*held.signers(held.governance)} & {*offered.signers(held.governance)}))
        who = f"officers who signed both: {', '.join(self.both)}" if self.both else "no known officer signed both"
        super().__init__(
            COORDINATOR, f"there is a second roster of epoch {held.epoch} with other content; {who}", _HINT
        )


def first_fault(error: ValidationError) -> str:
    """What pydantic found first, as a sentence that is safe on a terminal, whoever wrote the roster."""
    fault = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, fault["loc"]))
    text = f"{where}: {fault['msg']}" if where else fault["msg"]
    text = text.replace("Value error, ", "")[:300]
    return "".join(character if character.isprintable() else "?" for character in text)


def check_first(offered: Roster, fingerprint: str) -> None:
    """Whether ``offered`` may be the first roster that a site holds: the one that people agreed on, and signed.

    Raises:
        UsageError: ``fingerprint`` is not 64 hex digits (spaces and case do not count).
        ProtocolViolation: the roster is another one, or m of its officers have not signed.
    """
    wanted = "".join(fingerprint.split()).lower()
    if len(wanted) != 64 or set(wanted) - set("0123456789abcdef"):
        raise UsageError("the fingerprint is not 64 hex digits", "give all sixteen groups that an officer reads out")
    if offered.digest != wanted:
        raise ProtocolViolation(COORDINATOR, "this is another roster than the officers agreed on", _HINT)
    check_signed(offered, offered.governance)


def check_next(held: Roster, offered: Roster) -> None:
    """Whether ``offered`` is the epoch behind ``held``, countersigned by m of the officers whom ``held`` names.

    Expiry is no matter here: a site that was away follows the chain through rosters that have expired.

    Raises:
        TwoRosters: a roster of the same epoch with other content.
        ProtocolViolation: anything else but the next epoch.
    """
    check_follows(held, offered)
    check_signed(offered, held.governance, f"of epoch {held.epoch}")
    check_signed(offered, offered.governance)


def check_follows(held: Roster, offered: Roster) -> None:
    """As ``check_next``, before anybody has signed."""
    if offered.epoch < held.epoch:
        _refuse(f"a roster of epoch {offered.epoch} cannot come behind one of epoch {held.epoch}", COORDINATOR)
    if offered.epoch == held.epoch:
        raise TwoRosters(held, offered)
    if offered.epoch > held.epoch + 1:
        _refuse(f"the rosters between epoch {held.epoch} and epoch {offered.epoch} are missing", COORDINATOR)
    if offered.previous != held.digest:
        _refuse(f"the roster of epoch {offered.epoch} does not follow the one of epoch {held.epoch}", COORDINATOR)
    if offered.consortium != held.consortium or offered.issued < held.issued:
        _refuse(f"the roster of epoch {offered.epoch} has another consortium's name or an older date", COORDINATOR)


def check_signed(roster: Roster, governance: Governance, which: str = "of its own") -> None:
    """Raises ProtocolViolation unless m officers of ``governance`` have signed, and every signature of one holds."""
    signers = roster.signers(governance)
    if any(key in roster.signatures and name not in signers for name, key in governance.keys.items()):
        _refuse(f"a signature under the roster of epoch {roster.epoch} is not the officer's", COORDINATOR)
    if len(signers) < governance.m:
        _refuse(
            f"the roster of epoch {roster.epoch} has signatures of {len(signers)} officers {which}; it needs "
            f"{governance.m}",
            COORDINATOR,
        )


def session_members(roster: Roster, wanted: Iterable[str], today: date) -> tuple[PublicIdentity, ...]:
    """The pinned identities of the sites of a session that begins ``today``, in the order of their names.

    Raises:
        ProtocolViolation: the roster is not of today, a site is wanted twice, is not in the roster, has a key that is
            not valid today, or is the second one of a legal entity.
    """
    if not roster.issued <= today <= roster.expires:
        when = "has expired" if today > roster.expires else "is not yet in force"
        _refuse(f"the roster of epoch {roster.epoch} {when}", COORDINATOR)
    known = {party.site: party for party in roster.parties}
    owners: dict[str, str] = {}
    members: list[PublicIdentity] = []
    for site in sorted(wanted):
        party = known.get(site)
        if party is None:
            _refuse(f"the roster of epoch {roster.epoch} names no site '{site}'", COORDINATOR)
        if not party.valid_from <= today <= party.valid_until:
            _refuse(f"the key of site '{site}' is not valid on {today}", COORDINATOR)
        other = owners.setdefault(compared(party.legal_entity), site)
        if members and members[-1].site == site:
            _refuse(f"site '{site}' is wanted twice", COORDINATOR)
        if other != site:
            _refuse(f"sites '{other}' and '{site}' are one legal entity: a session takes one of them", COORDINATOR)
        members.append(party.identity)
    return tuple(members)


def under_the_coordinator(roster: Roster) -> tuple[str, ...]:
    """The sites that the coordinator is, controls, or shares a controlling authority with."""
    return tuple(party.site for party in roster.parties if party.names & roster.coordinator.names)


def outsiders_only(roster: Roster) -> bool:
    """Whether secure aggregation protects against outsiders only: the coordinator's authority controls a site."""
    return bool(under_the_coordinator(roster))


def standing(roster: Roster) -> str:
    """What plan and screens say about coordinator and sites."""
    if sites := under_the_coordinator(roster):
        return (
            f"The coordinator ({roster.coordinator.legal_entity}) and {', '.join(sites)} are under one authority: "
            "secure aggregation protects against outsiders only, and the claim is the epsilon of mode local."
        )
    return (
        f"The roster puts no site under the authority of the coordinator ({roster.coordinator.legal_entity}): secure "
        "aggregation protects against the coordinator too."
    )


def _refuse(message: str, sender: str | None) -> NoReturn:
    if sender is None:
        raise UsageError(message, _OWN_HINT)
    raise ProtocolViolation(sender, message, _HINT)
