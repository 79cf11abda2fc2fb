"""The roster: who must have signed, which epoch may follow, and who may meet in one session."""

import hashlib
import json
from datetime import date
from typing import Any

import pytest

from wardround.protocol.errors import ProtocolViolation, UsageError
from wardround.protocol.identity import Identity
from wardround.protocol.roster import (
    MAX_ROSTER_BYTES,
    Roster,
    TwoRosters,
    check_first,
    check_next,
    check_signed,
    outsiders_only,
    session_members,
    standing,
    under_the_coordinator,
)

SITES = {name: Identity.generate(name) for name in ("aarau", "bern", "chur", "davos")}
ANNA, BEN, CARL, DORA, EVA = (Identity.generate(name) for name in ("anna", "ben", "carl", "dora", "eva"))
CARRIER = Identity.generate("carrier")
TODAY = date(2026, 11, 23)


def hexed(*identities: Identity) -> dict[str, str]:
    return {identity.site: identity.public.key.hex() for identity in identities}


def party(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "site": name,
        "legal_entity": f"Hospital {name}",
        "controlling_authority": f"Canton {name}",
        "key": SITES[name].public.key.hex(),
        "valid_from": "2026-01-01",
        "valid_until": "2027-12-31",
    } | changes


def fields(**changes: Any) -> dict[str, Any]:
    coordinator = {"legal_entity": "Carrier Ltd", "controlling_authority": "Carrier Ltd"}
    return {
        "consortium": "Alpine hearts",
        "epoch": 1,
        "previous": None,
        "issued": "2026-11-01",
        "expires": "2027-10-31",
        "coordinator": coordinator | {"key": CARRIER.public.key.hex()},
        "parties": [party("aarau"), party("bern"), party("chur")],
        "governance": {"m": 2, "keys": hexed(ANNA, BEN, CARL)},
    } | changes


def make(*officers: Identity, **changes: Any) -> Roster:
    roster = Roster.model_validate(fields(**changes))
    for officer in officers:
        roster = roster.signed_by(officer)
    return roster


FIRST = make(ANNA, BEN)


def second(*officers: Identity, **changes: Any) -> Roster:
    return make(*officers, **{"epoch": 2, "previous": FIRST.digest} | changes)


def test_digest_and_signatures_can_be_made_without_this_code() -> None:
    text = fields() | {"format": "wardround/roster/1"}
    unsigned = json.dumps(text, sort_keys=True, separators=(",", ":")).encode()
    label = b"wardround/roster/1\x00"
    assert FIRST.digest == hashlib.sha256(label + len(unsigned).to_bytes(8, "big") + unsigned).hexdigest()
    ANNA.private.public_key().verify(bytes.fromhex(FIRST.signatures[hexed(ANNA)["anna"]]), label + unsigned)
    assert FIRST.digest == make().digest, "the name is the same whoever has signed"
    assert FIRST.fingerprint.replace(" ", "") == FIRST.digest


def test_the_bytes_come_back_as_the_same_roster() -> None:
    assert Roster.parse(FIRST.canonical) == FIRST


def test_the_first_roster_is_taken_by_fingerprint_and_m_signatures() -> None:
    check_first(FIRST, FIRST.fingerprint)
    check_first(FIRST, FIRST.digest.upper())
    check_first(make(ANNA, BEN, CARL), FIRST.fingerprint)


@pytest.mark.parametrize(
    "fingerprint",
    ["", "ab", FIRST.digest[:32], "x" * 64, FIRST.digest + "00"],
    ids=["none", "two letters", "half", "no hexadecimal", "too long"],
)
def test_half_a_fingerprint_is_none(fingerprint: str) -> None:
    with pytest.raises(UsageError, match="64 hex digits"):
        check_first(FIRST, fingerprint)


def test_a_swapped_first_roster_is_refused_though_it_is_signed() -> None:
    mallory = [Identity.generate(name) for name in ("anna", "ben", "carl")]
    swapped = make(*mallory, governance={"m": 2, "keys": hexed(*mallory)})
    check_signed(swapped, swapped.governance)
    with pytest.raises(ProtocolViolation, match="another roster than the officers agreed on"):
        check_first(swapped, FIRST.fingerprint)


def test_m_minus_1_signatures_are_too_few() -> None:
    with pytest.raises(ProtocolViolation, match="signatures of 1 officers of its own; it needs 2"):
        check_first(make(ANNA), FIRST.fingerprint)


def test_a_strangers_signature_does_not_count() -> None:
    with pytest.raises(ProtocolViolation, match="signatures of 1 officers"):
        check_first(make(ANNA, EVA, DORA), FIRST.fingerprint)


def test_one_key_that_signs_twice_counts_once() -> None:
    assert make(ANNA).signed_by(ANNA) == make(ANNA)
    # Two entries for one key in the bytes: a parser would take the last, so the bytes are not canonical.
    key = hexed(ANNA)["anna"]
    twice = make(ANNA).canonical.replace(b'"signatures":{', f'"signatures":{{"{key}":"{"00" * 64}",'.encode())
    with pytest.raises(ProtocolViolation, match="canonical"):
        Roster.parse(twice, "coordinator")
    with pytest.raises(UsageError, match="one key stands twice"):
        Roster.parse(edited(lambda text: text["governance"]["keys"].update(ben=key)))


def test_a_forged_signature_spoils_the_roster_even_where_enough_others_hold() -> None:
    forged = make(ANNA, BEN).model_copy(
        update={"signatures": FIRST.signatures | {hexed(CARL)["carl"]: EVA.sign(FIRST.message).hex()}}
    )
    with pytest.raises(ProtocolViolation, match="is not the officer's"):
        check_first(forged, FIRST.fingerprint)


def test_a_signature_over_the_bytes_without_the_label_does_not_hold() -> None:
    bare = ANNA.sign(FIRST.message.partition(b"\x00")[2]).hex()
    with pytest.raises(ProtocolViolation, match="is not the officer's"):
        check_signed(FIRST.model_copy(update={"signatures": {hexed(ANNA)["anna"]: bare}}), FIRST.governance)


def edited(edit: Any, roster: Roster = FIRST) -> bytes:
    """Canonical bytes after a change that keeps the signatures."""
    text = json.loads(roster.canonical)
    edit(text)
    return json.dumps(text, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text["parties"][0].update(key="ab" * 32),
        lambda text: text["parties"][0].update(legal_entity="Hospital Bern"),
        lambda text: text["parties"].pop(),
        lambda text: text["coordinator"].update(controlling_authority="nobody"),
        lambda text: text["governance"].update(m=3),
        lambda text: text.update(expires="2037-10-31"),
    ],
)
def test_whatever_is_changed_the_signatures_no_longer_hold(edit: Any) -> None:
    changed = Roster.parse(edited(edit), "coordinator")
    with pytest.raises(ProtocolViolation, match="is not the officer's"):
        check_signed(changed, FIRST.governance)
    with pytest.raises(ProtocolViolation, match="another roster"):
        check_first(changed, FIRST.fingerprint)


def test_every_changed_bit_of_the_bytes_is_noticed() -> None:
    content = FIRST.canonical
    for place in range(0, len(content), 7):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        with pytest.raises(ProtocolViolation):
            check_first(Roster.parse(bytes(changed), "coordinator"), FIRST.fingerprint)


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (lambda text: text["parties"].reverse(), "in the order of their names"),
        (lambda text: text["parties"].append(text["parties"][-1]), "distinct"),
        (lambda text: text["parties"][1].update(key=text["parties"][0]["key"]), "one key stands twice"),
        (lambda text: text["coordinator"].update(key=text["parties"][0]["key"]), "one key stands twice"),
        (lambda text: text["coordinator"].update(key=hexed(ANNA)["anna"]), "one key stands twice"),
        (lambda text: text.update(parties=[]), "at least 1 item"),
        (lambda text: text["parties"][2].update(site="coordinator"), "may be called"),
        (lambda text: text["parties"][0].update(valid_until="2025-12-31"), "ends before it begins"),
        (lambda text: text["parties"][0].update(legal_entity=" Hospital"), "single spaces"),
        (lambda text: text["parties"][0].update(legal_entity="Hospital \u202e"), "invisible"),
        (lambda text: text["parties"][0].update(legal_entity="\u001b[2J"), "invisible"),
        (lambda text: text["governance"].update(m=1), "more than half"),
        (lambda text: text["governance"].update(m=4), "at most all"),
        (lambda text: text.update(expires="2026-10-31"), "cannot expire before"),
        (lambda text: text.update(previous="ab" * 32), "epoch 1 has no previous"),
        (lambda text: text.update(epoch=2), "every later one names it"),
        (lambda text: text.update(epoch=0), "greater than or equal to 1"),
        (lambda text: text.update(epoch=1.0), "canonical"),
        (lambda text: text.update(mood="good"), "mood"),
        (lambda text: text.update({"\u001b[2J": 1}), r"\?\[2J"),
        (lambda text: text.update(format="wardround/roster/2"), "wardround/roster/1"),
    ],
)
def test_a_malformed_roster_is_refused_by_whose_fault_it_is(edit: Any, why: str) -> None:
    with pytest.raises(ProtocolViolation, match=why) as error:
        Roster.parse(edited(edit), "coordinator")
    assert error.value.site == "coordinator" and error.value.message.isprintable()
    with pytest.raises(UsageError, match=why):
        Roster.parse(edited(edit))


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"\xff", FIRST.canonical + b"\n", b" " * (MAX_ROSTER_BYTES + 1), b"[" * 200_000,
     b'{"format":"\\ud800"}'],
)  # fmt: skip
def test_other_bytes_are_no_roster(data: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        Roster.parse(data, "coordinator")


def test_a_roster_is_not_read_beyond_its_limit() -> None:
    crowd = {f"{number:064x}": "00" * 64 for number in range(1, 1400)}
    small, large = (edited(lambda text, n=n: text["signatures"].update(list(crowd.items())[:n])) for n in (9, 1399))
    assert len(Roster.parse(small).signatures) == 11 and len(large) > MAX_ROSTER_BYTES
    with pytest.raises(UsageError, match=f"more than {MAX_ROSTER_BYTES} bytes"):
        Roster.parse(large)


def test_the_next_epoch_needs_m_officers_of_the_one_before() -> None:
    check_next(FIRST, second(BEN, CARL, parties=[party("aarau"), party("davos")]))
    with pytest.raises(ProtocolViolation, match="signatures of 1 officers of epoch 1; it needs 2"):
        check_next(FIRST, second(BEN))


def test_a_new_governance_needs_its_own_signatures_and_those_of_the_old() -> None:
    new = {"m": 2, "keys": hexed(CARL, DORA, EVA)}
    check_next(FIRST, second(ANNA, CARL, EVA, governance=new))
    with pytest.raises(ProtocolViolation, match="signatures of 1 officers of epoch 1"):
        check_next(FIRST, second(CARL, DORA, EVA, governance=new))
    with pytest.raises(ProtocolViolation, match="signatures of 1 officers of its own"):
        check_next(FIRST, second(ANNA, BEN, EVA, governance=new))


def test_an_officers_new_key_stands_beside_the_old_one_under_the_same_name() -> None:
    again = Identity.generate("anna")
    new = {"m": 2, "keys": hexed(again, BEN, CARL)}
    check_next(FIRST, second(ANNA, BEN, again, governance=new))
    with pytest.raises(ProtocolViolation, match="of epoch 1; it needs 2"):
        check_next(FIRST, second(again, BEN, governance=new))


def test_a_lower_m_is_a_change_of_governance_that_the_old_m_must_sign() -> None:
    held = make(ANNA, BEN, CARL, governance={"m": 3, "keys": hexed(ANNA, BEN, CARL)})
    changes = {"epoch": 2, "previous": held.digest}
    check_next(held, make(ANNA, BEN, CARL, **changes))
    with pytest.raises(ProtocolViolation, match="signatures of 2 officers of epoch 1; it needs 3"):
        check_next(held, make(ANNA, BEN, **changes))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"previous": "ab" * 32}, "does not follow"),
        ({"epoch": 3}, "between epoch 1 and epoch 3 are missing"),
        ({"consortium": "Other hearts"}, "another consortium's name"),
        ({"issued": "2026-10-31"}, "an older date"),
    ],
)
def test_what_does_not_follow_is_refused_though_all_have_signed(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ProtocolViolation, match=why):
        check_next(FIRST, second(ANNA, BEN, CARL, **changes))


def test_an_older_epoch_is_refused() -> None:
    with pytest.raises(ProtocolViolation, match="epoch 1 cannot come behind one of epoch 2"):
        check_next(second(ANNA, BEN), FIRST)


def test_two_rosters_of_one_epoch_are_evidence_against_who_signed_both() -> None:
    other = make(BEN, CARL, parties=[party("aarau"), party("bern")])
    with pytest.raises(TwoRosters, match=r"officers who signed both: ben$") as error:
        check_next(FIRST, other)
    assert error.value.evidence == (FIRST.canonical, other.canonical) and error.value.both == ("ben",)
    with pytest.raises(TwoRosters, match="no known officer signed both"):
        check_next(FIRST, make(DORA, EVA, expires="2027-09-30"))


def test_expiry_does_not_cut_the_chain_for_a_site_that_was_away() -> None:
    check_next(FIRST, second(ANNA, BEN, expires="2026-11-02"))


def test_a_session_takes_the_pinned_keys_of_the_wanted_sites_in_order() -> None:
    members = session_members(FIRST, ["chur", "aarau"], TODAY)
    assert members == (SITES["aarau"].public, SITES["chur"].public)


@pytest.mark.parametrize(
    ("wanted", "today", "why"),
    [
        (["aarau", "davos"], TODAY, "names no site 'davos'"),
        (["aarau", "aarau"], TODAY, "wanted twice"),
        (["aarau"], date(2027, 11, 1), "epoch 1 has expired"),
        (["aarau"], date(2026, 10, 31), "not yet in force"),
    ],
)
def test_a_session_refuses(wanted: list[str], today: date, why: str) -> None:
    with pytest.raises(ProtocolViolation, match=why):
        session_members(FIRST, wanted, today)


def test_the_last_day_counts() -> None:
    assert session_members(FIRST, ["aarau"], date(2027, 10, 31)) == session_members(FIRST, ["aarau"], date(2026, 11, 1))


@pytest.mark.parametrize("validity", [{"valid_until": "2026-11-22"}, {"valid_from": "2026-11-24"}])
def test_a_key_outside_its_days_is_refused(validity: dict[str, str]) -> None:
    roster = make(parties=[party("aarau"), party("bern", **validity)])
    assert session_members(roster, ["aarau"], TODAY)
    with pytest.raises(ProtocolViolation, match="'bern' is not valid on 2026-11-23"):
        session_members(roster, ["aarau", "bern"], TODAY)


@pytest.mark.parametrize("spelling", ["Hospital aarau", "HOSPITAL Aarau", "\uff28ospital aarau"])
def test_two_sites_of_one_legal_entity_never_meet_in_a_session(spelling: str) -> None:
    roster = make(parties=[party("aarau"), party("bern"), party("davos", legal_entity=spelling)])
    assert len(session_members(roster, ["aarau", "bern"], TODAY)) == 2
    assert len(session_members(roster, ["bern", "davos"], TODAY)) == 2
    with pytest.raises(ProtocolViolation, match="'aarau' and 'davos' are one legal entity"):
        session_members(roster, ["aarau", "bern", "davos"], TODAY)


@pytest.mark.parametrize(
    ("entity", "authority", "under"),
    [
        ("Carrier Ltd", "Carrier Ltd", ()),
        ("Carrier Ltd", "canton BERN", ("bern",)),
        ("Hospital chur", "Hospital chur", ("chur",)),
        ("Canton aarau", "Canton aarau", ("aarau",)),
    ],
)
def test_who_is_under_one_roof_with_the_coordinator_is_said(
    entity: str, authority: str, under: tuple[str, ...]
) -> None:
    coordinator = {"legal_entity": entity, "controlling_authority": authority, "key": CARRIER.public.key.hex()}
    roster = make(coordinator=coordinator)
    assert under_the_coordinator(roster) == under and outsiders_only(roster) is bool(under)
    said = standing(roster)
    assert ("outsiders only" in said) is ("epsilon of mode local" in said) is bool(under)
    assert all(site in said for site in under)
