"""Results as a simulation finds them, made by code: the awkward cases of a report in one place."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from math import sqrt
from random import Random
from typing import Any

import pytest

from wardround.protocol.plan import StudyPlan
from wardround.simulations.result import (
    CurveResult,
    Environment,
    EstimateResult,
    ModelResult,
    PrivacyResult,
    RoundResult,
    RoundSiteResult,
    SimulationResult,
    SiteResult,
)

Sample = tuple[SimulationResult, StudyPlan]
SITES = ("aarau", "bergen", "cork", "delft")
ROUNDS = 15
VOID = 7
ATTRIBUTION = "Made-up numbers of four made-up hospitals, for tests."
ONE_CLASS = "its training patients have one class only"


def make_plan(mode: str = "local", survival: bool = False, **changes: Any) -> StudyPlan:
    columns = [
        {"type": "number", "name": "age", "meaning": "Age", "unit": "a", "minimum": 18, "maximum": 110,
         "center": 54, "scale": 10},
        {"type": "number", "name": "chol", "meaning": "Serum cholesterol", "unit": "mg/dL", "minimum": 60,
         "maximum": 700, "center": 200, "scale": 100, "also_allowed": [0], "missing_codes": [-9],
         "missing": {"kind": "fixed_value", "value": 200}},
        {"type": "code", "name": "sex", "meaning": "Sex", "codes": {"0": "female", "1": "male"}, "reference": "0"},
    ]  # fmt: skip
    label: dict[str, Any] = {"kind": "class", "column": "num", "meaning": "A narrowed coronary artery",
                             "positive": ["1", "2"], "negative": ["0"]}  # fmt: skip
    task: dict[str, Any] = {"name": "tabular_classification"}
    if survival:
        label = {"kind": "survival", "time": "days", "event": "died", "meaning": "Death of any cause", "unit": "d",
                 "maximum_time": 8000}  # fmt: skip
        task = {"name": "survival_piecewise", "cuts": [365.0, 1095.0], "baseline_rate": 0.0001}
    privacy: dict[str, Any] = {"mode": "none"}
    local: dict[str, Any] = {"epochs": 1, "batch_size": 32, "learning_rate": 0.1}
    if mode == "local":
        privacy = {"mode": "local", "noise_multiplier": 2.84, "sampling_probability": 0.25, "delta": 1e-4, "epsilon": 3}
        local = {"steps": 5, "learning_rate": 0.5}
    plan = {
        "study": "arteries",
        "title": "Narrowed arteries at four hospitals",
        "governance": {
            "purpose": "Predict a narrowed coronary artery from findings that are known before angiography.",
            "controllers": [{"name": "Aarau Cantonal Hospital"}, {"name": "Bergen University Hospital"}],
            "legal_basis": "GDPR Art. 9(2)(j) and national research law",
            "ethics_reference": "EKNZ 2026-00417",
            "recipients": ["Aarau Cantonal Hospital"],
            "permitted_use": "Research and teaching; not for the care of patients.",
            "proposed_on": date(2026, 3, 2),
            "expires_on": date(2027, 3, 2),
        },
        "contract": {"columns": columns, "label": label, "missing_tokens": ["", "NA"]},
        "task": task,
        "model": {"scheme": "zeros", "seed": 42, "layout": "a" * 64, "hash": "b" * 64},
        "strategy": {"name": "fedadam", "parameters": {"learning_rate": 0.1}},
        "local": local,
        "rounds": ROUNDS,
        "min_sites": 3,
        "participants": [{"site": site, "declared_patients": 200} for site in SITES],
        "privacy": privacy,
        "code_version": "0.1.0+test",
    }
    return StudyPlan.model_validate(plan | changes)


def estimate(value: float, half: float) -> EstimateResult:
    return EstimateResult(value=value, low=value - half, high=min(value + half * 0.9, 1.0))


def _curves(random: Random, good: float) -> CurveResult:
    roc = [(0.0, 0.0)]
    for step in range(1, 41):
        share = step / 40
        roc.append((share, max(roc[-1][1], min(1.0, share ** (1 - good) + random.uniform(-0.03, 0.03)))))
    bins = [(0.05 + 0.1 * k, min(max(0.05 + 0.1 * k + random.uniform(-0.2, 0.2), 0.0), 1.0), 3 + k) for k in range(10)]
    return CurveResult(roc=(*roc, (1.0, 1.0)), calibration=tuple(bins))


def _model(random: Random, metrics: dict[str, float], half: float, survival: bool) -> ModelResult:
    estimates = {name: estimate(value, half) for name, value in metrics.items()}
    return ModelResult(metrics=estimates, curves=CurveResult() if survival else _curves(random, metrics["auroc"] - 0.2))


def _metrics(shift: float, survival: bool) -> dict[str, float]:
    if survival:
        return {"c_index": 0.68 + shift}
    return {"accuracy": 0.76 + shift, "auroc": 0.84 + shift, "log_loss": 0.48 - shift}


def _privacy(mode: str) -> PrivacyResult:
    if mode == "none":
        return PrivacyResult(
            mode="none", claim="nothing: simulation only", statement="No differential privacy: this is a simulation."
        )
    return PrivacyResult(
        mode="local",
        claim="epsilon_site",
        statement="Each hospital's contribution is (2.99, 0.0001)-differentially private for any single patient of "
        "that hospital (adding or removing one patient), against everyone, whoever colludes.",
        delta=1e-4,
        epsilon_planned=2.9871,
        epsilon_limit=3.0,
        noise_multiplier=2.84,
        sampling_probability=0.25,
        clip_norm=1.0,
        accountant="dp-accounting",
        filter_order=3,
        domain_cap=8.0,
        domain_share_used=0.2734,
    )


def make_result(plan: StudyPlan, *, survival: bool = False, calm: bool = False) -> SimulationResult:
    """Four hospitals, of which cork has no own model, and ewell takes no part; round 7 is void."""
    random, mode = Random(7), plan.privacy.mode.value
    spent = dict.fromkeys(SITES, 0.0)
    rounds = []
    for number in range(1, ROUNDS + 1):
        sites = {}
        for index, name in enumerate(SITES):
            outcome, detail = "replied", ""
            if number == VOID and index < 2:
                outcome, detail = ("refused", "policy") if index else ("lost", "no answer before the deadline")
            if number == 11 and index == 3:
                outcome, detail = "late", ""
            if outcome != "refused":
                spent[name] = 0.77 * sqrt(number)
            metrics: dict[str, float | None] = {
                key: value - 0.25 / number + random.uniform(-0.01, 0.01)
                for key, value in _metrics(0.02 * index, survival).items()
            }
            sites[name] = RoundSiteResult(
                outcome=outcome, detail=detail, metrics=metrics,
                epsilon_site=spent[name] if mode == "local" else None,
            )  # fmt: skip
        means: dict[str, float | None] = {
            key: sum(part.metrics[key] or 0.0 for part in sites.values()) / len(SITES) for key in metrics
        }
        rounds.append(
            RoundResult(
                round_number=number, state="void" if number == VOID else "closed", model_before=f"{number:064x}",
                model_after=f"{number + 1:064x}", metrics=means, sites=sites,
            )
        )  # fmt: skip
    found = []
    for index, name in enumerate(SITES):
        shift = 0.02 * index
        shared = _model(random, _metrics(shift, survival), 0.06 + 0.02 * index, survival)
        own = _model(random, _metrics(shift - 0.04 * (2 - index), survival), 0.07 + 0.02 * index, survival)
        move = 0.04 * (2 - index)
        half = 0.2 if calm else 0.035
        gains = {key: estimate(-move if key == "log_loss" else move, half) for key in own.metrics}
        if name == "cork":
            missing = EstimateResult(value=None, reason=ONE_CLASS)
            own, gains = ModelResult(metrics=dict.fromkeys(own.metrics, missing), reason=ONE_CLASS), {}
        found.append(
            SiteResult(
                site=name,
                train_patients=(1199, 172, 30, 85)[index],
                test_patients=(504, 89, 16, 45)[index],
                declared_patients=200,
                left_out={"chol missing": 23, "age missing": 8} if index % 2 else {},
                rounds_in_sum=sum(r.state == "closed" and r.sites[name].outcome == "replied" for r in rounds),
                epsilon_site=spent[name] if mode == "local" else None,
                own=own,
                shared=shared,
                gain=gains,
            )
        )
    found.append(
        SiteResult(
            site="ewell", train_patients=1, test_patients=0, declared_patients=None, left_out={"age missing": 12},
            excluded_because="one training patient",
        )
    )  # fmt: skip
    return SimulationResult(
        study=plan.study,
        title=plan.title,
        plan_digest=plan.digest,
        created=datetime(2026, 3, 4, 9, 30, tzinfo=UTC),
        seconds_to_first_round=2.71,
        seconds_in_rounds=3.14,
        seconds=6.42,
        cpu_seconds=5.31,
        strategy=plan.strategy.name,
        task=plan.task.name,
        headline_metrics=("c_index",) if survival else ("accuracy", "auroc"),
        privacy=_privacy(mode),
        sites=tuple(found),
        rounds=tuple(rounds),
        final_model="c" * 64,
        data_hashes={name: f"{index + 100:064x}" for index, name in enumerate(SITES)},
        split_hashes={name: f"{index + 200:064x}" for index, name in enumerate(SITES)},
        attribution=ATTRIBUTION,
        notes=("small batches: fewer than 200 patients are expected in a step at aarau",),
        environment=Environment(
            wardround="0.1.0", python="3.11.7", platform="Linux x86_64", cpu="AMD EPYC", threads=2,
            packages={"numpy": "2.4.6", "dp-accounting": "0.6.0"}, seed=42,
        ),
    )  # fmt: skip


@pytest.fixture
def plan() -> StudyPlan:
    return make_plan()


@pytest.fixture
def protected() -> Sample:
    """Patient-level privacy, a void round, a late hospital, one without an own model, one excluded."""
    plan = make_plan()
    return make_result(plan), plan


@pytest.fixture
def unprotected() -> Sample:
    plan = make_plan("none")
    return make_result(plan), plan


@pytest.fixture
def survival() -> Sample:
    plan = make_plan(survival=True)
    return make_result(plan, survival=True), plan


@pytest.fixture
def calm() -> Sample:
    """No difference is clear at any hospital."""
    plan = make_plan()
    return make_result(plan, calm=True), plan


@pytest.fixture
def planned() -> Callable[..., StudyPlan]:
    return make_plan
