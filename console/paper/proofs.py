"""Whether the entries on a paper are where they are said to be, and say what is printed."""

from collections import Counter
from collections.abc import Iterable, Iterator

from pydantic import ValidationError

from wardround.console.paper.excerpt import belongs
from wardround.console.paper.model import WITHHELD, About, Audit, Line, Paper, Run
from wardround.protocol.entry import DatedFact, content_bytes, parse_content
from wardround.protocol.identity import PublicIdentity
from wardround.protocol.ledger import Approved, Grant, Waive, approval_message
from wardround.protocol.tree import Head, leaf_hash, verify_leaf


def wrong_entries(paper: Paper, head: Head) -> list[str]:
    """Every fault of the listed entries, a sentence each, under ``head``; empty when all hold."""
    faults = [fault for line in _lines(paper) for fault in _wrong(line, head, paper.key)]
    if paper.about is not None:
        faults += _wrong_approvals(paper.about)
    if paper.audit is not None:
        faults += _wrong_period(paper.audit, head)
    return faults


def _lines(paper: Paper) -> Iterator[Line]:
    if paper.about is not None:
        yield from paper.about.approvals
    if paper.audit is not None:
        yield from paper.audit.lines
        if paper.audit.period.before is not None:
            yield paper.audit.period.before


def _wrong(line: Line, head: Head, ledger_key: str) -> Iterator[str]:
    leaf = bytes.fromhex(line.leaf)
    if not verify_leaf(leaf, line.number - 1, [bytes.fromhex(step) for step in line.path], head):
        yield f"entry {line.number} is not in the ledger of the checkpoint"
    if line.content is None:
        if line.kind not in WITHHELD:
            yield f"entry {line.number} hides what it says"
        return
    content = line.content.encode()
    if leaf_hash(content) != leaf:
        yield f"entry {line.number} says something else than the ledger"
        return
    try:
        dated = parse_content(content)
    except ValidationError:
        yield f"entry {line.number} is of a kind that this version does not know"
        return
    yield from _misprinted(line, dated, content)
    yield from _unsigned(line, dated, ledger_key)


def _misprinted(line: Line, dated: DatedFact, content: bytes) -> Iterator[str]:
    """What is printed beside the content must be what the content says; a block's domain and plan are not in it."""
    fact = dated.fact
    domain, plan = belongs(fact, {})
    said = (line.at, line.kind)
    named = (domain is None or line.domain == domain) and (plan is None or line.plan == plan)
    if said != (dated.at, fact.kind) or not named or content_bytes(dated.at, fact) != content:
        yield f"entry {line.number} is printed with another time, kind, domain or plan than it has"


def _unsigned(line: Line, dated: DatedFact, ledger_key: str) -> Iterator[str]:
    """An officer's signature must hold with the key that stands beside it."""
    fact = dated.fact
    if isinstance(fact, Approved):
        message = approval_message(ledger_key, fact)
        for one in fact.approvals:
            officer = PublicIdentity(one.officer, bytes.fromhex(one.key))
            if not officer.verifies(bytes.fromhex(one.signature), message):
                yield f"entry {line.number} is not signed by '{one.officer}'"


def _wrong_approvals(about: About) -> Iterator[str]:
    """The granted blocks must be those of the last grant on each domain."""
    last: dict[str, Grant] = {}
    for line in about.approvals:
        fact = None if line.content is None else parse_content(line.content.encode()).fact
        if not isinstance(fact, Grant | Waive) or fact.plan != about.digest:
            yield f"entry {line.number} is no approval of this plan"
        elif isinstance(fact, Grant) and fact.version >= (last[fact.domain].version if fact.domain in last else 0):
            last[fact.domain] = fact
    said = {one.domain: (one.event, one.blocks) for one in about.granted}
    if said != {domain: (grant.event, grant.blocks) for domain, grant in last.items()}:
        yield "what officers approved is not what their entries say"


def _wrong_period(audit: Audit, head: Head) -> Iterator[str]:
    """Lines and runs must be every entry of the period once, in order of time, up to the checkpoint."""
    period, expected, at = audit.period, audit.period.first, ""
    counts: Counter[str] = Counter()
    for part in in_order(audit.lines, audit.runs):
        first, last = (part.number, part.number) if isinstance(part, Line) else (part.first, part.last)
        kinds = {part.kind: 1} if isinstance(part, Line) else part.kinds
        if first != expected or sum(kinds.values()) != last - first + 1:
            yield f"the excerpt has a gap or a double entry at {first}"
            return
        counts.update(kinds)
        expected = last + 1
        at = at or (part.at if isinstance(part, Line) else part.first_at)
    if counts != Counter(audit.kinds):
        yield "the numbers of entries by kind are not those of the excerpt"
    if period.first and (expected - 1 != period.last or period.last != head.size):
        yield "the excerpt does not reach the end of the ledger at the checkpoint"
    before = period.before
    if (before.number if before else 0) != (period.first - 1 if period.first else head.size):
        yield "the entry before the period is missing"
    elif before is not None and before.at >= f"{period.since}T00:00:00Z":
        yield "the period began before the excerpt does"
    if period.first and (
        not audit.lines or audit.lines[-1].number != period.last or audit.lines[0].number != period.first
    ):
        yield "the first or the last entry of the period is not proved"


def in_order(lines: Iterable[Line], runs: Iterable[Run]) -> list[Line | Run]:
    """Lines and runs by their numbers."""
    return sorted((*lines, *runs), key=lambda part: part.number if isinstance(part, Line) else part.first)
