"""Asking before spending: the planner against direct accounting, and epsilon's meaning against published bounds."""

import json
from datetime import date
from pathlib import Path

import pytest

from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.privacy import accounting
from wardround.privacy.accounting import epsilon
from wardround.privacy.books import Domain, NotAdmitted
from wardround.privacy.budget import allowance, cost, delta_for, fixed_order
from wardround.privacy.ledger import LedgerState
from wardround.privacy.meaning import (
    any_true_accusations,
    gaussian_delta,
    gaussian_mu,
    officers_words,
    true_accusations,
)
from wardround.privacy.planner import (
    is_small,
    noise_for,
    rounds_that_fit,
    rounds_within_epsilon,
    site_costs,
    small_batches,
)
from wardround.protocol.errors import UsageError
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.ledger import Abandon, Grant, OpenDomain, OpenLedger, Reserve, Start
from wardround.protocol.plan import Participant, StudyPlan

DECLARED = {"a": 200, "b": 50, "c": 4000}
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "dp_epsilon.json").read_text())


def plan(*overrides: str) -> StudyPlan:
    return make_plan(parse_configuration(compose_configuration(overrides)), DECLARED, date(2026, 11, 23))


PLAN = plan("privacy.delta=auto")
EVENT = PLAN.round_event("a")


def test_a_sites_cost_is_what_the_ledger_would_charge_and_the_accountant_say() -> None:
    assert isinstance(EVENT, PoissonGaussian) and PLAN.privacy.delta is not None
    for found in site_costs(PLAN, 8.0, attempts=2):
        delta = delta_for(DECLARED[found.site])
        order = fixed_order(8.0, delta)
        assert found.needed_units == 30 * cost(EVENT, order)
        assert found.share == pytest.approx(found.needed_units / allowance(8.0, delta, order))
        assert found.epsilon == epsilon([EVENT] * 15, PLAN.privacy.delta)
        assert found.epsilon_at_most == epsilon([EVENT] * 30, PLAN.privacy.delta) > found.epsilon
        assert found.expected_batch == 0.25 * DECLARED[found.site]
        assert found.noise_on_mean == pytest.approx(2.84 / (0.25 * DECLARED[found.site]))


def domain(spent: int = 0, cap: float | None = 8.0, delta: float = 1e-4, closed: bool = False) -> Domain:
    """A domain as a ledger holds it."""
    order = None if cap is None else fixed_order(cap, delta)
    fact = OpenDomain(domain="training", delta=delta, epsilon_cap=cap, order=order)
    units = None if cap is None or order is None else allowance(cap, delta, order)
    return Domain(fact, units, spent, closed)


def test_what_was_spent_leaves_less_and_never_more() -> None:
    fresh, used = (site_costs(PLAN, 8.0, domains={"a": domain(spent)})[0] for spent in (0, 4 * 10**12))
    assert used.left_units == fresh.left_units - 4 * 10**12
    assert used.more_studies < fresh.more_studies and used.rounds_in_domain < fresh.rounds_in_domain


@pytest.mark.parametrize("attempts", [1, 3])
def test_the_rounds_that_fit_fit_and_one_more_does_not(attempts: int) -> None:
    assert isinstance(EVENT, PoissonGaussian)
    order = fixed_order(8.0, 1e-4)
    room = allowance(8.0, 1e-4, order)
    rounds = rounds_that_fit(EVENT, room, order, attempts)
    assert rounds * attempts * cost(EVENT, order) <= room < (rounds + 1) * attempts * cost(EVENT, order)


def test_the_rounds_within_an_epsilon_keep_it_and_one_more_breaks_it() -> None:
    assert isinstance(EVENT, PoissonGaussian)
    rounds = rounds_within_epsilon(EVENT, 2.0, 1e-4)
    assert epsilon([EVENT] * rounds, 1e-4) <= 2.0 < epsilon([EVENT] * (rounds + 1), 1e-4)


def test_the_domain_of_the_ledger_counts_and_not_the_cap_that_was_asked_for() -> None:
    found = site_costs(PLAN, 8.0, domains={"a": domain(cap=3.0, delta=1e-3)})
    assert (found[0].epsilon_cap, found[0].domain_delta) == (3.0, 1e-3)
    assert found[0].domain_order == fixed_order(3.0, 1e-3) and found[1].epsilon_cap == 8.0


def test_a_closed_domain_has_nothing_left_and_one_without_a_budget_no_plan() -> None:
    closed = site_costs(PLAN, 8.0, domains={"a": domain(closed=True)})[0]
    assert (closed.left_units, closed.fits, closed.rounds_in_domain) == (0, False, 0)
    with pytest.raises(UsageError, match="no budget"):
        site_costs(PLAN, 8.0, domains={"a": domain(cap=None)})
    with pytest.raises(UsageError, match="no part"):
        site_costs(PLAN, 8.0, domains={"elsewhere": domain()})


@pytest.mark.parametrize("attempts", [1, 2])
def test_as_many_studies_are_admitted_by_a_ledger_as_were_said_to_fit(attempts: int) -> None:
    said = site_costs(PLAN, 8.0, attempts=attempts)[0]
    state = LedgerState()
    state.apply(OpenLedger(site="a", key=None))
    state.apply(domain().fact)
    studies = rounds = 0
    with pytest.raises(NotAdmitted):
        while True:
            name = f"p{studies}"
            state.apply(Grant(domain="training", plan=name, event=EVENT, blocks=PLAN.rounds * attempts))
            for number in range(1, PLAN.rounds + 1):
                for attempt in range(attempts):
                    block = f"{name}/{number}/{attempt}"
                    state.apply(Reserve(domain="training", block=block, plan=name, round_number=number, event=EVENT))
                    state.apply(Start(block=block))
                    state.apply(Abandon(block=block))
                rounds += 1
            studies += 1
    assert said.fits == (studies > 0) and said.more_studies == max(0, studies - 1)
    assert said.rounds_in_domain == rounds


NAMED = PLAN.privacy.delta or 0.0


def spent(noise: float, steps: int = 75) -> float:
    event = PoissonGaussian(noise_multiplier=noise, sampling_probability=0.25, steps=steps, declared_patients=200)
    return epsilon([event], NAMED)


def fits_everywhere(noise: float, used: dict[str, Domain], attempts: int = 1) -> bool:
    terms = PLAN.privacy.model_copy(update={"noise_multiplier": noise})
    return all(
        c.fits for c in site_costs(PLAN.model_copy(update={"privacy": terms}), 8.0, attempts=attempts, domains=used)
    )


def test_the_noise_for_a_target_is_enough_and_a_hundredth_less_is_not() -> None:
    (found,) = noise_for(PLAN, [3.0], 8.0)
    assert found.noise_multiplier == found.for_epsilon and found.binds == "epsilon"
    assert found.noise_multiplier is not None and found.for_budget is not None
    assert spent(found.noise_multiplier) <= 3.0 < spent(found.noise_multiplier - 0.01)
    assert found.for_budget < found.noise_multiplier


@pytest.mark.parametrize("attempts", [1, 2])
@pytest.mark.parametrize("share", [0, 50, 90])
def test_the_noise_for_a_target_fits_every_budget_too_and_says_which_of_them_binds(attempts: int, share: int) -> None:
    used = {"a": domain(allowance(8.0, 1e-4, fixed_order(8.0, 1e-4)) * share // 100)}
    for found in noise_for(PLAN, [1.0, 3.0, 8.0], 8.0, attempts=attempts, domains=used):
        sigma = found.noise_multiplier
        assert sigma is not None and found.for_epsilon is not None and found.for_budget is not None
        assert sigma == max(found.for_epsilon, found.for_budget) == round(sigma, 2)
        assert spent(sigma, 75 * attempts) <= found.target and fits_everywhere(sigma, used, attempts)
        less = round(sigma - 0.01, 2)
        broken = not fits_everywhere(less, used, attempts), spent(less, 75 * attempts) > found.target
        assert broken[0] if found.binds == "budget" else broken[1]
        # A cap of 8 holds no study of epsilon 8: the filter is the more cautious of the two.
        assert found.binds == "budget" or found.target < 8.0
        assert share == 0 or found.tightest_site == "a"


def test_where_nothing_is_left_no_noise_is_enough() -> None:
    room = allowance(8.0, 1e-4, fixed_order(8.0, 1e-4))
    (found,) = noise_for(PLAN, [3.0], 8.0, domains={"a": domain(room)})
    assert found.noise_multiplier is found.for_budget is None
    assert (found.binds, found.tightest_site) == ("budget", "a") and found.for_epsilon is not None


def test_a_question_takes_few_computations_of_loss_distributions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost of an answer, where a clock would measure the machine's other work."""
    asked: list[float] = []
    real = accounting._pld

    def counted(history: accounting._History, delta: float, grid: float) -> float:
        asked.append(grid)
        return real(history, delta, grid)

    for cached in (accounting._epsilon, accounting._within, accounting._rough_ratio):
        cached.cache_clear()
    monkeypatch.setattr(accounting, "_pld", counted)

    def answer() -> None:
        site_costs(PLAN, 8.0)
        noise_for(PLAN, [1.0, 3.0, 8.0], 8.0)
        assert isinstance(EVENT, PoissonGaussian)
        rounds_within_epsilon(EVENT, 3.0, NAMED)

    answer()
    assert asked.count(1e-4) <= 4, "on the fine grid, half a second each"
    assert len(asked) <= 16
    asked.clear()
    answer()
    assert asked == []


@pytest.mark.parametrize(
    ("q", "limit", "patients", "small"),
    [
        (0.25, 3.0, 200, True),  # 50 in a step
        (0.25, 3.0, 300, False),  # 75 in a step, 300 in all
        (0.5, 3.0, 150, True),  # 75 in a step, but 150 in all
        (0.5, 8.0, 150, False),  # the same where epsilon is plenty
        (0.5, 8.0, 100, True),  # 50 in a step
        (0.32, 3.0, 200, False),  # 64 in a step and 200 in all are enough
    ],
)
def test_a_small_site_is_named_by_its_batch_or_by_its_patients(
    q: float, limit: float, patients: int, small: bool
) -> None:
    terms = PLAN.privacy.model_copy(update={"sampling_probability": q, "epsilon": limit})
    assert is_small(terms, patients) == small
    made = PLAN.model_copy(
        update={"privacy": terms, "participants": (Participant(site="a", declared_patients=patients),)}
    )
    assert [" at a (" in warning for warning in small_batches(made)] == ([True] if small else [])


def test_a_plan_without_protection_has_no_cost_to_plan() -> None:
    with pytest.raises(UsageError):
        site_costs(plan("privacy=none"), 8.0)


@pytest.mark.parametrize("vector", VECTORS["attack_bounds_gaussian_dp"], ids=lambda v: str(v["eps"]))
def test_the_meaning_of_epsilon_is_that_of_the_vectors(vector: dict[str, float]) -> None:
    mu = gaussian_mu(vector["eps"], vector["delta"])
    assert mu == pytest.approx(vector["mu_gdp"], abs=6e-5)
    assert gaussian_delta(vector["eps"], mu) == pytest.approx(vector["delta"], rel=1e-6)
    assert true_accusations(mu) == pytest.approx(vector["tpr_at_fpr_1pct"], abs=6e-5)
    assert true_accusations(mu, 0.001) == pytest.approx(vector["tpr_at_fpr_0_1pct"], abs=6e-5)
    assert any_true_accusations(vector["eps"], vector["delta"], 0.001) == pytest.approx(
        vector["naive_bound_tpr_at_0_1pct"], abs=6e-5
    )


@pytest.mark.parametrize(
    ("eps", "words"), [(0.5, "1.5"), (1, "2.0"), (3, "5.5"), (5, "11.5"), (8, "25.5"), (10, "37.3")]
)
def test_the_officers_words_give_accusations_in_a_hundred_and_every_term(eps: float, words: str) -> None:
    text = officers_words(eps, 1e-5)
    assert f"about {words} can be accused" in text
    for term in ("delta 1e-05", "one patient of one site", "add or remove one patient", "whoever colludes"):
        assert term in text
