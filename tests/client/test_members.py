"""A patient is in one domain and one part, once for all studies; a patient's question is answered from the ledger."""

import hmac
import random
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from wardround.client.patient_record import PatientRecord, patient_record
from wardround.client.store.database import open_store
from wardround.client.store.members import Members, Part, always, one_a_year
from wardround.client.store.opt_outs import OptOuts
from wardround.privacy.accounting import epsilon
from wardround.protocol.errors import Unavailable, UsageError, WardroundError
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.ledger import Recover

EVENT = PoissonGaussian(noise_multiplier=2.0, sampling_probability=0.25, steps=5, declared_patients=200)
KEY = bytes(range(32))
IN_2026 = datetime(2026, 6, 1, tzinfo=UTC)


def ids(first: int, last: int) -> list[str]:
    return [f"MRN-{number:06d}" for number in range(first, last)]


@pytest.fixture
def members(tmp_path: Path) -> Members:
    return Members(open_store(tmp_path / "site.sqlite"), KEY, lambda: IN_2026)


def of(hospital: Any) -> Members:
    return Members(hospital.ledger._store, hospital.folder.patients_key(), lambda: hospital.now)


def count(members: Members) -> int:
    return int(members.store.execute("SELECT count(*) FROM members").fetchone()[0])


def test_a_patient_is_kept_by_a_keyed_hash_and_nothing_of_the_id_is_on_the_disk(tmp_path: Path) -> None:
    members = Members(open_store(tmp_path / "site.sqlite"), KEY)
    members.enrol(["CANARY-4711"], "training", Part.TRAIN)
    members.merge("CANARY-4711", "CANARY-4712")
    OptOuts(members).update(["CANARY-4713"])
    expected = hmac.new(KEY, b"wardround/member/1\x00CANARY-4711", sha256).digest()
    assert members.store.execute("SELECT patient FROM members").fetchall() == [(expected,)]
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert expected in written and b"CANARY" not in written
    assert b"CANARY-4711"[::-1] not in written and sha256(b"CANARY-4711").digest() not in written


def test_another_key_knows_nobody(members: Members) -> None:
    members.enrol(ids(0, 9), "training", Part.TRAIN)
    assert Members(members.store, bytes(32)).parts(ids(0, 9)) == [None] * 9


def test_spaces_around_an_id_do_not_make_another_patient(members: Members) -> None:
    members.enrol(["4711"], "training", Part.TRAIN)
    assert members.parts([" 4711\t", "04711", "471"]) == [Part.TRAIN, None, None]


def test_enrolling_again_changes_nothing(members: Members) -> None:
    assert members.enrol(ids(0, 10), "training", Part.TRAIN) == 10
    assert members.enrol(ids(5, 12) * 2, "training", Part.TRAIN) == 2
    assert count(members) == 12


@pytest.mark.parametrize(("first", "then"), [(Part.TRAIN, Part.TEST), (Part.TEST, Part.TRAIN)])
def test_a_later_study_moves_nobody_between_training_and_testing(members: Members, first: Part, then: Part) -> None:
    members.enrol(ids(0, 10), f"of-{first}", first)
    with pytest.raises(UsageError, match=r"^3 of 13 patients are \w+ patients of this site") as refused:
        members.enrol(ids(7, 20), f"of-{then}", then)
    assert "MRN" not in refused.value.lines()
    assert count(members) == 10 and members.parts(ids(7, 11)) == [first] * 3 + [None]


def test_a_second_domain_for_a_patient_is_refused_and_nobody_is_enrolled(members: Members) -> None:
    members.enrol(ids(0, 10), "training", Part.TRAIN)
    with pytest.raises(UsageError, match=r"^1 of 6 patients belong to another data domain than 'second'") as refused:
        members.enrol(ids(9, 15), "second", Part.TRAIN)
    assert "MRN" not in refused.value.lines() and count(members) == 10
    assert members.enrol(ids(10, 15), "second", Part.TRAIN) == 5


def test_a_domain_holds_training_or_test_patients_never_both(members: Members) -> None:
    members.enrol(ids(0, 5), "training", Part.TRAIN)
    with pytest.raises(UsageError, match="holds train patients"):
        members.enrol(ids(5, 9), "training", Part.TEST)
    assert count(members) == 5


def test_the_domains_of_a_cohort_are_what_a_round_is_charged_to(members: Members) -> None:
    members.enrol(ids(0, 5), "b", Part.TRAIN)
    members.enrol(ids(5, 9), "a", Part.TRAIN)
    assert members.domains(ids(0, 3)) == ("b",) and members.domains(ids(3, 7)) == ("a", "b")
    with pytest.raises(UsageError, match=r"^2 of 4 patients are in no data domain"):
        members.domains(ids(7, 11))


def test_admission_divides_by_the_hash_and_is_the_same_whoever_else_comes(members: Members, tmp_path: Path) -> None:
    late = Members(open_store(tmp_path / "late.sqlite"), KEY, lambda: IN_2026)
    everyone = ids(0, 4000)
    members.admit(everyone, test_share=0.25)
    shuffled = random.Random(3).sample(everyone, len(everyone))
    for start in range(0, 4000, 500):
        late.admit(shuffled[start : start + 500], test_share=0.25)
    assert members.parts(everyone) == late.parts(everyone)
    # 4 standard deviations of a binomial with n = 4000, p = 1/4 are 110.
    assert abs(members.parts(everyone).count(Part.TEST) - 1000) < 110
    assert members.domains(everyone) == ("test", "training")


def test_another_test_share_moves_nobody_who_is_known(members: Members) -> None:
    members.admit(ids(0, 200), test_share=0.5)
    before = members.parts(ids(0, 200))
    assert members.admit(ids(0, 300), test_share=0.0) == 100
    assert members.parts(ids(0, 200)) == before and Part.TEST in before
    assert members.parts(ids(200, 300)) == [Part.TRAIN] * 100


def test_new_patients_enter_the_period_that_is_open_and_old_ones_stay(tmp_path: Path) -> None:
    now = [IN_2026]
    members = Members(open_store(tmp_path / "site.sqlite"), KEY, lambda: now[0])
    members.admit(ids(0, 50), test_share=0.0, period=one_a_year)
    now[0] = datetime(2027, 1, 1, tzinfo=UTC)
    assert members.admit(ids(0, 60), test_share=0.0, period=one_a_year) == 10
    assert members.domains(ids(0, 50)) == ("training-2026",) and members.domains(ids(50, 60)) == ("training-2027",)
    with pytest.raises(UsageError, match="another data domain"):
        members.enrol(ids(0, 1), "training-2027", Part.TRAIN)
    assert always(IN_2026).domain(Part.TEST) == "test" and one_a_year(IN_2026).domain(Part.TEST) == "test-2026"


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_test_share_that_is_none_is_refused(members: Members, share: float) -> None:
    with pytest.raises(UsageError, match="test share"):
        members.admit(ids(0, 5), test_share=share)


def test_a_merged_person_belongs_to_the_domains_of_both_ids(members: Members) -> None:
    members.enrol(["a"], "one", Part.TRAIN)
    members.enrol(["b"], "two", Part.TRAIN)
    members.merge("a", "b")
    assert members.domains(["a"]) == members.domains(["b"]) == ("one", "two")
    # Two ids of one person are drawn as one patient, and only where both domains are charged.
    assert members.may_be_drawn(["a", "b"], ("one", "two")) == [True, False]
    assert members.may_be_drawn(["b"], ("one", "two")) == [True]
    assert members.may_be_drawn(["a", "b"], ("one",)) == [False, False]


def test_merging_is_transitive_and_doing_it_again_changes_nothing(members: Members) -> None:
    for id_ in "abc":
        members.enrol([id_], f"of-{id_}", Part.TRAIN)
    members.merge("b", "c")
    members.merge("a", "c")
    members.merge("c", "b")
    assert {members.domains([id_]) for id_ in "abc"} == {("of-a", "of-b", "of-c")}
    assert len(set(members.same_person(members.hashed("abc")))) == 1


def test_a_new_id_of_a_known_patient_brings_no_new_budget(members: Members) -> None:
    members.enrol(["a"], "training-2026", Part.TRAIN)
    members.merge("a", "b")
    assert members.admit(["b"], test_share=0.0, period=lambda now: one_a_year(now.replace(year=2027))) == 0
    assert members.domains(["b"]) == ("training-2026",)
    with pytest.raises(UsageError, match="another data domain"):
        members.enrol(["b"], "training-2027", Part.TRAIN)


def test_a_person_of_both_parts_is_in_neither(members: Members) -> None:
    members.enrol(["a"], "training", Part.TRAIN)
    members.enrol(["b"], "test", Part.TEST)
    members.merge("a", "b")
    assert members.parts(["a", "b"]) == [None, None]
    assert members.may_be_drawn(["a", "b"], ("test", "training")) == [False, False]
    assert members.may_be_drawn(["a", "b"], ("test", "training"), (Part.TEST,)) == [False, False]


def test_ids_that_nobody_knows_are_not_merged(members: Members) -> None:
    with pytest.raises(UsageError, match="neither of these ids") as refused:
        members.merge("CANARY-1", "CANARY-2")
    assert "CANARY" not in refused.value.lines()
    assert members.same_person(members.hashed(["CANARY-1"])) == members.hashed(["CANARY-1"])


def test_a_hundred_thousand_patients_take_seconds(members: Members) -> None:
    everyone = ids(0, 100_000)
    started = time.process_time()
    members.admit(everyone, test_share=0.2)
    members.may_be_drawn(everyone, ("training",))
    assert time.process_time() - started < 20, "they take 2 s of a processor"
    assert count(members) == 100_000


def enrolled_at(path: Path, domain: str, at: float) -> bool:
    members = Members(open_store(path), KEY)
    time.sleep(max(0.0, at - time.time()))
    try:
        members.enrol(ids(0, 500), domain, Part.TRAIN)
    except UsageError:
        return False
    return True


def test_of_two_processes_that_enrol_the_same_patients_elsewhere_exactly_one_wins(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4, mp_context=get_context("fork")) as pool:
        for attempt in range(4):
            path = tmp_path / f"{attempt}.sqlite"
            open_store(path).close()
            at = time.time() + 0.2
            futures = [pool.submit(enrolled_at, path, f"domain-{number}", at) for number in range(4)]
            assert sum(future.result() for future in futures) == 1
            rows = open_store(path).execute("SELECT count(*), count(DISTINCT domain) FROM members").fetchall()
            assert rows == [(500, 1)]


def test_a_file_that_cannot_be_written_is_an_error_of_two_lines(members: Members) -> None:
    members.store.execute("PRAGMA query_only = ON")
    with pytest.raises(Unavailable, match="cannot be used") as refused:
        members.enrol(["CANARY"], "training", Part.TRAIN)
    assert "CANARY" not in refused.value.lines() and not members.store.in_transaction


# The answer to one patient's question.


def asked(hospital: Any, id_: str) -> PatientRecord:
    members = of(hospital)
    ledger = hospital.ledger
    return patient_record(ledger._store, "north", ledger.state, members, OptOuts(members), id_)


def run(hospital: Any, number: int, domain: str = "training", release: bool = True) -> None:
    block = f"{domain}/{number}"
    assert hospital.reserve(block, domain=domain, number=number) is None
    hospital.start(block)
    if release:
        hospital.release(block)


def numbers(record: PatientRecord) -> list[tuple[str, int]]:
    return [(row.domain, row.round_number) for study in record.studies for row in study.rounds]


def test_only_rounds_that_began_while_enrolled_and_not_opted_out_count(hospital: Any) -> None:
    # All of it within one second of the clock: the entries' order decides.
    members, opt_outs = of(hospital), OptOuts(of(hospital))
    run(hospital, 1)
    members.enrol(["a"], "training", Part.TRAIN)
    run(hospital, 2)
    opt_outs.update(["a"])
    run(hospital, 3)
    opt_outs.update(["a", "b"])
    opt_outs.update(["b"])
    run(hospital, 4, release=False)
    record = asked(hospital, "a")
    assert numbers(record) == [("training", 2), ("training", 4)]
    (absence,) = record.opted_out
    assert absence.since == absence.until == "2026-11-23T09:30:00Z"
    assert [len(row.sent) for row in record.studies[0].rounds] == [1, 0]
    assert record.studies[0].rounds[0].sent[0].content == "00" * 32


def test_who_may_be_drawn_is_settled_when_the_round_is_reserved(hospital: Any) -> None:
    members, opt_outs = of(hospital), OptOuts(of(hospital))
    members.enrol(["a"], "training", Part.TRAIN)
    hospital.reserve("b1", number=1)
    opt_outs.update(["a"])
    members.enrol(["late"], "training", Part.TRAIN)
    hospital.start("b1")
    hospital.reserve("b2", number=2)
    opt_outs.update([])
    hospital.start("b2")
    assert numbers(asked(hospital, "a")) == [("training", 1)]
    assert numbers(asked(hospital, "late")) == [("training", 2)]


def test_an_opt_out_that_ended_and_began_anew_never_ended(hospital: Any) -> None:
    members, opt_outs = of(hospital), OptOuts(of(hospital))
    members.enrol(["a"], "training", Part.TRAIN)
    for wanted in (["a"], [], ["a"]):
        opt_outs.update(wanted)
    run(hospital, 1)
    assert numbers(asked(hospital, "a")) == []
    assert [absence.until for absence in asked(hospital, "a").opted_out] == [None]


def test_a_round_that_was_cancelled_drew_nobody(hospital: Any) -> None:
    of(hospital).enrol(["a"], "training", Part.TRAIN)
    hospital.reserve("b1", number=1)
    hospital.ledger.recover("plan")
    assert numbers(asked(hospital, "a")) == []


def test_epsilon_is_of_the_rounds_that_could_have_drawn_the_patient(hospital: Any) -> None:
    run(hospital, 1)
    of(hospital).enrol(["a"], "training", Part.TRAIN)
    run(hospital, 2)
    run(hospital, 3)
    (domain,) = asked(hospital, "a").domains
    assert domain.epsilon == pytest.approx(epsilon([EVENT, EVENT], 1e-4)) and domain.delta == 1e-4
    spent, allowance = hospital.ledger.used("training")
    assert domain.share_left == pytest.approx(1 - spent / allowance) and domain.epsilon_cap == 8.0
    assert domain.part is Part.TRAIN and domain.since == "2026-11-23T09:30:00Z"


def test_what_a_recovery_charged_counts_for_everybody(hospital: Any) -> None:
    of(hospital).enrol(["a"], "training", Part.TRAIN)
    size = hospital.ledger.state.size + 3
    charges = hospital.ledger.state.missing_charges(size)
    fact = Recover(seen_size=size, seen_root="ab" * 32, charges=charges, reason="disk")
    hospital.ledger.record(hospital.approved(fact, hospital.anna, hospital.ben))
    (domain,) = asked(hospital, "a").domains
    assert charges[0].blocks == 3 and domain.epsilon == pytest.approx(epsilon([EVENT] * 3, 1e-4))


def test_a_merged_patient_hears_of_both_domains(hospital: Any) -> None:
    hospital.open("second")
    hospital.grant(domain="second")
    members = of(hospital)
    members.enrol(["a"], "training", Part.TRAIN)
    members.enrol(["b"], "second", Part.TRAIN)
    OptOuts(members).update(["b"])
    run(hospital, 1)
    run(hospital, 2, "second")
    members.merge("a", "b")
    run(hospital, 3)
    for id_ in ("a", "b"):
        record = asked(hospital, id_)
        # Before the merge the opt-out of b did not keep a out; after it, it does.
        assert numbers(record) == [("training", 1)]
        assert [domain.domain for domain in record.domains] == ["training", "second"]
        assert record.merged_since == ("2026-11-23T09:30:00Z",)
    OptOuts(members).update([])
    run(hospital, 4)
    assert numbers(asked(hospital, "b")) == [("training", 1), ("training", 4)]


def test_a_person_of_both_parts_could_be_drawn_until_the_merge_only(hospital: Any) -> None:
    members = of(hospital)
    members.enrol(["a"], "training", Part.TRAIN)
    members.enrol(["b"], "test", Part.TEST)
    run(hospital, 1)
    members.merge("a", "b")
    run(hospital, 2)
    assert numbers(asked(hospital, "a")) == [("training", 1)]


def test_nothing_is_known_of_a_stranger_and_of_a_domain_that_no_officer_opened(hospital: Any) -> None:
    assert asked(hospital, "a") == PatientRecord((), (), (), ()) and not asked(hospital, "a").known
    of(hospital).enrol(["a"], "unopened", Part.TRAIN)
    (domain,) = asked(hospital, "a").domains
    assert (domain.epsilon, domain.epsilon_cap, domain.share_left, domain.delta) == (None, None, None, None)


def test_no_error_of_this_module_holds_an_id(members: Members) -> None:
    members.enrol(["CANARY-1"], "one", Part.TRAIN)
    wrong = (
        lambda: members.enrol(["CANARY-1"], "two", Part.TRAIN),
        lambda: members.enrol(["CANARY-1"], "two", Part.TEST),
        lambda: members.domains(["CANARY-2"]),
        lambda: members.merge("CANARY-3", "CANARY-4"),
    )
    for act in wrong:
        with pytest.raises(WardroundError) as error:
            act()
        assert "CANARY" not in error.value.lines()
