"""A lost or stolen officer's key: nothing that rests on it runs until it is signed again, and nobody gains by it."""

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wardround.client.governance import open_domain
from wardround.client.store.fold import Fold, Misfit
from wardround.client.store.folder import SiteFolder
from wardround.client.store.ledger import stored_entries
from wardround.client.store.officers import Effect, roll_of
from wardround.client.store.verify import verify_file
from wardround.privacy.books import NotAllowed
from wardround.privacy.budget import Refused
from wardround.privacy.ledger import LedgerState
from wardround.protocol.entry import content_bytes, next_entry
from wardround.protocol.events import PoissonGaussian, Unprotected
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import (
    Abandon,
    BlockState,
    Grant,
    Inquiry,
    Officers,
    OpenDomain,
    OpenLedger,
    OpenSum,
    Recover,
    Release,
    Reserve,
    SignSurvivors,
    Start,
    Suspend,
    Waive,
    approve,
)

EVENT = PoissonGaussian(noise_multiplier=8.0, sampling_probability=0.25, steps=1, declared_patients=200)
REASON = "public data of 1988"
WAIVED = "ab" * 32


def suspend(hospital: Any, whose: Identity, by: Identity, reason: str = "stolen") -> None:
    hospital.ledger.record(hospital.approved(Suspend(key=whose.public.key.hex(), reason=reason), by))


def grant_again(hospital: Any, *by: Identity, version: int = 2) -> None:
    fact = Grant(domain="training", plan="plan", event=hospital.event, blocks=100, version=version)
    hospital.ledger.record(hospital.approved(fact, *by))


def domain_again(hospital: Any, *by: Identity, epsilon_cap: float = 8.0) -> None:
    hospital.ledger.record(hospital.approved(open_domain("training", epsilon_cap, 1e-4), *by))


def test_nothing_is_reserved_until_budget_and_grant_are_signed_again_by_another_key(hospital: Any) -> None:
    assert hospital.reserve("b1") is None
    spent = hospital.ledger.used("training")
    suspend(hospital, hospital.anna, hospital.ben)
    before = len(hospital.ledger.facts())
    refused = hospital.reserve("b2")
    assert isinstance(refused, Refused) and "key of 'anna', which was reported stolen" in refused.reason
    with pytest.raises(NotAllowed, match="budget of the data domain 'training' rests on"):
        grant_again(hospital, hospital.ben)
    with pytest.raises(NotAllowed, match="approves nothing any more"):
        domain_again(hospital, hospital.anna)
    assert len(hospital.ledger.facts()) == before
    domain_again(hospital, hospital.ben)
    assert isinstance(hospital.reserve("b2"), Refused), "the grant waits still"
    with pytest.raises(NotAllowed, match="approves nothing any more"):
        grant_again(hospital, hospital.anna)
    with pytest.raises(NotAllowed, match="approves nothing any more"):
        grant_again(hospital, hospital.ben, hospital.anna)
    grant_again(hospital, hospital.ben)
    assert hospital.ledger.used("training") == spent, "what was spent is not given back, and nothing is charged for it"
    assert hospital.reserve("b2") is None
    assert hospital.ledger.charged("plan") == 2
    verify_file(hospital.folder.database)


def test_what_another_officer_has_signed_too_stands(bare: Any) -> None:
    bare.ledger.record(bare.approved(open_domain("training", 8.0, 1e-4), bare.anna, bare.ben))
    fact = Grant(domain="training", plan="plan", event=bare.event, blocks=3)
    bare.ledger.record(bare.approved(fact, bare.anna, bare.ben))
    suspend(bare, bare.anna, bare.ben)
    assert bare.reserve("b1") is None
    suspend(bare, bare.ben, bare.ben, "lost")
    refused = bare.reserve("b2")
    assert (
        isinstance(refused, Refused)
        and "'anna'" in refused.reason
        and "'ben', which was reported lost" in refused.reason
    )


def test_a_budget_is_signed_again_on_the_terms_that_it_has_for_ever(hospital: Any) -> None:
    with pytest.raises(NotAllowed, match="open already"):
        domain_again(hospital, hospital.ben)
    suspend(hospital, hospital.anna, hospital.ben)
    with pytest.raises(NotAllowed, match="was opened with epsilon at most 8"):
        domain_again(hospital, hospital.ben, epsilon_cap=12.0)
    domain_again(hospital, hospital.ben)
    with pytest.raises(NotAllowed, match="open already"):
        domain_again(hospital, hospital.ben)


def test_a_waiver_does_not_survive_one_of_its_two_keys(bare: Any) -> None:
    carl = Identity.generate("carl")
    names = {one.site: one.public.key.hex() for one in (bare.anna, bare.ben, carl)}
    bare.ledger.record(bare.approved(Officers(version=2, officers=names), bare.anna, bare.ben))
    bare.ledger.record(bare.approved(open_domain("training", 8.0, 1e-4), carl))
    waiver = Waive(domain="training", plan=WAIVED, reason=REASON)
    bare.ledger.record(bare.approved(waiver, bare.anna, bare.ben))
    event = Unprotected(releases=1)
    bare.ledger.record(bare.approved(Grant(domain="training", plan=WAIVED, event=event, blocks=3), carl))

    def reserve(number: int) -> Refused | None:
        fact = Reserve(domain="training", block=f"b{number}", plan=WAIVED, round_number=number, event=event)
        found: Refused | None = bare.ledger.reserve(fact)
        return found

    assert reserve(1) is None
    suspend(bare, bare.anna, carl)
    assert isinstance(reserve(2), Refused)
    with pytest.raises(NotAllowed, match="needs the signatures of 2 officers"):
        bare.ledger.record(bare.approved(waiver, bare.ben))
    with pytest.raises(NotAllowed, match="approves nothing any more"):
        bare.ledger.record(bare.approved(waiver, bare.anna, bare.ben))
    again = Grant(domain="training", plan=WAIVED, event=event, blocks=3, version=2)
    with pytest.raises(NotAllowed, match="waiver of this plan rests on"):
        bare.ledger.record(bare.approved(again, carl))
    bare.ledger.record(bare.approved(waiver, bare.ben, carl))
    assert reserve(2) is None, "the grant was carl's and stands"


def test_a_round_that_runs_neither_starts_nor_leaves(hospital: Any) -> None:
    hospital.reserve("b1", number=1)
    hospital.reserve("b2", number=2)
    hospital.start("b2")
    hospital.reserve("b3", number=3)
    hospital.start("b3")
    hospital.release("b3")
    about = {"session": "aa" * 32, "plan": "plan", "round_number": 3, "survivors": "bb" * 32}
    hospital.ledger.record(SignSurvivors(attempt=1, **about))
    suspend(hospital, hospital.anna, hospital.ben)
    with pytest.raises(NotAllowed, match="waits to be signed again"):
        hospital.start("b1")
    for block, attempt in (("b2", 1), ("b3", 2)):
        with pytest.raises(NotAllowed, match="waits to be signed again"):
            hospital.release(block, attempt)
    opening = OpenSum(attempt=1, **about, sites=("north",), inputs="cc" * 32)
    for step in (SignSurvivors(attempt=2, **about), opening):
        with pytest.raises(NotAllowed, match="waits to be signed again"):
            hospital.ledger.record(step)
    hospital.ledger.recover("plan")
    states = {block.name: block.state for block in hospital.ledger.blocks()}
    assert states == {"b1": BlockState.CANCELLED, "b2": BlockState.ABANDONED, "b3": BlockState.RELEASED}
    assert hospital.ledger.charged("plan") == 2, "what may have drawn patients stays charged"


def test_what_stops_may_be_signed_while_the_budget_waits(hospital: Any) -> None:
    suspend(hospital, hospital.anna, hospital.ben)
    fact = Grant(domain="training", plan="plan", event=hospital.event, blocks=0, version=2)
    hospital.ledger.record(hospital.approved(fact, hospital.ben))
    assert hospital.ledger.state.grants["plan", "training"].fact.blocks == 0


@pytest.mark.parametrize("by", ["ben", "anna"])
def test_one_officer_is_enough_to_stop_and_the_owner_may_do_it_herself(hospital: Any, by: str) -> None:
    suspend(hospital, hospital.anna, getattr(hospital, by))
    assert isinstance(hospital.reserve("b1"), Refused)
    assert hospital.restart().state.suspended[hospital.anna.public.key.hex()].officer == "anna"


def test_nobody_else_suspends_a_key_and_none_that_was_never_named_or_is_suspended_already(hospital: Any) -> None:
    anna, stranger = hospital.anna.public.key.hex(), Identity.generate("carl")
    mine = Suspend(key=anna, reason="stolen")
    for signed in (
        mine,
        hospital.approved(mine, stranger),
        hospital.approved(mine, hospital.ben).model_copy(update={"reason": "lost"}),
        hospital.approved(Suspend(key=stranger.public.key.hex(), reason="lost"), hospital.ben),
    ):
        with pytest.raises(NotAllowed):
            hospital.ledger.record(signed)
    assert not hospital.ledger.state.suspended
    suspend(hospital, hospital.anna, hospital.ben)
    with pytest.raises(NotAllowed, match="suspended already"):
        suspend(hospital, hospital.anna, hospital.ben, "lost")


def test_a_thief_who_suspends_the_others_first_is_stopped_by_them_and_takes_over_nothing(hospital: Any) -> None:
    """anna's key is stolen. With it ben's is suspended, so that ben may sign nothing: but he can still stop anna's."""
    thief, own = hospital.anna, Identity.generate("mallory")
    suspend(hospital, hospital.ben, thief)
    for officers in ({"mallory": own.public.key.hex()}, {"anna": thief.public.key.hex()}):
        with pytest.raises(NotAllowed, match="2 officers"):
            hospital.ledger.record(hospital.approved(Officers(version=2, officers=officers), thief))
    suspend(hospital, hospital.anna, hospital.ben)
    assert isinstance(hospital.reserve("b1"), Refused)
    for officer in (hospital.anna, hospital.ben):
        with pytest.raises(NotAllowed, match="approves nothing any more"):
            domain_again(hospital, officer)
    assert isinstance(hospital.reserve("b1"), Refused)


def three(hospital: Any) -> Identity:
    carl = Identity.generate("carl")
    names = {one.site: one.public.key.hex() for one in (hospital.anna, hospital.ben, carl)}
    hospital.ledger.record(hospital.approved(Officers(version=2, officers=names), hospital.anna, hospital.ben))
    return carl


def test_of_three_officers_the_two_others_name_a_new_key_and_the_old_one_never_comes_back(hospital: Any) -> None:
    carl, renewed = three(hospital), Identity.generate("anna")
    suspend(hospital, hospital.anna, carl)
    keys = {"ben": hospital.ben.public.key.hex(), "carl": carl.public.key.hex()}
    later = Officers(version=3, officers=keys | {"anna": renewed.public.key.hex()})
    with pytest.raises(NotAllowed, match="2 officers"):
        hospital.ledger.record(hospital.approved(later, carl))
    with pytest.raises(NotAllowed, match="approves nothing any more"):
        hospital.ledger.record(hospital.approved(later, carl, hospital.anna))
    back = Officers(version=3, officers=keys | {"anna": hospital.anna.public.key.hex()})
    with pytest.raises(NotAllowed, match="never comes back"):
        hospital.ledger.record(hospital.approved(back, carl, hospital.ben))
    hospital.ledger.record(hospital.approved(later, carl, hospital.ben))
    domain_again(hospital, renewed)
    grant_again(hospital, renewed)
    assert hospital.reserve("b1") is None


def test_of_two_officers_the_other_goes_on_alone_but_can_name_and_recover_nothing(hospital: Any) -> None:
    suspend(hospital, hospital.anna, hospital.ben, "lost")
    domain_again(hospital, hospital.ben)
    grant_again(hospital, hospital.ben)
    assert hospital.reserve("b1") is None
    fresh = Officers(version=2, officers={"ben": hospital.ben.public.key.hex()})
    lost = Recover(seen_size=90, seen_root="ab" * 32, charges=(), reason="restored")
    lost = lost.model_copy(update={"charges": hospital.ledger.state.missing_charges(90)})
    for fact in (fresh, lost):
        with pytest.raises(NotAllowed, match="2 officers"):
            hospital.ledger.record(hospital.approved(fact, hospital.ben))


def test_a_key_that_left_the_list_can_still_be_suspended_with_all_that_it_signed(hospital: Any) -> None:
    carl = Identity.generate("carl")
    names = {"ben": hospital.ben.public.key.hex(), "carl": carl.public.key.hex()}
    hospital.ledger.record(hospital.approved(Officers(version=2, officers=names), hospital.anna, hospital.ben))
    assert hospital.reserve("b1") is None, "who has left has left what was signed"
    suspend(hospital, hospital.anna, carl)
    assert isinstance(hospital.reserve("b2"), Refused)


def test_a_suspended_officer_is_told_nothing_of_a_patient(hospital: Any) -> None:
    suspend(hospital, hospital.anna, hospital.ben)
    hospital.ledger.record(Inquiry(officer="ben"))
    with pytest.raises(NotAllowed, match="suspended"):
        hospital.ledger.record(Inquiry(officer="anna"))


def test_the_roll_lists_what_each_key_has_signed_and_what_of_it_waits(hospital: Any) -> None:
    def roll() -> Any:
        ledger = hospital.restart()
        return roll_of(ledger._store, "north", ledger.state)

    assert [(one.name, one.may_sign, len(one.signed)) for one in roll().keys] == [("anna", True, 2), ("ben", True, 0)]
    hospital.later(days=2)
    suspend(hospital, hospital.anna, hospital.ben)
    found = roll()
    anna, ben = found.keys
    assert (anna.reason, anna.at, anna.may_sign) == ("stolen", "2026-11-25T09:30:00Z", False)
    assert [(one.kind, one.effect) for one in anna.signed] == [
        ("open_domain", Effect.SUSPENDED),
        ("grant", Effect.SUSPENDED),
    ]
    assert [(one.kind, one.effect) for one in ben.signed] == [("suspend", Effect.DONE)]
    assert found.waiting == ("plan",)
    domain_again(hospital, hospital.ben)
    grant_again(hospital, hospital.ben)
    anna, ben = roll().keys
    assert [one.effect for one in anna.signed] == [Effect.REPLACED, Effect.REPLACED]
    assert [one.effect for one in ben.with_effect(Effect.STANDS)] == [Effect.STANDS, Effect.STANDS]
    assert roll().waiting == ()


def test_an_unknown_kind_stops_an_older_reader_with_a_sentence(hospital: Any) -> None:
    """What a version before this fact says of it: the same as this one of a fact that is still to come."""
    entries = list(stored_entries(hospital.ledger._store, "north"))
    suspend(hospital, hospital.anna, hospital.ben)
    (added,) = stored_entries(hospital.ledger._store, "north", len(entries))
    renamed = added.content.replace(b'"kind":"suspend"', b'"kind":"suspent"')
    fold = Fold()
    for entry in entries:
        fold.take(entry)
    with pytest.raises(Misfit, match="its kind or a field is unknown to this version"):
        fold.take(next_entry(entries[-1], renamed, hospital.folder.identity()))
    fold.take(next_entry(entries[-1], added.content, hospital.folder.identity()))
    assert len(fold.state.suspended) == 1


def test_a_suspension_that_was_written_holds_after_a_crash_and_one_that_was_not_left_no_trace(hospital: Any) -> None:
    """Killed between check and commit, as sqlite sees it: the transaction is gone. After the commit it holds."""
    hospital.reserve("b1", number=1)
    hospital.start("b1")
    fact = hospital.approved(Suspend(key=hospital.anna.public.key.hex(), reason="stolen"), hospital.ben)

    def die(_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hospital.ledger.record(fact, also=die)
    assert not hospital.restart().state.suspended
    assert hospital.reserve("b2", number=2) is None
    hospital.ledger.record(fact)
    ledger = hospital.restart()
    assert ledger.state.suspended
    with pytest.raises(NotAllowed, match="waits"):
        hospital.release("b1")
    ledger.recover("plan")
    assert isinstance(hospital.reserve("b3", number=3), Refused)
    assert hospital.ledger.charged("plan") == 1, "b1 is abandoned and stays charged, b2 drew nobody"


def test_another_process_sees_a_suspension_before_its_next_reservation(hospital: Any) -> None:
    other = hospital.folder.ledger(lambda: hospital.now)
    assert not other.state.suspended
    suspend(hospital, hospital.anna, hospital.ben)
    fact = Reserve(domain="training", block="b1", plan="plan", round_number=1, event=hospital.event)
    assert isinstance(other.reserve(fact), Refused)


def test_a_simulation_has_no_officers_and_suspends_nothing() -> None:
    state = LedgerState()
    state.apply(OpenLedger(site="north", key=None))
    state.apply(OpenDomain(domain="training", delta=1e-4, epsilon_cap=None, order=None))
    with pytest.raises(NotAllowed):
        state.apply(Suspend(key="ab" * 32, reason="lost"))
    state.apply(Grant(domain="training", plan="plan", event=EVENT, blocks=1))
    assert state.suspended_by("plan", "training") == ()


# Any order of events: an oracle of its own says, from the facts that were taken, what may run.


class World:
    """Four officers' keys, two domains, three plans (one of them waived), and whatever happens to be tried."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.site = Identity.generate("north")
        self.key = self.site.public.key.hex()
        self.people = [Identity.generate(name) for name in ("anna", "ben", "carl", "dora")]
        self.state = LedgerState()
        self.taken: list[Any] = []
        self.blocks = 0
        self.take(OpenLedger(site="north", key=self.key))
        self.take(Officers(version=1, officers={one.site: one.public.key.hex() for one in self.people}))

    def take(self, fact: Any) -> bool:
        try:
            self.state.apply(fact)
        except NotAllowed:
            return False
        self.taken.append(fact)
        return True

    def signed(self, fact: Any) -> Any:
        for officer in self.random.sample(self.people, self.random.choice((1, 1, 1, 2))):
            fact = approve(fact, self.key, officer)
        return fact

    def event(self, plan: str) -> Any:
        return Unprotected(releases=1) if plan == WAIVED else EVENT

    def step(self) -> Any:
        """One more fact, which may or may not be allowed."""
        draw = self.random
        plan, domain = draw.choice(("one", "two", WAIVED)), draw.choice(("training", "second"))
        grant = self.state.grants.get((plan, domain))
        block = draw.choice(list(self.state.blocks) or ["b0"])
        makers: dict[str, Callable[[], Any]] = {
            "domain": lambda: self.signed(open_domain(domain, 8.0, 1e-4)),
            "waive": lambda: self.signed(Waive(domain=domain, plan=WAIVED, reason=REASON)),
            "grant": lambda: self.signed(
                Grant(
                    domain=domain,
                    plan=plan,
                    event=self.event(plan),
                    blocks=50,
                    version=1 if grant is None else grant.fact.version + 1,
                )
            ),
            "suspend": lambda: self.signed(Suspend(key=draw.choice(self.people).public.key.hex(), reason="stolen")),
            "reserve": lambda: self.reservation(plan, domain),
            "start": lambda: Start(block=block),
            "release": lambda: Release(block=block, attempt=draw.randint(1, 3), content="00" * 32),
            "abandon": lambda: Abandon(block=block),
        }
        kinds = [
            "domain",
            "waive",
            "grant",
            "grant",
            *["reserve"] * 6,
            "start",
            "start",
            "release",
            "release",
            "abandon",
        ]
        return makers[draw.choice([*kinds, *(["suspend"] if draw.random() < 0.4 else [])])]()

    def reservation(self, plan: str, domain: str) -> Reserve:
        self.blocks += 1
        name, number = f"b{self.blocks}", self.blocks
        return Reserve(domain=domain, block=name, plan=plan, round_number=number, event=self.event(plan))

    def may_run(self, plan: str, domain: str) -> bool:
        """The rule in other words: of the newest fact of each kind, the keys that stand are enough."""
        gone = {fact.key for fact in self.taken if isinstance(fact, Suspend)}

        def left(kind: type, *about: str) -> int:
            for fact in reversed(self.taken):
                if isinstance(fact, kind) and (fact.domain, *([fact.plan] if about[1:] else [])) == about:
                    return len({approval.key for approval in fact.approvals if approval.key not in gone})
            return 0

        waived = plan != WAIVED or left(Waive, domain, plan) >= 2
        return left(OpenDomain, domain) >= 1 and left(Grant, domain, plan) >= 1 and waived


def test_in_no_order_of_events_is_anything_reserved_started_or_released_on_too_few_keys() -> None:
    seen: Counter[str] = Counter()
    for seed in range(60):
        world = World(seed)
        for _ in range(120):
            fact = world.step()
            about = world.state.blocks.get(getattr(fact, "block", ""))
            plan, domain = (
                (fact.plan, fact.domain)
                if isinstance(fact, Reserve)
                else (about.plan, about.domain)
                if about
                else ("", "")
            )
            stands = world.may_run(plan, domain)
            before = bool(world.state.suspended)
            if world.take(fact) and isinstance(fact, Reserve | Start | Release):
                assert stands, (seed, fact)
                seen[f"{fact.kind} after a suspension"] += before
            elif isinstance(fact, Reserve) and (plan, domain) in world.state.grants and not stands:
                seen["reserve refused for a key"] += 1
            elif isinstance(fact, Reserve) and stands and world.state.grants[plan, domain].left:
                raise AssertionError(f"seed {seed}: refused though enough keys stand: {fact}")
    assert min(seen[f"{kind} after a suspension"] for kind in ("reserve", "start", "release")) > 20, seen
    assert seen["reserve refused for a key"] > 100, seen


def test_a_ledger_with_a_suspension_is_the_same_for_every_reader(hospital: Any, tmp_path: Path) -> None:
    suspend(hospital, hospital.anna, hospital.ben)
    domain_again(hospital, hospital.ben)
    fold = Fold()
    for entry in stored_entries(hospital.ledger._store, "north"):
        fold.take(entry)
    assert fold.state.suspended == hospital.restart().state.suspended
    assert fold.state.suspended_plans() == {"plan"}
    found = verify_file(hospital.folder.database)
    assert [(spent.domain, spent.blocks) for spent in found.domains] == [("training", 0)]
    assert content_bytes("2026-11-23T09:30:00Z", hospital.ledger.facts()[-2]).count(b'"kind":"suspend"') == 1
    assert SiteFolder.open(hospital.folder.path).ledger().state.suspended == fold.state.suspended
