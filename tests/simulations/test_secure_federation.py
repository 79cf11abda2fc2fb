"""The federation under secure aggregation: the same model, exact sums, and every loss at every exchange."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from wardround.client.secure import SecureSite
from wardround.client.tasks import task_from
from wardround.client.tasks.classification import Classification
from wardround.privacy.secagg.quantize import Quantizer
from wardround.protocol.errors import Unavailable
from wardround.protocol.messages import Reply
from wardround.protocol.outgoing import bytes_to_send
from wardround.protocol.parameters import Total
from wardround.protocol.plan import LocalTraining, PrivacyMode, PrivacyTerms
from wardround.protocol.tasks import TabularClassification
from wardround.server import sums as sums_module
from wardround.server.rounds import Outcome
from wardround.server.sums import MaskedSum
from wardround.simulations import experiment as experiment_module
from wardround.simulations import run
from wardround.simulations.cohorts import synthetic_cohorts
from wardround.simulations.experiment import Experiment
from wardround.simulations.faults import Fault, FaultKind
from wardround.simulations.federation import Federation
from wardround.strategies import STRATEGIES

COHORTS = synthetic_cohorts(5, (60, 140), 5, seed=11)
NAMES = [cohort.site for cohort in COHORTS]
TASK = Classification(TabularClassification(hidden=(6,)), 5)
OPEN, MASKED = PrivacyTerms(mode=PrivacyMode.NONE), PrivacyTerms(mode=PrivacyMode.NONE, secure_aggregation=True)
PRIVATE = PrivacyTerms(mode=PrivacyMode.LOCAL, secure_aggregation=True, noise_multiplier=3.0, sampling_probability=0.25,
                       delta=1e-4, epsilon=3.0)  # fmt: skip


def simulated(
    terms: PrivacyTerms, *, faults: Sequence[Fault] = (), rounds: int = 3, strategy: str = "fedavg", seed: int = 5
) -> tuple[Any, Experiment]:
    kept: list[Experiment] = []
    original = Experiment.__post_init__

    def keep(self: Experiment) -> None:
        kept.append(self)
        original(self)

    private = terms.mode is PrivacyMode.LOCAL or STRATEGIES[strategy].equal_steps
    local = LocalTraining(steps=3, learning_rate=0.3) if private else LocalTraining(epochs=1, batch_size=16,
                                                                                    learning_rate=0.2)  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Experiment, "__post_init__", keep)
        done = run(
            task=TASK, strategy=STRATEGIES[strategy](), cohorts=COHORTS, rounds=rounds, local=local, privacy=terms,
            seed=seed, min_sites=2, faults=faults, compare=False, engine="sites",
        )  # fmt: skip
    return done, kept[0]


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_the_model_is_the_one_without_masks_up_to_the_quantisation(strategy: str) -> None:
    plain, masked = (simulated(terms, strategy=strategy)[0].model for terms in (OPEN, MASKED))
    assert np.abs(plain - masked).max() < 1e-5
    assert (plain != masked).any(), "nothing was quantised"


def test_the_sum_that_is_opened_is_the_integer_sum_of_what_each_site_quantised(monkeypatch: pytest.MonkeyPatch) -> None:
    summed, opened = [], []
    quantize, total = Quantizer.quantize, MaskedSum.open

    def noted(self: Quantizer, values: Any, key: bytes) -> Any:
        found = quantize(self, values, key)
        summed.append(found)
        return found

    def noted_total(self: MaskedSum) -> None:
        opened.append(self.desk.total())
        total(self)

    monkeypatch.setattr(Quantizer, "quantize", noted)
    monkeypatch.setattr(MaskedSum, "open", noted_total)
    simulated(PRIVATE, rounds=2)
    assert len(summed) == 10 and len(opened) == 2
    for number, found in enumerate(opened):
        assert found.tolist() == np.sum(summed[5 * number : 5 * number + 5], axis=0).tolist()


def test_no_reply_in_the_open_reaches_the_coordinator(monkeypatch: pytest.MonkeyPatch) -> None:
    from wardround.simulations import federation

    seen: list[Any] = []
    parse = federation.parse_answer
    monkeypatch.setattr(federation, "parse_answer", lambda data, site: seen.append(parse(data, site)) or seen[-1])
    _, experiment = simulated(PRIVATE, rounds=1)
    assert len(seen) == 5 and not any(isinstance(answer, Reply) for answer in seen)
    # What the ledger holds is the hash of the masked bytes.
    assert all(site.ledger.charged(experiment.plan.digest) == 1 for site in experiment.federation.sites)


@pytest.mark.parametrize(
    "kind", [k for k in FaultKind if k not in (FaultKind.SILENT_CONSENT, FaultKind.SILENT_OPENING)]
)
def test_a_site_that_is_lost_before_its_upload_is_left_out_by_name(kind: FaultKind) -> None:
    """Five sites, threshold four; the next rounds have all five again, in a new session where one restarted."""
    done, _ = simulated(PRIVATE, faults=[Fault(NAMES[2], 2, kind)])
    states = [each.state for each in done.result.rounds]
    assert states == ["closed"] * 3
    outcomes = done.result.rounds[1].sites
    assert outcomes[NAMES[2]].outcome != "replied"
    assert sum(site.outcome == "replied" for site in outcomes.values()) == 4
    assert all(site.outcome == "replied" for site in done.result.rounds[2].sites.values())


@pytest.mark.parametrize("kind", [FaultKind.SILENT_CONSENT, FaultKind.SILENT_OPENING])
def test_a_site_that_is_lost_after_its_upload_is_still_in_the_sum(kind: FaultKind) -> None:
    done, _ = simulated(PRIVATE, faults=[Fault(NAMES[2], 2, kind)])
    assert [each.state for each in done.result.rounds] == ["closed"] * 3
    assert done.result.rounds[1].sites[NAMES[2]].outcome == "replied"


def test_one_lost_before_and_one_after_the_upload_void_the_round_with_five_sites() -> None:
    faults = [Fault(NAMES[0], 2, FaultKind.UNREACHED), Fault(NAMES[1], 2, FaultKind.SILENT_OPENING)]
    done, experiment = simulated(PRIVATE, faults=faults)
    assert [each.state for each in done.result.rounds] == ["closed", "void", "closed"]
    assert done.result.rounds[1].model_after == done.result.rounds[0].model_after
    # The charge stays: patients were drawn.
    plan = experiment.plan.digest
    assert [site.ledger.charged(plan) for site in experiment.federation.sites] == [2, 3, 3, 3, 3]


def test_below_the_threshold_nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    for step in ("consent", "open", "open_whole"):
        monkeypatch.setattr(SecureSite, step, lambda self, *arguments: asked.append(self.name))
    gone = [Fault(name, number, FaultKind.UNREACHED) for name in NAMES[:2] for number in (1, 2, 3)]
    with pytest.raises(Unavailable):
        simulated(PRIVATE, faults=gone)
    assert asked == []


def test_a_coordinator_that_sends_a_wrong_proposal_costs_no_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proposal is checked before anything is reserved, so that requests that end in a refusal spend nothing."""
    monkeypatch.setattr(Federation, "run", lambda self, note: [self.step()])
    _, experiment = simulated(PRIVATE, rounds=2)
    study, secure = experiment.federation.study, experiment.federation.secure
    request = study.open_round(0.0).request
    assert request.round_number == 2
    desk = study.desk
    assert desk is not None
    proposal = desk.proposal(request.round_number, request.attempt, request.model_hash, "contribution")
    for site in secure.values():
        before = site.site.ledger.charged(experiment.plan.digest)
        for wrong in (
            {"participants": proposal.participants[:2]},
            {"model_hash": "00" * 32},
            {"session": "00" * 32},
            {"round_number": 1},
        ):
            changed = type(proposal)(**{**vars_of(proposal), **wrong}).signed_by(desk.identity)
            answer = bytes_to_send(site.answer(request, changed, experiment.today))
            assert b'"refused":"protocol"' in answer
        assert site.site.ledger.charged(experiment.plan.digest) == before


def vars_of(proposal: Any) -> dict[str, Any]:
    return {name: getattr(proposal, name) for name in proposal.__dataclass_fields__}


def test_a_reply_that_is_masked_again_becomes_the_same_integers() -> None:
    """Rounding is drawn from the reply and a secret of the site: else a retry would be another sum over the same."""
    _, experiment = simulated(PRIVATE, rounds=1)
    quantizer = next(iter(experiment.federation.secure.values()))._quantizer
    values = np.random.default_rng(0).normal(size=quantizer.length)
    assert (quantizer.quantize(values, bytes(32)) == quantizer.quantize(values, bytes(32))).all()
    records = [site.site.ledger.state.sums.opened for site in experiment.federation.secure.values()]
    assert all(list(each.values()) == [tuple(NAMES)] for each in records)


def test_a_round_in_which_a_site_was_dropped_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    original = SecureSite.open_whole

    def lying(self: SecureSite, proposal: Any, survivors: Any) -> Any:
        if self.name == NAMES[3]:
            part = type(survivors)(survivors.proposal, survivors.uploads[:3])
            survivors = part.signed_by(experiments[0].engine.keys.coordinator)
        return original(self, proposal, survivors)

    experiments: list[Any] = []
    original_start = Experiment.__post_init__

    def started(self: Experiment) -> None:
        experiments.append(self)
        original_start(self)

    monkeypatch.setattr(Experiment, "__post_init__", started)
    monkeypatch.setattr(SecureSite, "open_whole", lying)
    done, _ = simulated(PRIVATE, rounds=1)
    assert [each.state for each in done.result.rounds] == ["closed"]
    assert done.result.rounds[0].sites[NAMES[3]].outcome == Outcome.REPLIED
    assert "the list lacks some who were proposed" in done.result.rounds[0].sites[NAMES[3]].detail


def test_a_result_says_which_sums_were_opened_and_claims_no_more_epsilon_for_it() -> None:
    masked, _ = simulated(PRIVATE, rounds=1)
    assert masked.result.privacy.secure_sum_of_at_least == 4
    assert "sums over at least 4 hospitals only" in masked.result.privacy.statement
    in_the_open, _ = simulated(PRIVATE.model_copy(update={"secure_aggregation": False}), rounds=1)
    assert in_the_open.result.privacy.secure_sum_of_at_least is None
    assert "secure" not in in_the_open.result.privacy.statement
    assert in_the_open.result.privacy.epsilon_planned == masked.result.privacy.epsilon_planned


def test_a_plan_by_name_has_secure_aggregation_where_it_can(tmp_path: Any) -> None:
    from datetime import date

    from wardround.conf.compose import compose_configuration
    from wardround.conf.planning import make_plan
    from wardround.conf.schema import parse_configuration
    from wardround.protocol.errors import UsageError

    def plan(sites: int, *overrides: str) -> Any:
        declared = {f"s{number:03d}": 200 for number in range(sites)}
        return make_plan(parse_configuration(compose_configuration(list(overrides))), declared, date(2026, 11, 23))

    on = {
        (4, ()): True,
        (4, ("secagg=off",)): False,
        (4, ("privacy=none",)): False,
        (4, ("privacy=none", "secagg=on")): True,
        (2, ("min_sites=2",)): False,
        (101, ()): False,
        (100, ()): True,
    }
    assert {key: plan(key[0], *key[1]).privacy.secure_aggregation for key in on} == on
    for sites, overrides in ((2, ("min_sites=2", "secagg=on")), (101, ("secagg=on",))):
        with pytest.raises(UsageError, match="no secure aggregation among"):
            plan(sites, *overrides)
    assert task_from(plan(4)).layout.size > 0


def names_of(done: Any) -> list[tuple[str, ...]]:
    return [each.voided_by for each in done.result.rounds]


def test_a_void_round_names_the_sites_that_voided_it() -> None:
    faults = [Fault(NAMES[0], 2, FaultKind.UNREACHED), Fault(NAMES[1], 2, FaultKind.SILENT_OPENING)]
    assert names_of(simulated(PRIVATE, faults=faults)[0]) == [(), (NAMES[0], NAMES[1]), ()]


def test_a_site_that_is_lost_after_the_sum_is_safe_is_named_nowhere() -> None:
    faults = [Fault(NAMES[1], 2, FaultKind.SILENT_OPENING), Fault(NAMES[2], 3, FaultKind.UNREACHED)]
    assert names_of(simulated(PRIVATE, faults=faults)[0]) == [(), (), ()]


def test_a_site_that_voids_three_rounds_stops_the_study_before_it_costs_the_others_more() -> None:
    """The attack on the others' budgets: be lost at the one moment that voids a round, again and again."""
    faults = []
    for number in (1, 3, 5, 7, 9):
        # Two sites together void a round; one of them is always the same.
        faults += [Fault(NAMES[0], number, FaultKind.SILENT_OPENING)]
        faults += [Fault(NAMES[1 + number % 4], number, FaultKind.UNREACHED)]
    kept: list[Experiment] = []
    original = Experiment.run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Experiment, "run", lambda self, told: (kept.append(self), original(self, told))[1])
        with pytest.raises(Unavailable, match=f"three rounds were void through {NAMES[0]}; the study has stopped"):
            simulated(PRIVATE, faults=faults, rounds=10)
    (experiment,) = kept
    assert [each.state for each in experiment.rounds] == ["void", "closed", "void", "closed", "void"]
    charged = [site.ledger.charged(experiment.plan.digest) for site in experiment.federation.sites]
    assert max(charged) == 5, "a round was charged after the study had stopped"
    # People decided to go on: the count begins anew, and was written down with the study's progress.
    assert NAMES[0] not in experiment.federation.study.progress.voided
    assert experiment.federation.study.progress.voided == {NAMES[2]: 2, NAMES[4]: 1}


def test_without_noise_every_hospital_is_in_every_sum_or_there_is_none() -> None:
    """Mode MASK_ONLY: two sums over different sites would differ by single contributions that nothing protects."""
    done, experiment = simulated(MASKED, faults=[Fault(NAMES[2], 2, FaultKind.UNREACHED)])
    assert experiment.plan.sum_threshold == 5
    assert [each.state for each in done.result.rounds] == ["closed", "void", "closed"]
    assert names_of(done) == [(), (NAMES[2],), ()]
    assert "only sums over all 5 hospitals" in done.result.privacy.statement
    assert "two of its officers sign" in done.result.privacy.statement


@pytest.mark.parametrize("directed", [False, True])
def test_a_result_says_whether_the_coordinators_authority_directs_a_hospital(directed: bool) -> None:
    from datetime import date

    from wardround.conf.compose import compose_configuration
    from wardround.conf.planning import make_plan
    from wardround.conf.schema import parse_configuration
    from wardround.console.reports.words import privacy_words
    from wardround.protocol.errors import ProtocolViolation
    from wardround.simulations.statement import privacy_statement

    overrides = ["privacy=dist", *(["coordinator_directs=[b]"] if directed else [])]
    declared = dict.fromkeys("abcd", 200)
    plan = make_plan(parse_configuration(compose_configuration(overrides)), declared, date(2026, 11, 23))
    said = [privacy_words(plan), privacy_statement(plan, 3.0, 2.0)]
    assert plan.privacy.claim == ("epsilon_site" if directed else "epsilon_site and epsilon_consortium")
    assert all(("against outsiders only" in text) is directed for text in said)
    assert all(("against the coordinator" in text) is not directed for text in said)
    # A site does not join when the plan claims more than its roster allows.
    _, experiment = simulated(PRIVATE, rounds=1)
    assert experiment.standing is not None and "protects against the coordinator too" in experiment.standing
    terms = PRIVATE.model_copy(update={"outsiders_only": directed})
    with pytest.MonkeyPatch.context() as patch:
        roster = experiment_module.simulated_roster
        patch.setattr(
            experiment_module, "simulated_roster", lambda sites, own, _, today: roster(sites, own, NAMES[1:2], today)
        )
        if not directed:
            with pytest.raises(ProtocolViolation, match="whose authority directs a site of the roster"):
                simulated(terms, rounds=1)
            return
        done, experiment = simulated(terms, rounds=1)
    assert NAMES[1] in str(done.result.privacy.standing) and "outsiders only" in done.result.privacy.statement


def test_where_one_authority_directs_both_no_screen_shows_an_epsilon_against_the_coordinator() -> None:
    shared = {"mode": PrivacyMode.DIST, "epsilon_consortium": 3.0, "epsilon": 8.0}
    for directed in (False, True):
        terms = PRIVATE.model_copy(update=shared | {"outsiders_only": directed})
        done = run(task=TASK, strategy=STRATEGIES["fedavg"](), cohorts=COHORTS, rounds=2, privacy=terms, compare=False,
                   engine="sites", local=LocalTraining(steps=1, learning_rate=0.3), min_sites=2)  # fmt: skip
        assert (done.result.privacy.epsilon_consortium is None) is directed
        assert (done.result.privacy.noise_of_shares is None) is directed
        assert (done.result.privacy.claim == "epsilon_site") is directed


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam"])
def test_sums_taken_block_by_block_give_the_same_model_in_the_sums_own_memory(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sums_module, "BLOCK", 7)
    expected, blocks, spare = list[Any](), list[slice](), list[Any]()
    totals, memory, step = MaskedSum.totals, MaskedSum.spare, STRATEGIES[strategy]()

    def watched(self: MaskedSum, size: int) -> Iterator[tuple[slice, Total]]:
        """Before anything is overwritten, the same sums are stepped as a whole."""
        state = kept[0].federation.study.progress.state
        expected.append(step.step(state, self.total()).model)
        for at, total in totals(self, size):
            blocks.append(at)
            yield at, total

    def noted(self: MaskedSum, size: int) -> Any:
        spare.append(memory(self, size))
        return spare[-1]

    kept: list[Experiment] = []
    original = Experiment.__post_init__
    monkeypatch.setattr(Experiment, "__post_init__", lambda self: (kept.append(self), original(self))[1])
    monkeypatch.setattr(MaskedSum, "totals", watched)
    monkeypatch.setattr(MaskedSum, "spare", noted)
    done, _ = simulated(MASKED, strategy=strategy)
    assert len(blocks) == 3 * -(-len(done.model) // 7) and len(spare) == len(expected) == 3
    assert all(np.array_equal(*pair) for pair in zip(expected, spare, strict=True))
    assert np.shares_memory(kept[0].federation.study.progress.state.model, spare[-1])
