"""Every attack on one study: first without protection, where it must succeed, then under the study's own terms."""

import os
from dataclasses import dataclass
from typing import Final

import numpy as np

from wardround.client.connectors import Cohort
from wardround.client.tasks.classification import Classification
from wardround.client.training import StepCounter, train_plain, train_private
from wardround.privacy.accounting import epsilon
from wardround.privacy.gradients import Array, Examples
from wardround.protocol.errors import UsageError
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.messages import LocalRule
from wardround.protocol.plan import LocalTraining, StudyPlan
from wardround.simulations.attacks.canaries import CANARIES, one_run_audit
from wardround.simulations.attacks.inversion import STEPS, invert_dense, invert_image
from wardround.simulations.attacks.membership import SHADOWS, Attack, attack_membership

HARDLY_ANY_NOISE: Final = 1e-3
"""Noise multiplier of the control of the one-run audit: the same code with the noise as good as taken away."""

MOST_ALIKE: Final = 0.95
"""Similarity from which a reconstruction counts as the record."""

FOUND: Final = 0.3
"""Share of members found at 10 % false positives from which membership inference counts as working."""

_BY_HEART: Final = LocalTraining(epochs=300, batch_size=32, learning_rate=0.5)


@dataclass(frozen=True, slots=True)
class Row:
    """One attack. ``control`` and ``study`` say what it found; ``epsilon``: lower bounds with 95 % confidence."""

    attack: str
    measure: str
    control: float
    study: float
    succeeds: bool
    """Whether the control did what it must; else the study's figure says nothing."""
    control_epsilon: float | None = None
    epsilon: float | None = None
    members: tuple[Attack, Attack] | None = None
    """Membership inference in full: without protection, and the study."""

    @property
    def gives_away(self) -> bool:
        """Whether a record was reconstructed under the study's own terms."""
        return self.attack.startswith("inversion") and self.study > MOST_ALIKE


@dataclass(frozen=True, slots=True)
class Audit:
    """``upper`` is the accounted epsilon at ``delta`` of every round run once."""

    site: str
    patients: int
    delta: float
    upper: float
    rows: tuple[Row, ...]

    @property
    def lower(self) -> float:
        """The largest lower bound of any attack."""
        return max(row.epsilon for row in self.rows if row.epsilon is not None)

    @property
    def contradicted(self) -> bool:
        return self.lower > self.upper

    @property
    def visible(self) -> float:
        """The largest lower bound of any control: a mechanism that leaks less than this would not be noticed."""
        return max(row.control_epsilon for row in self.rows if row.control_epsilon is not None)


def audit(plan: StudyPlan, cohort: Cohort, *, quick: bool = False) -> Audit:
    """Attack the study of ``plan`` at one site. Raises UsageError for a plan without differential privacy."""
    event, delta = plan.round_event(cohort.site), plan.privacy.delta
    if not isinstance(event, PoissonGaussian) or delta is None:
        raise UsageError("a study without differential privacy claims nothing that an audit could refute",
                         "audit it with privacy=local")  # fmt: skip
    if cohort.train.features.ndim != 2 or cohort.train.patients < 20:
        raise UsageError("an audit needs a table of at least 20 training patients", "take a study with a larger site")
    rows = (
        _canaries(plan, cohort, event, delta),
        *_membership(plan, cohort, event, delta, SHADOWS // 4 if quick else SHADOWS),
        _dense(cohort, event, plan.privacy.clip_norm),
        _image(event, plan.privacy.clip_norm, STEPS // 4 if quick else STEPS),
    )
    upper = epsilon([event] * plan.rounds, delta)
    return Audit(cohort.site, cohort.train.patients, delta, upper, rows)


def _canaries(plan: StudyPlan, cohort: Cohort, event: PoissonGaussian, delta: float) -> Row:
    bare = event.model_copy(update={"noise_multiplier": HARDLY_ANY_NOISE})
    control, study = (
        one_run_audit(cohort, one, rounds=plan.rounds, clip_norm=plan.privacy.clip_norm, delta=delta, canaries=CANARIES)
        for one in (bare, event)
    )
    shares = (control.correct / control.guesses, study.correct / study.guesses)
    return Row("one run, canaries", "right guesses", *shares, shares[0] > 0.95, control.epsilon, study.epsilon)


def _membership(plan: StudyPlan, cohort: Cohort, event: PoissonGaussian, delta: float, shadows: int) -> tuple[Row, ...]:
    whole = event.model_copy(update={"steps": event.steps * plan.rounds})

    def start(task: Classification) -> "np.ndarray":
        chance = np.random.default_rng(plan.model.seed)
        return chance.normal(scale=0.3, size=task.engine.size).astype(np.float32)

    def by_heart(task: Classification, patients: Examples) -> Array:
        rule = LocalRule(_BY_HEART.learning_rate)
        return train_plain(task.engine, start(task), patients, rule, _BY_HEART, os.urandom(32)).astype(np.float64)

    def protected(task: Classification, patients: Examples) -> Array:
        rule, clip_norm = LocalRule(plan.local.learning_rate), plan.privacy.clip_norm
        model = train_private(task.engine, start(task), patients, rule, whole, clip_norm, os.urandom, StepCounter())
        return model.astype(np.float64)

    controls, studies = (attack_membership(cohort, train, delta, shadows) for train in (by_heart, protected))
    return tuple(
        Row(
            f"membership, {control.name}",
            "members found at 10 % false alarms",
            control.found_at_10,
            study.found_at_10,
            control.auc > 0.6 and (control.found_at_10 > FOUND or control.name != "LiRA"),
            control.epsilon,
            study.epsilon,
            (control, study),
        )
        for control, study in zip(controls, studies, strict=True)
    )


def _dense(cohort: Cohort, event: PoissonGaussian, clip_norm: float) -> Row:
    control, study = (invert_dense(cohort.train, one, clip_norm) for one in (None, event))
    return Row("inversion, dense layer", "similarity of the record", control.similarity, study.similarity,
               control.similarity > MOST_ALIKE)  # fmt: skip


def _image(event: PoissonGaussian, clip_norm: float, steps: int) -> Row:
    control, study = (invert_image(one, clip_norm, steps=steps) for one in (None, event))
    return Row("inversion, image", "similarity of the image", control.similarity, study.similarity,
               control.similarity > MOST_ALIKE)  # fmt: skip
