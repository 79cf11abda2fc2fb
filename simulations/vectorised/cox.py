"""The slopes of Cox's partial likelihood for the batches of many hospitals at once; see ``client.tasks.survival``."""

import numpy as np
import numpy.typing as npt

from wardround.privacy.gradients import Array


def cox_slopes(outputs: Array, targets: Array, counts: npt.NDArray[np.int64]) -> Array:
    """Slopes (S, B, 1) for log risks (S, B, 1) and targets (S, B, 2) = time, event; rows from ``counts`` on are none.

    The risk set of an event is every patient of the same site's batch that is observed at least as long (Breslow).
    """
    places = np.arange(outputs.shape[1])
    padded = places >= counts[:, None]
    time = np.where(padded, -np.inf, targets[:, :, 0])
    order = np.argsort(-time, axis=1, kind="stable")
    time = np.take_along_axis(time, order, axis=1)
    risk = np.where(padded, -np.inf, outputs[:, :, 0])
    hazard = np.exp(np.take_along_axis(risk, order, axis=1) - np.maximum(risk.max(axis=1), 0.0)[:, None])
    observed = np.where(padded, 0.0, np.take_along_axis(targets[:, :, 1], order, axis=1))
    changes = time[:, 1:] != time[:, :-1]
    edge = np.ones((len(time), 1), bool)
    begins, ends = np.hstack([edge, changes]), np.hstack([changes, edge])
    first = np.maximum.accumulate(np.where(begins, places, 0), axis=1)
    last = np.minimum.accumulate(np.where(ends, places, len(places))[:, ::-1], axis=1)[:, ::-1]
    at_risk = np.take_along_axis(np.cumsum(hazard, axis=1), last, axis=1)
    share = np.cumsum((observed / at_risk)[:, ::-1], axis=1)[:, ::-1]
    share = np.take_along_axis(share, first, axis=1)
    slope = np.empty_like(risk)
    np.put_along_axis(slope, order, hazard * share - observed, axis=1)
    return slope[:, :, None]
