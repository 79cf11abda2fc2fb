"""Invitations, joins, revocations and rosters at the coordinator: rules, and what is on disk afterwards."""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from wardround.protocol.errors import ProtocolViolation, Unavailable, UsageError
from wardround.protocol.identity import Identity
from wardround.protocol.invitation import Invitation, JoinAnswer, JoinRequest, key_fingerprint
from wardround.protocol.roster import Roster, TwoRosters
from wardround.server.certificates import ca_hash
from wardround.server.enrolment import Enrolment, Known, Verdict, judge
from wardround.server.folder import CoordinatorFolder
from wardround.server.store.database import open_database
from wardround.server.store.registry import Registry
from wardround.server.store.sites import JoinedSite, StoredInvitation

NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
ANNA, BEN, CARL = (Identity.generate(name) for name in ("anna", "ben", "carl"))


def node_key(curve: ec.EllipticCurve | None = None) -> str:
    key = ec.generate_private_key(curve or ec.SECP384R1()).public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def dump(path: Path) -> list[str]:
    store = sqlite3.connect(path)
    lines = list(store.iterdump())
    store.close()
    return lines


@dataclass(slots=True)
class Hub:
    folder: CoordinatorFolder
    now: datetime = NOW
    enrolment: Enrolment = field(init=False)

    def __post_init__(self) -> None:
        self.enrolment = Enrolment(self.folder, lambda: self.now)

    def join(self, code: Invitation, identity: Identity, node: str) -> JoinAnswer | Verdict:
        request = JoinRequest.made(code.proof_key, code.site, identity.public.key, node)
        return self.enrolment.join(request)

    def joined(self, name: str) -> tuple[Identity, str]:
        """A site that has joined: its keys."""
        identity, node = Identity.generate(name), node_key()
        assert isinstance(self.join(self.enrolment.invite(name, 7), identity, node), JoinAnswer)
        return identity, node

    def refused(self, verdict: Verdict, code: Invitation, identity: Identity, node: str) -> None:
        """The join is refused so, and nothing was written."""
        before = dump(self.folder.database)
        assert self.join(code, identity, node) is verdict
        assert dump(self.folder.database) == before

    def roster(self, sites: dict[str, Identity], behind: Roster | None = None, **changes: Any) -> Roster:
        owner = {"legal_entity": "Midland", "controlling_authority": "Midland"}
        parties = [
            {"site": name, "key": identity.public.key.hex(), "legal_entity": f"{name} trust",
             "controlling_authority": f"{name} county", "valid_from": date(2026, 1, 1), "valid_until": date(2028, 1, 1)}
            for name, identity in sorted(sites.items())
        ]  # fmt: skip
        fields: dict[str, Any] = {
            "consortium": "Hearts", "epoch": 1 if behind is None else behind.epoch + 1,
            "previous": None if behind is None else behind.digest, "issued": date(2026, 11, 1),
            "expires": date(2027, 10, 31), "parties": parties,
            "coordinator": owner | {"key": self.folder.identity().public.key.hex()},
            "governance": {"m": 2, "keys": {o.site: o.public.key.hex() for o in (ANNA, BEN, CARL)}},
        }  # fmt: skip
        return Roster.model_validate(fields | changes).signed_by(ANNA).signed_by(BEN)


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    return Hub(CoordinatorFolder.create(tmp_path / "hub", "Hearts", "hub.example.org", 8443))


IDENTITY, NODE, LINE = Identity.generate("north"), node_key(), node_key()
CODE = Invitation(
    site="north", host="hub.example.org", port=8443, secret="0f" * 16, ca="ab" * 32, expires=NOW + timedelta(days=7)
)
OPEN = StoredInvitation("north", CODE.proof_key, CODE.expires, used=False)
USED = StoredInvitation("north", CODE.proof_key, CODE.expires, used=True)
SITE = JoinedSite("north", IDENTITY.public.key, NODE, 5, NOW, None)
GONE = JoinedSite("north", IDENTITY.public.key, NODE, None, NOW, NOW)
STILL_REGISTERED = JoinedSite("north", IDENTITY.public.key, NODE, 5, NOW, NOW)
BAD_POINT = "ecdsa-sha2-nistp384 " + (node_key().split()[1][:-8] + "AAAAAA==")


@pytest.mark.parametrize(
    ("known", "verdict"),
    [
        (Known(None, None), Verdict.REFUSED),
        (Known(None, SITE), Verdict.REFUSED),
        (Known(StoredInvitation("north", bytes(32), CODE.expires, False), None), Verdict.REFUSED),
        (Known(OPEN, None), Verdict.TAKE),
        (Known(OPEN, None, roster_key=IDENTITY.public.key), Verdict.TAKE),
        (Known(OPEN, None, roster_key=bytes(32)), Verdict.OTHER_KEY),
        (Known(OPEN, None, other_owner=True), Verdict.TAKEN),
        (Known(OPEN, None, retired=True), Verdict.OLD_KEY),
        (Known(USED, SITE), Verdict.AGAIN),
        (Known(USED, JoinedSite("north", bytes(32), NODE, 5, NOW, None)), Verdict.USED),
        (Known(USED, JoinedSite("north", IDENTITY.public.key, LINE, 5, NOW, None)), Verdict.USED),
        (Known(USED, None), Verdict.USED),
        (Known(USED, GONE), Verdict.REVOKED),
        (Known(OPEN, GONE), Verdict.TAKE),
        (Known(OPEN, STILL_REGISTERED), Verdict.BUSY),
    ],
)
def test_a_request_is_judged_by_what_is_known(known: Known, verdict: Verdict) -> None:
    request = JoinRequest.made(CODE.proof_key, "north", IDENTITY.public.key, NODE)
    assert judge(request, known, NOW) is verdict


def test_an_invitation_is_judged_by_the_clock_and_an_answer_again_is_not() -> None:
    request = JoinRequest.made(CODE.proof_key, "north", IDENTITY.public.key, NODE)
    assert judge(request, Known(OPEN, None), CODE.expires - timedelta(seconds=1)) is Verdict.TAKE
    assert judge(request, Known(OPEN, None), CODE.expires) is Verdict.EXPIRED
    assert judge(request, Known(USED, SITE), CODE.expires + timedelta(days=99)) is Verdict.AGAIN


def test_a_node_key_that_is_no_point_of_the_curve_is_refused() -> None:
    broken = JoinRequest.made(CODE.proof_key, "north", IDENTITY.public.key, BAD_POINT)
    assert judge(broken, Known(OPEN, None), NOW) is Verdict.MALFORMED


def test_an_invitation_names_the_coordinator_and_pins_its_ca(hub: Hub) -> None:
    code = hub.enrolment.invite("north", 7)
    assert (code.site, code.superlink, code.expires) == ("north", "hub.example.org:8443", NOW + timedelta(days=7))
    assert code.ca == ca_hash(hub.folder.ca.read_bytes())
    assert hub.enrolment.invite("north", 7).secret != code.secret
    # The database gives the code to nobody.
    assert code.secret not in "".join(dump(hub.folder.database)).lower()


@pytest.mark.parametrize(("site", "days"), [("North", 7), ("coordinator", 7), ("north", 0), ("north", 31), ("a\nb", 7)])
def test_a_wrong_invitation_is_not_made(hub: Hub, site: str, days: int) -> None:
    before = dump(hub.folder.database)
    with pytest.raises(UsageError):
        hub.enrolment.invite(site, days)
    assert dump(hub.folder.database) == before


def test_a_site_joins_and_is_answered_again(hub: Hub) -> None:
    code, north, node = hub.enrolment.invite("north", 7), Identity.generate("north"), node_key()
    answer = hub.join(code, north, node)
    assert answer == JoinAnswer(
        coordinator_key=hub.folder.identity().public.key.hex(), fingerprint=key_fingerprint(north.public.key)
    )
    before = dump(hub.folder.database)
    hub.now += timedelta(days=30)
    assert hub.join(code, north, node) == answer
    assert dump(hub.folder.database) == before
    (site,) = Registry(hub.folder.database).unregistered()
    assert (site.site, site.identity_key, site.node_key) == ("north", north.public.key, node)


def test_a_code_is_good_for_one_site_once_and_in_time(hub: Hub) -> None:
    code, other = hub.enrolment.invite("north", 7), hub.enrolment.invite("south", 7)
    north, node = Identity.generate("north"), node_key()
    hub.refused(Verdict.REFUSED, code.model_copy(update={"site": "south"}), north, node)
    hub.refused(Verdict.REFUSED, code.model_copy(update={"site": "west"}), north, node)
    hub.refused(Verdict.REFUSED, code.model_copy(update={"secret": "00" * 16}), north, node)
    hub.now = code.expires
    hub.refused(Verdict.EXPIRED, code, north, node)
    hub.now = NOW
    assert isinstance(hub.join(code, north, node), JoinAnswer)
    hub.refused(Verdict.USED, code, Identity.generate("north"), node)
    hub.refused(Verdict.USED, code, north, node_key())
    hub.refused(Verdict.TAKEN, other, north, node_key())
    hub.refused(Verdict.TAKEN, other, Identity.generate("south"), node)
    hub.refused(Verdict.TAKEN, other, hub.folder.identity(), node_key())


def test_a_new_code_ends_the_one_before(hub: Hub) -> None:
    old = hub.enrolment.invite("north", 7)
    new = hub.enrolment.invite("north", 7)
    hub.refused(Verdict.REFUSED, old, Identity.generate("north"), node_key())
    assert isinstance(hub.join(new, Identity.generate("north"), node_key()), JoinAnswer)
    with pytest.raises(UsageError, match="has joined already"):
        hub.enrolment.invite("north", 7)


def test_of_many_that_use_one_code_at_once_one_joins(hub: Hub) -> None:
    code, start, found = hub.enrolment.invite("north", 7), Barrier(6), []

    def attempt() -> None:
        identity, node = Identity.generate("north"), node_key()
        start.wait()
        found.append(hub.join(code, identity, node))

    threads = [Thread(target=attempt) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(isinstance(one, JoinAnswer) for one in found) == [False] * 5 + [True]
    assert [one for one in found if not isinstance(one, JoinAnswer)] == [Verdict.USED] * 5


def test_a_revoked_site_stays_out_until_it_is_invited_anew_with_a_new_node_key(hub: Hub) -> None:
    code, north, node = hub.enrolment.invite("north", 7), Identity.generate("north"), node_key()
    hub.join(code, north, node)
    registry = Registry(hub.folder.database)
    registry.registered("north", 2**63 + 5)
    assert registry.nodes() == {"north": 2**63 + 5}
    assert hub.enrolment.revoke("north") and not hub.enrolment.revoke("north")
    assert registry.nodes() == {} and [one.site for one in registry.revoked_but_registered()] == ["north"]
    hub.refused(Verdict.REVOKED, code, north, node)
    again = hub.enrolment.invite("north", 7)
    hub.refused(Verdict.REFUSED, code, north, node)
    hub.refused(Verdict.OLD_KEY, again, north, node)
    fresh = node_key()
    hub.refused(Verdict.BUSY, again, north, fresh)
    registry.registered("north", None)
    assert isinstance(hub.join(again, north, fresh), JoinAnswer)
    assert [one.node_key for one in registry.unregistered()] == [fresh]
    # The old key is nobody's for ever.
    hub.refused(Verdict.OLD_KEY, hub.enrolment.invite("south", 7), Identity.generate("south"), node)


def test_revoking_withdraws_a_code_that_nobody_has_used(hub: Hub) -> None:
    code = hub.enrolment.invite("north", 7)
    assert hub.enrolment.revoke("north")
    hub.refused(Verdict.REFUSED, code, Identity.generate("north"), node_key())
    with pytest.raises(UsageError, match="no site 'north'"):
        hub.enrolment.revoke("north")


def test_a_roster_is_put_in_force_epoch_by_epoch(hub: Hub) -> None:
    north, _ = hub.joined("north")
    hub.joined("west")
    south = Identity.generate("south")
    first = hub.roster({"north": north, "south": south})
    done = hub.enrolment.propose(first.canonical)
    assert done.new and done.joined_but_not_named == ("west",) and done.named_but_not_joined == ("south",)
    assert Registry(hub.folder.database).roster() == first
    assert not hub.enrolment.propose(first.canonical).new
    hub.enrolment.revoke("north")
    second = hub.roster({"north": north, "south": south}, first)
    assert hub.enrolment.propose(second.canonical).named_but_revoked == ("north",)
    assert hub.enrolment.roster() == second
    for content in (first.canonical, hub.roster({"south": south}, hub.roster({"north": north}, second)).canonical):
        with pytest.raises(ProtocolViolation):
            hub.enrolment.propose(content)
    assert hub.enrolment.roster() == second


def test_a_roster_that_will_not_do_changes_nothing(hub: Hub) -> None:
    north, _ = hub.joined("north")
    first = hub.roster({"north": north})
    unsigned = first.model_copy(update={"signatures": {}})
    stranger = {"legal_entity": "X", "controlling_authority": "X", "key": Identity.generate("x").public.key.hex()}
    faults: list[tuple[Callable[[], Roster], str]] = [
        (lambda: unsigned, "signatures of 0 officers"),
        (lambda: hub.roster({"north": Identity.generate("north")}), "another key than it joined with"),
        (lambda: hub.roster({"north": north}, coordinator=stranger), "another coordinator's key"),
    ]
    before = dump(hub.folder.database)
    for made, fault in faults:
        with pytest.raises((ProtocolViolation, UsageError), match=fault):
            hub.enrolment.propose(made().canonical)
    with pytest.raises(UsageError, match="no roster"):
        hub.enrolment.propose(b"{}")
    assert dump(hub.folder.database) == before
    hub.enrolment.propose(first.canonical)
    with pytest.raises(TwoRosters):
        hub.enrolment.propose(hub.roster({"north": north}, consortium="Other").canonical)
    # Two officers outside the governance of epoch 1 sign epoch 2 in vain.
    others = [Identity.generate(name) for name in ("dora", "emil")]
    keys = {"m": 2, "keys": {o.site: o.public.key.hex() for o in others}}
    taken_over = hub.roster({"north": north}, first, governance=keys).model_copy(update={"signatures": {}})
    with pytest.raises(ProtocolViolation, match="of epoch 1"):
        hub.enrolment.propose(taken_over.signed_by(others[0]).signed_by(others[1]).canonical)
    assert hub.enrolment.roster() == first


def test_a_site_does_not_join_with_another_key_than_the_roster_gives_it(hub: Hub) -> None:
    north = Identity.generate("north")
    hub.enrolment.propose(hub.roster({"north": north}).canonical)
    code = hub.enrolment.invite("north", 7)
    hub.refused(Verdict.OTHER_KEY, code, Identity.generate("north"), node_key())
    assert isinstance(hub.join(code, north, node_key()), JoinAnswer)


def test_a_roster_on_disk_is_never_changed_or_removed(hub: Hub) -> None:
    north, _ = hub.joined("north")
    hub.enrolment.propose(hub.roster({"north": north}).canonical)
    store = open_database(hub.folder.database)
    for statement in ("UPDATE rosters SET content = x'00'", "DELETE FROM rosters", "UPDATE rosters SET epoch = 7"):
        with pytest.raises(sqlite3.IntegrityError, match="never"):
            store.execute(statement)
    with pytest.raises(sqlite3.IntegrityError):
        store.execute("INSERT INTO rosters VALUES (2, 'x', x'00', 1)")


def test_a_database_is_durable_and_opened_by_many_at_once(tmp_path: Path) -> None:
    path, start, found = tmp_path / "coordinator.sqlite", Barrier(8), []

    def attempt() -> None:
        start.wait()
        store = open_database(path)
        found.append([store.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")])
        store.close()

    threads = [Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [["wal", 2]] * 8
    assert path.stat().st_mode & 0o077 == 0


def test_what_is_no_database_of_ours_is_refused_and_left_alone(tmp_path: Path) -> None:
    other, later, junk = tmp_path / "other.sqlite", tmp_path / "later.sqlite", tmp_path / "junk.sqlite"
    store = sqlite3.connect(other)
    store.execute("CREATE TABLE notes (text TEXT)")
    store.close()
    open_database(later).execute("PRAGMA user_version = 9")
    junk.write_bytes(b"no database at all, only text" * 100)
    for path, fault in ((other, "no coordinator's database"), (later, "version 9"), (junk, "cannot be read")):
        before = dump(path) if path != junk else [junk.read_text()]
        with pytest.raises(UsageError, match=fault):
            open_database(path)
        assert (dump(path) if path != junk else [junk.read_text()]) == before
    with pytest.raises(Unavailable, match="cannot be used"):
        open_database(tmp_path / "none" / "coordinator.sqlite")


def test_a_join_that_cannot_be_written_is_not_half_written(hub: Hub) -> None:
    code, north, node = hub.enrolment.invite("north", 7), Identity.generate("north"), node_key()
    store = open_database(hub.folder.database)
    store.execute("CREATE TRIGGER full BEFORE UPDATE ON invitations BEGIN SELECT RAISE(ABORT, 'no'); END")
    before = dump(hub.folder.database)
    with pytest.raises(UsageError):
        hub.join(code, north, node)
    assert dump(hub.folder.database) == before
    store.execute("DROP TRIGGER full")
    assert isinstance(hub.join(code, north, node), JoinAnswer)
