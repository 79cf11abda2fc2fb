"""The filter of a data domain: exact integers, fixed order, and a cap that no admitted history exceeds."""

import math
from decimal import ROUND_CEILING, Decimal, localcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.privacy.accounting import epsilon
from wardround.privacy.budget import (
    MAX_ORDER,
    UNITS,
    Allowed,
    Refused,
    allowance,
    cost,
    delta_for,
    fixed_order,
    may_spend,
)
from wardround.privacy.rdp import conversion, gaussian_rdp
from wardround.protocol.errors import UsageError
from wardround.protocol.events import PoissonGaussian, Unprotected


def gaussian(sigma: float, q: float, steps: int = 1) -> PoissonGaussian:
    return PoissonGaussian(noise_multiplier=sigma, sampling_probability=q, steps=steps, declared_patients=200)


@pytest.mark.parametrize(
    ("patients", "delta"),
    [(1, 1e-1), (30, 1e-3), (100, 1e-3), (101, 1e-4), (199, 1e-4), (200, 1e-4), (1000, 1e-4), (10**5, 1e-6)],
)
def test_delta_is_a_power_of_ten_below_a_tenth_of_one_in_the_patients(patients, delta):
    assert delta_for(patients) == delta
    assert delta == 10.0 ** -math.ceil(math.log10(10 * patients))


def test_a_domain_without_patients_has_no_delta():
    with pytest.raises(UsageError, match="0 patients"):
        delta_for(0)


@pytest.mark.parametrize(
    ("cap", "delta", "order"),
    [
        (1, 1e-4, 14),
        (2, 1e-4, 8),
        (3, 1e-4, 6),
        (8, 1e-4, 3),
        (1, 1e-6, 22),
        (2, 1e-6, 12),
        (3, 1e-6, 9),
        (8, 1e-6, 4),
    ],
)
def test_the_fixed_order_of_a_domain(cap, delta, order):
    assert fixed_order(cap, delta) == order
    # No other order buys more steps of a Gaussian, whose divergence is proportional to the order.
    steps = {alpha: allowance(cap, delta, alpha) // alpha for alpha in (order - 1, order, order + 1) if alpha > 1}
    assert max(steps, key=lambda alpha: steps[alpha]) == order


def test_a_cap_that_leaves_nothing_is_refused():
    for cap in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(UsageError, match="no budget"):
            fixed_order(cap, 1e-4)
    with pytest.raises(UsageError, match="leaves nothing to spend"):
        fixed_order(0.001, 1e-6)
    with pytest.raises(UsageError, match="leaves nothing to spend"):
        allowance(1.0, 1e-4, 3)
    for order in (0, 1, MAX_ORDER + 1):
        with pytest.raises(UsageError, match="order"):
            allowance(1.0, 1e-4, order)


@pytest.mark.parametrize(("cap", "delta"), [(1, 1e-4), (3, 1e-4), (8, 1e-4), (0.3, 1e-3), (12, 1e-6)])
def test_the_allowance_is_rounded_down(cap, delta):
    order = fixed_order(cap, delta)
    with localcontext(prec=100):
        alpha, exact_delta = Decimal(order), Decimal(delta)
        convert = ((alpha - 1) / alpha).ln() - (exact_delta * alpha).ln() / (alpha - 1)
        exact = (Decimal(cap) - convert) * UNITS
        units = allowance(cap, delta, order)
        assert exact - 1 < units < exact
    assert units / UNITS == pytest.approx(cap - conversion(order, delta), rel=1e-9)


EVENTS = [
    (7.0, 0.25, 75, 3),
    (1.4, 0.25, 5, 3),
    (0.5, 0.9, 3, 14),
    (3.0, 1.0, 10, 8),
    (300.0, 1e-4, 1, 22),
    (1e6, 1e-3, 7, 4),
    (20.0, 0.01, 5, 300),
]


@pytest.mark.parametrize(("sigma", "q", "steps", "order"), EVENTS)
def test_a_cost_is_rounded_up(sigma, q, steps, order):
    units = cost(gaussian(sigma, q, steps), order)
    with localcontext(prec=150, Emax=10**9, Emin=-(10**9)):
        chance, inverse = Decimal(q), 1 / (2 * Decimal(sigma) ** 2)
        total = sum(
            math.comb(order, k) * (1 - chance) ** (order - k) * chance**k * (k * (k - 1) * inverse).exp()
            for k in (range(order) if chance < 1 else ())
        )
        total += chance**order * (order * (order - 1) * inverse).exp()
        exact = steps * total.ln() / (order - 1) * UNITS
        assert units == max(1, int(exact.to_integral_value(ROUND_CEILING)))
    assert units >= steps * gaussian_rdp(sigma, q, order) * UNITS * (1 - 1e-9)


def test_more_but_smaller_releases_never_cost_less():
    for sigma, q, steps, order in EVENTS:
        one, all_together = cost(gaussian(sigma, q), order), cost(gaussian(sigma, q, steps), order)
        assert all_together <= steps * one <= all_together + steps


def test_spending_is_exact_to_the_last_unit():
    event, order = gaussian(3.0, 0.25, 5), 3
    price = cost(event, order)
    assert may_spend(7, event, price + 7, order) == Allowed(spent=price + 7, headroom=0)
    assert may_spend(7, event, price + 8, order) == Allowed(spent=price + 7, headroom=1)
    refused = may_spend(7, event, price + 6, order)
    assert isinstance(refused, Refused)
    assert refused.reason == (
        "the budget of the data domain is too small: the release costs 0.0562 and 0.0561 is left "
        "(Renyi divergence of order 3)"
    )


def test_spent_never_comes_out_negative():
    with pytest.raises(ValueError, match="spent"):
        may_spend(-1, gaussian(3.0, 0.25), 10, 3)


def test_a_release_without_a_bound_is_refused():
    assert isinstance(may_spend(0, Unprotected(releases=1), 10**30, 3), Refused)
    with pytest.raises(UsageError, match="'unprotected'"):
        cost(Unprotected(releases=1), 3)
    for sigma in (1e-150, 1e-12):
        assert isinstance(may_spend(0, gaussian(sigma, 0.5), 10**29, 22), Refused)


def test_even_the_quietest_release_costs_a_unit():
    assert cost(gaussian(1e9, 1e-9), 2) == 1


KINDS = [(2.0, 0.1), (1.2, 0.02), (6.0, 0.25), (4.0, 1.0)]
requests = st.lists(
    st.builds(lambda kind, steps: gaussian(*kind, steps), st.sampled_from(KINDS), st.integers(1, 400)),
    min_size=1,
    max_size=12,
)
domains = st.sampled_from([(1.0, 1e-4), (3.0, 1e-4), (8.0, 1e-4), (3.0, 1e-6)])


def admitted(wishes: list[PoissonGaussian], cap: float, delta: float) -> tuple[list[PoissonGaussian], int]:
    """What the filter lets through, where each refused wish is tried again with fewer and fewer steps."""
    order = fixed_order(cap, delta)
    budget, spent, history = allowance(cap, delta, order), 0, []
    for wish in wishes:
        steps = wish.steps
        while steps:
            event = wish.model_copy(update={"steps": steps})
            answer = may_spend(spent, event, budget, order)
            if isinstance(answer, Allowed):
                assert answer.spent + answer.headroom == budget
                spent, history = answer.spent, [*history, event]
                break
            steps //= 2
    return history, spent


@settings(max_examples=200, deadline=None)
@given(requests, domains)
def test_the_divergence_of_an_admitted_history_keeps_the_cap(wishes, domain):
    cap, delta = domain
    order = fixed_order(cap, delta)
    history, _ = admitted(wishes, cap, delta)
    total = sum(
        event.steps * gaussian_rdp(event.noise_multiplier, event.sampling_probability, order) for event in history
    )
    assert total + conversion(order, delta) <= cap + 1e-12


@settings(max_examples=12, deadline=None)
@given(requests, domains)
def test_no_admitted_history_has_an_epsilon_above_the_cap(wishes, domain):
    cap, delta = domain
    history, _ = admitted(wishes, cap, delta)
    assert epsilon(history, delta) <= cap


@pytest.mark.parametrize(("cap", "delta"), [(1.0, 1e-4), (8.0, 1e-4), (3.0, 1e-6)])
def test_a_domain_that_is_spent_to_the_end_is_below_its_cap_and_not_far(cap, delta):
    history, _ = admitted([gaussian(4.0, 0.1, 2**14)] * 15, cap, delta)
    assert 0.75 * cap < epsilon(history, delta) <= cap


@settings(max_examples=50, deadline=None)
@given(requests, st.randoms())
def test_what_is_spent_does_not_depend_on_the_order(wishes, random):
    shuffled = list(wishes)
    random.shuffle(shuffled)
    enough, sums = 10**15, []
    for events in (wishes, shuffled):
        spent = 0
        for event in events:
            answer = may_spend(spent, event, enough, 6)
            assert isinstance(answer, Allowed)
            spent = answer.spent
        sums.append(spent)
    assert sums[0] == sums[1]
