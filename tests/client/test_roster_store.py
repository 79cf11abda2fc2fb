"""The roster that a site holds: pinned once, followed epoch by epoch, never back, whatever process asks."""

import sqlite3
from datetime import date
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest

from wardround.client.store.database import open_store
from wardround.client.store.roster import PinnedRoster
from wardround.protocol.errors import ProtocolViolation, UsageError
from wardround.protocol.identity import Identity
from wardround.protocol.roster import Roster, TwoRosters

NORTH, SOUTH, WEST, CARRIER = (Identity.generate(name) for name in ("north", "south", "west", "carrier"))
ANNA, BEN, CARL = (Identity.generate(name) for name in ("anna", "ben", "carl"))
TODAY = date(2026, 11, 23)


def party(identity: Identity) -> dict[str, Any]:
    owner = {"legal_entity": f"{identity.site} trust", "controlling_authority": f"{identity.site} county"}
    about = {"site": identity.site, "key": identity.public.key.hex()}
    return about | owner | {"valid_from": date(2026, 1, 1), "valid_until": date(2027, 12, 31)}


def make(behind: Roster | None = None, officers: tuple[Identity, ...] = (ANNA, BEN), **changes: Any) -> Roster:
    """Epoch 1, or the epoch after ``behind``."""
    owner = {"legal_entity": "Carrier", "controlling_authority": "Carrier", "key": CARRIER.public.key.hex()}
    keys = {officer.site: officer.public.key.hex() for officer in (ANNA, BEN, CARL)}
    chain = {"epoch": 1, "previous": None}
    if behind is not None:
        chain = {"epoch": behind.epoch + 1, "previous": behind.digest}
    fields = {
        "consortium": "Hearts",
        "issued": date(2026, 11, 1),
        "expires": date(2027, 10, 31),
        "coordinator": owner,
        "parties": [party(NORTH), party(SOUTH), party(WEST)],
        "governance": {"m": 2, "keys": keys},
    }
    roster = Roster.model_validate(fields | chain | changes)
    for officer in officers:
        roster = roster.signed_by(officer)
    return roster


FIRST = make()
SECOND = make(FIRST, parties=[party(NORTH), party(SOUTH)])
THIRD = make(SECOND)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def at(path: Path, site: Identity = NORTH) -> PinnedRoster:
    """What a new process of the site holds."""
    return PinnedRoster(open_store(path), site.public)


@pytest.fixture
def pinned(path: Path) -> PinnedRoster:
    roster = at(path)
    roster.pin(FIRST.canonical, FIRST.fingerprint)
    return roster


def test_nothing_is_held_before_something_is_pinned(path: Path) -> None:
    assert at(path).held() is None
    for call in (lambda: at(path).advance(FIRST.canonical), lambda: at(path).members(["north"], TODAY)):
        with pytest.raises(UsageError, match="holds no roster yet"):
            call()
    assert at(path).held() is None


def test_what_was_pinned_and_followed_survives_a_restart(path: Path, pinned: PinnedRoster) -> None:
    assert at(path).held() == FIRST
    pinned.advance(SECOND.canonical)
    assert at(path).held() == SECOND
    at(path).advance(THIRD.canonical)
    assert pinned.held() == THIRD


def test_a_later_epoch_can_be_the_first_that_a_site_holds(path: Path) -> None:
    at(path).pin(SECOND.canonical, SECOND.fingerprint)
    assert at(path).advance(THIRD.canonical) == THIRD


@pytest.mark.parametrize(
    ("roster", "fingerprint", "error", "why"),
    [
        (make(expires=date(2027, 1, 1)), FIRST.digest, ProtocolViolation, "another roster than the officers agreed"),
        (make(officers=(ANNA,)), FIRST.digest, ProtocolViolation, "it needs 2"),
        (FIRST, FIRST.digest[:32], UsageError, "64 hex digits"),
        (make(parties=[party(SOUTH), party(WEST)]), None, ProtocolViolation, "'north' is not among"),
        (make(parties=[party(Identity.generate("north"))]), None, ProtocolViolation, "another key than it has"),
    ],
    ids=["another fingerprint", "one officer of two", "half a fingerprint", "north is absent", "another key of north"],
)
def test_a_roster_that_may_not_be_pinned_leaves_nothing(
    path: Path, roster: Roster, fingerprint: str | None, error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        at(path).pin(roster.canonical, fingerprint or roster.digest)
    assert at(path).held() is None


def test_pinning_is_done_once(path: Path, pinned: PinnedRoster) -> None:
    other = make(expires=date(2027, 1, 1))
    assert pinned.pin(FIRST.canonical, FIRST.fingerprint) == FIRST
    for roster in (other, SECOND):
        with pytest.raises(UsageError, match="holds the roster of epoch 1 already"):
            pinned.pin(roster.canonical, roster.fingerprint)
    pinned.advance(SECOND.canonical)
    with pytest.raises(UsageError, match="of epoch 2 already"):
        pinned.pin(FIRST.canonical, FIRST.fingerprint)
    assert at(path).held() == SECOND


def test_the_same_roster_again_changes_nothing_whoever_else_has_signed(pinned: PinnedRoster) -> None:
    pinned.advance(SECOND.canonical)
    pinned.advance(make(FIRST, (ANNA, CARL), parties=[party(NORTH), party(SOUTH)]).canonical)
    assert pinned.advance(SECOND.model_copy(update={"signatures": {}}).canonical) == SECOND
    assert pinned.held() == SECOND


@pytest.mark.parametrize(
    ("roster", "why"),
    [
        (FIRST, "cannot come behind"),
        (make(FIRST), "second roster of epoch 2"),
        (make(THIRD), "between epoch 2 and epoch 4 are missing"),
        (make(SECOND, previous="ab" * 32), "does not follow"),
        (make(SECOND, (CARL,)), "it needs 2"),
        (make(SECOND, (CARL, NORTH, CARRIER)), "it needs 2"),
    ],
)
def test_a_roster_that_may_not_follow_leaves_the_one_in_force(
    path: Path, pinned: PinnedRoster, roster: Roster, why: str
) -> None:
    pinned.advance(SECOND.canonical)
    with pytest.raises(ProtocolViolation, match=why):
        pinned.advance(roster.canonical)
    assert at(path).held() == SECOND
    assert at(path).advance(THIRD.canonical) == THIRD, "and a good one still follows"


def test_two_rosters_of_one_epoch_are_kept_as_evidence_in_the_error(pinned: PinnedRoster) -> None:
    other = make(officers=(BEN, CARL), parties=[party(NORTH)])
    with pytest.raises(TwoRosters) as error:
        pinned.advance(other.canonical)
    assert error.value.evidence == (FIRST.canonical, other.canonical) and error.value.both == ("ben",)


def test_a_second_roster_that_a_known_officer_signed_is_kept_for_good(path: Path, pinned: PinnedRoster) -> None:
    other = make(officers=(BEN, CARL), parties=[party(NORTH)])
    stranger = Identity.generate("stranger")
    forged = make(officers=(stranger,), parties=[party(SOUTH)], governance={"m": 1, "keys": {"stranger":
                  stranger.public.key.hex()}})  # fmt: skip
    for offered in (other, other, forged):
        with pytest.raises(TwoRosters):
            pinned.advance(offered.canonical)
    # What no known officer signed is evidence against nobody, and a coordinator cannot fill the disk with it.
    assert at(path).disputed() == (other,) and at(path).held() == FIRST
    store = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(sqlite3.IntegrityError, match="evidence is kept"):
        store.execute("DELETE FROM evidence")


def test_sites_in_one_database_hold_rosters_of_their_own(path: Path, pinned: PinnedRoster) -> None:
    pinned.advance(SECOND.canonical)
    at(path, SOUTH).pin(FIRST.canonical, FIRST.digest)
    assert at(path, SOUTH).held() == FIRST and at(path).held() == SECOND


def test_a_site_whose_key_is_gone_from_the_next_epoch_is_in_no_session(pinned: PinnedRoster) -> None:
    assert [member.site for member in pinned.members(["west", "north"], TODAY)[1]] == ["north", "west"]
    pinned.advance(SECOND.canonical)
    with pytest.raises(ProtocolViolation, match="names no site 'west'"):
        pinned.members(["north", "west"], TODAY)


def test_a_session_is_of_this_site_under_its_own_key(path: Path, pinned: PinnedRoster) -> None:
    with pytest.raises(ProtocolViolation, match="'north' is not among"):
        pinned.members(["south", "west"], TODAY)
    pinned.advance(make(FIRST, parties=[party(Identity.generate("north")), party(SOUTH)]).canonical)
    with pytest.raises(ProtocolViolation, match="another key than it has"):
        pinned.members(["north", "south"], TODAY)


def test_rows_are_neither_changed_nor_removed(path: Path, pinned: PinnedRoster) -> None:
    store = sqlite3.connect(path, isolation_level=None)
    for statement in ("UPDATE rosters SET digest = ''", "DELETE FROM rosters"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            store.execute(statement)
    store.execute("DROP TRIGGER rosters_are_never_changed")
    store.execute("UPDATE rosters SET content = ?", (make(expires=date(2027, 1, 1)).canonical,))
    with pytest.raises(UsageError, match="was changed"):
        pinned.held()


def test_of_two_processes_with_two_rosters_of_one_epoch_one_wins(path: Path, pinned: PinnedRoster) -> None:
    start, outcomes = Barrier(2), []

    def follow(roster: Roster) -> None:
        mine = at(path)
        start.wait()
        try:
            outcomes.append(mine.advance(roster.canonical).digest)
        except TwoRosters as error:
            outcomes.append(error)

    threads = [Thread(target=follow, args=(roster,)) for roster in (SECOND, make(FIRST))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = pinned.held()
    assert held is not None and held.digest in outcomes
    assert sum(isinstance(outcome, TwoRosters) for outcome in outcomes) == 1
