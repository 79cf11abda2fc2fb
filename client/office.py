"""What the people of a site may do beside a running daemon, and what they are shown. Knows no gRPC.

The office has a thread and a connection of its own, as SQLite wants it; the ledger serialises its writes with those of
the daemon. What an officer decides is a fact that the officer has signed: the office checks nothing of it that the
ledger does not check again.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from wardround.client.limits import unfit_here
from wardround.client.plugins.reading import plugin_of
from wardround.client.store.database import open_store
from wardround.client.store.folder import SiteFolder
from wardround.client.store.ledger import Ledger, time_of
from wardround.client.store.officers import Roll, roll_of
from wardround.client.store.studies import StoredStudy, Studies
from wardround.privacy.ledger import LedgerState
from wardround.protocol.errors import UsageError
from wardround.protocol.ledger import Close, Fact, Grant, Officers, OpenDomain, Refuse, SetClock, Suspend, Waive
from wardround.protocol.messages import Standing
from wardround.protocol.plan import StudyPlan

RECORDABLE: Final = (OpenDomain, Grant, Waive, Close, Officers, SetClock, Suspend)
"""The facts that people may append: each carries the signatures of officers."""

_FACT: Final = TypeAdapter[Any](Fact)
_T = TypeVar("_T")


class Daemon(Protocol):
    """What the office asks of the daemon; see ``client.daemon.SiteDaemon``."""

    def status(self) -> Any: ...
    def pause(self, reason: str) -> None: ...
    def resume(self) -> None: ...
    def stop(self) -> None: ...
    def interrupt(self, plan: str) -> None: ...
    def let(self, plan: str) -> None: ...
    def report(self, plan: StudyPlan, store: Any) -> str: ...


@dataclass(frozen=True, slots=True)
class GrantLine:
    """What an officer granted a plan on a domain, and how much of it is used."""

    domain: str
    version: int
    blocks: int
    used: int


@dataclass(frozen=True, slots=True)
class KeyLine:
    """An officer's key that was suspended, and when."""

    officer: str
    key: str
    reason: str
    at: str


@dataclass(frozen=True, slots=True)
class BudgetLine:
    """A data domain's budget, in units of 1e-12 at its order: what all studies have spent of what is there for ever."""

    domain: str
    spent: int
    allowance: int
    order: int


@dataclass(frozen=True, slots=True)
class BooksView:
    """The ledger in three figures. It counts entries and rounds; of patients it knows nothing."""

    entries: int
    rounds_charged: int
    budgets: tuple[BudgetLine, ...]


@dataclass(frozen=True, slots=True)
class StudyView:
    """A study as people see it. ``fault``: why the site's policy would not let it run, or "".

    ``waived``: the domains on which a waiver stands; ``suspended_by``: the keys for which it waits to be signed again.
    """

    plan: StudyPlan
    received_at: str
    standing: Standing
    refused: str
    fault: str
    rounds_charged: int
    ledger_key: str
    grants: tuple[GrantLine, ...]
    domains: tuple[str, ...]
    waived: tuple[str, ...]
    budgets: tuple[BudgetLine, ...]
    suspended_by: tuple[KeyLine, ...]


class Office:
    """The office of one site. Every method may be called from any thread and works on the office's own.

    ``ledger_key`` is what an officer's signature is bound to: the ledger's public key, 64 hex digits.
    """

    def __init__(self, folder: SiteFolder, daemon: Daemon) -> None:
        self._folder = folder
        self._daemon = daemon
        self.ledger_key = folder.identity().public.key.hex()
        self._desk = ThreadPoolExecutor(1, "office")
        self._store, self._ledger, self._studies = self._desk.submit(self._open).result()

    def _open(self) -> tuple[Any, Ledger, Studies]:
        store = open_store(self._folder.database)
        return store, Ledger(store, self._folder.site, self._folder.identity()), Studies(store)

    def close(self) -> None:
        self._desk.submit(self._ledger.close).result()
        self._desk.shutdown()

    def status(self) -> Any:
        return self._daemon.status()

    def pause(self, reason: str) -> None:
        """Answer no round until ``resume``. Raises UsageError without a reason."""
        if not reason.strip():
            raise UsageError("there is no reason", "say why: others will ask")
        self._daemon.pause(reason.strip()[:200])

    def resume(self) -> None:
        self._daemon.resume()

    def stop(self) -> None:
        self._daemon.stop()

    def studies(self) -> tuple[StudyView, ...]:
        """Every plan that was proposed here, the newest first."""
        return self._there(lambda: tuple(self._view(held) for held in self._studies.all()))

    def study(self, digest: str) -> StudyView:
        """One of them. Raises UsageError for one that was never proposed."""
        return self._there(lambda: self._view(self._held(digest)))

    def plugin(self, digest: str) -> tuple[str, ...]:
        """The plugin that a plan names, as an officer reads it; of a plan that names none: nothing.

        Raises:
            UsageError: it is not installed here, so nobody could read what would be approved.
        """

        def look() -> tuple[str, ...]:
            plan = self._held(digest).plan
            found = plugin_of(plan, self._folder.plugins, [self._view(held) for held in self._studies.all()])
            return () if found is None else tuple(found.lines())

        return self._there(look)

    @property
    def path(self) -> Path:
        """The site's folder."""
        return self._folder.path

    def books(self) -> BooksView:
        """How long the ledger is, and what is spent of each budget."""

        def look() -> BooksView:
            state = self._ledger.state
            return BooksView(self._ledger.entries, sum(state.charged.values()), _budgets(state))

        return self._there(look)

    def officers(self) -> Roll:
        """Every officer's key, how it stands, and what it has signed."""
        return self._there(lambda: roll_of(self._store, self._folder.site, self._ledger.state))

    def record(self, contents: list[bytes]) -> None:
        """Append facts that officers have signed, all or none.

        The work of a plan that is revoked, or that rests on a suspended key, stops at its next step.

        Facts of one kind are written together, so a disk that fills up can at most leave waivers without their grants,
        which let nothing run.

        Raises:
            UsageError: it is no such fact, or the ledger does not allow it: a signature is wrong or missing.
            Unavailable: it could not be written.
        """
        facts = [_fact(content) for content in contents]

        def append() -> None:
            self._rehearse(facts)
            waited = self._ledger.state.suspended_plans()
            for _, alike in groupby(facts, type):
                self._ledger.record(*alike)
            for fact in facts:
                if isinstance(fact, Grant):
                    (self._daemon.let if fact.blocks else self._daemon.interrupt)(fact.plan)
                    if fact.blocks and self._studies.get(fact.plan) is not None:
                        self._studies.refuse(fact.plan, None)
            waiting = self._ledger.state.suspended_plans()
            for plan in sorted(waiting):
                self._daemon.interrupt(plan)
            for plan in sorted(waited - waiting - self._revoked()):
                self._daemon.let(plan)

        self._there(append)

    def refuse(self, digest: str, reason: str) -> None:
        """Note that the site will not take part, and why; the coordinator learns that, and not why."""
        text = " ".join(reason.split())[:500]
        if not text:
            raise UsageError("there is no reason", "say why: the record will be read later")

        def note() -> None:
            self._held(digest)
            self._studies.refuse(digest, text)
            self._ledger.record(Refuse(plan=digest, round_number=0, reason=f"an officer refused the plan: {text}"))
            self._daemon.interrupt(digest)

        self._there(note)

    def report(self, digest: str) -> str:
        """The site's own report of a finished study, as JSON. It never leaves this machine by itself."""
        return self._there(lambda: self._daemon.report(self._held(digest).plan, self._store))

    def _rehearse(self, facts: list[Any]) -> None:
        """Play the facts on a copy of the books. Raises NotAllowed for the first that may not come next."""
        books = deepcopy(self._ledger.state)
        for fact in facts:
            books.check(fact)
            books.apply(fact)

    def _revoked(self) -> set[str]:
        return {plan for (plan, _), grant in self._ledger.state.grants.items() if not grant.fact.blocks}

    def _there(self, work: Callable[[], _T]) -> _T:
        return self._desk.submit(work).result()

    def _held(self, digest: str) -> StoredStudy:
        held = self._studies.get(digest)
        if held is None:
            raise UsageError("no such plan was proposed to this site", "wardround site study list names them")
        return held

    def _view(self, held: StoredStudy) -> StudyView:
        state, plan = self._ledger.state, held.plan
        gone = state.plan_suspended_by(plan.digest)
        grants = tuple(
            GrantLine(domain, grant.fact.version, grant.fact.blocks, grant.used)
            for (of, domain), grant in sorted(state.grants.items())
            if of == plan.digest
        )
        return StudyView(
            plan,
            held.received_at,
            standing_of(held, grants, bool(gone)),
            held.refused or "",
            unfit_here(plan, self._folder) or "",
            state.charged[plan.digest],
            self.ledger_key,
            grants,
            tuple(sorted(name for name, domain in state.domains.items() if not domain.closed)),
            tuple(
                sorted(at for (of, at), fact in state.waived.items() if of == plan.digest and not state.lacking(fact))
            ),
            _budgets(state),
            tuple(
                KeyLine(one.officer, one.key, one.reason, time_of(self._store, self._folder.site, one.entry))
                for one in gone
            ),
        )


def _budgets(state: LedgerState) -> tuple[BudgetLine, ...]:
    return tuple(
        BudgetLine(name, domain.spent, domain.allowance, domain.fact.order)
        for name, domain in sorted(state.domains.items())
        if domain.allowance is not None and domain.fact.order is not None
    )


def standing_of(held: StoredStudy, grants: tuple[GrantLine, ...], suspended: bool) -> Standing:
    """How a plan stands by what officers have signed; ``suspended``: it rests on a suspended key."""
    if held.refused is not None:
        return Standing.REFUSED
    if not grants:
        return Standing.PROPOSED
    if any(grant.blocks == 0 for grant in grants):
        return Standing.REVOKED
    return Standing.SUSPENDED if suspended else Standing.APPROVED


def _fact(content: bytes) -> Any:
    try:
        fact = _FACT.validate_json(content)
    except ValidationError:
        raise UsageError("this is no fact of a ledger", "use the same version of Wardround on both sides") from None
    if not isinstance(fact, RECORDABLE):
        raise UsageError(f"people may not append a fact of kind '{fact.kind}'", "the daemon writes it itself")
    return fact
