"""The gradients of a plugin as training sees them: each patient's made behind the wall, clipped and summed here.

Clipping bounds what a patient adds to the sum only if no other patient's part depends on it. The wall makes sure that
no byte of one patient reaches another's process; two ways remain, and ``Pace`` closes them: the time at which a process
starts, and which process it is. A step has a number of slots that is public, all equally long. Each drawn patient gets
a slot at random, made-up patients the others, and who has not answered when the slot ends adds nothing. So a patient
who is taken away leaves every other patient's slot as it was, with a made-up one in its own; and how long a step takes
says nothing of who was drawn (docs/adr/0027).
"""

import math
import os
import time
from dataclasses import dataclass
from random import SystemRandom
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wardround.client.plugins.children import Worker, exchange
from wardround.client.plugins.loss import request
from wardround.privacy.clipping import clip_factors
from wardround.privacy.gradients import Array, Examples
from wardround.protocol.errors import UsageError
from wardround.protocol.plugins import Plugin, PluginTask

GAP: Final = 0.02
"""Seconds at a slot's end, in which its child is killed and the next one may not begin."""

LEAST_ANSWER: Final = 0.05
"""Seconds that a patient's process has at least."""

MOST_ANSWER: Final = 60.0
"""Seconds that a made-up patient may take before the plugin is refused."""

SLACK: Final = 4.0
"""Times the slowest made-up patient that a patient's process has."""

TRIALS: Final = 5

RECORDS: Final = 16
"""Of a made-up patient. Public, so that a slot's length depends on nobody."""

OVERFLOW: Final = 1e-12
"""Chance, at most, that a step draws more patients than it has slots."""

WHOLE_SECONDS: Final = 600.0
"""For what is computed on all patients at once and stays here."""


@dataclass(frozen=True, slots=True)
class Pace:
    """``slots`` of one step, each with ``seconds`` for an answer."""

    slots: int
    seconds: float

    @property
    def step_seconds(self) -> float:
        return self.slots * (self.seconds + GAP)


class IsolatedEngine:
    """A ``GradientEngine`` whose model is a plugin.

    ``gradient_sum`` with a clip norm gives every patient a process of its own; without one, and for outputs and losses,
    which stay at the site, all records go to one. A patient whose process fails, in whatever way, adds zero.

    Args:
        slots: of a step under differential privacy; None: nothing is released, so nobody waits (a dry run).
    """

    def __init__(self, plugin: Plugin, spec: PluginTask, features: int, slots: int | None) -> None:
        self._size, self._features, self._slots = spec.layout(features).size, features, slots
        about = {
            "kind": plugin.manifest.kind,
            "label": spec.label_kind,
            "center": spec.center,
            "scale": spec.scale,
            "features": features,
            "settings": spec.settings,
            "size": self._size,
            "seconds": int(MOST_ANSWER),
        }
        self._worker = Worker(plugin, about)
        self._whole = Worker(plugin, {**about, "seconds": int(WHOLE_SECONDS), "size": 16 * self._size + (1 << 22)})
        self._pace: Pace | None = None
        self.failed = 0
        """Patients without an answer so far. It depends on patients: for the site's own people only."""

    @property
    def size(self) -> int:
        return self._size

    def pace(self) -> Pace:
        """Start the plugin, and measure on made-up patients how long one takes; the same ever after.

        Raises:
            Unavailable: this machine cannot isolate it.
            UsageError: it does not work even on made-up patients. Nothing of this depends on a patient.
        """
        if self._pace is None:
            self._worker.start()
            slowest = 0.0
            for trial in range(TRIALS + 1):
                began = time.monotonic()
                answer = self._worker.ask(self._made_up(), self._size, MOST_ANSWER)
                if trial:  # the first one finds every cache cold, and tells nothing of those that follow
                    slowest = max(slowest, time.monotonic() - began)
                if answer is None or not np.isfinite(answer).all():
                    raise UsageError(
                        "the plugin gives no gradient of the plan's size for a made-up patient",
                        "its author runs 'wardround plugin check', which does the same",
                    )
            seconds = max(LEAST_ANSWER, SLACK * slowest)
            self._pace = Pace(1 if self._slots is None else self._slots, seconds)
        return self._pace

    def gradient_sum(self, parameters: Array, examples: Examples, clip_norm: float | None) -> Array:
        if clip_norm is None:
            # Stays here, or the site is told that nothing protects its patients: see ``limits``.
            return np.asarray(self._at_once("gradient", parameters, examples, self._size), np.float64)
        pace = self.pace()
        vectors = self._paced(parameters, examples, pace) if self._slots else self._unpaced(parameters, examples)
        total = np.zeros(self._size)
        for vector in vectors:
            if vector is None:
                self.failed += 1
                continue
            exact = vector.astype(np.float64)
            (factor,) = clip_factors(np.array([exact @ exact]), clip_norm)
            if factor > 0.0:
                total += factor * exact
            else:
                self.failed += 1
        return total

    def outputs(self, parameters: Array, features: npt.NDArray[Any]) -> Array:
        records = len(features)
        blank = Examples(np.asarray(features), np.zeros((records, 1)), np.arange(records), records)
        found = self._at_once("outputs", parameters, blank, records)
        return np.asarray(found, np.float64).reshape(records, 1)

    def mean_loss(self, parameters: Array, examples: Examples) -> float:
        if not examples.patients:
            return math.nan
        return float(self._at_once("loss", parameters, examples, 1)[0]) / examples.patients

    def close(self) -> None:
        """End the plugin's processes."""
        self._worker.close()
        self._whole.close()

    def _paced(self, parameters: Array, examples: Examples, pace: Pace) -> list[npt.NDArray[np.float32] | None]:
        """One answer for each patient, in the order of the slots that they were given."""
        slots = max(pace.slots, examples.patients)
        given = dict(zip(SystemRandom().sample(range(slots), examples.patients), range(examples.patients), strict=True))
        made_up = self._made_up()
        found = []
        begin = time.monotonic()
        for slot in range(slots):
            start = begin + slot * (pace.seconds + GAP)
            asked = self._request(parameters, examples, given[slot]) if slot in given else made_up
            _sleep_until(start)
            answer = self._in_slot(asked, start + pace.seconds)
            if slot in given:
                found.append(answer)
        _sleep_until(begin + slots * (pace.seconds + GAP))
        return found

    def _in_slot(self, asked: bytes, until: float) -> npt.NDArray[np.float32] | None:
        """The answer of a child that lives until ``until``, however early it answers."""
        try:
            self._worker.start()
            with self._worker.begin() as connection:
                answer = exchange(connection, asked, self._size, until)
                _sleep_until(until)
            self._worker.end()
        except OSError:
            self._worker.close()
            return None
        return answer

    def _unpaced(self, parameters: Array, examples: Examples) -> list[npt.NDArray[np.float32] | None]:
        return [
            self._worker.ask(self._request(parameters, examples, patient), self._size, MOST_ANSWER)
            for patient in range(examples.patients)
        ]

    def _request(self, parameters: Array, examples: Examples, patient: int) -> bytes:
        rows = slice(*np.searchsorted(examples.patient, [patient, patient + 1]))
        features, targets = np.asarray(examples.features[rows]), examples.targets[rows]
        return request("gradient", parameters, features, targets, np.full(len(targets), 1 / len(targets)), _seed())

    def _made_up(self) -> bytes:
        blank = np.zeros((RECORDS, self._features))
        return request("gradient", np.zeros(self._size), blank, blank[:, :1], np.full(RECORDS, 1 / RECORDS), _seed())

    def _at_once(self, wanted: Any, parameters: Array, examples: Examples, count: int) -> npt.NDArray[np.float32]:
        weights = (1.0 / np.bincount(examples.patient))[examples.patient] if examples.patients else np.zeros(0)
        asked = request(wanted, parameters, np.asarray(examples.features), examples.targets, weights, _seed())
        answer = self._whole.ask(asked, count, WHOLE_SECONDS)
        if answer is None:
            raise UsageError("the plugin gave no answer", "a dry run shows more: wardround site dry-run")
        return answer


def slots_for(declared_patients: int, sampling_probability: float) -> int:
    """How many slots a step needs, so that more patients are drawn with a chance of at most ``OVERFLOW``.

    Chernoff's bound for a binomial of at most ``declared_patients``: exp(-n KL(k / n || q)). Both numbers are public.
    """
    n, q = declared_patients, sampling_probability
    for slots in range(math.ceil(n * q), n):
        share = (slots + 1) / n
        rest = 0.0 if share >= 1.0 else (1.0 - share) * math.log((1.0 - share) / (1.0 - q))
        if q < 1.0 and share > q and n * (share * math.log(share / q) + rest) >= -math.log(OVERFLOW):
            return max(1, slots)
    return n


def _seed() -> int:
    return int.from_bytes(os.urandom(7), "big")


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))
