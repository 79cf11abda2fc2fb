"""What a site keeps of a model for itself, as data that the site interprets. None of it leaves.

* ``layers``: coordinates that are trained with all others and not sent. At those the sum is zero, so the shared model
  stays where it began.
* ``head_steps``: see ``LocalRule``.
* ``pull``: a whole model of the site's own beside the shared one, pulled towards it with this strength.
* ``tuning_steps``: steps on the site's own patients from the final model, when the study is over.

**Privacy of layers.** In a step the site releases nothing; in a round it releases the shared coordinates of w. Let
g_s be the clipped and noised gradient of step s, all coordinates of it: a patient's whole gradient is clipped to C, and
noise of sigma C is added at every coordinate, so g_s is one sampled Gaussian mechanism whose inputs are the patients
and w_{s-1}. Then w_s, own layers included, is a function of w_{s-1} and g_s, which is to say of the outputs of earlier
mechanisms: adaptive composition covers it, and to leave coordinates out of what is sent is post-processing. It would
be no such thing if own layers were trained without noise, or clipped apart from the rest: the gradient of the shared
part depends on them.

**Privacy of an own model and of tuning.** Both look at the patients without noise, and nothing that is sent depends on
them. They are charged nothing as long as neither they nor any figure about them is released.
"""

from dataclasses import dataclass
from typing import Final

from wardround.protocol.parameters import Ranges

LAYERS: Final = "layers"
MODEL: Final = "model"


@dataclass(frozen=True, slots=True)
class Personal:
    layers: Ranges = ()
    head_steps: int = 0
    pull: float | None = None
    tuning_steps: int = 0

    def sizes(self, size: int) -> dict[str, int]:
        """Name and length of the arrays in a site's memory, for a model of ``size`` parameters."""
        layers = sum(end - first for first, end in self.layers)
        return ({LAYERS: layers} if layers else {}) | ({MODEL: size} if self.pull is not None else {})

    def __bool__(self) -> bool:
        """Whether a site ends with another model than the shared one."""
        return bool(self.layers or self.pull is not None or self.tuning_steps)
