"""The rounds of a study from its receipts: who took part, who dropped and at which step, and who countersigned.

A receipt has a line of text for each site. No text of it comes out of here: what a site did is one of ``Part``, the
step is one of ``Step``, and a reason is one of the three words that a site may say (``RefusalCode``) or nothing.
"""

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

from wardround.protocol.errors import WardroundError
from wardround.protocol.identity import PublicIdentity
from wardround.protocol.messages import RefusalCode
from wardround.protocol.owners import COORDINATOR
from wardround.protocol.plan import StudyPlan
from wardround.protocol.receipt import Receipt, SiteLine, chain_fault, parse_receipt
from wardround.protocol.roster import Roster
from wardround.server.rounds import NO_PART, Outcome


class Part(StrEnum):
    """What a site did in a round."""

    IN_SUM = "in"
    UNOPENED = "unopened"
    """Its vector arrived, and no sum was opened."""

    SILENT = "silent"
    """Its vector arrived, and it did not help to open the sum."""

    REFUSED = "refused"
    LOST = "lost"
    LATE = "late"
    VIOLATED = "violated"
    WAITING = "waiting"


class Step(StrEnum):
    """Where in a round a site dropped."""

    SESSION = "session"
    VECTOR = "vector"
    OPENING = "opening"


@dataclass(frozen=True, slots=True)
class Cell:
    """One site in one round. ``step``: where it dropped, None: it did not; ``code``: the word that it refused with."""

    site: str
    part: Part
    step: Step | None = None
    code: RefusalCode | None = None


@dataclass(frozen=True, slots=True)
class RoundLine:
    """An attempt at a round, as its receipt has it.

    ``opened_over``: sites in the sum, 0 when void. ``seconds``: since the receipt before; None for the first.
    ``signed``: the plan's sites whose signature holds, or, without a roster (``checked`` False), that are named.
    """

    number: int
    attempt: int
    closed: bool
    at: str
    seconds: int | None
    cells: tuple[Cell, ...]
    opened_over: int
    voided_by: tuple[str, ...]
    model: str
    receipt: str
    file: str
    signed: tuple[str, ...]
    by_coordinator: bool
    checked: bool

    @property
    def by_all(self) -> bool:
        """Whether the coordinator and every site of the plan have signed it, and that was checked."""
        return self.checked and self.by_coordinator and len(self.signed) == len(self.cells)


@dataclass(frozen=True, slots=True)
class Rounds:
    """All receipts of a study. ``fault``: which check of them failed, "" for none; ``faulty``: the file, if one is."""

    lines: tuple[RoundLine, ...]
    epsilon: float | None
    fault: str = ""
    faulty: str = ""


CHAIN, UNREADABLE, SIGNATURE = "chain", "unreadable", "signature"

_PARTS: Final = {
    Outcome.REFUSED.value: Part.REFUSED,
    Outcome.LOST.value: Part.LOST,
    Outcome.LATE.value: Part.LATE,
    Outcome.VIOLATED.value: Part.VIOLATED,
    Outcome.WAITING.value: Part.WAITING,
}
_REFUSED: Final = "it refused: "


@dataclass(frozen=True, slots=True)
class _Read:
    stamp: tuple[int, int]
    receipt: Receipt
    signed: tuple[str, ...]
    checked: bool
    holds: bool


class ReceiptReader:
    """Reads receipts and checks their signatures, each once for as long as its file stays as it is."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[Path, _Read] = {}

    def rounds(self, folder: Path, plan: StudyPlan, rosters: Mapping[str, Roster]) -> Rounds:
        """The receipts in a study's ``folder``, in the order of rounds and attempts."""
        found: list[tuple[Path, _Read]] = []
        fault = faulty = ""
        with self._lock:
            for file in sorted((folder / "receipts").glob("*.json")):
                try:
                    found.append((file, self._read(file, rosters)))
                except (OSError, WardroundError):
                    fault, faulty = UNREADABLE, file.name
                    break
        if not fault:
            forged = next((file.name for file, one in found if not one.holds), "")
            if forged:
                fault, faulty = SIGNATURE, forged
            elif chain_fault([one.receipt for _, one in found]) or any(
                one.receipt.plan != plan.digest for _, one in found
            ):
                fault = CHAIN
        lines, before = [], None
        for file, one in found:
            lines.append(_line(plan, one, file.name, before))
            before = one.receipt.at
        epsilons = [line.epsilon_at_most for _, one in found[-1:] for line in one.receipt.sites]
        known = [epsilon for epsilon in epsilons if epsilon is not None]
        return Rounds(tuple(lines), max(known, default=None), fault, faulty)

    def receipts(self, folder: Path, rosters: Mapping[str, Roster]) -> list[Receipt]:
        """The receipts in a study's ``folder`` of which no signature is false, in their order; nothing else checked."""
        found = []
        with self._lock:
            for file in sorted((folder / "receipts").glob("*.json")):
                with suppress(OSError, WardroundError):
                    found.append(self._read(file, rosters))
        return [one.receipt for one in found if one.holds]

    def _read(self, file: Path, rosters: Mapping[str, Roster]) -> _Read:
        about = file.stat()
        stamp, kept = (about.st_mtime_ns, about.st_size), self._kept.get(file)
        if kept is not None and kept.stamp == stamp:
            return kept
        receipt = parse_receipt(file.read_bytes())
        named, holds = tuple(one.site for one in receipt.signatures), True
        roster = None if receipt.roster is None else rosters.get(receipt.roster)
        if roster is not None:
            try:
                named = receipt.verified_signers(_parties(roster))
            except WardroundError:
                named, holds = (), False
        made = self._kept[file] = _Read(stamp, receipt, named, roster is not None, holds)
        return made


def now_in_round(plan: StudyPlan, sites: Mapping[str, Outcome]) -> tuple[Cell, ...]:
    """The round that runs: who has answered so far."""
    found = []
    for participant in plan.participants:
        outcome = sites.get(participant.site, Outcome.WAITING)
        part = Part.UNOPENED if outcome is Outcome.REPLIED else _PARTS[outcome.value]
        dropped = part not in (Part.UNOPENED, Part.WAITING)
        found.append(Cell(participant.site, part, Step.VECTOR if dropped else None))
    return tuple(found)


def _line(plan: StudyPlan, read: _Read, file: str, before: str | None) -> RoundLine:
    receipt, lines = read.receipt, read.receipt.line
    closed = receipt.state == "closed"
    cells = tuple(_cell(one.site, lines.get(one.site), closed, receipt.voided_by) for one in plan.participants)
    sites = {one.site for one in plan.participants}
    return RoundLine(
        number=receipt.round_number,
        attempt=receipt.attempt,
        closed=closed,
        at=receipt.at,
        seconds=_between(before, receipt.at),
        cells=cells,
        opened_over=sum(cell.part in (Part.IN_SUM, Part.SILENT) for cell in cells) if closed else 0,
        voided_by=tuple(site for site in receipt.voided_by if site in sites),
        model=receipt.model_after,
        receipt=receipt.digest,
        file=file,
        signed=tuple(sorted(sites & set(read.signed))),
        by_coordinator=COORDINATOR in read.signed,
        checked=read.checked,
    )


def _cell(site: str, line: SiteLine | None, closed: bool, voided_by: Sequence[str]) -> Cell:
    """What a receipt's line says, in words that are known here; its text stays behind."""
    if line is None:
        return Cell(site, Part.LOST, Step.SESSION)
    if line.outcome == Outcome.REPLIED:
        # A site that helped has no word beside it in a round that has its sum; in a void one it is not to blame.
        if (closed and line.detail) or (not closed and site in voided_by):
            return Cell(site, Part.SILENT, Step.OPENING, _code(line.detail.removeprefix(_REFUSED)))
        return Cell(site, Part.IN_SUM if closed else Part.UNOPENED)
    part = _PARTS.get(line.outcome, Part.VIOLATED)
    step = Step.SESSION if line.detail == NO_PART else Step.VECTOR
    return Cell(site, part, step, _code(line.detail) if part is Part.REFUSED else None)


def _parties(roster: Roster) -> dict[str, PublicIdentity]:
    key = bytes.fromhex(roster.coordinator.key)
    return roster.identities | {COORDINATOR: PublicIdentity(COORDINATOR, key)}


def _code(word: str) -> RefusalCode | None:
    return RefusalCode(word) if word in set(RefusalCode) else None


def _between(before: str | None, at: str) -> int | None:
    if before is None:
        return None
    try:
        return max(0, int((datetime.fromisoformat(at) - datetime.fromisoformat(before)).total_seconds()))
    except ValueError:
        return None
