"""The entries of a period for an audit report: what people decided is listed and proved, rounds between are counted.

A ledger writes three entries a round, so a list of all would hide the few that matter. A short period is listed whole.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from wardround.console.paper.model import WITHHELD, Line, Refused, Run
from wardround.console.paper.reading import Book, Dated
from wardround.privacy.books import Block
from wardround.protocol.ledger import Fact, Refuse
from wardround.protocol.tree import leaf_hash

LISTED_WHOLE: Final = 60
"""A period of at most so many entries is listed entry by entry."""

MOST_LINES: Final = 120
"""Entries of a longer period that are listed; the first and the last ones, where there are more that could be."""

MOST_REFUSALS: Final = 40
"""Reasons for a refusal, each with a plan, that are listed; the commonest ones."""

HIGHLIGHTED: Final = frozenset({"recover", "waive"})
"""Kinds that every auditor asks about: they are listed before any other."""

DECISIONS: Final = (
    frozenset({"open_ledger", "officers", "open_domain", "grant", "close", "set_clock", "suspend"}) | HIGHLIGHTED
)
"""Kinds that people decide; they are never many."""


def line_of(one: Dated, book: Book, size: int, blocks: Mapping[str, Block]) -> Line:
    """An entry with its proof under the first ``size`` entries of its ledger."""
    kind, content = one.fact.fact.kind, one.entry.content
    domain, plan = belongs(one.fact.fact, blocks)
    path = book.tree.inclusion(one.entry.number - 1, size)
    return Line(
        number=one.entry.number,
        at=one.at,
        kind=kind,
        domain=domain,
        plan=plan,
        content=None if kind in WITHHELD else content.decode(),
        leaf=leaf_hash(content).hex(),
        path=tuple(step.hex() for step in path),
    )


def belongs(fact: Fact, blocks: Mapping[str, Block]) -> tuple[str | None, str | None]:
    """(domain, plan) that a fact is about, by itself or by its block; None where there is none."""
    block = blocks.get(getattr(fact, "block", ""))
    domain: str | None = getattr(fact, "domain", None) or (block.domain if block else None)
    plan: str | None = getattr(fact, "plan", None) or (block.plan if block else None)
    return domain, plan


def listed(period: Sequence[Dated]) -> set[int]:
    """The numbers of the entries that are listed one by one: first and last always, and what people decided."""
    if len(period) <= LISTED_WHOLE:
        return {one.entry.number for one in period}
    first_and_last = {period[0].entry.number, period[-1].entry.number}
    high = [one.entry.number for one in period if one.fact.fact.kind in HIGHLIGHTED]
    rest = [one.entry.number for one in period if one.fact.fact.kind in DECISIONS - HIGHLIGHTED]
    chosen = _ends(high, MOST_LINES)
    return first_and_last | set(chosen) | set(_ends(rest, MOST_LINES - len(chosen)))


def runs_of(period: Sequence[Dated], singly: set[int]) -> tuple[Run, ...]:
    """What lies between the listed entries, counted by kind."""
    found: list[Run] = []
    waiting: list[Dated] = []
    for one in period:
        if one.entry.number not in singly:
            waiting.append(one)
        elif waiting:
            found.append(_run(waiting))
            waiting = []
    return (*found, *([_run(waiting)] if waiting else []))


def refusals_of(period: Iterable[Dated], studies: Mapping[str, str]) -> tuple[tuple[Refused, ...], int]:
    """(the commonest refusals by plan and reason, how many refusals are of none of these)."""
    by: dict[tuple[str, str], list[str]] = {}
    for one in period:
        fact = one.fact.fact
        if isinstance(fact, Refuse):
            by.setdefault((fact.plan, fact.reason), []).append(one.at)
    ordered = sorted(by.items(), key=lambda item: (-len(item[1]), item[1][0], item[0]))
    made = tuple(
        Refused(plan, studies.get(plan), reason, len(times), times[0], times[-1])
        for (plan, reason), times in ordered[:MOST_REFUSALS]
    )
    return made, sum(len(times) for _, times in ordered[MOST_REFUSALS:])


def kinds_of(period: Iterable[Dated]) -> dict[str, int]:
    """How many entries of each kind there are."""
    return dict(sorted(Counter(one.fact.fact.kind for one in period).items()))


def _run(entries: Sequence[Dated]) -> Run:
    first, last = entries[0], entries[-1]
    return Run(first.entry.number, last.entry.number, first.at, last.at, kinds_of(entries))


def _ends(numbers: Sequence[int], most: int) -> list[int]:
    if len(numbers) <= most:
        return list(numbers)
    half = max(0, most) // 2
    return [*numbers[:half], *numbers[len(numbers) - half :]]
