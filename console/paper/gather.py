"""A paper's content from a site's folder: read only, without a network, without the daemon and without torch.

Nothing is computed that the ledger's own rules and the accountant do not say; nothing of a patient is read.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.metadata import version

from wardround.client.store.database import open_copy
from wardround.client.store.folder import SiteFolder
from wardround.client.store.ledger import utc_now
from wardround.client.store.studies import StoredStudy, Studies
from wardround.console.paper.excerpt import kinds_of, line_of, listed, refusals_of, runs_of
from wardround.console.paper.model import About, Anchor, Audit, Former, Kind, Line, Paper, Period, Witnessed
from wardround.console.paper.reading import Book, Dated, read_book
from wardround.console.paper.spending import budgets_of, granted_of, in_order, left_of, spendings_of
from wardround.protocol.behaviour import behaviour
from wardround.protocol.checkpoint import Checkpoint, verify
from wardround.protocol.errors import ProtocolViolation, UsageError
from wardround.protocol.identity import Identity, PublicIdentity
from wardround.protocol.ledger import Countersign, Grant, Waive
from wardround.protocol.secagg import colluding

LIBRARIES = ("dp-accounting", "fonttools", "fpdf2", "jinja2", "matplotlib", "segno")
"""What figures and the bytes of a page depend on besides our own code."""


@dataclass(frozen=True, slots=True)
class Source:
    """A site's folder as read once: its ledger, the plans that it keeps, and its name and key."""

    identity: Identity
    book: Book
    studies: tuple[StoredStudy, ...]

    @property
    def names(self) -> dict[str, str]:
        """The names of studies by their plans' digests."""
        return {one.digest: one.plan.study for one in self.studies}


def read_source(folder: SiteFolder) -> Source:
    """Read ``folder``. Raises UsageError when its ledger is broken or another key's, Unavailable when unreadable."""
    identity, book = folder.identity(), read_book(folder.database, folder.site)
    if identity.public.key.hex() != book.key:
        raise UsageError(
            f"the ledger of site '{folder.site}' was begun with another key", "use the key that lies in the folder"
        )
    with closing(open_copy(folder.database)) as store:
        return Source(identity, book, Studies(store).all())


def statement(
    source: Source,
    wanted: str,
    *,
    kind: Kind = Kind.STATEMENT,
    language: str = "en",
    clock: Callable[[], datetime] = utc_now,
) -> Paper:
    """The privacy statement of a study at this site, or its DPIA annex, which says the same and the budgets.

    Raises:
        UsageError: no study ``wanted``, a name or the beginning of a digest, was proposed to this site.
    """
    book, study = source.book, _named(source.studies, wanted)
    size = len(book.entries)
    state, plan = book.state(size), study.plan
    c = colluding(len(plan.participants))
    domains = sorted({domain for of, domain in state.grants if of == study.digest}, key=in_order)
    about = About(
        plan=plan,
        digest=study.digest,
        received_at=study.received_at,
        refused=study.refused is not None,
        approvals=tuple(line_of(one, book, size, state.blocks) for one in book.entries if _signs(one, study.digest)),
        granted=granted_of(state, study.digest, c),
        spendings=tuple(
            one for name in domains for one in spendings_of(state, name, book.entries, source.names, c, study.digest)
        ),
        left=left_of(book.entries, state, study.digest),
        budgets=budgets_of(state, book.entries, source.names, domains) if kind is Kind.DPIA else (),
    )
    return _paper(source, kind, size, language, clock, about=about)


def audit_report(
    source: Source,
    since: date,
    until: date,
    *,
    former: bytes | None = None,
    language: str = "en",
    clock: Callable[[], datetime] = utc_now,
) -> Paper:
    """The audit report of the days ``since`` to ``until`` (UTC, both within).

    Args:
        former: the checkpoint of the report before, as it was signed; the new one must continue it.

    Raises:
        UsageError: the period is turned round or nothing was written up to its end, or the ledger does not continue
            ``former``.
    """
    if until < since:
        raise UsageError("the period ends before it begins", "give --from the earlier day")
    book = source.book
    size = book.until(f"{until.isoformat()}T23:59:59Z")
    if size == 0:
        raise UsageError(f"the ledger was begun after {until.isoformat()}", "choose a later period")
    begin = book.until_before(f"{since.isoformat()}T00:00:00Z")
    period: Sequence[Dated] = book.entries[begin:size]
    state = book.state(size)
    singly = listed(period)
    refusals, more = refusals_of(period, source.names)
    budgets = budgets_of(state, period, source.names)
    lines = tuple(line_of(one, book, size, state.blocks) for one in period if one.entry.number in singly)
    before: Line | None = line_of(book.entries[begin - 1], book, size, state.blocks) if begin else None
    spoken = {one.plan for one in lines if one.plan} | {one.plan for budget in budgets for one in budget.spendings}
    audit = Audit(
        period=Period(since.isoformat(), until.isoformat(), begin + 1 if period else 0, size if period else 0, before),
        budgets=budgets,
        kinds=kinds_of(period),
        lines=lines,
        runs=runs_of(period, singly),
        refusals=refusals,
        more_refusals=more,
        studies={digest: name for digest, name in sorted(source.names.items()) if digest in spoken},
    )
    return _paper(source, Kind.AUDIT, size, language, clock, former=former, audit=audit)


def _paper(
    source: Source,
    kind: Kind,
    size: int,
    language: str,
    clock: Callable[[], datetime],
    *,
    former: bytes | None = None,
    about: About | None = None,
    audit: Audit | None = None,
) -> Paper:
    return Paper(
        kind=kind,
        site=source.book.site,
        key=source.book.key,
        made_at=clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        language=language,
        software=software(),
        anchor=_anchor(source, size, former),
        about=about,
        audit=audit,
    )


def software() -> dict[str, str]:
    """The versions of this installation that a page depends on."""
    return {"behaviour": behaviour(), "wardround": version("wardround")} | {name: version(name) for name in LIBRARIES}


def _anchor(source: Source, size: int, former: bytes | None) -> Anchor:
    tree, site = source.book.tree, source.book.site
    note = Checkpoint(site, tree.head(size)).note().signed_by(source.identity).encode().decode()
    return Anchor(note, _witnesses(source.book, size), None if former is None else _former(source, size, former))


def _witnesses(book: Book, size: int) -> tuple[Witnessed, ...]:
    """Of each witness the signature that says most of the first ``size`` entries.

    That is the earliest over at least so many, which covers all of them, or else the latest over fewer.
    """
    best: dict[tuple[str, str], Countersign] = {}
    for one in book.entries:
        fact = one.fact.fact
        if isinstance(fact, Countersign):
            held = best.get((fact.signer, fact.key))
            if held is None or _says_more(fact.size, held.size, size):
                best[fact.signer, fact.key] = fact
    return tuple(
        Witnessed(
            fact.signer,
            fact.key,
            fact.size,
            fact.root,
            fact.signature,
            tuple(step.hex() for step in book.tree.consistency(*sorted((fact.size, size)))),
        )
        for _, fact in sorted(best.items())
    )


def _says_more(new: int, held: int, size: int) -> bool:
    if new >= size and held >= size:
        return new < held
    return new > held


def _former(source: Source, size: int, former: bytes) -> Former:
    log = PublicIdentity(source.book.site, source.identity.public.key)
    try:
        head = verify(former, log).checkpoint.head
    except ProtocolViolation as error:
        why = f"the former checkpoint is not this site's: {error.message}"
        raise UsageError(why, "take it from the former report, byte for byte") from error
    tree = source.book.tree
    if head.size > size or tree.head(head.size) != head:
        raise UsageError(
            "the ledger does not continue the former report's checkpoint",
            "it was put back to an older copy, or the former report is of a later day: show both to the officers",
        )
    return Former(former.decode(), tuple(step.hex() for step in tree.consistency(head.size, size)))


def _signs(one: Dated, plan: str) -> bool:
    fact = one.fact.fact
    return isinstance(fact, Grant | Waive) and fact.plan == plan


def _named(studies: Sequence[StoredStudy], wanted: str) -> StoredStudy:
    """The one study that is meant. A paper is for people who cannot ask back, so a name of two plans is refused."""
    found = [one for one in studies if one.plan.study == wanted]
    found += [one for one in studies if len(wanted) >= 6 and one.digest.startswith(wanted) and one not in found]
    if len(found) != 1:
        known = ", ".join(f"{one.plan.study} ({one.digest[:12]})" for one in studies) or "none"
        raise UsageError(f"{len(found)} plans are meant by that name", f"give the digest; known here: {known}")
    return found[0]
