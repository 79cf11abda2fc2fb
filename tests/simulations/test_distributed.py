"""Mode dist: shares of noise that add up, two epsilons that are charged and told, and plans that promise too much."""

import json
import math
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wardround.client.connectors.cohort import make_cohort
from wardround.client.governance import CONSORTIUM_DOMAIN, TRAINING_DOMAIN, grant_for, open_domain
from wardround.client.site import Site
from wardround.client.tasks.classification import Classification
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.privacy.accounting import epsilon
from wardround.privacy.secagg.quantize import Quantizer
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.ledger import Refuse
from wardround.protocol.plan import LocalTraining, PrivacyMode, PrivacyTerms, StudyPlan
from wardround.protocol.tasks import TabularClassification
from wardround.server.sums import MaskedSum
from wardround.simulations import run
from wardround.simulations.cohorts import synthetic_cohorts
from wardround.simulations.experiment import Experiment
from wardround.simulations.faults import Fault, FaultKind
from wardround.strategies import STRATEGIES

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "dp_epsilon.json").read_text())
TODAY = date(2026, 11, 23)
TERMS = PrivacyTerms(
    mode=PrivacyMode.DIST, secure_aggregation=True, noise_multiplier=2.0, sampling_probability=0.25, delta=1e-4,
    epsilon=8.0, epsilon_consortium=8.0,
)  # fmt: skip


def plan(sites: int, *overrides: str) -> StudyPlan:
    declared = {f"s{number:03d}": 200 for number in range(sites)}
    words = ["privacy=dist", "privacy.noise_multiplier=3.0", *overrides]
    return make_plan(parse_configuration(compose_configuration(words)), declared, TODAY)


def simulated(cohorts: Any, rounds: int, faults: Any = (), rate: float = 0.3) -> tuple[Any, Experiment]:
    kept: list[Experiment] = []
    original = Experiment.__post_init__

    def keep(self: Experiment) -> None:
        kept.append(self)
        original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Experiment, "__post_init__", keep)
        width = cohorts[0].train.features.shape[1]
        done = run(
            task=Classification(TabularClassification(hidden=()), width), strategy=STRATEGIES["fedavg"](),
            cohorts=cohorts, rounds=rounds, local=LocalTraining(steps=1, learning_rate=rate), privacy=TERMS,
            scheme="zeros", min_sites=3, faults=faults, compare=False, engine="sites",
        )  # fmt: skip
    return done, kept[0]


@pytest.mark.parametrize(("sites", "shares"), [(3, 2), (4, 2), (10, 4), (20, 8), (50, 18), (100, 34)])
def test_every_opened_sum_holds_the_noise_of_so_many_honest_shares(sites: int, shares: int) -> None:
    """h = t - max(c, 1): 1.41 times less noise with four sites, 2 times with ten, 4.2 times with fifty."""
    made = plan(sites)
    assert made.honest_sites == shares
    event = made.consortium_event("s000")
    assert isinstance(event, PoissonGaussian) and event.noise_multiplier == pytest.approx(3.0 * math.sqrt(shares))
    assert made.round_event("s000").noise_multiplier == 3.0  # type: ignore[union-attr]


@pytest.mark.parametrize("vector", VECTORS["distributed_dp_vectors"], ids=lambda v: str(v["sigma_effective"]))
def test_the_epsilon_of_added_shares_is_that_of_the_vectors(vector: dict[str, float]) -> None:
    honest = vector["sites"] - vector["colluding_sites"]
    share = PoissonGaussian(noise_multiplier=vector["sigma_share_per_site"], sampling_probability=vector["q"],
                            steps=int(vector["steps"]), declared_patients=1000)  # fmt: skip
    together = share.model_copy(update={"noise_multiplier": share.noise_multiplier * math.sqrt(honest)})
    assert epsilon([together], vector["delta"]) == pytest.approx(vector["eps_pld"], abs=1e-4)


def test_the_noise_of_an_opened_sum_is_at_least_what_is_accounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of nought make every weight's gradient nought, so the opened sum is noise alone: five shares of it.

    Standard deviation of 4,000 coordinates: off by more than 7 % less than once in 10^9 runs. h is 3.
    """
    width, sites = 4000, 5
    cohorts = [
        make_cohort(f"s{n}", np.zeros((80, width)), np.arange(80) % 2, test=np.arange(80) >= 60) for n in range(sites)
    ]
    opened: list[Any] = []
    original = MaskedSum.open

    def noted(self: MaskedSum) -> None:
        original(self)
        opened.append(self.total().parts["update"][:width])

    monkeypatch.setattr(MaskedSum, "open", noted)
    _, experiment = simulated(cohorts, 1, rate=0.3)
    # The sum over sites of N_k times -rate times (noise / (q N_k)) is -rate / q times the sum of the noises.
    measured = np.std(opened[0]) / (0.3 / 0.25)
    assert measured == pytest.approx(2.0 * math.sqrt(sites), rel=0.07)
    assert measured > 2.0 * math.sqrt(experiment.plan.honest_sites)


def test_both_curves_are_charged_and_told() -> None:
    cohorts = synthetic_cohorts(5, (100, 180), 5, seed=2)
    done, experiment = simulated(cohorts, 4, [Fault(cohorts[0].site, 2, FaultKind.DIES_STARTED)])
    for site in experiment.federation.sites:
        events = {
            domain: [event for event, count in site.ledger.state.events(domain=domain) for _ in range(count)]
            for domain in (TRAINING_DOMAIN, CONSORTIUM_DOMAIN)
        }
        assert {domain: len(found) for domain, found in events.items()} == {TRAINING_DOMAIN: 4, CONSORTIUM_DOMAIN: 4}
        shares = [event.noise_multiplier for event in events[TRAINING_DOMAIN]]  # type: ignore[union-attr]
        together_ = [event.noise_multiplier for event in events[CONSORTIUM_DOMAIN]]  # type: ignore[union-attr]
        assert shares == [2.0] * 4 and together_ == pytest.approx([2.0 * math.sqrt(experiment.plan.honest_sites)] * 4)
    told, share = done.result.privacy, experiment.plan.round_event(cohorts[0].site)
    together = experiment.plan.consortium_event(cohorts[0].site)
    assert told.epsilon_consortium == pytest.approx(epsilon([together] * 4, 1e-4))
    assert max(site.epsilon_site for site in done.result.sites) == pytest.approx(epsilon([share] * 4, 1e-4), rel=1e-6)
    assert (told.colluding_sites, told.noise_of_shares, told.secure_sum_of_at_least) == (1, 3, 4)
    for part in (
        "at most 1 other hospital",
        "at least 4 hospitals only",
        "Against everyone, whoever colludes",
        "0.0001",
        "adding or removing one patient",
    ):
        assert part in told.statement


def test_a_local_study_is_on_the_consortiums_curve_too_once_a_site_has_one() -> None:
    """Else studies of both modes together would cost more than the second curve shows."""
    local = plan(4, "privacy=local", "privacy.noise_multiplier=2.84")
    _, experiment = simulated(synthetic_cohorts(4, (100, 180), 5, seed=2), 1)
    ledger = experiment.federation.sites[0].ledger
    assert local.privacy.mode is PrivacyMode.LOCAL and local.consortium_event("s000") == local.round_event("s000")
    site = Site.__new__(Site)
    site.plan, site.ledger, site._domains = local, ledger, (TRAINING_DOMAIN,)
    assert site._charged_domains() == (TRAINING_DOMAIN, CONSORTIUM_DOMAIN)
    assert grant_for(local, "s000", CONSORTIUM_DOMAIN).event == local.round_event("s000")


def test_without_the_second_curve_a_round_is_refused_and_nothing_is_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    from wardround.simulations import site_by_site as module

    monkeypatch.setattr(module, "open_domain", lambda domain, cap, delta: open_domain(domain + "-not", cap, delta))
    monkeypatch.setattr(
        module, "grant_for", lambda plan, site, domain=TRAINING_DOMAIN: grant_for(plan, site, TRAINING_DOMAIN)
        if domain == TRAINING_DOMAIN else Refuse(plan=plan.digest, round_number=0, reason="no grant"),
    )  # fmt: skip
    monkeypatch.setattr("wardround.simulations.federation.Federation.run", lambda self, note: [self.step()])
    _, experiment = simulated(synthetic_cohorts(4, (100, 180), 5, seed=2), 1)
    for site in experiment.federation.sites:
        assert site.ledger.charged(experiment.plan.digest) == 0
        assert any(isinstance(fact, Refuse) and "no data domain 'consortium'" in fact.reason
                   for fact in site.ledger.facts())  # fmt: skip


@pytest.mark.parametrize("sites", [3, 4, 10])
@pytest.mark.parametrize(("both", "binds"), [((8.0, 3.0), "consortium"), ((2.0, 3.0), "site")])
def test_the_calculated_share_keeps_both_promises_and_hardly_more(
    sites: int, both: tuple[float, float], binds: str
) -> None:
    site_limit, consortium_limit = both
    made = plan(sites, "privacy.noise_multiplier=auto", f"privacy.epsilon={site_limit}",
                f"privacy.epsilon_consortium={consortium_limit}")  # fmt: skip
    share, together = made.round_event("s000"), made.consortium_event("s000")

    def costs(scale: float) -> tuple[float, float]:
        scaled = [e.model_copy(update={"noise_multiplier": e.noise_multiplier * scale}) for e in (share, together)]  # type: ignore[union-attr]
        return epsilon([scaled[0]] * made.rounds, 1e-4), epsilon([scaled[1]] * made.rounds, 1e-4)

    at_site, at_consortium = costs(1.0)
    assert at_site <= site_limit and at_consortium <= consortium_limit
    less = costs(0.98)
    assert (less[1] > consortium_limit) if binds == "consortium" else (less[0] > site_limit)


def test_quantised_noise_is_the_sites_own_and_never_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A void attempt is charged, and what comes after it is a new sample with new noise."""
    seen: list[bytes] = []
    original = Quantizer.quantize

    def noted(self: Quantizer, values: Any, key: bytes) -> Any:
        seen.append(values.tobytes())
        return original(self, values, key)

    monkeypatch.setattr(Quantizer, "quantize", noted)
    cohorts = synthetic_cohorts(4, (100, 180), 5, seed=2)
    gone = [Fault(cohorts[number].site, 2, FaultKind.UNREACHED) for number in (0, 1)]
    done, experiment = simulated(cohorts, 3, gone)
    assert [each.state for each in done.result.rounds] == ["closed", "void", "closed"]
    assert len(set(seen)) == len(seen) == 10
    charged = {
        site.name: site.ledger.charged(experiment.plan.digest, CONSORTIUM_DOMAIN)
        for site in experiment.federation.sites
    }
    assert sorted(charged.values()) == [2, 2, 3, 3]
