"""Properties of composition and of the filter, whoever chooses the releases, and however late the choice is made.

An adversary sees what is left and what every release would cost, and picks the next one, until it is refused. The
accountant then looks at what really happened. Releases of many kinds are judged by the Renyi bound, which is instant;
few kinds by both bounds, because losses are computed for each kind.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wardround.privacy.accounting import epsilon
from wardround.privacy.books import NotAdmitted, NotAllowed, repeated
from wardround.privacy.budget import UNITS, Allowed, Refused, allowance, cost, delta_for, fits, fixed_order
from wardround.privacy.ledger import LedgerState
from wardround.privacy.rdp import conversion, gaussian_rdp, rdp_epsilon
from wardround.protocol.events import PoissonGaussian, Unprotected
from wardround.protocol.ledger import (
    Abandon,
    BlockState,
    Cancel,
    Grant,
    OpenDomain,
    OpenLedger,
    Release,
    Reserve,
    Start,
)

Kind = tuple[float, float]
"""noise multiplier, sampling probability"""

FEW_KINDS: tuple[Kind, ...] = ((2.0, 0.1), (1.2, 0.02), (6.0, 0.25), (4.0, 1.0))
FEW_DOMAINS = ((1.0, 1e-4), (3.0, 1e-4), (8.0, 1e-4), (3.0, 1e-6))

kinds = st.tuples(st.floats(0.4, 60.0), st.one_of(st.floats(1e-4, 1.0), st.just(1.0)))
domains = st.tuples(st.floats(0.8, 12.0), st.sampled_from([1e-3, 1e-4, 1e-5, 1e-6]))


def gaussian(kind: Kind, steps: int = 1) -> PoissonGaussian:
    return PoissonGaussian(noise_multiplier=kind[0], sampling_probability=kind[1], steps=steps, declared_patients=200)


events = st.builds(gaussian, kinds, st.integers(1, 500))
few_events = st.builds(gaussian, st.sampled_from(FEW_KINDS), st.integers(1, 60))


def ledger(cap: float, delta: float) -> LedgerState:
    """A ledger without keys, so that nobody need sign, with one domain."""
    state = LedgerState()
    state.apply(OpenLedger(site="north", key=None))
    state.apply(OpenDomain(domain="d", delta=delta, epsilon_cap=cap, order=fixed_order(cap, delta)))
    return state


@dataclass
class Adversary:
    """Plays against the ledger's filter, and keeps its own list of what was run."""

    cap: float
    delta: float
    state: LedgerState = field(init=False)
    ran: list[PoissonGaussian] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state = ledger(self.cap, self.delta)

    @property
    def headroom(self) -> int:
        domain = self.state.domains["d"]
        assert domain.allowance is not None
        return domain.allowance - domain.spent

    def price_of_a_step(self, kind: Kind) -> int:
        return cost(gaussian(kind), fixed_order(self.cap, self.delta))

    def run(self, event: PoissonGaussian) -> bool:
        """Whether a new plan with this event is let through; then it runs at once."""
        name = f"p{len(self.state.grants)}"
        self.state.apply(Grant(domain="d", plan=name, event=event, blocks=1))
        try:
            self.state.apply(Reserve(domain="d", block=f"{name}/1", plan=name, round_number=1, event=event))
        except NotAdmitted:
            return False
        self.state.apply(Start(block=f"{name}/1"))
        self.ran.append(event)
        return True

    def spend(self, choose: Callable[["Adversary"], tuple[Kind, float]], times: int) -> None:
        """Ask ``times`` times for a kind and a share of what is left, above 1 at will; then take the rest of it."""
        kind: Kind = FEW_KINDS[0]
        for _ in range(times):
            kind, share = choose(self)
            self.run(gaussian(kind, max(1, int(share * self.headroom) // self.price_of_a_step(kind))))
        if rest := self.headroom // self.price_of_a_step(kind):
            # Prices are rounded up for each event, so all the steps together cost no more than one by one.
            assert self.run(gaussian(kind, rest)), "what fits is not refused"
        assert not self.run(gaussian(kind, max(1, rest))) or rest == 0


# Composition


@settings(max_examples=200, deadline=None)
@given(st.lists(events, min_size=1, max_size=8), st.randoms(), st.sampled_from([1e-3, 1e-5]))
def test_the_renyi_bound_does_not_depend_on_the_order(chosen: list[PoissonGaussian], random, delta: float) -> None:
    shuffled = list(chosen)
    random.shuffle(shuffled)
    assert rdp_epsilon(shuffled, delta) == pytest.approx(rdp_epsilon(chosen, delta), rel=1e-12)


@settings(max_examples=200, deadline=None)
@given(st.lists(events, max_size=8), events, st.sampled_from([1e-3, 1e-5]))
def test_the_renyi_bound_never_falls_when_an_event_is_added(
    chosen: list[PoissonGaussian], more: PoissonGaussian, delta: float
) -> None:
    assert rdp_epsilon([*chosen, more], delta) >= rdp_epsilon(chosen, delta)


@settings(max_examples=100, deadline=None)
@given(st.lists(events, min_size=1, max_size=6), st.randoms())
def test_a_ledger_has_spent_the_same_units_in_whatever_order_plans_ran(chosen: list[PoissonGaussian], random) -> None:
    spent = []
    for _ in range(2):
        adversary = Adversary(1e9, 1e-4)  # a cap beyond all wishes, so that only the order differs
        state = adversary.state
        for number, event in enumerate(chosen):
            state.apply(Grant(domain="d", plan=f"p{number}", event=event, blocks=2))
        rounds = [(number, round_number) for number in range(len(chosen)) for round_number in (1, 2)]
        random.shuffle(rounds)
        for number, round_number in rounds:
            block, event = f"{number}/{round_number}", chosen[number]
            state.apply(Reserve(domain="d", block=block, plan=f"p{number}", round_number=round_number, event=event))
        spent.append(state.domains["d"].spent)
    assert spent[0] == spent[1] == sum(2 * cost(event, fixed_order(1e9, 1e-4)) for event in chosen)


@settings(max_examples=8, deadline=None)
@given(st.lists(few_events, min_size=2, max_size=4), st.randoms(), st.sampled_from([1e-4, 1e-6]))
@example([gaussian((2.0, 0.1), 1), gaussian((4.0, 1.0), 60), gaussian((2.0, 0.1), 59)], Random(1), 1e-4)
def test_the_epsilon_of_a_ledgers_history_is_that_of_any_other_order(
    chosen: list[PoissonGaussian], random, delta: float
) -> None:
    shuffled = list(chosen)
    random.shuffle(shuffled)
    found = []
    for history in (chosen, shuffled):
        adversary = Adversary(1e6, delta)
        assert all(adversary.run(event) for event in history)
        found.append(epsilon(repeated(adversary.state.events(domain="d")), delta))
    assert found[0] == found[1] == epsilon(chosen, delta)


@settings(max_examples=8, deadline=None)
@given(st.lists(few_events, max_size=3), few_events, st.sampled_from([1e-4, 1e-6]))
@example([], gaussian((1.2, 0.02)), 1e-4)
@example([gaussian((4.0, 1.0), 60)], gaussian((6.0, 0.25)), 1e-6)
def test_epsilon_never_falls_when_an_event_is_added(
    chosen: list[PoissonGaussian], more: PoissonGaussian, delta: float
) -> None:
    # A rounding of the accountant's may hide an event that costs next to nothing; 1e-9 is far below what is shown.
    assert epsilon([*chosen, more], delta) >= epsilon(chosen, delta) - 1e-9
    assert rdp_epsilon([*chosen, more], delta) > rdp_epsilon(chosen, delta)


# Integers


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**30), st.integers(1, 10**30), st.sampled_from([-1, 0, 1]))
@example(2**60, 1, -1)
@example(2**53, 1, -1)
@example(0, 1, 0)
def test_the_comparison_is_exact_far_beyond_what_a_float_can_hold(spent: int, price: int, room: int) -> None:
    answer = fits(spent, price, spent + price + room, 3)
    if room < 0:
        assert isinstance(answer, Refused)
    else:
        assert answer == Allowed(spent + price, room)
        assert type(answer.spent) is type(answer.headroom) is int


@settings(max_examples=200, deadline=None)
@given(events, st.integers(2, 30))
def test_a_cost_is_an_integer_that_is_never_below_the_divergence(event: PoissonGaussian, order: int) -> None:
    price = cost(event, order)
    divergence = event.steps * gaussian_rdp(event.noise_multiplier, event.sampling_probability, order)
    assert type(price) is int
    assert price >= divergence * UNITS * (1 - 1e-10)
    assert price <= divergence * UNITS * (1 + 1e-10) + 1
    # One more step always costs more.
    assert cost(event.model_copy(update={"steps": event.steps + 1}), order) > price


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 10**9))
def test_delta_stays_below_a_tenth_of_one_in_the_patients(patients: int) -> None:
    assert 0.01 * (1 - 1e-12) <= delta_for(patients) * patients <= 0.1 * (1 + 1e-12)


# The filter against an adaptive adversary


@settings(max_examples=150, deadline=None)
@given(domains, st.data())
def test_no_adaptive_choice_of_any_kinds_gets_the_renyi_epsilon_above_the_cap(
    domain: tuple[float, float], data
) -> None:
    cap, delta = domain
    adversary = Adversary(cap, delta)
    known: list[Kind] = []

    def choose(seen: Adversary) -> tuple[Kind, float]:
        # Knows its own history: comes back to the kind that costs this filter least, or takes a new one.
        best = min(
            known, key=lambda kind: seen.price_of_a_step(kind) / rdp_epsilon([gaussian(kind)], delta), default=None
        )
        kind = data.draw(kinds if best is None else st.one_of(st.just(best), kinds))
        known.append(kind)
        return kind, data.draw(st.floats(0.0, 1.2))

    adversary.spend(choose, data.draw(st.integers(1, 5)))
    order = fixed_order(cap, delta)
    divergence = sum(e.steps * gaussian_rdp(e.noise_multiplier, e.sampling_probability, order) for e in adversary.ran)
    assert divergence + conversion(order, delta) <= cap * (1 + 1e-12)
    assert rdp_epsilon(adversary.ran, delta) <= cap * (1 + 1e-12)
    assert sum(cost(event, order) for event in adversary.ran) <= allowance(cap, delta, order)


def assert_the_accountant_is_below_the_cap(cap: float, delta: float, ran: list[PoissonGaussian]) -> None:
    value = epsilon(ran, delta)
    assert value <= cap, f"{len(ran)} admitted events cost epsilon {value} at delta {delta}; the cap is {cap}"


@pytest.mark.parametrize(("cap", "delta"), FEW_DOMAINS)
def test_a_domain_spent_to_the_end_with_one_kind_is_below_its_cap(cap: float, delta: float) -> None:
    adversary = Adversary(cap, delta)
    adversary.spend(lambda _: (FEW_KINDS[0], 1.0), 1)
    assert_the_accountant_is_below_the_cap(cap, delta, adversary.ran)
    assert epsilon(adversary.ran, delta) > 0.7 * cap, "the filter is not so cautious that the test proves nothing"


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(FEW_DOMAINS), st.data())
def test_no_adaptive_choice_gets_the_smaller_of_both_epsilons_above_the_cap(domain: tuple[float, float], data) -> None:
    cap, delta = domain
    adversary = Adversary(cap, delta)

    def choose(seen: Adversary) -> tuple[Kind, float]:
        # What it has seen decides: while there is room it may be bold, near the end it must take what fits.
        rich = seen.headroom > allowance(cap, delta, fixed_order(cap, delta)) // 4
        return data.draw(st.sampled_from(FEW_KINDS)), data.draw(st.floats(0.1, 0.9) if rich else st.floats(0.9, 1.1))

    adversary.spend(choose, data.draw(st.integers(1, 4)))
    assert_the_accountant_is_below_the_cap(cap, delta, adversary.ran)


def test_an_event_without_a_bound_is_refused_and_costs_nothing() -> None:
    adversary = Adversary(8.0, 1e-4)
    for event in (Unprotected(releases=1), gaussian((1e-12, 0.5))):
        with pytest.raises(NotAllowed):
            adversary.state.apply(Grant(domain="d", plan="p", event=event, blocks=1))
    assert adversary.state.domains["d"].spent == 0


class Rounds(RuleBasedStateMachine):
    """Blocks reserved, started, cancelled, released, abandoned in any order; the machine counts for itself."""

    @initialize(cap=st.sampled_from([1.0, 3.0, 8.0]), delta=st.sampled_from([1e-3, 1e-4, 1e-6]))
    def open(self, cap: float, delta: float) -> None:
        self.cap, self.delta, self.order = cap, delta, fixed_order(cap, delta)
        self.state = ledger(cap, delta)
        self.plans: list[PoissonGaussian] = []
        self.blocks: dict[str, tuple[PoissonGaussian, str]] = {}
        """Name -> (event, what became of it), by our own count."""

    @rule(kind=kinds, share=st.floats(0.01, 0.6), blocks=st.integers(1, 4))
    def grant(self, kind: Kind, share: float, blocks: int) -> None:
        price = cost(gaussian(kind), self.order)
        steps = max(1, int(share * allowance(self.cap, self.delta, self.order)) // price)
        self.plans.append(gaussian(kind, steps))
        self.state.apply(Grant(domain="d", plan=f"p{len(self.plans) - 1}", event=self.plans[-1], blocks=blocks))

    @precondition(lambda self: self.plans)
    @rule(data=st.data())
    def reserve(self, data) -> None:
        number = data.draw(st.integers(0, len(self.plans) - 1))
        event, name = self.plans[number], f"b{len(self.blocks)}"
        running = [value for value, state in self.blocks.values() if state != "cancelled"]
        fits_by_our_count = sum(cost(value, self.order) for value in [*running, event]) <= allowance(
            self.cap, self.delta, self.order
        )
        left = self.state.grants[f"p{number}", "d"].left
        fact = Reserve(domain="d", block=name, plan=f"p{number}", round_number=len(self.blocks) + 1, event=event)
        try:
            self.state.apply(fact)
        except NotAdmitted:
            assert not (fits_by_our_count and left)
        else:
            assert fits_by_our_count
            self.blocks[name] = event, "reserved"

    @precondition(lambda self: self.blocks)
    @rule(data=st.data(), move=st.sampled_from(["start", "cancel", "release", "abandon"]))
    def move(self, data, move: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.blocks)))
        event, before = self.blocks[name]
        fact = {
            "start": Start(block=name),
            "cancel": Cancel(block=name),
            "release": Release(block=name, attempt=1, content="00" * 32),
            "abandon": Abandon(block=name),
        }[move]
        allowed = (before, move) in {
            ("reserved", "start"), ("reserved", "cancel"), ("started", "release"), ("started", "abandon"),
            ("released", "abandon"),
        }  # fmt: skip
        after = {"start": "started", "cancel": "cancelled", "release": "released", "abandon": "abandoned"}[move]
        if not allowed:
            with pytest.raises(NotAllowed):
                self.state.apply(fact)
        else:
            self.state.apply(fact)
            self.blocks[name] = event, after

    @invariant()
    def the_books_agree_and_the_cap_holds(self) -> None:
        if not hasattr(self, "state"):
            return
        counted = [event for event, state in self.blocks.values() if state != "cancelled"]
        domain = self.state.domains["d"]
        assert domain.spent == sum(cost(event, self.order) for event in counted)
        assert domain.allowance is not None and 0 <= domain.spent <= domain.allowance
        ran = [event for event, state in self.blocks.values() if state in ("started", "released", "abandoned")]
        assert rdp_epsilon(ran, self.delta) <= self.cap * (1 + 1e-12)
        assert rdp_epsilon(repeated(self.state.events(domain="d")), self.delta) == pytest.approx(
            rdp_epsilon(counted, self.delta), rel=1e-9
        )
        assert sum(b.state is not BlockState.CANCELLED for b in self.state.blocks.values()) == len(counted)


TestRounds = Rounds.TestCase
TestRounds.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
