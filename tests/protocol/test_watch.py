"""The rules of gossip on ledgers, on trees and keys alone: what accuses whom, and what accuses nobody."""

from collections.abc import Iterable
from typing import Any

import pytest

from wardround.protocol.alarm import AlarmKind, parse_alarm, proven, raise_alarm
from wardround.protocol.bulletin import (
    MAX_BULLETIN_BYTES,
    MOST_PROOFS,
    PARTNERS,
    Statement,
    cycle,
    make_bulletin,
    make_statement,
    parse_bulletin,
    partners_of,
    witnesses_of,
)
from wardround.protocol.canonical import encode
from wardround.protocol.checkpoint import Checkpoint
from wardround.protocol.errors import ProtocolViolation
from wardround.protocol.identity import Identity
from wardround.protocol.tree import Tree
from wardround.protocol.watch import MOST_OF_A_KIND, MOST_OPEN, PATIENCE, Heard, Watch

NORTH, SOUTH, EAST = (Identity.generate(name) for name in ("north", "south", "east"))
PARTIES = {one.site: one.public for one in (NORTH, SOUTH, EAST)}
HONEST = Tree(b"entry %d" % n for n in range(40))
OTHER = Tree(b"entry %d" % n if n != 5 else b"another" for n in range(40))


class Rows:
    """A memory in a dictionary."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], bytes] = {}

    def get(self, kind: str, key: str) -> bytes | None:
        return self.rows.get((kind, key))

    def put(self, kind: str, key: str, content: bytes) -> None:
        self.rows[kind, key] = content

    def drop(self, kind: str, key: str) -> None:
        self.rows.pop((kind, key), None)

    def all(self, kind: str, under: str = "") -> list[tuple[str, bytes]]:
        return sorted((key, row) for (of, key), row in self.rows.items() if of == kind and key.startswith(under))


def at(minute: int) -> str:
    return f"2026-11-23T09:{minute:02d}:00Z"


def note(tree: Tree, size: int, *cosigners: Identity, author: Identity = NORTH) -> bytes:
    signed = Checkpoint(author.site, tree.head(size)).note().signed_by(author)
    for one in cosigners:
        signed = signed.signed_by(one)
    return signed.encode()


def statement(
    tree: Tree, size: int, minute: int, earlier: Iterable[int] = (), lost: Any = (), author: Identity = NORTH
) -> Statement:
    proofs = {one: tree.consistency(one, size) for one in earlier}
    return make_statement(author, at(minute), note(tree, size, author=author), proofs, lost)


def bulletin(said: Statement, heads: Iterable[bytes] = (), alarms: Iterable[bytes] = (), by: Identity = NORTH) -> bytes:
    return make_bulletin(by, said, list(heads), list(alarms))


def from_south(minute: int, *heads: bytes, alarms: Iterable[bytes] = ()) -> bytes:
    """What the witness south says: its own ledger grows by an entry a minute."""
    mine = statement(HONEST, minute + 1, minute, author=SOUTH)
    return bulletin(mine, heads, alarms, by=SOUTH)


@pytest.fixture
def east() -> Watch:
    return Watch(EAST, Rows(), lambda origin: None, lambda: at(59))


def kinds(heard: Heard) -> list[AlarmKind]:
    assert all(proven(alarm, PARTIES[alarm.origin]) for alarm in heard.alarms if alarm.kind is not AlarmKind.SILENCE)
    return [alarm.kind for alarm in heard.alarms]


def test_a_head_that_a_statement_proves_is_settled(east: Watch) -> None:
    assert kinds(east.hear(from_south(1, note(HONEST, 10, SOUTH)), PARTIES)) == []
    assert kinds(east.hear(bulletin(statement(HONEST, 20, 2, [10])), PARTIES)) == []
    assert not east._memory.all("head") and not east.alarms()


def test_a_head_that_does_not_fit_the_proof_is_a_fork_whichever_comes_first(east: Watch) -> None:
    east.hear(from_south(1, note(OTHER, 10, SOUTH)), PARTIES)
    assert kinds(east.hear(bulletin(statement(HONEST, 20, 2, [10])), PARTIES)) == [AlarmKind.FORK]
    again = Watch(EAST, Rows(), lambda origin: None, lambda: at(59))
    again.hear(bulletin(statement(HONEST, 20, 2, [10])), PARTIES)
    assert kinds(again.hear(from_south(3, note(OTHER, 10, SOUTH)), PARTIES)) == [AlarmKind.FORK]


def test_two_roots_of_one_size_are_a_fork(east: Watch) -> None:
    east.hear(from_south(1, note(HONEST, 10, SOUTH)), PARTIES)
    assert kinds(east.hear(from_south(2, note(OTHER, 10, SOUTH)), PARTIES)) == [AlarmKind.FORK]


def test_what_this_party_cosigned_is_compared_too() -> None:
    held = {"north": note(OTHER, 10, EAST)}
    east = Watch(EAST, Rows(), held.get, lambda: at(59))
    assert kinds(east.hear(bulletin(statement(HONEST, 20, 2, [10])), PARTIES)) == [AlarmKind.FORK]


def test_a_later_and_shorter_statement_is_a_rollback_and_a_late_one_is_not(east: Watch) -> None:
    east.hear(bulletin(statement(HONEST, 20, 2)), PARTIES)
    assert kinds(east.hear(bulletin(statement(HONEST, 12, 1)), PARTIES)) == [], "it was only late on its way"
    assert kinds(east.hear(bulletin(statement(HONEST, 15, 3)), PARTIES)) == [AlarmKind.ROLLBACK]


def test_a_recovery_that_names_the_lost_head_answers_and_one_that_names_another_does_not(east: Watch) -> None:
    lost, another = HONEST.head(20), HONEST.head(19)
    east.hear(bulletin(statement(HONEST, 20, 2)), PARTIES)
    east.hear(bulletin(statement(HONEST, 15, 3)), PARTIES)
    east.hear(bulletin(statement(OTHER, 16, 4, lost=[(another.size, another.root.hex())])), PARTIES)
    assert [alarm.kind for alarm in east.open_alarms()] == [AlarmKind.ROLLBACK]
    east.hear(bulletin(statement(OTHER, 17, 5, lost=[(lost.size, lost.root.hex())])), PARTIES)
    assert not east.open_alarms() and len(east.alarms()) == 1, "answered, and kept"


def test_silence_about_a_head_counts_statements_and_ends_when_it_is_proved(east: Watch) -> None:
    east.hear(from_south(1, note(HONEST, 10, SOUTH)), PARTIES)
    for minute in range(2, 2 + PATIENCE - 1):
        assert kinds(east.hear(bulletin(statement(HONEST, 20 + minute, minute)), PARTIES)) == []
    assert kinds(east.hear(bulletin(statement(HONEST, 30, 20)), PARTIES)) == [AlarmKind.SILENCE]
    assert not proven(east.alarms()[0], NORTH.public)
    east.hear(bulletin(statement(HONEST, 31, 21, [10])), PARTIES)
    assert not east.open_alarms()


def test_a_head_of_ones_own_ledger_is_handed_back_and_proved_from_then_on(east: Watch) -> None:
    heard = east.hear(from_south(1, note(HONEST, 10, SOUTH, author=EAST)), PARTIES)
    assert heard.own == [(HONEST.head(10), "south")] and east.own_sizes() == [10]


def test_sizes_that_others_hold_are_remembered_by_when_they_were_heard(east: Watch) -> None:
    for size in range(100, 200):
        east.remember(size, 4)
    east.remember(3, 4)
    assert east.own_sizes() == [3, *range(193, 200)], "two cycles and six more"


def test_a_bulletin_of_who_is_offline_is_taken_once(east: Watch) -> None:
    """A carrier brings the last one again and again; its heads are as old as it is."""
    old = from_south(1, note(HONEST, 10, SOUTH))
    east.hear(old, PARTIES)
    east.hear(bulletin(statement(HONEST, 20, 2, [10])), PARTIES)
    for minute in range(3, 3 + 2 * PATIENCE):
        east.hear(old, PARTIES)
        east.hear(bulletin(statement(HONEST, 20 + minute, minute)), PARTIES)
    assert not east.alarms()


def test_an_alarm_is_taken_for_its_evidence_and_never_for_its_word(east: Watch) -> None:
    good = raise_alarm(AlarmKind.FORK, "north", note(HONEST, 9).decode(), note(OTHER, 9).decode(), at(1), SOUTH)
    honest, before = statement(HONEST, 20, 2, [10]), statement(HONEST, 12, 1)
    framed = [
        raise_alarm(AlarmKind.FORK, "north", note(HONEST, 10).decode(), note(HONEST, 11).decode(), at(1), SOUTH),
        raise_alarm(AlarmKind.FORK, "north", note(HONEST, 10).decode(), honest.canonical.decode(), at(1), SOUTH),
        raise_alarm(AlarmKind.FORK, "north", note(HONEST, 11).decode(), honest.canonical.decode(), at(1), SOUTH),
        raise_alarm(
            AlarmKind.FORK, "north", note(OTHER, 9, author=SOUTH).decode(), note(HONEST, 9).decode(), at(1), SOUTH
        ),
        raise_alarm(AlarmKind.ROLLBACK, "north", honest.canonical.decode(), honest.canonical.decode(), at(1), SOUTH),
        raise_alarm(AlarmKind.ROLLBACK, "north", honest.canonical.decode(), before.canonical.decode(), at(1), SOUTH),
        raise_alarm(AlarmKind.SILENCE, "north", "proof", at(1), at(1), SOUTH),
        good.model_copy(update={"by": "east"}),
        good.model_copy(update={"origin": "south"}),
    ]
    for alarm in framed:
        assert kinds(east.hear(from_south(2, alarms=[alarm.canonical]), PARTIES)) == [], alarm
    assert kinds(east.hear(from_south(3, alarms=[good.canonical]), PARTIES)) == [AlarmKind.FORK]
    assert [parse_alarm(content, "east").by for content in east.to_pass_on()] == ["south"]


def test_a_bulletin_from_which_something_was_left_out_or_that_is_signed_by_another_is_refused(east: Watch) -> None:
    whole = parse_bulletin(from_south(1, note(OTHER, 10, SOUTH)), "south")
    stripped = whole.model_copy(update={"heads": ()}).canonical
    other = bulletin(whole.statement, by=NORTH)
    forged = make_statement(SOUTH, at(1), note(HONEST, 3), {})
    for content in (
        stripped,
        other,
        bulletin(forged, by=SOUTH),
        b" " + whole.canonical,
        b"{}",
        b"x" * (MAX_BULLETIN_BYTES + 1),
    ):
        with pytest.raises(ProtocolViolation):
            east.hear(content, PARTIES)
    assert not east._memory.all("statement")
    with pytest.raises(ProtocolViolation, match="roster"):
        east.hear(from_south(1), {"north": NORTH.public})


def test_a_bulletin_that_is_brought_again_does_not_end_silence(east: Watch) -> None:
    old = from_south(1)
    east.hear(old, PARTIES)
    raised = [east.missed("bulletin", "south", 3) for _ in range(3) if east.hear(old, PARTIES) is not None]
    assert [alarm is not None for alarm in raised] == [False, False, True]
    east.hear(from_south(2), PARTIES)
    assert not east.open_alarms()


def test_what_is_kept_has_a_bound_whatever_is_sent(east: Watch) -> None:
    minute = 0
    for size in range(1, 40):
        for tree in (HONEST, OTHER):
            minute += 1
            said = make_statement(
                SOUTH, f"2026-11-23T{minute // 60:02d}:{minute % 60:02d}:00Z", note(HONEST, 39, author=SOUTH), {}
            )
            east.hear(make_bulletin(SOUTH, said, [note(tree, size, SOUTH)], []), PARTIES)
    assert len(east._memory.all("head")) <= MOST_OPEN
    assert len(east.alarms()) == MOST_OF_A_KIND
    long = Tree(b"entry %d" % n for n in range(2_000))
    many = make_statement(NORTH, at(1), note(long, 2_000), {n: long.consistency(n, 2_000) for n in range(1_900, 2_000)})
    assert len(many.earlier) == MOST_PROOFS and len(many.canonical) < 16_000
    assert many.proves(long.head(1_999), long.head(2_000)) and many.proves(long.head(1_900), long.head(2_000)) is None


def test_a_head_that_was_made_long_on_its_way_is_kept_short(east: Watch) -> None:
    strangers = [Identity.generate(f"stranger-{n}") for n in range(60)]
    east.hear(from_south(1, note(HONEST, 10, SOUTH, *strangers)), PARTIES)
    ((_, row),) = east._memory.all("head")
    assert len(row) < 500


@pytest.mark.parametrize("sites", [3, 4, 10, 50, 100])
def test_everybody_witnesses_and_hears_everybody_in_turn(sites: int) -> None:
    names = [f"site-{n:03d}" for n in range(sites)]
    count = (sites - 1) // 3 + 1
    turns = -(-(sites - 1) // count)
    for start in (1, 7):
        for site in (names[0], names[-1]):
            asked = [witnesses_of(site, names, start + step, count) for step in range(turns)]
            assert {name for one in asked for name in one} == set(names) - {site}
            assert all(len(set(one)) == min(count, sites - 1) for one in asked)
            heard = [partners_of(site, names, start + step) for step in range(cycle(sites))]
            assert {name for one in heard for name in one} == set(names) - {site}
            assert all(len(one) <= PARTNERS for one in heard)


def test_the_order_in_which_names_are_given_steers_nobody() -> None:
    names = [f"site-{n}" for n in range(7)]
    assert witnesses_of("site-3", names, 5, 2) == witnesses_of("site-3", reversed(names), 5, 2)


def test_no_field_of_a_bulletin_can_hold_a_text_of_people() -> None:
    """Sizes, roots, times, names of sites, signatures; nothing else has a place."""
    fields = set(Statement.model_fields) | {"heads", "alarms"}
    assert fields == {"format", "site", "at", "note", "hashes", "earlier", "recovered", "signature", "heads", "alarms"}
    body = statement(HONEST, 20, 2, [10]).model_dump(mode="json") | {"reason": "free text"}
    with pytest.raises(ProtocolViolation):
        parse_bulletin(encode({"statement": body, "heads": [], "alarms": [], "signature": "00" * 64}), "north")
