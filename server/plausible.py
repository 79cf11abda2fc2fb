"""Whether the length of a sum is one that the plan's noise and clipping allow. A warning for people, never a refusal.

The sum of p_k D_k over n sites is made of K steps of clipped sums and noise. With eta the learning rate, C the clip
norm, sigma the noise multiplier and q the sampling probability, a step of a site puts at most eta C B / q into p_k D_k
(B its batch) and Gaussian noise of standard deviation eta sigma C / q at every coordinate; declared patients cancel.

* **Not shorter.** The noise of the last step is drawn after all else is fixed. So the squared length is at least, in
  distribution, that of the last noise alone: (eta sigma C / q)^2 n chi^2_d, whatever the patients are.
* **Not longer.** The length is at most that of all the noise, (eta sigma C / q) sqrt(K n chi^2_d), and of all batches,
  eta C sum B / q, where sum B is at most binomial with K sum N_k trials at q.

chi^2 is bounded as in Laurent and Massart 2000 (lemma 1), the binomial by Chernoff. So an honest round is warned of
with probability at most ``FALSE_ALARM``, a study of 100 rounds with at most 1 in 10. What stays unseen: one site of
many without noise, or an update that is false and not too long.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, sqrt
from typing import Final

import numpy as np

from wardround.protocol.events import PoissonGaussian
from wardround.protocol.plan import StudyPlan
from wardround.protocol.statistics import Statistics
from wardround.strategies import Strategy

FALSE_ALARM: Final = 1e-3
"""The most probability, of each round, that an honest sum is warned of."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Between which 2-norms the sum of p_k D_k should lie."""

    low: float
    high: float

    def warning(self, length: float) -> str:
        """What is to be said of a sum of this length; "" if nothing."""
        if length < self.low:
            return (
                f"the sum is shorter ({length:.4g}) than the plan's noise alone should make it (at least "
                f"{self.low:.4g}): does every site add its noise?"
            )
        if length > self.high:
            return (
                f"the sum is longer ({length:.4g}) than the plan's clipping and noise should let it be (at most "
                f"{self.high:.4g}): does every site clip?"
            )
        return ""


def lengths(
    plan: StudyPlan, strategy: Strategy, sites: Sequence[str], false_alarm: float = FALSE_ALARM
) -> Lengths | None:
    """What lengths the sum over ``sites`` may have; None where nothing can be predicted.

    That is without differential privacy, where a memory is part of what sites send, and of sums that are no update.
    """
    if not sites or strategy.corrections(plan.layout.size) or "update" not in strategy.part_sizes(plan.layout.size):
        return None
    event = plan.round_event(sites[0])
    if not isinstance(event, PoissonGaussian):
        return None
    rate, clip = plan.local.learning_rate, plan.privacy.clip_norm
    rule = strategy.local_rule(strategy.init(np.zeros(1, np.float32)).under(plan), rate)
    if rate * rule.proximal_mu > 1:  # then a step back would be longer than the step that it takes back
        return None
    personal = strategy.personal(plan.layout)
    size = strategy.part_sizes(plan.layout.size).get("update", plan.layout.size)
    size -= sum(end - first for first, end in personal.layers)
    if isinstance(plan.task, Statistics) and plan.task.by_site:  # a site has noise in its own place only
        size = plan.task.numbers
    steps, n, q = event.steps - personal.head_steps, len(sites), event.sampling_probability
    unit = rate * clip / q
    if "weight_steps" in strategy.part_sizes(size):  # FedNova sends p_k D_k / tau_k
        unit /= event.steps
    low_chance, part = log(2 / false_alarm), log(4 / false_alarm)
    noise = unit * event.noise_multiplier
    low = noise * sqrt(n * max(0.0, size - 2 * sqrt(size * low_chance)))
    expected = q * event.steps * sum(plan.declared_patients(site) for site in sites)
    batches = expected + max(sqrt(3 * expected * part), 3 * part)
    high = noise * sqrt(steps * n * (size + 2 * sqrt(size * part) + 2 * part)) + unit * batches
    return Lengths(low, high)
