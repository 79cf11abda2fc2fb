"""Tamper evidence across hospitals: each attack on a ledger, who notices it within how many rounds, and its control."""

import json
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ledger_rounds import ANNA, BEN, Ledgers, TwoFaces, hostile, rewrite, roster_of

from wardround.client.doctor.examined import examined_from
from wardround.client.doctor.local import check_witnesses
from wardround.client.gossip import TURNS
from wardround.client.store.database import open_store
from wardround.client.store.witnessing import AlarmView, witnessing
from wardround.console.commands.site_evidence import evidence_command
from wardround.console.commands.site_witnessed import in_words, witnessing_command
from wardround.protocol.alarm import AlarmKind, false_witnesses, parse_alarm, proven, raise_alarm
from wardround.protocol.bulletin import cycle
from wardround.protocol.checkpoint import Checkpoint
from wardround.protocol.errors import ProtocolViolation
from wardround.protocol.ledger import Countersign, Recover, approve
from wardround.protocol.owners import COORDINATOR
from wardround.protocol.tree import Head
from wardround.protocol.watch import PATIENCE
from wardround.server.store.studies import WITNESS
from wardround.server.store.witness import CoordinatorWitness, kept_alarms

FORK, ROLLBACK, SILENCE = AlarmKind.FORK, AlarmKind.ROLLBACK, AlarmKind.SILENCE
LIAR = "va"
P = cycle(4)
K = 3 + 3 * P
"""Rounds until everybody accuses, the round in which the histories part included: one in which they part, one until a
head is signed, one until it is cosigned, a cycle until it has gone round, one for the accused's word on it, one for
the alarm.
"""


@pytest.fixture
def made(make_plan_of: Any) -> Callable[..., Any]:
    def make(path: Path, kind: type[Ledgers] = Ledgers) -> Any:
        return kind(path, make_plan_of("rounds=300", "privacy=none"))

    return make


@pytest.fixture
def ledgers(tmp_path: Path, made: Any) -> Ledgers:
    found: Ledgers = made(tmp_path / "l")
    for _ in range(5):
        found.round()
    return found


def accuse(ledgers: Ledgers, origin: str, *kinds: AlarmKind) -> bool:
    """Whether everybody but ``origin`` holds an alarm of one of these kinds on its ledger."""
    return all(any((kind, origin) in ledgers.accused(site) for kind in kinds) for site in ledgers.everybody_but(origin))


def recover(ledgers: Ledgers, site: str) -> None:
    """Two officers sign a recovery for each head that is missing, the longest first."""
    ledger = ledgers.desks[site].ledger
    while (size := ledger.missing_head()) is not None:
        (root,) = (
            root
            for (root,) in ledger._store.execute("SELECT root FROM rollbacks WHERE size = ?", (size,))
            if (size, root) not in ledger.state.recovered
        )
        fact: Any = Recover(seen_size=size, seen_root=root, charges=ledger.state.missing_charges(size), reason="disk")
        for officer in (ANNA, BEN):
            fact = approve(fact, ledgers.folders[site].identity().public.key.hex(), officer)
        ledger.record(fact)


def test_after_a_few_honest_rounds_every_ledger_is_witnessed_by_all_and_receipts_name_them(ledgers: Ledgers) -> None:
    for site in ledgers.folders:
        signed = ledgers.desks[site].ledger.state.countersigned
        assert set(signed) == set(ledgers.everybody_but(site))
        found = witnessing(ledgers.folders[site].database, site)
        assert {one.witness: one.size for one in found.own} == signed and not found.alarms
        assert {one.origin for one in found.others} == set(ledgers.folders) - {site} and all(o.at for o in found.others)
    last = ledgers.recorder._receipts[-1]
    assert {one.site for one in last.witnessed} == set(ledgers.folders)
    for one in last.witnessed:
        assert COORDINATOR in one.witnesses and len(one.witnesses) >= 2
        assert one.size <= min(ledgers.desks[one.site].ledger.state.countersigned[w] for w in one.witnesses)


def test_a_hospital_that_drops_an_entry_and_signs_its_ledger_anew_is_accused_on_all_sides(ledgers: Ledgers) -> None:
    ledger = ledgers.desks[LIAR].ledger
    numbers = [n for n, fact in enumerate(ledger.facts(), 1) if isinstance(fact, Countersign)]
    ledger.close()
    rewrite(ledgers.folders[LIAR], numbers[1])
    ledgers.desks[LIAR] = hostile(ledgers.desk(LIAR))
    ledgers.rounds_until(lambda: accuse(ledgers, LIAR, FORK), K)
    for site in ledgers.everybody_but(LIAR):
        accused = ledgers.folders[LIAR].identity().public
        assert all(proven(alarm, accused) for alarm in ledgers.alarms(site))
        assert {origin for _, origin in ledgers.accused(site)} == {LIAR}, "nobody honest is accused"
    held = [ledgers.desks[site]._witness.held(LIAR) for site in ledgers.folders]
    reports = [ledgers.round() for _ in range(3)]
    assert held == [ledgers.desks[site]._witness.held(LIAR) for site in ledgers.folders], "it is cosigned no more"
    assert all(report[site] == "replied" for report in reports for site in ("cleveland", "hungarian")), "and they go on"


def test_an_alarm_is_shown_to_the_people_of_a_hospital_and_of_the_coordinator(
    ledgers: Ledgers, capsys: pytest.CaptureFixture[str]
) -> None:
    place, hub = ledgers.folders["cleveland"], ledgers.path / WITNESS
    witnessing_command(place.path, False)
    said = capsys.readouterr().out
    assert "No alarm" in said and "'coordinator' has signed the first" in said
    assert kept_alarms(hub) == [] and [f.state.value for f in check_witnesses(examined_from(None, place.path))] == [
        "ok"
    ]
    kept = ledgers.snapshot(LIAR)
    for _ in range(3):
        ledgers.round()
    ledgers.put_back(LIAR, kept)
    ledgers.rounds_until(lambda: accuse(ledgers, LIAR, FORK, ROLLBACK), K)
    witnessing_command(place.path, False)
    assert f"The ledger of '{LIAR}'" in (said := capsys.readouterr().out) and "ALARM" in said
    witnessing_command(place.path, True)
    shown = json.loads(capsys.readouterr().out)["alarms"]
    evidence_command(place.path, True)
    exported = [parse_alarm(row["content"].encode(), "x") for row in json.loads(capsys.readouterr().out)]
    assert {alarm.digest for alarm in exported} == {row["digest"] for row in shown if row["kind"] != "silence"}
    assert all(proven(alarm, ledgers.folders[LIAR].identity().public) for alarm in exported)
    assert {(alarm.kind, alarm.origin) for alarm in kept_alarms(hub)} == ledgers.accused(COORDINATOR)
    (finding,) = check_witnesses(examined_from(None, place.path))
    ledgers.round()
    ledgers.round()
    (own,) = check_witnesses(examined_from(None, ledgers.folders[LIAR].path))
    assert finding.state.value == "warning" and own.state.value == "failed"
    assert ledgers.desks["cleveland"].seen.open_alarms == len(ledgers.alarms("cleveland"))
    store = open_store(place.database)
    with pytest.raises(sqlite3.IntegrityError, match="an alarm is kept"):
        store.execute("DELETE FROM watched WHERE kind = 'alarm'")


def test_a_receipt_that_names_a_witness_who_did_not_sign_is_not_signed(ledgers: Ledgers) -> None:
    ledgers.recorder._kept[LIAR]["hungarian"] = 10**6
    ledgers.round()
    ledgers.round()
    before_last = ledgers.recorder._receipts[-2]
    assert LIAR not in {one.site for one in before_last.signatures}
    assert "cleveland" in {one.site for one in before_last.signatures}


def test_the_coordinator_cosigns_only_what_continues_what_it_signed_also_after_a_restart(ledgers: Ledgers) -> None:
    party = ledgers.folders[LIAR].identity()
    second = Checkpoint(LIAR, Head(10_000, bytes(32))).note().signed_by(party).encode()
    witness = CoordinatorWitness(ledgers.path / WITNESS, ledgers.coordinator)
    held = witness.held(LIAR)
    assert held is not None
    with pytest.raises(ProtocolViolation, match="does not continue"):
        witness.cosign(second, (), party.public)
    assert witness.held(LIAR) == held


def test_a_hospital_that_only_starts_again_is_not_accused(ledgers: Ledgers) -> None:
    """Control of the attacks: the same steps on an honest ledger."""
    ledgers.put_back(LIAR, ledgers.snapshot(LIAR))
    for _ in range(K):
        ledgers.round()
    assert not any(ledgers.alarms(site) for site in ledgers.everybody_but())


def test_two_histories_for_two_hospitals_are_compared_by_their_witnesses(tmp_path: Path, made: Any) -> None:
    ledgers = made(tmp_path / "l", TwoFaces)
    for _ in range(5):
        ledgers.round()
    ledgers.split(LIAR, ["cleveland", "hungarian"])
    ledgers.rounds_until(lambda: accuse(ledgers, LIAR, FORK), K)
    for site in ledgers.everybody_but(LIAR):
        assert {origin for _, origin in ledgers.accused(site)} == {LIAR}


def test_one_history_in_two_places_accuses_nobody(tmp_path: Path, made: Any) -> None:
    """Control: the carrier turns the same requests round, and there is nothing to turn."""
    ledgers = made(tmp_path / "l", TwoFaces)
    for _ in range(5):
        ledgers.round()
    ledgers.split(LIAR, [])
    for _ in range(K):
        ledgers.round()
    assert not any(ledgers.alarms(site) for site in ledgers.everybody_but())


def test_a_site_put_back_to_a_snapshot_is_accused_stops_itself_and_is_let_go_on_by_two_officers(
    ledgers: Ledgers,
) -> None:
    kept = ledgers.snapshot(LIAR)
    for _ in range(4):
        ledgers.round()
    ledgers.put_back(LIAR, kept)
    ledgers.rounds_until(lambda: accuse(ledgers, LIAR, FORK, ROLLBACK), K)
    assert ledgers.desks[LIAR].ledger.missing_head() is not None
    reports = ledgers.round()
    assert reports[LIAR] == "refused" and set(reports.values()) == {"refused", "replied"}, "the others go on"
    signed = dict(ledgers.desks[LIAR].ledger.state.countersigned)

    def settled() -> bool:
        recover(ledgers, LIAR)
        return not any(ledgers.alarms(site) for site in ledgers.everybody_but())

    ledgers.rounds_until(settled, 3 * K)
    for _ in range(6):
        reports = ledgers.round()
    assert reports[LIAR] == "replied"
    later = ledgers.desks[LIAR].ledger.state.countersigned
    assert all(later[witness] > signed.get(witness, 0) for witness in ledgers.everybody_but(LIAR)), later
    assert ledgers.desks["cleveland"].gossip.watch.alarms(), "the alarm stays on record, with its answer"
    assert not any(ledgers.alarms(site) for site in ledgers.everybody_but())


def test_a_witness_that_signs_both_sides_of_a_fork_is_named_by_its_own_signatures(ledgers: Ledgers) -> None:
    liar, false, honest = (ledgers.folders[site].identity() for site in (LIAR, "hungarian", "cleveland"))
    notes = [Checkpoint(LIAR, Head(9, bytes([n]) * 32)).note().signed_by(liar) for n in (1, 2)]
    texts = [notes[0].signed_by(false).signed_by(honest).encode(), notes[1].signed_by(false).encode()]
    alarm = raise_alarm(FORK, LIAR, texts[0].decode(), texts[1].decode(), "2026-11-23T09:00:00Z", honest)
    known = {one.site: one.public for one in (liar, false, honest)}
    assert proven(alarm, liar.public) and false_witnesses(alarm, known) == ("hungarian",)
    view = AlarmView(FORK, LIAR, "cleveland", alarm.at, alarm.at, None, "About.", alarm.digest, alarm.canonical, "")
    assert "Signed both, as no honest witness does: hungarian." in in_words(view, known)


def test_a_witness_that_breaks_its_own_ledger_is_accused_like_any_other(ledgers: Ledgers) -> None:
    kept = ledgers.snapshot("hungarian")
    for _ in range(3):
        ledgers.round()
    ledgers.put_back("hungarian", kept)
    hostile(ledgers.desks["hungarian"])
    ledgers.rounds_until(lambda: accuse(ledgers, "hungarian", FORK, ROLLBACK), K)


def test_a_hospital_that_is_offline_for_long_is_not_accused_and_comes_back(ledgers: Ledgers) -> None:
    for _ in range(3 * TURNS):
        ledgers.round(away=[LIAR])
    assert not any(ledgers.alarms(site) for site in ledgers.everybody_but())
    for _ in range(4):
        ledgers.round()
    assert not any(ledgers.alarms(site) for site in ledgers.everybody_but())


def test_bulletins_that_are_held_back_are_noticed_as_silence_and_the_alarm_ends_with_them(ledgers: Ledgers) -> None:
    """A coordinator that keeps two groups apart cannot do so unseen."""
    honest = ledgers.recorder._gossiped
    ledgers.recorder._gossiped = lambda found: None if found.site == LIAR else honest(found)  # type: ignore[method-assign]
    ledgers.recorder._bulletins.pop(LIAR)
    ledgers.rounds_until(lambda: (SILENCE, LIAR) in ledgers.accused("cleveland"), TURNS * P + 2)
    assert not any(proven(alarm, ledgers.folders[LIAR].identity().public) for alarm in ledgers.alarms("cleveland"))
    ledgers.recorder._gossiped = honest  # type: ignore[method-assign]
    ledgers.rounds_until(lambda: not ledgers.alarms("cleveland"), 3)


def test_an_old_bulletin_brought_again_is_silence_too(ledgers: Ledgers) -> None:
    honest = ledgers.recorder._gossiped
    ledgers.recorder._gossiped = lambda found: None if found.site == LIAR else honest(found)  # type: ignore[method-assign]
    ledgers.rounds_until(lambda: (SILENCE, LIAR) in ledgers.accused("cleveland"), TURNS * P + 2)


def test_cosignatures_that_never_come_back_are_noticed_by_the_owner(ledgers: Ledgers) -> None:
    original = ledgers.recorder.beside
    ledgers.recorder.beside = lambda site: [  # type: ignore[method-assign]
        ask for ask in original(site) if site != LIAR or type(ask).__name__ != "Keep"
    ]
    ledgers.rounds_until(lambda: (SILENCE, COORDINATOR) in ledgers.accused(LIAR), TURNS + 2)
    ledgers.rounds_until(lambda: len(ledgers.accused(LIAR)) == 4, 2 * TURNS)
    assert not any(ledgers.alarms(site) for site in ledgers.everybody_but(LIAR))


def test_a_hospital_that_will_not_prove_a_head_that_others_hold_is_noticed(tmp_path: Path, made: Any) -> None:
    """Two histories whose author says nothing of the other one: no proof of a fork, and no peace either."""
    ledgers = made(tmp_path / "l", TwoFaces)
    for _ in range(5):
        ledgers.round()
    ledgers.split(LIAR, ["cleveland", "hungarian"])
    for desk in (ledgers.desks[LIAR], ledgers.other):
        desk.gossip.watch.own_sizes = list  # type: ignore[method-assign]
    ledgers.rounds_until(lambda: accuse(ledgers, LIAR, FORK, SILENCE), K + (PATIENCE + 1) * P)


def test_after_a_change_of_roster_the_attack_is_still_noticed_and_who_left_is_not_missed(ledgers: Ledgers) -> None:
    stay = [folder.identity() for site, folder in ledgers.folders.items() if site != "switzerland"]
    ledgers.follow(roster_of(stay, ledgers.coordinator, ledgers.roster))
    for _ in range(TURNS + 3):
        ledgers.round(away=["switzerland"])
    assert not any(ledgers.alarms(site) for site in ledgers.everybody_but())
    kept = ledgers.snapshot(LIAR)
    for _ in range(3):
        ledgers.round(away=["switzerland"])
    ledgers.put_back(LIAR, kept)
    hostile(ledgers.desks[LIAR])
    there = SimpleNamespace(everybody_but=lambda *n: ledgers.everybody_but(*n, "switzerland"), accused=ledgers.accused)
    ledgers.rounds_until(
        lambda: accuse(there, LIAR, FORK, ROLLBACK),
        K,
        away=["switzerland"],  # type: ignore[arg-type]
    )


@pytest.mark.slow
def test_two_hundred_honest_rounds_with_losses_and_restarts_raise_no_alarm(tmp_path: Path, made: Any) -> None:
    """A tenth of the answers is lost, processes of both sides start again, and one hospital is away for a while."""
    ledgers, dice = made(tmp_path / "l"), random.Random(20261129)
    for number in range(200):
        away = ["switzerland"] if 60 <= number < 75 else []
        ledgers.round(away=away, lost=lambda site: dice.random() < 0.1)
        for site in ledgers.folders:
            if dice.random() < 0.05:
                ledgers.restart(site)
        if dice.random() < 0.05:
            ledgers.start_recorder()
        watches = [ledgers.recorder.watch, *(desk.gossip.watch for desk in ledgers.desks.values())]
        raised = [alarm for watch in watches for alarm in watch.alarms()]
        assert not raised, (number, raised)
