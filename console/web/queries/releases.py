"""What left this site, as the ledger says, beside the receipts that others have signed for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from sqlite3 import Connection

from wardround.client.store.evidence import Evidence, Exhibit
from wardround.console.web.queries.leaving import Sent
from wardround.console.web.queries.ledger import Books, LedgerReader
from wardround.console.web.queries.paging import Part, newest
from wardround.console.web.queries.plans import PlanFacts, Plans
from wardround.console.web.queries.receipts import Verdict, Verifier
from wardround.protocol.errors import ProtocolViolation
from wardround.protocol.identity import PublicIdentity
from wardround.protocol.receipt import FIRST, parse_receipt

GCM_TAG = 16
"""Bytes that a stored answer is longer than the answer."""


@dataclass(frozen=True, slots=True)
class SentLine:
    """An answer that left. ``bytes_kept``: length of the answer before masks, or None where it is not stored.

    ``listed`` and ``opened``: numbers of the entries in which the site signed the list of a sum and helped to open it.
    """

    number: int
    numbers: tuple[int, ...]
    at: str
    plan: PlanFacts
    round_number: int
    attempt: int
    content: str
    domains: tuple[str, ...]
    bytes_kept: int | None
    listed: tuple[int, ...]
    opened: tuple[int, ...]
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class ReleasesView:
    """A page of what left. ``studies``: those of which anything left, and how often; ``chosen``: the filter's plan."""

    sent: Part[SentLine]
    studies: tuple[tuple[PlanFacts, int], ...]
    chosen: str
    receipts: int
    sums_opened: int
    first_at: str
    last_at: str
    exhibits: tuple[Exhibit, ...]


@dataclass(frozen=True, slots=True)
class ReleaseDetail:
    """One answer with all of its receipt. ``before``: the round of the receipt that it follows, 0 for the first.

    ``before`` None: that receipt is not held here. ``content``: the stored bytes.
    """

    sent: SentLine
    before: int | None
    receipt_content: bytes | None


class ReleaseQueries:
    """Reads one site's ledger and receipts. Every method raises WardroundError as the ledger does."""

    def __init__(self, site: str, ledger: LedgerReader, plans: Plans) -> None:
        self._site = site
        self._ledger = ledger
        self._plans = plans

    def view(self, chosen: str, page: int) -> ReleasesView:
        """A page of what left, of the plan ``chosen`` or ("") of all."""
        with self._ledger.read() as (books, store):
            leaving = books.leaving
            every = leaving.of_plan.get(chosen, []) if chosen else leaving.sent
            part = newest(every, page)
            where, values = ("WHERE plan = ?", (chosen,)) if chosen else ("", ())
            (receipts,) = store.execute(f"SELECT count(*) FROM receipts {where}", values).fetchone()
            opened = sum(not chosen or plan == chosen for plan, _, _ in leaving.opened)
            return ReleasesView(
                sent=part.with_items(self._lines(books, store, part.items)),
                studies=tuple((self._plans.of(store, plan), len(sent)) for plan, sent in leaving.of_plan.items()),
                chosen=chosen if chosen in leaving.of_plan else "",
                receipts=receipts,
                sums_opened=opened,
                first_at=every[0].at if every else "",
                last_at=every[-1].at if every else "",
                exhibits=Evidence(store, self._site).all(),
            )

    def release(self, number: int) -> ReleaseDetail | None:
        """The answer whose first entry has this number, or None."""
        with self._ledger.read() as (books, store):
            sent = books.leaving.by_number.get(number)
            if sent is None:
                return None
            (line,) = self._lines(books, store, [sent])
            return ReleaseDetail(line, _before(store, line), _content(store, sent))

    def _lines(self, books: Books, store: Connection, sent: Sequence[Sent]) -> list[SentLine]:
        opened = books.state.opened
        assert opened is not None
        verifier = Verifier(store, PublicIdentity(self._site, bytes.fromhex(opened.key or "")))
        found = []
        for one in sent:
            verdict = verifier.verdict(_content(store, one), *one.attempted, released=True)
            leaving = books.leaving
            found.append(
                SentLine(
                    number=one.numbers[0],
                    numbers=tuple(one.numbers),
                    at=one.at,
                    plan=self._plans.of(store, one.plan),
                    round_number=one.round_number,
                    attempt=one.attempt,
                    content=one.content,
                    domains=tuple(one.domains),
                    bytes_kept=_bytes_kept(store, self._site, one),
                    listed=tuple(leaving.signed.get(one.attempted, ())),
                    opened=tuple(leaving.opened.get(one.attempted, ())),
                    verdict=verdict,
                )
            )
        return found


def _content(store: Connection, sent: Sent) -> bytes | None:
    row = store.execute(
        "SELECT content FROM receipts WHERE plan = ? AND round_number = ? AND attempt = ?", sent.attempted
    ).fetchone()
    return None if row is None else bytes(row[0])


def _bytes_kept(store: Connection, site: str, sent: Sent) -> int | None:
    """The length of the answer as the site keeps it, which is that of what left where nothing is masked."""
    row = store.execute(
        "SELECT length(sealed) FROM replies WHERE site = ? AND plan = ? AND round_number = ? AND attempt = ?",
        (site, *sent.attempted),
    ).fetchone()
    return None if row is None else int(row[0]) - GCM_TAG


def _before(store: Connection, line: SentLine) -> int | None:
    """The round of the receipt that this one names as its predecessor."""
    receipt = line.verdict.receipt
    if receipt is None:
        return None
    if receipt.previous == FIRST:
        return 0
    rows = store.execute(
        "SELECT content FROM receipts WHERE plan = ? AND round_number <= ? ORDER BY round_number DESC, attempt DESC "
        "LIMIT 20",
        (line.plan.digest, line.round_number),
    )
    for (content,) in rows:
        try:
            before = parse_receipt(bytes(content))
        except ProtocolViolation:
            continue
        if before.digest == receipt.previous:
            return before.round_number
    return None
