"""What a paper says: facts of a site's ledger and of its plans, frozen, and nothing that is for one rendering only.

The three papers share one content. It is what the site signs; HTML and PDF are made of it and of nothing else, so
whoever has the content can make the pages again and compare. Hashes and keys are lower-case hex, times are UTC as the
ledger writes them, budgets are integers of 1e-12 at the domain's order. Nothing here is derived from a patient: the
kinds of entry that hold such a number (``WITHHELD``) come without their content.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import ConfigDict, Field

from wardround.protocol.events import DpEvent
from wardround.protocol.ledger import Hex32, Hex64
from wardround.protocol.plan import StudyPlan

WITHHELD: Final = frozenset({"start", "inquiry"})
"""Kinds whose content is left out: how many had opted out, rounded; and who asked for a patient."""

_CLOSED: Final = ConfigDict(extra="forbid")
Number: TypeAlias = Annotated[int, Field(ge=0, lt=2**53)]
Moment: TypeAlias = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
Day: TypeAlias = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")]


class Kind(StrEnum):
    STATEMENT = "statement"
    AUDIT = "audit"
    DPIA = "dpia"


@dataclass(frozen=True, slots=True)
class Epsilon:
    """An epsilon, rounded up to two decimals, and everything without which it is no statement.

    ``colluding``: the plan's c, where ``against`` is the consortium and the paper is about one plan.
    """

    __pydantic_config__ = _CLOSED

    value: Annotated[str, Field(pattern=r"^[0-9]{1,9}\.[0-9]{2}$")]
    delta: float
    against: Literal["everyone", "consortium"]
    colluding: Number | None = None
    unit: Literal["patient"] = "patient"
    adjacency: Literal["add_or_remove_one"] = "add_or_remove_one"


@dataclass(frozen=True, slots=True)
class Charged:
    """So many blocks of one event."""

    __pydantic_config__ = _CLOSED

    event: DpEvent
    blocks: Number


@dataclass(frozen=True, slots=True)
class Spending:
    """What one plan has spent of one domain, from the ledger's beginning; ``in_period``: blocks of the paper's period.

    ``epsilon`` None: no event of it has one (officers have waived differential privacy).
    """

    __pydantic_config__ = _CLOSED

    plan: str
    study: str | None
    domain: str
    charges: tuple[Charged, ...]
    in_period: Number
    epsilon: Epsilon | None


@dataclass(frozen=True, slots=True)
class Budget:
    """A domain: its cap, what the accountant says was spent, and the filter's integers."""

    __pydantic_config__ = _CLOSED

    domain: str
    cap: Epsilon
    cap_exact: float
    spent: Epsilon
    order: Number
    allowance: Number
    used: Number
    blocks: Number
    without_privacy: Number
    closed: bool
    spendings: tuple[Spending, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """One entry, and the hashes (RFC 6962) that show it at its place under the paper's checkpoint.

    ``content`` is the entry's canonical bytes as text, None for a kind that is withheld; ``leaf`` is its leaf hash.
    """

    __pydantic_config__ = _CLOSED

    number: Number
    at: Moment
    kind: str
    domain: str | None
    plan: str | None
    content: str | None
    leaf: Hex32
    path: tuple[Hex32, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """Entries that are counted instead of listed: the site's word, which its signature covers and no proof does."""

    __pydantic_config__ = _CLOSED

    first: Number
    last: Number
    first_at: Moment
    last_at: Moment
    kinds: dict[str, Number]


@dataclass(frozen=True, slots=True)
class Witnessed:
    """Another party's signature over a head of this ledger, and the proof that it and the checkpoint are of one."""

    __pydantic_config__ = _CLOSED

    witness: str
    key: Hex32
    size: Number
    root: Hex32
    signature: Hex64
    proof: tuple[Hex32, ...]


@dataclass(frozen=True, slots=True)
class Former:
    """An earlier signed checkpoint, and the proof that this paper's continues it."""

    __pydantic_config__ = _CLOSED

    note: str
    proof: tuple[Hex32, ...]


@dataclass(frozen=True, slots=True)
class Anchor:
    """The signed checkpoint that the paper hangs on: a C2SP note, and who else has signed this history."""

    __pydantic_config__ = _CLOSED

    note: str
    witnesses: tuple[Witnessed, ...]
    former: Former | None = None


@dataclass(frozen=True, slots=True)
class Left:
    """Answers that left, of one stretch of time: a day, a month or a year."""

    __pydantic_config__ = _CLOSED

    span: str
    first_round: Number
    last_round: Number
    answers: Number


@dataclass(frozen=True, slots=True)
class Granted:
    """What officers let the plan spend of a domain: blocks of an event, and the epsilon that all of them would be."""

    __pydantic_config__ = _CLOSED

    domain: str
    event: DpEvent
    blocks: Number
    epsilon: Epsilon | None


@dataclass(frozen=True, slots=True)
class About:
    """One study at this site. ``approvals`` are the entries that officers signed for its plan."""

    __pydantic_config__ = _CLOSED

    plan: StudyPlan
    digest: Hex32
    received_at: Moment
    refused: bool
    approvals: tuple[Line, ...]
    granted: tuple[Granted, ...]
    spendings: tuple[Spending, ...]
    left: tuple[Left, ...]
    budgets: tuple[Budget, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """Requests of a plan that were refused in the period for one reason."""

    __pydantic_config__ = _CLOSED

    plan: str
    study: str | None
    reason: str
    count: Number
    first_at: Moment
    last_at: Moment


@dataclass(frozen=True, slots=True)
class Period:
    """From ``since`` to ``until``, days in UTC, both within; the entries ``first`` to ``last`` (0 and 0: none)."""

    __pydantic_config__ = _CLOSED

    since: Day
    until: Day
    first: Number
    last: Number
    before: Line | None


@dataclass(frozen=True, slots=True)
class Audit:
    """A period of the ledger. ``lines`` and ``runs`` together are every entry of the period, once."""

    __pydantic_config__ = _CLOSED

    period: Period
    budgets: tuple[Budget, ...]
    kinds: dict[str, Number]
    lines: tuple[Line, ...]
    runs: tuple[Run, ...]
    refusals: tuple[Refused, ...]
    more_refusals: Number
    studies: dict[str, str]


@dataclass(frozen=True, slots=True)
class Paper:
    """The whole content. ``software``: versions that made it, so that a page can be made again to the byte."""

    __pydantic_config__ = _CLOSED

    kind: Kind
    site: str
    key: Hex32
    made_at: Moment
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]
    software: dict[str, str]
    anchor: Anchor
    about: About | None = None
    audit: Audit | None = None
    format: Literal["wardround/paper/1"] = "wardround/paper/1"
