"""What the page of officers' keys shows: each key, how it stands, and what waits to be signed again."""

from dataclasses import dataclass

from wardround.client.store.officers import Effect, OfficerKey, roll_of
from wardround.client.store.studies import Studies
from wardround.console.web.queries.site import SiteQueries


@dataclass(frozen=True, slots=True)
class WaitingStudy:
    """A plan that rests on a suspended key; ``study`` and ``title`` are "" where it was never proposed here."""

    digest: str
    study: str
    title: str


@dataclass(frozen=True, slots=True)
class KeyLine:
    """A key, the plans whose approval by it stands now, and those that wait because of it."""

    officer: OfficerKey
    approvals: int
    waiting: int


@dataclass(frozen=True, slots=True)
class OfficersView:
    """``domains``: those whose budget waits to be signed again; ``titles``: of the studies, by digest."""

    keys: tuple[KeyLine, ...]
    domains: tuple[str, ...]
    waiting: tuple[WaitingStudy, ...]
    titles: dict[str, str]

    @property
    def able(self) -> int:
        return sum(line.officer.may_sign for line in self.keys)


def officers(queries: SiteQueries) -> OfficersView:
    """The view now. Raises WardroundError when the ledger cannot be read."""
    with queries.ledger.read() as (books, store):
        roll = roll_of(store, queries.folder.site, books.state)
        held = {study.digest: study.plan for study in Studies(store).all()}
    titles = {digest: plan.title for digest, plan in held.items()}
    waiting = tuple(
        WaitingStudy(digest, held[digest].study if digest in held else "", titles.get(digest, ""))
        for digest in roll.waiting
    )
    domains = {
        one.domain for key in roll.keys for one in key.with_effect(Effect.SUSPENDED) if one.kind == "open_domain"
    }
    return OfficersView(tuple(_line(key) for key in roll.keys), tuple(sorted(domains)), waiting, titles)


def _line(key: OfficerKey) -> KeyLine:
    stand = {one.plan for one in key.with_effect(Effect.STANDS) if one.kind == "grant"}
    wait = {one.plan for one in key.with_effect(Effect.SUSPENDED) if one.plan}
    return KeyLine(key, len(stand), len(wait))
