"""The fall-back: decided on patients whom no round draws, on the hospital's own code, and nothing of it is sent."""

from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pytest

from wardround.client.comparison import compare, row
from wardround.client.connectors import Cohort, make_cohort
from wardround.client.fall_back import for_rounds, in_rounds, kept, smallest
from wardround.client.governance import budget_for, grant_for
from wardround.client.own_model import own_model
from wardround.client.site import Site
from wardround.client.store.database import open_store
from wardround.client.store.ledger import Ledger
from wardround.client.tasks import task_from
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.console.plan_words import in_words
from wardround.console.reports.words import plan_facts
from wardround.privacy.gradients import Examples
from wardround.protocol.errors import UsageError
from wardround.protocol.ledger import Start
from wardround.protocol.messages import LocalRule, Reply, RoundRequest
from wardround.protocol.outgoing import bytes_to_send, parse_answer
from wardround.protocol.parameters import model_hash
from wardround.simulations.experiment import Experiment
from wardround.strategies import strategy_for

TODAY = date(2026, 11, 23)
OPEN = ("privacy=none", "secagg=off")


def planned(*overrides: str) -> Any:
    configuration = parse_configuration(compose_configuration([*overrides]))
    return make_plan(configuration, {"north": 100, "a": 100, "b": 100}, TODAY)


PLAN = planned("fall_back_share=0.3", *OPEN)
VALUES = np.random.default_rng(11)
X = VALUES.normal(size=(120, len(PLAN.contract.feature_names)))
Y = (X[:, 0] + VALUES.normal(size=120) > 0).astype(float)
TEST = np.arange(120) % 4 == 0
COHORT = make_cohort("north", X, Y, test=TEST)


def changed(cohort: Cohort, patients: np.ndarray) -> Cohort:
    """The cohort with the outcome of these training patients turned round."""
    targets = cohort.train.targets.copy()
    targets[patients] = 1 - targets[patients]
    return replace(cohort, train=Examples(cohort.train.features, targets, cohort.train.patient, cohort.train.patients))


def answered(cohort: Cohort, consent: Any = lambda: None) -> tuple[bytes, Ledger]:
    """What leaves in the first round of a simulation's site, and its ledger."""
    ledger = Ledger(open_store(None), "north")
    ledger.record(budget_for(PLAN, 50.0, 1e-4))
    ledger.record(grant_for(PLAN, "north"))
    start = PLAN.starting_model()
    request = RoundRequest(PLAN.digest, 1, 1, start, model_hash(start), LocalRule(PLAN.local.learning_rate))
    site = Site(PLAN, cohort, task_from(PLAN), strategy_for(PLAN), ledger, consent=consent)
    return bytes_to_send(site.answer(request, TODAY)), ledger


def test_about_the_plans_share_is_held_back_and_the_same_after_a_restart() -> None:
    drawn = in_rounds(PLAN, COHORT)
    assert drawn is not None and 0.15 * 90 <= (~drawn).sum() <= 0.45 * 90
    again = in_rounds(PLAN, make_cohort("north", X.copy(), Y.copy(), test=TEST.copy()))
    assert again is not None and (again == drawn).all()
    assert for_rounds(PLAN, COHORT).train.patients == drawn.sum()
    assert in_rounds(planned(*OPEN), COHORT) is None


def test_who_is_held_back_depends_on_the_patient_and_not_on_who_else_is_there() -> None:
    names = np.array([f"p{number:03d}" for number in range(120)])
    everybody = make_cohort("north", X, Y, test=TEST, patients=names)
    fewer = make_cohort("north", X[:80], Y[:80], test=TEST[:80], patients=names[:80])
    whole, part = in_rounds(PLAN, everybody), in_rounds(PLAN, fewer)
    assert whole is not None and part is not None and (whole[: len(part)] == part).all()


@pytest.mark.parametrize("engine", ["sites", "vectorised"])
def test_under_privacy_one_patient_more_changes_nobody_elses_part(engine: Any) -> None:
    """Where all of a few patients are held back, rounds are noise alone; they do not take everybody instead."""
    plan = planned("fall_back_share=0.3", "privacy=local", "privacy.noise_multiplier=8", "secagg=off", "rounds=1")
    names = np.array([f"p{number:03d}" for number in range(120)])
    drawn = in_rounds(plan, make_cohort("north", X, Y, test=TEST, patients=names))
    assert drawn is not None
    held, taken = names[~TEST][~drawn][:4], names[~TEST][drawn][:1]
    part = np.isin(names, held) | TEST
    few = make_cohort("north", X[part], Y[part], test=TEST[part], patients=names[part])
    more = np.isin(names, [*held, *taken]) | TEST
    one_more = make_cohort("north", X[more], Y[more], test=TEST[more], patients=names[more])
    nobody, one = in_rounds(plan, few), in_rounds(plan, one_more)
    assert nobody is not None and not nobody.any()
    assert one is not None and one.sum() == 1
    cohorts = [make_cohort(site, X[k::2], Y[k::2], test=TEST[k::2]) for k, site in enumerate(("a", "b"))]
    experiment = Experiment(plan, task_from(plan), strategy_for(plan), [*cohorts, few], TODAY, wanted=engine)
    assert np.isfinite(experiment.run()).all()


def test_a_held_back_patient_changes_nothing_that_is_sent_and_a_drawn_one_does() -> None:
    drawn = in_rounds(PLAN, COHORT)
    assert drawn is not None
    sent, _ = answered(COHORT)
    reply = parse_answer(sent, "north")
    assert isinstance(reply, Reply) and np.any(reply.vector)
    assert answered(changed(COHORT, np.flatnonzero(~drawn)))[0] == sent
    assert answered(changed(COHORT, np.flatnonzero(drawn)[:1]))[0] != sent


def test_a_held_back_patient_is_no_opt_out_in_the_ledger() -> None:
    def said(present: np.ndarray | None) -> list[int]:
        _, ledger = answered(COHORT, lambda: present)
        return [fact.opted_out_at_most for fact in ledger.facts() if isinstance(fact, Start)]

    four = np.arange(90) >= 4
    assert (said(None), said(four)) == ([0], [10])


def test_both_engines_leave_the_same_patients_out_of_rounds() -> None:
    plan = planned("fall_back_share=0.3", *OPEN, "strategy=ditto")
    cohorts = [make_cohort(site, X[k::3], Y[k::3], test=TEST[k::3]) for k, site in enumerate(("a", "b", "north"))]
    models, own = [], []
    for engine in ("sites", "vectorised"):
        experiment = Experiment(plan, task_from(plan), strategy_for(plan), cohorts, TODAY, wanted=engine)  # type: ignore[arg-type]
        models.append(experiment.run())
        own.append(experiment.personalised(cohorts[0]))
    assert np.allclose(models[0], models[1], atol=1e-5) and np.allclose(own[0], own[1], atol=1e-5)
    whole = planned("fall_back_share=0", *OPEN, "strategy=ditto")
    assert not np.allclose(models[0], Experiment(whole, task_from(whole), strategy_for(whole), cohorts, TODAY).run())


def test_the_site_keeps_the_model_with_the_smallest_loss_on_them_and_its_own_at_a_tie() -> None:
    task, drawn = task_from(PLAN), in_rounds(PLAN, COHORT)
    own = own_model(PLAN, task, for_rounds(PLAN, COHORT))
    assert not isinstance(own, str) and drawn is not None
    zero = np.zeros_like(own)
    # By hand: a model of zeros says 0.5 of everybody, a loss of log 2; the own one has learned something.
    patients = COHORT.train.take(np.flatnonzero(~drawn))
    logits = patients.features @ own[:-1] + own[-1] if PLAN.layout.tensors[0].name.endswith("weight") else None
    assert logits is not None
    y = patients.targets[:, 0]
    assert np.mean(np.log1p(np.exp(-(2 * y - 1) * logits))) < np.log(2)
    found = kept(PLAN, task, COHORT, zero, None)
    assert found is not None and (found.model, found.held_back) == ("own", int((~drawn).sum()))
    better = own * 0 + np.where(np.arange(len(own)) == 0, 4.0, 0.0).astype(np.float32)
    picked = kept(PLAN, task, COHORT, zero, better)
    assert picked is not None and picked.model == "personalised"
    tied = kept(PLAN, task, COHORT, own, own)
    assert tied is not None and tied.model == "own"


def test_the_own_model_that_is_compared_has_not_seen_the_held_back() -> None:
    drawn = in_rounds(PLAN, COHORT)
    assert drawn is not None
    # Only the held-back patients have findings, so a model that has not seen them can know nothing of what these mean.
    features, targets = COHORT.train.features.copy(), COHORT.train.targets.copy()
    features[drawn], targets[drawn, 0] = 0.0, np.arange(drawn.sum()) % 2
    train = Examples(features, targets, COHORT.train.patient, COHORT.train.patients)
    knows_little = np.zeros(PLAN.layout.size, np.float32)
    knows_little[0] = 0.1
    found = kept(PLAN, task_from(PLAN), replace(COHORT, train=train), knows_little, None)
    assert found is not None and found.model == "shared"


def test_a_model_that_ran_away_is_never_kept() -> None:
    assert smallest({"own": float("nan"), "shared": 9.0}) == "shared"
    assert smallest({"own": 0.7, "shared": float("nan"), "personalised": float("inf")}) == "own"


def test_without_an_own_model_the_site_goes_on_with_what_the_study_gives_it() -> None:
    lone = make_cohort("north", X, np.where(TEST, Y, 1.0), test=TEST)
    found = kept(PLAN, task_from(PLAN), lone, PLAN.starting_model(), None)
    assert found is not None and found.model == "shared" and "one class only" in found.because
    none = planned(*OPEN)
    assert kept(none, task_from(none), lone, none.starting_model(), None) is None


def test_the_row_of_a_site_says_what_it_keeps_and_the_own_model_has_all_training_patients() -> None:
    task, start = task_from(PLAN), PLAN.starting_model()
    turned = own_model(PLAN, task, changed(COHORT, np.arange(90)))
    assert not isinstance(turned, str)
    compared = compare(PLAN, task, COHORT, turned, None)
    found = row(PLAN, task, COHORT, compared, compared.verdicts, rounds_in_sum=1, epsilon_site=None)
    assert found.kept is not None and found.kept.model == "own"
    assert [one.verdict for one in found.benefit] == ["harms"], "it learned every outcome turned round"
    without = planned(*OPEN)
    assert compare(without, task, COHORT, start, None).own == compared.own


def test_the_fall_back_is_in_the_plan_and_in_the_officers_words() -> None:
    without = planned("fall_back_share=0", *OPEN)
    assert PLAN.digest != without.digest
    said, silent = "\n".join(in_words(PLAN)), "\n".join(in_words(without))
    assert "Fall-back: about 0.3 of the training patients are drawn in no round" in said and "never leave" in said
    assert "Fall-back" not in silent
    facts = {fact.name: fact.text for _, group in plan_facts(PLAN) for fact in group}
    assert facts["Fall-back"].startswith("about 30 % of the training patients")


@pytest.mark.parametrize("share", ["-0.1", "0.6"])
def test_a_share_that_leaves_too_few_to_train_on_is_refused(share: str) -> None:
    with pytest.raises(UsageError, match="fall_back_share"):
        planned(f"fall_back_share={share}")
