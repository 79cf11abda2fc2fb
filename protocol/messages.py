"""Every message of a round, one class each: what can leave a hospital is this one file.

Four things can come back from a site: a ``Reply`` with one vector, a ``Masked`` with the same under masks, a
``Refusal`` with one of three words, or nothing. There is no free text, no loss, no count and no metric in any of
them. What secure aggregation says besides (keys, shares, signatures) is in ``secagg``.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from wardround.protocol.parameters import Blocks, Contribution, Ranges, Sums, Vector
from wardround.protocol.secagg import Upload


class RefusalCode(StrEnum):
    """Why a site did not contribute. The site's own log says more; the wire never does."""

    UNAVAILABLE = "unavailable"
    POLICY = "policy"
    PROTOCOL = "protocol"


@dataclass(frozen=True, slots=True)
class LocalRule:
    """How a site trains this round, as data: the site interprets it, it is never code.

    ``proximal_mu`` pulls towards the round's model: adds mu * (w - w_round) to the gradient.
    ``linear_term`` (shape (d,), or None) is added to the gradient; it depends on no patient of this site.
    Both are added after clipping and noise, so they cost no privacy.

    A site makes its own rule from the shared one, its memory and the plan's strategy. What only such a rule has never
    travels: in the first ``head_steps`` steps of a round the coordinates ``head`` move alone, in those after it all
    others do; 0: all move in every step.
    """

    learning_rate: float
    proximal_mu: float = 0.0
    linear_term: Vector | None = None
    head: Ranges = ()
    head_steps: int = 0


@dataclass(frozen=True, slots=True)
class RoundRequest:
    """Coordinator to site: train this model for this round of this plan."""

    plan: str
    round_number: int
    attempt: int
    model: Vector
    model_hash: str
    rule: LocalRule

    @property
    def key(self) -> tuple[str, int, int, str]:
        """What a site answers at most once."""
        return (self.plan, self.round_number, self.attempt, self.model_hash)


@dataclass(frozen=True, slots=True)
class Reply:
    """Site to coordinator: the one vector of the round (weights and updates joined), shape (size,), float64."""

    site: str
    plan: str
    round_number: int
    attempt: int
    model_hash: str
    vector: Sums = field(repr=False)


@dataclass(frozen=True, slots=True)
class Masked:
    """Site to coordinator under secure aggregation: the one vector of the round as masked residues, shape (size,).

    A large one may lie on the coordinator's disk (``Blocks``).
    """

    site: str
    plan: str
    round_number: int
    attempt: int
    model_hash: str
    upload: Upload
    vector: npt.NDArray[Any] | Blocks = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Site to coordinator: not this round, for one of three reasons."""

    site: str
    plan: str
    round_number: int
    attempt: int
    code: RefusalCode


class Standing(StrEnum):
    """How a plan stands at a site. Nothing here depends on a patient. SUSPENDED stays at the site: see ``told``."""

    UNKNOWN = "unknown"
    PROPOSED = "proposed"
    REFUSED = "refused"
    APPROVED = "approved"
    REVOKED = "revoked"
    PAUSED = "paused"
    SUSPENDED = "suspended"

    @property
    def told(self) -> "Standing":
        """What a coordinator hears: that an officer's key was lost or stolen is the site's own matter."""
        return Standing.PAUSED if self is Standing.SUSPENDED else self


@dataclass(frozen=True, slots=True)
class Greeting:
    """Site to coordinator: how a plan stands here, and what this process needs.

    ``session`` is the digest of the session that this process holds, "" for none. ``nonce`` is a question: which head
    of this site's ledger have the others seen ("": it has its answers).
    """

    site: str
    plan: str
    standing: Standing
    behaviour: str
    roster: str
    session: str
    nonce: str


@dataclass(frozen=True, slots=True)
class Done:
    """Site to coordinator: it was done, and there is nothing to say."""

    site: str


@dataclass(frozen=True, slots=True)
class Signed:
    """Site to coordinator: its signature under a receipt, and the signed head of its ledger with proofs for witnesses.

    ``proofs`` has, for each witness that has signed this ledger before, the hashes from that head to this one.
    """

    site: str
    receipt: str
    signature: str
    checkpoint: str
    proofs: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Cosigned:
    """Site to coordinator: another site's checkpoint with this site's signature (a C2SP note)."""

    site: str
    note: str


@dataclass(frozen=True, slots=True)
class Recalled:
    """Site to coordinator: the signed answer to another site's question which head of its ledger was seen here."""

    site: str
    answer: str


@dataclass(frozen=True, slots=True)
class Gossiped:
    """Site to coordinator, for other sites: its signed bulletin on ledgers (sizes, roots, proofs, alarms)."""

    site: str
    bulletin: str


def join_contribution(parts: Contribution) -> Sums:
    """One flat vector from named parts, in the order of their names."""
    return np.concatenate([np.ravel(parts[name]) for name in sorted(parts)], dtype=np.float64)


def split_contribution(vector: Sums, sizes: dict[str, int]) -> dict[str, Sums]:
    """The inverse of ``join_contribution``; ``sizes`` gives the length of each part."""
    views, start = {}, 0
    for name in sorted(sizes):
        views[name] = vector[start : start + sizes[name]]
        start += sizes[name]
    return views
