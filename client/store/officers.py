"""The roll of a site's officers: every key that was ever named, how it stands, and what it has signed.

Read from the ledger alone. When a key was stolen, people compare the list of what it signed with what its owner knows.
"""

from dataclasses import dataclass
from enum import StrEnum
from sqlite3 import Connection
from typing import Final

from wardround.client.store.ledger import time_of
from wardround.privacy.ledger import LedgerState
from wardround.protocol.entry import parse_content
from wardround.protocol.ledger import Approved, Grant, OpenDomain, Waive

_SIGNED: Final = b'"approvals":[{'
"""What the canonical bytes of an entry hold when officers have signed it, and those of no other entry."""


class Effect(StrEnum):
    """What an entry that officers have signed does now. DONE: it cannot be taken back, and rests on no key."""

    STANDS = "stands"
    SUSPENDED = "suspended"
    REPLACED = "replaced"
    REVOKES = "revokes"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Signed:
    """An entry that an officer has signed; ``domain`` and ``plan`` are "" where it is about none."""

    entry: int
    at: str
    kind: str
    domain: str
    plan: str
    effect: Effect


@dataclass(frozen=True, slots=True)
class OfficerKey:
    """One key. ``listed``: it is in the present list; ``reason``, ``note`` and ``at`` are of its suspension, or ""."""

    name: str
    key: str
    listed: bool
    reason: str
    note: str
    at: str
    signed: tuple[Signed, ...]

    @property
    def may_sign(self) -> bool:
        return self.listed and not self.reason

    def with_effect(self, effect: Effect) -> tuple[Signed, ...]:
        return tuple(one for one in self.signed if one.effect is effect)


@dataclass(frozen=True, slots=True)
class Roll:
    """All keys, those of the present list first, and the version of that list; ``waiting``: plans to sign again."""

    version: int
    keys: tuple[OfficerKey, ...]
    waiting: tuple[str, ...]


def roll_of(store: Connection, site: str, state: LedgerState) -> Roll:
    """The roll of ``site`` whose ledger adds up to ``state``; what was signed is in the ledger's order."""
    signed: dict[str, list[Signed]] = {key: [] for key in state.named}
    rows = store.execute(
        "SELECT number, content FROM entries WHERE site = ? AND number <= ? AND instr(content, ?) ORDER BY number",
        (site, state.size, _SIGNED),
    )
    for number, content in rows:
        dated = parse_content(content)
        fact = dated.fact
        if not isinstance(fact, Approved):
            continue
        domain, plan = str(getattr(fact, "domain", "")), str(getattr(fact, "plan", ""))
        line = Signed(number, dated.at, fact.kind, domain, plan, _effect(fact, state))
        for key in {approval.key for approval in fact.approvals} & signed.keys():
            signed[key].append(line)
    now = {} if state.officers is None else state.officers.officers
    keys = []
    for key, name in state.named.items():
        gone = state.suspended.get(key)
        about = ("", "", "") if gone is None else (gone.reason, gone.note, time_of(store, site, gone.entry))
        keys.append(OfficerKey(name, key, key in now.values(), *about, tuple(signed[key])))
    keys.sort(key=lambda one: (not one.listed, one.name, one.key))
    return Roll(
        0 if state.officers is None else state.officers.version, tuple(keys), tuple(sorted(state.suspended_plans()))
    )


def _effect(fact: Approved, state: LedgerState) -> Effect:
    present: OpenDomain | Grant | Waive
    match fact:
        case Grant():
            present = state.grants[fact.plan, fact.domain].fact
            if present == fact and not fact.blocks:
                return Effect.REVOKES
        case Waive():
            present = state.waived[fact.plan, fact.domain]
        case OpenDomain():
            present = state.domains[fact.domain].fact
        case _:
            return Effect.DONE
    if present != fact:
        return Effect.REPLACED
    return Effect.SUSPENDED if state.lacking(fact) else Effect.STANDS
