"""The planner of mode dist: shares against dp_accounting itself, and which of the four limits asks for the most."""

import math
from collections.abc import Mapping
from datetime import date

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant

from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.privacy.books import Domain, NotAdmitted
from wardround.privacy.budget import allowance, cost, fixed_order
from wardround.privacy.ledger import LedgerState
from wardround.privacy.planner import is_small, site_costs, small_batches
from wardround.privacy.shares import consortium_costs, share_of, shares_for, who_may_collude
from wardround.protocol.errors import UsageError
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.ledger import Abandon, Grant, OpenDomain, OpenLedger, Reserve, Start
from wardround.protocol.plan import StudyPlan

DELTA, Q, STEPS = 1e-4, 0.25, 75
FOUR = {"a": 200, "b": 200, "c": 50, "d": 100}


def direct(noise: float, steps: int = STEPS, q: float = Q, delta: float = DELTA) -> float:
    """Epsilon by the PLD accountant of dp_accounting, which this package is not asked for."""
    accountant = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=1e-4)
    step = dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(noise))
    accountant.compose(dp_accounting.SelfComposedDpEvent(step, steps))
    return float(accountant.get_epsilon(delta))


def plan(*overrides: str, declared: Mapping[str, int] = FOUR) -> StudyPlan:
    return make_plan(
        parse_configuration(compose_configuration(["privacy=dist", *overrides])), declared, date(2026, 11, 23)
    )


def many(sites: int) -> dict[str, int]:
    return {f"s{number:02}": 200 for number in range(sites)}


PLAN = plan()


def domain(name: str, spent: int = 0, cap: float = 8.0) -> Domain:
    order = fixed_order(cap, DELTA)
    return Domain(
        OpenDomain(domain=name, delta=DELTA, epsilon_cap=cap, order=order), allowance(cap, DELTA, order), spent
    )


def test_a_share_keeps_both_epsilons_by_dp_accounting_and_a_step_less_breaks_the_one_that_binds() -> None:
    """Four sites: t = 3 and c = 1, so h = 2 shares count against the coordinator with one hospital."""
    (found,) = shares_for(PLAN, [3.0], 8.0, 8.0)
    share = found.noise_multiplier
    assert share is not None and found.binds == "epsilon_consortium" and found.whole is not None
    assert direct(share) <= 8.0 and direct(share * math.sqrt(2)) <= 3.0
    # A hundredth less of the noise of two shares together is too little.
    assert direct(found.whole - 0.01) > 3.0 and share - found.whole / math.sqrt(2) < 0.001
    assert found.gain == pytest.approx(math.sqrt(2), abs=1e-3)
    site = found.asked["epsilon_site"]
    assert site is not None and direct(site) <= 8.0 < direct(site - 0.01) and site < share


def test_both_curves_show_what_dp_accounting_says() -> None:
    noise = PLAN.privacy.noise_multiplier
    assert noise is not None
    own, together = site_costs(PLAN, 8.0), consortium_costs(PLAN, 8.0)
    assert own[0].epsilon == pytest.approx(direct(noise), abs=1e-3)
    assert together[0].epsilon == pytest.approx(direct(noise * math.sqrt(2)), abs=1e-3)
    # The control: the noise of one share, or of three, is told apart.
    for wrong in (1, 3):
        assert abs(together[0].epsilon - direct(noise * math.sqrt(wrong))) > 0.3


def test_the_caps_are_not_interchangeable() -> None:
    """Control of the two tests above: with the limits swapped the other one binds, at its own noise."""
    swapped = plan("privacy.epsilon=3.0", "privacy.epsilon_consortium=8.0")
    (found,) = shares_for(swapped, [8.0], 8.0, 8.0)
    right = shares_for(PLAN, [3.0], 8.0, 8.0)[0]
    assert (found.binds, right.binds) == ("epsilon_site", "epsilon_consortium")
    assert found.noise_multiplier is not None and right.noise_multiplier is not None
    assert direct(found.noise_multiplier) <= 3.0 < direct(found.noise_multiplier - 0.01)
    assert found.noise_multiplier > 1.4 * right.noise_multiplier
    # A study is refused no epsilon by the wrong curve: the two budgets are told apart as well.
    tight = [shares_for(PLAN, [8.0], *caps)[0] for caps in ((3.0, 20.0), (20.0, 3.0))]
    assert [one.binds for one in tight] == ["budget_site", "budget_consortium"]
    assert (tight[0].noise_multiplier or 0) > 1.3 * (tight[1].noise_multiplier or math.inf)


@pytest.mark.parametrize(
    ("sites", "honest", "binds"),
    [(3, 2, "epsilon_consortium"), (10, 4, "epsilon_consortium"), (11, 5, "epsilon_site"), (50, 18, "epsilon_site")],
)
def test_with_more_sites_the_sites_own_cap_binds(sites: int, honest: int, binds: str) -> None:
    """t = floor(2n/3) + 1 and c = floor((n - 1)/3) by hand: 3, 0; 7, 3; 8, 3; 34, 16; h = t - max(c, 1).

    Epsilon 3 against the consortium needs 2.84 together and epsilon 8 against everyone 1.40 alone, so the site's cap
    binds from 2.84 / sqrt(h) < 1.40 on, which is h = 5. A cap of 20 keeps the budgets out of it.
    """
    made = plan(declared=many(sites))
    assert made.honest_sites == honest
    (found,) = shares_for(made, [3.0], 20.0, 20.0)
    assert found.binds == binds and found.whole == 2.84 and found.asked["epsilon_site"] == 1.4
    assert found.noise_multiplier == pytest.approx(max(2.84 / math.sqrt(honest), 1.4), abs=1e-3)
    assert (found.gain or 0) <= math.sqrt(honest)
    assert ((found.gain or 0) > math.sqrt(honest) - 1e-2) == (binds == "epsilon_consortium")
    # Under the default cap of 8 the filter asks for more than an epsilon of 8 does.
    (filtered,) = shares_for(made, [3.0], 8.0, 8.0)
    assert filtered.binds == ("epsilon_consortium" if honest == 2 else "budget_site")


def test_the_share_that_a_budget_asks_for_fits_and_a_step_less_does_not() -> None:
    order = fixed_order(8.0, DELTA)
    used = {"a": domain("consortium", allowance(8.0, DELTA, order) * 9 // 10)}
    (found,) = shares_for(PLAN, [3.0], 8.0, 8.0, consortium_domains=used)
    assert (found.binds, found.tightest_site) == ("budget_consortium", "a") and found.noise_multiplier is not None

    def fits(share: float) -> bool:
        terms = PLAN.privacy.model_copy(update={"noise_multiplier": share})
        made = PLAN.model_copy(update={"privacy": terms})
        return consortium_costs(made, 8.0, domains=used)[0].fits

    # The noise of two shares lies on a grid of hundredths, a share of it on one of thousandths.
    assert fits(found.noise_multiplier) and not fits(found.noise_multiplier - 0.009)


def test_as_many_rounds_are_admitted_on_the_consortiums_curve_as_were_said_to_fit() -> None:
    said = consortium_costs(PLAN, 3.0)[0]
    event = PLAN.consortium_event("a")
    assert isinstance(event, PoissonGaussian)
    state = LedgerState()
    state.apply(OpenLedger(site="a", key=None))
    state.apply(domain("consortium", cap=3.0).fact)
    state.apply(Grant(domain="consortium", plan="p", event=event, blocks=10_000))
    rounds = 0
    with pytest.raises(NotAdmitted):
        while True:
            block = f"b{rounds}"
            state.apply(Reserve(domain="consortium", block=block, plan="p", round_number=rounds + 1, event=event))
            state.apply(Start(block=block))
            state.apply(Abandon(block=block))
            rounds += 1
    assert said.rounds_in_domain == rounds and said.needed_units == 75 * cost(event, fixed_order(3.0, DELTA))


@pytest.mark.parametrize("honest", [2, 3, 4, 9, 16, 18])
def test_shares_add_up_to_the_noise_that_they_were_cut_from(honest: int) -> None:
    for hundredths in range(50, 1000, 7):
        share = share_of(hundredths / 100, honest)
        assert share * honest**0.5 >= hundredths / 100 > (share - 0.0011) * honest**0.5
        assert share == round(share, 3)


def test_the_share_of_a_plan_is_the_one_that_the_planner_shows() -> None:
    """``noise_multiplier: auto`` and the planner come to the same share where no budget asks for more."""
    for made in (PLAN, plan(declared=many(50))):
        (found,) = shares_for(made, [3.0], 20.0, 20.0)
        assert made.privacy.noise_multiplier == found.noise_multiplier


def test_where_nothing_is_left_no_share_is_enough() -> None:
    full = {"b": domain("training", allowance(8.0, DELTA, fixed_order(8.0, DELTA)))}
    (found,) = shares_for(PLAN, [3.0], 8.0, 8.0, domains=full)
    assert (found.noise_multiplier, found.gain) == (None, None)
    assert (found.binds, found.tightest_site) == ("budget_site", "b")


def test_who_may_collude_is_counted_by_the_plan() -> None:
    words = [who_may_collude(plan(declared=many(sites))) for sites in (3, 4, 10)]
    assert "by itself" in words[0] and "at most 1 other hospital" in words[1] and "3 other hospitals" in words[2]


def test_no_site_is_small_where_noise_is_of_the_sum_and_local_has_no_shares() -> None:
    assert not is_small(PLAN.privacy, 50) and small_batches(PLAN) == []
    local = make_plan(parse_configuration(compose_configuration([])), FOUR, date(2026, 11, 23))
    assert is_small(local.privacy, 50)
    with pytest.raises(UsageError, match="mode dist"):
        shares_for(local, [3.0], 8.0, 8.0)
    with pytest.raises(UsageError, match="mode dist"):
        consortium_costs(local, 8.0)
