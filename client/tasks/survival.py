"""Survival with censoring: Cox's partial likelihood (without DP) and the piecewise exponential model (with DP)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wardround.client.tasks.base import Metric, Scores, patient_means
from wardround.client.tasks.dense import DenseTask, Spec
from wardround.privacy.gradients import Array, Examples
from wardround.protocol.tasks import SurvivalCox, SurvivalPiecewise


class CoxLoss:
    """Negative log partial likelihood of a batch, over its number of patients (Cox 1972; Breslow's ties).

    The risk set of an event at time t is every patient of the batch still observed at t: patients are coupled.
    """

    couples_patients = True

    def loss_and_slope(self, outputs: Array, targets: Array) -> tuple[Array, Array]:
        """Per-patient terms (B,) and slopes (B, 1), for log risks (B, 1) and targets (B, 2) = time, event."""
        risk, time, event = outputs[:, 0], targets[:, 0], targets[:, 1]
        order = np.argsort(-time, kind="stable")
        shift = risk.max(initial=0.0)
        hazard = np.exp(risk[order] - shift)
        # With ties the risk set of a time ends behind the last patient of that time.
        last = np.searchsorted(-time[order], -time[order], side="right") - 1
        at_risk = np.cumsum(hazard)[last]
        observed = event[order]
        loss = np.empty_like(risk)
        loss[order] = observed * (np.log(at_risk) + shift - risk[order])
        first = np.searchsorted(-time[order], -time[order], side="left")
        share = np.cumsum((observed / at_risk)[::-1])[::-1][first]
        slope = np.empty_like(risk)
        slope[order] = hazard * share - observed
        return loss, slope[:, None]


@dataclass(frozen=True)
class PiecewiseLoss:
    """Negative log likelihood of a hazard constant on each interval: sum_k exp(o_k) rate t_k - d_k (o_k + log rate).

    t_k is the time that the patient was observed in interval k, d_k is 1 where the event fell in it (Friedman 1982).
    """

    cuts: tuple[float, ...]
    rate: float

    couples_patients = False

    def loss_and_slope(self, outputs: Array, targets: Array) -> tuple[Array, Array]:
        """Loss (B,) and slopes (B, K), for log hazards relative to ``rate`` (B, K) and targets (B, 2)."""
        time, event = targets[:, :1], targets[:, 1:]
        lower = np.array([0.0, *self.cuts])
        upper = np.array([*self.cuts, np.inf])
        exposure = np.clip(time - lower, 0.0, upper - lower)
        falls = event * ((time > lower) & (time <= upper))
        falls[:, 0] += event[:, 0] * (targets[:, 0] == 0.0)
        expected = np.exp(np.minimum(outputs, 50.0)) * self.rate * exposure
        loss = (expected - falls * (outputs + np.log(self.rate))).sum(axis=1)
        return loss, expected - falls


def concordance(scores: Scores, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Harrell's c-index: of comparable pairs, the share in which the earlier event has the higher risk (ties 1/2)."""
    time, event = scores.target[:, 0], scores.target[:, 1]
    comparable = (event[:, None] > 0) & ((time[:, None] < time) | ((time[:, None] == time) & (event == 0)))
    np.fill_diagonal(comparable, False)
    right = comparable * ((scores.score[:, None] > scores.score) + 0.5 * (scores.score[:, None] == scores.score))
    pairs = ((weights @ comparable) * weights).sum(axis=1)
    return np.asarray(((weights @ right) * weights).sum(axis=1) / np.where(pairs > 0, pairs, np.nan))


@dataclass(frozen=True)
class _Survival(DenseTask[Spec]):
    """Survival tasks rank patients by the log relative risk."""

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return {"c_index": concordance}

    def scores(self, outputs: Array, examples: Examples) -> Scores:
        """The first output per patient. Hazards are proportional, so the first interval ranks as every other."""
        return Scores(patient_means(outputs[:, 0], examples), patient_means(examples.targets, examples))


@dataclass(frozen=True)
class Cox(_Survival[SurvivalCox]):
    """``SurvivalCox`` at the site."""

    @property
    def head(self) -> CoxLoss:
        return CoxLoss()


@dataclass(frozen=True)
class Piecewise(_Survival[SurvivalPiecewise]):
    """``SurvivalPiecewise`` at the site."""

    @property
    def head(self) -> PiecewiseLoss:
        return PiecewiseLoss(self.spec.cuts, self.spec.baseline_rate)
